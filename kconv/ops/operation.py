"""What the nodes of Functional models have in common."""

import keras
import numpy as np
import tensorflow as tf

from kconv.dispatch import check_algorithm
from kconv.ops.checks import check_activation, check_ranks, to_tensor
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


def read_operands(operation_class, arguments, optional, **operands):
    """Makes tensors of the operands of a convolution, or a node of a Functional model.

    Args:
        operation_class: Subclass of `ConvOperation`, of the node.
        arguments: Tuple, what that takes.
        optional: Dictionary from the name of an operand that may be left out, such as
            `"bias"`, to a tensor, or what one can be made of, or None.
        operands: The other operands, by their names, in their order.

    Returns:
        A tuple: the operands; the optional ones, None for those left out; and the
        output, a KerasTensor, if an operand is one, else None.

    Raises:
        ValueError: If an operand cannot be a tensor or its rank is unknown; of a node,
            as that does.
    """
    extra = {name: one for name, one in optional.items() if one is not None}
    given = operands | extra
    symbolic = any(isinstance(one, keras.KerasTensor) for one in given.values())
    tensors = {
        # A node keeps variables, whose values may change.
        name: one if symbolic and _is_tensor(one) else to_tensor(name, one)
        for name, one in given.items()
    }
    output = None
    if symbolic:
        placed = [tensors[name] for name in operands]
        named = {name: tensors[name] for name in extra}
        output = operation_class(*arguments).symbolic_call(*placed, **named)
    else:
        check_ranks(**{name: tensors[name] for name in tensors if name != "bias"})
    return (*(tensors.get(name) for name in (*operands, *optional)), output)


def _is_tensor(value):
    """Whether this is a dense tensor, an array or a variable."""
    if getattr(value, "sparse", False) or getattr(value, "ragged", False):
        return False
    kinds = keras.KerasTensor, keras.Variable, np.ndarray, tf.Variable, tf.Tensor
    return isinstance(value, kinds)
