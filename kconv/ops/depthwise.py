"""Depthwise convolution."""

import keras
import tensorflow as tf

from kconv import dispatch
from kconv.dispatch import check_algorithm
from kconv.epilogue import LINEAR, Epilogue
from kconv.ops.checks import check_activation, check_bias, check_dtypes
from kconv.ops.operation import ConvOperation, read_operands
from kconv.spec import depthwise_spec, grouped_shape

_PLACES = "channel of the output, the channels of `inputs` times the multiplier"


@keras.saving.register_keras_serializable(package="kconv")
class DepthwiseConv(ConvOperation):
    """`kconv.ops.depthwise_conv` as a node of a Functional model.

    Args:
        strides: As in `kconv.ops.depthwise_conv`.
        padding: As in `kconv.ops.depthwise_conv`.
        data_format: As in `kconv.ops.depthwise_conv`.
        dilation_rate: As in `kconv.ops.depthwise_conv`.
        algorithm: As in `kconv.ops.depthwise_conv`.
        activation: As in `kconv.ops.depthwise_conv`.
        name: String, the name of the node.

    Raises:
        ValueError: If `algorithm` or `activation` is unknown; when called, as
            `kconv.ops.depthwise_conv`.

    Example:

    >>> x = keras.Input((10, 10, 32))
    >>> kernel = np.random.rand(3, 3, 32, 2).astype("float32")
    >>> y = kconv.ops.DepthwiseConv(strides=2, padding="same")(x, kernel)
    >>> y.shape
    (None, 5, 5, 64)
    """

    def call(self, inputs, kernel, bias=None):
        """Computes the convolution of two tensors, with the bias if there is one."""
        return depthwise_conv(
            inputs, kernel, **self.arguments, bias=bias, activation=self.activation
        )

    def compute_output_spec(self, inputs, kernel, bias=None):
        """Returns a KerasTensor of the output's shape and dtype."""
        shapes = tuple(inputs.shape), tuple(kernel.shape)
        spec = depthwise_spec(*shapes, **self.arguments)
        check_dtypes(inputs, kernel)
        grouped = grouped_shape(shapes[1])
        if bias is not None:
            check_bias(bias, inputs, grouped[-1], _PLACES)
        return keras.KerasTensor(
            spec.output_shape(shapes[0], grouped), dtype=inputs.dtype
        )


@tf.autograph.experimental.do_not_convert
def depthwise_conv(
    inputs,
    kernel,
    strides=1,
    padding="valid",
    data_format=None,
    dilation_rate=1,
    algorithm="auto",
    bias=None,
    activation=None,
):
    """Convolves each channel by itself, in one, two or three spatial dimensions.

    The counterpart of `keras.ops.depthwise_conv`, on the kernel that is fastest for the
    problem. It is a convolution with a group for each channel: `kconv.ops.conv` with
    the kernel reshaped to `(*kernel_size, 1, channels * multiplier)`, which is also
    what `kconv.ops.explain` takes for it. All that `kconv.ops.conv` tells of the choice
    of a kernel, of devices and of accuracy holds here.

    Args:
        inputs: Tensor of a floating dtype, of shape `(batch, *size, channels)` with
            `data_format="channels_last"`, or `(batch, channels, *size)` with
            `data_format="channels_first"`.
        kernel: Tensor of the dtype of `inputs`, of shape
            `(*kernel_size, channels, multiplier)` in both data formats. Channel
            `c * multiplier + j` of the output is channel `c` of `inputs` convolved with
            `kernel[..., c, j]`.
        strides: Positive int, or one for each spatial dimension; they may differ.
        padding: `"valid"`, `"same"`, `"causal"` for one spatial dimension, or a pair of
            ints (before, after) for each spatial dimension, as in `kconv.ops.conv`.
        data_format: `"channels_last"`, `"channels_first"` or None, which takes
            `keras.config.image_data_format()`.
        dilation_rate: Positive int, or one for each spatial dimension; may be combined
            with strides.
        algorithm: `"auto"`, `"auto:strict"` or a name out of `kconv.ops.algorithms()`,
            as in `kconv.ops.conv`.
        bias: Tensor of the dtype of `inputs`, of shape `(channels * multiplier,)`, to
            be added to the channels of the output; or None.
        activation: `"relu"` or `"relu6"`, to be applied last; `"linear"` or None for
            none.

    Returns:
        A tensor of the dtype of `inputs`, of `channels * multiplier` channels and of
        spatial sizes as from `kconv.ops.conv`.

    Raises:
        ValueError: If an argument is wrong, if shapes do not fit, or if a forced
            algorithm does not take the problem.

    Example:

    >>> x = np.random.rand(4, 10, 10, 32).astype("float32")
    >>> kernel = np.random.rand(3, 3, 32, 2).astype("float32")
    >>> y = kconv.ops.depthwise_conv(x, kernel, strides=2, padding="same")
    >>> y.shape
    TensorShape([4, 5, 5, 64])
    >>> told = kconv.ops.explain(x, (3, 3, 1, 64), strides=2, padding="same")

    Source:
        Chollet, "Xception: Deep learning with depthwise separable convolutions", 2017.
    """
    arguments = strides, padding, data_format, dilation_rate, algorithm
    inputs, kernel, bias, output = read_operands(
        DepthwiseConv,
        (*arguments, activation),
        {"bias": bias},
        inputs=inputs,
        kernel=kernel,
    )
    if output is not None:
        return output
    check_algorithm(algorithm)
    check_activation(activation)
    check_dtypes(inputs, kernel)
    kernel_shape = tuple(kernel.shape)
    spec = depthwise_spec(tuple(inputs.shape), kernel_shape, *arguments)
    grouped = grouped_shape(kernel_shape)
    if bias is not None:
        check_bias(bias, inputs, grouped[-1], _PLACES)
    epilogue = Epilogue(bias, activation or LINEAR)
    told = f"inputs.shape={tuple(inputs.shape)}, kernel.shape={kernel_shape}"
    kernel = tf.reshape(kernel, grouped)
    return dispatch.conv(spec, inputs, kernel, epilogue, told=told)
