"""Bias and activation in the passes that write an image: of the core, and of the op."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from acceptance import takes
from problems import CASES, DTYPES, EPILOGUES, LARGE, SMALL, Case, judged, naming
from reference import assert_accurate, finish

from kconv import native

core, ops = native.core(), native.ops()
assert core is not None and ops is not None, native.why_missing()

FORCED = list(itertools.product(core.algorithms(), core.isas()))

every_dtype = pytest.mark.parametrize("dtype", DTYPES)
# Small cases in every type, large ones in one of each way to round.
CASES_AND_DTYPES = {
    f"{name}-{dtype}": (case, dtype)
    for name, case in CASES.items()
    for dtype in DTYPES
    if name in SMALL or dtype in ("float32", "bfloat16")
}
every_case = pytest.mark.parametrize(
    ("case", "dtype"), CASES_AND_DTYPES.values(), ids=CASES_AND_DTYPES
)
every_epilogue = pytest.mark.parametrize(("has_bias", "activation"), EPILOGUES)


def run(problem, x, w, bias, algorithm, isa, **options):
    """Runs a kernel and checks that it was the one asked for; None if it refuses."""
    (row,) = (r for r in problem.explain(isa) if r["algorithm"] == algorithm)
    if row["refusal"] is not None:
        return None
    report = problem.run(x, w, bias=bias, algorithm=algorithm, isa=isa, **options)
    assert (report["algorithm"], report["isa"]) == (algorithm, isa)
    assert report["guards_intact"]
    return report["result"]


def same_values(a, b):
    """Whether two arrays are equal, where NaN is NaN."""
    return np.array_equal(np.float64(a), np.float64(b), equal_nan=True)


# The core.


@every_case
def test_result_is_accurate(case, dtype):
    for has_bias, activation in EPILOGUES:
        bias = case.bias(dtype) if has_bias else None
        problem = case.problem(
            core, "forward", dtype, bias=has_bias, activation=activation
        )
        (x, w), _ = judged(case, "forward", dtype)
        for algorithm, isa in FORCED:
            with naming(activation, bias is not None, algorithm, isa):
                result = run(problem, x, w, bias, algorithm, isa, guard=64)
                if result is not None:
                    _, expected = judged(case, "forward", dtype, algorithm=algorithm)
                    assert_accurate(result, *case.finished(expected, bias, activation))


@every_case
def test_a_transposed_convolution_is_accurate(case, dtype):
    pass_ = "input_gradient"
    bias = case.bias(dtype, pass_=pass_)
    problem = case.problem(core, pass_, dtype, bias=True, activation="relu6")
    ran = set()
    (dy, w), _ = judged(case, pass_, dtype)
    for algorithm, isa in FORCED:
        with naming(algorithm, isa):
            result = run(problem, dy, w, bias, algorithm, isa, guard=64)
            if result is not None:
                ran.add(algorithm)
                _, expected = judged(case, pass_, dtype, algorithm=algorithm)
                assert_accurate(result, *case.finished(expected, bias, "relu6"))
    # Several filters a channel are summed after the kernel has ended.
    several = case.out_channels > case.groups
    for algorithm in {name for name, _ in FORCED} - ran:
        taken = takes(algorithm, case, dtype)
        assert not taken or (algorithm == "depthwise" and several)


def test_nobody_refuses_an_epilogue():
    for layout, groups in itertools.product(
        ("channels_last", "channels_first"), (1, 2)
    ):
        case = Case((9, 8), (3, 3), 4, 6, layout=layout, groups=groups)
        plain = case.problem(core, "forward").explain()
        fused = case.problem(core, "forward", bias=True, activation="relu").explain()
        for before, after in zip(plain, fused, strict=True):
            if before["algorithm"] in ("gemm", "direct"):
                assert before == after


@every_dtype
def test_edges_of_register_tiles(dtype):
    columns = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 49, 63, 64, 65, 81]
    for rows, n in itertools.product([1, 2, 5, 6, 7, 13], columns):
        for layout in ("channels_last", "channels_first"):
            last = layout == "channels_last"
            pixels, filters = (rows, n) if last else (n, rows)
            case = Case((pixels,), (1,), 3, filters, layout=layout)
            x, w = case.operands("forward", dtype)
            bias = case.bias(dtype)
            problem = case.problem(core, "forward", dtype, bias=True, activation="relu")
            exact = case.exact("forward", x, w)
            size = case.exact("forward", np.abs(x), np.abs(w))
            judge = case.finished((exact, size), bias, "relu")
            for algorithm, isa in FORCED:
                with naming(algorithm, isa, case):
                    result = run(problem, x, w, bias, algorithm, isa, guard=64)
                    if result is not None:
                        assert_accurate(result, *judge)


@every_epilogue
@pytest.mark.parametrize("dtype", ("float32", "float64"))
def test_the_sum_is_that_of_the_plain_kernel(dtype, has_bias, activation):
    for case in (*SMALL.values(), LARGE["wide_groups"], LARGE["channels_first"]):
        x, w = case.operands("forward", dtype)
        without = case.problem(core, "forward", dtype)
        bias = case.bias(dtype) if has_bias else None
        problem = case.problem(
            core, "forward", dtype, bias=has_bias, activation=activation
        )
        for algorithm, isa in FORCED:
            plain = run(without, x, w, None, algorithm, isa)
            if plain is None:
                continue
            expected = plain
            if has_bias:
                after = 0 if case.layout == "channels_last" else x.ndim - 2
                expected = plain + bias.reshape(-1, *[1] * after)
            if activation != "linear":
                expected = np.maximum(expected, 0)
            if activation == "relu6":
                expected = np.minimum(expected, 6)
            assert expected.dtype == plain.dtype
            with naming(algorithm, isa, case):
                result = run(problem, x, w, bias, algorithm, isa)
                np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("dtype", ("float32", "bfloat16"))
@pytest.mark.parametrize("case", LARGE.values(), ids=LARGE)
def test_same_bits_for_any_number_of_threads(case, dtype):
    x, w = case.operands("forward", dtype)
    problem = case.problem(core, "forward", dtype, bias=True, activation="relu6")
    for algorithm, isa in FORCED:
        results = [
            run(problem, x, w, case.bias(dtype), algorithm, isa, threads=threads)
            for threads in (1, 2, 5)
        ]
        if results[0] is not None:
            assert len({result.tobytes() for result in results}) == 1


@every_dtype
def test_the_bias_needs_no_alignment(dtype):
    case = SMALL["2d_same"]
    (x, w), _ = judged(case, "forward", dtype)
    problem = case.problem(core, "forward", dtype, bias=True)
    bias = case.bias(dtype)
    for skip in (1, 3):
        room = np.empty(bias.size + skip, bias.dtype)
        room[skip:] = bias
        for algorithm, isa in FORCED:
            with naming(algorithm, isa, skip):
                result = run(problem, x, w, room[skip:], algorithm, isa)
                if result is not None:
                    _, expected = judged(case, "forward", dtype, algorithm=algorithm)
                    assert_accurate(result, *case.finished(expected, bias, "linear"))


@pytest.mark.parametrize("layout", ("channels_last", "channels_first"))
@pytest.mark.parametrize("dtype", ("bfloat16", "float16"))
def test_half_types_are_rounded_once(dtype, layout):
    # Each value plus a part of the gap to its neighbour, ties among them.
    values = np.arange(2**16, dtype=np.uint16).view(DTYPES[dtype])
    digits = {"bfloat16": 8, "float16": 11}[dtype]
    case = Case((1,), (1,), 1, 2**16, layout=layout)
    x = np.ones(case.input_shape, DTYPES[dtype])
    for part, activation in itertools.product((0.5, 0.75), ("linear", "relu", "relu6")):
        with np.errstate(all="ignore"):
            bias = values.astype(np.float32) * part * 2.0**-digits
            bias = bias.astype(values.dtype)
            wide = values.astype(np.float32) + bias.astype(np.float32)
            expected = finish(wide[None], None, activation, "channels_last")
            expected = expected[0].astype(np.float32).astype(values.dtype)
        problem = case.problem(core, "forward", dtype, bias=True, activation=activation)
        weights = values.reshape(case.filter_shape)
        for algorithm, isa in FORCED:
            with naming(algorithm, isa, part, activation):
                result = run(problem, x, weights, bias, algorithm, isa)
                if result is not None:
                    assert same_values(result.ravel(), expected)


SPECIAL = [np.nan, np.inf, -np.inf, -1.0, 7.0, 0.0, 3.0]


@every_dtype
@pytest.mark.parametrize("layout", ("channels_last", "channels_first"))
def test_nan_and_infinity(layout, dtype):
    # As pixels, and as biases; enough of each for whole vectors and a rest.
    values = np.array(SPECIAL * 11, DTYPES[dtype])
    for as_bias, activation in itertools.product(
        (False, True), ("linear", "relu", "relu6")
    ):
        case = Case((values.size,), (1,), 1, values.size, layout=layout)
        x = np.ones(case.input_shape, values.dtype)
        bias = np.ones(values.size, values.dtype)
        if as_bias:
            bias = values
        else:
            x = values.reshape(case.input_shape)
        w = np.ones(case.filter_shape, values.dtype)
        problem = case.problem(core, "forward", dtype, bias=True, activation=activation)
        exact = finish(case.exact("forward", x, w), bias, activation, layout)
        assert np.isnan(exact).any()
        for algorithm, isa in FORCED:
            with naming(algorithm, isa, as_bias, activation):
                result = run(problem, x, w, bias, algorithm, isa)
                assert result is None or same_values(result, exact)


def test_a_stock_op_agrees_on_nan():
    values = np.array(SPECIAL, np.float32).reshape(1, -1, 1)
    one = np.ones((1, 1, 1), np.float32)
    case = Case((values.size,), (1,), 1, 1)
    for activation, stock in (("relu", tf.nn.relu), ("relu6", tf.nn.relu6)):
        problem = case.problem(core, "forward", activation=activation)
        for algorithm, isa in FORCED:
            with naming(algorithm, isa, activation):
                result = run(problem, values, one, None, algorithm, isa)
                assert result is None or same_values(result, stock(values))


def test_bad_problem():
    case = Case((5, 6), (3, 2), 4, 6)
    with pytest.raises(
        ValueError, match=r"activation must be one of .*Received: .*tanh"
    ):
        case.problem(core, "forward", activation="tanh")
    for epilogue in ({"bias": True}, {"activation": "relu"}):
        with pytest.raises(ValueError, match=r"image.*Received: pass_=filter_gradient"):
            case.problem(core, "filter_gradient", **epilogue)


def test_bad_bias():
    case = Case((5, 6), (3, 2), 4, 6)
    x, w = case.operands("forward")
    plain = case.problem(core, "forward")
    biased = case.problem(core, "forward", bias=True)
    good = case.bias()
    with pytest.raises(ValueError, match="Received: bias=None"):
        biased.run(x, w)
    with pytest.raises(ValueError, match="Received: bias=array"):
        plain.run(x, w, bias=good)
    for bad in (
        good[:5],
        good[None],
        good.astype("float64"),
        np.array(1, "float32"),
        good[::-1],
    ):
        with pytest.raises((ValueError, TypeError), match="Received: "):
            biased.run(x, w, bias=bad)
    assert biased.run(x, w, bias=good)["guards_intact"]


# The op.


def accepted(problem):
    """Names of the algorithms that take a problem."""
    return [row["algorithm"] for row in problem.explain() if row["refusal"] is None]


def attributes(case, **changes):
    return {
        "strides": case.strides,
        "dilations": case.dilation_rate,
        "padding": "EXPLICIT",
        "explicit_paddings": [n for pads in case.padding for n in pads],
        "groups": case.groups,
        "data_format": case.layout,
        "algorithm": "auto",
        **changes,
    }


@every_dtype
@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
def test_op_has_the_bits_of_the_core(case, dtype):
    x, w = case.operands("forward", dtype)
    for has_bias, activation in EPILOGUES:
        bias = case.bias(dtype) if has_bias else None
        options = {"bias": has_bias, "activation": activation}
        problem = case.problem(core, "forward", dtype, **options)
        for algorithm in accepted(problem):
            given = attributes(case, algorithm=algorithm, activation=activation)
            result = ops.kconv_conv(x, w, [bias] if has_bias else [], [], [], **given)
            alone = problem.run(x, w, bias=bias, algorithm=algorithm)["result"]
            assert result.numpy().tobytes() == alone.tobytes(), (algorithm, options)


@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
def test_op_of_the_input_gradient_has_the_bits_of_the_core(case):
    pass_ = "input_gradient"
    dy, w = case.operands(pass_)
    for has_bias, activation in EPILOGUES:
        bias = case.bias(pass_=pass_) if has_bias else None
        options = {"bias": has_bias, "activation": activation}
        problem = case.problem(core, pass_, **options)
        for algorithm in accepted(problem):
            given = attributes(case, algorithm=algorithm, activation=activation)
            result = ops.kconv_conv_backprop_input(
                case.input_shape, w, dy, [bias] if has_bias else [], **given
            )
            alone = problem.run(dy, w, bias=bias, algorithm=algorithm)["result"]
            assert result.numpy().tobytes() == alone.tobytes(), (algorithm, options)


@pytest.mark.parametrize("shape", [(5,), (1,), (), (4, 1)])
def test_bad_bias_of_the_input_gradient(shape):
    dy, w, bias = tf.zeros(CASE.output_shape), W, tf.ones(shape)

    def call(dy, w, bias):
        sizes = CASE.input_shape
        return ops.kconv_conv_backprop_input(sizes, w, dy, [bias], **attributes(CASE))

    words = "one value for each channel of the result. Received: shape=.*channels=4"
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        call(dy, w, bias)
    unknown = tf.function(call, input_signature=[tf.TensorSpec(None)] * 3)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=words):
        unknown(dy, w, bias)


CASE = Case((7, 8), (3, 2), 4, 6, batch=2)
X, W = tf.zeros(CASE.input_shape), tf.zeros(CASE.filter_shape)


def conv(x, w, bias):
    return ops.kconv_conv(x, w, [bias], [], [], **attributes(CASE), activation="relu")


@pytest.mark.parametrize(
    ("w", "bias", "filters"),
    [
        (CASE.filter_shape, (6,), 6),
        (CASE.filter_shape, (None,), 6),
        (CASE.filter_shape, None, 6),
        ((3, 2, 4, None), (6,), 6),
        ((3, 2, 4, None), (None,), None),
        (None, (6,), 6),
    ],
)
def test_shape_function(w, bias, filters):
    specs = [tf.TensorSpec(shape) for shape in (CASE.input_shape, w, bias)]
    shape = tf.function(conv).get_concrete_function(*specs).structured_outputs.shape
    assert (shape[0], shape[-1]) == (2, filters)


@pytest.mark.parametrize("shape", [(5,), (7,), (1,), (0,), (), (6, 1), (1, 6)])
def test_bad_shape_of_the_bias(shape):
    bias = tf.ones(shape)
    words = "one value for each channel of the result. Received: shape=.*channels=6"
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        conv(X, W, bias)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=words):
        tf.function(lambda: conv(X, W, bias)).get_concrete_function()
    unknown = tf.function(conv, input_signature=[tf.TensorSpec(None)] * 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        unknown(X, W, bias)
    # Even where there is nothing to compute.
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        unknown(X[:0], W, bias)


def test_more_than_one_bias():
    bias = tf.ones(6)
    function = tf.function(
        lambda: ops.kconv_conv(X, W, [bias] * 2, [], [], **attributes(CASE))
    )
    for call in (
        lambda: ops.kconv_conv(X, W, [bias] * 2, [], [], **attributes(CASE)),
        function.get_concrete_function,
    ):
        with pytest.raises(
            (ValueError, tf.errors.InvalidArgumentError), match="Received: num_bias=2"
        ):
            call()


def test_unknown_activation():
    with pytest.raises(tf.errors.InvalidArgumentError, match="allowed values"):
        ops.kconv_conv(X, W, [], [], [], **attributes(CASE), activation="tanh")


def test_bias_of_another_type():
    with pytest.raises((tf.errors.InvalidArgumentError, TypeError)):
        conv(X, W, tf.ones(6, tf.float64))


def test_graphs_from_before_there_was_an_epilogue():
    x, w = (tf.constant(v) for v in CASE.operands("forward"))
    function = tf.function(
        lambda x, w: ops.kconv_conv(x, w, [], [], [], **attributes(CASE))
    )
    graph = function.get_concrete_function(x, w).graph.as_graph_def()
    (node,) = (node for node in graph.node if node.op == "Kconv>Conv")
    for name in ("num_bias", "activation"):
        del node.attr[name]
    inputs = [n.name for n in graph.node if n.op == "Placeholder"]

    def loaded(x, w):
        given = {f"{name}:0": v for name, v in zip(inputs, (x, w), strict=True)}
        (y,) = tf.graph_util.import_graph_def(
            graph, input_map=given, return_elements=[f"{node.name}:0"]
        )
        return y, tf.gradients(y, [x, w])

    y, (dx, dw) = tf.function(loaded)(x, w)
    with tf.GradientTape() as tape:
        tape.watch([x, w])
        expected = tf.nn.conv2d(x, w, 1, "VALID")
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for ours, theirs in zip((dx, dw), tape.gradient(expected, [x, w]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
