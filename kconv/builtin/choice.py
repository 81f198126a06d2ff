"""Which problems stock's kernels take, whatever the sizes."""

import functools

from kconv import runtime, system
from kconv.builtin.depthwise import is_depthwise

# Processors on which oneDNN takes the half types, and adds in float32.
_FLAGS = {"bfloat16": "avx512bw", "float16": "avx512_fp16"}


def refusal(pass_, spec, kernel_shape, dtype):
    """Returns the sentence why stock's CPU kernels cannot take a problem, or None.

    Some sizes they do not take either, which the core says.

    Args:
        pass_: String, the name of a pass.
        spec: A `ConvSpec`.
        kernel_shape: Tuple of ints.
        dtype: String.

    Returns:
        A string, or None.
    """
    if is_depthwise(spec, kernel_shape):
        return _depthwise_refusal(spec, dtype)
    if spec.groups > 1:
        return "Stock takes groups on CPU by compiling with XLA, anew for each call."
    if max(spec.dilation_rate) > 1 and (spec.dims == 3 or pass_ != "forward"):
        return "Stock CPU kernels of this pass do not know dilation."
    if spec.dims == 3 and not isinstance(spec.padding, str):
        return "Stock 3D kernels take no explicit padding."
    wider = any(s > k for s, k in zip(spec.strides, kernel_shape[:-2], strict=True))
    if spec.dims == 3 and pass_ == "forward" and spec.padding == "SAME" and wider:
        # It pads by less than nothing, which moves the image.
        return "Stock's 3D kernel is wrong for strides beyond the kernel."
    rounds = dtype in _FLAGS and not _adds_in_float32(dtype)
    if rounds and (spec.dims == 3 or pass_ != "forward"):
        # Gradients in bfloat16 were off by some per cent.
        return "Stock kernels of this pass round half types while they add."
    return None


@functools.lru_cache(maxsize=2)
def _adds_in_float32(dtype):
    flags = system.processor_flags()
    return runtime.engine() == "oneDNN" and _FLAGS[dtype] in flags


def _depthwise_refusal(spec, dtype):
    if max(spec.dilation_rate) > 1:
        return "Stock depthwise kernels do not know dilation."
    if len(set(spec.strides)) > 1:
        return "Stock depthwise kernels take equal strides only."
    if dtype in _FLAGS:
        # A filter gradient in bfloat16 was off by a sixth.
        return "Stock depthwise kernels round half types after every addition."
    return None
