"""The TensorFlow ops as they are, where no Python guards them."""

import functools
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from acceptance import takes
from problems import CASES, DTYPES, LARGE, PASSES, SMALL, Case, judged
from reference import assert_accurate

from kconv import native

core, ops = native.core(), native.ops()
assert core is not None and ops is not None, native.why_missing()

ALGORITHMS = ("auto", "auto:strict", "winograd", *core.algorithms())
every_pass = pytest.mark.parametrize("pass_", PASSES)

# No bias, and nothing prepared.
NOTHING = [], [], []
backprop_input = functools.partial(ops.kconv_conv_backprop_input, bias=[])
PLAIN = {
    "strides": [1, 1],
    "dilations": [1, 1],
    "padding": "VALID",
    "explicit_paddings": [],
    "groups": 1,
    "data_format": "channels_last",
    "algorithm": "auto",
}


def attributes(case, **changes):
    """The attributes of all three ops for a case."""
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


def run(case, pass_, a, b, sizes_dtype=tf.int32, **changes):
    """Runs the op of a pass on operands in the order of `Problem.run`."""
    given = attributes(case, **changes)
    if pass_ == "forward":
        return ops.kconv_conv(a, b, *NOTHING, **given)
    if pass_ == "input_gradient":
        sizes = tf.constant(case.input_shape, sizes_dtype)
        return backprop_input(sizes, b, a, **given)
    sizes = tf.constant(case.filter_shape, sizes_dtype)
    return ops.kconv_conv_backprop_filter(a, sizes, b, **given)


# Results.


@pytest.mark.parametrize("dtype", DTYPES)
@every_pass
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_result_has_the_bits_of_the_core(case, pass_, dtype):
    """Whose accuracy test_kernels proves."""
    a, b = case.operands(pass_, dtype)
    problem = case.problem(core, pass_, dtype)
    strict = run(case, pass_, a, b, algorithm="auto:strict").numpy()
    alone = problem.run(a, b, algorithm="auto:strict")["result"]
    assert strict.shape == alone.shape
    assert strict.tobytes() == alone.tobytes()
    of_algorithms = set()
    for row in problem.explain():
        algorithm = row["algorithm"]
        if row["refusal"] is not None:
            if alone.size == 0:  # there was nothing to refuse
                continue
            with pytest.raises(tf.errors.InvalidArgumentError) as error:
                run(case, pass_, a, b, algorithm=algorithm)
            assert row["refusal"] in str(error.value)
            continue
        result = run(case, pass_, a, b, algorithm=algorithm).numpy()
        bits = problem.run(a, b, algorithm=algorithm)["result"].tobytes()
        assert result.tobytes() == bits, algorithm
        of_algorithms.add(bits)
    assert run(case, pass_, a, b).numpy().tobytes() in of_algorithms


@every_pass
def test_sizes_of_either_integer_type(pass_):
    case = SMALL["2d_strides_and_dilation"]
    (a, b), expected = judged(case, pass_, "float32")
    for dtype in (tf.int32, tf.int64):
        assert_accurate(run(case, pass_, a, b, dtype).numpy(), *expected)


@every_pass
def test_shapes_known_only_at_run_time(pass_):
    unknown = tf.TensorSpec(None, tf.float32)
    for name in ("1d_all", "2d_grouped_odd_channels_first", "3d_all", "empty_batch"):
        case = SMALL[name]
        (a, b), expected = judged(case, pass_, "float32", algorithm="auto")
        function = tf.function(
            lambda a, b, case=case: run(case, pass_, a, b),
            input_signature=[unknown] * 2,
        )
        assert_accurate(function(a, b).numpy(), *expected)


def test_same_padding_is_tensorflows():
    for n, k, stride in itertools.product(range(1, 9), range(1, 6), range(1, 5)):
        x = np.arange(1.0, 2 * n + 1).reshape(1, n, 2, 1)
        w = np.arange(1.0, 2 * k + 1).reshape(k, 2, 1, 1)
        given = {**PLAIN, "strides": [stride, 1], "padding": "SAME"}
        expected = tf.nn.conv2d(x, w, (stride, 1) if stride == 1 else stride, "SAME")
        if stride > 1:
            given["strides"] = [stride, stride]
        np.testing.assert_array_equal(ops.kconv_conv(x, w, *NOTHING, **given), expected)


