"""What may follow a convolution in the same op: a bias and an activation.

Here is what that means, in stock ops. kconv's op does the same to its results while
they are in the cache.
"""

import typing

import tensorflow as tf

LINEAR = "linear"
ACTIVATIONS = (LINEAR, "relu", "relu6")

_FUNCTIONS = {"relu": tf.nn.relu, "relu6": tf.nn.relu6}
# TensorFlow's own gradients of these, to which the outputs are as good as the inputs.
_GRADIENTS = {"relu": tf.raw_ops.ReluGrad, "relu6": tf.raw_ops.Relu6Grad}
_DATA_FORMATS = {"channels_last": "NHWC", "channels_first": "NCHW"}


class Epilogue(typing.NamedTuple):
    """What makes `activation(convolution + bias)` of a convolution.

    Attributes:
        bias: A tensor of the convolution's dtype and of shape `(filters,)`, or None.
        activation: String, one of `ACTIVATIONS`.
    """

    bias: typing.Any = None
    activation: str = LINEAR

    @property
    def is_empty(self):
        """Whether nothing follows the convolution."""
        return self.bias is None and self.activation == LINEAR

    def apply(self, outputs, data_format):
        """Returns the results of a convolution with this applied, by stock ops.

        Args:
            outputs: A tensor.
            data_format: `"channels_last"` or `"channels_first"`.

        Returns:
            A tensor.
        """
        if self.bias is not None:
            outputs = tf.nn.bias_add(outputs, self.bias, _DATA_FORMATS[data_format])
        if self.activation != LINEAR:
            outputs = _FUNCTIONS[self.activation](outputs)
        return outputs

    def gradients(self, outputs, upstream, data_format):
        """Computes the gradients of this.

        Args:
            outputs: A tensor, the results with this applied.
            upstream: A tensor, the gradient by `outputs`.
            data_format: `"channels_last"` or `"channels_first"`.

        Returns:
            A tensor, the gradient by the results of the convolution, and another one,
            that by the bias, or None where there is none.
        """
        if self.activation != LINEAR:
            # The gradient steps from 0 to 1, so that its derivative by the outputs is
            # zero. Cut here, it does not cost two passes of the convolution.
            upstream = _GRADIENTS[self.activation](
                gradients=upstream, features=tf.stop_gradient(outputs)
            )
        if self.bias is None:
            return upstream, None
        return upstream, tf.raw_ops.BiasAddGrad(
            out_backprop=upstream, data_format=_DATA_FORMATS[data_format]
        )


NO_EPILOGUE = Epilogue()
