"""Deformable convolution once more, slowly: all that its taps read, in one tensor."""

import numpy as np
import tensorflow as tf


def twin(
    x,
    kernel,
    offsets,
    mask=None,
    strides=(1, 1),
    pads=((0, 0), (0, 0)),
    dilation_rate=(1, 1),
    offset_groups=1,
):
    """Deformable convolution of finite operands, with the channels last.

    Images are framed with zeros, and places beyond the frame are moved onto it.

    Args:
        x: Tensor (batch, height, width, channels).
        kernel: Tensor (*kernel_size, channels // groups, filters).
        offsets: Tensor (batch, rows, columns, 2 * offset_groups * taps).
        mask: Tensor (batch, rows, columns, offset_groups * taps), or None.
        strides: Pair of ints.
        pads: Pair of pairs.
        dilation_rate: Pair of ints.
        offset_groups: Int.

    Returns:
        A tensor.
    """
    batch, *size, channels = x.shape
    *kernel_size, group_channels, filters = kernel.shape
    groups, taps = channels // group_channels, kernel_size[0] * kernel_size[1]
    grid = (*offsets.shape[:3], offset_groups, taps)
    moved = tf.reshape(offsets, (*grid, 2))
    regular = np.empty((*grid[1:3], 1, taps, 2))
    for i, j, p, q in np.ndindex(*grid[1:3], *kernel_size):
        regular[i, j, 0, p * kernel_size[1] + q] = [
            i * strides[0] - pads[0][0] + p * dilation_rate[0],
            j * strides[1] - pads[1][0] + q * dilation_rate[1],
        ]
    framed = tf.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0)))
    framed = tf.reshape(framed, (*framed.shape[:3], offset_groups, -1))
    places = [
        tf.clip_by_value(tf.cast(regular[..., n], x.dtype) + moved[..., n], -1, size[n])
        for n in (0, 1)
    ]
    corners = [tf.floor(tf.stop_gradient(one)) for one in places]
    images = np.broadcast_to(np.arange(batch).reshape(-1, 1, 1, 1, 1), grid)
    parts = np.broadcast_to(np.arange(offset_groups).reshape(-1, 1), grid)
    read = 0
    for step in np.ndindex(2, 2):
        pixels = [corner + n for corner, n in zip(corners, step, strict=True)]
        weight = 1
        for place, pixel, n in zip(places, pixels, step, strict=True):
            weight *= 1 + (place - pixel if n else pixel - place)
        index = [images, *(tf.cast(one, "int64") + 1 for one in pixels), parts]
        read += weight[..., None] * tf.gather_nd(framed, tf.stack(index, -1))
    if mask is not None:
        read *= tf.reshape(mask, (*grid, 1))
    read = tf.reshape(tf.transpose(read, (0, 1, 2, 4, 3, 5)), (*grid[:3], taps, -1))
    read = tf.reshape(read, (*grid[:3], taps, groups, group_channels))
    weights = tf.reshape(kernel, (taps, group_channels, groups, filters // groups))
    outputs = tf.einsum("nijtgc,tcgf->nijgf", read, weights)
    return tf.reshape(outputs, (*grid[:3], filters))
