"""Deformable convolution straight from its definition, in float64.

With n the batch, p an output position, t a tap, g the offset group of channel i, s the
stride, d the dilation and hat(u) = max(0, 1 - |u|):

    y[n, p, t, g]    = p s - before + t d + offset[n, p, g, t], x alike
    v[n, p, t, i]    = sum of hat(y - r) hat(x - q) input[n, r, q, i]  over pixels r, q
    out[n, p, o]     = sum of mask[n, p, g, t] v[n, p, t, i] w[t, i, o]  over t, i

and v = 0 where y <= -1, y >= height, x <= -1 or x >= width. Every pixel is weighted,
most by 0: nothing here knows of corners, floors or blocks. The derivative of a hat is
the one to the right.
"""

import dataclasses

import numpy as np
import reference


@dataclasses.dataclass(frozen=True)
class Options:
    """What a deformable convolution is given beside its arrays."""

    strides: tuple = (1, 1)
    dilation_rate: tuple = (1, 1)
    padding: tuple = ((0, 0), (0, 0))
    groups: int = 1
    offset_groups: int = 1

    def output_size(self, size, kernel):
        """Height and width of the output."""
        axes = zip(
            size, kernel, self.strides, self.dilation_rate, self.padding, strict=True
        )
        return tuple(reference.output_size(*axis, *pads) for *axis, pads in axes)


def _hat(u):
    return np.maximum(0, 1 - np.abs(u))


def _slope(u):
    right = np.where((u >= 0) & (u < 1), -1.0, np.where((u >= -1) & (u < 0), 1.0, 0.0))
    return np.where(np.isnan(u), np.nan, right)


class Sampling:
    """The hats of every sampled point of an image, one axis at a time."""

    def __init__(self, x, kernel, offsets, mask, options):
        """Computes them for the input `x` and a kernel of size `kernel`."""
        self.x = np.asarray(x, np.float64)
        batch, size = self.x.shape[0], self.x.shape[1:3]
        out = options.output_size(size, kernel)
        taps = kernel[0] * kernel[1]
        shape = (batch, *out, options.offset_groups, taps)
        offsets = np.asarray(offsets, np.float64).reshape(*shape, 2)
        self.mask = np.ones(shape)
        if mask is not None:
            self.mask = np.asarray(mask, np.float64).reshape(shape)
        inside, nan, self.hats, self.slopes = True, False, [], []
        for axis in range(2):
            n = size[axis]
            base = np.arange(out[axis]) * options.strides[axis]
            base = base - options.padding[axis][0]
            base = base.reshape([-1 if i == axis + 1 else 1 for i in range(5)])
            tap = np.indices(kernel)[axis].ravel() * options.dilation_rate[axis]
            at = base + tap + offsets[..., axis]
            inside = inside & (at > -1) & (at < n)
            nan = nan | np.isnan(at)
            away = at[..., None] - np.arange(n)
            self.hats.append(_hat(away))
            self.slopes.append(_slope(away))
        # What is outside has no weight, what is nowhere has no value.
        factor = np.where(nan, np.nan, np.where(inside, 1.0, 0.0))[..., None]
        self.nan = nan
        self.hats[0] = self._cut(self.hats[0], factor)
        self.slopes[0] = self._cut(self.slopes[0], factor)

    @staticmethod
    def _cut(weights, factor):
        return np.where(factor == 0, 0.0, weights * factor)

    def channels(self):
        """Channels of an offset group, last: (n, h, w, g, c / g)."""
        groups = self.mask.shape[3]
        return self.x.reshape(*self.x.shape[:3], groups, self.x.shape[3] // groups)

    def values(self, rows, columns):
        """Sums over the image: (n, p, q, g, t, c / g)."""
        return np.einsum(
            "npqgth,npqgtw,nhwgc->npqgtc",
            rows,
            columns,
            self.channels(),
            optimize=True,
        )


def _split(values, groups):
    """(n, p, q, g, t, c / g) to (n, p, q, groups, t, channels of a group)."""
    moved = np.moveaxis(values, 4, 3)  # taps before the channels
    n, p, q, t, parts, channels = moved.shape
    split = moved.reshape(n, p, q, t, groups, parts * channels // groups)
    return np.moveaxis(split, 4, 3)


def _join(values, offset_groups):
    """Undoes `_split`."""
    moved = np.moveaxis(values, 3, 4)
    n, p, q, t, parts, channels = moved.shape
    joined = moved.reshape(
        *(n, p, q, t, offset_groups, parts * channels // offset_groups)
    )
    return np.moveaxis(joined, 3, 4)


def _filter_of_groups(w, groups):
    """(taps, channels of a group, groups, filters of a group)."""
    w = np.asarray(w, np.float64)
    return w.reshape(w.shape[0] * w.shape[1], w.shape[2], groups, -1)


def forward(x, w, offsets, mask, options):
    """The output."""
    s = Sampling(x, w.shape[:2], offsets, mask, options)
    values = s.mask[..., None] * s.values(*s.hats)
    by_group = np.einsum(
        "npqgtc,tcgo->npqgo",
        _split(values, options.groups),
        _filter_of_groups(w, options.groups),
    )
    return by_group.reshape(*by_group.shape[:3], -1)


def gradients(x, w, offsets, mask, dy, options, absolute=False):
    """Gradients of sum(forward(...) * dy).

    Args:
        x: Array, the input.
        w: Array, the filter.
        offsets: Array.
        mask: Array or None.
        dy: Array, shaped like the output.
        options: `Options`.
        absolute: Whether to take every factor of every product by its magnitude.

    Returns:
        Gradients by `x`, `w`, `offsets` and `mask`.
    """
    size = np.abs if absolute else np.asarray
    s = Sampling(size(x), w.shape[:2], offsets, None if mask is None else mask, options)
    of_mask = size(s.mask)[..., None]
    of_groups = size(np.asarray(dy, np.float64))
    of_groups = of_groups.reshape(*of_groups.shape[:3], options.groups, -1)
    weights = _filter_of_groups(size(np.asarray(w, np.float64)), options.groups)

    values = of_mask * s.values(*s.hats)
    by_w = np.einsum(
        "npqgtc,npqgo->tcgo", _split(values, options.groups), of_groups
    ).reshape(w.shape)

    by_values = np.einsum("npqgo,tcgo->npqgtc", of_groups, weights)
    by_values = _join(by_values, options.offset_groups)
    rows, columns = s.hats
    known = ~s.nan[..., None]  # what is nowhere gives no pixel anything
    by_x = np.einsum(
        "npqgth,npqgtw,npqgtc->nhwgc",
        np.where(known, rows, 0),
        np.where(known, columns, 0),
        of_mask * by_values,
        optimize=True,
    ).reshape(np.shape(x))

    def by_point(rows, columns):
        return (by_values * s.values(size(rows), size(columns))).sum(-1)

    by_offsets = np.stack(
        [
            of_mask[..., 0] * by_point(s.slopes[0], s.hats[1]),
            of_mask[..., 0] * by_point(s.hats[0], s.slopes[1]),
        ],
        -1,
    )
    by_mask = by_point(*s.hats)
    shape = (*by_mask.shape[:3], -1)
    return by_x, by_w, by_offsets.reshape(shape), by_mask.reshape(shape)
