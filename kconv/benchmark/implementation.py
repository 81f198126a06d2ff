"""Which implementation TensorFlow took, read from what oneDNN tells about itself."""

import os
import sys
import tempfile

# Has oneDNN print a line for each of its primitives that runs.
ENVIRONMENT = {"ONEDNN_VERBOSE": "1"}

EIGEN, COMPILED = "Eigen", "XLA"

# What a convolution may be to oneDNN.
_PRIMITIVES = ("convolution", "deconvolution", "inner_product", "matmul")


def name(words):
    """The implementation that computed a convolution.

    Args:
        words: What a call of TensorFlow's kernel printed under `ENVIRONMENT`.

    Returns:
        "oneDNN" and its name for the implementation, "oneDNN brg_conv_fwd:avx2"; or
        `EIGEN`, which calls at most oneDNN's matrix product, piece by piece.
    """
    for line in words.splitlines():
        fields = line.split(",")
        if not line.startswith("onednn_verbose,") or "exec" not in fields:
            continue
        # The kind of processor, the primitive, its implementation.
        _, primitive, taken = [*fields[fields.index("exec") + 1 :], "", "", ""][:3]
        if primitive in _PRIMITIVES:
            return f"oneDNN {taken}".rstrip()
    return EIGEN


def printed(call, *arguments):
    """What a call prints to the standard output of this process: a string."""
    sys.stdout.flush()
    own = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            call(*arguments)
        finally:
            os.dup2(own, 1)
            os.close(own)
        file.seek(0)
        return file.read().decode(errors="replace")
