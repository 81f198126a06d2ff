"""The gradients of kconv's TensorFlow ops, each by the other two."""

import tensorflow as tf

from kconv import dispatch
from kconv.epilogue import Epilogue
from kconv.operands import Operands
from kconv.spec import ConvSpec


@tf.RegisterGradient("Kconv>Conv")
def _conv(op, upstream):
    x, kernel, *more = op.inputs
    bias = more[: op.get_attr("num_bias")]
    spec = ConvSpec.from_op(op)
    epilogue = Epilogue(*bias, activation=op.get_attr("activation").decode())
    upstream, by_bias = epilogue.gradients(op.outputs[0], upstream, spec.data_format)
    operands = Operands(input=x, filter=kernel)
    found = dispatch.gradients("forward", spec, operands, upstream)
    # None for a prepared filter and its source: they stand for the filter itself.
    of_more = [by_bias if i < len(bias) else None for i in range(len(more))]
    return [found.input, found.filter, *of_more]


@tf.RegisterGradient("Kconv>ConvBackpropInput")
def _conv_backprop_input(op, upstream):
    _, kernel, dy, *bias = op.inputs
    spec = ConvSpec.from_op(op)
    epilogue = Epilogue(*bias, activation=op.get_attr("activation").decode())
    upstream, by_bias = epilogue.gradients(op.outputs[0], upstream, spec.data_format)
    operands = Operands(filter=kernel, output=dy)
    found = dispatch.gradients("input_gradient", spec, operands, upstream)
    return [None, found.filter, found.output, *([by_bias] if bias else [])]


@tf.RegisterGradient("Kconv>ConvBackpropFilter")
def _conv_backprop_filter(op, upstream):
    x, _, dy = op.inputs
    operands = Operands(input=x, output=dy)
    spec = ConvSpec.from_op(op)
    found = dispatch.gradients("filter_gradient", spec, operands, upstream)
    return [found.input, None, found.output]
