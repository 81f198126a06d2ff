"""Depthwise separable convolution layers."""

import keras

from kconv import ops
from kconv.layers.bases import of_any_rank
from kconv.layers.fused import PaddedConv


class _SeparableConv(PaddedConv):
    """What these layers do in the place of Keras's."""

    def _convolve(self, inputs, **epilogue):
        inputs, arguments = self._padded(inputs)
        kernels = self.depthwise_kernel, self.pointwise_kernel
        return ops.separable_conv(inputs, *kernels, **arguments, **epilogue)


@keras.saving.register_keras_serializable(package="kconv")
class SeparableConv1D(_SeparableConv, keras.layers.SeparableConv1D):
    """1D depthwise separable convolution layer.

    `keras.layers.SeparableConv1D` with the convolution computed by
    `kconv.ops.separable_conv`. `kconv.layers.SeparableConv2D` tells what holds for it.

    Args:
        filters: int, the dimensionality of the output space (the number of filters in
            the pointwise convolution).
        kernel_size: int or tuple/list of 1 integer, specifying the size of the
            depthwise convolution window.
        strides: int or tuple/list of 1 integer, specifying the stride length of the
            convolution.
        dilation_rate: int or tuple/list of 1 integer, specifying the dilation rate to
            use for dilated convolution.
        **kwargs: The others are those of `kconv.layers.SeparableConv2D`, in the same
            order.

    Input shape:
        A 3D tensor, `(batch_size, steps, channels)` with
        `data_format="channels_last"`, or `(batch_size, channels, steps)` with
        `data_format="channels_first"`.

    Output shape:
        A 3D tensor, `(batch_size, new_steps, filters)` with
        `data_format="channels_last"`, or
        `(batch_size, filters, new_steps)` with
        `data_format="channels_first"`.

    Returns:
        A 3D tensor representing `activation(pointwise(depthwise(inputs)) + bias)`.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> x = np.random.rand(4, 10, 12)
    >>> y = kconv.layers.SeparableConv1D(32, 3, activation="relu")(x)
    >>> print(y.shape)
    (4, 8, 32)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        depth_multiplier=1,
        activation=None,
        use_bias=True,
        depthwise_initializer="glorot_uniform",
        pointwise_initializer="glorot_uniform",
        bias_initializer="zeros",
        depthwise_regularizer=None,
        pointwise_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        depthwise_constraint=None,
        pointwise_constraint=None,
        bias_constraint=None,
        *,
        algorithm="auto",
        padding_mode="zeros",
        **kwargs,
    ):
        super().__init__(
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            depth_multiplier=depth_multiplier,
            activation=activation,
            use_bias=use_bias,
            depthwise_initializer=depthwise_initializer,
            pointwise_initializer=pointwise_initializer,
            bias_initializer=bias_initializer,
            depthwise_regularizer=depthwise_regularizer,
            pointwise_regularizer=pointwise_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            depthwise_constraint=depthwise_constraint,
            pointwise_constraint=pointwise_constraint,
            bias_constraint=bias_constraint,
            algorithm=algorithm,
            padding_mode=padding_mode,
            **kwargs,
        )


@keras.saving.register_keras_serializable(package="kconv")
class SeparableConv2D(_SeparableConv, keras.layers.SeparableConv2D):
    """2D depthwise separable convolution layer.

    `keras.layers.SeparableConv2D` with the convolution computed by
    `kconv.ops.separable_conv`: by the kernels that are fastest for the problem, kconv's
    own or TensorFlow's. It takes the same arguments in the same order, has the same
    weights, and does all else in the same way. The bias and the activations `"relu"`
    and `"relu6"` are part of the pointwise convolution, other activations follow it.

    `model.compile` leaves a model with this layer out of XLA; in a function of your own
    with `jit_compile=True` it runs on TensorFlow's ops. `kconv.layers.Conv2D` tells
    more of that.

    Args:
        filters: int, the dimensionality of the output space (the number of filters in
            the pointwise convolution).
        kernel_size: int or tuple/list of 2 integers, specifying the size of the
            depthwise convolution window.
        strides: int or tuple/list of 2 integers, specifying the stride length of the
            convolution. They may differ, and be combined with `dilation_rate`.
        padding: string, either `"valid"` or `"same"` (case-insensitive). `"valid"`
            means no padding. `"same"` results in padding evenly to both sides of the
            input. When `padding="same"` and `strides=1`, the output has the same size
            as the input. Or a pair of integers (before, after) for each
            spatial dimension, such as `((top, bottom), (left, right))`.
        data_format: string, either `"channels_last"` or `"channels_first"`, the
            ordering of the dimensions in the inputs. It defaults to the
            `image_data_format` value found in your Keras config file at
            `~/.keras/keras.json`. If you never set it, then it will be
            `"channels_last"`.
        dilation_rate: int or tuple/list of 2 integers, specifying the dilation rate to
            use for dilated convolution.
        depth_multiplier: The number of depthwise convolution output channels for each
            input channel.
        activation: Activation function. If `None`, no activation is applied.
        use_bias: bool, if `True`, bias will be added to the output.
        depthwise_initializer: Initializer for the depthwise kernel. If `None`, the
            default initializer (`"glorot_uniform"`) will be used.
        pointwise_initializer: Initializer for the pointwise kernel. If `None`, the
            default initializer (`"glorot_uniform"`) will be used.
        bias_initializer: Initializer for the bias vector. If `None`, the default
            initializer (`"zeros"`) will be used.
        depthwise_regularizer: Optional regularizer for the depthwise kernel.
        pointwise_regularizer: Optional regularizer for the pointwise kernel.
        bias_regularizer: Optional regularizer for the bias vector.
        activity_regularizer: Optional regularizer function for the output.
        depthwise_constraint: Optional projection function to be applied to the
            depthwise kernel after being updated by an `Optimizer`.
        pointwise_constraint: Optional projection function to be applied to the
            pointwise kernel after being updated by an `Optimizer`.
        bias_constraint: Optional projection function to be applied to the bias after
            being updated by an `Optimizer`.
        algorithm: string, `"auto"`, `"auto:strict"` or a name out of
            `kconv.ops.algorithms()`, to force an algorithm in the depthwise half and
            its gradients, and in the pointwise half if it does not refuse it.
        **kwargs: The arguments of every Keras layer, such as `name`, `dtype` and
            `trainable`.

    Input shape:
        A 4D tensor, `(batch_size, height, width, channels)` with
        `data_format="channels_last"`, or `(batch_size, channels, height, width)` with
        `data_format="channels_first"`.

    Output shape:
        A 4D tensor, `(batch_size, new_height, new_width, filters)` with
        `data_format="channels_last"`, or
        `(batch_size, filters, new_height, new_width)` with
        `data_format="channels_first"`.

    Returns:
        A 4D tensor representing `activation(pointwise(depthwise(inputs)) + bias)`.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> x = np.random.rand(4, 10, 10, 12)
    >>> y = kconv.layers.SeparableConv2D(32, 3, activation="relu")(x)
    >>> print(y.shape)
    (4, 8, 8, 32)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        data_format=None,
        dilation_rate=(1, 1),
        depth_multiplier=1,
        activation=None,
        use_bias=True,
        depthwise_initializer="glorot_uniform",
        pointwise_initializer="glorot_uniform",
        bias_initializer="zeros",
        depthwise_regularizer=None,
        pointwise_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        depthwise_constraint=None,
        pointwise_constraint=None,
        bias_constraint=None,
        *,
        algorithm="auto",
        padding_mode="zeros",
        **kwargs,
    ):
        super().__init__(
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            depth_multiplier=depth_multiplier,
            activation=activation,
            use_bias=use_bias,
            depthwise_initializer=depthwise_initializer,
            pointwise_initializer=pointwise_initializer,
            bias_initializer=bias_initializer,
            depthwise_regularizer=depthwise_regularizer,
            pointwise_regularizer=pointwise_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            depthwise_constraint=depthwise_constraint,
            pointwise_constraint=pointwise_constraint,
            bias_constraint=bias_constraint,
            algorithm=algorithm,
            padding_mode=padding_mode,
            **kwargs,
        )


