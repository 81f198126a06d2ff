"""Deformable convolution by stock ops, on any device and in XLA."""

import math

import tensorflow as tf

from kconv.epilogue import NO_EPILOGUE, Epilogue


def deform_conv(spec, inputs, kernel, offsets, mask=None, epilogue=NO_EPILOGUE):
    """Computes a deformable convolution, with the gradients of its ops, channels last.

    A tap after the other gathers its pixels, weighs them and adds its products: in
    inference no more than the pixels of a tap are in memory, a gradient keeps those of
    all. Coordinates and sums of half types are float32.

    Args:
        spec: A `DeformSpec`.
        inputs: A tensor, (batch, height, width, channels).
        kernel: A tensor.
        offsets: A tensor.
        mask: A tensor, or None.
        epilogue: An `Epilogue`.

    Returns:
        A tensor.
    """
    dtype = inputs.dtype
    wide = tf.float32 if dtype.size < 4 else dtype
    inputs, kernel, offsets = (tf.cast(t, wide) for t in (inputs, kernel, offsets))
    height, width, channels, filters = kernel.shape
    taps, parts = height * width, spec.offset_groups

    pixels = _Pixels(inputs, parts)
    places = tf.shape(offsets)[:3]
    grid = (*tf.unstack(places), parts, taps)
    offsets = tf.reshape(offsets, (*grid, 2))
    if mask is not None:
        mask = tf.reshape(tf.cast(mask, wide), (*grid, 1))
    pads = spec.conv.pads(pixels.size, (height, width))
    first = [
        tf.cast(tf.range(places[1 + i]) * spec.conv.strides[i] - pads[i][0], wide)
        for i in (0, 1)
    ]
    rows, columns = first[0][:, None, None], first[1][:, None]

    total = 0
    for tap in range(taps):
        down, right = divmod(tap, width)
        values = pixels.at(
            rows + down * spec.conv.dilation_rate[0] + offsets[..., tap, 0],
            columns + right * spec.conv.dilation_rate[1] + offsets[..., tap, 1],
        )
        if mask is not None:
            values *= mask[..., tap, :]
        values = tf.reshape(values, (-1, spec.conv.groups, channels))
        weights = tf.reshape(kernel[down, right], (channels, spec.conv.groups, -1))
        if spec.conv.groups == 1:
            total += tf.matmul(values[:, 0], weights[:, 0])
        else:
            total += tf.einsum("ngc,cgf->ngf", values, weights)
    outputs = tf.reshape(total, (*tf.unstack(places), filters))
    if epilogue.bias is not None:
        epilogue = Epilogue(tf.cast(epilogue.bias, wide), epilogue.activation)
    return tf.cast(epilogue.apply(outputs, "channels_last"), dtype)


class _Pixels:
    """The pixels of images, to be read between them.

    Args:
        images: A tensor, (batch, height, width, channels).
        parts: Int, the offset groups.
    """

    def __init__(self, images, parts):
        sizes = zip(tf.unstack(tf.shape(images)), images.shape, strict=True)
        batch, *self.size, channels = (n if m is None else m for n, m in sizes)
        height, width = self.size
        if parts > 1:
            shape = (batch, height, width, parts, channels // parts)
            images = tf.transpose(tf.reshape(images, shape), (0, 3, 1, 2, 4))
        rows = tf.reshape(images, (-1, channels // parts))
        # Whatever is not in the image reads the row of zeros at the end.
        zeros = tf.zeros((1, channels // parts), rows.dtype)
        self._rows = tf.concat([rows, zeros], 0)
        self._zero = tf.shape(rows, tf.int64)[0]
        images = tf.range(tf.cast(batch * parts, tf.int64))
        images *= tf.cast(height * width, tf.int64)
        self._first = tf.reshape(images, (batch, 1, 1, parts))

    def at(self, y, x):
        """The values at coordinates: zero outside, and NaN where one is NaN.

        Args:
            y: A tensor, (batch, rows, columns, parts).
            x: A tensor of the same shape.

        Returns:
            A tensor, of the channels of a part in a further axis.
        """
        is_nan = tf.math.is_nan(y) | tf.math.is_nan(x)
        is_inside = _is_between(y, self.size[0]) & _is_between(x, self.size[1])
        # Nobody takes the floor of an infinity, nor the gradient of it.
        (top, tops), (left, lefts) = (
            _weights(tf.where(is_inside, one, tf.zeros_like(one))) for one in (y, x)
        )
        total = 0
        for down, of_row in enumerate(tops):
            row = 0
            for right, of_column in enumerate(lefts):
                pixel = self._gather(is_inside, top + down, left + right)
                # Of no weight is not read, not even if it is infinite.
                row += tf.math.multiply_no_nan(pixel, of_column[..., None])
            total += tf.math.multiply_no_nan(row, of_row[..., None])
        # Zero, and with gradients of zero, where there is no NaN.
        zeros = tf.zeros_like(y)
        nans = tf.where(is_nan, tf.constant(math.nan, y.dtype), zeros)
        return total + (tf.where(is_nan, y + x, zeros) * nans)[..., None]

    def _gather(self, is_inside, row, column):
        height, width = (tf.cast(n, tf.int64) for n in self.size)
        is_pixel = is_inside & (row >= 0) & (row < height)
        is_pixel &= (column >= 0) & (column < width)
        index = self._first + row * width + column
        return tf.gather(self._rows, tf.where(is_pixel, index, self._zero))


def _is_between(places, size):
    return (places > -1) & (places < tf.cast(size, places.dtype))


def _weights(places):
    """The pixel before each place, and the weights of it and of the next."""
    before = tf.stop_gradient(tf.floor(places))
    after = places - before
    return tf.cast(before, tf.int64), (1 - after, after)
