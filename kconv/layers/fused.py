"""What kconv's layers share: an algorithm, and one op for all that follows it."""

import keras

from kconv import ops

# The activations that the convolution applies itself, by the functions that Keras makes
# of their names.
_ACTIVATIONS = {
    "linear": keras.activations.linear,
    "relu": keras.activations.relu,
    "relu6": keras.activations.relu6,
}


class FusedConv:
    """What makes a kconv layer of a convolution layer of Keras, ahead of which it goes.

    Args:
        *args: The arguments of Keras's layer.
        algorithm: string, `"auto"`, `"auto:strict"` or a name out of
            `kconv.ops.algorithms()`.
        **kwargs: The arguments of Keras's layer.

    Raises:
        ValueError: If an argument is wrong.
    """

    def __init__(self, *args, algorithm="auto", **kwargs):
        ops.check_algorithm(algorithm)
        super().__init__(*args, **kwargs)
        self.algorithm = algorithm
        # XLA does not know kconv's ops.
        self.supports_jit = False

    def get_config(self):
        """Returns the arguments that make this layer again."""
        return {**super().get_config(), "algorithm": self.algorithm}

    @property
    def _arguments(self):
        """What the layer's function of `kconv.ops` takes beside tensors, by name."""
        return {
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "algorithm": self.algorithm,
        }

    def _may_fuse_bias(self, inputs, filters):
        """Whether the bias is what a function of `kconv.ops` takes, or there is none.

        A subclass may have one that Keras would broadcast or cast.
        """
        if not self.use_bias:
            return True
        dtypes = {keras.backend.standardize_dtype(t.dtype) for t in (inputs, self.bias)}
        return tuple(self.bias.shape) == (filters,) and len(dtypes) == 1

    def _fused(self, function):
        """Convolves, adds the bias and applies the activation, in one op if it can.

        Args:
            function: What convolves. It takes `bias` and `activation` by name.

        Returns:
            A tensor.
        """
        bias = self.bias if self.use_bias else None
        for name, activation in _ACTIVATIONS.items():
            if self.activation is activation:
                return function(bias=bias, activation=name)
        outputs = function(bias=bias, activation=None)
        return outputs if self.activation is None else self.activation(outputs)

    def _in_turn(self, outputs, filters):
        """Adds the bias to a convolution, and applies the activation, as Keras does."""
        if self.use_bias:
            places = (1,) * self.rank
            first = self.data_format == "channels_first"
            shape = (1, filters, *places) if first else (1, *places, filters)
            outputs = keras.ops.add(outputs, keras.ops.reshape(self.bias, shape))
        return outputs if self.activation is None else self.activation(outputs)
