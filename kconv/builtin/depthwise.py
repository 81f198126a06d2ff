"""Groups of one channel each, for which stock has kernels of its own."""

import tensorflow as tf

from kconv.operands import sizes_of


def is_depthwise(spec, kernel_shape):
    """Whether stock has kernels of its own for these groups, of one channel each."""
    return spec.dims < 3 and spec.groups > 1 and kernel_shape[-2] == 1


def by_channel(spec, kernel, inputs):
    """A kernel of groups of one channel, as stock's depthwise kernels take it."""
    kernel = tf.reshape(kernel, (*kernel.shape[:-2], spec.groups, -1))
    # For its gradient, which may be stock's.
    return zero_if_empty(kernel, inputs)


def zero_if_empty(tensor, inputs):
    """Returns a tensor, or zeros where there is no image.

    Without any, stock's depthwise filter gradient is memory that nobody wrote to.
    """
    if inputs.shape[0]:
        return tensor
    batch = sizes_of(inputs, tf.int32)[0]
    return tf.where(batch > 0, tensor, tf.zeros_like(tensor))
