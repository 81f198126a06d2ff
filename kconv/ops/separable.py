"""Depthwise separable convolution."""

import keras
import tensorflow as tf

from kconv import dispatch
from kconv.dispatch import check_algorithm
from kconv.ops.checks import check_activation, check_bias, check_dtypes
from kconv.ops.convolution import conv
from kconv.ops.operation import ConvOperation, read_operands
from kconv.settings import AUTO
from kconv.spec import conv_spec, depthwise_spec, grouped_shape

_PLACES = "filter of `pointwise_kernel`, its last axis"


@keras.saving.register_keras_serializable(package="kconv")
class SeparableConv(ConvOperation):
    """`kconv.ops.separable_conv` as a node of a Functional model.

    Args:
        strides: As in `kconv.ops.separable_conv`.
        padding: As in `kconv.ops.separable_conv`.
        data_format: As in `kconv.ops.separable_conv`.
        dilation_rate: As in `kconv.ops.separable_conv`.
        algorithm: As in `kconv.ops.separable_conv`.
        activation: As in `kconv.ops.separable_conv`.
        name: String, the name of the node.

    Raises:
        ValueError: If `algorithm` or `activation` is unknown; when called, as
            `kconv.ops.separable_conv`.

    Example:

    >>> x = keras.Input((10, 10, 32))
    >>> depthwise = np.random.rand(3, 3, 32, 2).astype("float32")
    >>> pointwise = np.random.rand(1, 1, 64, 48).astype("float32")
    >>> y = kconv.ops.SeparableConv(strides=2)(x, depthwise, pointwise)
    >>> y.shape
    (None, 4, 4, 48)
    """

    def call(self, inputs, depthwise_kernel, pointwise_kernel, bias=None):
        """Computes the convolution of tensors, with the bias if there is one."""
        return separable_conv(
            inputs,
            depthwise_kernel,
            pointwise_kernel,
            **self.arguments,
            bias=bias,
            activation=self.activation,
        )

    def compute_output_spec(
        self, inputs, depthwise_kernel, pointwise_kernel, bias=None
    ):
        """Returns a KerasTensor of the output's shape and dtype."""
        kernels = depthwise_kernel, pointwise_kernel
        _check_operands(inputs, *kernels, bias)
        shapes = (tuple(tensor.shape) for tensor in (inputs, *kernels))
        _, pointwise, middle_shape = _specs(*shapes, **self.arguments)
        shape = pointwise.output_shape(middle_shape, tuple(pointwise_kernel.shape))
        return keras.KerasTensor(shape, dtype=inputs.dtype)


