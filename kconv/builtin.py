"""TensorFlow's own convolution: the candidate that bears the name "builtin".

`run` is one stock kernel for one pass, `refusal` says which problems it does not take
and `seconds` what it would cost; choosing between it and kconv is left to
`kconv.dispatch`. `conv` computes any convolution with stock ops, at whatever price, for
the places where kconv's own kernels cannot run.
"""

import dataclasses
import functools
import math
import os
import pathlib

import keras
import tensorflow as tf

from kconv import runtime
from kconv.epilogue import NO_EPILOGUE
from kconv.operands import sizes_of
from kconv.padding import pad

NAME = "builtin"

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
    if _is_depthwise(spec, kernel_shape):
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


def _is_depthwise(spec, kernel_shape):
    """Whether stock has kernels of its own for these groups, of one channel each."""
    return spec.dims < 3 and spec.groups > 1 and kernel_shape[-2] == 1


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
    if _is_depthwise(spec, kernel_shape):
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


_KERNELS = {
    (2, "forward"): tf.raw_ops.Conv2D,
    (2, "input_gradient"): tf.raw_ops.Conv2DBackpropInput,
    (2, "filter_gradient"): tf.raw_ops.Conv2DBackpropFilter,
    (3, "forward"): tf.raw_ops.Conv3D,
    (3, "input_gradient"): tf.raw_ops.Conv3DBackpropInputV2,
    (3, "filter_gradient"): tf.raw_ops.Conv3DBackpropFilterV2,
}
_DEPTHWISE_KERNELS = {
    "forward": tf.raw_ops.DepthwiseConv2dNative,
    "input_gradient": tf.raw_ops.DepthwiseConv2dNativeBackpropInput,
    "filter_gradient": tf.raw_ops.DepthwiseConv2dNativeBackpropFilter,
}


def run(pass_, spec, operands):
    """Computes one pass with one stock kernel, for a problem that is not refused.

    Args:
        pass_: String, the name of a pass.
        spec: A `ConvSpec`.
        operands: An `Operands`; of the one that the pass computes only the shape is
            taken.

    Returns:
        A tensor.
    """
    x, kernel, dy = operands
    kernel_shape = kernel.shape
    strides, dilations = spec.strides, spec.dilation_rate
    pads = spec.attributes["explicit_paddings"]
    is_depthwise = _is_depthwise(spec, kernel_shape)
    if is_depthwise:
        kernel = _by_channel(spec, kernel, x)
    if spec.dims == 1:  # as an image of one row
        # Of depthwise kernels both strides must be the same.
        strides = (strides[0] if is_depthwise else 1, *strides)
        dilations = (1, *dilations)
        pads = pads and [0, 0, *pads]
        if pass_ != "input_gradient":
            x = tf.expand_dims(x, 1)
        dy = dy if dy is None else tf.expand_dims(dy, 1)
        kernel = tf.expand_dims(kernel, 0)
    arguments = {
        "strides": [1, *strides, 1],
        "dilations": [1, *dilations, 1],
        "padding": spec.attributes["padding"],
        "data_format": "NDHWC" if spec.dims == 3 else "NHWC",
    }
    if spec.dims < 3:
        arguments["explicit_paddings"] = pads and [0, 0, *pads, 0, 0]
    if is_depthwise:
        function = _DEPTHWISE_KERNELS[pass_]
    else:
        function = _KERNELS[max(spec.dims, 2), pass_]
        if spec.dims < 3:
            arguments["use_cudnn_on_gpu"] = True
    if pass_ == "forward":
        arguments |= {"input": x, "filter": kernel}
    elif pass_ == "input_gradient":
        sizes = sizes_of(x, tf.int32)
        if spec.dims == 1:
            sizes = tf.concat([sizes[:1], [1], sizes[1:]], 0)
        arguments |= {"input_sizes": sizes, "filter": kernel, "out_backprop": dy}
    else:
        sizes = tf.shape(kernel)
        arguments |= {"input": x, "filter_sizes": sizes, "out_backprop": dy}
    result = function(**arguments)
    if pass_ == "filter_gradient" and is_depthwise:
        return tf.reshape(_zero_if_empty(result, x), kernel_shape)
    if spec.dims == 1:
        result = tf.squeeze(result, 0 if pass_ == "filter_gradient" else 1)
    return result


