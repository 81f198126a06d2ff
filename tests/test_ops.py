"""kconv.ops: what it computes, what it refuses and what it explains."""

import itertools

import keras
import ml_dtypes
import numpy as np
import pytest
import reference
import tensorflow as tf
from acceptance import takes
from problems import SMALL, judged, naming
from tiling import tolerance

import kconv
from kconv import dispatch

FLOATS = ("float16", "bfloat16", "float32", "float64")
ALGORITHMS = ("auto", "auto:strict", *kconv.ops.algorithms())
# Those that take every problem.
UNIVERSAL = ("auto", "auto:strict", "gemm", "direct", "builtin")


def arguments(case):
    """What kconv.ops.conv takes beside the tensors."""
    return {
        "strides": case.strides,
        "padding": case.padding,
        "data_format": case.layout,
        "dilation_rate": case.dilation_rate,
    }


def random(*shape, dtype="float32", seed=0):
    values = np.random.default_rng(seed).standard_normal(shape)
    return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
def test_conv_is_right(case):
    x, w = case.operands("forward")
    for algorithm in ALGORITHMS:
        options = {**arguments(case), "algorithm": algorithm}
        if not takes(algorithm, case, "float32"):
            words = f"{algorithm.partition(':')[0]}.*Received: .*'{algorithm}'"
            with pytest.raises(ValueError, match=words):
                kconv.ops.conv(x, w, **options)
            continue
        with naming(algorithm):
            y = kconv.ops.conv(x, w, **options)
            _, expected = judged(case, "forward", "float32", algorithm=algorithm)
            reference.assert_accurate(y.numpy(), *expected)


@pytest.mark.parametrize("algorithm", ("auto", "gemm", "direct"))
@pytest.mark.parametrize("dtype", FLOATS)
def test_conv_keeps_the_dtype(dtype, algorithm):
    case = SMALL["2d_strides_and_dilation"]
    (x, w), expected = judged(case, "forward", dtype)
    y = kconv.ops.conv(x, w, **arguments(case), algorithm=algorithm)
    assert y.dtype.name == dtype
    reference.assert_accurate(y.numpy(), *expected)


@pytest.mark.parametrize("algorithm", (*UNIVERSAL, "winograd"))
@pytest.mark.parametrize("dims", (1, 2, 3))
@pytest.mark.parametrize("strides", (1, 2, 3))
@pytest.mark.parametrize("padding", ("valid", "same", "SAME"))
def test_named_padding_is_that_of_tensorflow(padding, strides, dims, algorithm):
    x, w = random(2, *(9, 8, 7)[:dims], 4), random(*(3, 2, 4)[:dims], 4, 5)
    if algorithm == "winograd" and strides > 2:  # beyond the kernel
        return
    y = kconv.ops.conv(x, w, strides, padding, algorithm=algorithm)
    expected = tf.nn.convolution(x, w, strides, padding.upper()).numpy()
    assert y.shape == expected.shape
    assert np.abs(y - expected).max() <= tolerance(algorithm) * np.abs(expected).max()


@pytest.mark.parametrize("algorithm", UNIVERSAL[1:])
def test_causal_padding_sees_the_past_only(algorithm):
    x, w = random(2, 12, 3), random(3, 3, 4)
    options = {"padding": "causal", "dilation_rate": 2, "algorithm": algorithm}
    y = kconv.ops.conv(x, w, **options).numpy()
    assert y.shape == (2, 12, 4)
    changed = x.copy()
    changed[:, 7:] += 1
    same = kconv.ops.conv(changed, w, **options).numpy() == y
    assert same[:, :7].all()
    assert not same[:, 7:].any()


@pytest.mark.parametrize("make_x", (np.array, tf.constant, keras.Variable, list))
@pytest.mark.parametrize("make_w", (np.array, tf.constant, keras.Variable))
def test_conv_takes_every_kind_of_tensor(make_x, make_w):
    x, w = random(1, 5, 5, 2), random(3, 3, 2, 2)
    x = np.round(8 * x) / 8  # a list of floats has to come out the same
    y = kconv.ops.conv(make_x(x.tolist() if make_x is list else x), make_w(w))
    assert np.array_equal(y, kconv.ops.conv(x, w))


