"""What is particular to the algorithm `grouped`: refusals, and NaN in shared vectors.

The tests of all algorithms say that its results are accurate, and the same bits for any
number of threads; some of them have one group only, and so their likes are here.
"""

import dataclasses
import itertools

import numpy as np
import pytest
from problems import DTYPES, PASSES, Case
from reference import assert_accurate

from kconv import native

core = native.core()
assert core is not None, native.why_missing()

LAYOUTS = ("channels_last", "channels_first")
SAME = ((1, 1), (1, 1))

every_isa = pytest.mark.parametrize("isa", core.isas())
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
every_pass = pytest.mark.parametrize("pass_", PASSES)


def explained(case, pass_="forward", dtype="float32"):
    rows = case.problem(core, pass_, dtype).explain()
    (row,) = (row for row in rows if row["algorithm"] == "grouped")
    return row


def refusals(case):
    """What the passes and types are refused for: the same for all."""
    (refusal,) = {
        explained(case, pass_, dtype)["refusal"]
        for pass_, dtype in itertools.product(PASSES, DTYPES)
    }
    return refusal


@pytest.mark.parametrize(
    ("channels", "filters", "groups"),
    [(4, 2, 2), (4, 4, 2), (96, 96, 32), (10, 100, 2), (100, 10, 10), (128, 128, 2)],
)
def test_takes_few_channels_a_group(channels, filters, groups):
    for layout, strides in itertools.product(LAYOUTS, (1, 3)):
        case = Case((9, 8), (3, 2), channels, filters, groups=groups, layout=layout)
        case = dataclasses.replace(case, strides=(strides, 1), dilation_rate=(1, 2))
        assert refusals(case) is None


def test_refuses():
    image, kernel = (40, 40), (3, 3)
    assert "one group" in refusals(Case(image, kernel, 8, 8))
    assert "one input channel" in refusals(Case(image, kernel, 8, 8, groups=8))
    assert "one input channel" in refusals(Case(image, kernel, 8, 16, groups=8))
    assert "64 channels" in refusals(Case(image, kernel, 130, 2, groups=2))
    assert "64 channels" in refusals(Case(image, kernel, 4, 130, groups=2))
    for size, kernel in (((2**20,), (2**19,)), ((999, 999), (900, 900))):
        assert "workspace" in refusals(Case(size, kernel, 8, 8, groups=2))


@every_layout
@every_pass
def test_auto_takes_it_for_thin_groups_only(pass_, layout):
    def chosen(size, kernel, channels, groups):
        case = Case((size,) * 2, (kernel,) * 2, channels, channels, 8, groups)
        case = dataclasses.replace(case, layout=layout)
        problem = case.problem(core, pass_)
        return {problem.choose(isa).split(":")[0] for isa in core.isas()}

    for of_group, kernel in itertools.product((2, 4), (3, 5)):
        assert chosen(56, kernel, 32 * of_group, 32) == {"grouped"}
    assert chosen(28, 3, 256, 2) == {"winograd"}
    assert chosen(28, 1, 240, 3) == {"gemm"}
    assert "grouped" not in chosen(28, 3, 128, 1)


@pytest.mark.parametrize("of_group", [(2, 2), (4, 4), (16, 16), (64, 64)])
def test_workspace_does_not_grow_with_the_image(of_group):
    def workspace(size, layout, pass_):
        channels, filters = (8 * n for n in of_group)
        case = Case(size, (3,) * len(size), channels, filters, 8, 8, layout=layout)
        return explained(case, pass_)["workspace"]

    for layout, pass_ in itertools.product(LAYOUTS, PASSES):
        for rank, sizes in ((1, (10**4, 10**7)), (2, (512, 8192)), (3, (128, 1024))):
            small, large = (workspace((n,) * rank, layout, pass_) for n in sizes)
            assert large <= max(2 * small, 2**24)
            assert large < 2**26


def neighbours(case, pass_, place):
    """Which results a NaN in the first operand meets, by the reference."""
    a, b = (np.ones_like(v) for v in case.operands(pass_))
    a.flat[place] = np.nan
    return np.isnan(case.exact(pass_, a, b))


