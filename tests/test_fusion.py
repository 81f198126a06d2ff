"""kconv.ops.conv with a bias and an activation, and the gradients of both."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from acceptance import takes
from problems import EPILOGUES, PASSES, SMALL, Case, judged, naming
from reference import assert_accurate
from tiling import tolerance

import kconv
from kconv import dispatch, native

ALGORITHMS = ("auto", *kconv.ops.algorithms())
# Those that take float64.
EXACT = tuple(name for name in ALGORITHMS if not name.startswith("winograd"))
WINOGRAD = tuple(name for name in ALGORITHMS if name.startswith("winograd"))
NATIVE_OPS = {"Kconv>Conv", "Kconv>ConvBackpropInput", "Kconv>ConvBackpropFilter"}
# What a bias and an activation are where they are ops of their own.
EPILOGUE_OPS = {"BiasAdd", "AddV2", "Add", "Relu", "Relu6", "Maximum"}
STOCK = {"linear": tf.identity, "relu": tf.nn.relu, "relu6": tf.nn.relu6}

every_epilogue = pytest.mark.parametrize(("has_bias", "activation"), EPILOGUES)


def arguments(case):
    return {
        "strides": case.strides,
        "padding": case.padding,
        "data_format": case.layout,
        "dilation_rate": case.dilation_rate,
    }


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def ops_of(function, *arguments):
    """Types of all ops in the graph of a function and the functions it calls."""
    graph = tf.function(function).get_concrete_function(*arguments).graph.as_graph_def()
    nodes = itertools.chain(graph.node, *(f.node_def for f in graph.library.function))
    return [node.op for node in nodes]


def apart(case, x, w, b, activation, algorithm="gemm"):
    """The same by separate operations, with stock's gradients of all but the first."""
    y = kconv.ops.conv(x, w, **arguments(case), algorithm=algorithm)
    if b is not None:
        after = 0 if case.layout == "channels_last" else len(case.input_size)
        y = y + tf.reshape(b, [-1] + [1] * after)
    return STOCK[activation](y)


def together(case, x, w, b, activation, algorithm="auto"):
    return kconv.ops.conv(
        x, w, **arguments(case), algorithm=algorithm, bias=b, activation=activation
    )


# The operation.


@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
def test_conv_is_right(case):
    bias = case.bias()
    for algorithm in ALGORITHMS:
        if takes(algorithm, case, "float32"):
            (x, w), expected = judged(case, "forward", "float32", algorithm=algorithm)
            y = together(case, x, w, bias, "relu", algorithm)
            with naming(algorithm):
                assert_accurate(y.numpy(), *case.finished(expected, bias, "relu"))


@pytest.mark.parametrize("algorithm", EXACT)
@every_epilogue
@pytest.mark.parametrize("dtype", ("float16", "bfloat16", "float32", "float64"))
def test_every_type(dtype, has_bias, activation, algorithm):
    case = SMALL["2d_strides_and_dilation"]
    if not takes(algorithm, case, dtype):
        return
    (x, w), expected = judged(case, "forward", dtype)
    bias = case.bias(dtype) if has_bias else None
    y = together(case, x, w, bias, activation, algorithm)
    assert y.dtype.name == dtype
    exact, magnitude = case.finished(expected, bias, activation)
    if algorithm == "builtin":  # which rounds the sum and the result
        unit = {"float16": 2e-3, "bfloat16": 2e-2}.get(dtype, 2e-6)
        assert (
            np.abs(y.numpy().astype("float64") - exact).max() <= unit * magnitude.max()
        )
    else:
        assert_accurate(y.numpy(), exact, magnitude)


GRADIENT_CASES = (
    *("1d_all", "1d_grouped_channels_first", "2d_valid", "2d_padding_beyond_kernel"),
    *("2d_grouped_odd", "2d_strides_and_dilation_channels_first", "2d_1x1_strided"),
    *("3d_all", "3d_all_channels_first", "empty_batch", "empty_row_padded"),
)


def gradients(function, operands, dy):
    with tf.GradientTape() as tape:
        tape.watch([t for t in operands if t is not None])
        y = function(*operands)
    found = tape.gradient(y, [t for t in operands if t is not None], dy)
    return [y, *found]


