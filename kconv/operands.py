"""What a pass of a convolution works on."""

import typing

import tensorflow as tf


class Outline(typing.NamedTuple):
    """What is known of a tensor that a pass is to compute, where there is none yet.

    Attributes:
        shape: `tf.TensorShape`.
        dtype: `tf.DType`.
        sizes: Vector of int64, the shape when the graph runs.
    """

    shape: tf.TensorShape
    dtype: tf.DType
    sizes: typing.Any


class Operands(typing.NamedTuple):
    """The three tensors of a convolution.

    Of the one that a pass computes only the shape is taken, so that an `Outline` will
    do, and the forward pass takes nothing of the output.
    """

    input: typing.Any = None
    filter: typing.Any = None
    output: typing.Any = None


def sizes_of(operand, dtype=tf.int64):
    """Returns the shape of a tensor or `Outline` as a vector, a constant if known."""
    if operand.shape.is_fully_defined():
        return tf.constant(operand.shape.as_list(), dtype)
    if isinstance(operand, Outline):
        return tf.cast(operand.sizes, dtype)
    return tf.shape(operand, out_type=dtype)
