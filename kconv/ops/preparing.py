"""Kernels made ready for many calls."""

import tensorflow as tf

from kconv import dispatch, gpu, native
from kconv.dispatch import check_algorithm
from kconv.prepared import PreparedFilter
from kconv.settings import heeded_name
from kconv.spec import is_integer, plain


def prepare_filter(kernel, groups=1, strides=1, algorithm="auto"):
    """Prepares a kernel for many calls of `kconv.ops.conv`, as in inference.

    Where images are small and channels many, a good part of the time goes by while
    the algorithms of the family `"winograd"` gather the taps of the kernel. Here that
    is done once. The result changes no bit of what `kconv.ops.conv` computes, nor which
    algorithm does; it serves the forward pass, and derivatives take the kernel itself.
    It holds the kernel and a copy in float32 (filters rounded up to whole vectors). Of
    a variable it holds the value, not the variable.

    Args:
        kernel: Tensor of a floating dtype, of shape
            `(*kernel_size, channels // groups, filters)`.
        groups: Positive int, the groups of channels of the convolutions.
        strides: Positive int, or one for each spatial dimension, of the convolutions:
            nothing has a use for it where there are any.
        algorithm: As in `kconv.ops.conv`: nothing is made that it has no use for.

    Returns:
        A `kconv.ops.PreparedFilter`, which `kconv.ops.conv` takes for a kernel. Where
        nothing has a use for it, it holds the kernel only.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> kernel = np.random.rand(3, 3, 512, 512).astype("float32")
    >>> prepared = kconv.ops.prepare_filter(kernel)
    >>> x = np.random.rand(1, 14, 14, 512).astype("float32")
    >>> y = kconv.ops.conv(x, prepared, padding="same")
    """
    check_algorithm(algorithm)
    kernel = tf.convert_to_tensor(kernel)
    dims = (kernel.shape.rank or 0) - 2
    if dims not in (1, 2, 3):
        raise ValueError(
            "`kernel` must have three to five dimensions. Received: kernel.shape="
            f"{kernel.shape}"
        )
    filters = kernel.shape[-1]
    if (
        not is_integer(groups)
        or groups < 1
        or (filters is not None and filters % groups)
    ):
        raise ValueError(
            "`groups` must be a positive integer that divides the filters. Received: "
            f"groups={groups!r}, kernel.shape={kernel.shape}"
        )
    given, strides = strides, plain(strides)
    strides = (strides,) * dims if is_integer(strides) else strides
    if (
        not isinstance(strides, tuple)
        or len(strides) != dims
        or not all(is_integer(n) and n > 0 for n in strides)
    ):
        raise ValueError(
            "`strides` must be a positive integer, or one for each spatial dimension. "
            f"Received: strides={given!r}"
        )
    if kernel.shape.num_elements() == 0:
        raise ValueError(
            f"The kernel must not be empty. Received: kernel.shape={kernel.shape}"
        )
    form = _form(kernel, strides, groups, heeded_name(algorithm))
    return PreparedFilter(kernel, form, groups)


def _form(kernel, strides, groups, algorithm):
    """Returns a tensor of bytes, or None where nothing has a use for it."""
    # Only the CPU's kernels read one.
    if dispatch.why_stock(algorithm, kernel.dtype.name) or gpu.is_used():
        return None
    form = native.ops().kconv_prepare_filter(
        filter=kernel, strides=strides, groups=groups, algorithm=algorithm
    )
    # A graph does not know the size.
    return None if form.shape.num_elements() == 0 else form
