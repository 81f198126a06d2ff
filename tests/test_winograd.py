"""Winograd's algorithms: how exact they are, how far a NaN goes, what is refused."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from acceptance import takes
from problems import CASES, PASSES, Case, judged, magnitude
from reference import assert_accurate
from tiling import outputs_of, spoiled, taps_a_stride, tolerance

import kconv
from kconv import native

core = native.core()
assert core is not None, native.why_missing()

VARIANTS = tuple(name for name in core.algorithms() if outputs_of(name))

every_variant = pytest.mark.parametrize("algorithm", VARIANTS)
every_pass = pytest.mark.parametrize("pass_", PASSES)
every_isa = pytest.mark.parametrize("isa", core.isas())


def run(case, pass_, a, b, algorithm, isa="", dtype="float32", **options):
    report = case.problem(core, pass_, dtype).run(
        a, b, algorithm=algorithm, isa=isa, **options
    )
    assert report["algorithm"] == algorithm
    assert report["guards_intact"]
    return report["result"]


def same(size, kernel, channels, filters, **options):
    """A case with "same" padding."""
    pads = tuple((k // 2, k // 2) for k in kernel)
    return Case(size, kernel, channels, filters, padding=pads, **options)


# Accuracy, as a part of the largest value, for kernels of so many taps and strides.

KERNELS = ((3, 1), (5, 1), (2, 1), (4, 2), (3, 2))
LIMITS = {
    "winograd:f2": {3: 1e-6, 5: 3e-6, 2: 1e-6},
    "winograd:f4": {3: 4e-6, 5: 1e-5, 2: 3e-6},
    "winograd:f6": {3: 3e-5},
}
# What is done to the operands before: sums of large numbers round more, and relative to
# the largest value less; 1e-12 leaves the products well above what float32 can hold.
SCALES = {
    "normal": lambda v: v,
    "small": lambda v: v * np.float32(1e-12),
    "offset": lambda v: v + np.float32(100),
}


@pytest.fixture(scope="module", params=itertools.product(KERNELS, (64, 512), PASSES))
def problem(request):
    """A case, a pass, and for each scale its operands and the exact result."""
    (taps, stride), channels, pass_ = request.param
    size = (24, 25) if channels == 64 else (12, 11)
    case = same(size, (taps,) * 2, *[channels] * 2, strides=(stride,) * 2)
    a, b = case.operands(pass_)
    scaled = {
        name: (scale(a), scale(b) if name == "small" else b)
        for name, scale in SCALES.items()
    }
    return (
        case,
        pass_,
        {
            name: (operands, case.exact(pass_, *operands))
            for name, operands in scaled.items()
        },
    )


@every_isa
@every_variant
def test_error_is_within_the_limit(problem, algorithm, isa):
    case, pass_, scaled = problem
    limit = LIMITS[algorithm].get(taps_a_stride(case)[0])
    assert (limit is not None) == takes(algorithm, case, "float32")
    if limit is None:
        return
    for (a, b), exact in scaled.values():
        error = np.abs(run(case, pass_, a, b, algorithm, isa) - exact).max()
        assert 0 < error <= limit * np.abs(exact).max()


@every_pass
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_judge_finds_a_product_that_is_missing(case, pass_):
    """A tap read as zero, or an element of the gradient: the smallest of defects."""
    (a, b), (exact, plain_sum) = judged(case, pass_, "float32")
    if plain_sum.size == 0 or plain_sum.max() == 0:
        return
    lost = b.copy()
    middle = np.argsort(np.abs(b), axis=None)[b.size // 2]
    lost.flat[middle] = 0
    wrong = case.exact(pass_, a, lost).astype("float32")
    if np.abs(wrong - exact).max() < 0.1:  # that one met nothing but padding
        return
    for algorithm in VARIANTS:
        if takes(algorithm, case, "float32"):
            error = magnitude(algorithm, case, pass_, a, b, plain_sum)
            assert_accurate(exact.astype("float32"), exact, error)
            with pytest.raises(AssertionError, match="values are wrong"):
                assert_accurate(wrong, exact, error)


# Shapes.

SHAPES = {
    "one_tile": Case((4, 4), (3, 3), 5, 4),
    "two_outputs_an_axis": Case((4, 4), (3, 3), 4, 7, batch=3),
    "two_pixels_5_taps": same((2, 2), (5, 5), 5, 4, batch=3),
    "partial_tiles": same((13, 11), (3, 3), 7, 9, batch=2),
    "tiles_end_with_the_image": same((12, 24), (3, 3), 4, 8),
    "padding_beyond_kernel": Case(
        (3, 5), (3, 3), 6, 5, padding=((9, 4), (0, 13)), batch=2
    ),
    "outputs_of_padding_only": Case((2, 2), (3, 5), 6, 4, padding=((40, 0), (3, 30))),
    "dilation_beyond_image": Case(
        (5, 4), (3, 3), 6, 4, dilation_rate=(7, 11), padding=((9, 8), (11, 14))
    ),
    "dilation_of_one_axis": Case((14, 17), (3, 3), 5, 4, dilation_rate=(1, 4)),
    "column_kernel": same((11, 6), (3, 1), 9, 5),
    "row_kernel": same((6, 11), (1, 3), 9, 5, batch=2),
    "rows_by_taps": same((11, 10), (3, 5), 5, 7),
    "rows_of_another_kernel": Case((11, 10), (4, 3), 5, 7, dilation_rate=(2, 1)),
    "5_taps": same((11, 13), (5, 5), 6, 9),
    "5_taps_1d": same((37,), (5,), 6, 9, batch=2),
    "volume": same((5, 6, 7), (3, 3, 3), 4, 5),
    "volume_of_depth_taps": Case(
        (9, 7, 8), (4, 3, 3), 4, 5, dilation_rate=(2, 1, 1), padding=((3, 1),) * 3
    ),
    "volume_of_one_axis": same((5, 9, 4), (1, 3, 1), 4, 5),
    "batch_0": same((8, 8), (3, 3), 4, 5, batch=0),
    "empty_axis": Case((0, 8, 8), (1, 3, 3), 4, 5),
    "many_small_groups": same((9, 9), (3, 3), 120, 150, groups=30),
    "many_groups": same((9, 9), (3, 3), 144, 80, groups=16),
    "groups_of_many_channels": same((9, 10), (3, 3), 140, 76, groups=2),
    # More than a chunk of channels (64, 256), a block of columns, a block of tiles, and
    # more than all threads share at a time.
    "many_channels": same((7, 9), (3, 3), 270, 40),
    "many_filters": same((7, 9), (3, 3), 40, 270),
    "many_tiles": same((90, 70), (3, 3), 6, 9, batch=2),
    "many_tiles_of_many_channels": same((64, 66), (3, 3), 260, 8),
    "many_tiles_of_many_filters": same((64, 66), (3, 3), 8, 260),
    "many_taps_and_channels": same((30, 31), (11, 3), 90, 33),
    "2_taps": same((11, 14), (2, 2), 6, 9),
    "2_taps_1d_dilated": Case((37,), (2,), 6, 9, batch=2, dilation_rate=(4,)),
    "strides": same((13, 15), (4, 4), 6, 9, strides=(2, 2), batch=2),
    "strides_of_odd_kernel": same((12, 11), (3, 3), 9, 6, strides=(2, 2)),
    "strides_padded_like_tensorflow": Case(
        (12, 16), (3, 3), 9, 6, strides=(2, 2), padding=((0, 1), (0, 1))
    ),
    "strides_beyond_padding": Case(
        (9, 6), (4, 3), 5, 7, strides=(2, 2), padding=((7, 3), (0, 9))
    ),
    "strides_of_5_taps": same((15, 17), (9, 10), 4, 5, strides=(2, 2)),
    "strides_of_one_axis": same((13, 12), (3, 3), 5, 7, strides=(1, 2)),
    "strides_of_taps": Case(
        (14, 9), (7, 3), 5, 7, strides=(4, 1), padding=((3, 2), (1, 1))
    ),
    "strides_beside_dilation": Case(
        (14, 15), (4, 2), 5, 7, strides=(2, 1), dilation_rate=(1, 3)
    ),
    "wide_strides": same((19, 23), (8, 7), 5, 6, strides=(4, 3)),
    "strides_that_skip_inputs": Case((14, 13), (4, 4), 5, 6, strides=(2, 2)),
    "strides_1d": same((41,), (4,), 5, 7, strides=(2,), batch=2),
    "strides_volume": same((7, 8, 9), (3, 3, 3), 4, 5, strides=(2, 2, 2)),
    "strides_groups": same((12, 14), (4, 4), 120, 150, strides=(2, 2), groups=30),
    "strides_batch_0": same((8, 8), (4, 4), 4, 5, strides=(2, 2), batch=0),
    "strides_empty_axis": Case((0, 8, 8), (2, 4, 4), 4, 5, strides=(2, 2, 2)),
    "strides_many_channels": same((14, 12), (4, 4), 140, 40, strides=(2, 2)),
    "strides_many_tiles": same((92, 70), (4, 3), 6, 9, strides=(2, 2), batch=2),
    "strides_many_tiles_and_channels": same((66, 64), (3, 3), 260, 8, strides=(2, 2)),
}
SHAPES |= {
    f"{name}_channels_first": dataclasses.replace(SHAPES[name], layout="channels_first")
    for name in (
        *("partial_tiles", "dilation_beyond_image", "volume", "many_groups"),
        *("strides", "strides_volume"),
    )
}


@every_pass
@every_variant
@pytest.mark.parametrize("case", SHAPES.values(), ids=SHAPES)
def test_shapes(case, algorithm, pass_):
    if not takes(algorithm, case, "float32"):
        assert algorithm == "winograd:f6" and 3 not in taps_a_stride(case)
        return
    for dtype in ("float32", "bfloat16", "float16"):
        (a, b), expected = judged(case, pass_, dtype, algorithm=algorithm)
        for isa in core.isas():
            options = {"algorithm": algorithm, "isa": isa, "dtype": dtype, "guard": 256}
            result = run(case, pass_, a, b, **options)
            assert_accurate(result, *expected)
            for threads in (2, 3, 4, 5, 64) if dtype == "float32" else (3,):
                again = run(case, pass_, a, b, **options, threads=threads)
                assert again.tobytes() == result.tobytes()


@every_pass
@every_variant
def test_huge_dilation(algorithm, pass_):
    """Beyond the image all dilations are the same."""
    results = []
    for dilation in (7, 2**31, 2**46):
        case = Case((5, 6), (3, 3), 4, 5, dilation_rate=(1, dilation))
        case = dataclasses.replace(case, padding=((0, 1), (dilation, dilation - 1)))
        a, b = case.operands(pass_)
        results.append(run(case, pass_, a, b, algorithm, threads=2, guard=256))
    for result in results[1:]:
        assert result.tobytes() == results[0].tobytes()


# NaN and infinity.

POISONED = {
    "2d": same((15, 17), (3, 3), 5, 6, batch=2),
    "dilated": Case((15, 17), (3, 3), 5, 6, dilation_rate=(3, 2)),
    "grouped": same((9, 8), (3, 3), 10, 8, groups=2),
    "by_rows": same((15, 11), (2, 5), 5, 6, layout="channels_first"),
    "strided": same((23, 26), (4, 3), 5, 6, strides=(2, 2)),
    "strided_by_rows": Case(
        (15, 22), (3, 5), 5, 6, strides=(3, 2), padding=((1, 0), (3, 1))
    ),
}


@every_isa
@every_pass
@every_variant
@pytest.mark.parametrize("case", POISONED.values(), ids=POISONED)
def test_nan_stays_in_the_tiles_that_read_it(case, algorithm, pass_, isa):
    if not takes(algorithm, case, "float32"):
        assert algorithm == "winograd:f6" and 3 not in taps_a_stride(case)
        return
    a, b = case.operands(pass_)
    rng = np.random.default_rng(0)
    for poison in (np.nan, np.inf, -np.inf):
        place = tuple(int(rng.integers(n)) for n in a.shape)
        poisoned = a.copy()
        poisoned[place] = poison
        with np.errstate(invalid="ignore"):
            of_windows = ~np.isfinite(case.exact(pass_, poisoned, b))
        may_be_lost = spoiled(algorithm, case, pass_, place)
        result = run(case, pass_, poisoned, b, algorithm, isa, threads=2)
        assert not np.isfinite(result[of_windows]).any()
        assert not (of_windows & ~may_be_lost).any()
        # All others are what they are without it.
        clean = run(case, pass_, a, b, algorithm, isa)
        assert np.array_equal(result[~may_be_lost], clean[~may_be_lost])
        assert may_be_lost.mean() < 1


@every_variant
def test_nan_of_a_filter_stays_in_its_channel(algorithm):
    case = same((9, 8), (3, 3), 10, 8, groups=2)
    x, w = case.operands("forward")
    w[1, 2, 0, 5] = np.nan
    lost = np.isnan(run(case, "forward", x, w, algorithm))
    assert lost[..., 5].all()
    assert lost.sum() == lost[..., 5].size


# Who is refused.

REFUSED = {
    "wide strides": (
        Case((9, 9), (3, 3), 4, 4, strides=(1, 4)),
        "float32",
        "strides up to the kernel's size",
    ),
    "strides and dilation": (
        Case((9, 9), (3, 3), 4, 4, strides=(1, 2), dilation_rate=(1, 2)),
        "float32",
        "no axis with both strides and dilation",
    ),
    "2x2 with strides": (
        Case((8, 8), (2, 2), 4, 4, strides=(2, 2)),
        "float32",
        "an axis of 2, 3 or 5 taps a stride",
    ),
    "float64": (Case((9, 9), (3, 3), 4, 4), "float64", "float32, bfloat16 and float16"),
    "1x1": (Case((9, 9), (1, 1), 4, 4), "float32", "an axis of 2, 3 or 5 taps"),
    "7x7": (Case((9, 9), (7, 7), 4, 4), "float32", "an axis of 2, 3 or 5 taps"),
    "few channels": (Case((9, 9), (3, 3), 3, 8), "float32", "fewer than 4 channels"),
    "few filters": (
        Case((9, 9), (3, 3), 8, 6, groups=2),
        "float32",
        "fewer than 4 channels",
    ),
    "one output": (Case((9, 3), (3, 3), 8, 8), "float32", "one pixel along an axis"),
    "4x4": (Case((9, 9), (4, 4), 4, 4), "bfloat16", "an axis of 2, 3 or 5 taps"),
}


@pytest.mark.parametrize(("case", "dtype", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refusals(case, dtype, sentence):
    for pass_, algorithm in itertools.product(PASSES, (*VARIANTS, "winograd")):
        problem = case.problem(core, pass_, dtype)
        with pytest.raises(ValueError, match=f"{sentence}.* Received: .*{algorithm}"):
            problem.choose(algorithm=algorithm)
        with pytest.raises(ValueError, match=sentence):
            problem.run(*case.operands(pass_, dtype), algorithm=algorithm)
        assert "winograd" not in problem.choose()


@every_pass
def test_f6_takes_3_taps_only_and_its_family_does_not(pass_):
    for kernel, strides in (((5, 5), (1, 1)), ((2, 2), (1, 1)), ((4, 4), (2, 2))):
        problem = Case((9, 9), kernel, 4, 4, strides=strides).problem(core, pass_)
        with pytest.raises(ValueError, match="f6 takes kernels of 3 taps only"):
            problem.choose(algorithm="winograd:f6")
        assert problem.choose(algorithm="winograd") in ("winograd:f2", "winograd:f4")
    # An axis of 3 taps is transformed, and that of 5 is not.
    problem = Case((9, 9), (5, 3), 4, 4).problem(core, pass_)
    assert problem.choose(algorithm="winograd:f6") == "winograd:f6"


# In TensorFlow and Keras.


@pytest.mark.parametrize("wrap", (lambda f: f, tf.function), ids=("eager", "graph"))
@pytest.mark.parametrize("algorithm", ("winograd", *VARIANTS))
def test_gradients_of_gradients(algorithm, wrap):
    rng = np.random.default_rng(0)
    shapes = (2, 9, 8, 8), (3, 3, 4, 8), (2, 9, 8, 8)
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

    for ours, exact in zip(all_orders(algorithm), all_orders("direct"), strict=True):
        error = np.abs(ours - exact).max()
        assert error <= tolerance(algorithm) * np.abs(exact).max()


@pytest.mark.parametrize("dtype", ("float32", "mixed_bfloat16", "mixed_float16"))
def test_a_layer_learns(dtype):
    x = np.random.default_rng(0).standard_normal((64, 12, 12, 4)).astype("float32")
    labels = (x.mean((1, 2, 3)) > 0).astype("float32")
    histories = []
    for algorithm in ("winograd", "direct"):
        keras.utils.set_random_seed(0)
        layer = kconv.layers.Conv2D(
            8, 3, activation="relu", algorithm=algorithm, dtype=dtype
        )
        model = keras.Sequential(
            [
                layer,
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(1, activation="sigmoid", dtype="float32"),
            ]
        )
        model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy")
        fitted = model.fit(x, labels, epochs=8, batch_size=16, verbose=0)
        histories.append(fitted.history["loss"])
    losses, exact = histories
    assert losses[-1] < 0.9 * losses[0]
    np.testing.assert_allclose(losses, exact, rtol=1e-3 if dtype == "float32" else 0.1)


# Multiplications: a tile of m outputs takes m + r - 1 where a plain sum takes m r.

COUNTED = {
    "whole tiles": (same((12, 24), (3, 3), 8, 16), {2: 2.25, 4: 4.0, 6: 81 / 16}),
    "5 taps": (same((8, 8), (5, 5), 8, 16), {2: 100 / 36, 4: 400 / 64}),
    "one axis": (same((12, 5), (3, 1), 8, 16), {2: 1.5, 4: 2.0, 6: 2.25}),
    "volume": (same((2, 12, 12), (3, 3, 3), 8, 16), {2: 2.25, 4: 4.0, 6: 81 / 16}),
    "groups": (same((12, 12), (3, 3), 8, 16, groups=2), {2: 2.25, 4: 4.0, 6: 81 / 16}),
    # 13 = 3 x 4 + 1 outputs take 7 tiles of 2, 4 of 4 or 3 of 6.
    "partial tiles": (
        same((13, 13), (3, 3), 8, 16),
        {m: (13 * 3 / (n * (m + 2))) ** 2 for m, n in ((2, 7), (4, 4), (6, 3))},
    ),
    # Two residues of an axis, of 2 taps each: 2 (m + 1) for 4 m.
    "strides": (
        Case((26, 26), (4, 4), 8, 16, strides=(2, 2)),
        {2: (8 / 6) ** 2, 4: (16 / 10) ** 2},
    ),
    # Residues of 2 taps and of 1: m + 1 + m for 3 m.
    "a missing tap": (
        Case((25, 25), (3, 3), 8, 16, strides=(2, 2)),
        {2: (6 / 5) ** 2, 4: (12 / 9) ** 2},
    ),
}


@pytest.mark.parametrize(("case", "ratios"), COUNTED.values(), ids=COUNTED)
def test_multiplications(case, ratios):
    problem = case.problem(core, "forward")
    rows = {row["algorithm"]: row for row in problem.explain()}
    for m, ratio in ratios.items():
        saved = problem.macs / rows[f"winograd:f{m}"]["multiplications"]
        assert saved == pytest.approx(ratio)
    assert rows["direct"]["multiplications"] == problem.macs
    assert rows["depthwise"]["multiplications"] is None


@every_pass
def test_gradients_multiply_as_often(pass_):
    case, ratios = COUNTED["whole tiles"]
    problem = case.problem(core, pass_)
    rows = {row["algorithm"]: row for row in problem.explain()}
    for m, ratio in ratios.items():
        saved = problem.macs / rows[f"winograd:f{m}"]["multiplications"]
        assert saved == pytest.approx(ratio)