def test_same_padding_with_dilation_and_an_empty_axis():
    # ceil(n / s) outputs, the odd pixel after.
    case = Case((9, 0), (4, 3), 2, 3, strides=(2, 1), dilation_rate=(3, 2))
    x, w = case.operands("forward")
    given = attributes(case, padding="SAME", explicit_paddings=[])
    assert ops.kconv_conv(x, w, *NOTHING, **given).shape == (1, 5, 0, 3)
    padded = Case(
        (9, 5),
        (4, 3),
        2,
        3,
        strides=(2, 1),
        dilation_rate=(3, 2),
        padding=((4, 5), (2, 2)),
    )
    for pass_ in PASSES:
        (a, b), expected = judged(padded, pass_, "float32", algorithm="auto")
        same = run(padded, pass_, a, b, padding="SAME", explicit_paddings=[])
        assert_accurate(same.numpy(), *expected)


def test_empty_batch_has_gradients_of_zero():
    case = Case((5, 6), (3, 3), 4, 4, batch=0)
    (x, dy), _ = judged(case, "filter_gradient", "float32")
    for algorithm in (name for name in ALGORITHMS if takes(name, case, "float32")):
        dw = run(case, "filter_gradient", x, dy, algorithm=algorithm)
        np.testing.assert_array_equal(dw, np.zeros(case.filter_shape))
        dx = run(case, "input_gradient", dy, np.ones(case.filter_shape, "float32"))
        assert dx.shape == (0, 5, 6, 4)


def test_half_types_keep_subnormals():
    # TensorFlow's threads flush subnormal float32 to zero; float16 has none of those.
    values = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(1, -1, 1)
    one = np.ones((1, 1, 1), np.float16)
    given = {**PLAIN, "strides": [1], "dilations": [1]}
    for algorithm in ("auto", "auto:strict", "gemm", "direct"):
        given["algorithm"] = algorithm
        result = ops.kconv_conv(values, one, *NOTHING, **given)
        np.testing.assert_array_equal(result, values)
        traced = tf.function(lambda x, w, g=given: ops.kconv_conv(x, w, *NOTHING, **g))
        np.testing.assert_array_equal(traced(values, one), values)


def jobs_side_by_side():
    """Large cases of each kernel: the first that it takes, and some of the others."""
    rng = np.random.default_rng(0)
    for pass_, algorithm in itertools.product(PASSES, core.algorithms()):
        first, *others = (c for c in LARGE.values() if takes(algorithm, c, "float32"))
        some = rng.permutation(len(others))[:4]
        for case in (first, *(others[i] for i in some)):
            yield case, pass_, algorithm


def test_calls_side_by_side():
    jobs = list(jobs_side_by_side())
    assert len(jobs) == 5 * len(PASSES) * len(core.algorithms())

    def one(job):
        case, pass_, algorithm = job
        a, b = case.operands(pass_)
        function = tf.function(lambda: run(case, pass_, a, b, algorithm=algorithm))
        return run(case, pass_, a, b, algorithm=algorithm).numpy(), function().numpy()

    alone = [one(job) for job in jobs]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(one, jobs))
    np.testing.assert_equal(together, alone)


# Shape functions.