@every_isa
@every_layout
@every_pass
@pytest.mark.parametrize("of_group", [(2, 2), (3, 3), (4, 2), (4, 4), (5, 8), (9, 6)])
def test_nan_stays_in_its_group_and_window(of_group, pass_, layout, isa):
    groups = 5
    channels, filters = (groups * n for n in of_group)
    case = Case((5, 11), (3, 3), channels, filters, groups=groups, padding=SAME)
    problem = dataclasses.replace(case, layout=layout).problem(core, pass_)
    case = dataclasses.replace(case, layout=layout)
    a, b = case.operands(pass_)
    exact = case.exact(pass_, a, b)
    size = case.exact(pass_, np.abs(a), np.abs(b))
    for place in np.linspace(0, a.size - 1, 23, dtype=int):
        for poison in (np.nan, np.inf):
            poisoned = a.copy()
            poisoned.flat[place] = poison
            report = problem.run(poisoned, b, algorithm="grouped", isa=isa, guard=64)
            result = report["result"]
            hit = neighbours(case, pass_, place)
            assert report["guards_intact"]
            assert not np.isfinite(result[hit]).any()
            kept = (np.where(hit, 0, v) for v in (result, exact, size))
            assert_accurate(*kept)


@every_isa
def test_nan_of_a_second_operand_stays_in_its_group(isa):
    case = Case((6, 9), (3, 3), 20, 20, groups=5, padding=SAME)
    for pass_ in PASSES:
        a, b = case.operands(pass_)
        b[..., 9] = np.nan
        result = case.problem(core, pass_).run(a, b, algorithm="grouped", isa=isa)
        lost = np.isnan(result["result"]).reshape(-1, 20).any(axis=0)
        expected = np.zeros(20, bool)
        expected[slice(8, 12) if pass_ == "input_gradient" else 9] = True
        np.testing.assert_array_equal(lost, expected)


@every_isa
@every_layout
@every_pass
@pytest.mark.parametrize("of_group", [(2, 2), (3, 4), (8, 8), (6, 17), (33, 5)])
def test_edges_of_register_tiles(of_group, pass_, layout, isa):
    for columns in (*range(1, 18), 23, 33, 64, 65):
        taps, stride = 1 + columns % 4, 1 + columns % 3
        case = Case(
            (2, columns + 7),
            (2, taps),
            *(3 * n for n in of_group),
            groups=3,
            strides=(1, stride),
            layout=layout,
        )
        a, b = case.operands(pass_)
        exact = case.exact(pass_, a, b)
        size = case.exact(pass_, np.abs(a), np.abs(b))
        epilogue, bias = {}, None
        if pass_ == "forward":
            epilogue, bias = {"bias": True, "activation": "relu"}, case.bias()
            exact, size = case.finished((exact, size), bias, "relu")
        problem = case.problem(core, pass_, **epilogue)
        report = problem.run(a, b, bias=bias, algorithm="grouped", isa=isa, guard=64)
        assert report["guards_intact"]
        assert_accurate(report["result"], exact, size)


@every_isa
@every_layout
@pytest.mark.parametrize("of_group", [2, 3, 16])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_every_half_value_is_read_and_stored(dtype, of_group, layout, isa):
    values = np.arange(2**16, dtype=np.uint16).view(DTYPES[dtype])
    channels = 4 * of_group
    case = Case((2**14,), (1,), channels, channels, groups=4, layout=layout)
    x = np.zeros(case.input_shape, values.dtype)
    w = np.zeros(case.filter_shape, values.dtype)
    # One channel of each group holds values, for one filter of its group.
    in_a_group = np.arange(of_group, channels + 1, of_group) - 1
    w[0, -1, in_a_group] = 1
    channels_last = np.moveaxis(x, 1, -1) if layout == "channels_first" else x
    channels_last[0, :, in_a_group] = values.reshape(4, -1)
    result = case.problem(core, "forward", dtype).run(
        x, w, algorithm="grouped", isa=isa
    )["result"]
    if layout == "channels_first":
        result = np.moveaxis(result, 1, -1)
    stored = result[0][:, in_a_group].T.ravel()
    np.testing.assert_array_equal(stored.astype("float32"), values.astype("float32"))


@pytest.mark.parametrize("channels", [2, 4, 16])
def test_long_sums_are_accurate(channels):
    # A plain running sum of so many products of one sign would lose four digits.
    case = Case((1 << 19,), (1,), 2 * channels, 2 * channels, groups=2)
    x = np.full(case.input_shape, 0.1, np.float32)
    dy = np.full(case.output_shape, 0.1, np.float32)
    problem = case.problem(core, "filter_gradient")
    exact = float(np.float64(np.float32(0.1)) ** 2 * (1 << 19))
    for isa in core.isas():
        result = problem.run(x, dy, algorithm="grouped", isa=isa)["result"]
        np.testing.assert_allclose(result, exact, rtol=4e-6)
