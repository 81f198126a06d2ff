"""Depthwise convolution layers."""

import keras

from kconv import ops
from kconv.layers.bases import of_any_rank
from kconv.layers.fused import PaddedConv


class _DepthwiseConv(PaddedConv):
    """What these layers do in the place of Keras's."""

    def _convolve(self, inputs, **epilogue):
        inputs, arguments = self._padded(inputs)
        return ops.depthwise_conv(inputs, self.kernel, **arguments, **epilogue)

    def _filters(self, input_shape):
        return input_shape[self._channel_axis] * self.depth_multiplier


@keras.saving.register_keras_serializable(package="kconv")
class DepthwiseConv1D(_DepthwiseConv, keras.layers.DepthwiseConv1D):
    """1D depthwise convolution layer.

    `keras.layers.DepthwiseConv1D` with the convolution computed by
    `kconv.ops.depthwise_conv`. `kconv.layers.DepthwiseConv2D` tells what holds for it.

    Args:
        kernel_size: int or tuple/list of 1 integer, specifying the size of the
            depthwise convolution window.
        strides: int or tuple/list of 1 integer, specifying the stride length of the
            convolution.
        dilation_rate: int or tuple/list of 1 integer, specifying the dilation rate to
            use for dilated convolution.
        **kwargs: The others are those of `kconv.layers.DepthwiseConv2D`, in the same
            order.

    Input shape:
        A 3D tensor, `(batch_size, steps, channels)` with
        `data_format="channels_last"`, or `(batch_size, channels, steps)` with
        `data_format="channels_first"`.

    Output shape:
        A 3D tensor, `(batch_size, new_steps, new_channels)` with
        `data_format="channels_last"`, or
        `(batch_size, new_channels, new_steps)` with
        `data_format="channels_first"`. `new_channels` is `channels * depth_multiplier`.

    Returns:
        A 3D tensor representing
        `activation(depthwise_conv(inputs, kernel) + bias)`.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> x = np.random.rand(4, 10, 12)
    >>> y = kconv.layers.DepthwiseConv1D(3, depth_multiplier=2, activation="relu")(x)
    >>> print(y.shape)
    (4, 8, 24)
    """

    def __init__(
        self,
        kernel_size,
        strides=1,
        padding="valid",
        depth_multiplier=1,
        data_format=None,
        dilation_rate=1,
        activation=None,
        use_bias=True,
        depthwise_initializer="glorot_uniform",
        bias_initializer="zeros",
        depthwise_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        depthwise_constraint=None,
        bias_constraint=None,
        *,
        algorithm="auto",
        padding_mode="zeros",
        **kwargs,
    ):
        super().__init__(
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            depth_multiplier=depth_multiplier,
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            depthwise_initializer=depthwise_initializer,
            bias_initializer=bias_initializer,
            depthwise_regularizer=depthwise_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            depthwise_constraint=depthwise_constraint,
            bias_constraint=bias_constraint,
            algorithm=algorithm,
            padding_mode=padding_mode,
            **kwargs,
        )