FORWARD_SHAPES = {
    "valid": ((2, 9, 11, 3), (3, 3, 3, 8), {"strides": [2, 1]}, (2, 4, 9, 8)),
    "same": (
        (2, 9, 11, 3),
        (3, 3, 3, 8),
        {"strides": [2, 1], "padding": "SAME"},
        (2, 5, 11, 8),
    ),
    "explicit": (
        (2, 9, 11, 3),
        (3, 3, 3, 8),
        {"padding": "EXPLICIT", "explicit_paddings": [1, 2, 0, 3]},
        (2, 10, 12, 8),
    ),
    "dilated": ((2, 9, 11, 3), (3, 3, 3, 8), {"dilations": [4, 1]}, (2, 1, 9, 8)),
    "grouped": ((2, 9, 11, 6), (3, 3, 3, 8), {"groups": 2}, (2, 7, 9, 8)),
    "1d": ((2, 9, 3), (3, 3, 8), {"strides": [2], "dilations": [1]}, (2, 4, 8)),
    "3d": (
        (2, 9, 8, 7, 3),
        (3, 2, 1, 3, 8),
        {"strides": [1, 2, 3], "dilations": [1, 1, 1]},
        (2, 7, 4, 3, 8),
    ),
    "channels_first": (
        (2, 3, 9, 11),
        (3, 2, 3, 8),
        {"data_format": "channels_first"},
        (2, 8, 7, 10),
    ),
    "empty batch": ((0, 9, 11, 3), (3, 3, 3, 8), {}, (0, 7, 9, 8)),
    "empty axis": ((2, 0, 11, 3), (3, 3, 3, 8), {}, (2, 0, 9, 8)),
    "beyond 32 bits": ((2, 2**33, 11, 3), (3, 3, 3, 8), {}, (2, 2**33 - 2, 9, 8)),
    "unknown batch": ((None, 9, 11, 3), (3, 3, 3, 8), {}, (None, 7, 9, 8)),
    "unknown height": ((2, None, 11, 3), (3, 3, 3, 8), {}, (2, None, 9, 8)),
    "unknown channels": ((2, 9, 11, None), (3, 3, 3, 8), {}, (2, 7, 9, 8)),
    "unknown kernel": ((2, 9, 11, 3), (None, 3, 3, 8), {}, (2, None, 9, 8)),
    "unknown filters": ((2, 9, 11, 3), (3, 3, 3, None), {}, (2, 7, 9, None)),
    "unknown input": (None, (3, 3, 3, 8), {}, (None, None, None, 8)),
    "unknown input, channels first": (
        None,
        (3, 3, 3, 8),
        {"data_format": "channels_first"},
        (None, 8, None, None),
    ),
    "unknown filter": ((2, 9, 11, 3), None, {}, (2, None, None, None)),
    "unknown filter, same": (
        (2, 9, 11, 3),
        None,
        {"strides": [2, 1], "padding": "SAME"},
        (2, 5, 11, None),
    ),
    "unknown both": (None, None, {}, (None,) * 4),
    "unknown both, 1d": (None, None, {"strides": [1], "dilations": [1]}, (None,) * 3),
}


@pytest.mark.parametrize(
    ("x", "w", "changes", "expected"), FORWARD_SHAPES.values(), ids=FORWARD_SHAPES
)
def test_shape_of_conv(x, w, changes, expected):
    function = tf.function(
        lambda x, w: ops.kconv_conv(x, w, *NOTHING, **{**PLAIN, **changes})
    )
    specs = [tf.TensorSpec(shape, tf.float32) for shape in (x, w)]
    assert_output_shape(function, specs, expected)


def assert_output_shape(function, specs, expected):
    shape = function.get_concrete_function(*specs).structured_outputs.shape
    assert shape.rank == len(expected)
    assert tuple(shape) == expected


# Sizes as a function of the tensors and of sizes that are fed, the specification of
# these, w and dy, and the shape expected.
FED = tf.TensorSpec([4], tf.int64)
UNKNOWN_FED = tf.TensorSpec(None, tf.int32)