def _by_channel(spec, kernel, inputs):
    """A kernel of groups of one channel, as stock's depthwise kernels take it."""
    kernel = tf.reshape(kernel, (*kernel.shape[:-2], spec.groups, -1))
    # For its gradient, which may be stock's.
    return _zero_if_empty(kernel, inputs)


def _zero_if_empty(tensor, inputs):
    """Returns a tensor, or zeros where there is no image.

    Without any, stock's depthwise filter gradient is memory that nobody wrote to.
    """
    if inputs.shape[0]:
        return tensor
    batch = sizes_of(inputs, tf.int32)[0]
    return tf.where(batch > 0, tensor, tf.zeros_like(tensor))


def conv(spec, inputs, kernel, epilogue=NO_EPILOGUE):
    """Computes any convolution, with its stock gradients, on any device and in XLA.

    Stock lacks explicit padding, strides together with dilation, unequal strides of
    depthwise kernels and, on CPU, channels_first: the first is padded beforehand, the
    next two are thinned out afterwards, the last is transposed. `spec.algorithm` is not
    looked at.

    Args:
        spec: A `ConvSpec`.
        inputs: A tensor.
        kernel: A tensor.
        epilogue: An `Epilogue`.

    Returns:
        A tensor.
    """
    if spec.data_format == "channels_first" and not runtime.has_gpu():
        inputs = tf.transpose(inputs, [0, *range(2, spec.dims + 2), 1])
        last = dataclasses.replace(spec, data_format="channels_last")
        outputs = conv(last, inputs, kernel, epilogue)
        return tf.transpose(outputs, [0, spec.dims + 1, *range(1, spec.dims + 1)])
    return epilogue.apply(_conv(spec, inputs, kernel), spec.data_format)


def _conv(spec, inputs, kernel):
    shape = spec.output_shape(tuple(inputs.shape), tuple(kernel.shape))
    if 0 in shape and None not in shape[1:]:
        return _empty(spec, inputs, kernel)
    strides, padding = spec.strides, spec.padding
    thin_out = max(strides) > 1 and max(spec.dilation_rate) > 1
    convolve, filters = keras.ops.conv, kernel
    # Other groups keras.ops.conv has XLA compile on CPU, anew for each call.
    if _is_depthwise(spec, kernel.shape) and inputs.dtype.is_floating:
        convolve, filters = keras.ops.depthwise_conv, _by_channel(spec, kernel, inputs)
        thin_out = thin_out or len(set(strides)) > 1
    if thin_out or not isinstance(padding, str):
        # "same" depends on the strides, so it is settled before they are taken away.
        inputs = pad(spec, inputs, tuple(kernel.shape[:-2]))
        padding = "VALID"
    outputs = convolve(
        inputs,
        filters,
        strides=1 if thin_out else strides,
        padding=padding.lower(),
        data_format=spec.data_format,
        dilation_rate=spec.dilation_rate,
    )
    if thin_out:
        steps = [slice(None, None, stride) for stride in strides]
        outputs = outputs[spec.tensor_shape(slice(None), steps, slice(None))]
    return outputs


def conv_transpose(spec, image, inputs, kernel):
    """Computes any transposed convolution, as `conv` any convolution.

    Stock has no groups in these and, on CPU, no dilation; explicit padding it has in
    two dimensions only. Such a one is a convolution of the inputs with zeros between
    them by the kernel turned round.

    Args:
        spec: A `ConvSpec`, of the convolution from the output to `inputs`.
        image: An `Outline` of the output.
        inputs: A tensor.
        kernel: A tensor.

    Returns:
        A tensor.
    """
    if 0 in inputs.shape[1:] or 0 in image.shape[1:]:
        return _zeros(sizes_of(image), inputs, kernel)
    if spec.data_format == "channels_first" and not runtime.has_gpu():
        inputs = tf.transpose(inputs, [0, *range(2, spec.dims + 2), 1])
        last = dataclasses.replace(spec, data_format="channels_last")
        order = [0, *range(2, spec.dims + 2), 1]
        shape = tf.TensorShape([image.shape[i] for i in order])
        image = image._replace(shape=shape, sizes=tf.gather(sizes_of(image), order))
        outputs = conv_transpose(last, image, inputs, kernel)
        return tf.transpose(outputs, [0, spec.dims + 1, *range(1, spec.dims + 1)])
    plain = isinstance(spec.padding, str) and max(spec.dilation_rate) == 1
    if plain and spec.groups == 1:
        formats = {
            "channels_last": "NWC NHWC NDHWC",
            "channels_first": "NCW NCHW NCDHW",
        }
        return tf.nn.conv_transpose(
            inputs,
            kernel,
            sizes_of(image, tf.int32),
            spec.strides,
            spec.padding,
            formats[spec.data_format].split()[spec.dims - 1],
        )
    pads = spec.pads(spec.size(_sizes(image)), tuple(kernel.shape[:-2]))
    spread = _spread(spec, image, inputs, tuple(kernel.shape[:-2]), pads)
    turned = dataclasses.replace(spec, strides=(1,) * spec.dims, padding="VALID")
    return conv(turned, spread, _turned(spec, kernel))


