"""Deformable convolution's GPU kernels by their own steps, against the reference."""

import ctypes
import dataclasses

import numpy as np
import pytest
import reference
from cuda_twin import library, manner
from deform_cases import CASES, PLAIN, SAME, Case, assert_case
from deform_reference import Options, forward, gradients
from problems import DTYPES, EPILOGUES

from kconv import cuda

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
    "sort": Case(
        (40, 41), (1, 3), 4, 4, options=Options(padding=((0, 0), (1, 1)))
    ),
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