INPUT_GRADIENT_SHAPES = {
    "constant": (
        lambda fed, w, dy: [2, 9, 11, 3],
        (FED, (3, 3, 3, 8), (2, 7, 9, 8)),
        (2, 9, 11, 3),
    ),
    "constant, others unknown": (
        lambda fed, w, dy: [2, 9, 11, 3],
        (FED, None, None),
        (2, 9, 11, 3),
    ),
    "batch of a tensor": (
        lambda fed, w, dy: tf.stack([tf.shape(dy)[0], 9, 11, 3]),
        (FED, (3, 3, 3, 8), (None, 7, 9, 8)),
        (None, 9, 11, 3),
    ),
    "fed": (
        lambda fed, w, dy: fed,
        (FED, (3, 3, 3, 8), (2, 7, 9, 8)),
        (2, None, None, 3),
    ),
    "fed, of unknown length": (
        lambda fed, w, dy: fed,
        (UNKNOWN_FED, (3, 3, None, 8), (None, 7, 9, 8)),
        (None,) * 4,
    ),
    "all unknown": (lambda fed, w, dy: fed, (UNKNOWN_FED, None, None), (None,) * 4),
}


@pytest.mark.parametrize(
    ("sizes", "given", "expected"),
    INPUT_GRADIENT_SHAPES.values(),
    ids=INPUT_GRADIENT_SHAPES,
)
def test_shape_of_conv_backprop_input(sizes, given, expected):
    fed, w, dy = given
    function = tf.function(
        lambda fed, w, dy: backprop_input(sizes(fed, w, dy), w, dy, **PLAIN)
    )
    specs = [fed, *(tf.TensorSpec(shape, tf.float32) for shape in (w, dy))]
    assert_output_shape(function, specs, expected)


FILTER_GRADIENT_SHAPES = {
    "constant": (
        lambda fed: [3, 3, 3, 8],
        (FED, (2, 9, 11, 6), (2, 7, 9, 8)),
        (3, 3, 3, 8),
    ),
    "constant, others unknown": (
        lambda fed: [3, 3, 3, 8],
        (FED, None, None),
        (3, 3, 3, 8),
    ),
    "fed": (lambda fed: fed, (FED, (2, 9, 11, 6), (2, 7, 9, 8)), (None, None, 3, 8)),
    "fed, of unknown length": (
        lambda fed: fed,
        (UNKNOWN_FED, (2, 9, 11, None), (2, 7, 9, 8)),
        (None, None, None, 8),
    ),
    "all unknown": (lambda fed: fed, (UNKNOWN_FED, None, None), (None,) * 4),
}


@pytest.mark.parametrize(
    ("sizes", "given", "expected"),
    FILTER_GRADIENT_SHAPES.values(),
    ids=FILTER_GRADIENT_SHAPES,
)
def test_shape_of_conv_backprop_filter(sizes, given, expected):
    fed, x, dy = given
    function = tf.function(
        lambda fed, x, dy: ops.kconv_conv_backprop_filter(
            x, sizes(fed), dy, **{**PLAIN, "groups": 2}
        )
    )
    specs = [fed, *(tf.TensorSpec(shape, tf.float32) for shape in (x, dy))]
    assert_output_shape(function, specs, expected)


# Bad input. A call is the shapes of x, w and dy, and attributes; x stands for
# input_sizes in the input gradient, w for filter_sizes in the filter gradient.

GOOD = {"x": (2, 7, 8, 4), "w": (3, 2, 4, 6), "dy": (2, 5, 7, 6)}
SAME = {"padding": "SAME", "dy": (2, 7, 8, 6)}


def explicit(*pads):
    return {"padding": "EXPLICIT", "explicit_paddings": list(pads)}


