"""Keras layers on kconv's convolutions."""

from kconv.layers.conv import Conv2D

Convolution2D = Conv2D

__all__ = ["Conv2D", "Convolution2D"]
