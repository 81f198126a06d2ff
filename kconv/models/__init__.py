"""Whole models: what keras.applications has, converted, and what it lacks."""

from kconv.models.lenet import LeNet5
from kconv.models.registry import build, list
from kconv.models.shufflenet_v2 import ShuffleNetV2

__all__ = [
    "LeNet5",
    "ShuffleNetV2",
    "build",
    "list",
]