BAD_FOR_ALL = {
    "zero stride": {"strides": [0, 1]},
    "negative stride": {"strides": [1, -1]},
    "most negative stride": {"strides": [1, -(2**63)]},
    "zero stride, same": {"strides": [0, 1], **SAME},
    "negative stride, same": {"strides": [1, -1], **SAME},
    "huge stride": {"strides": [2**62, 1], "dy": (2, 1, 7, 6)},
    "zero dilation": {"dilations": [0, 1]},
    "negative dilation": {"dilations": [1, -1]},
    "zero dilation, same": {"dilations": [1, 0], **SAME},
    "negative dilation, same": {"dilations": [-1, 1], **SAME},
    "huge dilation": {"dilations": [2**62, 1]},
    "huge dilation, same": {"dilations": [2**62, 1], **SAME},
    "no strides": {"strides": [], "dilations": []},
    "four strides": {"strides": [1] * 4, "dilations": [1] * 4},
    "one stride": {"strides": [1], "dilations": [1]},
    "one dilation": {"dilations": [1]},
    "no groups": {"groups": 0},
    "negative groups": {"groups": -1},
    "groups divide no channels": {"groups": 3},
    "groups divide no filters": {"groups": 4, "w": (3, 2, 1, 6)},
    "groups of other channels": {"groups": 2},
    "negative padding": explicit(0, 0, -1, 0),
    "padding of another rank": explicit(1, 1, 1),
    "no padding given": explicit(),
    "padding overflows": explicit(2**63 - 1, 2**63 - 1, 0, 0),
    "padding overflows once": explicit(0, 2**63 - 1, 0, 0),
    "padding not asked for": {"explicit_paddings": [1, 1, 1, 1]},
    "unknown algorithm": {"algorithm": "fastest"},
    "no algorithm": {"algorithm": ""},
    "family without a name": {"algorithm": ":f4"},
    "variant without a name": {"algorithm": "winograd:"},
    "empty kernel": {"w": (0, 2, 4, 6)},
    "no filters": {"w": (3, 2, 4, 0), "dy": (2, 5, 7, 0)},
    "no channels": {"x": (2, 7, 8, 0), "w": (3, 2, 0, 6)},
    "other channels": {"w": (3, 2, 5, 6)},
    "kernel beyond image": {"w": (8, 2, 4, 6)},
    "kernel beyond padded image": {**explicit(1, 1, 0, 0), "w": (10, 2, 4, 6)},
    "dilated kernel beyond image": {"dilations": [4, 1]},
    "image without batch": {"x": (7, 8, 4)},
    "image of rank 5": {"x": (2, 7, 8, 1, 4)},
    "filter of rank 3": {"w": (3, 4, 6)},
    "scalar filter": {"w": ()},
}
BAD_FOR_GRADIENTS = {
    "another batch": {"dy": (3, 5, 7, 6)},
    "another height": {"dy": (2, 6, 7, 6)},
    "another width": {"dy": (2, 5, 1, 6)},
    "other filters": {"dy": (2, 5, 7, 12)},
    "gradient of rank 3": {"dy": (5, 7, 6)},
    "scalar gradient": {"dy": ()},
    "gradient of nothing": {"dy": (0, 0, 0, 0)},
}
# Shapes that only sizes can lie about.
BAD_INPUT_SIZES = {
    "negative": {"x": (2, 7, -8, 4)},
    "negative batch": {"x": (-2, 7, 8, 4)},
    "most negative": {"x": (2, 7, -(2**63), 4)},
    "huge": {"x": (2, 2**62, 8, 4)},
    "huge batch": {"x": (2**62, 7, 8, 4)},
    "huge channels": {"x": (2, 7, 8, 2**62)},
    "elements overflow": {"x": (2, 2**31, 2**31, 4)},
    "beyond 32 bits": {"x": (2, 2**33, 8, 4)},
    "empty sizes": {"x": ()},
}
BAD_FILTER_SIZES = {
    "negative": {"w": (3, -2, 4, 6)},
    "negative filters": {"w": (3, 2, 4, -6)},
    "most negative": {"w": (-(2**63), 2, 4, 6)},
    "huge": {"w": (2**62, 2, 4, 6)},
    "huge channels": {"w": (3, 2, 2**62, 6)},
    "huge filters": {"w": (3, 2, 4, 2**62)},
    "elements overflow": {"w": (3, 2, 2**40, 2**40)},
    "smaller than it was": {"w": (2, 2, 4, 6)},
    "empty sizes": {"w": ()},
}

