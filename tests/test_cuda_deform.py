"""Deformable convolution's GPU kernels by their own steps, against the reference."""

import ctypes
import dataclasses

import numpy as np
import pytest
import reference
from cuda_twin import library, manner
from deform_cases import CASES, PLAIN, SAME, Case, assert_case
from deform_reference import Options, gradients
from problems import DTYPES, EPILOGUES

from kconv import cuda, native

PASSES = cuda.PASSES
every_pass = pytest.mark.parametrize("pass_", PASSES)

# Beyond those of the CPU: tiles of several sizes, slices of columns and of pixels,
# sorts of several bytes and chunks, and cells that many samples share.
LARGE = {
    "tiles": Case((17, 19), (3, 3), 40, 72, 2, options=Options(padding=SAME)),
    "tiles_of_groups": Case(
        (15, 14), (3, 3), 32, 48, 2, options=Options(groups=2, padding=SAME)
    ),
    "deep": Case((3, 5), (3, 3), 128, 64, options=Options(padding=SAME)),
    "sort": Case((40, 41), (1, 3), 4, 4, options=Options(padding=((0, 0), (1, 1)))),
    "crowded": Case(
        (12, 14), (3, 3), 8, 4, spread=30.0, options=Options(padding=((9, 9),) * 2)
    ),
    "wide_rows": Case((2, 45), (1, 3), 8, 8, options=Options(offset_groups=2)),
}


def problem_of(pass_, operands, options, **more):
    """The `Deform` of some operands."""
    x, w, _, mask, _ = operands
    dtype = next(name for name, one in DTYPES.items() if x.dtype == one)
    return cuda.deform(
        *(pass_, x.shape[1:3], w.shape[:2], x.shape[3], w.shape[3]),
        batch=x.shape[0],
        dtype=dtype,
        mask=mask is not None,
        **dataclasses.asdict(options),
        **more,
    )


def run(pass_, operands, options, bias=None, **more):
    """Runs a pass and returns the tuple of results."""
    x, w, offsets, mask, dy = operands
    problem = problem_of(pass_, operands, options, bias=bias is not None, **more)
    like = {
        "forward": (dy,),
        "input_gradient": (x, offsets) if mask is None else (x, offsets, mask),
        "filter_gradient": (w,),
    }[pass_]
    results = tuple(np.empty_like(one) for one in like)
    size = library().kconv_cuda_deform_workspace(ctypes.byref(problem))
    assert size >= 0
    workspace = np.empty(max(1, size), np.uint8)
    if pass_ == "forward":
        dy = None
    if pass_ == "filter_gradient":
        w = None
    given = [x, w, offsets, mask, bias, dy, *results, *[None] * (3 - len(results))]
    given = [one if one is None else np.ascontiguousarray(one) for one in given]
    arguments = cuda.DeformArguments(
        *(None if one is None else one.ctypes.data for one in given),
        workspace.ctypes.data,
    )
    error = library().kconv_cuda_deform_run(
        ctypes.byref(problem), ctypes.byref(arguments), None
    )
    assert error is None, error
    return results


def run_all(operands, options):
    """Every result by name."""
    results = {}
    (results["output"],) = run("forward", operands, options)
    by_image = run("input_gradient", operands, options)
    results.update(zip(("input", "offsets", "mask"), by_image, strict=False))
    (results["filter"],) = run("filter_gradient", operands, options)
    return results


def check(case, dtype="float32"):
    operands, _ = case.judged(dtype)
    results = run_all(operands, case.options)
    assert ("mask" in results) == case.mask
    assert_case(case, dtype, results)


@pytest.mark.parametrize("name", CASES)
def test_cases_of_the_cpu(name):
    check(CASES[name])


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_other_types(dtype):
    for name in ("plain", "no_mask", "both_groups", "crossing_groups", "slices"):
        check(CASES[name], dtype)


@pytest.mark.parametrize("name", LARGE)
def test_tiles_and_slices(name):
    check(LARGE[name])


