"""The stock kernel of each pass."""

import dataclasses

import tensorflow as tf

from kconv import runtime
from kconv.builtin.depthwise import by_channel, is_depthwise, zero_if_empty
from kconv.operands import Outline, sizes_of

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
    first = spec.data_format == "channels_first"
    if first and not runtime.has_gpu():
        return _run_channels_first(pass_, spec, operands)
    x, kernel, dy = operands
    kernel_shape = kernel.shape
    strides, dilations = spec.strides, spec.dilation_rate
    pads = spec.attributes["explicit_paddings"]
    depthwise = is_depthwise(spec, kernel_shape)
    height = 2 if first else 1
    if depthwise:
        kernel = by_channel(spec, kernel, x)
    if spec.dims == 1:  # as an image of one row
        # Of depthwise kernels both strides must be the same.
        strides = (strides[0] if depthwise else 1, *strides)
        dilations = (1, *dilations)
        pads = pads and [0, 0, *pads]
        if pass_ != "input_gradient":
            x = tf.expand_dims(x, height)
        dy = dy if dy is None else tf.expand_dims(dy, height)
        kernel = tf.expand_dims(kernel, 0)
    spatial = "DHW" if spec.dims == 3 else "HW"
    arguments = {
        "strides": list(spec.tensor_shape(1, strides, 1)),
        "dilations": list(spec.tensor_shape(1, dilations, 1)),
        "padding": spec.attributes["padding"],
        "data_format": f"NC{spatial}" if first else f"N{spatial}C",
    }
    if spec.dims < 3:
        # Before and after of each axis, those of batch and channels among them.
        padded = [0, 0, 0, 0, *pads] if first else [0, 0, *pads, 0, 0]
        arguments["explicit_paddings"] = pads and padded
    if depthwise:
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
            sizes = tf.concat([sizes[:height], [1], sizes[height:]], 0)
        arguments |= {"input_sizes": sizes, "filter": kernel, "out_backprop": dy}
    else:
        sizes = tf.shape(kernel)
        arguments |= {"input": x, "filter_sizes": sizes, "out_backprop": dy}
    result = function(**arguments)
    if pass_ == "filter_gradient" and depthwise:
        return tf.reshape(zero_if_empty(result, x), kernel_shape)
    if spec.dims == 1:
        result = tf.squeeze(result, 0 if pass_ == "filter_gradient" else height)
    return result


def _run_channels_first(pass_, spec, operands):
    """Between transpositions: on the CPU stock knows channels_last only."""
    to_last = [0, *range(2, spec.dims + 2), 1]
    to_first = [0, spec.dims + 1, *range(1, spec.dims + 1)]

    def transposed(image):
        # Of the one that is computed the values do not count.
        if image is None or isinstance(image, tf.Tensor):
            return None if image is None else tf.transpose(image, to_last)
        shape = tf.TensorShape([image.shape[i] for i in to_last])
        return Outline(shape, image.dtype, tf.gather(sizes_of(image), to_last))

    if pass_ == "input_gradient" and isinstance(operands.input, tf.Tensor):
        outline = Outline(
            operands.input.shape, operands.input.dtype, sizes_of(operands.input)
        )
        operands = operands._replace(input=outline)
    if pass_ == "forward":
        operands = operands._replace(output=None)
    last = dataclasses.replace(spec, data_format="channels_last")
    operands = operands._replace(
        input=transposed(operands.input), output=transposed(operands.output)
    )
    result = run(pass_, last, operands)
    return result if pass_ == "filter_gradient" else tf.transpose(result, to_first)
