"""What the algorithm "depthwise" takes, chooses and keeps apart."""

import numpy as np
import pytest
from problems import PASSES, Case

from kconv import native

core = native.core()
assert core is not None, native.why_missing()

every_pass = pytest.mark.parametrize("pass_", PASSES)


def row(case, pass_="forward", dtype="float32"):
    rows = case.problem(core, pass_, dtype).explain()
    return next(r for r in rows if r["algorithm"] == "depthwise")


@every_pass
@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case((8, 8), (3, 3), 8, 8, groups=4), "one input channel a group"),
        (Case((8, 8), (3, 3), 8, 8), "one input channel a group"),
        (Case((4, 4), (1, 1), 2, 514, groups=2), "256 filters"),
        (Case((70000,), (70000,), 2, 2, groups=2), "65536 taps"),
    ],
)
def test_what_it_refuses(case, words, pass_):
    assert words in row(case, pass_)["refusal"]


@every_pass
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    "case",
    [
        Case((9,), (31,), 5, 5, groups=5, padding=((15, 15),)),
        Case((8, 9), (1, 1), 4, 8, groups=4),
        Case((8, 9), (3, 5), 4, 512, groups=4, strides=(2, 3), dilation_rate=(2, 1)),
        Case((5, 6, 7), (5, 2, 3), 1, 7, strides=(1, 2, 3)),
        Case((0, 6), (1, 3), 4, 4, batch=0, groups=4),
    ],
    ids=str,
)
def test_what_it_takes(case, layout, pass_, dtype):
    case = Case(**{**vars(case), "layout": layout})
    assert row(case, pass_, dtype)["refusal"] is None


@every_pass
@pytest.mark.parametrize("size", [7, 28, 112])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (7, 1), (31, 1)])
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_auto_takes_it_for_the_layers_of_networks(layout, kernel, stride, size, pass_):
    pad = kernel // 2
    case = Case(
        (size, size),
        (kernel, kernel),
        96,
        96,
        groups=96,
        strides=(stride, stride),
        padding=((pad, pad),) * 2,
        layout=layout,
    )
    problem = case.problem(core, pass_)
    assert problem.choose(algorithm="auto:strict") == "depthwise"
    assert problem.choose() == "depthwise" or (kernel == 31 and size > 7)


@pytest.mark.parametrize(
    "case",
    [
        Case((1_000_000,), (9,), 24, 24, groups=24, padding=((4, 4),)),
        Case((1_000_000,), (9,), 24, 24, groups=24, strides=(1000,)),
        Case((1_000_000,), (9,), 24, 24, groups=24, dilation_rate=(100_000,)),
        Case((4000, 4000), (3, 3), 33, 33, groups=33, dilation_rate=(1999, 1999)),
        Case((4000, 4000), (31, 31), 33, 33, groups=33, strides=(64, 64)),
        Case((400, 400, 400), (9, 9, 9), 20, 40, groups=20),
        Case((256, 256), (256, 256), 16, 16, groups=16, padding=((128, 128),) * 2),
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_workspace_does_not_grow_with_the_image(case, layout):
    case = Case(**{**vars(case), "layout": layout})
    filters = 4 * np.prod(case.filter_shape)
    for pass_ in PASSES:
        problem = case.problem(core, pass_)
        for dtype in ("float32", "bfloat16"):
            needed = row(case, pass_, dtype)["workspace"]
            # Panels and results of a thread, and as many filters as there are slices.
            slices = 40 if pass_ == "filter_gradient" else 2
            assert needed <= (16 << 20) + slices * filters, problem


@pytest.mark.parametrize("dilation", [1, 600])
def test_long_sums_stay_accurate(dilation):
    # All columns of all classes of a dilation go into one sum. 2e-5 if it had no steps.
    case = Case((400_000,), (2,), 8, 8, groups=8, dilation_rate=(dilation,))
    x, dy = (np.abs(v) for v in case.operands("filter_gradient"))
    report = case.problem(core, "filter_gradient").run(x, dy, algorithm="depthwise")
    exact = case.exact("filter_gradient", x, dy)
    np.testing.assert_allclose(report["result"], exact, rtol=1e-6)


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    "case",
    [
        Case(
            (2**40, 1), (1, 2), 3, 3, groups=3, strides=(4, 1), padding=((0, 0), (1, 0))
        ),
        Case((2, 32768), (3, 3), 32, 32, groups=32, padding=((2**38, 0), (1, 1))),
        Case((2**24, 8), (3, 1), 8, 8, groups=8),
        Case((2**20,), (4096,), 5, 5, groups=5, strides=(4096,)),
        Case((2**20, 2**19), (1, 1), 1, 1, groups=1, strides=(2**40, 2**47)),
    ],
    ids=str,
)
def test_odd_sizes_are_planned_at_once(case, layout):
    case = Case(**{**vars(case), "layout": layout})
    for pass_ in PASSES:
        for _ in range(100):  # one that takes long would not end
            assert row(case, pass_)["workspace"] < 2**28


@every_pass
@pytest.mark.parametrize("isa", core.isas())
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("multiplier", [1, 3])
@pytest.mark.parametrize("kernel", [3, 9])
def test_nan_stays_in_its_window_and_channel(kernel, multiplier, layout, isa, pass_):
    channels, pad = 19, kernel // 2
    case = Case(
        (14, 15),
        (kernel, kernel),
        channels,
        channels * multiplier,
        groups=channels,
        padding=((pad, pad),) * 2,
        layout=layout,
    )
    a, b = (np.abs(v) + 1 for v in case.operands(pass_))
    at = (0, 6, 13, 5) if layout == "channels_last" else (0, 5, 6, 13)
    a[at] = np.nan
    report = case.problem(core, pass_).run(a, b, algorithm="depthwise", isa=isa)
    # The definition on the same operands: whatever meets the NaN is NaN.
    expected = np.isnan(case.exact(pass_, a, b))
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(np.isnan(report["result"]), expected)
