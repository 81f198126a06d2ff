"""Winograd's kernels of the GPU by their own steps, on the host."""

import dataclasses
import itertools

import numpy as np
import pytest
import reference
import tiling
from cuda_twin import (
    check,
    launch_of,
    manner,
    problem_of,
    refusal,
    run,
    workspace_of,
)
from problems import CASES, EPILOGUES, PASSES, SMALL, Case, judged, magnitude, naming

ALGORITHMS = ("winograd:f2", "winograd:f4")
SAME = ((1, 1), (1, 1))
OF_TYPE = [("winograd:f2", "float16"), ("winograd:f2", "bfloat16")]
OF_TYPE += [(algorithm, "float32") for algorithm in ALGORITHMS]

# Tiles whole and cut, and blocks of tiles, channels and results of each width.
SHAPES = {
    "whole_tiles": Case((8, 16), (3, 3), 16, 32, 2, padding=SAME),
    "cut_tiles": Case((9, 11), (3, 3), 12, 40, 2),
    "one_channel": Case((7, 6), (3, 3), 1, 5, 3, padding=SAME),
    "one_result": Case((6, 9), (3, 3), 9, 1, padding=SAME),
    "one_pixel": Case((1, 1), (3, 3), 6, 7, 5, padding=SAME),
    "one_output": Case((3, 3), (3, 3), 6, 10, 2),
    "even_width": Case((6, 14), (3, 3), 8, 9, 3, padding=SAME),
    "asymmetric_padding": Case((10, 13), (3, 3), 17, 70, padding=((0, 2), (3, 1))),
    "padding_beyond_kernel": Case((5, 4), (3, 3), 5, 6, padding=((4, 3), (5, 7))),
    "three_narrow_blocks": Case((12, 12), (3, 3), 20, 90, padding=SAME),
    "both_wide": Case((7, 7), (3, 3), 130, 72, 2, padding=SAME),
    "groups": Case((7, 8), (3, 3), 64, 66, 3, 2, padding=SAME),
    "narrow_groups": Case((6, 6), (3, 3), 99, 96, 2, 3, padding=SAME),
    "empty_batch": Case((6, 5), (3, 3), 4, 8, 0, padding=SAME),
    "empty_image": Case((0, 5), (3, 3), 4, 8, 2, padding=((1, 2), (1, 1))),
}
SHAPES.update(
    {
        f"{name}_channels_first": dataclasses.replace(case, layout="channels_first")
        for name, case in SHAPES.items()
    }
)


# The only output along the first axis reads nothing but padding.
PADDING_IN_FRONT = Case(
    *((1, 8, 8), (1, 3, 3), 64, 64, 1, 2, (2, 1, 1)),
    padding=((1, 0), (1, 1), (1, 1)),
)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name, pass_, algorithm):
    check(algorithm, SHAPES[name], pass_)


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types(dtype, pass_):
    for name in ("cut_tiles", "asymmetric_padding_channels_first", "groups"):
        check("winograd:f2", SHAPES[name], pass_, dtype)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_all_that_it_is_for(algorithm):
    taken = [
        name
        for name, case in CASES.items()
        if refusal(algorithm, problem_of(case, "forward")) is None
    ]
    assert {"2d_same", "many_pixels", "wide_groups", "channels_first"} <= set(taken)
    assert all(CASES[name].kernel_size == (3, 3) for name in taken)
    for name, pass_ in itertools.product(set(taken) & set(SMALL), PASSES):
        check(algorithm, CASES[name], pass_)