@keras.saving.register_keras_serializable(package="kconv")
class DepthwiseConv2D(_DepthwiseConv, keras.layers.DepthwiseConv2D):
    """2D depthwise convolution layer.

    `keras.layers.DepthwiseConv2D` with the convolution computed by
    `kconv.ops.depthwise_conv`: by the kernels that are fastest for the problem, kconv's
    own or TensorFlow's. It takes the same arguments in the same order, has the same
    weights, and does all else in the same way. The bias and the activations `"relu"`
    and `"relu6"` are part of the convolution, other activations follow it.

    `model.compile` leaves a model with this layer out of XLA; in a function of your own
    with `jit_compile=True` it runs on TensorFlow's ops. `kconv.layers.Conv2D` tells
    more of that.

    Args:
        kernel_size: int or tuple/list of 2 integers, specifying the size of the
            depthwise convolution window.
        strides: int or tuple/list of 2 integers, specifying the stride length of the
            convolution. They may differ, and be combined with `dilation_rate`.
        padding: string, either `"valid"` or `"same"` (case-insensitive). `"valid"`
            means no padding. `"same"` results in padding evenly to both sides of the
            input. When `padding="same"` and `strides=1`, the output has the same size
            as the input. Or a pair of integers (before, after) for each
            spatial dimension, such as `((top, bottom), (left, right))`.
        depth_multiplier: The number of depthwise convolution output channels for each
            input channel. The total number of output channels will be equal to
            `input_channel * depth_multiplier`.
        data_format: string, either `"channels_last"` or `"channels_first"`, the
            ordering of the dimensions in the inputs. It defaults to the
            `image_data_format` value found in your Keras config file at
            `~/.keras/keras.json`. If you never set it, then it will be
            `"channels_last"`.
        dilation_rate: int or tuple/list of 2 integers, specifying the dilation rate to
            use for dilated convolution.
        activation: Activation function. If `None`, no activation is applied.
        use_bias: bool, if `True`, bias will be added to the output.
        depthwise_initializer: Initializer for the convolution kernel. If `None`, the
            default initializer (`"glorot_uniform"`) will be used.
        bias_initializer: Initializer for the bias vector. If `None`, the default
            initializer (`"zeros"`) will be used.
        depthwise_regularizer: Optional regularizer for the convolution kernel.
        bias_regularizer: Optional regularizer for the bias vector.
        activity_regularizer: Optional regularizer function for the output.
        depthwise_constraint: Optional projection function to be applied to the kernel
            after being updated by an `Optimizer`.
        bias_constraint: Optional projection function to be applied to the bias after
            being updated by an `Optimizer`.
        algorithm: string, `"auto"`, `"auto:strict"` or a name out of
            `kconv.ops.algorithms()`, to force an algorithm in the layer and in its
            gradients.
        padding_mode: string, what the image is padded with, as in
            `kconv.layers.Conv2D`.
        **kwargs: The arguments of every Keras layer, such as `name`, `dtype` and
            `trainable`.

    Input shape:
        A 4D tensor, `(batch_size, height, width, channels)` with
        `data_format="channels_last"`, or `(batch_size, channels, height, width)` with
        `data_format="channels_first"`.

    Output shape:
        A 4D tensor, `(batch_size, new_height, new_width, new_channels)` with
        `data_format="channels_last"`, or
        `(batch_size, new_channels, new_height, new_width)` with
        `data_format="channels_first"`. `new_channels` is `channels * depth_multiplier`.

    Returns:
        A 4D tensor representing
        `activation(depthwise_conv(inputs, kernel) + bias)`.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> x = np.random.rand(4, 10, 10, 12)
    >>> y = kconv.layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(x)
    >>> print(y.shape)
    (4, 8, 8, 24)
    """

    def __init__(
        self,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        depth_multiplier=1,
        data_format=None,
        dilation_rate=(1, 1),
        activation=None,
        use_bias=True,
        depthwise_initializer="glorot_uniform",
        bias_initializer="zeros",
        depthwise_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        depthwise_constraint=None,
        bias_constraint=None,
        *,
        algorithm="auto",
        padding_mode="zeros",
        **kwargs,
    ):
        super().__init__(
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            depth_multiplier=depth_multiplier,
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            depthwise_initializer=depthwise_initializer,
            bias_initializer=bias_initializer,
            depthwise_regularizer=depthwise_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            depthwise_constraint=depthwise_constraint,
            bias_constraint=bias_constraint,
            algorithm=algorithm,
            padding_mode=padding_mode,
            **kwargs,
        )


@keras.saving.register_keras_serializable(package="kconv")
class DepthwiseConv3D(_DepthwiseConv, of_any_rank(keras.layers.DepthwiseConv2D)):
    """3D depthwise convolution layer.

    What `keras.layers.DepthwiseConv2D` would be in three dimensions, where Keras has
    no such layer. `kconv.layers.DepthwiseConv2D` tells what holds for it.

    Args:
        kernel_size: int or tuple/list of 3 integers, specifying the size of the
            depthwise convolution window.
        strides: int or tuple/list of 3 integers, specifying the stride length of the
            convolution.
        dilation_rate: int or tuple/list of 3 integers, specifying the dilation rate to
            use for dilated convolution.
        **kwargs: The others are those of `kconv.layers.DepthwiseConv2D`, in the same
            order.

    Input shape:
        A 5D tensor, `(batch_size, depth, height, width, channels)` with
        `data_format="channels_last"`, or
        `(batch_size, channels, depth, height, width)` with
        `data_format="channels_first"`.

    Output shape:
        A 5D tensor, `(batch_size, new_depth, new_height, new_width, new_channels)` with
        `data_format="channels_last"`, or
        `(batch_size, new_channels, new_depth, new_height, new_width)` with
        `data_format="channels_first"`. `new_channels` is `channels * depth_multiplier`.

    Returns:
        A 5D tensor representing
        `activation(depthwise_conv(inputs, kernel) + bias)`.

    Raises:
        ValueError: If an argument is wrong.
        RuntimeError: If this version of Keras has no base for such a layer.

    Example:

    >>> x = np.random.rand(4, 10, 10, 10, 12)
    >>> y = kconv.layers.DepthwiseConv3D(3, depth_multiplier=2, activation="relu")(x)
    >>> print(y.shape)
    (4, 8, 8, 8, 24)
    """

    def __init__(
        self,
        kernel_size,
        strides=(1, 1, 1),
        padding="valid",
        depth_multiplier=1,
        data_format=None,
        dilation_rate=(1, 1, 1),
        activation=None,
        use_bias=True,
        depthwise_initializer="glorot_uniform",
        bias_initializer="zeros",
        depthwise_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        depthwise_constraint=None,
        bias_constraint=None,
        *,
        algorithm="auto",
        padding_mode="zeros",
        **kwargs,
    ):
        super().__init__(
            rank=3,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            depth_multiplier=depth_multiplier,
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            depthwise_initializer=depthwise_initializer,
            bias_initializer=bias_initializer,
            depthwise_regularizer=depthwise_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            depthwise_constraint=depthwise_constraint,
            bias_constraint=bias_constraint,
            algorithm=algorithm,
            padding_mode=padding_mode,
            **kwargs,
        )
