"""Which problems stock's kernels take, and what they would cost."""

import functools
import math
import os
import pathlib

from kconv.builtin.depthwise import is_depthwise

# Fraction of the peak of one core, frequency x vector lanes x 2 multiply-adds, that
# stock reaches in the forward pass, the input gradient and the filter gradient. The
# half types are counted against float32's peak. oneDNN on AVX-512: figures on Zen 4;
# the others: 28x28x128, kernel 3x3, batch 8, on Zen 3.
_EFFICIENCY = {
    ("onednn", "avx512"): {
        "float32": (0.55, 0.53, 0.38),
        "float64": (0.20, 0.17, 0.17),
        "bfloat16": (0.90, 0.80, 0.60),
        "float16": (0.50, 0.06, 0.08),
    },
    ("onednn", "avx2"): {
        "float32": (0.65, 0.55, 0.38),
        "float64": (0.45, 0.37, 0.38),
        "bfloat16": (0.60, 0.02, 0.02),
        "float16": (0.60, 0.07, 0.09),
    },
    ("eigen", "avx512"): {
        "float32": (0.27, 0.20, 0.13),
        "float64": (0.20, 0.17, 0.17),
        "bfloat16": (0.22, 0.01, 0.01),
        "float16": (0.30, 0.03, 0.04),
    },
    ("eigen", "avx2"): {
        "float32": (0.52, 0.38, 0.25),
        "float64": (0.45, 0.37, 0.38),
        "bfloat16": (0.43, 0.02, 0.02),
        "float16": (0.60, 0.07, 0.09),
    },
}
_PASSES = ("forward", "input_gradient", "filter_gradient")

# The same of depthwise convolutions: for kernels of at most 3 columns, and for others.
# Seen on Zen 3 with images of 14 to 112 pixels and 32 to 512 channels. They differ by
# up to two times, to both sides; oneDNN's filter gradient of wide kernels by more. The
# half types are refused.
_DEPTHWISE_EFFICIENCY = {
    "onednn": ((0.22, 0.20, 0.12), (0.30, 0.30, 0.05)),
    "eigen": ((0.09, 0.08, 0.08), (0.09, 0.08, 0.08)),
}

# Eigen multiplies matrices and gathers patches on the way; an element that it gathers
# costs it as much as so many multiply-adds (few channels on Zen 3).
_EIGEN_GATHER = 60

# Seconds that a stock op takes beside its arithmetic.
_OVERHEAD = 5e-6

# Processors on which TensorFlow takes oneDNN when TF_ENABLE_ONEDNN_OPTS is not set.
_ONEDNN_FLAGS = {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile"}


def refusal(pass_, spec, input_shape, kernel_shape, dtype):
    """Returns the sentence why stock's CPU kernels cannot take a problem, or None."""
    output_shape = spec.output_shape(input_shape, kernel_shape)
    sizes = [math.prod(shape) for shape in (input_shape, kernel_shape, output_shape)]
    if 0 in sizes:
        return "The problem is empty: there is nothing to win."
    if max(sizes) >= 2**31:
        return "Stock kernels count elements in 32 bits."
    if spec.data_format == "channels_first":
        return "Stock CPU kernels take channels_last only."
    if is_depthwise(spec, kernel_shape):
        return _depthwise_refusal(spec, dtype)
    if spec.groups > 1:
        return "Stock takes groups on CPU by compiling with XLA, anew for each call."
    if max(spec.dilation_rate) > 1 and (spec.dims == 3 or pass_ != "forward"):
        return "Stock CPU kernels of this pass do not know dilation."
    if spec.dims == 3 and not isinstance(spec.padding, str):
        return "Stock 3D kernels take no explicit padding."
    return None


def _depthwise_refusal(spec, dtype):
    if max(spec.dilation_rate) > 1:
        return "Stock depthwise kernels do not know dilation."
    if len(set(spec.strides)) > 1:
        return "Stock depthwise kernels take equal strides only."
    if dtype in ("float16", "bfloat16"):
        # A filter gradient in bfloat16 was off by a sixth.
        return "Stock depthwise kernels round half types after every addition."
    return None


def seconds(pass_, spec, kernel_shape, dtype, macs, frequency):
    """Estimated seconds of one stock op on one core.

    As if stock shared its work among cores as kconv does. Its depthwise kernels share
    images only in the gradients, so that a batch of one takes one core; the batch may
    not be known, nor are the cores that other ops leave.

    Args:
        pass_: String, the name of a pass.
        spec: A `ConvSpec`, of a problem that is not refused.
        kernel_shape: Tuple of ints.
        dtype: String.
        macs: Float, the multiply-accumulates of the problem.
        frequency: Float, of the processor in Hz.

    Returns:
        Float.
    """
    engine, isa, lanes = _engine()
    if is_depthwise(spec, kernel_shape):
        work = _depthwise_work(pass_, spec, kernel_shape, dtype, macs)
        # TensorFlow is compiled for AVX, whatever the processor has; what oneDNN does
        # with AVX-512 has not been timed.
        lanes = min(lanes, 8)
    else:
        work = macs / _EFFICIENCY[engine, isa][dtype][_PASSES.index(pass_)]
        if engine == "eigen":
            # The channels that each element of the image is multiplied for.
            columns = kernel_shape[-2 if pass_ == "input_gradient" else -1]
            work += _EIGEN_GATHER * macs / columns
    if dtype == "float64":
        lanes /= 2
    return _OVERHEAD + work / (frequency * lanes * 2)


def _depthwise_work(pass_, spec, kernel_shape, dtype, macs):
    """Multiply-accumulates at the peak that would take as long."""
    engine, _, _ = _engine()
    # oneDNN takes neither of these, or no faster than Eigen.
    if dtype == "float64" or kernel_shape[-1] > spec.groups:
        engine = "eigen"
    if engine == "eigen" and pass_ == "input_gradient":
        # It looks at every tap for every pixel.
        macs *= math.prod(spec.strides)
    wide = kernel_shape[-3] > 3
    return macs / _DEPTHWISE_EFFICIENCY[engine][wide][_PASSES.index(pass_)]


@functools.cache
def _engine():
    """Returns what computes stock's convolutions here: library, isa and lanes."""
    # Not from kconv._core, whose answer KCONV_MAX_ISA lowers: stock does not heed it.
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = set(next((line for line in lines if line.startswith("flags")), "").split())
    wish = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "").lower()
    onednn = wish in ("1", "true") or (not wish and bool(flags & _ONEDNN_FLAGS))
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "avx512").lower()
    avx512 = "avx512f" in flags and limit.startswith(("avx512", "default", "all"))
    lanes = 16 if avx512 else 8 if "avx2" in flags else 2
    return "onednn" if onednn else "eigen", "avx512" if avx512 else "avx2", lanes
