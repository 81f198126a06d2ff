"""The kernels of the GPU by their own steps, on the host, against the reference."""

import dataclasses
import itertools

import numpy as np
import pytest
import reference
from cuda_twin import (
    check,
    launch_of,
    library,
    manner,
    problem_of,
    refusal,
    run,
    workspace_of,
)
from problems import CASES, DTYPES, EPILOGUES, PASSES, SMALL, Case, judged

from kconv import cuda

SAME_3 = ((1, 1), (1, 1))

# Depthwise tiles whole and cut, of each kernel, layout and chunk of channels.
DEPTHWISE = {
    "3x3": Case((17, 30), (3, 3), 40, 40, 2, 40, padding=SAME_3),
    "3x3_strided": Case(
        (19, 33), (3, 3), 36, 36, 2, 36, strides=(2, 2), padding=((1, 1), (0, 1))
    ),
    "3x3_unequal_strides": Case(
        (11, 18), (3, 3), 5, 5, 2, 5, strides=(1, 2), padding=SAME_3
    ),
    "2x1": Case((9, 10), (2, 1), 8, 8, 1, 8),
    "5x4": Case((12, 16), (5, 4), 33, 33, 1, 33, padding=((2, 2), (1, 2))),
    "5x5_strided": Case(
        (14, 31), (5, 5), 8, 8, 1, 8, strides=(2, 2), padding=((2, 2), (2, 2))
    ),
    "7x7": Case((15, 16), (7, 7), 48, 48, 1, 48, padding=((3, 3), (3, 3))),
    "7x7_strided": Case(
        (15, 30), (7, 7), 3, 3, 1, 3, strides=(2, 2), padding=((3, 3), (2, 3))
    ),
    "9_of_a_row": Case((61,), (9,), 12, 12, 3, 12, padding=((4, 4),)),
    "13x10_strided": Case(
        (23, 30), (13, 10), 9, 9, 1, 9, strides=(2, 2), padding=((6, 5), (4, 9))
    ),
    "31x31": Case((21, 30), (31, 31), 9, 9, 1, 9, padding=((15, 15),) * 2),
    "31x31_strided": Case(
        (16, 33), (31, 31), 3, 3, 1, 3, strides=(2, 2), padding=((15, 15),) * 2
    ),
    # One dimension: rows whole and cut, of chunks of each number of channels.
    "row": Case((300,), (3,), 35, 35, 2, 35, padding=((1, 1),)),
    "row_of_many": Case((131,), (5,), 64, 64, 2, 64, padding=((2, 2),)),
    "row_strided": Case((1001,), (7,), 8, 8, 2, 8, (2,), padding=((3, 2),)),
    "row_of_31": Case((510,), (31,), 32, 32, 1, 32, (2,), padding=((15, 15),)),
    "long_row": Case((1900,), (4,), 3, 3, 1, 3, padding=((1, 2),)),
    "one_row_of_3": Case((1, 70), (3, 3), 24, 24, 2, 24, padding=SAME_3),
    "wide": Case((5, 120), (3, 3), 3, 3, 1, 3, padding=SAME_3),
    "padding_beyond_kernel": Case(
        (5, 4), (3, 3), 4, 4, 1, 4, padding=((5, 4), (6, 3)), strides=(1, 2)
    ),
    "empty": Case((6, 5), (3, 3), 4, 4, 0, 4, padding=SAME_3),
    "empty_rows": Case((6, 0), (3, 3), 4, 4, 2, 4, padding=SAME_3),
    "outputs_of_padding_only": Case(
        (0, 5), (3, 2), 3, 3, 1, 3, padding=((2, 3), (1, 0))
    ),
}
DEPTHWISE.update(
    {
        f"{name}_channels_first": dataclasses.replace(case, layout="channels_first")
        for name, case in DEPTHWISE.items()
    }
)


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_direct(dtype, pass_):
    for case in SMALL.values():
        check("direct", case, pass_, dtype)


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("name", DEPTHWISE)
def test_depthwise(name, pass_):
    check("depthwise", DEPTHWISE[name], pass_, "float32")


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_depthwise_of_half_types(dtype, pass_):
    for name in ("3x3", "5x4", "7x7_channels_first", "13x10_strided", "31x31"):
        check("depthwise", DEPTHWISE[name], pass_, dtype)


