"""What the operations check of their tensors, beside what a `ConvSpec` tells."""

import tensorflow as tf

from kconv.epilogue import ACTIVATIONS
from kconv.prepared import PreparedFilter

# What TensorFlow's dense convolutions take beside floats.
INTEGERS = ("int32",)


def to_tensor(name, value):
    """Returns an operand as a tensor; raises ValueError if it cannot be one."""
    if isinstance(value, PreparedFilter):
        raise ValueError(
            "Prepared kernels are for `kconv.ops.conv`: give others the kernel itself. "
            f"Received: {name}={value!r}"
        )
    try:
        # Not keras.ops.convert_to_tensor, which leaves Keras variables what they are.
        return tf.convert_to_tensor(value)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{name}` must be a dense tensor of a floating dtype. Received: "
            f"{name} of type {type(value).__name__}"
        ) from error


def check_ranks(**tensors):
    """Raises ValueError if the rank of a tensor is unknown."""
    if any(tensor.shape.rank is None for tensor in tensors.values()):
        names = " and ".join(f"`{name}`" for name in tensors)
        shapes = (f"{name}.shape={tensor.shape}" for name, tensor in tensors.items())
        raise ValueError(
            f"The ranks of {names} must be known. Received: {', '.join(shapes)}"
        )


def check_dtypes(inputs, other, name="kernel", also=()):
    """Raises ValueError unless operands have one dtype, a float or one of `also`."""
    dtype, other_dtype = tf.as_dtype(inputs.dtype), tf.as_dtype(other.dtype)
    same = dtype == other_dtype
    if same and (dtype.is_floating or dtype.name in also):
        return
    raise ValueError(
        f"`inputs` and `{name}` must have {'a floating' if same else 'the same'} dtype."
        f" Received: inputs.dtype={dtype.name}, {name}.dtype={other_dtype.name}"
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
    check_dtypes(inputs, bias, "bias", also=INTEGERS)


def check_groups(groups, spec, inputs, kernel):
    """Raises ValueError unless a kernel was prepared for the groups of `inputs`."""
    if groups != spec.groups:
        raise ValueError(
            "`kernel` was prepared for another number of groups than that of `inputs`. "
            f"Received: groups={groups}, inputs.shape={tuple(inputs.shape)}, "
            f"kernel.shape={tuple(kernel.shape)}"
        )
