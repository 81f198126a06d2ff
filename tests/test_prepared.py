"""Prepared filters in the core, in TensorFlow's ops and in kconv.ops."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from acceptance import takes
from problems import DTYPES, EPILOGUES, Case
from test_raw_ops import attributes
from tiling import outputs_of

import kconv
from kconv import native

core, ops = native.core(), native.ops()
assert core is not None and ops is not None, native.why_missing()

VARIANTS = tuple(name for name in core.algorithms() if outputs_of(name))

_SAME = ((1, 1), (1, 1))
CASES = {
    "2d": Case((9, 11), (3, 3), 16, 32, batch=2, padding=_SAME),
    "odd_channels": Case((9, 8), (3, 3), 19, 37, padding=_SAME),
    "chunks": Case((7, 7), (3, 3), 200, 70, padding=_SAME),
    # Of the fused way, whose chunks are larger than the pieces that are packed.
    "many_tiles": Case((62, 60), (3, 3), 150, 40, padding=_SAME),
    "5_taps": Case((11, 9), (5, 5), 70, 9, padding=((2, 2), (2, 2))),
    "by_rows": Case((11, 10), (4, 3), 20, 12, dilation_rate=(2, 1)),
    "column": Case((11, 7), (3, 1), 9, 5),
    "1d": Case((37,), (3,), 70, 18, batch=2),
    "1d_5_taps": Case((29,), (5,), 6, 9),
    "3d": Case((5, 6, 7), (3, 3, 3), 10, 34),
    "groups": Case((8, 9), (3, 3), 24, 40, groups=4, padding=_SAME),
    "groups_of_odd_channels": Case((8, 9), (3, 3), 21, 27, groups=3),
    "3d_groups": Case((5, 6, 4), (3, 3, 2), 20, 36, groups=2),
    "batch_0": Case((8, 9), (3, 3), 8, 12, batch=0),
}

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


# The core.


@every_case
@pytest.mark.parametrize("dtype", ("float32", "bfloat16", "float16"))
@pytest.mark.parametrize("layout", ("channels_last", "channels_first"))
def test_bits_are_the_same(case, dtype, layout):
    case = Case(**{**case.__dict__, "layout": layout})
    x, w = case.operands("forward", dtype)
    epilogues = [(False, "linear"), *(EPILOGUES if dtype == "float32" else ())]
    for isa, (has_bias, activation) in itertools.product(core.isas(), epilogues):
        problem = case.problem(
            core, "forward", dtype, bias=has_bias, activation=activation
        )
        prepared = problem.prepare(w, isa=isa)
        assert len(prepared) >= 4 * w.size
        options = {"isa": isa, "bias": case.bias(dtype) if has_bias else None}
        for algorithm in VARIANTS:
            if not takes(algorithm, case, dtype):
                continue
            options["algorithm"] = algorithm
            plain = problem.run(x, w, **options)
            for threads in (1, 3):
                report = problem.run(
                    x, w, **options, prepared=prepared, threads=threads, guard=256
                )
                assert report["used_prepared"] and report["guards_intact"]
                assert report["result"].tobytes() == plain["result"].tobytes()
            assert not plain["used_prepared"]


def test_form_is_the_same_for_all_variants_and_images():
    # As many filters as fill the vectors of each instruction set.
    cases = [
        Case((7, 7), (3, 3), 100, 48, padding=_SAME),
        Case((60, 64), (3, 3), 100, 48, batch=3, dilation_rate=(2, 1)),
    ]
    _, w = cases[0].operands("forward")
    names = ("auto", "winograd", *VARIANTS)
    forms = {
        case.problem(core, "forward").prepare(w, algorithm=name)
        for case, name in itertools.product(cases, names)
    }
    assert len(forms) == 1
    (form,) = forms
    assert len(form) == 128 + 4 * w.size


def test_who_has_a_use_for_it():
    case = CASES["2d"]
    _, w = case.operands("forward")
    for name in ("gemm", "direct", "auto:strict"):
        assert case.problem(core, "forward").prepare(w, algorithm=name) == b""
    for useless in (
        Case((9, 9), (7, 7), 4, 4),
        Case((9, 9), (1, 1), 8, 8),
        Case((9, 9), (3, 3), 4, 4, strides=(2, 2)),
        Case((9, 9), (3, 3), 3, 8),
    ):
        _, w = useless.operands("forward")
        assert useless.problem(core, "forward").prepare(w) == b""
    _, w = case.operands("forward", "float64")
    assert case.problem(core, "forward", "float64").prepare(w) == b""
    case = CASES["5_taps"]
    _, w = case.operands("forward")
    problem = case.problem(core, "forward")
    assert problem.prepare(w, algorithm="winograd:f6") == b""
    assert problem.prepare(w, algorithm="winograd") == problem.prepare(w)


def test_others_ignore_it():
    case = CASES["2d"]
    x, w = case.operands("forward")
    problem = case.problem(core, "forward")
    prepared = problem.prepare(w)
    for name in ("gemm", "direct"):
        report = problem.run(x, w, algorithm=name, prepared=prepared)
        assert not report["used_prepared"]
        plain = problem.run(x, w, algorithm=name)
        assert report["result"].tobytes() == plain["result"].tobytes()
    strided = Case((9, 11), (3, 3), 16, 32, strides=(2, 1))
    x, _ = strided.operands("forward")
    report = strided.problem(core, "forward").run(x, w, prepared=prepared)
    assert not report["used_prepared"]


def test_nan_and_infinity_in_the_filter():
    case = CASES["2d"]
    x, w = case.operands("forward")
    w[0, 0, 0, 0], w[1, 2, 3, 4] = np.nan, np.inf
    problem = case.problem(core, "forward")
    prepared = problem.prepare(w)
    report = problem.run(x, w, algorithm="winograd", prepared=prepared)
    assert report["used_prepared"]
    plain = problem.run(x, w, algorithm="winograd")["result"]
    np.testing.assert_array_equal(report["result"], plain)


# The ops.

IMAGES = Case((9, 11), (3, 3), 16, 32, batch=2)
X, W = IMAGES.operands("forward")
FILTER = tf.constant(W)


def prepare(w=W, **options):
    given = {"strides": [], "groups": 1, "algorithm": "auto", **options}
    return ops.kconv_prepare_filter(w, **given)


def conv(prepared, w=FILTER, x=X, case=IMAGES, source=None, **changes):
    given = attributes(case, **{"algorithm": "winograd", **changes})
    sources = [w if source is None else source] * len(prepared)
    return ops.kconv_conv(x, w, [], prepared, sources, **given)


def marked(prepared):
    """A prepared filter by which results differ from those of the filter."""
    spoiled = prepared.numpy()
    spoiled[128:] = 0
    return spoiled


@every_case
@every_dtype
def test_op(case, dtype):
    x, w = case.operands("forward", dtype)
    prepared = prepare(w, groups=case.groups)
    alone = case.problem(core, "forward", dtype).prepare(w)
    assert prepared.numpy().tobytes() == alone
    assert (len(alone) == 0) == (dtype == "float64")
    for algorithm in ("auto", *core.algorithms()):
        if not takes(algorithm, case, dtype):
            continue
        given = attributes(case, algorithm=algorithm)
        bias = [case.bias(dtype)]
        plain = ops.kconv_conv(x, w, bias, [], [], activation="relu", **given)
        for wrap in (lambda f: f, tf.function):
            function = wrap(
                lambda x, w, b, p, given=given: ops.kconv_conv(
                    x, w, [b], [p], [w], activation="relu", **given
                )
            )
            y = function(x, w, *bias, prepared)
            assert y.numpy().tobytes() == plain.numpy().tobytes()


def test_empty_is_none():
    np.testing.assert_array_equal(conv([tf.zeros(0, tf.uint8)]), conv([]))
    y = conv([prepare()], source=tf.zeros(0))
    np.testing.assert_array_equal(y, conv([]))


@pytest.mark.parametrize("wrap", (lambda f: f, tf.function), ids=("eager", "graph"))
def test_it_is_used_if_the_filter_is_its_source(wrap):
    function = wrap(lambda p, w, source: conv([p], w, source=source))
    plain = conv([])
    zeros, garbage = marked(prepare()), np.ones(5, "uint8")
    assert not np.any(function(zeros, FILTER, FILTER))
    # Of the same values, of others, of a part, and what no one looks at.
    for source in (tf.constant(W), FILTER + 1, tf.constant(W[:1]), tf.zeros(0)):
        for prepared in (zeros, garbage):
            np.testing.assert_array_equal(function(prepared, FILTER, source), plain)


def spoiled():
    good = prepare().numpy()
    magic, size, reserved = good.copy(), good.copy(), good.copy()
    magic[0] ^= 1
    reserved[127] = 1
    size[104:112] = 255
    rng = np.random.default_rng(0)
    other = IMAGES.operands("forward")[1]
    return {
        "one byte": good[:1],
        "header only": good[:128],
        "part of the header": good[:127],
        "one byte less": good[:-1],
        "one byte more": np.append(good, np.uint8(0)),
        "zeros": np.zeros_like(good),
        "garbage": rng.integers(256, size=good.size, dtype=np.uint8),
        "magic": magic,
        "size": size,
        "reserved": reserved,
        "more filters": prepare(np.repeat(other, 2, -1)).numpy(),
        "turned": prepare(other.transpose(0, 1, 3, 2).copy()).numpy(),
        "5 taps": prepare(np.zeros((5, 5, 16, 32), "float32")).numpy(),
        "1d": prepare(np.zeros((3, 16, 32), "float32")).numpy(),
        "groups": prepare(other, groups=2).numpy(),
        "float16": prepare(other.astype("float16")).numpy(),
    }


@pytest.mark.parametrize("name", spoiled())
def test_what_does_not_belong_is_an_error(name):
    given = spoiled()[name]
    for algorithm in ("winograd", "auto", "gemm"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="Received: ") as error:
            conv([given], algorithm=algorithm)
        assert "prepared must be" in str(error.value)
    with pytest.raises(ValueError, match="prepared must be"):
        IMAGES.problem(core, "forward").run(X, W, prepared=given.tobytes())


def test_of_another_machine_or_build():
    plain = conv([])
    for first, value in (
        (8, np.int64(1)),
        (32, b"another".ljust(16, b"\0")),
        (32, b"\377" * 16),
    ):
        given = marked(prepare())
        value = np.frombuffer(value, np.uint8)
        given[first : first + value.size] = value
        np.testing.assert_array_equal(conv([given]), plain)
        problem = IMAGES.problem(core, "forward")
        report = problem.run(X, W, algorithm="winograd", prepared=given.tobytes())
        assert not report["used_prepared"]


def test_it_is_for_no_problem_without_a_form():
    for w in (W.astype("float64"), W[:1, :1].copy()):
        case = Case((9, 11), w.shape[:2], 16, 32, batch=2)
        with pytest.raises(tf.errors.InvalidArgumentError, match="prepared must be"):
            conv([prepare()], tf.constant(w), X.astype(w.dtype), case, algorithm="auto")


def test_bad_attributes_and_shapes():
    error = pytest.raises(
        (ValueError, tf.errors.InvalidArgumentError), match="Received"
    )
    with error:
        conv([prepare()[None]])
    with error:
        conv([prepare()] * 2)
    with error:
        tf.function(lambda: conv([prepare()[None]]))()
    for given in (
        {"groups": 0},
        {"groups": 5},
        {"groups": 2**62},
        {"strides": [1]},
        {"strides": [1, 0]},
        {"algorithm": "spectral"},
        {"w": np.zeros((3, 3), "float32")},
        {"w": np.zeros((3, 3, 0, 4), "float32")},
        {"w": np.zeros((1,) * 6, "float32")},
    ):
        with error:
            prepare(**given)
        with error:
            tf.function(lambda given=given: prepare(**given))()


def test_shape_function():
    @tf.function(input_signature=[tf.TensorSpec(None), tf.TensorSpec(None, tf.uint8)])
    def function(w, prepared):
        made = prepare(w)
        assert made.shape.as_list() == [None]
        return conv([made], w), conv([prepared], w)

    for y in function(W, prepare()):
        np.testing.assert_array_equal(y, conv([]))


@pytest.mark.parametrize("wrap", (lambda f: f, tf.function), ids=("eager", "graph"))
@pytest.mark.parametrize("has_bias", (False, True))
def test_gradients(has_bias, wrap):
    x, w, b = (tf.constant(v) for v in (X, W, IMAGES.bias()))
    prepared = kconv.ops.prepare_filter(w)
    assert prepared.prepared is not None and prepared.source is w

    def gradients(kernel):
        @wrap
        def function(x, w, b):
            with tf.GradientTape() as outer:
                outer.watch([x, w, b])
                with tf.GradientTape() as inner:
                    inner.watch([x, w, b])
                    given = kernel
                    if kernel is not w:
                        given = kconv.ops.PreparedFilter(
                            w, prepared.prepared, source=prepared.source
                        )
                    y = kconv.ops.conv(
                        *(x, w if kernel is None else given),
                        algorithm="winograd",
                        bias=b if has_bias else None,
                        activation="relu",
                    )
                dx, dw = inner.gradient(y, [x, w])
                loss = tf.reduce_sum(dx**2) + tf.reduce_sum(dw**2)
            return y, dx, dw, *outer.gradient(loss, [x, w])

        return function(x, w, b)

    for ours, plain in zip(gradients(prepared), gradients(None), strict=True):
        np.testing.assert_array_equal(ours, plain)


def test_no_gradient_flows_into_it():
    prepared = prepare()
    w = tf.constant(W)
    with tf.GradientTape() as tape:
        tape.watch([w, prepared])
        y = conv([prepared], w)
    assert tape.gradient(y, prepared) is None

    @tf.function
    def function(w):
        y = conv([prepare(tf.stop_gradient(w))], w)
        return tf.gradients(y, w)

    with tf.GradientTape() as tape:
        tape.watch(w)
        y = conv([], w)
    np.testing.assert_array_equal(function(w)[0], tape.gradient(y, w))


def test_graphs_from_before_there_was_one():
    x, w = tf.constant(X), tf.constant(W)
    function = tf.function(lambda x, w: conv([], w, x))
    graph = function.get_concrete_function(x, w).graph.as_graph_def()
    (node,) = (node for node in graph.node if node.op == "Kconv>Conv")
    assert len(node.input) == 2
    del node.attr["num_prepared"]
    inputs = [n.name for n in graph.node if n.op == "Placeholder"]

    @tf.function
    def loaded(x, w):
        given = {f"{name}:0": v for name, v in zip(inputs, (x, w), strict=True)}
        (y,) = tf.graph_util.import_graph_def(
            graph, input_map=given, return_elements=[f"{node.name}:0"]
        )
        return y, *tf.gradients(y, [x, w])

    y, dx, dw = loaded(x, w)
    np.testing.assert_array_equal(y, conv([]))
    assert (dx.shape, dw.shape) == (x.shape, w.shape)


# kconv.ops.


def test_prepare_filter():
    prepared = kconv.ops.prepare_filter(W)
    assert isinstance(prepared, kconv.ops.PreparedFilter)
    assert prepared.shape == W.shape
    assert prepared.dtype == tf.float32
    assert "is_prepared=True" in repr(prepared)
    y = kconv.ops.conv(X, prepared, algorithm="winograd")
    np.testing.assert_array_equal(y, kconv.ops.conv(X, W, algorithm="winograd"))
    told = kconv.ops.explain(X, prepared, algorithm="winograd")
    assert told.chosen.startswith("winograd:")
    for useless in (
        {"strides": 2},
        {"strides": (1, 2)},
        {"algorithm": "gemm"},
        {"algorithm": "builtin"},
        {"algorithm": "auto:strict"},
    ):
        assert kconv.ops.prepare_filter(W, **useless).prepared is None
    assert kconv.ops.prepare_filter(W, strides=(1, 1)).prepared is not None
    assert kconv.ops.prepare_filter(W.astype("int32")).prepared is None


def test_prepared_conv_works_everywhere(monkeypatch):
    prepared = kconv.ops.prepare_filter(W)
    expected = kconv.ops.conv(X, W, padding="same", algorithm="direct")

    def conv(x, **options):
        return kconv.ops.conv(x, prepared, padding="same", **options)

    for algorithm in ("auto", *kconv.ops.algorithms()):
        if algorithm in ("depthwise", "grouped", "fft"):  # refuse it
            continue
        y = conv(X, algorithm=algorithm)
        np.testing.assert_allclose(y, expected, atol=1e-3)
    for batch in (2, None):
        signature = [tf.TensorSpec((batch, None, None, 16))]
        y = tf.function(conv, input_signature=signature)(X)
        np.testing.assert_allclose(y, expected, atol=1e-3)
    y = tf.function(conv, jit_compile=True)(X)
    np.testing.assert_allclose(y, expected, atol=1e-3)
    inputs = keras.Input((None, None, 16))
    model = keras.Model(inputs, conv(inputs))
    np.testing.assert_allclose(model(X), expected, atol=1e-3)

    @tf.function
    def within(x, w):
        return kconv.ops.conv(x, kconv.ops.prepare_filter(w), padding="same")

    np.testing.assert_allclose(within(X, W), expected, atol=1e-3)
    kconv.set_accuracy("strict")
    try:
        np.testing.assert_array_equal(conv(X), kconv.ops.conv(X, W, padding="same"))
        assert kconv.ops.prepare_filter(W).prepared is None
    finally:
        kconv.set_accuracy("fast")
    monkeypatch.setattr(native, "ops", lambda: None)
    monkeypatch.setattr(native, "why_missing", lambda: "Gone.")
    np.testing.assert_allclose(conv(X), expected, atol=1e-3)
    assert kconv.ops.prepare_filter(W).prepared is None


BAD = [
    ({"kernel": np.zeros((3, 4))}, "`kernel` must have three to five"),
    ({"kernel": np.zeros((3, 3, 0, 4))}, "must not be empty"),
    ({"groups": 0}, "`groups` must be"),
    ({"groups": 5}, "`groups` must be"),
    ({"groups": 1.0}, "`groups` must be"),
    ({"strides": 0}, "`strides` must be"),
    ({"strides": (1,)}, "`strides` must be"),
    ({"strides": None}, "`strides` must be"),
    ({"strides": 2.0}, "`strides` must be"),
    ({"algorithm": "spectral"}, "`algorithm` must be"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_bad_arguments(given, message):
    with pytest.raises(ValueError, match=f"{message}.*Received: "):
        kconv.ops.prepare_filter(**{"kernel": W, **given})


def test_groups_must_be_those_of_the_inputs():
    prepared = kconv.ops.prepare_filter(W, groups=2)
    with pytest.raises(
        ValueError, match=r"another number of groups.*Received: groups=2"
    ):
        kconv.ops.conv(X, prepared)
    kconv.ops.conv(np.concatenate([X, X], -1), prepared)
    with pytest.raises(ValueError, match=r"another number of groups.*Received: "):
        kconv.ops.conv(keras.Input((9, 11, 16)), prepared)
    kconv.ops.conv(keras.Input((9, 11, 32)), prepared)


def test_of_a_variable():
    variable = keras.Variable(W)
    prepared = kconv.ops.prepare_filter(variable)
    live = kconv.ops.PreparedFilter(variable, marked(prepared.prepared))
    assert "dtype=float32" in repr(live)
    traced = tf.function(lambda x: kconv.ops.conv(x, live, algorithm="winograd"))
    assert not np.any(traced(X))
    variable.assign(2 * W)
    expected = kconv.ops.conv(X, 2 * W, algorithm="winograd")
    np.testing.assert_array_equal(traced(X), expected)
    # Of the value that it had.
    y = kconv.ops.conv(X, prepared, algorithm="winograd")
    np.testing.assert_array_equal(y, conv([]))


@pytest.mark.parametrize("wrap", (lambda f: f, tf.function), ids=("eager", "graph"))
def test_prepare_filter_is_used(wrap):
    prepared = kconv.ops.prepare_filter(W)
    prepared.prepared = tf.constant(marked(prepared.prepared))
    function = wrap(lambda x: kconv.ops.conv(x, prepared, algorithm="winograd"))
    assert not np.any(function(X))