def test_depthwise_takes_what_it_is_for():
    taken = [
        name
        for name, case in CASES.items()
        if case.groups == case.in_channels
        and refusal("depthwise", problem_of(case, "forward")) is None
    ]
    assert {"depthwise_wide", "depthwise_31x31", "depthwise_1d"} <= set(taken)
    for name in taken:
        for pass_ in PASSES:
            check("depthwise", CASES[name], pass_, "float32")


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("name", ["3x3", "7x7", "13x10_strided_channels_first"])
def test_order_of_threads_changes_no_bit(name, pass_):
    for algorithm in ("direct", "depthwise"):
        case = DEPTHWISE[name]
        a, b = case.operands(pass_)
        forwards = run(algorithm, case, pass_, a, b)
        with manner(backwards=True):
            backwards = run(algorithm, case, pass_, a, b)
        assert forwards.tobytes() == backwards.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("pass_", PASSES)
def test_tensors_need_no_more_alignment_than_their_elements(pass_, dtype):
    with manner(shift=1):
        check("depthwise", DEPTHWISE["7x7"], pass_, dtype)


@pytest.mark.parametrize("algorithm", ["direct", "depthwise"])
@pytest.mark.parametrize("pass_", ["forward", "input_gradient"])
def test_epilogue(algorithm, pass_):
    case = DEPTHWISE["3x3_strided"]
    for with_bias, activation in EPILOGUES:
        (a, b), expected = judged(case, pass_, "float16")
        bias = case.bias("float16", pass_=pass_) if with_bias else None
        options = {"bias": bias, "activation": activation}
        result = run(algorithm, case, pass_, a, b, **options)
        exact, magnitude = case.finished(expected, bias, activation)
        reference.assert_accurate(result, exact, magnitude)


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("algorithm", ["direct", "depthwise"])
@pytest.mark.parametrize("pass_", PASSES)
def test_nan_and_infinity_reach_only_where_they_are_read(algorithm, layout, pass_):
    # The last pixel lies where outputs would be that there are not.
    case = Case((10, 17), (3, 5), 9, 9, 2, 9, (1, 2), None, ((1, 1), (2, 0)), layout)
    a, b = case.operands(pass_)
    places = (0, a.size // 2, a.size - 1)
    for place, poison in itertools.product(places, (np.nan, np.inf)):
        poisoned = a.copy()
        poisoned.flat[place] = poison
        with np.errstate(invalid="ignore"):
            exact = case.exact(pass_, poisoned, b)
        result = run(algorithm, case, pass_, poisoned, b)
        hit = ~np.isfinite(exact)
        assert 0 < hit.sum() < hit.size
        np.testing.assert_array_equal(result[hit], exact[hit])
        assert np.isfinite(result[~hit]).all()


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 2), (2, 1)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value, strides, layout):
    # Neither what is beyond the image nor the zeros of a stride may meet them.
    words = (strides, None, ((1, 1), (3, 2)), layout)
    case = Case((10, 37), (3, 5), 9, 9, 2, 9, *words)
    w = case.operands("forward")[1]
    w[0, 4, 0, 2] = w[2, 1, 0, 7] = value
    x, dy = (case.operands(pass_)[0] for pass_ in PASSES[:2])
    forward = run("depthwise", case, "forward", x, w)
    by_definition = run("direct", case, "forward", x, w)
    gradient = run("depthwise", case, "input_gradient", dy, w)
    expected = case.exact("input_gradient", dy, w)
    for one, other in ((forward, by_definition), (gradient, expected)):
        assert 0 < (~np.isfinite(other)).sum() < other.size
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case((8, 8), (3, 3), 8, 8, groups=4), "one filter a channel"),
        (Case((8, 8), (3, 3), 4, 8, groups=4), "one filter a channel"),
        (Case((8, 8), (3, 3), 4, 4, groups=4, dilation_rate=(1, 2)), "no dilation"),
        (Case((8, 8), (3, 3), 4, 4, groups=4, strides=(3, 1)), "strides of 1 and 2"),
        (Case((40, 40), (32, 3), 4, 4, groups=4), "31 taps"),
        (Case((4, 4, 4), (3, 3, 3), 4, 4, groups=4), "one or two dimensions"),
        (
            Case(
                *((1, 4, 4), (1, 3, 3), 4, 4, 1, 4, (2, 1, 1)),
                padding=((1, 0), (0, 0), (0, 0)),
            ),
            "one or two dimensions",
        ),
        (Case((1 << 29,), (3,), 1, 1), "sizes below"),
    ],
)
@pytest.mark.parametrize("pass_", PASSES)
def test_what_depthwise_refuses(case, words, pass_):
    assert words in refusal("depthwise", problem_of(case, pass_))
    assert refusal("direct", problem_of(case, pass_)) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"input": 0}, "needs an address"),
        ({"output": 2}, "aligned to their elements"),
        ({"workspace": 0}, "needs a workspace"),
        ({"workspace": 4}, "aligned to 16 bytes"),
        ({"bias": 16}, "where the problem has one"),
    ],
)
def test_addresses_that_would_stop_a_gpu(changes, words):
    problem = problem_of(DEPTHWISE["3x3"], "filter_gradient")
    memory = np.zeros(1 << 20, np.uint8)
    start = memory.ctypes.data + -memory.ctypes.data % 16
    places = dict.fromkeys(("input", "filter", "output", "workspace"), start)
    moved = {name: at and start + at for name, at in changes.items()}
    arguments = cuda.Arguments(**{**places, **moved})
    error = library().kconv_cuda_run(b"depthwise", problem, arguments, None)
    assert error is None if words is None else words in error.decode()


