"""Whole models: what keras.applications has, converted, and what it lacks."""

from kconv.models.alexnet import AlexNet
from kconv.models.googlenet import GoogLeNet
from kconv.models.hourglass import StackedHourglass
from kconv.models.lenet import LeNet5
from kconv.models.registry import build, list

__all__ = [
    "AlexNet",
    "GoogLeNet",
    "LeNet5",
    "StackedHourglass",
    "build",
    "list",
]
