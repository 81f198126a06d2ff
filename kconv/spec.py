"""What a convolution is: its checked parameters and the sizes that follow from them."""

import functools
import math
import numbers
from dataclasses import dataclass

import keras
import numpy as np

# Limits of the core: below them its 64-bit arithmetic cannot overflow.
_MAX_SIZE = 2**48
_MAX_ELEMENTS = 2**59


@dataclass(frozen=True)
class ConvSpec:
    """Everything about a convolution but its operands.

    Attributes:
        strides: Tuple of ints, one per spatial dimension.
        dilation_rate: Tuple of ints, one per spatial dimension.
        padding: `"VALID"`, `"SAME"` or a tuple of pairs (before, after), one per
            spatial dimension.
        groups: Int.
        data_format: `"channels_last"` or `"channels_first"`.
        algorithm: `"auto"`, `"auto:strict"` or a name of `dispatch.algorithms`.
    """

    strides: tuple
    dilation_rate: tuple
    padding: str | tuple
    groups: int
    data_format: str
    algorithm: str

    @property
    def dims(self):
        """Number of spatial dimensions."""
        return len(self.strides)

    @functools.cached_property
    def attributes(self):
        """The attributes of kconv's TensorFlow ops."""
        explicit = not isinstance(self.padding, str)
        return {
            "strides": list(self.strides),
            "dilations": list(self.dilation_rate),
            "padding": "EXPLICIT" if explicit else self.padding,
            "explicit_paddings": list(sum(self.padding, ())) if explicit else [],
            "groups": self.groups,
            "data_format": self.data_format,
            "algorithm": self.algorithm,
        }

    @classmethod
    def from_op(cls, op):
        """The inverse of `attributes`, for an op whose gradient is wanted."""
        padding = op.get_attr("padding").decode()
        if padding == "EXPLICIT":
            pads = op.get_attr("explicit_paddings")
            padding = tuple(zip(pads[::2], pads[1::2], strict=True))
        return cls(
            strides=tuple(op.get_attr("strides")),
            dilation_rate=tuple(op.get_attr("dilations")),
            padding=padding,
            groups=op.get_attr("groups"),
            data_format=op.get_attr("data_format").decode(),
            algorithm=op.get_attr("algorithm").decode(),
        )

    def size(self, shape):
        """Spatial part of the shape of an input or output."""
        shape = tuple(shape)
        return shape[1:-1] if self.data_format == "channels_last" else shape[2:]

    def channels(self, shape):
        """Channels of an input or output of this shape."""
        return shape[-1] if self.data_format == "channels_last" else shape[1]

    def tensor_shape(self, batch, size, channels):
        """Shape of an input or output."""
        if self.data_format == "channels_last":
            return (batch, *size, channels)
        return (batch, channels, *size)

    def pads(self, size, kernel_size):
        """Pairs (before, after) for an input of this size."""
        if self.padding == "VALID":
            return ((0, 0),) * self.dims
        if self.padding == "SAME":
            axes = zip(size, kernel_size, self.strides, self.dilation_rate, strict=True)
            return tuple(same_pads(*axis) for axis in axes)
        return self.padding

    def output_size(self, size, kernel_size):
        """Sizes of the output; None where the input's is unknown."""
        if self.padding == "SAME":
            axes = zip(size, self.strides, strict=True)
            return tuple(None if n is None else -(-n // stride) for n, stride in axes)
        pads = self.pads(size, kernel_size)
        axes = zip(size, pads, self.dilated(kernel_size), self.strides, strict=True)
        return tuple(
            # The dilated kernel fits, but perhaps in an empty axis: that gives another.
            None if n is None else max((n + sum(pair) - dilated) // stride + 1, 0)
            for n, pair, dilated, stride in axes
        )

    def output_shape(self, input_shape, kernel_shape):
        """Shape of the output; None where it is unknown."""
        size = self.output_size(self.size(input_shape), kernel_shape[:-2])
        return self.tensor_shape(input_shape[0], size, kernel_shape[-1])

    def dilated(self, kernel_size):
        """Sizes of the kernel with its holes."""
        axes = zip(kernel_size, self.dilation_rate, strict=True)
        return tuple((kernel - 1) * rate + 1 for kernel, rate in axes)


def same_pads(size, kernel, stride, dilation):
    """TensorFlow's "same" padding of one axis: the odd pixel after."""
    if isinstance(size, int) and size == 0:
        return 0, 0
    needed = (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size
    # keras.ops takes sizes that are known only when the graph runs.
    total = max(needed, 0) if isinstance(size, int) else keras.ops.maximum(needed, 0)
    return total // 2, total - total // 2


def conv_spec(
    input_shape,
    kernel_shape,
    strides=1,
    padding="valid",
    data_format=None,
    dilation_rate=1,
    algorithm="auto",
):
    """Checks the arguments of `kconv.ops.conv`; `algorithm` is taken as it is.

    Args:
        input_shape: Tuple of ints; None for an unknown size.
        kernel_shape: Tuple of ints; None for an unknown size.
        strides: As in `kconv.ops.conv`.
        padding: As in `kconv.ops.conv`.
        data_format: As in `kconv.ops.conv`.
        dilation_rate: As in `kconv.ops.conv`.
        algorithm: String.

    Returns:
        A `ConvSpec`.

    Raises:
        ValueError: If an argument is wrong, or does not fit to another one.
    """
    check_ranks(input_shape, kernel_shape)
    dims = len(kernel_shape) - 2
    return checked_spec(
        input_shape,
        kernel_shape,
        positive("strides", strides, dims),
        standard_padding(padding, dims),
        standard_format(data_format),
        positive("dilation_rate", dilation_rate, dims),
        algorithm,
    )


def depthwise_spec(
    input_shape,
    kernel_shape,
    strides=1,
    padding="valid",
    data_format=None,
    dilation_rate=1,
    algorithm="auto",
    name="kernel",
):
    """Checks the arguments of `kconv.ops.depthwise_conv`, as `conv_spec` those of conv.

    Args:
        input_shape: As in `conv_spec`.
        kernel_shape: As in `conv_spec`, with the channels and their multiplier last.
        strides: As in `conv_spec`.
        padding: As in `conv_spec`.
        data_format: As in `conv_spec`.
        dilation_rate: As in `conv_spec`.
        algorithm: As in `conv_spec`.
        name: String, what the caller calls the kernel, for errors.

    Returns:
        A `ConvSpec` with a group for each channel, which convolves with a kernel of the
        shape `grouped_shape(kernel_shape)`.

    Raises:
        ValueError: As `conv_spec`.
    """
    check_ranks(input_shape, kernel_shape, name)
    data_format = standard_format(data_format)
    dims = len(kernel_shape) - 2
    channels = input_shape[-1 if data_format == "channels_last" else 1]
    known = channels is not None and None not in kernel_shape
    if known and 0 not in kernel_shape and channels != kernel_shape[-2]:
        raise ValueError(
            f"`inputs` must have as many channels as a depthwise `{name}` has in its "
            f"last axis but one. Received: inputs.shape={input_shape}, {name}.shape="
            f"{kernel_shape}, data_format={data_format!r}"
        )
    return checked_spec(
        input_shape,
        grouped_shape(kernel_shape),
        positive("strides", strides, dims),
        standard_padding(padding, dims),
        data_format,
        positive("dilation_rate", dilation_rate, dims),
        algorithm,
        told_shape=kernel_shape,
        name=name,
    )


def grouped_shape(kernel_shape):
    """Shape of a depthwise kernel as that of a convolution in groups of one channel.

    The elements are in the same order: output channel `c * multiplier + j` is the j-th
    of channel c.

    Args:
        kernel_shape: Tuple of ints, `(*kernel_size, channels, multiplier)`; None for an
            unknown size.

    Returns:
        A tuple, `(*kernel_size, 1, channels * multiplier)`.
    """
    *kernel_size, channels, multiplier = kernel_shape
    unknown = None in (channels, multiplier)
    return (*kernel_size, 1, None if unknown else channels * multiplier)


def is_integer(value):
    """Whether a value is an integer, of Python or NumPy, and not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def plain(value):
    """Returns a value with Python's numbers and tuples in the place of NumPy's."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(plain(one) for one in value)
    return value


def check_ranks(input_shape, kernel_shape, name="kernel"):
    """Raises ValueError unless the ranks are those of a convolution."""
    if not 3 <= len(kernel_shape) <= 5 or len(input_shape) != len(kernel_shape):
        raise ValueError(
            f"`inputs` and `{name}` must have the same rank, which is 3, 4 or 5 for "
            "convolutions of 1, 2 or 3 spatial dimensions. Received: "
            f"inputs.shape={input_shape}, {name}.shape={kernel_shape}"
        )


def standard_format(data_format):
    """Returns "channels_last" or "channels_first"."""
    if data_format is None:
        data_format = keras.config.image_data_format()
    lower = data_format.lower() if isinstance(data_format, str) else None
    if lower not in ("channels_last", "channels_first"):
        raise ValueError(
            "`data_format` must be 'channels_last' or 'channels_first'. Received: "
            f"data_format={data_format!r}"
        )
    return lower


def positive(name, value, dims):
    """Returns a tuple of positive ints, one per spatial dimension."""
    values = plain(value)
    values = values if isinstance(values, tuple) else (values,) * dims
    if len(values) != dims or not all(
        is_integer(one) and 0 < one <= _MAX_SIZE for one in values
    ):
        raise ValueError(
            f"`{name}` must be a positive integer or {dims} of them, one per spatial "
            f"dimension, at most 2**48. Received: {name}={value!r}"
        )
    return values


def standard_padding(padding, dims):
    """Returns "valid", "same", "causal" or a tuple of pairs."""
    pads = plain(padding)
    if isinstance(pads, str):
        lower = pads.lower()
        if lower in ("valid", "same") or (lower == "causal" and dims == 1):
            return lower
    elif isinstance(pads, tuple) and len(pads) == dims:
        pairs = all(isinstance(pair, tuple) and len(pair) == 2 for pair in pads)
        if pairs and all(
            is_integer(one) and 0 <= one <= _MAX_SIZE for one in sum(pads, ())
        ):
            return pads
    names = "'valid', 'same' or 'causal'" if dims == 1 else "'valid' or 'same'"
    raise ValueError(
        f"`padding` must be {names}, or {dims} pairs of non-negative integers (before, "
        "after), one per spatial dimension, at most 2**48. Received: "
        f"padding={padding!r}"
    )


# An eager call pays for a look-up here, not for the checks.
@functools.lru_cache(maxsize=4096)
def checked_spec(
    input_shape,
    kernel_shape,
    strides,
    padding,
    data_format,
    dilation_rate,
    algorithm,
    told_shape=None,
    name="kernel",
):
    """Checks how the arguments of a convolution fit together; returns a `ConvSpec`."""
    # Errors tell the kernel that the caller knows.
    received = (
        f"Received: inputs.shape={input_shape}, {name}.shape="
        f"{told_shape or kernel_shape}"
    )
    channels = input_shape[-1 if data_format == "channels_last" else 1]
    kernel_size, group_channels, filters = (
        kernel_shape[:-2],
        kernel_shape[-2],
        kernel_shape[-1],
    )
    if 0 in kernel_shape:
        raise ValueError(f"`{name}` must not be empty. {received}")
    if channels is None or None in kernel_shape:
        raise ValueError(
            f"The channels of `inputs` and the shape of `{name}` must be known. "
            f"{received}"
        )
    if channels == 0 or channels % group_channels:
        raise ValueError(
            f"The channels of `inputs` must be a multiple of the channels of `{name}`, "
            f"its last axis but one. {received}, data_format={data_format!r}"
        )
    groups = channels // group_channels
    if filters % groups:
        raise ValueError(
            "The filters of `kernel`, its last axis, must be a multiple of the groups "
            "(the channels of `inputs` over the channels of `kernel`). "
            f"{received}, groups={groups}"
        )
    if padding == "causal":
        padding = (((kernel_size[0] - 1) * dilation_rate[0], 0),)
    elif isinstance(padding, str):
        padding = padding.upper()
    spec = ConvSpec(strides, dilation_rate, padding, groups, data_format, algorithm)
    _check_sizes(spec, input_shape, kernel_shape, received)
    return spec


def _check_sizes(spec, input_shape, kernel_shape, received):
    received = (
        f"{received}, strides={spec.strides}, padding={spec.padding}, "
        f"dilation_rate={spec.dilation_rate}"
    )
    # Unknown sizes are as good as 1 here: the op itself checks the sizes that come.
    size, kernel_size = spec.size(input_shape), kernel_shape[:-2]
    known = tuple(1 if n is None else n for n in size)
    dilated = spec.dilated(kernel_size)
    padded = [
        n + sum(pads)
        for n, pads in zip(known, spec.pads(known, kernel_size), strict=True)
    ]
    if max(*padded, *dilated) > _MAX_SIZE:
        raise ValueError(
            "The padded input and the dilated kernel must be at most 2**48 along each "
            f"axis. {received}"
        )
    for axis, (n, available, needed) in enumerate(
        zip(size, padded, dilated, strict=True)
    ):
        if n and available < needed:
            raise ValueError(
                "The dilated kernel must not be larger than the padded input, but is "
                f"so along spatial dimension {axis} ({needed} > {available}). "
                f"{received}"
            )
    output_shape = spec.output_shape(input_shape, kernel_shape)
    for shape in (input_shape, kernel_shape, output_shape):
        if math.prod(n for n in shape if n is not None) >= _MAX_ELEMENTS:
            raise ValueError(
                "Each tensor must have less than 2**59 elements. "
                f"{received}, output.shape={output_shape}"
            )
