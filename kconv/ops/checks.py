"""What the operations check of their tensors, beside what a `ConvSpec` tells."""

import keras
import tensorflow as tf

from kconv.epilogue import ACTIVATIONS


def known_tensors(**operands):
    """Returns operands as tensors; raises ValueError if the rank of one is unknown."""
    # Not keras.ops.convert_to_tensor, which leaves Keras variables what they are.
    tensors = {name: tf.convert_to_tensor(given) for name, given in operands.items()}
    if any(tensor.shape.rank is None for tensor in tensors.values()):
        names = " and ".join(f"`{name}`" for name in tensors)
        shapes = (f"{name}.shape={tensor.shape}" for name, tensor in tensors.items())
        raise ValueError(
            f"The ranks of {names} must be known. Received: {', '.join(shapes)}"
        )
    return tuple(tensors.values())


def check_dtypes(inputs, other, name="kernel"):
    """Raises ValueError unless another operand has the dtype of `inputs`."""
    if inputs.dtype != other.dtype:
        names = [keras.backend.standardize_dtype(t.dtype) for t in (inputs, other)]
        raise ValueError(
            f"`inputs` and `{name}` must have the same dtype. Received: inputs.dtype="
            f"{names[0]}, {name}.dtype={names[1]}"
        )


def check_activation(activation):
    """Raises ValueError unless a convolution can end in this activation."""
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(
            f"`activation` must be None or one of {list(ACTIVATIONS)}. Received: "
            f"activation={activation!r}"
        )


def check_bias(bias, inputs, filters, of="filter of `kernel`, its last axis"):
    """Raises ValueError unless a bias fits to so many filters, and to `inputs`."""
    shape = None if getattr(bias.shape, "rank", 1) is None else tuple(bias.shape)
    if shape not in (None, (None,), (filters,)):
        raise ValueError(
            f"`bias` must have one value for each {of}. "
            f"Received: bias.shape={shape}, filters={filters}"
        )
    check_dtypes(inputs, bias, "bias")


def check_groups(groups, spec, inputs, kernel):
    """Raises ValueError unless a kernel was prepared for the groups of `inputs`."""
    if groups != spec.groups:
        raise ValueError(
            "`kernel` was prepared for another number of groups than that of `inputs`. "
            f"Received: groups={groups}, inputs.shape={tuple(inputs.shape)}, "
            f"kernel.shape={tuple(kernel.shape)}"
        )
