"""Any convolution by stock ops, on any device and in XLA."""

import dataclasses

import keras
import tensorflow as tf

from kconv import runtime
from kconv.builtin.depthwise import by_channel, is_depthwise
from kconv.epilogue import NO_EPILOGUE
from kconv.padding import pad


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
    if is_depthwise(spec, kernel.shape) and inputs.dtype.is_floating:
        convolve, filters = keras.ops.depthwise_conv, by_channel(spec, kernel, inputs)
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


def _empty(spec, inputs, kernel):
    """The output where it is empty: stock calls that an error, or errs itself."""
    shape = spec.output_shape(tuple(inputs.shape), tuple(kernel.shape))
    shape = [tf.shape(inputs)[0] if n is None else n for n in shape]
    return zeros(shape, inputs, kernel)


def zeros(shape, inputs, kernel):
    """Zeros of a shape, which depend on both operands."""
    # The sums change nothing, but give both operands a gradient, which is zero.
    sums = tf.reduce_sum(inputs) + tf.reduce_sum(kernel)
    return tf.zeros(shape, inputs.dtype) * sums