def test_data_format_is_that_of_the_configuration():
    x, w = random(1, 2, 5, 6), random(3, 3, 2, 4)
    keras.config.set_image_data_format("channels_first")
    try:
        y = kconv.ops.conv(x, w)
        symbolic = kconv.ops.conv(keras.KerasTensor(x.shape), w)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert y.shape == symbolic.shape == (1, 4, 3, 4)
    assert np.array_equal(y, kconv.ops.conv(x, w, data_format="channels_first"))


HUGE = 2**48
IMAGE, KERNEL = (2, 8, 8, 4), (3, 3, 4, 6)
BAD = [
    (IMAGE, KERNEL, {"strides": 0}, "`strides`"),
    (IMAGE, KERNEL, {"strides": -1}, "`strides`"),
    (IMAGE, KERNEL, {"strides": (2, 0)}, "`strides`"),
    (IMAGE, KERNEL, {"strides": (1, 1, 1)}, "`strides`"),
    (IMAGE, KERNEL, {"strides": 1.0}, "`strides`"),
    (IMAGE, KERNEL, {"strides": True}, "`strides`"),
    (IMAGE, KERNEL, {"strides": "2"}, "`strides`"),
    (IMAGE, KERNEL, {"strides": None}, "`strides`"),
    (IMAGE, KERNEL, {"strides": HUGE + 1}, "`strides`"),
    (IMAGE, KERNEL, {"dilation_rate": 0}, "`dilation_rate`"),
    (IMAGE, KERNEL, {"dilation_rate": (1, -2)}, "`dilation_rate`"),
    (IMAGE, KERNEL, {"dilation_rate": [1]}, "`dilation_rate`"),
    (IMAGE, KERNEL, {"dilation_rate": 4}, "must not be larger"),
    (IMAGE, KERNEL, {"dilation_rate": HUGE}, "at most 2\\*\\*48 along"),
    (IMAGE, KERNEL, {"dilation_rate": HUGE, "padding": "same"}, "2\\*\\*48 along"),
    (IMAGE, KERNEL, {"padding": "full"}, "`padding`"),
    (IMAGE, KERNEL, {"padding": "causal"}, "`padding`"),
    (IMAGE, KERNEL, {"padding": 1}, "`padding`"),
    (IMAGE, KERNEL, {"padding": None}, "`padding`"),
    (IMAGE, KERNEL, {"padding": (1, 1)}, "`padding`"),
    (IMAGE, KERNEL, {"padding": ((1, 1),)}, "`padding`"),
    (IMAGE, KERNEL, {"padding": ((1, 1), (1,))}, "`padding`"),
    (IMAGE, KERNEL, {"padding": ((1, 1), (0, -1))}, "`padding`"),
    (IMAGE, KERNEL, {"padding": ((1, 1), (0, 0.5))}, "`padding`"),
    (IMAGE, KERNEL, {"padding": ((HUGE + 1, 0), (0, 0))}, "`padding`"),
    (IMAGE, KERNEL, {"padding": ((HUGE, 1), (0, 0))}, "at most 2\\*\\*48 along"),
    (IMAGE, KERNEL, {"padding": ((2**40, 0), (2**40, 0))}, "2\\*\\*59 elements"),
    (IMAGE, KERNEL, {"data_format": "NHWC"}, "`data_format`"),
    ((2, 9, 8, 4), KERNEL, {"data_format": "channels_first"}, "multiple of the"),
    (IMAGE, KERNEL, {"algorithm": "fastest"}, "'auto', 'auto:strict', 'depthwise'"),
    (IMAGE, KERNEL, {"algorithm": None}, "'gemm', 'direct', 'builtin'"),
    (IMAGE, KERNEL, {"algorithm": "winograd:f5"}, "'winograd:f4', 'winograd:f6'"),
    (IMAGE, KERNEL, {"algorithm": "winograd:"}, "'winograd:f2'"),
    (IMAGE, KERNEL, {"algorithm": "auto:fast"}, "'auto', 'auto:strict'"),
    (IMAGE, (9, 3, 4, 6), {}, "must not be larger"),
    (IMAGE, (10, 3, 4, 6), {"padding": ((1, 0), (0, 0))}, "spatial dimension 0"),
    (IMAGE, (3, 3, 3, 6), {}, "multiple of the channels"),
    (IMAGE, (3, 3, 8, 6), {}, "multiple of the channels"),
    (IMAGE, (3, 3, 1, 6), {}, "multiple of the groups"),
    (IMAGE, (3, 3, 4, 0), {}, "must not be empty"),
    (IMAGE, (3, 0, 4, 6), {}, "must not be empty"),
    (IMAGE, (3, 3, 0, 6), {}, "must not be empty"),
    ((2, 8, 8, 0), KERNEL, {}, "multiple of the channels"),
    (IMAGE, (3, 4, 6), {}, "same rank"),
    ((8, 8, 4), KERNEL, {}, "same rank"),
    ((8, 4), (4, 6), {}, "same rank"),
    ((2,) * 6, (2,) * 6, {}, "same rank"),
    ((), (), {}, "same rank"),
]


