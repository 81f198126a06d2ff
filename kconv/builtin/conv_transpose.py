"""Any transposed convolution by stock ops, on any device and in XLA."""

import dataclasses

import tensorflow as tf

from kconv import runtime
from kconv.builtin.convolution import conv, zeros
from kconv.operands import sizes_of


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
    # Of an empty batch too: the shape of what oneDNN makes of it is wrong.
    if 0 in inputs.shape or 0 in image.shape:
        return zeros(sizes_of(image), inputs, kernel)
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
    if tf.executing_eagerly():  # as in dispatch.conv_transpose
        return inputs
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
