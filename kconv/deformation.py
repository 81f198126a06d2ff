"""Deformable convolution: its checked parameters, and what computes it."""

import functools
from dataclasses import dataclass

from kconv import builtin, native
from kconv.dispatch import why_stock
from kconv.epilogue import NO_EPILOGUE
from kconv.settings import AUTO
from kconv.spec import ConvSpec, conv_spec, is_integer, plain


@dataclass(frozen=True)
class DeformSpec:
    """Everything about a deformable convolution but its operands.

    Attributes:
        conv: `ConvSpec`, of the same convolution without offsets.
        offset_groups: Int.
    """

    conv: ConvSpec
    offset_groups: int

    @functools.cached_property
    def attributes(self):
        """The attributes of kconv's TensorFlow ops."""
        names = "strides", "dilations", "padding", "explicit_paddings", "groups"
        attributes = {name: self.conv.attributes[name] for name in names}
        return {**attributes, "offset_groups": self.offset_groups}


def deform_spec(
    input_shape,
    kernel_shape,
    offsets_shape=None,
    mask_shape=None,
    strides=1,
    padding="valid",
    data_format=None,
    dilation_rate=1,
    offset_groups=1,
):
    """Checks the arguments of `kconv.ops.deform_conv`.

    Args:
        input_shape: Tuple of ints; None for an unknown size.
        kernel_shape: Tuple of ints.
        offsets_shape: Tuple of ints; None for an unknown size. Or None, if there are
            no offsets yet.
        mask_shape: The same of the mask.
        strides: As in `kconv.ops.deform_conv`.
        padding: As in `kconv.ops.deform_conv`.
        data_format: As in `kconv.ops.deform_conv`.
        dilation_rate: As in `kconv.ops.deform_conv`.
        offset_groups: As in `kconv.ops.deform_conv`.

    Returns:
        A `DeformSpec`.

    Raises:
        ValueError: If an argument is wrong, or does not fit to another one.
    """
    if len(input_shape) != 4 or len(kernel_shape) != 4:
        raise ValueError(
            "`inputs` and `kernel` must have the rank 4, for deformable convolution is "
            f"of two spatial dimensions. Received: inputs.shape={input_shape}, "
            f"kernel.shape={kernel_shape}"
        )
    spec = conv_spec(
        input_shape, kernel_shape, strides, padding, data_format, dilation_rate, AUTO
    )
    offset_groups = plain(offset_groups)
    channels = spec.channels(input_shape)
    if not is_integer(offset_groups) or offset_groups < 1 or channels % offset_groups:
        raise ValueError(
            "`offset_groups` must be a positive integer that divides the channels of "
            f"`inputs`. Received: offset_groups={offset_groups!r}, "
            f"inputs.shape={input_shape}, data_format={spec.data_format!r}"
        )
    values = offset_groups * kernel_shape[0] * kernel_shape[1]
    shape = spec.output_shape(input_shape, kernel_shape)
    for name, found, count, words in (
        ("offsets", offsets_shape, 2 * values, "two for each tap of each offset group"),
        ("mask", mask_shape, values, "one for each tap of each offset group"),
    ):
        wanted = spec.tensor_shape(shape[0], spec.size(shape), count)
        if found is not None and not _fits(found, wanted):
            raise ValueError(
                f"`{name}` must have the shape of the output with {count} channels, "
                f"{words}: {wanted}. Received: {name}.shape={found}, "
                f"inputs.shape={input_shape}, kernel.shape={kernel_shape}, "
                f"offset_groups={offset_groups}, data_format={spec.data_format!r}"
            )
    return DeformSpec(spec, offset_groups)


def _fits(shape, wanted):
    return len(shape) == len(wanted) and all(
        None in (n, m) or n == m for n, m in zip(shape, wanted, strict=True)
    )


def deform_conv(spec, inputs, kernel, offsets, mask=None, epilogue=NO_EPILOGUE):
    """Computes a deformable convolution of images with the channels last.

    Args:
        spec: A `DeformSpec`.
        inputs: A tensor.
        kernel: A tensor of the same dtype, as the others are.
        offsets: A tensor.
        mask: A tensor, or None.
        epilogue: An `Epilogue`.

    Returns:
        A tensor.
    """
    if why_stock(AUTO, inputs.dtype.name):
        return builtin.deform_conv(spec, inputs, kernel, offsets, mask, epilogue)
    return native.ops().kconv_deform_conv(
        input=inputs,
        filter=kernel,
        offsets=offsets,
        mask=[] if mask is None else [mask],
        bias=[] if epilogue.bias is None else [epilogue.bias],
        activation=epilogue.activation,
        **spec.attributes,
    )