@pytest.mark.parametrize(("shape", "kernel_shape", "options", "message"), BAD)
def test_bad_arguments_are_told_before_anything_runs(
    shape, kernel_shape, options, message, monkeypatch
):
    monkeypatch.setattr(dispatch, "conv", lambda *_: pytest.fail("an op was run"))
    inputs, kernel = np.zeros(shape, "float32"), np.zeros(kernel_shape, "float32")
    with pytest.raises(ValueError, match=f"{message}(.|\n)*Received: "):
        kconv.ops.conv(inputs, kernel, **options)
    with pytest.raises(ValueError, match=f"{message}(.|\n)*Received: "):
        kconv.ops.conv(keras.KerasTensor(shape), kernel, **options)
    with pytest.raises(ValueError, match=f"{message}(.|\n)*Received: "):
        kconv.ops.explain(shape, kernel_shape, **options)


def test_dtypes_must_agree():
    x, w = random(1, 5, 5, 2), random(3, 3, 2, 2)
    with pytest.raises(ValueError, match=r"same dtype.*float32, kernel\.dtype=float64"):
        kconv.ops.conv(x, w.astype("float64"))
    with pytest.raises(ValueError, match="same dtype"):
        kconv.ops.conv(keras.KerasTensor(x.shape, "float16"), w)


def test_a_good_argument_does_not_hide_an_equal_bad_one():
    x, w = random(1, 5, 5, 2), random(3, 3, 2, 2)
    kconv.ops.conv(x, w, strides=(1, 1))
    with pytest.raises(ValueError, match="`strides`"):
        kconv.ops.conv(x, w, strides=(1.0, True))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("groups", (1, 2))
@pytest.mark.parametrize(
    ("shape", "padding", "expected"),
    [
        ((0, 5, 6, 8), "valid", (0, 3, 4, 8)),
        ((0, 5, 6, 8), "same", (0, 5, 6, 8)),
        ((2, 0, 6, 8), "valid", (2, 0, 4, 8)),
        ((2, 0, 6, 8), "same", (2, 0, 6, 8)),
        ((2, 5, 0, 8), ((1, 1), (1, 0)), (2, 5, 0, 8)),
        ((2, 0, 6, 8), ((2, 2), (0, 0)), (2, 2, 4, 8)),
        ((2, 0, 0, 8), "valid", (2, 0, 0, 8)),
    ],
)
def test_empty_input_gives_empty_output_and_zero_gradients(
    shape, padding, expected, groups, algorithm
):
    channels = 8 // groups if algorithm != "depthwise" else 1
    if (algorithm == "grouped" and groups == 1) or algorithm == "fft":
        return
    x, w = tf.zeros(shape), tf.constant(random(3, 3, channels, 8))
    with tf.GradientTape() as tape:
        tape.watch([x, w])
        y = kconv.ops.conv(x, w, padding=padding, algorithm=algorithm)
    dx, dw = tape.gradient(y, [x, w])
    assert y.shape == expected
    assert dx.shape == shape
    assert np.array_equal(dw, np.zeros(w.shape))


