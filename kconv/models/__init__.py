"""Whole models: what keras.applications has, converted, and what it lacks."""

from kconv.models.alexnet import AlexNet
from kconv.models.deformable_resnet import DeformableResNet50
from kconv.models.googlenet import GoogLeNet
from kconv.models.hourglass import StackedHourglass
from kconv.models.lenet import LeNet5
from kconv.models.registry import build, list
from kconv.models.resnext import ResNeXt50
from kconv.models.se_resnet import SEResNet50
from kconv.models.shufflenet_v1 import ShuffleNetV1
from kconv.models.shufflenet_v2 import ShuffleNetV2

__all__ = [
    "AlexNet",
    "DeformableResNet50",
    "GoogLeNet",
    "LeNet5",
    "ResNeXt50",
    "SEResNet50",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "StackedHourglass",
    "build",
    "list",
]
