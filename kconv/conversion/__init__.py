"""Swaps the layers of a model: stock Keras to kconv, and back; weights from PyTorch."""

from kconv.conversion.models import convert, revert
from kconv.conversion.pytorch import deformable_weights
from kconv.conversion.report import Report, Row

__all__ = ["Report", "Row", "convert", "deformable_weights", "revert"]