BAD = {
    f"{pass_}: {name}": (pass_, {**GOOD, **PLAIN, **call})
    for pass_, calls in {
        "forward": BAD_FOR_ALL,
        "input_gradient": {**BAD_FOR_ALL, **BAD_FOR_GRADIENTS, **BAD_INPUT_SIZES},
        "filter_gradient": {**BAD_FOR_ALL, **BAD_FOR_GRADIENTS, **BAD_FILTER_SIZES},
    }.items()
    for name, call in calls.items()
}


def sizes(shape):
    return tf.constant(shape, tf.int64)


def op_and_operands(pass_, x, w, dy, **given):
    """The op as a function of its operands, and these."""
    op = {
        "forward": lambda x, w, **given: ops.kconv_conv(x, w, *NOTHING, **given),
        "input_gradient": backprop_input,
        "filter_gradient": ops.kconv_conv_backprop_filter,
    }[pass_]
    operands = {
        "forward": lambda: (tf.zeros(x), tf.zeros(w)),
        "input_gradient": lambda: (sizes(x), tf.zeros(w), tf.zeros(dy)),
        "filter_gradient": lambda: (tf.zeros(x), sizes(w), tf.zeros(dy)),
    }[pass_]()
    return lambda *operands: op(*operands, **given), operands


def test_the_good_call_is_good():
    for pass_ in PASSES:
        op, operands = op_and_operands(pass_, **GOOD, **PLAIN)
        assert not np.any(op(*operands))


@pytest.mark.parametrize(("pass_", "call"), BAD.values(), ids=BAD)
def test_bad_input(pass_, call):
    op, operands = op_and_operands(pass_, **call)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Received: "):
        op(*operands)
    # Known shapes: before anything runs, if need be in TensorFlow's own words.
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        tf.function(lambda: op(*operands)).get_concrete_function()
    # Shapes known only at run time.
    specs = [tf.TensorSpec(None, v.dtype) for v in operands]
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="Received"):
        tf.function(op, input_signature=specs)(*operands)


@every_pass
@pytest.mark.parametrize("change", [{"padding": "FULL"}, {"data_format": "NHWC"}])
def test_words_that_do_not_exist(pass_, change):
    op, operands = op_and_operands(pass_, **GOOD, **{**PLAIN, **change})
    with pytest.raises(tf.errors.InvalidArgumentError, match="allowed values"):
        op(*operands)


@pytest.mark.parametrize("shape", [[[2, 7, 8, 4]], 4, [2, 7, 8, 4, 1], []])
def test_sizes_are_a_vector_of_the_rank(shape):
    w, x, dy = (tf.zeros(GOOD[name]) for name in ("w", "x", "dy"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="Received: "):
        backprop_input(sizes(shape), w, dy, **PLAIN)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Received: "):
        ops.kconv_conv_backprop_filter(x, sizes(shape), dy, **PLAIN)


def test_operands_of_one_type():
    x, w = tf.zeros(GOOD["x"]), tf.zeros(GOOD["w"], tf.float64)
    with pytest.raises((tf.errors.InvalidArgumentError, TypeError)):
        ops.kconv_conv(x, w, *NOTHING, **PLAIN)
    for dtype in (tf.int32, tf.complex64):
        with pytest.raises((tf.errors.InvalidArgumentError, TypeError)):
            ops.kconv_conv(tf.cast(x, dtype), tf.cast(w, dtype), *NOTHING, **PLAIN)


def test_memory_that_nobody_has():
    # Right, but for petabytes of result.
    one = tf.zeros((1, 1, 1))
    given = {**PLAIN, "strides": [2**47], "dilations": [1]}
    with pytest.raises(tf.errors.ResourceExhaustedError):
        backprop_input(sizes([1, 2**47, 1]), one, one, **given)
    given = {**PLAIN, "strides": [1], "dilations": [1], **explicit(2**47, 2**47)}
    with pytest.raises(tf.errors.ResourceExhaustedError):
        ops.kconv_conv(one, one, *NOTHING, **given)
    assert ops.kconv_conv(one, one, *NOTHING, **{**given, **explicit(1, 1)}).shape == (
        1,
        3,
        1,
    )
