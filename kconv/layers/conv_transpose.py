"""Transposed convolution layers."""

import keras

from kconv import ops
from kconv.layers.fused import FusedConv
from kconv.spec import is_integer, plain
from kconv.transposition import transpose_spec


class _ConvTranspose(FusedConv):
    """What these layers do in the place of Keras's."""

    def __init__(self, filters, *args, groups=1, **kwargs):
        super().__init__(filters, *args, **kwargs)
        groups = plain(groups)
        fits = is_integer(groups) and groups > 0
        if not fits or (filters is not None and filters % groups):
            raise ValueError(
                "`groups` must be a positive integer that divides `filters`. Received: "
                f"groups={groups!r}, filters={filters}"
            )
        self.groups = groups

    def build(self, input_shape):
        """Makes the weights."""
        if self.groups == 1:
            super().build(input_shape)
            return
        axis = self._channel_axis
        channels = input_shape[axis]
        self.input_spec = keras.layers.InputSpec(
            min_ndim=self.rank + 2, axes={axis: channels}
        )
        self.compute_output_shape(input_shape)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, self.filters // self.groups, channels),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            dtype=self.dtype,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.filters,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
                dtype=self.dtype,
            )

    def compute_output_shape(self, input_shape):
        """Returns the shape of the output, a tuple of ints and None."""
        input_shape = tuple(input_shape)
        of_group = self.filters // self.groups
        kernel_shape = (
            *self.kernel_size,
            of_group,
            input_shape[self._channel_axis],
        )
        _, output_shape = transpose_spec(input_shape, kernel_shape, **self._arguments)
        return output_shape(input_shape)

    def get_config(self):
        """Returns the arguments that make this layer again."""
        groups = {"groups": self.groups} if self.groups > 1 else {}
        return {**super().get_config(), **groups}

    @property
    def _arguments(self):
        mine = {"output_padding": self.output_padding, "groups": self.groups}
        return {**super()._arguments, **mine}

    def _convolve(self, inputs, **epilogue):
        return ops.conv_transpose(inputs, self.kernel, **self._arguments, **epilogue)


