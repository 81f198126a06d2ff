"""The implicit products of the GPU by their own steps, on the host."""

import dataclasses
import itertools

import numpy as np
import pytest
import reference
from cuda_twin import (
    check,
    launch_of,
    manner,
    problem_of,
    refusal,
    run,
    workspace_of,
)
from problems import CASES, EPILOGUES, PASSES, SMALL, Case, judged

SAME_3 = ((1, 1), (1, 1))
every_pass = pytest.mark.parametrize("pass_", PASSES)
every_layout = pytest.mark.parametrize("layout", ["channels_last", "channels_first"])

# What fills some tiles of 128 x 128 and cuts others.
TILES = {
    "image": Case((11, 13), (2, 2), 20, 140, 2, dilation_rate=(1, 3)),
    "gradient": Case((12, 23), (3, 3), 140, 12, strides=(1, 2), padding=SAME_3),
    "groups": Case((13, 21), (3, 1), 24, 68, groups=2, padding=((2, 0), (0, 1))),
}


@every_layout
@every_pass
def test_every_small_problem(pass_, layout):
    for case in SMALL.values():
        if case.layout == layout:
            check("gemm", case, pass_)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_pass
def test_half_types(pass_, dtype):
    for name in ("2d_valid", "2d_same", "2d_grouped", "3d_all", "2d_1x1_strided"):
        check("gemm", SMALL[name], pass_, dtype)
        check("gemm", SMALL[f"{name}_channels_first"], pass_, dtype)


@every_layout
@every_pass
@pytest.mark.parametrize("shape", range(5))
def test_shapes_of_tiles(shape, pass_, layout):
    # The filter gradient has one less.
    if shape == 4 and pass_ == "filter_gradient":
        return
    for case in TILES.values():
        check(f"gemm:{shape}", dataclasses.replace(case, layout=layout), pass_)


@pytest.mark.parametrize("pass_", PASSES[:2])
@pytest.mark.parametrize(
    ("channels", "rows", "threads"),
    [(8, 256, 128), (16, 256, 128), (32, 256, 128), (64, 128, 128), (128, 128, 256)],
)
def test_choice_of_tiles(channels, rows, threads, pass_):
    """One tile is as wide as the channels of a group."""
    pixels, groups = 64 * 112 * 112, 3
    every = groups * channels
    case = Case((112, 112), (3, 3), every, every, 64, groups, padding=SAME_3)
    launch = launch_of("gemm", problem_of(case, pass_))
    # The transposed filter takes fewer blocks, of 256 threads.
    assert launch[0] == groups * pixels // rows
    assert launch[1] == (threads if pass_ == "forward" else 256)
    # A few pixels are cut into smaller tiles.
    few = dataclasses.replace(case, input_size=(14, 14), batch=8)
    assert launch_of("gemm", problem_of(few, pass_))[0] >= groups * 8 * 14 * 14 // rows


@every_pass
def test_order_of_threads_changes_no_bit(pass_):
    for name in ("2d_grouped_odd", "2d_valid", "2d_same_channels_first"):
        case = SMALL[name]
        a, b = case.operands(pass_)
        forwards = run("gemm", case, pass_, a, b)
        with manner(backwards=True):
            backwards = run("gemm", case, pass_, a, b)
        assert forwards.tobytes() == backwards.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@every_pass
def test_tensors_need_no_more_alignment_than_their_elements(pass_, dtype):
    for name, shift in (("2d_valid", 1), ("2d_valid_channels_first", 2)):
        with manner(shift=shift):
            check("gemm", SMALL[name], pass_, dtype)


@every_layout
@pytest.mark.parametrize("pass_", PASSES[:2])
def test_epilogue(pass_, layout):
    # Rows of four pixels, and of fewer; filters by four, and fewer.
    cases = (
        Case((8, 9), (3, 3), 8, 12, 2, 4, padding=SAME_3, layout=layout),
        Case((7, 9), (3, 3), 6, 5, strides=(2, 2), layout=layout),
    )
    for case, (with_bias, activation) in itertools.product(cases, EPILOGUES):
        (a, b), expected = judged(case, pass_, "float16")
        bias = case.bias("float16", pass_=pass_) if with_bias else None
        result = run("gemm", case, pass_, a, b, bias, activation=activation)
        exact, magnitude = case.finished(expected, bias, activation)
        reference.assert_accurate(result, exact, magnitude)


@every_pass
@pytest.mark.parametrize(
    "name", ["2d_grouped_odd", "2d_unequal_strides_channels_first", "2d_1x1_padded"]
)
def test_nan_and_infinity_go_where_their_windows_are(name, pass_):
    case = SMALL[name]
    a, b = case.operands(pass_)
    for place, poison in itertools.product(
        (0, a.size // 2, a.size - 1), (np.nan, np.inf)
    ):
        poisoned = a.copy()
        poisoned.flat[place] = poison
        with np.errstate(invalid="ignore"):
            exact = case.exact(pass_, poisoned, b)
        result = run("gemm", case, pass_, poisoned, b)
        hit = ~np.isfinite(exact)
        np.testing.assert_array_equal(result[hit], exact[hit])
        assert np.isfinite(result[~hit]).all()


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case((1 << 29,), (3,), 1, 1), "sizes below"),
        (Case((8,), (2,), 1, 1, padding=((1 << 29, 0),)), "sizes below"),
        (Case((1 << 16, 1 << 16), (1, 1), 1, 1), "below 2147483648"),
        (Case((8, 8), (1, 1), 1 << 16, 1 << 16), "below 2147483648"),
        (Case((1 << 10, 1 << 11), (1, 1), 1 << 9, 1 << 9, 2, 1), None),
    ],
)
@every_pass
def test_what_it_refuses(case, words, pass_):
    found = refusal("gemm", problem_of(case, pass_))
    assert found is None if words is None else words in found
    assert "float64" in refusal("gemm", problem_of(SMALL["1d"], pass_, "float64"))


@every_pass
def test_every_launch_fits_every_gpu(pass_):
    for case in CASES.values():
        blocks, threads, _ = launch_of("gemm", problem_of(case, pass_))
        assert 0 <= blocks < 1 << 31
        assert threads in (0, 64, 128, 256)


def test_workspace():
    def bytes_of(case, pass_, dtype="float32"):
        return workspace_of("gemm", problem_of(case, pass_, dtype))

    large = Case((56, 56), (3, 3), 128, 192, 64, padding=SAME_3)
    filter_bytes = 9 * 128 * 192 * 4
    assert bytes_of(large, "forward") == 0
    assert bytes_of(large, "input_gradient") == filter_bytes
    assert bytes_of(large, "input_gradient", "float16") == filter_bytes // 2
    # Slices of the many pixels, no matter how many more there are.
    assert filter_bytes < bytes_of(large, "filter_gradient") <= 64 << 20
    more = dataclasses.replace(large, batch=1 << 10)
    assert bytes_of(more, "filter_gradient") <= 64 << 20
    few = Case((7, 7), (3, 3), 512, 512, padding=SAME_3)
    assert bytes_of(few, "filter_gradient") == 0
