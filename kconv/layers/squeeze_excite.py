"""The layer that weighs channels by what all of the image tells."""

import keras

from kconv.spec import is_integer, standard_format

_POOLINGS = {
    3: keras.layers.GlobalAveragePooling1D,
    4: keras.layers.GlobalAveragePooling2D,
    5: keras.layers.GlobalAveragePooling3D,
}


@keras.saving.register_keras_serializable(package="kconv")
class SqueezeExcite(keras.layers.Layer):
    """Multiplies each channel by a gate, which the means of all channels open.

    `inputs * gate_activation(expand(activation(reduce(mean(inputs)))))`: the mean is
    over all spatial dimensions, `reduce` and `expand` are dense layers with a bias, the
    first of `max(1, channels // ratio)` units, the second of `channels`. The weights
    are `reduce/kernel`, `reduce/bias`, `expand/kernel` and `expand/bias`.

    Of 3D inputs with a mask the mean leaves masked steps out, and the mask goes on.

    Args:
        ratio: int, what the number of channels is divided by, rounded down, between the
            dense layers.
        activation: Activation function of the first dense layer. If `None`, no
            activation is applied.
        gate_activation: Activation function of the second dense layer, which makes the
            gates. If `None`, no activation is applied.
        data_format: string, either `"channels_last"` or `"channels_first"`, the
            ordering of the dimensions in the inputs. It defaults to the
            `image_data_format` value found in your Keras config file at
            `~/.keras/keras.json`. If you never set it, then it will be
            `"channels_last"`.
        kernel_initializer: Initializer for the kernels of the dense layers. If `None`,
            the default initializer (`"glorot_uniform"`) will be used.
        bias_initializer: Initializer for their biases. If `None`, the default
            initializer (`"zeros"`) will be used.
        kernel_regularizer: Optional regularizer for their kernels.
        bias_regularizer: Optional regularizer for their biases.
        kernel_constraint: Optional projection function to be applied to their kernels
            after being updated by an `Optimizer`.
        bias_constraint: Optional projection function to be applied to their biases
            after being updated by an `Optimizer`.
        **kwargs: The arguments of `keras.layers.Layer`.

    Input shape:
        A 3D, 4D or 5D tensor of any float dtype: `(batch_size, ..., channels)` with
        `data_format="channels_last"`, or `(batch_size, channels, ...)` with
        `data_format="channels_first"`. All sizes but the channels may be unknown.

    Output shape:
        That of the inputs.

    Returns:
        A tensor, the inputs with each channel multiplied by its gate.

    Raises:
        ValueError: If an argument is wrong, or the shape of the inputs.

    Example:

    >>> x = np.random.rand(4, 10, 10, 64)
    >>> layer = kconv.layers.SqueezeExcite(ratio=16)
    >>> print(layer(x).shape)
    (4, 10, 10, 64)
    >>> layer.count_params()
    580

    Source: Hu, Shen, Albanie, Sun, Wu, "Squeeze-and-excitation networks", CVPR 2018
    (arXiv:1709.01507), section 3.
    """

    def __init__(
        self,
        ratio=16,
        activation="relu",
        gate_activation="sigmoid",
        data_format=None,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not is_integer(ratio) or ratio < 1:
            raise ValueError(
                f"`ratio` must be a positive integer. Received: ratio={ratio!r}"
            )
        self.ratio = int(ratio)
        self.activation = keras.activations.get(activation)
        self.gate_activation = keras.activations.get(gate_activation)
        self.data_format = standard_format(data_format)
        self.supports_masking = True
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    def build(self, input_shape):
        """Makes the dense layers.

        Args:
            input_shape: Tuple of ints and None.
        """
        shape = tuple(input_shape)
        axis = -1 if self.data_format == "channels_last" else 1
        channels = shape[axis] if len(shape) in _POOLINGS else None
        if channels is None:
            raise ValueError(
                "The inputs must have 1, 2 or 3 spatial dimensions and a known number "
                f"of channels. Received: inputs.shape={shape}, "
                f"data_format={self.data_format!r}"
            )
        self.squeeze = _POOLINGS[len(shape)](
            data_format=self.data_format, dtype=self.dtype_policy, name="squeeze"
        )
        reduced = max(1, channels // self.ratio)
        self.reduce = self._dense(reduced, self.activation, "reduce")
        self.expand = self._dense(channels, self.gate_activation, "expand")
        self.reduce.build((shape[0], channels))
        self.expand.build((shape[0], reduced))
        self.input_spec = keras.layers.InputSpec(ndim=len(shape), axes={axis: channels})

    def call(self, inputs):
        """Multiplies the channels by their gates.

        Args:
            inputs: A tensor.

        Returns:
            A tensor.
        """
        gates = self.expand(self.reduce(self.squeeze(inputs)))
        ones = (1,) * (len(inputs.shape) - 2)
        channels = gates.shape[-1]
        last = self.data_format == "channels_last"
        shape = (-1, *ones, channels) if last else (-1, channels, *ones)
        return keras.ops.multiply(inputs, keras.ops.reshape(gates, shape))

    def compute_output_shape(self, input_shape):
        """Returns the shape of the output, a tuple of ints and None."""
        return tuple(input_shape)

    def get_config(self):
        """Returns the arguments that make this layer again."""
        config = {
            "ratio": self.ratio,
            "activation": keras.activations.serialize(self.activation),
            "gate_activation": keras.activations.serialize(self.gate_activation),
            "data_format": self.data_format,
        }
        for module, names in (
            (keras.initializers, ("kernel_initializer", "bias_initializer")),
            (keras.regularizers, ("kernel_regularizer", "bias_regularizer")),
            (keras.constraints, ("kernel_constraint", "bias_constraint")),
        ):
            config |= {name: module.serialize(getattr(self, name)) for name in names}
        return {**super().get_config(), **config}

    def _dense(self, units, activation, name):
        return keras.layers.Dense(
            units,
            activation=activation,
            kernel_initializer=self.kernel_initializer,
            bias_initializer=self.bias_initializer,
            kernel_regularizer=self.kernel_regularizer,
            bias_regularizer=self.bias_regularizer,
            kernel_constraint=self.kernel_constraint,
            bias_constraint=self.bias_constraint,
            dtype=self.dtype_policy,
            name=name,
        )
