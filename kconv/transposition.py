"""A transposed convolution, as the convolution whose input gradient it is."""

import functools

from kconv.spec import (
    ConvSpec,
    check_ranks,
    checked_spec,
    is_integer,
    plain,
    positive,
    standard_format,
    standard_padding,
)


def transpose_spec(
    input_shape,
    kernel_shape,
    strides=1,
    padding="valid",
    output_padding=None,
    data_format=None,
    dilation_rate=1,
    groups=1,
    algorithm="auto",
):
    """Checks the arguments of `kconv.ops.conv_transpose`; `algorithm` as it is.

    Args:
        input_shape: Tuple of ints; None for an unknown size.
        kernel_shape: Tuple of ints, `(*kernel_size, filters // groups, channels)`.
        strides: As in `kconv.ops.conv_transpose`.
        padding: As in `kconv.ops.conv_transpose`.
        output_padding: As in `kconv.ops.conv_transpose`.
        data_format: As in `kconv.ops.conv_transpose`.
        dilation_rate: As in `kconv.ops.conv_transpose`.
        groups: As in `kconv.ops.conv_transpose`.
        algorithm: String.

    Returns:
        A tuple: the `ConvSpec` of the convolution that leads from the output to the
        input, whose kernel this is, and a function from a size of the input to the
        shape of the output. Both take None for an unknown size, and the function takes
        sizes that are tensors.

    Raises:
        ValueError: If an argument is wrong, or does not fit to another one.
    """
    check_ranks(input_shape, kernel_shape)
    dims = len(kernel_shape) - 2
    strides = positive("strides", strides, dims)
    padding = standard_padding(padding, dims)
    if padding == "causal":
        raise ValueError(
            "A transposed convolution has no causal padding. Received: padding="
            f"{padding!r}"
        )
    return _checked(
        input_shape,
        kernel_shape,
        strides,
        padding,
        _standard_output_padding(output_padding, strides),
        standard_format(data_format),
        positive("dilation_rate", dilation_rate, dims),
        _checked_groups(groups),
        algorithm,
    )


def output_size(size, kernel, stride, dilation, padding, output_padding):
    """Size of one axis of the output of a transposed convolution.

    Keras's convention: without `output_padding`, `"same"` gives `size * stride`, and
    `"valid"` all places that a tap or a stride reaches. An empty axis gives another.

    Args:
        size: Int, or a scalar tensor that is known when the graph runs.
        kernel: Int, the taps.
        stride: Int.
        dilation: Int.
        padding: `"valid"`, `"same"` or a pair of ints.
        output_padding: Int or None.

    Returns:
        As `size`.
    """
    if isinstance(size, int) and size == 0:
        return 0
    dilated = (kernel - 1) * dilation + 1
    before_last = (size - 1) * stride
    if padding == "same":
        if output_padding is None:
            return size * stride
        return before_last + dilated % 2 + output_padding
    if padding == "valid":
        if output_padding is None:
            output_padding = max(stride - dilated, 0)
        return before_last + dilated + output_padding
    return before_last + dilated + (output_padding or 0) - sum(padding)


def _standard_output_padding(output_padding, strides):
    """Returns None, or a tuple of ints, each less than the stride."""
    if output_padding is None:
        return None
    values = plain(output_padding)
    values = values if isinstance(values, tuple) else (values,) * len(strides)
    if len(values) != len(strides) or not all(
        is_integer(one) and 0 <= one < stride
        for one, stride in zip(values, strides, strict=True)
    ):
        raise ValueError(
            "`output_padding` must be a non-negative integer that is less than the "
            "stride, or one for each spatial dimension. Received: output_padding="
            f"{output_padding!r}, strides={strides}"
        )
    return values


def _checked_groups(groups):
    if not is_integer(groups) or groups < 1:
        raise ValueError(
            f"`groups` must be a positive integer. Received: groups={groups!r}"
        )
    return int(groups)


@functools.lru_cache(maxsize=4096)
def _checked(
    input_shape,
    kernel_shape,
    strides,
    padding,
    output_padding,
    data_format,
    dilation_rate,
    groups,
    algorithm,
):
    received = (
        f"Received: inputs.shape={input_shape}, kernel.shape={kernel_shape}, "
        f"data_format={data_format!r}"
    )
    if 0 in kernel_shape:
        raise ValueError(f"`kernel` must not be empty. {received}")
    last = data_format == "channels_last"
    channels = input_shape[-1 if last else 1]
    if channels is None or None in kernel_shape:
        raise ValueError(
            "The channels of `inputs` and the shape of `kernel` must be known. "
            f"{received}"
        )
    if channels != kernel_shape[-1]:
        raise ValueError(
            "`inputs` must have as many channels as `kernel` has in its last axis. "
            f"{received}"
        )
    if channels % groups:
        raise ValueError(
            "The channels of `inputs` must be a multiple of the groups. "
            f"{received}, groups={groups}"
        )
    size = input_shape[1:-1] if last else input_shape[2:]
    axes = tuple(
        zip(
            kernel_shape[:-2],
            strides,
            dilation_rate,
            (padding,) * len(strides) if isinstance(padding, str) else padding,
            (None,) * len(strides) if output_padding is None else output_padding,
            strict=True,
        )
    )
    received += (
        f", strides={strides}, padding={padding!r}, output_padding={output_padding}, "
        f"dilation_rate={dilation_rate}"
    )
    for n, axis in zip(size, axes, strict=True):
        _check_axis(n, axis, received)
    spec = ConvSpec(
        strides,
        dilation_rate,
        padding.upper() if isinstance(padding, str) else padding,
        groups,
        data_format,
        algorithm,
    )

    def output_shape(sizes):
        found = (
            None if n is None else output_size(n, *axis)
            for n, axis in zip(spec.size(sizes), axes, strict=True)
        )
        return spec.tensor_shape(sizes[0], tuple(found), kernel_shape[-2] * groups)

    # Sizes that overflow.
    checked_spec(
        output_shape(input_shape),
        kernel_shape,
        strides,
        padding,
        data_format,
        dilation_rate,
        algorithm,
    )
    return spec, output_shape


def _check_axis(size, axis, received):
    """Raises ValueError unless the convolution leads back from the output."""
    _, stride, _, padding, _ = axis
    # Whatever the size is.
    if padding == "same" and -(-output_size(2, *axis) // stride) != 2:
        raise ValueError(
            "With padding 'same' and a dilated kernel of even size, `output_padding` "
            f"must not be 0: no output of that size leads back. {received}"
        )
    if size is not None and size and output_size(size, *axis) < 1:
        raise ValueError(f"The output would be empty. {received}")