# More tiles than a slice has, and so sums of several slices.
@pytest.mark.parametrize(
    ("algorithm", "pass_", "case"),
    [
        (
            "winograd:f4",
            "forward",
            Case((8, 8), (3, 3), 4, 230, 259, padding=SAME, layout="channels_first"),
        ),
        ("winograd:f4", "input_gradient", Case((4, 4), (3, 3), 4, 230, 1030)),
        pytest.param(
            *("winograd:f4", "filter_gradient", Case((8, 8), (3, 3), 4, 230, 259)),
            marks=pytest.mark.slow,
        ),
        ("winograd:f2", "filter_gradient", Case((68, 68), (3, 3), 520, 4)),
    ],
)
def test_slices(algorithm, pass_, case):
    m = tiling.outputs_of(algorithm)
    sizes = case.input_size if pass_ == "input_gradient" else case.output_size
    tiles = case.batch * np.prod([-(-size // m) for size in sizes])
    of_tile = 4 * (m + 2) ** 2 * (case.in_channels + case.out_channels)
    # The workspace is not for all of them at a time.
    assert workspace_of(algorithm, problem_of(case, pass_)) < tiles * of_tile
    check(algorithm, case, pass_)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("name", ["both_wide", "cut_tiles_channels_first", "groups"])
def test_order_of_threads_changes_no_bit(name, pass_, algorithm):
    case = SHAPES[name]
    results = []
    for backwards in (False, True):
        with manner(backwards=backwards):
            results.append(run(algorithm, case, pass_, *case.operands(pass_)))
    assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.parametrize(("algorithm", "dtype"), OF_TYPE)
@pytest.mark.parametrize("pass_", PASSES)
def test_tensors_need_no_more_alignment_than_their_elements(pass_, algorithm, dtype):
    with manner(shift=1):
        for name in ("whole_tiles", "even_width_channels_first"):
            check(algorithm, SHAPES[name], pass_, dtype)


@pytest.mark.parametrize(("algorithm", "dtype"), OF_TYPE)
@pytest.mark.parametrize("pass_", ["forward", "input_gradient"])
def test_epilogue(pass_, algorithm, dtype):
    cases = SHAPES["asymmetric_padding"], SHAPES["even_width_channels_first"]
    for case, (with_bias, activation) in itertools.product(cases, EPILOGUES):
        (a, b), (exact, of_plain_sum) = judged(case, pass_, dtype)
        bias = case.bias(dtype, pass_=pass_) if with_bias else None
        error = magnitude(algorithm, case, pass_, a, b, of_plain_sum)
        expected = case.finished((exact, error), bias, activation)
        result = run(algorithm, case, pass_, a, b, bias=bias, activation=activation)
        with naming(case, activation):
            reference.assert_accurate(result, *expected)


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("pass_", PASSES)
def test_nan_reaches_only_tiles_that_read_it(pass_, algorithm, layout):
    case = Case((13, 14), (3, 3), 64, 66, 2, 2, padding=SAME, layout=layout)
    a, b = case.operands(pass_)
    for place in (0, a.size // 2 + 7, a.size - 1):
        poisoned = a.copy()
        poisoned.flat[place] = np.nan
        spoiled = np.isnan(run(algorithm, case, pass_, poisoned, b))
        where = np.unravel_index(place, a.shape)
        allowed = tiling.spoiled(algorithm, case, pass_, where)
        assert np.isnan(case.exact(pass_, poisoned, b))[~spoiled].sum() == 0
        assert 0 < spoiled.sum() < spoiled.size
        assert not (spoiled & ~allowed).any()


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case((8, 8), (5, 3), 8, 8), "3 x 3 only"),
        (Case((8,), (3,), 8, 8), "3 x 3 only"),
        (Case((8, 8, 8), (3, 3, 3), 8, 8), "two dimensions only"),
        (PADDING_IN_FRONT, "two dimensions only"),
        (Case((8, 8), (3, 3), 8, 8, strides=(1, 2)), "neither strides nor dilation"),
        (Case((9, 9), (3, 3), 8, 8, dilation_rate=(2, 1)), "nor dilation"),
        (Case((8, 8), (3, 3), 64, 62, groups=2), "groups of 32 channels"),
        (Case((8, 8), (3, 3), 1 << 21, 1), "at most 1048576 channels"),
        (Case((8, 1 << 27), (3, 3), 1, 1), "sizes up to 67108864"),
        (Case((8, 1 << 20), (3, 3), 1, 128), "rows of at most 67108864"),
    ],
)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_it_refuses(algorithm, case, words):
    for pass_ in PASSES:
        assert words in refusal(algorithm, problem_of(case, pass_))


def test_types_and_workspaces_that_it_refuses():
    problem = problem_of(SHAPES["cut_tiles"], "forward", "float64")
    assert "float64" in refusal("winograd:f2", problem)
    for dtype in ("float64", "float16", "bfloat16"):
        problem = problem_of(SHAPES["cut_tiles"], "filter_gradient", dtype)
        assert "float32 only" in refusal("winograd:f4", problem)
    many = Case((8, 8), (3, 3), 9000, 9000)
    assert "256 MiB" in refusal("winograd:f4", problem_of(many, "forward"))
    assert refusal("winograd:f2", problem_of(many, "forward")) is None


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_launches_and_workspace_have_a_bound(algorithm, layout):
    points = (tiling.outputs_of(algorithm) + 2) ** 2
    for channels, size in itertools.product((3, 32, 64, 96, 512, 2048), (7, 56, 224)):
        case = Case(
            (size, size), (3, 3), channels, channels, 16, padding=SAME, layout=layout
        )
        huge = dataclasses.replace(case, batch=1 << 24)
        for pass_ in PASSES:
            # launch_of fails where a GPU would: threads, or shared memory.
            blocks, threads, _ = launch_of(algorithm, problem_of(case, pass_))
            assert blocks >= 1
            assert threads in (256, 512)
            bytes_of = workspace_of(algorithm, problem_of(huge, pass_))
            # U, or sums of it: 64 MiB unless one takes more; and slices of tiles.
            of_filter = 4 * points * max(64, channels + 8) ** 2
            assert bytes_of <= (1 << 28) + max(1 << 26, of_filter)
