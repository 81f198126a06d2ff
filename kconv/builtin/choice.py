"""Which problems stock's kernels take, whatever the sizes."""

import functools

from kconv import runtime, system
from kconv.builtin.depthwise import is_depthwise

# Channels, of float32, that fill the widest vector.
_LANES = 16

# Processors on which oneDNN takes the half types, and adds in float32.
_FLAGS = {"bfloat16": "avx512bw", "float16": "avx512_fp16"}


def refusal(pass_, spec, kernel_shape, dtype):
    """Returns the sentence why no stock kernel takes a problem, or None.

    On a GPU these are fewer: cuDNN has groups and dilation, and adds in float32.

    Some sizes they do not take either, which the core says.

    Args:
        pass_: String, the name of a pass.
        spec: A `ConvSpec`.
        kernel_shape: Tuple of ints.
        dtype: String.

    Returns:
        A string, or None.
    """
    on_gpu = runtime.has_gpu()
    if is_depthwise(spec, kernel_shape):
        return _depthwise_refusal(spec, dtype, on_gpu)
    if spec.groups > 1 and not on_gpu:
        return "Stock takes groups on CPU by compiling with XLA, anew for each call."
    later = spec.dims == 3 or pass_ != "forward"
    if max(spec.dilation_rate) > 1 and later and not on_gpu:
        return "Stock CPU kernels of this pass do not know dilation."
    if spec.dims == 3 and not isinstance(spec.padding, str):
        return "Stock 3D kernels take no explicit padding."
    if on_gpu:
        return None
    if is_unsafe(pass_, spec, kernel_shape, dtype):
        return "oneDNN's kernel of this gradient writes beyond its memory."
    wider = any(s > k for s, k in zip(spec.strides, kernel_shape[:-2], strict=True))
    if spec.dims == 3 and pass_ == "forward" and spec.padding == "SAME" and wider:
        # It pads by less than nothing, which moves the image.
        return "Stock's 3D kernel is wrong for strides beyond the kernel."
    rounds = dtype in _FLAGS and not _adds_in_float32(dtype)
    if rounds and later:
        # Gradients in bfloat16 were off by some per cent.
        return "Stock kernels of this pass round half types while they add."
    return None


def is_unsafe(pass_, spec, kernel_shape, dtype):
    """Whether stock's CPU kernel of a problem may break the process.

    Seen with TensorFlow 2.21, oneDNN with AVX2 and AVX-512, in float32: the filter
    gradient of a 1x1 kernel with strides writes beyond an array where the channels fill
    no vector, and the process dies then or later, of a free of what was overwritten.

    Args:
        pass_: String, the name of a pass.
        spec: A `ConvSpec`.
        kernel_shape: Tuple of ints.
        dtype: String.

    Returns:
        A bool.
    """
    return (
        pass_ == "filter_gradient"
        and runtime.engine() != "Eigen"
        and dtype != "float64"  # which it does not take
        and spec.groups == 1
        and set(kernel_shape[:-2]) == {1}
        and max(spec.strides) > 1
        and kernel_shape[-2] < _LANES
    )


@functools.lru_cache(maxsize=2)
def _adds_in_float32(dtype):
    flags = system.processor_flags()
    return runtime.engine() == "oneDNN" and _FLAGS[dtype] in flags


def _depthwise_refusal(spec, dtype, on_gpu):
    if max(spec.dilation_rate) > 1:
        return "Stock depthwise kernels do not know dilation."
    if len(set(spec.strides)) > 1:
        return "Stock depthwise kernels take equal strides only."
    if dtype in _FLAGS and not on_gpu:
        # A filter gradient in bfloat16 was off by a sixth.
        return "Stock depthwise kernels round half types after every addition."
    return None