@keras.saving.register_keras_serializable(package="kconv")
class SeparableConv3D(_SeparableConv, of_any_rank(keras.layers.SeparableConv2D)):
    """3D depthwise separable convolution layer.

    What `keras.layers.SeparableConv2D` would be in three dimensions, where Keras has
    no such layer. `kconv.layers.SeparableConv2D` tells what holds for it.

    Args:
        filters: int, the dimensionality of the output space (the number of filters in
            the pointwise convolution).
        kernel_size: int or tuple/list of 3 integers, specifying the size of the
            depthwise convolution window.
        strides: int or tuple/list of 3 integers, specifying the stride length of the
            convolution.
        dilation_rate: int or tuple/list of 3 integers, specifying the dilation rate to
            use for dilated convolution.
        **kwargs: The others are those of `kconv.layers.SeparableConv2D`, in the same
            order.

    Input shape:
        A 5D tensor, `(batch_size, depth, height, width, channels)` with
        `data_format="channels_last"`, or
        `(batch_size, channels, depth, height, width)` with
        `data_format="channels_first"`.

    Output shape:
        A 5D tensor, `(batch_size, new_depth, new_height, new_width, filters)` with
        `data_format="channels_last"`, or
        `(batch_size, filters, new_depth, new_height, new_width)` with
        `data_format="channels_first"`.

    Returns:
        A 5D tensor representing `activation(pointwise(depthwise(inputs)) + bias)`.

    Raises:
        ValueError: If an argument is wrong.
        RuntimeError: If this version of Keras has no base for such a layer.

    Example:

    >>> x = np.random.rand(4, 10, 10, 10, 12)
    >>> y = kconv.layers.SeparableConv3D(32, 3, activation="relu")(x)
    >>> print(y.shape)
    (4, 8, 8, 8, 32)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1, 1),
        padding="valid",
        data_format=None,
        dilation_rate=(1, 1, 1),
        depth_multiplier=1,
        activation=None,
        use_bias=True,
        depthwise_initializer="glorot_uniform",
        pointwise_initializer="glorot_uniform",
        bias_initializer="zeros",
        depthwise_regularizer=None,
        pointwise_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        depthwise_constraint=None,
        pointwise_constraint=None,
        bias_constraint=None,
        *,
        algorithm="auto",
        padding_mode="zeros",
        **kwargs,
    ):
        super().__init__(
            rank=3,
            filters=filters,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            depth_multiplier=depth_multiplier,
            activation=activation,
            use_bias=use_bias,
            depthwise_initializer=depthwise_initializer,
            pointwise_initializer=pointwise_initializer,
            bias_initializer=bias_initializer,
            depthwise_regularizer=depthwise_regularizer,
            pointwise_regularizer=pointwise_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            depthwise_constraint=depthwise_constraint,
            pointwise_constraint=pointwise_constraint,
            bias_constraint=bias_constraint,
            algorithm=algorithm,
            padding_mode=padding_mode,
            **kwargs,
        )
