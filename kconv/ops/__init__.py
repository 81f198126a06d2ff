"""The functional face of kconv: operations on tensors."""

from kconv import gradients as gradients  # registers those of kconv's ops
from kconv.dispatch import check_algorithm
from kconv.ops.convolution import Conv, conv
from kconv.ops.explaining import algorithms, explain
from kconv.ops.preparing import prepare_filter
from kconv.prepared import PreparedFilter

__all__ = [
    "Conv",
    "PreparedFilter",
    "algorithms",
    "check_algorithm",
    "conv",
    "explain",
    "prepare_filter",
]
