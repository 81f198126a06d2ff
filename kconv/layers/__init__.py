"""Keras layers on kconv's convolutions, and blocks that networks of them are built of.

All others are Keras's: what `keras.layers` has and kconv has not is here as well, so
that a program may take `kconv.layers` wherever it took `keras.layers`. (`import *`
brings kconv's own only.)
"""

import keras

from kconv.layers.channel_shuffle import ChannelShuffle
from kconv.layers.conv import Conv1D, Conv2D, Conv3D
from kconv.layers.conv_transpose import (
    Conv1DTranspose,
    Conv2DTranspose,
    Conv3DTranspose,
)
from kconv.layers.deformable import DeformableConv2D
from kconv.layers.depthwise import DepthwiseConv1D, DepthwiseConv2D, DepthwiseConv3D
from kconv.layers.normalization import LocalResponseNormalization
from kconv.layers.separable import SeparableConv1D, SeparableConv2D, SeparableConv3D
from kconv.layers.squeeze_excite import SqueezeExcite

# Keras's other names.
Convolution1D = Conv1D
Convolution2D = Conv2D
Convolution3D = Conv3D
Convolution1DTranspose = Conv1DTranspose
Convolution2DTranspose = Conv2DTranspose
Convolution3DTranspose = Conv3DTranspose
SeparableConvolution1D = SeparableConv1D
SeparableConvolution2D = SeparableConv2D
SeparableConvolution3D = SeparableConv3D

__all__ = [
    "ChannelShuffle",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Convolution1D",
    "Convolution1DTranspose",
    "Convolution2D",
    "Convolution2DTranspose",
    "Convolution3D",
    "Convolution3DTranspose",
    "DeformableConv2D",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "DepthwiseConv3D",
    "LocalResponseNormalization",
    "SeparableConv1D",
    "SeparableConv2D",
    "SeparableConv3D",
    "SeparableConvolution1D",
    "SeparableConvolution2D",
    "SeparableConvolution3D",
    "SqueezeExcite",
]


def __getattr__(name):
    if not name.startswith("_") and hasattr(keras.layers, name):
        return getattr(keras.layers, name)
    raise AttributeError(f"Neither kconv.layers nor keras.layers has {name!r}.")


def __dir__():
    return sorted({*globals(), *dir(keras.layers)})