@pytest.mark.parametrize("algorithm", (*UNIVERSAL, "winograd"))
@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same", "strides": (2, 3)},
        {"padding": "same", "strides": 2, "dilation_rate": 2},
        {"padding": ((1, 0), (2, 3)), "dilation_rate": (1, 2)},
        {"padding": "valid", "data_format": "channels_first"},
    ],
)
def test_unknown_batch_and_size(options, algorithm):
    if algorithm == "winograd" and {"strides", "dilation_rate"} <= set(options):
        return
    first = options.get("data_format") == "channels_first"
    shape = (None, 8, None, None) if first else (None, None, None, 8)

    @tf.function(input_signature=[tf.TensorSpec(shape), tf.TensorSpec((3, 3, 4, 8))])
    def conv(x, w):
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = kconv.ops.conv(x, w, **options, algorithm=algorithm)
        assert y.shape[1 if first else -1] == 8
        return y, *tape.gradient(y, [x, w])

    w = random(3, 3, 4, 8)
    for batch, height, width in ((1, 7, 9), (3, 12, 8)):
        size = (8, height, width) if first else (height, width, 8)
        x = random(batch, *size)
        with tf.GradientTape() as tape:
            known = [tf.constant(x), tf.constant(w)]
            tape.watch(known)
            y = kconv.ops.conv(*known, **options, algorithm="direct")
        expected = [y, *tape.gradient(y, known)]
        for ours, theirs in zip(conv(x, w), expected, strict=True):
            error = np.abs(ours - theirs).max()
            assert error <= tolerance(algorithm) * np.abs(theirs).max()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "name", ("2d_grouped", "2d_strides_and_dilation", "1d_all_channels_first")
)
def test_xla_functions_run_on_stock_ops(name, algorithm):
    case = SMALL[name]

    @tf.function(jit_compile=True)
    def conv(x, w):
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = kconv.ops.conv(x, w, **arguments(case), algorithm=algorithm)
        return y, *tape.gradient(y, [x, w])

    (x, w), expected = judged(case, "forward", "float32")
    y, dx, dw = conv(x, w)
    reference.assert_accurate(y.numpy(), *expected)
    ones = np.ones(case.output_shape)
    for ours, exact in (
        (dx, case.exact("input_gradient", ones, w)),
        (dw, case.exact("filter_gradient", x, ones)),
    ):
        assert np.abs(ours - exact).max() <= 2e-6 * np.abs(exact).max()


def test_symbolic_shapes():
    for dims, padding, first in itertools.product((1, 2, 3), ("same", "valid"), (0, 1)):
        data_format = "channels_first" if first else "channels_last"
        size = (None, 9, 8)[:dims]
        shape = (None, 4, *size) if first else (None, *size, 4)
        w = random(*(3, 2, 2)[:dims], 2, 6)
        options = {"strides": 2, "padding": padding, "data_format": data_format}
        y = kconv.ops.conv(
            keras.KerasTensor(shape, "float16"), w.astype("float16"), **options
        )
        kernel = keras.KerasTensor((*w.shape[:-2], 4, 6))
        stock = keras.ops.conv(keras.KerasTensor(shape), kernel, **options)
        assert (y.shape, y.dtype) == (stock.shape, "float16")


def test_conv_is_a_node_of_a_functional_model():
    x = keras.Input((8, 9, 4))
    w = keras.Input(batch_shape=(3, 3, 2, 6))
    options = {"strides": [2, 1], "padding": [(1, 0), (0, 1)], "algorithm": "direct"}
    model = keras.Model([x, w], kconv.ops.conv(x, w, **options))
    again = keras.Model.from_config(model.get_config())
    values = random(2, 8, 9, 4), random(3, 3, 2, 6)
    expected = kconv.ops.conv(*values, **options)
    assert model.output_shape == again.output_shape == (None, 4, 8, 6)
    assert np.array_equal(model(values), expected)
    assert np.array_equal(again(values), expected)
    operation = next(o for o in again.operations if isinstance(o, kconv.ops.Conv))
    assert operation.algorithm == "direct"
    assert keras.saving.get_registered_name(kconv.ops.Conv) == "kconv>Conv"


