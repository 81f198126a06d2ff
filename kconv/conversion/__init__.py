"""Swaps the layers of a model: stock Keras to kconv, and back."""

from kconv.conversion.models import convert, revert
from kconv.conversion.report import Report, Row

__all__ = ["Report", "Row", "convert", "revert"]