def test_depthwise_refuses_float64():
    problem = problem_of(DEPTHWISE["3x3"], "forward", "float64")
    assert "float64" in refusal("depthwise", problem)


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_kernel_fits_every_gpu(stride, layout):
    for kernel in range(1, 32):
        for other in (1, 3, 31):
            for size in (7, 14, 28, 56, 224):
                pads = ((15, 15),) * 2
                case = Case(
                    *((size, size), (kernel, other), 64, 64, 32, 64),
                    *((stride, stride), None, pads, layout),
                )
                same = ((kernel - 1) // 2, kernel // 2)
                row = dataclasses.replace(
                    case, input_size=(1, size), padding=(same, pads[1])
                )
                for one, pass_ in itertools.product((case, row), PASSES):
                    problem = problem_of(one, pass_)
                    assert refusal("depthwise", problem) is None
                    blocks, threads, shared = launch_of("depthwise", problem)
                    assert blocks >= 1
                    assert 1 <= threads <= 256
                    assert 0 < shared <= 99 << 10


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("channels", [8, 40, 64, 144])
@pytest.mark.parametrize("pass_", PASSES[:2])
def test_tiles_are_full(pass_, channels, layout):
    """Threads of 2 x 7 results, of which one dimension needs 1 x 7."""
    for size in ((4096,), (112, 112)):
        case = Case(
            *(size, (3,) * len(size), channels, channels, 8, channels),
            padding=((1, 1),) * len(size),
            layout=layout,
        )
        blocks, threads, _ = launch_of("depthwise", problem_of(case, pass_))
        results = 8 * channels * np.prod(size)
        assert blocks * threads * 7 * len(size) <= 1.25 * results


@pytest.mark.parametrize("channels", [8, 40, 64])
def test_threads_share_a_row_of_the_filter_gradient(channels):
    case = Case((4096,), (3,), channels, channels, 8, channels, padding=((1, 1),))
    problem = problem_of(case, "filter_gradient")
    _, threads, shared = launch_of("depthwise", problem)
    assert threads == 256
    # No rows that there are not: two boxes of about 112 x 32 or 224 x 8 floats.
    assert shared <= 2 * 4 * 32 * (112 + 8)


@pytest.mark.parametrize("algorithm", ["direct", "depthwise"])
def test_workspace_is_bounded(algorithm):
    def bytes_of(case, pass_):
        return workspace_of(algorithm, problem_of(case, pass_))

    large = Case((224, 224), (3, 3), 512, 512, 256, 512, padding=SAME_3)
    for pass_ in PASSES[:2]:
        assert bytes_of(large, pass_) == 0
    # Many pixels: slices of them, no matter how many images there are.
    assert 9 * 512 * 4 < bytes_of(large, "filter_gradient") <= 64 << 20
    tall = dataclasses.replace(large, batch=1 << 20)
    assert bytes_of(tall, "filter_gradient") == bytes_of(large, "filter_gradient")