# More gradients by values than are kept at a time: parts of a group's channels, some of
# the groups, some of the images.
PIECES = {
    "parts": Case((31, 32), (9, 9), 120, 1, options=Options(padding=((4, 4),) * 2)),
    "groups": Case(
        (31, 32), (9, 9), 120, 6, options=Options(groups=6, padding=((4, 4),) * 2)
    ),
    "images": Case((31, 32), (9, 9), 50, 1, 3, options=Options(padding=((4, 4),) * 2)),
}


@pytest.mark.parametrize("name", PIECES)
def test_gradients_in_pieces_are_those_of_the_cpu(name):
    case = PIECES[name]
    operands = case.operands("float64")
    found = run("input_gradient", operands, case.options)
    x, w, offsets, mask, dy = operands
    expected = native.core().deform_conv(
        "input_gradient",
        *(x, w, offsets),
        mask=mask,
        output=dy,
        **dataclasses.asdict(case.options),
    )["results"]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, 1e-11, 1e-11 * np.abs(other).max())


@every_pass
def test_order_of_threads_changes_no_bit(pass_):
    for case in (CASES["crossing_groups"], LARGE["tiles_of_groups"]):
        operands = case.operands()
        forwards = run(pass_, operands, case.options)
        with manner(backwards=True):
            backwards = run(pass_, operands, case.options)
        for one, other in zip(forwards, backwards, strict=True):
            assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tensors_need_no_more_alignment_than_their_elements(dtype):
    with manner(shift=1):
        check(CASES["plain"], dtype)


def test_epilogue():
    case = CASES["both_groups"]
    operands, expected = case.judged("float16")
    exact, magnitude = expected["output"]
    bias = np.random.default_rng(3).standard_normal(8).astype(np.float16)
    for with_bias, activation in EPILOGUES:
        given = bias if with_bias else None
        (found,) = run("forward", operands, case.options, given, activation=activation)
        size = np.abs(bias.astype(np.float64)) if with_bias else 0
        reference.assert_accurate(
            found,
            reference.finish(exact, given, activation, "channels_last"),
            magnitude + size,
        )


def test_epilogue_of_slices():
    case = LARGE["deep"]
    operands, expected = case.judged("float32")
    bias = np.arange(64, dtype=np.float32)
    (found,) = run("forward", operands, case.options, bias, activation="relu6")
    exact, magnitude = expected["output"]
    exact = reference.finish(exact, bias, "relu6", "channels_last")
    reference.assert_accurate(found, exact, magnitude + bias)
    # 15 pixels and 64 filters are one tile.
    assert launch_of("forward", operands, case.options)[0] == 9 * 128 // 256


def test_empty_tensors():
    for shape, padding in (((0, 5, 6, 4), 1), ((2, 0, 6, 4), 0), ((1, 0, 3, 4), 2)):
        options = Options(padding=((padding, padding),) * 2, offset_groups=2)
        case = Case(shape[1:3], (3, 3), 4, 3, shape[0], options=options)
        operands = case.operands()
        results = run_all(operands, options)
        names = ("input", "filter", "offsets", "mask", "output")
        for name, operand in zip(names, operands, strict=True):
            assert results[name].shape == operand.shape
            assert not results[name].any()


STRANGE = [np.inf, -np.inf, 1e30, -1e30, 3e9, -3e9, 2.0**62, 1e5]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_huge_offsets_read_nothing(dtype):
    case = CASES["offset_groups"]
    x, w, offsets, mask, dy = case.operands(dtype)
    rng = np.random.default_rng(2)
    with np.errstate(over="ignore"):
        strange = rng.choice(STRANGE, offsets.shape).astype(offsets.dtype)
    chosen = rng.random(offsets.shape) < 0.2
    offsets = np.where(chosen, strange, offsets)
    results = run_all((x, w, offsets, mask, dy), case.options)
    exact = gradients(x, w, offsets, mask, dy, case.options)
    largest = gradients(x, w, offsets, mask, dy, case.options, absolute=True)
    for i, name in enumerate(("input", "filter", "offsets", "mask")):
        reference.assert_accurate(results[name], exact[i], largest[i])
    shape = (*chosen.shape[:3], -1, 2)
    moved = chosen.reshape(shape).any(-1)
    assert moved.any()
    assert not results["mask"][moved].any()
    assert not results["offsets"].reshape(shape)[moved].any()