def _sizes(tensor):
    """The shape of a tensor or `Outline`, with scalar tensors where it is unknown."""
    dynamic = tf.unstack(sizes_of(tensor, tf.int32), tensor.shape.rank)
    return [n if m is None else m for n, m in zip(dynamic, tensor.shape, strict=True)]


def _spread(spec, image, inputs, kernel_size, pads):
    """Puts zeros between the inputs, and around them as many as the output needs."""
    sizes = _sizes(inputs)
    for i, stride in enumerate(spec.strides):
        if stride > 1:
            axis = i + (1 if spec.data_format == "channels_last" else 2)
            # Ahead of the others there are none: one less than stride times size.
            split = tf.expand_dims(inputs, axis + 1)
            zeros = [(0, 0)] * split.shape.rank
            zeros[axis + 1] = (0, stride - 1)
            sizes[axis] = sizes[axis] * stride
            inputs = tf.reshape(tf.pad(split, zeros), sizes)
            sizes[axis] = sizes[axis] - (stride - 1)
            inputs = tf.slice(inputs, [0] * len(sizes), sizes)
    around = []
    for size, wanted, dilated, (before, _) in zip(
        spec.size(sizes),
        spec.size(_sizes(image)),
        spec.dilated(kernel_size),
        pads,
        strict=True,
    ):
        first = dilated - 1 - before
        around.append((first, wanted - size - first + dilated - 1))
    # Where there are more pads than taps, inputs are cut away.
    begins = spec.tensor_shape(0, [tf.maximum(0, -a) for a, _ in around], 0)
    ends = spec.tensor_shape(0, [tf.maximum(0, -b) for _, b in around], 0)
    sizes = [n - a - b for n, a, b in zip(sizes, begins, ends, strict=True)]
    inputs = tf.slice(inputs, begins, sizes)
    positive = [(tf.maximum(0, a), tf.maximum(0, b)) for a, b in around]
    inputs = tf.pad(inputs, spec.tensor_shape((0, 0), positive, (0, 0)))
    known = [
        None if n is None else n + dilated - 1
        for n, dilated in zip(
            spec.size(image.shape), spec.dilated(kernel_size), strict=True
        )
    ]
    return tf.ensure_shape(
        inputs,
        spec.tensor_shape(image.shape[0], known, spec.channels(inputs.shape)),
    )


def _turned(spec, kernel):
    """The kernel of the transposed convolution as that of a convolution."""
    size, (of_group, channels) = tuple(kernel.shape[:-2]), tuple(kernel.shape[-2:])
    kernel = tf.reverse(kernel, range(spec.dims))
    kernel = tf.reshape(kernel, (*size, of_group, spec.groups, channels // spec.groups))
    kernel = tf.transpose(
        kernel, [*range(spec.dims), spec.dims + 2, spec.dims + 1, spec.dims]
    )
    shape = (*size, channels // spec.groups, spec.groups * of_group)
    return tf.reshape(kernel, shape)


def _empty(spec, inputs, kernel):
    """The output where it is empty: stock calls that an error, or errs itself."""
    shape = spec.output_shape(tuple(inputs.shape), tuple(kernel.shape))
    shape = [tf.shape(inputs)[0] if n is None else n for n in shape]
    return _zeros(shape, inputs, kernel)


def _zeros(shape, inputs, kernel):
    # The sums change nothing, but give both operands a gradient, which is zero.
    sums = tf.reduce_sum(inputs) + tf.reduce_sum(kernel)
    return tf.zeros(shape, inputs.dtype) * sums
