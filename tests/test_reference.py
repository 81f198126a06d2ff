"""The judge is judged: naive loops, adjointness, TensorFlow and SciPy agree with it."""

import itertools

import numpy as np
import pytest
import reference
import scipy.signal
import tensorflow as tf
from problems import PASSES, SMALL, Case

TINY = {
    "1d": Case((7,), (3,), 2, 3, batch=2, strides=(2,), padding=((1, 3),)),
    "2d": Case(
        (5, 6),
        (3, 2),
        4,
        6,
        groups=2,
        strides=(1, 3),
        dilation_rate=(2, 1),
        padding=((2, 0), (1, 4)),
    ),
    "2d_channels_first": Case((4, 3), (2, 2), 3, 6, groups=3, layout="channels_first"),
    "3d": Case((3, 4, 2), (2, 2, 1), 2, 2, strides=(1, 2, 1), padding=((1, 1),) * 3),
    "empty": Case((0, 4), (2, 2), 2, 2),
}


def naive(case, x, w, dy):
    """All three passes with one multiplication a line, channels last."""
    y, dx, dw = np.zeros(dy.shape), np.zeros(x.shape), np.zeros(w.shape)
    ins, outs = case.in_channels // case.groups, case.out_channels // case.groups
    for n, g in np.ndindex(case.batch, case.groups):
        for p in np.ndindex(case.output_size):
            for t in np.ndindex(case.kernel_size):
                q = tuple(
                    p[a] * case.strides[a]
                    + t[a] * case.dilation_rate[a]
                    - case.padding[a][0]
                    for a in range(len(p))
                )
                if not all(0 <= q[a] < case.input_size[a] for a in range(len(p))):
                    continue
                for i, o in itertools.product(range(ins), range(outs)):
                    of_x = (n, *q, g * ins + i)
                    of_y = (n, *p, g * outs + o)
                    of_w = (*t, i, g * outs + o)
                    y[of_y] += x[of_x] * w[of_w]
                    dx[of_x] += dy[of_y] * w[of_w]
                    dw[of_w] += x[of_x] * dy[of_y]
    return y, dx, dw


def tensors(case):
    x, w = case.operands("forward", "float64")
    (dy, _) = case.operands("input_gradient", "float64", seed=1)
    return x, w, dy


def three_passes(case, x, w, dy):
    return (
        reference.conv(x, w, **case.options),
        reference.input_gradient(case.input_shape, w, dy, **case.options),
        reference.filter_gradient(x, case.filter_shape, dy, **case.options),
    )


@pytest.mark.parametrize("case", TINY.values(), ids=TINY)
def test_agrees_with_naive_loops(case):
    x, w, dy = tensors(case)
    y, dx, dw = three_passes(case, x, w, dy)
    if case.layout == "channels_first":
        x, y, dx, dy = (np.moveaxis(v, 1, -1) for v in (x, y, dx, dy))
    for mine, plain in zip((y, dx, dw), naive(case, x, w, dy), strict=True):
        np.testing.assert_allclose(mine, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
def test_gradients_are_adjoint(case):
    x, w, dy = tensors(case)
    y, dx, dw = three_passes(case, x, w, dy)
    assert y.shape == case.output_shape
    assert dx.shape == case.input_shape
    assert dw.shape == case.filter_shape
    np.testing.assert_allclose(np.vdot(y, dy), np.vdot(x, dx), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(np.vdot(y, dy), np.vdot(w, dw), rtol=1e-10, atol=1e-10)


STOCK = {
    "conv1d": (
        Case((12,), (3,), 4, 5, batch=2, strides=(2,)),
        lambda x, w: tf.nn.conv1d(x, w, stride=2, padding="VALID"),
    ),
    "conv2d": (
        Case((9, 8), (3, 2), 4, 6, batch=2, strides=(2, 2), padding=((1, 2), (0, 3))),
        lambda x, w: tf.nn.conv2d(x, w, 2, [[0, 0], [1, 2], [0, 3], [0, 0]]),
    ),
    "dilated": (
        Case((9, 8), (3, 2), 4, 6, dilation_rate=(2, 2)),
        lambda x, w: tf.nn.atrous_conv2d(x, w, 2, "VALID"),
    ),
    "depthwise": (
        Case((9, 8), (3, 3), 4, 8, groups=4),
        lambda x, w: tf.nn.depthwise_conv2d(
            x, tf.reshape(w, (3, 3, 4, 2)), (1, 1, 1, 1), "VALID"
        ),
    ),
    "conv3d": (
        Case((5, 6, 7), (2, 3, 2), 3, 4),
        lambda x, w: tf.nn.conv3d(x, w, (1, 1, 1, 1, 1), "VALID"),
    ),
}


@pytest.mark.parametrize(("case", "stock"), STOCK.values(), ids=STOCK)
def test_agrees_with_tensorflow(case, stock):
    x, w, dy = (tf.constant(v) for v in tensors(case))
    with tf.GradientTape() as tape:
        tape.watch((x, w))
        y = stock(x, w)
    theirs = (y, *tape.gradient(y, (x, w), output_gradients=dy))
    ours = three_passes(case, x.numpy(), w.numpy(), dy.numpy())
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-12)


def test_agrees_with_scipy():
    case = Case((9, 8), (3, 4), 3, 1)
    x, w = case.operands("forward", "float64")
    y = scipy.signal.correlate(x[0], w[..., 0], mode="valid")
    np.testing.assert_allclose(reference.conv(x, w, **case.options)[0], y, atol=1e-12)


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_judge_accepts_rounding_and_nothing_more(pass_, dtype):
    case = SMALL["2d_same"]
    a, b = case.operands(pass_, "float16")
    exact = case.exact(pass_, a, b)
    magnitude = case.exact(pass_, np.abs(a), np.abs(b))
    rounded = exact.astype(dtype)
    reference.assert_accurate(rounded, exact, magnitude)
    # One tap lost, one value off by a few units in the last place, a NaN.
    wrong = np.where(exact == exact.max(), np.nan, exact).astype(dtype)
    with pytest.raises(AssertionError, match="values are wrong"):
        reference.assert_accurate(wrong, exact, magnitude)
    with pytest.raises(AssertionError, match="values are wrong"):
        reference.assert_accurate(rounded * dtype(1.01), exact, magnitude)
    with pytest.raises(AssertionError):
        reference.assert_accurate(rounded[:, :1], exact, magnitude)