@tf.autograph.experimental.do_not_convert
def separable_conv(
    inputs,
    depthwise_kernel,
    pointwise_kernel,
    strides=1,
    padding="valid",
    data_format=None,
    dilation_rate=1,
    algorithm="auto",
    bias=None,
    activation=None,
):
    """Convolves each channel by itself, and then all of them pixel by pixel.

    The counterpart of `keras.ops.separable_conv`: `kconv.ops.depthwise_conv`, then
    `kconv.ops.conv` with a kernel of one tap, which takes the bias and the activation.
    Both halves choose their kernels for themselves.

    Args:
        inputs: Tensor of a floating dtype, of shape `(batch, *size, channels)` with
            `data_format="channels_last"`, or `(batch, channels, *size)` with
            `data_format="channels_first"`.
        depthwise_kernel: Tensor of the dtype of `inputs`, of shape
            `(*kernel_size, channels, multiplier)` in both data formats.
        pointwise_kernel: Tensor of the dtype of `inputs`, of shape
            `(1, ..., 1, channels * multiplier, filters)`, with as many ones as there
            are spatial dimensions.
        strides: As in `kconv.ops.depthwise_conv`, of the depthwise half.
        padding: As in `kconv.ops.depthwise_conv`, of the depthwise half.
        data_format: `"channels_last"`, `"channels_first"` or None, which takes
            `keras.config.image_data_format()`.
        dilation_rate: As in `kconv.ops.depthwise_conv`, of the depthwise half.
        algorithm: `"auto"`, `"auto:strict"` or a name out of `kconv.ops.algorithms()`.
            A name that forces an algorithm does so in the depthwise half; the pointwise
            half is forced as well, unless the algorithm refuses it or a derivative of
            it, and then it takes `"auto"`.
        bias: Tensor of the dtype of `inputs`, of shape `(filters,)`, to be added to
            the channels of the output; or None.
        activation: `"relu"` or `"relu6"`, to be applied last; `"linear"` or None for
            none.

    Returns:
        A tensor of the dtype of `inputs`, of `filters` channels and of spatial sizes as
        from `kconv.ops.depthwise_conv`.

    Raises:
        ValueError: If an argument is wrong, if shapes do not fit, or if a forced
            algorithm does not take the depthwise half.

    Example:

    >>> x = np.random.rand(4, 10, 10, 32).astype("float32")
    >>> depthwise = np.random.rand(3, 3, 32, 2).astype("float32")
    >>> pointwise = np.random.rand(1, 1, 64, 48).astype("float32")
    >>> y = kconv.ops.separable_conv(x, depthwise, pointwise, padding="same")
    >>> y.shape
    TensorShape([4, 10, 10, 48])

    Source:
        Chollet, "Xception: Deep learning with depthwise separable convolutions", 2017.
    """
    arguments = strides, padding, data_format, dilation_rate, algorithm, activation
    inputs, depthwise_kernel, pointwise_kernel, bias, output = read_operands(
        SeparableConv,
        arguments,
        {"bias": bias},
        inputs=inputs,
        depthwise_kernel=depthwise_kernel,
        pointwise_kernel=pointwise_kernel,
    )
    if output is not None:
        return output
    check_algorithm(algorithm)
    check_activation(activation)
    _check_operands(inputs, depthwise_kernel, pointwise_kernel, bias)
    depthwise_shape = tuple(depthwise_kernel.shape)
    pointwise_shape = tuple(pointwise_kernel.shape)
    depthwise, pointwise, middle_shape = _specs(
        tuple(inputs.shape),
        depthwise_shape,
        pointwise_shape,
        strides=strides,
        padding=padding,
        data_format=data_format,
        dilation_rate=dilation_rate,
        algorithm=algorithm,
    )
    middle = dispatch.conv(
        depthwise,
        inputs,
        tf.reshape(depthwise_kernel, grouped_shape(depthwise_shape)),
        told=f"inputs.shape={inputs.shape}, depthwise_kernel.shape={depthwise_shape}",
    )
    problem = pointwise, middle_shape, pointwise_shape, inputs.dtype.name
    return conv(
        middle,
        pointwise_kernel,
        data_format=depthwise.data_format,
        algorithm=algorithm if dispatch.takes_all_passes(*problem) else AUTO,
        bias=bias,
        activation=activation,
    )


def _check_operands(inputs, depthwise_kernel, pointwise_kernel, bias):
    check_dtypes(inputs, depthwise_kernel, "depthwise_kernel")
    check_dtypes(inputs, pointwise_kernel, "pointwise_kernel")
    if bias is not None:
        shape = tuple(pointwise_kernel.shape)
        check_bias(bias, inputs, shape[-1] if shape else None, _PLACES)


def _specs(input_shape, depthwise_shape, pointwise_shape, algorithm, **arguments):
    """Returns the `ConvSpec`s of both halves, and the shape of what is between them."""
    depthwise = depthwise_spec(
        input_shape,
        depthwise_shape,
        **arguments,
        algorithm=algorithm,
        name="depthwise_kernel",
    )
    middle_shape = depthwise.output_shape(input_shape, grouped_shape(depthwise_shape))
    channels = depthwise.channels(middle_shape)
    received = (
        f"Received: inputs.shape={input_shape}, depthwise_kernel.shape="
        f"{depthwise_shape}, pointwise_kernel.shape={pointwise_shape}"
    )
    if pointwise_shape[:-1] != (1,) * depthwise.dims + (channels,):
        raise ValueError(
            "`pointwise_kernel` must have the shape (1, ..., 1, channels * multiplier, "
            "filters), of the rank of `depthwise_kernel`, whose last axes are the "
            f"channels and the multiplier. {received}"
        )
    if not pointwise_shape[-1]:
        raise ValueError(
            "`pointwise_kernel` must not be empty, and the number of its filters, its "
            f"last axis, must be known. {received}"
        )
    pointwise = conv_spec(
        middle_shape,
        pointwise_shape,
        data_format=depthwise.data_format,
        algorithm=algorithm,
    )
    return depthwise, pointwise, middle_shape
