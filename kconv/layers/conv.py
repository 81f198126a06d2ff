"""Convolution layers."""

import keras

from kconv import ops

# The activations that the convolution applies itself, by the functions that Keras makes
# of their names.
_ACTIVATIONS = {
    "linear": keras.activations.linear,
    "relu": keras.activations.relu,
    "relu6": keras.activations.relu6,
}


@keras.saving.register_keras_serializable(package="kconv")
class Conv2D(keras.layers.Conv2D):
    """2D convolution layer.

    `keras.layers.Conv2D` with the convolution computed by `kconv.ops.conv`: by the
    kernel that is fastest for the problem, one of kconv's own or TensorFlow's. It takes
    the same arguments in the same order, has the same weights, and does all else, such
    as LoRA, in the same way. The bias and the activations `"relu"` and `"relu6"` are
    part of the convolution, other activations follow it; in a subclass that overrides
    `convolution_op` all of them follow.

    `model.compile` leaves a model with this layer out of XLA, as `jit_compile="auto"`
    asks the layers. In a function of your own with `jit_compile=True` the layer runs on
    TensorFlow's ops; but a `tf.function` with it that was traced before, outside of
    XLA, must not be called inside: XLA does not know kconv's ops.

    Args:
        filters: int, the dimension of the output space (the number of filters in the
            convolution).
        kernel_size: int or tuple/list of 2 integers, specifying the size of the
            convolution window.
        strides: int or tuple/list of 2 integers, specifying the stride length of the
            convolution. `strides > 1` is incompatible with `dilation_rate > 1`.
        padding: string, either `"valid"` or `"same"` (case-insensitive). `"valid"`
            means no padding. `"same"` results in padding evenly to the left/right or
            up/down of the input. When `padding="same"` and `strides=1`, the output has
            the same size as the input.
        data_format: string, either `"channels_last"` or `"channels_first"`, the
            ordering of the dimensions in the inputs. It defaults to the
            `image_data_format` value found in your Keras config file at
            `~/.keras/keras.json`. If you never set it, then it will be
            `"channels_last"`.
        dilation_rate: int or tuple/list of 2 integers, specifying the dilation rate to
            use for dilated convolution.
        groups: A positive int specifying the number of groups in which the input is
            split along the channel axis. Each group is convolved separately with
            `filters // groups` filters. The output is the concatenation of all the
            `groups` results along the channel axis. Input channels and `filters` must
            both be divisible by `groups`.
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
        **kwargs: The arguments of every Keras layer, such as `name`, `dtype` and
            `trainable`, and `lora_rank` and `lora_alpha`.

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
        A 4D tensor representing `activation(conv2d(inputs, kernel) + bias)`.

    Raises:
        ValueError: If an argument is wrong, or when both `strides > 1` and
            `dilation_rate > 1` (`kconv.ops.conv` takes both).

    Example:

    >>> x = np.random.rand(4, 10, 10, 128)
    >>> y = kconv.layers.Conv2D(32, 3, activation="relu")(x)
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
        groups=1,
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
        **kwargs,
    ):
        ops.check_algorithm(algorithm)
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            groups=groups,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            **kwargs,
        )
        self.algorithm = algorithm
        # XLA does not know kconv's ops.
        self.supports_jit = False

    def call(self, inputs):
        """Computes `activation(conv2d(inputs, kernel) + bias)`."""
        if not self._may_fuse(inputs):
            return super().call(inputs)
        bias = self.bias if self.use_bias else None
        for name, function in _ACTIVATIONS.items():
            if self.activation is function:
                return self._conv(inputs, self.kernel, bias, name)
        outputs = self._conv(inputs, self.kernel, bias)
        return outputs if self.activation is None else self.activation(outputs)

    def convolution_op(self, inputs, kernel):
        """Convolves `inputs` with `kernel`, without bias or activation."""
        return self._conv(inputs, kernel)

    def _conv(self, inputs, kernel, bias=None, activation=None):
        return ops.conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
            algorithm=self.algorithm,
            bias=bias,
            activation=activation,
        )

    def _may_fuse(self, inputs):
        """Whether `ops.conv` can do what Keras's `call` would do."""
        function = getattr(self.convolution_op, "__func__", None)
        if function is not Conv2D.convolution_op:
            return False
        if not self.use_bias:
            return True
        # A subclass may have a bias that Keras would broadcast or cast.
        dtypes = {keras.backend.standardize_dtype(t.dtype) for t in (inputs, self.bias)}
        return tuple(self.bias.shape) == (self.filters,) and len(dtypes) == 1

    def get_config(self):
        """Returns the arguments that make this layer again."""
        return {**super().get_config(), "algorithm": self.algorithm}
