"""Multiply-accumulates, kind by kind. Each function takes a `Call`.

One is a multiplication and an addition. What is counted are the products of matrices
and convolutions by definition; the rest (biases, normalizations, activations, pooling,
elementwise operations) counts as none, as is usual.
"""

import math

from kconv.profiler import convolutions


def none(call):
    """Of what has no products to count."""
    del call
    return 0


def convolution(find):
    """Returns the function for a kind whose convolutions `find` finds."""

    def macs(call):
        return sum(one.macs for one in find(call))

    return macs


def deformable(call):
    """Of `DeformableConv2D`: with its offset branch, without interpolation."""
    found = *convolutions.of_conv(call), *convolutions.of_offset_branch(call)
    return sum(one.macs for one in found)


def dense(call):
    """Of `Dense`."""
    return math.prod(call.output_shape) * call.shapes[0][-1]


def einsum_dense(call):
    """Of `EinsumDense`."""
    layer = call.operation
    return of_equation(layer.equation, call.shapes[0], tuple(layer.kernel.shape))


def dot(call):
    """Of the layer `Dot`."""
    axes = call.operation.axes
    axis = axes if isinstance(axes, int) else axes[0]
    return math.prod(call.output_shape) * call.shapes[0][axis]


def matmul(call):
    """Of `keras.ops.matmul`."""
    return math.prod(call.output_shape) * call.shapes[0][-1]


def dot_operation(call):
    """Of `keras.ops.dot`; a product with a scalar has no sums."""
    first, second = call.shapes[:2]
    return math.prod(call.output_shape) * first[-1] if first and second else 0


def tensordot(call):
    """Of `keras.ops.tensordot`."""
    first = call.shapes[0]
    return math.prod(call.output_shape) * math.prod(
        first[axis] for axis in contracted(call.operation.axes, len(first))
    )


def contracted(axes, rank):
    """The axes of the first operand of `keras.ops.tensordot` that it sums over."""
    if isinstance(axes, int):
        return list(range(rank - axes, rank))
    first = axes[0]
    return [first] if isinstance(first, int) else list(first)


def einsum(call):
    """Of `keras.ops.einsum`."""
    return of_equation(call.operation.subscripts, *call.shapes)


def of_equation(equation, *shapes):
    """Multiplications of a sum over all letters; none without a product."""
    if len(shapes) < 2:
        return 0
    sizes = {}
    for letters, shape in zip(letters_of(equation, shapes)[0], shapes, strict=True):
        for letter, n in zip(letters, shape, strict=True):
            sizes[letter] = max(n, sizes.get(letter, 1))
    # Products of more than two are formed one after the other, at least.
    return math.prod(sizes.values()) * (len(shapes) - 1)


def letters_of(equation, shapes):
    """Returns the letters of each operand and of the result; digits for the ellipsis.

    Args:
        equation: String, as of `keras.ops.einsum`.
        shapes: Tuples of ints, of the operands.

    Returns:
        A list of strings and a string.
    """
    operands, _, result = equation.replace(" ", "").partition("->")
    operands = operands.split(",")
    if "->" not in equation:
        letters = "".join(operands).replace(".", "")
        once = sorted(one for one in set(letters) if letters.count(one) == 1)
        result = ("..." if "..." in equation else "") + "".join(once)
    most = 0
    for n, (letters, shape) in enumerate(zip(operands, shapes, strict=True)):
        if "..." in letters:
            hidden = len(shape) - len(letters) + 3
            most = max(most, hidden)
            operands[n] = letters.replace("...", "0123456789"[10 - hidden :])
    return operands, result.replace("...", "0123456789"[10 - most :])


def dot_product_attention(call):
    """Of `keras.ops.dot_product_attention`: (batch, length, heads, size) operands."""
    (batch, length, heads, size), key, value = call.shapes[:3]
    return batch * length * heads * key[1] * (size + value[-1])


def recurrent(call):
    """Of `SimpleRNN`, `LSTM`, `GRU` and `RNN` of their cells."""
    batch, steps = call.shapes[0][:2]
    each = _of_cell(call.operation.cell)
    return None if each is None else batch * steps * each


def _of_cell(cell):
    cells = getattr(cell, "cells", None)
    if cells is not None:
        each = [_of_cell(one) for one in cells]
        return None if None in each else sum(each)
    if type(cell).__name__ not in ("SimpleRNNCell", "LSTMCell", "GRUCell"):
        return None
    return math.prod(cell.kernel.shape) + math.prod(cell.recurrent_kernel.shape)


def conv_lstm(call):
    """Of `ConvLSTM1D` to `ConvLSTM3D`: four gates, each of two convolutions."""
    layer = call.operation
    batch, steps = call.shapes[0][:2]
    *_, channels, gates = layer.cell.kernel.shape
    size = _conv_lstm_size(call, channels, gates)
    each = math.prod(layer.cell.kernel.shape)
    # The recurrent convolution keeps the size.
    each += math.prod(layer.cell.recurrent_kernel.shape)
    return batch * steps * math.prod(size) * each


def _conv_lstm_size(call, channels, gates):
    layer, shape = call.operation, call.shapes[0]
    arguments = {
        "strides": layer.strides,
        "padding": layer.padding,
        "data_format": layer.data_format,
        "dilation_rate": layer.dilation_rate,
    }
    kernel_shape = (*layer.kernel_size, channels, gates)
    step_shape = (shape[0], *shape[2:])
    found = convolutions.forward(step_shape, kernel_shape, arguments)
    return found.spec.size(found.output_shape)
