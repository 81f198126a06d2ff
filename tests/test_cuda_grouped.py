"""The kernels of narrow groups of the GPU by their own steps, on the host."""

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
from problems import CASES, EPILOGUES, PASSES, Case, judged

SAME_3 = ((1, 1), (1, 1))
every_pass = pytest.mark.parametrize("pass_", PASSES)
every_layout = pytest.mark.parametrize("layout", ["channels_last", "channels_first"])


def grouped(size, kernel, groups, channels, filters=None, batch=2, **more):
    """A `Case` of so many channels and filters a group."""
    filters = channels if filters is None else filters
    of_all = (groups * channels, groups * filters)
    return Case(size, kernel, *of_all, batch, groups, **more)


# Tiles whole and cut, of threads with 4 and with 8 channels; blocks with groups that
# are not there.
GROUPS = {
    "2": grouped((17, 19), (3, 3), 9, 2, padding=SAME_3),
    "4": grouped((18, 33), (3, 3), 11, 4, padding=SAME_3),
    "4_strided": grouped((21, 20), (3, 5), 3, 4, strides=(2, 3), padding=SAME_3),
    "4_dilated": grouped((15, 22), (3, 2), 9, 4, dilation_rate=(3, 4)),
    "4_both": grouped(
        (19, 21), (4, 3), 3, 4, strides=(4, 2), dilation_rate=(2, 3), padding=SAME_3
    ),
    "8": grouped((16, 17), (3, 3), 5, 8, padding=SAME_3),
    "8_strided": grouped((15, 16), (5, 5), 2, 8, strides=(2, 2), padding=SAME_3),
    "12": grouped((9, 11), (2, 3), 3, 12, padding=((0, 2), (3, 1))),
    "16": grouped((14, 15), (3, 3), 3, 16, batch=1, padding=SAME_3),
    "32": grouped((13, 14), (3, 3), 2, 32, batch=1, padding=SAME_3),
    "3_and_5": grouped((12, 13), (3, 4), 5, 3, 5, padding=SAME_3),
    "20_and_4": grouped((9, 13), (3, 3), 3, 20, 4, padding=SAME_3),
    "1_and_6": grouped((11, 10), (3, 3), 6, 1, 6, strides=(1, 2)),
    "1x1": grouped((17, 16), (1, 1), 4, 8),
    "1x1_strided": grouped((17, 16), (1, 1), 4, 4, strides=(2, 3)),
    "of_a_row": grouped((401,), (7,), 3, 4, padding=((3, 3),)),
    "of_a_long_row": grouped((1203,), (3,), 2, 6, batch=1, dilation_rate=(9,)),
    "many_taps": grouped((12, 12), (11, 7), 3, 4, padding=((5, 5), (3, 3))),
    "padding_only": grouped((2, 3), (2, 2), 4, 4, padding=((9, 8), (0, 11))),
    # Of images that share a tile, the last ones.
    "small_images": grouped((7, 6), (3, 3), 3, 4, batch=9, padding=SAME_3),
    "small_images_strided": grouped(
        (7, 8), (3, 3), 2, 8, batch=11, strides=(2, 2), padding=SAME_3
    ),
    "empty": grouped((6, 5), (3, 3), 4, 4, batch=0, padding=SAME_3),
}


@every_layout
@every_pass
@pytest.mark.parametrize("name", GROUPS)
def test_groups(name, pass_, layout):
    check("grouped", dataclasses.replace(GROUPS[name], layout=layout), pass_)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_layout
@every_pass
def test_half_types(pass_, layout, dtype):
    for name in ("2", "4", "8_strided", "20_and_4", "1x1"):
        case = dataclasses.replace(GROUPS[name], layout=layout)
        check("grouped", case, pass_, dtype)


@every_pass
def test_it_takes_what_it_is_for(pass_):
    taken = [
        name
        for name, case in CASES.items()
        if refusal("grouped", problem_of(case, pass_)) is None
    ]
    assert {"groups_of_2", "groups_of_16_channels_first", "many_groups"} <= set(taken)
    for name in taken:
        check("grouped", CASES[name], pass_)


@every_pass
def test_order_of_threads_changes_no_bit(pass_):
    for name in ("4", "8_strided", "3_and_5"):
        a, b = GROUPS[name].operands(pass_)
        forwards = run("grouped", GROUPS[name], pass_, a, b)
        with manner(backwards=True):
            backwards = run("grouped", GROUPS[name], pass_, a, b)
        assert forwards.tobytes() == backwards.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@every_pass
def test_tensors_need_no_more_alignment_than_their_elements(pass_, dtype):
    with manner(shift=1):
        check("grouped", GROUPS["8"], pass_, dtype)


