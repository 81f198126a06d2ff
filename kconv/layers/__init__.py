"""Keras layers on kconv's convolutions."""

from kconv.layers.conv import Conv2D
from kconv.layers.depthwise import DepthwiseConv1D, DepthwiseConv2D, DepthwiseConv3D
from kconv.layers.separable import SeparableConv1D, SeparableConv2D, SeparableConv3D

Convolution2D = Conv2D
SeparableConvolution1D = SeparableConv1D
SeparableConvolution2D = SeparableConv2D
SeparableConvolution3D = SeparableConv3D

__all__ = [
    "Conv2D",
    "Convolution2D",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "DepthwiseConv3D",
    "SeparableConv1D",
    "SeparableConv2D",
    "SeparableConv3D",
    "SeparableConvolution1D",
    "SeparableConvolution2D",
    "SeparableConvolution3D",
]
