"""TensorFlow's own convolution: the candidate that bears the name "builtin".

`run` is one stock kernel for one pass, and `refusal` says which problems it does not
take. What it would cost the core knows; choosing between it and kconv is left to
`kconv.dispatch`. `conv`, `conv_transpose` and `deform_conv` compute any convolution
with stock ops, at whatever price, for the places where kconv's own kernels cannot run.
"""

from kconv.builtin.choice import is_unsafe, refusal
from kconv.builtin.conv_transpose import conv_transpose
from kconv.builtin.convolution import conv
from kconv.builtin.deformable import deform_conv
from kconv.builtin.kernels import run

NAME = "builtin"

__all__ = [
    "NAME",
    "conv",
    "conv_transpose",
    "deform_conv",
    "is_unsafe",
    "refusal",
    "run",
]
