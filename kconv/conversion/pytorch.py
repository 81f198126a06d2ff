"""Weights of PyTorch's layers, as kconv's take them."""

import numpy as np


def deformable_weights(weight, bias=None, offset_weight=None, offset_bias=None):
    """Returns the weights of a deformable convolution of PyTorch for kconv's layer.

    For `kconv.layers.DeformableConv2D` of the same geometry: the kernel and the bias of
    torchvision's `DeformConv2d` or mmcv's `DeformConv2d` and `ModulatedDeformConv2d`,
    and those of the plain convolution that made the offsets: mmcv's `conv_offset`, and
    whatever stands ahead of torchvision's. For `modulated=True` its last third is the
    mask before the sigmoid. The order of offsets and masks is the same here and there.
    PyTorch's `padding=1` is `((1, 1), (1, 1))`.

    Args:
        weight: Array (filters, channels // groups, height, width).
        bias: Array (filters,), or None for a layer with `use_bias=False`.
        offset_weight: Array (offsets, channels, height, width), or None for a layer
            with `own_offsets=False`.
        offset_bias: Array (offsets,), or None for zeros.

    Returns:
        A list of arrays, for `layer.set_weights`.

    Raises:
        ValueError: If the shapes do not fit together.

    Example:

    >>> layer = kconv.layers.DeformableConv2D(64, 3, padding=((1, 1), (1, 1)))
    >>> layer.build((None, None, None, 32))
    >>> state = {k: v.numpy() for k, v in torch_layer.state_dict().items()}
    >>> names = "weight", "bias", "conv_offset.weight", "conv_offset.bias"
    >>> layer.set_weights(
    ...     kconv.conversion.deformable_weights(*(state[name] for name in names))
    ... )

    Source: torchvision.ops.DeformConv2d and mmcv.ops.ModulatedDeformConv2dPack.
    """
    given = {
        "weight": weight,
        "bias": bias,
        "offset_weight": offset_weight,
        "offset_bias": offset_bias,
    }
    arrays = {k: np.asarray(v) for k, v in given.items() if v is not None}
    told = ", ".join(f"{name}.shape={one.shape}" for name, one in arrays.items())
    if "weight" not in arrays:
        raise ValueError(
            f"`weight` must be an array. Received: weight=None{told and ', '}{told}"
        )
    for name, one in arrays.items():
        rank = 4 if name.endswith("weight") else 1
        if one.ndim != rank:
            raise ValueError(f"`{name}` must be of rank {rank}. Received: {told}")
    for name, of in (("bias", "weight"), ("offset_bias", "offset_weight")):
        if name in arrays and (
            of not in arrays or arrays[name].shape != arrays[of].shape[:1]
        ):
            raise ValueError(
                f"`{name}` must have one value for each filter of `{of}`. "
                f"Received: {told}"
            )
    found = [_moved(arrays["weight"])]
    if "bias" in arrays:
        found.append(arrays["bias"])
    if "offset_weight" not in arrays:
        return found
    branch = arrays["offset_weight"]
    size = arrays["weight"].shape[2:]
    of_group = arrays["weight"].shape[1]
    values, rest = divmod(branch.shape[0], size[0] * size[1])
    if branch.shape[2:] != size or rest or (values % 2 and values % 3):
        raise ValueError(
            "`offset_weight` must be of the size of `weight`, and of 2 or 3 filters "
            f"for each tap of each offset group. Received: {told}"
        )
    if branch.shape[1] % of_group:
        raise ValueError(
            "The channels of `offset_weight` must be a multiple of those of `weight`. "
            f"Received: {told}"
        )
    zeros = np.zeros(branch.shape[:1], branch.dtype)
    return [*found, _moved(branch), arrays.get("offset_bias", zeros)]


def _moved(weight):
    """Taps first, filters last."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