def test_algorithms():
    winograd = ["winograd", "winograd:f4", "winograd:f6", "winograd:f2"]
    assert kconv.ops.algorithms() == [
        "depthwise",
        *winograd,
        "grouped",
        "fft",
        "gemm",
        "direct",
        "builtin",
    ]


def test_explain_takes_tensors_and_shapes():
    x, w = random(2, 9, 9, 8), random(3, 3, 8, 8)
    by_shape = kconv.ops.explain(x.shape, w.shape, padding="same")
    assert kconv.ops.explain(x, w, padding="same") == by_shape
    assert (
        kconv.ops.explain(tf.constant(x), keras.Variable(w), padding="same") == by_shape
    )
    symbolic = keras.KerasTensor(x.shape), keras.KerasTensor(w.shape)
    assert kconv.ops.explain(*symbolic, padding="same") == by_shape
    half = kconv.ops.explain(x.astype("float16"), w, padding="same")
    assert half == kconv.ops.explain(x, w, padding="same", dtype="float16") != by_shape


@pytest.mark.parametrize("pass_", dispatch.PASSES)
def test_explain_tells_all(pass_):
    told = kconv.ops.explain((2, 28, 28, 64), (3, 3, 64, 64), pass_=pass_)
    names = [name for name in kconv.ops.algorithms() if name != "winograd"]
    assert [row.algorithm for row in told.candidates] == names
    for row in told.candidates:
        assert (row.refusal is None) == (row.seconds is not None)
        assert row.refusal or row.seconds > 0
        assert row.refusal or row.algorithm == "builtin" or row.workspace >= 0
        assert row.is_strict == (row.algorithm.split(":")[0] not in ("winograd", "fft"))
    accepted = [row for row in told.candidates if row.refusal is None]
    assert told.chosen == min(accepted, key=lambda row: row.seconds).algorithm
    text = str(told)
    assert pass_ in text
    assert f"> {told.chosen}" in text
    assert told.reason in text
    assert all(name in text for name in names)


@pytest.mark.parametrize("pass_", dispatch.PASSES)
def test_explain_chooses_within_a_family_or_mode(pass_):
    shapes = (2, 28, 28, 64), (3, 3, 64, 64)
    family = kconv.ops.explain(*shapes, algorithm="winograd", pass_=pass_)
    variants = [row for row in family.candidates if "winograd" in row.algorithm]
    assert family.chosen == min(variants, key=lambda row: row.seconds).algorithm
    assert family.reason == (
        "The lowest estimate of those that algorithm='winograd' allows."
    )
    strict = kconv.ops.explain(*shapes, algorithm="auto:strict", pass_=pass_)
    rows = [row for row in strict.candidates if row.is_strict and not row.refusal]
    assert strict.chosen == min(rows, key=lambda row: row.seconds).algorithm
    assert strict.reason == (
        "The lowest estimate of the strict ones, for which algorithm='auto:strict' "
        "asks."
    )
    # f6 refuses 5 taps, and so does not stand for its family.
    five = kconv.ops.explain(shapes[0], (5, 5, 64, 64), algorithm="winograd")
    assert five.chosen in ("winograd:f2", "winograd:f4")
    with pytest.raises(
        ValueError, match=r"kernel's size only\. Received: .*'winograd'"
    ):
        kconv.ops.explain(*shapes, strides=4, algorithm="winograd", pass_=pass_)


def test_explain_forced_and_refused():
    forced = kconv.ops.explain((2, 28, 28, 64), (3, 3, 64, 64), algorithm="direct")
    assert (forced.chosen, forced.reason) == (
        "direct",
        "algorithm='direct' asks for it.",
    )
    grouped = kconv.ops.explain((2, 28, 28, 64), (3, 3, 32, 64))
    refusal = grouped.candidates[-1].refusal
    assert "groups" in refusal
    assert refusal in str(grouped)
    assert grouped.chosen != "builtin"
    with pytest.raises(
        ValueError, match=r"`pass_` must be one of .*Received: pass_='x'"
    ):
        kconv.ops.explain((2, 28, 28, 64), (3, 3, 32, 64), pass_="x")


