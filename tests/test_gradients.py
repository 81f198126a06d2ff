"""Gradients of kconv's ops, against the reference, differences and TensorFlow."""

import numpy as np
import pytest
import reference
import tensorflow as tf
from acceptance import takes
from problems import SMALL, Case, judged

import kconv

ALGORITHMS = ("auto", *kconv.ops.algorithms())
# Not stock, which compiles groups with XLA, anew in each of many calls.
OURS = ("auto", "auto:strict", "gemm", "direct")
NAMES = (
    *("1d_all", "1d_grouped", "2d_valid", "2d_strides_and_dilation"),
    *("2d_asymmetric_padding", "2d_padding_beyond_kernel", "2d_grouped_odd"),
    *("2d_1x1_strided_grouped", "3d_all", "empty_batch", "empty_row_padded"),
    *("2d_strides_and_dilation_channels_first", "2d_grouped_odd_channels_first"),
)
# As little as can hold groups, strides, dilation and uneven padding.
TINY = Case(
    *((5, 6), (2, 3), 4, 4),
    groups=2,
    strides=(2, 1),
    dilation_rate=(1, 2),
    padding=((1, 0), (2, 1)),
)
PLAIN = Case((5, 4), (3, 2), 2, 3, batch=2)


def conv(case, algorithm="auto"):
    """kconv.ops.conv as a function of its two tensors."""

    def function(x, w):
        return kconv.ops.conv(
            x,
            w,
            strides=case.strides,
            padding=case.padding,
            data_format=case.layout,
            dilation_rate=case.dilation_rate,
            algorithm=algorithm,
        )

    return function


def tensors(case, seed=0):
    """Input, filter and output gradient in float64."""
    rng = np.random.default_rng(seed)
    shapes = case.input_shape, case.filter_shape, case.output_shape
    return [tf.constant(rng.standard_normal(shape)) for shape in shapes]


def assert_close(results, expected, tolerance):
    for result, exact in zip(results, expected, strict=True):
        error = np.abs(np.asarray(result) - np.asarray(exact)).max()
        assert error <= tolerance * np.abs(exact).max()


def check_first_order(case, algorithm, wrap):
    options = {"dtype": "float32", "algorithm": algorithm}
    (dy, w), exact_dx = judged(case, "input_gradient", **options)
    (x, other_dy), exact_dw = judged(case, "filter_gradient", **options)

    @wrap
    def gradients(x, w, dy, other_dy):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x, w])
            y = conv(case, algorithm)(x, w)
        return tape.gradient(y, x, dy), tape.gradient(y, w, other_dy)

    dx, dw = gradients(*map(tf.constant, (x, w, dy, other_dy)))
    reference.assert_accurate(dx.numpy(), *exact_dx)
    reference.assert_accurate(dw.numpy(), *exact_dw)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", NAMES)
def test_first_order(name, algorithm):
    if not takes(algorithm, SMALL[name], "float32"):
        return
    check_first_order(SMALL[name], algorithm, wrap=lambda function: function)


@pytest.mark.parametrize("name", NAMES)
def test_first_order_in_a_graph(name):
    check_first_order(SMALL[name], "auto", wrap=tf.function)


@pytest.mark.parametrize("algorithm", OURS)
@pytest.mark.parametrize("dtype", ("float16", "bfloat16", "float64"))
def test_first_order_in_other_dtypes(dtype, algorithm):
    case = SMALL["2d_strides_and_dilation"]
    (dy, w), exact_dx = judged(case, "input_gradient", dtype)
    (x, _), _ = judged(case, "filter_gradient", dtype)
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = conv(case, algorithm)(x, w)
    dx = tape.gradient(y, x, tf.constant(dy))
    assert dx.dtype == x.dtype
    reference.assert_accurate(dx.numpy(), *exact_dx)


@pytest.mark.parametrize("algorithm", OURS)
@pytest.mark.parametrize("case", (TINY, PLAIN), ids=("tiny", "plain"))
def test_first_order_by_differences(case, algorithm):
    x, w, _ = tensors(case)
    theory, differences = tf.test.compute_gradient(conv(case, algorithm), [x, w])
    # A bilinear function has exact differences, but for cancellation.
    assert_close(theory, differences, 1e-9)


@pytest.mark.parametrize("algorithm", ("auto", "gemm"))
def test_second_order_by_differences(algorithm):
    @tf.function
    def gradients(x, w, dy):
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = conv(TINY, algorithm)(x, w)
        return tape.gradient(y, [x, w], dy)

    for index in (0, 1):
        theory, differences = tf.test.compute_gradient(
            lambda *given, index=index: gradients(*given)[index], tensors(TINY)
        )
        assert_close(theory[:2][1 - index], differences[:2][1 - index], 1e-9)
        assert_close(theory[2], differences[2], 1e-9)


@pytest.mark.parametrize("algorithm", ("auto", "gemm"))
def test_third_order(algorithm):
    x, w, _ = tensors(TINY)

    def derivative(function):
        def derived(x, w):
            with tf.GradientTape() as tape:
                tape.watch([x, w])
                value = function(x, w)
            dx, dw = tape.gradient(value, [x, w])
            return tf.reduce_sum(dx**3) + tf.reduce_sum(dw**3)

        return derived

    def loss_with(conv):
        return lambda x, w: tf.reduce_sum(conv(x, w) ** 3)

    ours = derivative(derivative(loss_with(conv(TINY, algorithm))))(x, w)
    theirs = derivative(derivative(loss_with(conv(TINY, "builtin"))))(x, w)
    assert abs(ours - theirs) <= 1e-12 * abs(theirs)


@pytest.mark.parametrize("use_pfor", (False, True), ids=("loop", "pfor"))
@pytest.mark.parametrize("algorithm", ("auto", "gemm"))
def test_jacobian(algorithm, use_pfor):
    x, w, _ = tensors(TINY)

    @tf.function
    def jacobians(x, w):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x, w])
            y = conv(TINY, algorithm)(x, w)
        return tape.jacobian(y, [x, w], experimental_use_pfor=use_pfor)

    dx, dw = jacobians(x, w)
    # The output is linear in each operand, so the jacobian gives it back.
    y = conv(TINY)(x, w)
    assert_close([tf.tensordot(dx, x, 4), tf.tensordot(dw, w, 4)], [y, y], 1e-12)


def test_forward_mode():
    x, w, _ = tensors(TINY)
    direction = tensors(TINY, seed=1)[0]
    with tf.autodiff.ForwardAccumulator(x, direction) as accumulator:
        y = conv(TINY)(x, w)
    assert_close([accumulator.jvp(y)], [conv(TINY)(direction, w)], 1e-12)


def test_gradients_through_a_loop():
    x, w, _ = tensors(Case((5, 6), (3, 3), 2, 2))

    @tf.function
    def gradient(x, w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            y = x
            for _ in tf.range(3):
                y = kconv.ops.conv(y, w, padding="same")
        return tape.gradient(y, w)

    with tf.GradientTape() as tape:
        tape.watch(w)
        y = x
        for _ in range(3):
            y = tf.nn.conv2d(y, w, 1, "SAME")
    assert_close([gradient(x, w)], [tape.gradient(y, w)], 1e-12)