def same_kinds(found, expected):
    """Whether NaN and infinities are in the same places."""
    return all(
        np.array_equal(kind(found), kind(expected))
        for kind in (np.isnan, np.isposinf, np.isneginf)
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["offset_groups", "crossing_groups"])
def test_what_is_not_finite_reaches_what_it_does_on_the_cpu(name, dtype):
    case = CASES[name]
    rng = np.random.default_rng(5)
    core, met = native.core(), 0
    for place in range(5):  # input, filter, offsets, mask, gradient of the output
        for value in (np.nan, np.inf):
            operands = [one.copy() for one in case.operands(dtype, place)]
            operands[2][0, 0] = np.round(operands[2][0, 0])  # corners of no weight
            flat = operands[place].reshape(-1)
            flat[rng.choice(flat.size, 2, replace=False)] = value
            for pass_ in PASSES:
                x, w, offsets, mask, dy = operands
                expected = core.deform_conv(
                    pass_,
                    *(x, w, offsets),
                    mask=mask,
                    output=None if pass_ == "forward" else dy,
                    **dataclasses.asdict(case.options),
                )["results"]
                found = run(pass_, operands, case.options)
                for one, other in zip(found, expected, strict=True):
                    assert same_kinds(one, other), (place, value, pass_)
                    met += not np.isfinite(other).all()
    assert met > 20


def test_at_integers_the_derivative_is_to_the_right():
    x = np.array([1.0, 4.0, 9.0, 2.0]).reshape(1, 1, 4, 1)
    w = np.ones((1, 1, 1, 1))
    for column, dy in ((0, 3.0), (1, 5.0), (2, -7.0), (3, -2.0), (-1, 0.0), (4, 0.0)):
        offsets = np.zeros((1, 1, 4, 2))
        offsets[0, 0, 0, 1] = column
        operands = x, w, offsets, None, np.array([1.0, 0, 0, 0]).reshape(1, 1, 4, 1)
        _, found = run("input_gradient", operands, PLAIN)
        inside = 0 <= column < 4
        below = -x[0, 0, column, 0] if inside else 0.0
        assert found[0, 0, 0].tolist() == [below, dy]


def refusal(**words):
    given = {"pass_": "forward", "input_size": (8, 8), "kernel_size": (3, 3)}
    given = {**given, "in_channels": 4, "out_channels": 4, **words}
    reserved = given.pop("reserved", 0)
    problem = cuda.deform(**given)
    problem.reserved = reserved
    answer = library().kconv_cuda_deform_refuse(ctypes.byref(problem))
    size = library().kconv_cuda_deform_workspace(ctypes.byref(problem))
    assert (size == -1) == (answer is not None)
    return answer and answer.decode()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({}, None),
        ({"groups": 4, "offset_groups": 2, "mask": True, "bias": True}, None),
        ({"input_size": (2, 8)}, "larger than the padded input"),
        ({"offset_groups": 3}, "divisible by offset_groups"),
        ({"groups": 3}, "divisible by groups"),
        ({"strides": (0, 1)}, "strides must be positive"),
        ({"pass_": "filter_gradient", "bias": True}, "forward pass only"),
        ({"pass_": "input_gradient", "activation": "relu"}, "forward pass only"),
        ({"reserved": 1}, "reserved must be from 0 to 0"),
        ({"input_size": (1 << 15, 1 << 15)}, "below 2^30"),
        ({"input_size": (0, 1 << 40), "padding": ((1, 2), (0, 0))}, "below 2^30"),
        ({"batch": 1 << 24}, "below 2^30"),
        ({"out_channels": 1 << 31}, "below 2^30"),
        ({"in_channels": 1 << 28}, "below 2^30"),
        # More than 2^31 tiles of 32 pixels, a filter in each.
        (
            {
                **{"input_size": (1, 129), "kernel_size": (1, 1)},
                **dict.fromkeys(("in_channels", "out_channels", "groups"), 1 << 29),
            },
            "tiles of 32 x 32",
        ),
        (
            {
                **{"input_size": (1, 33), "kernel_size": (1, 33)},
                **dict.fromkeys(("in_channels", "out_channels", "groups"), 1 << 24),
            },
            None,
        ),
    ],
)
def test_what_is_refused(words, sentence):
    answer = refusal(**words)
    if sentence is None:
        assert answer is None
    else:
        assert sentence in answer