@keras.saving.register_keras_serializable(package="kconv")
class Conv1DTranspose(_ConvTranspose, keras.layers.Conv1DTranspose):
    """1D transposed convolution layer.

    `keras.layers.Conv1DTranspose` with the convolution computed by
    `kconv.ops.conv_transpose`. `kconv.layers.Conv2DTranspose` tells what holds for it.

    Args:
        filters: int, the dimension of the output space (the number of filters in the
            transposed convolution).
        kernel_size: int or tuple/list of 1 integer, specifying the size of the
            transposed convolution window.
        strides: int or tuple/list of 1 integer, specifying the stride length of the
            transposed convolution.
        **kwargs: The others are those of `kconv.layers.Conv2DTranspose`.

    Input shape:
        A 3D tensor, `(batch_size, steps, channels)` with
        `data_format="channels_last"`, or
        `(batch_size, channels, steps)` with
        `data_format="channels_first"`.

    Output shape:
        A 3D tensor, `(batch_size, new_steps, filters)` with
        `data_format="channels_last"`, or
        `(batch_size, filters, new_steps)` with
        `data_format="channels_first"`.

    Returns:
        A 3D tensor representing
        `activation(conv1d_transpose(inputs, kernel) + bias)`.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> x = np.random.rand(4, 10, 128)
    >>> y = kconv.layers.Conv1DTranspose(32, 4, strides=2, padding="same")(x)
    >>> print(y.shape)
    (4, 20, 32)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        output_padding=None,
        data_format=None,
        dilation_rate=1,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        *,
        algorithm="auto",
        groups=1,
        **kwargs,
    ):
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            output_padding=output_padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            algorithm=algorithm,
            groups=groups,
            **kwargs,
        )


@keras.saving.register_keras_serializable(package="kconv")
class Conv2DTranspose(_ConvTranspose, keras.layers.Conv2DTranspose):
    """2D transposed convolution layer.

    `keras.layers.Conv2DTranspose` with the convolution computed by
    `kconv.ops.conv_transpose`: by the kernels that are fastest for the problem, kconv's
    own or TensorFlow's. It takes the same arguments in the same order, has the same
    weights, and does all else in the same way.

    `model.compile` leaves a model with this layer out of XLA; in a function of your own
    with `jit_compile=True` it runs on TensorFlow's ops. `kconv.layers.Conv2D` tells
    more of that.

    Args:
        filters: int, the dimension of the output space (the number of filters in the
            transposed convolution).
        kernel_size: int or tuple/list of 2 integers, specifying the size of the
            transposed convolution window.
        strides: int or tuple/list of 2 integers, specifying the stride length of the
            transposed convolution. They may be combined with `dilation_rate`, which
            Keras's layer refuses.
        padding: string, either `"valid"` or `"same"` (case-insensitive). `"valid"`
            gives all that the kernel reaches, `"same"` an output of the size of the
            input times the strides. Or a pair of integers (before, after) for each
            spatial dimension, such as `((top, bottom), (left, right))`, by which the
            output is less than all that the kernel reaches, as in PyTorch.
        output_padding: int or tuple/list of 2 integers, the number of rows and columns
            to add at the end of the output, each less than the stride along that
            dimension. If `None`, the output shape is inferred.
        data_format: string, either `"channels_last"` or `"channels_first"`, the
            ordering of the dimensions in the inputs. It defaults to the
            `image_data_format` value found in your Keras config file at
            `~/.keras/keras.json`. If you never set it, then it will be
            `"channels_last"`.
        dilation_rate: int or tuple/list of 2 integers, specifying the dilation rate to
            use for dilated convolution.
        activation: Activation function. If `None`, no activation is applied.
        use_bias: bool, if `True`, bias will be added to the output.
        kernel_initializer: Initializer for the convolution kernel. If `None`, the
            default initializer (`"glorot_uniform"`) will be used.
        bias_initializer: Initializer for the bias vector. If `None`, the default
            initializer (`"zeros"`) will be used.
        kernel_regularizer: Optional regularizer for the convolution kernel.
        bias_regularizer: Optional regularizer for the bias vector.
        activity_regularizer: Optional regularizer function for the output.
        kernel_constraint: Optional projection function to be applied to the kernel
            after being updated by an `Optimizer`.
        bias_constraint: Optional projection function to be applied to the bias after
            being updated by an `Optimizer`.
        algorithm: string, `"auto"`, `"auto:strict"` or a name out of
            `kconv.ops.algorithms()`, to force an algorithm in the layer and in its
            gradients.
        groups: A positive int, the number of groups in which the input is split along
            the channel axis, which Keras's layer does not have. Each part of the
            filters is made of one part of the channels; both must be divisible by
            `groups`. The kernel has the shape
            `(*kernel_size, filters // groups, channels)`.
        **kwargs: The arguments of every Keras layer, such as `name`, `dtype` and
            `trainable`.

    Input shape:
        A 4D tensor, `(batch_size, height, width, channels)` with
        `data_format="channels_last"`, or
        `(batch_size, channels, height, width)` with
        `data_format="channels_first"`.

    Output shape:
        A 4D tensor, `(batch_size, new_height, new_width, filters)` with
        `data_format="channels_last"`, or
        `(batch_size, filters, new_height, new_width)` with
        `data_format="channels_first"`.

    Returns:
        A 4D tensor representing
        `activation(conv2d_transpose(inputs, kernel) + bias)`.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> x = np.random.rand(4, 10, 10, 128)
    >>> y = kconv.layers.Conv2DTranspose(32, 4, strides=2, padding="same")(x)
    >>> print(y.shape)
    (4, 20, 20, 32)

    Source:
        Dumoulin and Visin, "A guide to convolution arithmetic for deep learning",
        2016, chapter 4.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        output_padding=None,
        data_format=None,
        dilation_rate=(1, 1),
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        *,
        algorithm="auto",
        groups=1,
        **kwargs,
    ):
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            output_padding=output_padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            algorithm=algorithm,
            groups=groups,
            **kwargs,
        )


@keras.saving.register_keras_serializable(package="kconv")
class Conv3DTranspose(_ConvTranspose, keras.layers.Conv3DTranspose):
    """3D transposed convolution layer.

    `keras.layers.Conv3DTranspose` with the convolution computed by
    `kconv.ops.conv_transpose`. `kconv.layers.Conv2DTranspose` tells what holds for it.
    Here `data_format` goes before `output_padding`, as in Keras.

    Args:
        filters: int, the dimension of the output space (the number of filters in the
            transposed convolution).
        kernel_size: int or tuple/list of 3 integers, specifying the size of the
            transposed convolution window.
        strides: int or tuple/list of 3 integers, specifying the stride length of the
            transposed convolution.
        **kwargs: The others are those of `kconv.layers.Conv2DTranspose`.

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
        A 5D tensor representing
        `activation(conv3d_transpose(inputs, kernel) + bias)`.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> x = np.random.rand(4, 5, 5, 5, 128)
    >>> y = kconv.layers.Conv3DTranspose(32, 4, strides=2, padding="same")(x)
    >>> print(y.shape)
    (4, 10, 10, 10, 32)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1, 1),
        padding="valid",
        data_format=None,
        output_padding=None,
        dilation_rate=(1, 1, 1),
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        *,
        algorithm="auto",
        groups=1,
        **kwargs,
    ):
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            output_padding=output_padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            algorithm=algorithm,
            groups=groups,
            **kwargs,
        )
