"""Convolution straight from its definition, in float64: the judge of every kernel.

Written to be read, one kernel tap at a time. With n the batch, p an output position,
t a kernel tap, s the stride, d the dilation and x zero outside of the image:

    y[n, p, o]  = sum of x[n, q, i] w[t, i, o]   over t, i     q = p s + t d - before
    dx[n, q, i] = sum of dy[n, p, o] w[t, i, o]  over p, t, o  p s + t d - before = q
    dw[t, i, o] = sum of x[n, q, i] dy[n, p, o]  over n, p     q = p s + t d - before

Filters are spatial + (input channels / groups, output channels) in both layouts. An
empty axis gives no outputs where its padding alone does not hold the kernel.
"""

import numpy as np

# Errors are allowed this many roundings of the accumulator, times the sum of the
# products' magnitudes. A sum of n products of random signs loses about 0.3 epsilon of
# that sum (standard deviation), whatever n is and in whatever order they are added.
ROUNDINGS = 4


def output_size(size, kernel, stride, dilation, before, after):
    """Number of output positions along one axis."""
    room = size + before + after - ((kernel - 1) * dilation + 1)
    return max(0, room // stride + 1)


def conv(x, w, *, strides, dilation_rate, padding, groups, layout):
    """The convolution of `x` with `w`."""
    x = _channels_last(x, layout)
    sizes, kernel = x.shape[1:-1], w.shape[:-2]
    axes = zip(sizes, kernel, strides, dilation_rate, padding, strict=True)
    out = [output_size(*axis, *pads) for *axis, pads in axes]
    padded = _pad(x, padding)
    y = np.zeros((x.shape[0], *out, w.shape[-1]))
    for tap in np.ndindex(kernel):
        seen = padded[_window(tap, out, strides, dilation_rate)]
        y += _join(_split(seen, groups) @ _split_filter(w[tap], groups), y.shape)
    return _as_layout(y, layout)


def input_gradient(
    input_shape, w, dy, *, strides, dilation_rate, padding, groups, layout
):
    """Gradient of sum(conv(x, w) * dy) with respect to `x`."""
    dy = _channels_last(dy, layout)
    dx = _pad(_channels_last(np.zeros(input_shape), layout), padding)
    for tap in np.ndindex(w.shape[:-2]):
        window = _window(tap, dy.shape[1:-1], strides, dilation_rate)
        weights = _split_filter(w[tap], groups).swapaxes(-1, -2)
        dx[window] += _join(_split(dy, groups) @ weights, dx[window].shape)
    inside = [
        slice(before, size - after)
        for size, (before, after) in zip(dx.shape[1:-1], padding, strict=True)
    ]
    return _as_layout(dx[(slice(None), *inside)], layout)


def filter_gradient(
    x, filter_shape, dy, *, strides, dilation_rate, padding, groups, layout
):
    """Gradient of sum(conv(x, w) * dy) with respect to `w`."""
    padded, dy = _pad(_channels_last(x, layout), padding), _channels_last(dy, layout)
    dw = np.zeros(filter_shape)
    for tap in np.ndindex(filter_shape[:-2]):
        seen = padded[_window(tap, dy.shape[1:-1], strides, dilation_rate)]
        if dw[tap].shape == (1, groups):  # as below, but not a matrix a channel
            dw[tap] = (seen * dy).sum(tuple(range(dy.ndim - 1)))
            continue
        of_groups = _split(seen, groups).swapaxes(-1, -2) @ _split(dy, groups)
        dw[tap] = of_groups.swapaxes(0, 1).reshape(filter_shape[-2:])
    return dw


def finish(y, bias, activation, layout):
    """The epilogue: `y` plus the bias, if it is not None, and the activation."""
    if bias is not None:
        bias = np.asarray(bias, np.float64)
        y = _as_layout(_channels_last(y, layout) + bias, layout)
    # Both keep NaN.
    if activation in ("relu", "relu6"):
        y = np.maximum(y, 0)
    return np.minimum(y, 6) if activation == "relu6" else y


def assert_accurate(result, exact, magnitude):
    """Asserts that `result` is `exact` but for the roundings that it may have.

    Rounding is monotonic: a sum that is off by at most `error` is stored between the
    rounded ends of exact ± error, so the storage type costs one rounding, no more.

    Args:
        result: Array of the type that the kernel stores.
        exact: float64 array, the reference of the (rounded) operands.
        magnitude: float64 array, the same sums over the operands' absolute values.
    """
    assert result.shape == exact.shape
    wide = np.float64 if result.dtype == np.float64 else np.float32
    error = ROUNDINGS * np.finfo(wide).eps * magnitude
    low, high = (end.astype(result.dtype) for end in (exact - error, exact + error))
    wrong = ~((low <= result) & (result <= high))
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} values are wrong, the first at {where}: "
            f"{result[where]}, expected {exact[where]} ± {error[where]}"
        )


def _channels_last(x, layout):
    x = np.asarray(x, np.float64)
    return np.moveaxis(x, 1, -1) if layout == "channels_first" else x


def _as_layout(x, layout):
    return np.moveaxis(x, -1, 1) if layout == "channels_first" else x


def _pad(x, padding):
    return np.pad(x, [(0, 0), *padding, (0, 0)])


def _window(tap, out, strides, dilation_rate):
    """Index of the padded positions that a tap meets, one for each output position."""
    return (
        slice(None),
        *(
            slice(t * d, t * d + (n - 1) * s + 1 if n else t * d, s)
            for t, n, s, d in zip(tap, out, strides, dilation_rate, strict=True)
        ),
    )


def _split(x, groups):
    """(batch, *spatial, channels) to (groups, positions, channels / groups)."""
    positions = int(np.prod(x.shape[:-1]))
    return x.reshape(positions, groups, x.shape[-1] // groups).swapaxes(0, 1)


def _split_filter(w, groups):
    """(in / groups, out) to (groups, in / groups, out / groups)."""
    return (
        np.asarray(w, np.float64)
        .reshape(w.shape[0], groups, w.shape[1] // groups)
        .swapaxes(0, 1)
    )


def _join(of_groups, shape):
    """Undoes `_split`."""
    return of_groups.swapaxes(0, 1).reshape(shape)
