"""The functional face of kconv: operations on tensors."""

from kconv import gradients as gradients  # registers those of kconv's ops
from kconv.dispatch import check_algorithm
from kconv.ops.conv_transpose import ConvTranspose, conv_transpose
from kconv.ops.convolution import Conv, conv
from kconv.ops.deformable import DeformConv, deform_conv
from kconv.ops.depthwise import DepthwiseConv, depthwise_conv
from kconv.ops.explaining import algorithms, explain
from kconv.ops.preparing import prepare_filter
from kconv.ops.separable import SeparableConv, separable_conv
from kconv.prepared import PreparedFilter

__all__ = [
    "Conv",
    "ConvTranspose",
    "DeformConv",
    "DepthwiseConv",
    "PreparedFilter",
    "SeparableConv",
    "algorithms",
    "check_algorithm",
    "conv",
    "conv_transpose",
    "deform_conv",
    "depthwise_conv",
    "explain",
    "prepare_filter",
    "separable_conv",
]
