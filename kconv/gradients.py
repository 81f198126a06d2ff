"""The gradients of kconv's TensorFlow ops, each by the other ones."""

import tensorflow as tf

from kconv import dispatch, native
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


# Attributes that the ops of a deformable convolution have in common.
_OF_DEFORM_CONV = (
    *("strides", "dilations", "explicit_paddings", "padding"),
    *("groups", "offset_groups"),
)


@tf.RegisterGradient("Kconv>DeformConv")
def _deform_conv(op, upstream):
    x, kernel, offsets, *more = op.inputs
    num_mask = op.get_attr("num_mask")
    mask, bias = more[:num_mask], more[num_mask:]
    epilogue = Epilogue(*bias, activation=op.get_attr("activation").decode())
    upstream, by_bias = epilogue.gradients(op.outputs[0], upstream, "channels_last")
    given = {name: op.get_attr(name) for name in _OF_DEFORM_CONV}
    given.update(input=x, offsets=offsets, mask=mask, out_backprop=upstream)
    by_x, by_offsets, by_mask = native.ops().kconv_deform_conv_backprop_input(
        filter=kernel, **given
    )
    by_kernel = native.ops().kconv_deform_conv_backprop_filter(
        filter_sizes=tf.shape(kernel), **given
    )
    return [by_x, by_kernel, by_offsets, *by_mask, *([by_bias] if bias else [])]


@tf.RegisterGradient("Kconv>DeformConvBackpropInput")
@tf.RegisterGradient("Kconv>DeformConvBackpropFilter")
def _second_order_of_deform_conv(op, *upstream):
    raise NotImplementedError(
        "Second-order derivatives of a deformable convolution are not available. "
        f"Received: a gradient of {op.type}"
    )
