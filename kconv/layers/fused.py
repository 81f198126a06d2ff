"""What kconv's layers share: an algorithm, padding, and one op for all that follows."""

import keras

from kconv import ops
from kconv.padding import ZEROS, check_mode, pad
from kconv.spec import conv_spec, positive, standard_padding

# The activations that the convolution applies itself, by the functions that Keras makes
# of their names.
_ACTIVATIONS = {
    "linear": keras.activations.linear,
    "relu": keras.activations.relu,
    "relu6": keras.activations.relu6,
}


class BaseFusedConv:
    """A `FusedConv` that has no algorithms to choose from.

    Args:
        *args: The arguments of Keras's layer.
        padding: As of Keras's layer, or a pair of ints for each spatial dimension.
        dilation_rate: As of Keras's layer, which would refuse some together with
            strides.
        **kwargs: The arguments of Keras's layer.

    Raises:
        ValueError: If an argument is wrong.
    """

    def __init__(self, *args, padding="valid", dilation_rate=1, **kwargs):
        # Keras checks what it knows; the rest is set afterwards.
        named = padding if isinstance(padding, str) else "valid"
        super().__init__(*args, padding=named, dilation_rate=1, **kwargs)
        if named is not padding:
            self.padding = standard_padding(padding, self.rank)
        self.dilation_rate = positive("dilation_rate", dilation_rate, self.rank)
        # XLA does not know kconv's ops.
        self.supports_jit = False

    @property
    def _channel_axis(self):
        return -1 if self.data_format == "channels_last" else 1

    @property
    def _arguments(self):
        """What the layer's function of `kconv.ops` takes beside tensors, by name."""
        return {
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
        }

    def _finish(self, function, inputs):
        """Convolves, adds the bias and applies the activation, in one op if it can.

        Args:
            function: What convolves. It takes `bias` and `activation` by name.
            inputs: A tensor, what it convolves.

        Returns:
            A tensor.
        """
        if self._may_fuse_bias(inputs):
            return self._fused(function)
        return self._in_turn(function())

    def _filters(self, input_shape):
        return self.filters

    def _may_fuse_bias(self, inputs):
        """Whether the bias is what a function of `kconv.ops` takes, or there is none.

        A subclass may have one that Keras would broadcast or cast.
        """
        if not self.use_bias:
            return True
        dtypes = {keras.backend.standardize_dtype(t.dtype) for t in (inputs, self.bias)}
        fits = tuple(self.bias.shape) == (self._filters(inputs.shape),)
        return fits and len(dtypes) == 1

    def _fused(self, function):
        """Has the convolution do as much of the rest as it can."""
        bias = self.bias if self.use_bias else None
        for name, activation in _ACTIVATIONS.items():
            if self.activation is activation:
                return function(bias=bias, activation=name)
        outputs = function(bias=bias, activation=None)
        return outputs if self.activation is None else self.activation(outputs)

    def _in_turn(self, outputs):
        """Adds the bias to a convolution, and applies the activation, as Keras does."""
        if self.use_bias:
            shape = [1] * (self.rank + 2)
            axis = self._channel_axis
            shape[axis] = outputs.shape[axis]
            outputs = keras.ops.add(outputs, keras.ops.reshape(self.bias, shape))
        return outputs if self.activation is None else self.activation(outputs)


class FusedConv(BaseFusedConv):
    """What makes a kconv layer of a convolution layer of Keras, ahead of which it goes.

    A class of these tells in `_convolve` what convolves, and in `_filters` how many
    channels come out.

    Args:
        *args: The arguments of Keras's layer.
        padding: As of `BaseFusedConv`.
        dilation_rate: As of `BaseFusedConv`.
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

    def call(self, inputs):
        """Computes `activation(convolution(inputs) + bias)`.

        Args:
            inputs: A tensor.

        Returns:
            A tensor.
        """

        def function(**epilogue):
            return self._convolve(inputs, **epilogue)

        return self._finish(function, inputs)

    def get_config(self):
        """Returns the arguments that make this layer again."""
        return {**super().get_config(), "algorithm": self.algorithm}

    @property
    def _arguments(self):
        return {**super()._arguments, "algorithm": self.algorithm}


class PaddedConv(FusedConv):
    """A `FusedConv` that pads the image, with zeros or in another way.

    Args:
        *args: The arguments of `FusedConv`.
        padding_mode: string, `"zeros"`, `"reflect"`, `"circular"` or `"replicate"`.
        **kwargs: The arguments of `FusedConv`.

    Raises:
        ValueError: If an argument is wrong.
    """

    def __init__(self, *args, padding_mode=ZEROS, **kwargs):
        check_mode(padding_mode)
        super().__init__(*args, **kwargs)
        self.padding_mode = padding_mode

    def get_config(self):
        """Returns the arguments that make this layer again."""
        mode = {"padding_mode": self.padding_mode}
        return {**super().get_config(), **({} if self.padding_mode == ZEROS else mode)}

    def compute_output_shape(self, input_shape):
        """Returns the shape of the output, a tuple of ints and None."""
        if isinstance(self.padding, str):
            return super().compute_output_shape(input_shape)
        spec, kernel_shape = self._shaped(input_shape)
        return spec.output_shape(input_shape, kernel_shape)

    def _shaped(self, input_shape):
        """The layer as a dense convolution, whose sizes are the same."""
        input_shape = tuple(input_shape)
        channels = input_shape[self._channel_axis]
        kernel_shape = (*self.kernel_size, channels, self._filters(input_shape))
        arguments = {k: v for k, v in self._arguments.items() if k != "algorithm"}
        return conv_spec(input_shape, kernel_shape, **arguments), kernel_shape

    def _padded(self, inputs):
        """Returns inputs that are padded where zeros will not do, and `_arguments`."""
        if self.padding_mode == ZEROS:
            return inputs, self._arguments
        spec, kernel_shape = self._shaped(inputs.shape)
        inputs = pad(spec, inputs, kernel_shape[:-2], self.padding_mode)
        return inputs, {**self._arguments, "padding": "valid"}
