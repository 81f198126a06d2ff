"""The algorithm "fft": how exact it is, its tiles, how far a NaN goes, its choice."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from problems import DTYPES, EPILOGUES, PASSES, Case, judged, magnitude
from reference import assert_accurate
from tiling import spoiled

import kconv
from kconv import native

core = native.core()
assert core is not None, native.why_missing()

every_pass = pytest.mark.parametrize("pass_", PASSES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_isa = pytest.mark.parametrize("isa", core.isas())


def run(case, pass_, a, b, isa="", dtype="float32", **options):
    problem = case.problem(core, pass_, dtype, **options.pop("epilogue", {}))
    report = problem.run(a, b, algorithm="fft", isa=isa, **options)
    assert report["algorithm"] == "fft"
    assert report["guards_intact"]
    return report["result"]


def same(size, kernel, channels, filters, **options):
    """A case with "same" padding."""
    pads = tuple((k // 2, k - 1 - k // 2) for k in kernel)
    return Case(size, kernel, channels, filters, padding=pads, **options)


# Shapes.

SHAPES = {
    "dense": same((20, 21), (9, 9), 5, 7, batch=2),
    "fewest_taps": same((20, 31), (7, 8), 6, 9),
    "valid": Case((23, 30), (9, 12), 3, 17),
    "uneven_padding": Case((19, 12), (11, 9), 4, 3, padding=((2, 9), (0, 5))),
    "padding_beyond_kernel": Case((4, 6), (9, 9), 3, 4, padding=((13, 4), (0, 21))),
    "outputs_of_padding_only": Case((2, 2), (10, 9), 3, 2, padding=((40, 0), (9, 30))),
    "kernel_is_image": Case((11, 13), (11, 13), 3, 9, batch=3),
    "kernel_beyond_image": same((7, 6), (17, 31), 2, 3),
    "one_output": Case((9, 9), (9, 9), 2, 2),
    "1d": Case((150,), (9,), 3, 4, batch=2),
    "1d_of_many_taps": same((200,), (101,), 3, 2),
    "rows": same((9, 40), (1, 15), 5, 4),
    "columns": same((40, 9), (15, 1), 5, 4),
    "rows_by_columns": same((40, 9), (15, 2), 3, 4),
    "dilation": Case((37, 40), (9, 10), 3, 2, dilation_rate=(2, 3)),
    "dilation_beyond_image": Case(
        (3, 12), (9, 9), 2, 3, dilation_rate=(4, 1), padding=((15, 18), (3, 3))
    ),
    "grouped": same((18, 17), (9, 9), 10, 15, groups=5),
    "groups_of_many": same((14, 15), (9, 9), 34, 38, groups=2),
    "depthwise": same((30, 33), (13, 13), 19, 19, groups=19, batch=2),
    "depthwise_multiplier": same((15, 16), (9, 11), 5, 15, groups=5),
    "depthwise_many_tiles": same((150, 20), (9, 9), 3, 3, groups=3, batch=3),
    "many_channels": same((9, 10), (9, 9), 70, 40),
    "many_filters": same((9, 10), (9, 9), 3, 130),
    "empty_batch": same((12, 12), (9, 9), 3, 4, batch=0),
    "empty_batch_depthwise": same((12, 12), (9, 9), 4, 4, groups=4, batch=0),
    "empty_image": Case((0, 6), (9, 9), 3, 4, padding=((5, 4), (2, 2))),
}
SHAPES |= {
    f"{name}_channels_first": dataclasses.replace(SHAPES[name], layout="channels_first")
    for name in (
        "dense",
        "1d",
        "columns",
        "dilation",
        "grouped",
        "depthwise_multiplier",
    )
}


@every_pass
@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
def test_shapes(case, pass_):
    for dtype in DTYPES:
        (a, b), expected = judged(case, pass_, dtype, algorithm="fft")
        for isa in core.isas():
            options = {"isa": isa, "dtype": dtype, "guard": 256}
            result = run(case, pass_, a, b, **options)
            assert_accurate(result, *expected)
            for threads in (2, 7) if dtype in ("float32", "bfloat16") else ():
                again = run(case, pass_, a, b, **options, threads=threads)
                assert again.tobytes() == result.tobytes()


@every_pass
@pytest.mark.parametrize(
    "taps", (7, 8, 9, 10, 16, 17, 25, 33, 48, 49, 64, 65, 97, 127, 128)
)
def test_every_length_of_a_tile(taps, pass_):
    """Sizes about those where one more tile or a longer one is taken."""
    for size in (taps, taps + 1, 127, 128, 129, 140):
        if size < taps:
            continue
        for case in (
            Case((size,), (taps,), 2, 3),
            same((size, 2), (taps, 1), 6, 6, groups=3),
            same((size, 2), (taps, 1), 3, 3, groups=3),
        ):
            if case.groups == case.in_channels and taps < 9:
                continue  # refused
            (a, b), expected = judged(case, pass_, "float32", algorithm="fft")
            assert_accurate(run(case, pass_, a, b, guard=64), *expected)


@pytest.mark.parametrize("name", ("dense", "depthwise", "grouped", "many_channels"))
@every_pass
def test_judge_finds_a_product_that_is_missing(name, pass_):
    """A tap read as zero, or an element of the gradient: the smallest of defects."""
    case = SHAPES[name]
    (a, b), (exact, plain_sum) = judged(case, pass_, "float32")
    lost = b.copy()
    lost.flat[np.argsort(np.abs(b), axis=None)[b.size // 2]] = 0
    wrong = case.exact(pass_, a, lost).astype("float32")
    error = magnitude("fft", case, pass_, a, b, plain_sum)
    assert_accurate(exact.astype("float32"), exact, error)
    with pytest.raises(AssertionError, match="values are wrong"):
        assert_accurate(wrong, exact, error)


@every_pass
def test_huge_dilation(pass_):
    """Beyond the image all dilations are the same."""
    results = []
    for dilation in (7, 2**31, 2**40):
        pads = ((4, 4), (8 * dilation, 0))
        case = Case((5, 6), (9, 9), 2, 3, dilation_rate=(1, dilation), padding=pads)
        a, b = case.operands(pass_)
        results.append(run(case, pass_, a, b, threads=2, guard=256))
    for result in results[1:]:
        assert result.tobytes() == results[0].tobytes()


@pytest.mark.parametrize("name", ("dense", "depthwise_multiplier", "grouped"))
@pytest.mark.parametrize("layout", ("channels_last", "channels_first"))
@pytest.mark.parametrize(("has_bias", "activation"), EPILOGUES)
def test_bias_and_activation(has_bias, activation, layout, name):
    case = dataclasses.replace(SHAPES[name], layout=layout)
    for pass_ in PASSES[:2]:
        for dtype in ("float32", "float16"):
            (a, b), expected = judged(case, pass_, dtype, algorithm="fft")
            bias = case.bias(dtype, pass_=pass_) if has_bias else None
            epilogue = {"bias": has_bias, "activation": activation}
            result = run(case, pass_, a, b, "", dtype, bias=bias, epilogue=epilogue)
            assert_accurate(result, *case.finished(expected, bias, activation))


# Accuracy, as a part of the largest value.

LIMITS = {"float32": 1e-6, "float64": 1e-14}
SCALES = {
    "normal": lambda v: v,
    "small": lambda v: v * 1e-12,
    "offset": lambda v: v + 100,
}
EXACT_CASES = {
    "dense": same((28, 30), (17, 17), 24, 16),
    "deep": same((12, 11), (9, 9), 300, 8),
    "large": same((33, 34), (31, 31), 16, 8),
    "depthwise": same((61, 60), (31, 31), 24, 24, groups=24),
}


@every_pass
@pytest.mark.parametrize("case", EXACT_CASES.values(), ids=EXACT_CASES)
def test_error_is_within_the_limit(case, pass_):
    a, b = case.operands(pass_)
    for name, scale in SCALES.items():
        for dtype, limit in LIMITS.items():
            x, y = (scale(a).astype(dtype), (scale(b) if name == "small" else b))
            y = y.astype(dtype)
            exact = case.exact(pass_, x, y)
            for isa in core.isas():
                error = np.abs(run(case, pass_, x, y, isa, dtype) - exact).max()
                assert 0 < error <= limit * np.abs(exact).max()


# NaN and infinity.

POISONED = {
    "1d": Case((700,), (9,), 3, 4, batch=2),
    "2d": same((300, 14), (9, 9), 3, 4),
    "grouped": same((20, 18), (9, 9), 6, 8, groups=2, batch=2),
    "depthwise": same((300, 12), (11, 9), 5, 5, groups=5),
    "dilated": Case((40, 30), (9, 9), 2, 3, dilation_rate=(3, 2)),
}


@every_isa
@every_pass
@pytest.mark.parametrize("case", POISONED.values(), ids=POISONED)
def test_nan_stays_in_the_tiles_that_read_it(case, pass_, isa):
    a, b = case.operands(pass_)
    clean = run(case, pass_, a, b, isa)
    rng = np.random.default_rng(0)
    for poison in (np.nan, np.inf, -np.inf):
        place = tuple(int(rng.integers(n)) for n in a.shape)
        poisoned = a.copy()
        poisoned[place] = poison
        with np.errstate(invalid="ignore"):
            of_windows = ~np.isfinite(case.exact(pass_, poisoned, b))
        may_be_lost = spoiled("fft", case, pass_, place)
        result = run(case, pass_, poisoned, b, isa, threads=2)
        assert not np.isfinite(result[of_windows]).any()
        assert not (of_windows & ~may_be_lost).any()
        # All others are what they are without it.
        assert np.array_equal(result[~may_be_lost], clean[~may_be_lost])


def test_nan_of_a_filter_stays_in_its_channel():
    case = same((12, 13), (9, 9), 4, 6, groups=2)
    x, w = case.operands("forward")
    w[1, 2, 0, 4] = np.nan
    lost = np.isnan(run(case, "forward", x, w))
    assert lost[..., 4].all()
    assert lost.sum() == lost[..., 4].size


# Who is refused, and who is chosen.

REFUSED = {
    "few taps": (Case((20, 20), (6, 6), 4, 4), "fewer than 7 taps"),
    "few taps of one channel": (
        Case((20, 20), (8, 8), 4, 4, groups=4),
        "fewer than 9 taps along each axis where a group has one channel",
    ),
    "strides": (Case((20, 20), (9, 9), 4, 4, strides=(1, 2)), "no strides"),
    "volumes": (Case((9, 9, 9), (9, 9, 9), 4, 4), "one and two dimensions only"),
    "many taps": (Case((200,), (129,), 4, 4), "at most 128 taps"),
}


@every_pass
@pytest.mark.parametrize(("case", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refusals(case, sentence, pass_):
    problem = case.problem(core, pass_)
    with pytest.raises(ValueError, match=f"{sentence}.* Received: .*fft"):
        problem.choose(algorithm="fft")
    with pytest.raises(ValueError, match=sentence):
        problem.run(*case.operands(pass_), algorithm="fft")
    assert problem.choose() != "fft"


CHOSEN = {
    "dense 17x17": (same((56, 56), (17, 17), 64, 64), "fft"),
    "dense 7x7": (same((56, 56), (7, 7), 64, 64), "fft"),
    "dense 7x7 of few pixels": (same((14, 14), (7, 7), 256, 256), "gemm"),
    "depthwise 7x7": (same((56, 56), (7, 7), 96, 96, groups=96), "depthwise"),
    "dense 31x31": (same((28, 28), (31, 31), 64, 64), "fft"),
    "depthwise 31x31": (same((28, 28), (31, 31), 64, 64, groups=64), "fft"),
    "depthwise 51x51": (same((56, 56), (51, 51), 64, 64, groups=64), "fft"),
    "depthwise of few pixels": (
        same((7, 7), (13, 13), 64, 64, groups=64),
        "depthwise",
    ),
    "1x31": (same((56, 56), (1, 31), 64, 64), "fft"),
    "1x31 depthwise": (same((56, 56), (1, 31), 64, 64, groups=64), "depthwise"),
}


@every_pass
@pytest.mark.parametrize(("case", "name"), CHOSEN.values(), ids=CHOSEN)
def test_auto_takes_it_where_it_wins(case, name, pass_):
    problem = case.problem(core, pass_)
    assert problem.choose() == name
    assert problem.choose(algorithm="auto:strict") != "fft"


@every_dtype
@every_pass
@pytest.mark.parametrize("taps", [9, 31, 127])
@pytest.mark.parametrize(("channels", "groups"), [(64, 1), (2048, 1), (512, 512)])
def test_workspace_has_a_bound(channels, groups, taps, pass_, dtype):
    for size in (128, 1024, 4096):
        case = same((size,) * 2, (taps,) * 2, channels, channels, groups=groups)
        problem = case.problem(core, pass_, dtype)
        for isa in core.isas():
            of_one, of_two = (
                next(
                    row["workspace"]
                    for row in problem.explain(isa, threads=threads)
                    if row["algorithm"] == "fft"
                )
                for threads in (1, 2)
            )
            assert of_one <= 2**26
            assert of_two - of_one <= 2**23


# In TensorFlow and Keras.


@pytest.mark.parametrize("wrap", (lambda f: f, tf.function), ids=("eager", "graph"))
def test_gradients_of_gradients(wrap):
    rng = np.random.default_rng(0)
    shapes = (2, 12, 11, 4), (9, 9, 2, 6), (2, 12, 11, 6)
    tensors = [tf.constant(rng.standard_normal(s), tf.float32) for s in shapes]

    def all_orders(algorithm):
        @wrap
        def function(x, w, dy):
            with tf.GradientTape() as outer:
                outer.watch([x, w, dy])
                with tf.GradientTape() as inner:
                    inner.watch([x, w])
                    y = kconv.ops.conv(x, w, padding="same", algorithm=algorithm)
                dx, dw = inner.gradient(y, [x, w], dy)
                loss = tf.reduce_sum(dx**2) + tf.reduce_sum(dw**2) + tf.reduce_sum(y)
            return y, dx, dw, *outer.gradient(loss, [x, w, dy])

        return function(*tensors)

    for ours, exact in zip(all_orders("fft"), all_orders("direct"), strict=True):
        assert np.abs(ours - exact).max() <= 3e-6 * np.abs(exact).max()


def test_layers_take_it():
    x = np.random.default_rng(0).standard_normal((2, 20, 18, 6)).astype("float32")
    for make in (
        lambda **options: kconv.layers.Conv2D(8, 11, **options),
        lambda **options: kconv.layers.DepthwiseConv2D(11, **options),
    ):
        layers = [
            make(padding="same", activation="relu", algorithm=name, name="layer")
            for name in ("fft", "direct")
        ]
        keras.utils.set_random_seed(0)
        layers[0].build(x.shape)
        layers[1].build(x.shape)
        layers[1].set_weights(layers[0].get_weights())
        fft, direct = (np.array(layer(x)) for layer in layers)
        assert np.abs(fft - direct).max() <= 2e-6 * np.abs(direct).max()