@pytest.mark.parametrize("shape", [(-1, 8, 8, 4), (1, 8.5, 8, 4), ("a", 8, 8, 4)])
def test_explain_wants_shapes(shape):
    with pytest.raises(ValueError, match="Shapes must consist of"):
        kconv.ops.explain(shape, (3, 3, 4, 4))


def test_the_estimate_of_an_unknown_batch_is_for_one_image():
    unknown = kconv.ops.explain((None, 28, 28, 64), (3, 3, 64, 64))
    assert unknown.input_shape == (1, 28, 28, 64)
    one = kconv.ops.explain((1, 28, 28, 64), (3, 3, 64, 64))
    assert unknown.candidates == one.candidates


def test_integers_of_numpy():
    shapes = tuple(np.array([2, 9, 9, 8])), tuple(np.array([3, 3, 8, 8]))
    arrays = {
        "strides": np.array([2, 1]),
        "dilation_rate": np.int64(2),
        "padding": np.array([[1, 0], [0, 1]]),
    }
    plain = {"strides": (2, 1), "dilation_rate": 2, "padding": ((1, 0), (0, 1))}
    told = kconv.ops.explain(*shapes, **arrays)
    assert told == kconv.ops.explain((2, 9, 9, 8), (3, 3, 8, 8), **plain)
    assert {type(n) for n in told.input_shape + told.kernel_shape} == {int}
    x, w = random(2, 9, 9, 8), random(3, 3, 8, 8)
    y = kconv.ops.conv(x, w, **arrays)
    assert np.array_equal(y, kconv.ops.conv(x, w, **plain))
    config = kconv.ops.Conv(**arrays).get_config()
    assert {key: config[key] for key in plain} == plain
    with pytest.raises(ValueError, match="Shapes must consist of"):
        kconv.ops.explain((True, 8, 8, 4), (3, 3, 4, 4))
    for wrong in (np.array([True, True]), np.array([1.0, 1.0]), np.array([1, 1, 1])):
        with pytest.raises(ValueError, match=r"`strides` must be .*Received: s"):
            kconv.ops.conv(x, w, strides=wrong)


@pytest.mark.parametrize("algorithm", ("gemm", "direct"))
def test_forced_for_a_dtype_without_kernels(algorithm):
    x, w = random(1, 8, 8, 4).astype("int32"), random(3, 3, 4, 4).astype("int32")
    for function in (kconv.ops.conv, kconv.ops.explain):
        with pytest.raises(
            ValueError,
            match=f"not take int32. Received: algorithm='{algorithm}', dtype=int32",
        ):
            function(x, w, algorithm=algorithm)
        function(x, w, algorithm="builtin")


@pytest.mark.parametrize("pass_", dispatch.PASSES)
def test_explain_does_not_choose_what_refuses(pass_, monkeypatch):
    rows = dispatch.Candidate("gemm", "gemm is shy."), dispatch.Candidate("direct")
    monkeypatch.setattr(dispatch, "candidates", lambda *args: rows)
    shapes = (1, 17, 19, 2), (3, 3, 2, 2)  # of which no answer is remembered
    with pytest.raises(ValueError, match=r"gemm is shy\. Received: algorithm='gemm'"):
        kconv.ops.explain(*shapes, algorithm="gemm", pass_=pass_)
    told = kconv.ops.explain(*shapes, algorithm="direct", pass_=pass_)
    assert told.chosen == "direct"


@pytest.mark.parametrize(
    ("shape", "dilation_rate"),
    [
        ((None, None, None, 4), 2**40),
        ((1, None, None, 4), 2**40),
        ((None, 2**28, 2**28, 1), 1),
    ],
)
def test_what_is_assumed_may_exceed_the_limits(shape, dilation_rate):
    function = tf.function(kconv.ops.conv)
    traced = function.get_concrete_function(
        tf.TensorSpec(shape),
        tf.TensorSpec((3, 3, shape[-1], 4)),
        dilation_rate=dilation_rate,
    )
    assert traced.structured_outputs.shape.rank == 4
