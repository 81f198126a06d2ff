"""What the nodes of Functional models have in common."""

import keras

from kconv.dispatch import check_algorithm
from kconv.ops.checks import check_activation
from kconv.spec import plain


class ConvOperation(keras.Operation):
    """A convolution of a certain kind as a node of a Functional model.

    Args:
        strides: As in `kconv.ops.conv`.
        padding: As in `kconv.ops.conv`.
        data_format: As in `kconv.ops.conv`.
        dilation_rate: As in `kconv.ops.conv`.
        algorithm: As in `kconv.ops.conv`.
        activation: As in `kconv.ops.conv`.
        name: String, the name of the node.

    Raises:
        ValueError: If `algorithm` or `activation` is unknown.
    """

    def __init__(
        self,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        algorithm="auto",
        activation=None,
        *,
        name=None,
    ):
        super().__init__(name=name)
        check_algorithm(algorithm)
        check_activation(activation)
        self.strides = plain(strides)
        self.padding = plain(padding)
        self.data_format = data_format or keras.config.image_data_format()
        self.dilation_rate = plain(dilation_rate)
        self.algorithm = algorithm
        self.activation = activation

    @property
    def arguments(self):
        """What the function takes beside tensors and the activation, by name."""
        return {
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "algorithm": self.algorithm,
        }

    def get_config(self):
        """Returns the arguments that make this operation again."""
        return {**self.arguments, "activation": self.activation, "name": self.name}