@every_layout
@pytest.mark.parametrize("pass_", PASSES[:2])
def test_epilogue(pass_, layout):
    for name, (with_bias, activation) in itertools.product(("8", "3_and_5"), EPILOGUES):
        case = dataclasses.replace(GROUPS[name], layout=layout)
        (a, b), expected = judged(case, pass_, "float16")
        bias = case.bias("float16", pass_=pass_) if with_bias else None
        result = run("grouped", case, pass_, a, b, bias, activation=activation)
        exact, magnitude = case.finished(expected, bias, activation)
        reference.assert_accurate(result, exact, magnitude)


@every_layout
@every_pass
@pytest.mark.parametrize("name", ["2", "4_both", "8", "3_and_5"])
def test_nan_and_infinity_go_where_their_windows_are(name, pass_, layout):
    case = dataclasses.replace(GROUPS[name], layout=layout)
    a, b = case.operands(pass_)
    places = (0, a.size // 2, a.size - 1)
    for place, poison in itertools.product(places, (np.nan, np.inf)):
        poisoned = a.copy()
        poisoned.flat[place] = poison
        with np.errstate(invalid="ignore"):
            exact = case.exact(pass_, poisoned, b)
        result = run("grouped", case, pass_, poisoned, b)
        hit = ~np.isfinite(exact)
        np.testing.assert_array_equal(result[hit], exact[hit])
        assert np.isfinite(result[~hit]).all()


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case((8, 8), (3, 3), 8, 8), "two groups"),
        (grouped((8, 8), (3, 3), 2, 33), "2 to 32 channels"),
        (grouped((8, 8), (3, 3), 2, 4, 40), "2 to 32 channels"),
        (grouped((8, 8), (3, 3), 4, 1), "2 to 32 channels"),
        (grouped((4, 4, 4), (3, 3, 3), 2, 4), "one or two dimensions"),
        (
            grouped(
                *((1, 4, 4), (1, 3, 3), 2, 4),
                strides=(2, 1, 1),
                padding=((1, 0), (0, 0), (0, 0)),
            ),
            "one or two dimensions",
        ),
        (grouped((1 << 29,), (3,), 2, 2, batch=1), "sizes below"),
        (grouped((200, 200), (200, 150), 2, 16), "shared memory"),
    ],
)
@every_pass
def test_what_it_refuses(case, words, pass_):
    found = refusal("grouped", problem_of(case, pass_))
    if words != "shared memory" or pass_ != "filter_gradient":
        assert words in found
    float64 = problem_of(GROUPS["4"], pass_, "float64")
    assert "float64" in refusal("grouped", float64)


@every_pass
def test_every_launch_fits_every_gpu(pass_):
    # launch_of holds them against what GPUs take.
    channels = (2, 3, 4, 8, 16, 24, 32)
    for of_group, kernel, size in itertools.product(channels, (1, 3, 5, 7), (7, 56)):
        for stride, dilation in ((1, 1), (2, 1), (1, 2)):
            case = grouped(
                *((size, size), (kernel,) * 2, 8, of_group),
                strides=(stride,) * 2,
                dilation_rate=(dilation,) * 2,
                padding=((kernel,) * 2,) * 2,
            )
            problem = problem_of(case, pass_)
            # Many weights, and strides, may leave no room in shared memory.
            weights = 4 * (kernel * of_group) ** 2
            if weights > (48 << 10 if stride == 1 else 20 << 10):
                continue
            assert refusal("grouped", problem) is None
            blocks, threads, shared = launch_of("grouped", problem)
            assert blocks >= 1
            assert 32 <= threads <= 256
            assert shared <= 99 << 10


@every_pass
def test_small_images_share_tiles(pass_):
    def blocks(batch):
        case = grouped((7, 7), (3, 3), 2, 16, batch=batch, padding=SAME_3)
        return launch_of("grouped", problem_of(case, pass_))[0]

    if pass_ == "filter_gradient":
        assert blocks(2) == blocks(1)
    else:
        # 8 x 8 places of an image, and 256 of a block.
        assert blocks(64) == 16


def test_workspace():
    large = grouped((56, 56), (3, 3), 32, 4, batch=64, padding=SAME_3)
    for pass_ in PASSES[:2]:
        assert workspace_of("grouped", problem_of(large, pass_)) == 0
    size = workspace_of("grouped", problem_of(large, "filter_gradient"))
    assert 9 * 4 * 128 * 4 < size <= 64 << 20
    tall = problem_of(dataclasses.replace(large, batch=1 << 9), "filter_gradient")
    assert workspace_of("grouped", tall) < size * 1.1