def test_mask_and_bias_are_given_as_said():
    case = CASES["plain"]
    operands = case.operands()
    problem = problem_of("forward", operands, case.options, bias=True)
    given = {"bias": 16, "mask": 16}
    for missing in given:
        arguments = cuda.DeformArguments(**{**given, missing: None})
        answer = library().kconv_cuda_deform_run(
            ctypes.byref(problem), ctypes.byref(arguments), None
        )
        assert b"must be given" in answer


def test_empty_mask_needs_no_address():
    problem = cuda.deform("forward", (4, 4), (3, 3), 4, 4, batch=0, mask=True)
    answer = library().kconv_cuda_deform_run(
        ctypes.byref(problem), ctypes.byref(cuda.DeformArguments()), None
    )
    assert answer is None


def launch_of(pass_, operands, options):
    """The most blocks, threads and bytes of shared memory that are launched."""
    return launch_of_problem(problem_of(pass_, operands, options))


def launch_of_problem(problem):
    launch = (ctypes.c_int64 * 3)()
    error = library().kconv_host_deform_launch(ctypes.byref(problem), launch)
    assert error is None, error
    return tuple(launch)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_pass
def test_every_launch_fits_every_gpu(pass_, dtype):
    for size in (1, 7, 28, 100):
        for channels, groups in ((1, 1), (64, 1), (64, 64), (512, 4), (513, 3)):
            problem = cuda.deform(
                *(pass_, (size, size), (3, 3), channels, channels),
                groups=groups,
                padding=SAME,
                dtype=dtype,
                mask=True,
            )
            blocks, threads, shared = launch_of_problem(problem)
            assert blocks >= 1
            assert 64 <= threads <= 256
            assert shared <= 48 << 10  # what needs no asking for


def test_large_problems_have_blocks_for_a_large_gpu():
    words = {"batch": 2, "padding": SAME}
    for size, channels in (((100, 160), 128), ((50, 80), 256), ((25, 40), 512)):
        for pass_ in PASSES:
            problem = cuda.deform(pass_, size, (3, 3), channels, channels, **words)
            assert launch_of_problem(problem)[0] >= 200


def test_workspace_is_bounded():
    def bytes_of(pass_, batch, **more):
        problem = cuda.deform(
            *(pass_, (200, 320), (3, 3), 256, 256),
            **{"batch": batch, "padding": SAME, "mask": True, **more},
        )
        return library().kconv_cuda_deform_workspace(ctypes.byref(problem))

    for batch in (1, 8):
        samples = batch * 200 * 320 * 9
        image = batch * 200 * 320 * 256 * 4
        assert 24 * samples <= bytes_of("forward", batch) < image
        # Not nine taps of it; beside what a sample needs no more than this.
        assert bytes_of("input_gradient", batch) <= 82 * samples + (68 << 20)
        assert bytes_of("filter_gradient", batch) <= 24 * samples + (65 << 20)


def test_addresses_that_a_gpu_would_fail_at_are_refused():
    case = CASES["plain"]
    problem = problem_of("input_gradient", case.operands(), case.options)
    names = ("input", "filter", "offsets", "mask", "output", "result")
    names = (*names, "offsets_gradient", "mask_gradient", "workspace")
    given = dict.fromkeys(names, 256)
    for name in names:
        for address, words in ((None, b"Received: null"), (258, b"must be aligned")):
            if (name, address) == ("mask", None):
                continue  # the problem has one, as another test tells
            arguments = cuda.DeformArguments(**{**given, name: address})
            answer = library().kconv_cuda_deform_run(
                ctypes.byref(problem), ctypes.byref(arguments), None
            )
            assert words in answer, name