def float64s(case, has_bias=True, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (
        case.input_shape,
        case.filter_shape,
        (case.out_channels,),
        case.output_shape,
    )
    x, w, b, dy = (tf.constant(rng.standard_normal(shape)) for shape in shapes)
    return (x, w, b if has_bias else None), dy


def assert_close(results, expected, allowed=1e-12):
    for result, exact in zip(results, expected, strict=True):
        assert result.shape == exact.shape
        if tf.size(exact):
            error = tf.reduce_max(tf.abs(result - exact))
            assert error <= allowed * max(1, tf.reduce_max(tf.abs(exact)))


@every_epilogue
@pytest.mark.parametrize("name", GRADIENT_CASES)
def test_gradients(name, has_bias, activation):
    case = SMALL[name]
    operands, dy = float64s(case, has_bias)
    expected = gradients(lambda *t: apart(case, *t, activation), operands, dy)
    for algorithm in EXACT[:-1]:
        if not takes(algorithm, case, "float64"):
            continue
        for wrap in (lambda function: function, tf.function):
            function = wrap(
                lambda *t, name=algorithm: together(case, *t, activation, name)
            )
            with naming(algorithm):
                assert_close(gradients(function, operands, dy), expected)


@pytest.mark.parametrize(
    "algorithm", [name for name in ALGORITHMS if name not in EXACT]
)
@every_epilogue
@pytest.mark.parametrize("name", ("2d_valid", "2d_same_channels_first"))
def test_gradients_of_winograd(name, has_bias, activation, algorithm):
    case = SMALL[name]
    operands, dy = float64s(case, has_bias)
    # Where a result is next to a step, its rounding decides the gradient.
    y = apart(case, *operands, "linear")
    clear = tf.reduce_all(tf.abs(y[..., None] - (0.0, 6.0)) > 1e-3, axis=-1)
    dy = tf.where(clear, dy, 0)
    expected = gradients(lambda *t: apart(case, *t, activation), operands, dy)
    operands = [t if t is None else tf.cast(t, "float32") for t in operands]
    found = gradients(
        lambda *t: together(case, *t, activation, algorithm),
        operands,
        tf.cast(dy, "float32"),
    )
    found = [tf.cast(t, "float64") for t in found]
    assert_close(found, expected, tolerance(algorithm))


@every_epilogue
@pytest.mark.parametrize("name", ("2d_strides_and_dilation", "2d_same_channels_first"))
def test_gradients_of_stock(name, has_bias, activation):
    case = SMALL[name]
    operands, dy = float64s(case, has_bias)
    expected = gradients(lambda *t: apart(case, *t, activation), operands, dy)
    stock = gradients(
        lambda *t: together(case, *t, activation, "builtin"), operands, dy
    )
    assert_close(stock, expected)


def test_gradients_at_the_steps():
    # On the steps, beyond them, and NaN: what TensorFlow says.
    values = [np.nan, -1.0, -0.0, 0.0, 1e-30, 5.999, 6.0, 7.0, np.inf, -np.inf]
    x = tf.reshape(tf.constant(values), (1, -1, 1))
    w = tf.ones((1, 1, 1))
    for activation in ("relu", "relu6"):
        case = Case((len(values),), (1,), 1, 1)
        dy = tf.ones_like(x)
        _, expected, _ = gradients(
            lambda x, w, a=activation: STOCK[a](x * w[0, 0, 0]), (x, w), dy
        )
        for algorithm in ("gemm", "direct", "builtin"):
            _, dx, _ = gradients(
                lambda x, w, c=case, a=activation, n=algorithm: together(
                    c, x, w, None, a, n
                ),
                (x, w),
                dy,
            )
            np.testing.assert_array_equal(dx, expected)


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_gradients_of_half_types(dtype):
    case = SMALL["2d_same"]
    x, w = (tf.constant(v) for v in case.operands("forward", dtype))
    b = tf.constant(case.bias(dtype))
    dy = tf.constant(case.operands("input_gradient", dtype)[0])
    found = gradients(lambda *t: together(case, *t, "relu", "gemm"), (x, w, b), dy)
    assert {t.dtype for t in found} == {x.dtype}
    wide = [tf.cast(t, tf.float64) for t in (x, w, b, dy)]
    exact = gradients(lambda *t: apart(case, *t, "relu"), wide[:3], wide[3])
    for result, expected in zip(found, exact, strict=True):
        error = tf.reduce_max(tf.abs(tf.cast(result, tf.float64) - expected))
        assert error <= 2e-2 * tf.reduce_max(tf.abs(expected))


# As little as can hold groups, strides, dilation and uneven padding.
TINY = Case(
    *((5, 6), (2, 3), 4, 4),
    groups=2,
    strides=(2, 1),
    dilation_rate=(1, 2),
    padding=((1, 0), (2, 1)),
)


def of_second_order(function):
    """All gradients, and those of a sum of powers of them."""

    def derived(x, w, b, dy):
        with tf.GradientTape() as outer:
            outer.watch([x, w, b, dy])
            y, *first = gradients(function, (x, w, b), dy)
            loss = sum(tf.reduce_sum(t**3) for t in first) + tf.reduce_sum(y**2)
        return y, *first, *outer.gradient(loss, [x, w, b, dy])

    return derived


@pytest.mark.parametrize("algorithm", EXACT)
@pytest.mark.parametrize("layout", ("channels_last", "channels_first"))
@pytest.mark.parametrize("activation", STOCK)
def test_second_order(activation, layout, algorithm):
    case = Case((5, 6), (2, 3), 4, 5, strides=(2, 1), padding=((1, 0), (2, 1)))
    case = Case(**{**case.__dict__, "layout": layout})
    if not takes(algorithm, case, "float64"):
        return
    (x, w, b), dy = float64s(case)
    expected = of_second_order(lambda *t: apart(case, *t, activation))(x, w, b, dy)
    derived = of_second_order(lambda *t: together(case, *t, activation, algorithm))
    assert_close(derived(x, w, b, dy), expected)
    assert_close(tf.function(derived)(x, w, b, dy), expected)


def test_second_order_costs_no_more_passes():
    (x, w, b), dy = float64s(TINY)

    def passes(function):
        found = ops_of(of_second_order(function), x, w, b, dy)
        return sum(op in NATIVE_OPS for op in found)

    fused = passes(lambda *t: together(TINY, *t, "relu", "gemm"))
    assert fused <= passes(lambda *t: apart(TINY, *t, "relu"))


@pytest.mark.parametrize("use_pfor", (False, True), ids=("loop", "pfor"))
@pytest.mark.parametrize("layout", ("channels_last", "channels_first"))
def test_jacobian(layout, use_pfor):
    case = Case((4, 5), (2, 3), 2, 3, layout=layout)
    (x, w, b), _ = float64s(case)

    def jacobians(function):
        @tf.function
        def derived(x, w, b):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch([x, w, b])
                y = function(x, w, b)
            return tape.jacobian(y, [x, w, b], experimental_use_pfor=use_pfor)

        return derived(x, w, b)

    found = jacobians(lambda *t: together(case, *t, "relu", "gemm"))
    assert_close(found, jacobians(lambda *t: apart(case, *t, "relu")))


def test_forward_mode():
    (x, w, b), _ = float64s(TINY)
    (direction, *_), _ = float64s(TINY, seed=1)
    found = []
    for function in (together, apart):
        with tf.autodiff.ForwardAccumulator(x, direction) as accumulator:
            y = function(TINY, x, w, b, "relu")
        found.append(accumulator.jvp(y))
    assert_close(found[:1], found[1:])


def test_unknown_shapes():
    case = SMALL["2d_same"]
    (x, w), expected = judged(case, "forward", "float32", algorithm="auto")
    bias = case.bias()
    judge = case.finished(expected, bias, "relu")
    for shapes in (
        ((None, None, None, case.in_channels), w.shape, bias.shape),
        ((None, None, None, case.in_channels), w.shape, (None,)),
        ((None, None, None, case.in_channels), w.shape, None),
    ):
        function = tf.function(
            lambda *t: together(case, *t, "relu"),
            input_signature=[tf.TensorSpec(shape) for shape in shapes],
        )
        assert_accurate(function(x, w, bias).numpy(), *judge)
        if shapes[2] != bias.shape:
            with pytest.raises(tf.errors.InvalidArgumentError, match="Received: "):
                function(x, w, bias[1:])


# Which kernel runs.


def ours(batch):
    return 1, 2


def stock(batch):
    return 2, 1


def stock_below_10(batch):
    return 5 + batch / 2, batch


MIXTURES = [
    *itertools.product((ours, stock), repeat=3),
    (stock_below_10, ours, stock),
    (stock_below_10,) * 3,
]


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("kind", ("eager", "graph", "unknown_batch"))
def test_passes_mix(kind, mixture, estimates):
    estimates(dict(zip(PASSES, mixture, strict=True)))
    case = Case((7, 6), (3, 2), 4, 5, batch=12, strides=(2, 2))
    (x, w, b), dy = float64s(case)
    expected = of_second_order(lambda *t: apart(case, *t, "relu"))(x, w, b, dy)
    derived = of_second_order(
        lambda *t: kconv.ops.conv(*t[:2], case.strides, bias=t[2], activation="relu")
    )
    if kind != "eager":
        unknown = [
            tf.TensorSpec(
                t.shape if t is w or t is b else (None, *t.shape[1:]), t.dtype
            )
            for t in (x, w, b, dy)
        ]
        signature = unknown if kind == "unknown_batch" else None
        derived = tf.function(derived, input_signature=signature)
    assert_close(derived(x, w, b, dy), expected, 1e-13)


def test_stock_can_be_fused_by_tensorflow(estimates):
    estimates(dict.fromkeys(PASSES, stock))
    (x, w, b), _ = float64s(Case((7, 6), (3, 2), 4, 5))
    found = ops_of(
        lambda *t: kconv.ops.conv(*t[:2], bias=t[2], activation="relu"), x, w, b
    )
    assert [op for op in found if op in ("Conv2D", *EPILOGUE_OPS)] == [
        *("Conv2D", "BiasAdd", "Relu")
    ]
    assert not {"IdentityN", *NATIVE_OPS} & set(found)


def test_without_kconvs_kernels(monkeypatch):
    monkeypatch.setattr(native, "ops", lambda: None)
    monkeypatch.setattr(native, "why_missing", lambda: "Gone.")
    for name in ("2d_same", "2d_same_channels_first", "3d_all_channels_first"):
        case = SMALL[name]
        (x, w), expected = judged(case, "forward", "float32")
        bias = case.bias()
        assert not NATIVE_OPS & set(
            ops_of(lambda *t, c=case: together(c, *t, "relu6"), x, w, bias)
        )
        y = together(case, x, w, bias, "relu6")
        assert_accurate(y.numpy(), *case.finished(expected, bias, "relu6"))


def test_types_without_kernels():
    x, w = np.arange(-8, 8).reshape(1, 4, 4, 1), np.ones((1, 1, 1, 1))
    given = (v.astype("int32") for v in (x, w))
    y = kconv.ops.conv(*given, bias=np.array([3], "int32"), activation="relu6")
    np.testing.assert_array_equal(y, np.clip(x + 3, 0, 6))


# Arguments.

IMAGE, KERNEL = (2, 8, 8, 4), (3, 3, 4, 6)
BAD = [
    ({"activation": "tanh"}, r"`activation` must be None or one of .*'relu6'"),
    ({"activation": tf.nn.relu}, "`activation` must be"),
    ({"bias": np.zeros(5, "float32")}, r"one value for each filter.*\(5,\), filters=6"),
    ({"bias": np.zeros((), "float32")}, "one value for each filter"),
    ({"bias": np.zeros((1, 6), "float32")}, "one value for each filter"),
    (
        {"bias": np.zeros(6, "float64")},
        r"`bias` must have the same dtype.*bias\.dtype=",
    ),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_arguments_are_told_before_anything_runs(options, message, monkeypatch):
    monkeypatch.setattr(dispatch, "conv", lambda *_: pytest.fail("an op was run"))
    inputs, kernel = np.zeros(IMAGE, "float32"), np.zeros(KERNEL, "float32")
    for given in (inputs, keras.KerasTensor(IMAGE)):
        with pytest.raises(ValueError, match=message) as error:
            kconv.ops.conv(given, kernel, **options)
        assert "Received: " in str(error.value)


def test_conv_is_a_node_of_a_functional_model():
    x = keras.Input((8, 9, 4))
    w, b = (keras.Input(batch_shape=shape) for shape in ((3, 3, 2, 6), (6,)))
    values = images(2, 8, 9, 4), images(3, 3, 2, 6), images(6)
    options = {"activation": "relu6", "algorithm": "direct"}
    for inputs, bias in (([x, w, b], b), ([x, w], values[2]), ([x, w], None)):
        model = keras.Model(inputs, kconv.ops.conv(x, w, bias=bias, **options))
        given = values[: len(inputs)]
        known = None if bias is None else values[2]
        expected = kconv.ops.conv(*values[:2], bias=known, **options)
        assert model.output_shape == (None, 6, 7, 6)
        assert np.array_equal(model(given), expected)
        again = keras.Model.from_config(model.get_config())
        assert np.array_equal(again(given), expected)
        operation = next(o for o in again.operations if isinstance(o, kconv.ops.Conv))
        assert (operation.activation, operation.algorithm) == ("relu6", "direct")
    with pytest.raises(ValueError, match="`activation` must be"):
        kconv.ops.Conv(activation="gelu")
