"""The convolutions that layers and operations of Keras and kconv compute."""

import math
from dataclasses import dataclass

import keras

from kconv.padding import ZEROS
from kconv.spec import ConvSpec, conv_spec, grouped_shape, plain
from kconv.transposition import transpose_spec


@dataclass(frozen=True)
class Convolution:
    """A convolution, or a transposed one, of known shape.

    Attributes:
        spec: `ConvSpec`, of the convolution that a transposed one undoes.
        is_transposed: Bool.
        input_shape: Tuple of ints.
        output_shape: Tuple of ints.
        kernel_shape: Tuple of ints.
        pads: Tuple of pairs, how the input of the `spec` is padded.
        padded_before: Bool, whether another operation pads.
    """

    spec: ConvSpec
    is_transposed: bool
    input_shape: tuple
    output_shape: tuple
    kernel_shape: tuple
    pads: tuple
    padded_before: bool = False

    @property
    def macs(self):
        """Multiply-accumulates by definition, taps on the padding among them."""
        if self.is_transposed:
            of_input = (*self.kernel_shape[:-2], self.kernel_shape[-2])
            return math.prod(self.input_shape) * math.prod(of_input)
        return math.prod(self.output_shape) * math.prod(self.kernel_shape[:-1])

    @property
    def image_shape(self):
        """Shape of the input of the `spec`, as its algorithms see it."""
        if self.is_transposed:
            return self.output_shape
        if not self.padded_before:
            return self.input_shape
        size = zip(self.spec.size(self.input_shape), self.pads, strict=True)
        return self.spec.tensor_shape(
            self.input_shape[0],
            tuple(n + sum(pair) for n, pair in size),
            self.spec.channels(self.input_shape),
        )

    @property
    def axes(self):
        """Tuple of ints, the spatial axes of the input and the output."""
        first = 1 if self.spec.data_format == "channels_last" else 2
        return tuple(range(first, first + self.spec.dims))

    @property
    def channel_axis(self):
        """Int, the axis of the channels."""
        last = self.spec.data_format == "channels_last"
        return self.spec.dims + 1 if last else 1


def forward(input_shape, kernel_shape, arguments, padding_mode=ZEROS):
    """Returns the `Convolution` of `kconv.ops.conv` with these arguments."""
    spec = conv_spec(input_shape, kernel_shape, **arguments)
    return Convolution(
        spec,
        False,
        input_shape,
        spec.output_shape(input_shape, kernel_shape),
        kernel_shape,
        spec.pads(spec.size(input_shape), kernel_shape[:-2]),
        padding_mode != ZEROS,
    )


def transposed(input_shape, kernel_shape, arguments):
    """Returns the `Convolution` of `kconv.ops.conv_transpose` with these arguments."""
    spec, output_shape = transpose_spec(input_shape, kernel_shape, **arguments)
    shape = output_shape(input_shape)
    pads = spec.pads(spec.size(shape), kernel_shape[:-2])
    return Convolution(spec, True, input_shape, shape, kernel_shape, pads)


def of_conv(call):
    """Of `Conv1D` to `Conv3D`."""
    layer, shape = call.operation, call.shapes[0]
    channels = shape[_channel_axis(layer)]
    kernel_shape = (*layer.kernel_size, channels // layer.groups, layer.filters)
    return (forward(shape, kernel_shape, _arguments(layer), _mode(layer)),)


def of_depthwise(call):
    """Of `DepthwiseConv1D` to `DepthwiseConv3D`."""
    layer, shape = call.operation, call.shapes[0]
    channels = shape[_channel_axis(layer)]
    kernel_shape = (*layer.kernel_size, channels, layer.depth_multiplier)
    kernel_shape = grouped_shape(kernel_shape)
    return (forward(shape, kernel_shape, _arguments(layer), _mode(layer)),)


def of_separable(call):
    """Of `SeparableConv1D` to `SeparableConv3D`: both halves."""
    (depthwise,), layer = of_depthwise(call), call.operation
    channels = depthwise.kernel_shape[-1]
    kernel_shape = (*(1,) * len(layer.kernel_size), channels, layer.filters)
    return depthwise, _pointwise(depthwise, kernel_shape, layer)


def of_transpose(call):
    """Of `Conv1DTranspose` to `Conv3DTranspose`."""
    layer, shape = call.operation, call.shapes[0]
    groups = getattr(layer, "groups", 1)
    kernel_shape = (
        *layer.kernel_size,
        layer.filters // groups,
        shape[_channel_axis(layer)],
    )
    mine = {"output_padding": plain(layer.output_padding), "groups": groups}
    return (transposed(shape, kernel_shape, {**_arguments(layer), **mine}),)


def of_offset_branch(call):
    """Of `DeformableConv2D`: the convolution that its offsets come from, if any."""
    layer, shape = call.operation, call.shapes[0]
    if not layer.own_offsets:
        return ()
    kernel_shape = tuple(layer.offset_kernel.shape)
    return (forward(shape, kernel_shape, _arguments(layer)),)


def of_conv_operation(call):
    """Of the functions `conv` of `keras.ops` and `kconv.ops`."""
    return (forward(*call.shapes[:2], _arguments(call.operation)),)


def of_depthwise_operation(call):
    """Of the functions `depthwise_conv`."""
    kernel_shape = grouped_shape(call.shapes[1])
    return (forward(call.shapes[0], kernel_shape, _arguments(call.operation)),)


def of_separable_operation(call):
    """Of the functions `separable_conv`: both halves."""
    (depthwise,) = of_depthwise_operation(call)
    return depthwise, _pointwise(depthwise, call.shapes[2], call.operation)


def of_transpose_operation(call):
    """Of the functions `conv_transpose`."""
    operation = call.operation
    mine = {
        "output_padding": plain(operation.output_padding),
        "groups": getattr(operation, "groups", 1),
    }
    return (transposed(*call.shapes[:2], {**_arguments(operation), **mine}),)


def _pointwise(depthwise, kernel_shape, operation):
    arguments = {
        "data_format": depthwise.spec.data_format,
        "algorithm": getattr(operation, "algorithm", "auto"),
    }
    return forward(depthwise.output_shape, kernel_shape, arguments)


def _arguments(operation):
    return {
        "strides": plain(operation.strides),
        "padding": plain(operation.padding),
        "data_format": operation.data_format or keras.config.image_data_format(),
        "dilation_rate": plain(operation.dilation_rate),
        "algorithm": getattr(operation, "algorithm", "auto"),
    }


def _mode(layer):
    return getattr(layer, "padding_mode", ZEROS)


def _channel_axis(layer):
    return -1 if layer.data_format == "channels_last" else 1
