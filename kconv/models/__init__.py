"""Whole models: what keras.applications has, converted, and what it lacks."""

from kconv.models.lenet import LeNet5
from kconv.models.registry import build, list

__all__ = ["LeNet5", "build", "list"]
