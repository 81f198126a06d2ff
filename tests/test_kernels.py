"""Every algorithm, pass, type and instruction set of the compiled core, forced."""

import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from acceptance import takes
from problems import (
    CASES,
    DTYPES,
    LARGE,
    PASSES,
    SMALL,
    Case,
    judged,
    magnitude,
    naming,
)
from reference import assert_accurate
from tiling import is_strict, outputs_of, spoiled

from kconv import native

core = native.core()
assert core is not None, native.why_missing()

FORCED = list(itertools.product(core.algorithms(), core.isas()))
# Those that round as a plain sum.
STRICT = [(name, isa) for name, isa in FORCED if is_strict(name)]
HALF_TYPES = ("bfloat16", "float16")

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_pass = pytest.mark.parametrize("pass_", PASSES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_strict_kernel = pytest.mark.parametrize(("algorithm", "isa"), STRICT)


def refusal(problem, algorithm):
    """The sentence of a refusal, or None."""
    (row,) = (r for r in problem.explain() if r["algorithm"] == algorithm)
    return row["refusal"]


def run(problem, a, b, algorithm, isa, **options):
    """Runs a kernel, checks that it was the one asked for; None where it refuses."""
    sentence = refusal(problem, algorithm)
    if sentence is not None:
        with pytest.raises(ValueError) as error:
            problem.run(a, b, algorithm=algorithm, isa=isa, **options)
        assert sentence in str(error.value)
        return None
    report = problem.run(a, b, algorithm=algorithm, isa=isa, **options)
    assert (report["algorithm"], report["isa"]) == (algorithm, isa)
    assert report["guards_intact"]
    assert report["result"].dtype == DTYPES[problem.dtype]
    return report["result"]


# Results.


# All kernels in one test of a problem: the reference is by far the slowest of them.


@every_dtype
@every_pass
@every_case
def test_result_is_accurate(case, pass_, dtype):
    (a, b), _ = judged(case, pass_, dtype)
    problem = case.problem(core, pass_, dtype)
    for algorithm, isa in FORCED:
        with naming(algorithm, isa):
            result = run(problem, a, b, algorithm, isa, guard=64)
            if result is not None:
                expected = judged(case, pass_, dtype, algorithm=algorithm)[1]
                assert_accurate(result, *expected)


@every_case
def test_who_may_refuse(case):
    for pass_, dtype in itertools.product(PASSES, DTYPES):
        problem = case.problem(core, pass_, dtype)
        for algorithm in core.algorithms():
            with naming(pass_, dtype, algorithm):
                accepted = refusal(problem, algorithm) is None
                assert accepted == takes(algorithm, case, dtype)


# Rows and taps of the cases for those that are strict, and for those with tiles.
EDGES = {
    "strict": ((*range(1, 9), 13), (1, 2)),
    "winograd": ((1, 4, 6, 7, 13), (3, 5)),
    "fft": ((1, 6, 13), (9,)),
}


@pytest.mark.parametrize("kind", EDGES)
@every_dtype
@every_pass
def test_edges_of_register_tiles(pass_, dtype, kind):
    columns = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 49, 63, 64, 65, 81]
    kernels = [
        (name, isa)
        for name, isa in FORCED
        if (kind == "strict" if is_strict(name) else name.split(":")[0] == kind)
    ]
    for rows, n, taps in itertools.product(EDGES[kind][0], columns, EDGES[kind][1]):
        pads = ((taps - 1, 0),)
        case = {
            "forward": Case((rows,), (taps,), 3, n, padding=pads),
            "input_gradient": Case((rows,), (taps,), n, 3, padding=pads),
            "filter_gradient": Case((3,), (taps,), rows, n, padding=pads),
        }[pass_]
        problem = case.problem(core, pass_, dtype)
        a, b = case.operands(pass_, dtype)
        exact = case.exact(pass_, a, b)
        plain_sum = case.exact(pass_, np.abs(a), np.abs(b))
        for algorithm, isa in kernels:
            with naming(algorithm, isa, case):
                result = run(problem, a, b, algorithm, isa, guard=64)
                if result is not None:
                    error = magnitude(algorithm, case, pass_, a, b, plain_sum)
                    assert_accurate(result, exact, error)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@every_pass
@every_case
def test_same_bits_for_any_number_of_threads(case, pass_, dtype):
    problem = case.problem(core, pass_, dtype)
    a, b = case.operands(pass_, dtype)
    for algorithm, isa in FORCED:
        with naming(algorithm, isa):
            results = [
                run(problem, a, b, algorithm, isa, threads=threads, guard=4096)
                for threads in (1, 2, 5)
            ]
            if results[0] is not None:
                assert len({result.tobytes() for result in results}) == 1


@every_dtype
@every_pass
def test_operands_need_no_alignment(pass_, dtype):
    case = SMALL["2d_same"]
    problem = case.problem(core, pass_, dtype)
    size = np.dtype(DTYPES[dtype]).itemsize
    for (algorithm, isa), skip in itertools.product(FORCED, (1, 3)):
        if refusal(problem, algorithm) is not None:
            continue
        (a, b), expected = judged(case, pass_, dtype, algorithm=algorithm)
        a, b = (shifted(v, skip) for v in (a, b))
        with naming(algorithm, isa, skip):
            result = run(problem, a, b, algorithm, isa, guard=skip * size)
            assert_accurate(result, *expected)


def shifted(array, skip):
    """A copy that begins `skip` elements after an aligned address."""
    room = np.empty(array.size + skip, array.dtype)
    room[skip:] = array.ravel()
    return room[skip:].reshape(array.shape)


@every_pass
@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
def test_nan_and_infinity_go_where_their_windows_are(case, pass_):
    problem = case.problem(core, pass_)
    a, b = case.operands(pass_)
    places = {0, a.size // 2, a.size - 1} if a.size else ()
    for place, poison in itertools.product(places, (np.nan, np.inf)):
        poisoned = a.copy()
        poisoned.flat[place] = poison
        with np.errstate(invalid="ignore"):
            exact = case.exact(pass_, poisoned, b)
        for algorithm, isa in FORCED:
            with naming(algorithm, isa, place, poison):
                result = run(problem, poisoned, b, algorithm, isa)
                if result is not None:
                    assert_poisoned(result, exact, case, pass_, algorithm, place)


def assert_poisoned(result, exact, case, pass_, algorithm, place):
    """Holds what is finite against the reference, and the rest to its places."""
    (a, _), (_, error) = judged(case, pass_, "float32", algorithm=algorithm)
    lost = hit = ~np.isfinite(exact)
    if not is_strict(algorithm):
        # With them all outputs of a tile may be lost.
        lost = spoiled(algorithm, case, pass_, np.unravel_index(place, a.shape))
        assert not (hit & ~lost).any()
        assert not np.isfinite(result[hit]).any()
    else:
        assert_same_values(result[hit], exact[hit])
    kept = (np.where(lost, 0, v) for v in (result, exact, error))
    assert_accurate(*kept)


@every_strict_kernel
@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_every_half_value_is_read_and_stored(dtype, algorithm, isa):
    values = np.arange(2**16, dtype=np.uint16).view(DTYPES[dtype])
    case = Case((2**16,), (1,), 1, 1)
    one = np.ones(case.filter_shape, DTYPES[dtype])
    problem = case.problem(core, "forward", dtype)
    result = run(problem, values.reshape(case.input_shape), one, algorithm, isa)
    if result is not None:
        assert_same_values(result.ravel(), values)


@every_strict_kernel
@pytest.mark.parametrize("dtype", HALF_TYPES)
def test_half_types_round_to_nearest_even(dtype, algorithm, isa):
    # Each value plus parts of the gap to its neighbours, ties among them: the float32
    # sum is rounded to the half type once.
    values = np.arange(2**16, dtype=np.uint16).view(DTYPES[dtype])
    digits = {"bfloat16": 8, "float16": 11}[dtype]
    case = Case((2**17,), (2,), 1, 1, strides=(2,))
    problem = case.problem(core, "forward", dtype)
    one = np.ones(case.filter_shape, DTYPES[dtype])
    for part in (1.0, 0.5, -0.5, 0.75):
        with np.errstate(all="ignore"):
            gaps = (values.astype(np.float32) * part * 2.0**-digits).astype(
                values.dtype
            )
            expected = values.astype(np.float32) + gaps.astype(np.float32)
            expected = expected.astype(values.dtype)
        pairs = np.stack([values, gaps], axis=-1).reshape(case.input_shape)
        result = run(problem, pairs, one, algorithm, isa)
        if result is not None:
            assert_same_values(result.ravel(), expected)


def assert_same_values(a, b):
    """NaN is NaN, which assert_array_equal alone does not know of bfloat16."""
    np.testing.assert_array_equal(a.astype(np.float32), b.astype(np.float32))


def test_runs_side_by_side():
    def one(name, pass_, algorithm):
        case = SMALL[name]
        (a, b), _ = judged(case, pass_, "float32")
        problem = case.problem(core, pass_)
        return [run(problem, a, b, algorithm, isa, threads=2) for isa in core.isas()]

    names = ["2d_same", "3d_all", "2d_1x1_channels_first"]
    jobs = list(itertools.product(names, PASSES, core.algorithms())) * 5
    alone = [one(*job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: one(*job), jobs))
    np.testing.assert_equal(together, alone)


# What a problem says of itself.


@every_case
def test_problem_describes_itself(case):
    for pass_ in PASSES:
        problem = case.problem(core, pass_, "bfloat16")
        assert (problem.pass_, problem.dtype) == (pass_, "bfloat16")
        assert problem.layout == case.layout
        assert problem.input_shape == case.input_shape
        assert problem.filter_shape == case.filter_shape
        assert problem.output_shape == case.output_shape
        terms = np.prod(case.filter_shape[:-1], dtype=float)
        assert problem.macs == np.prod(case.output_shape, dtype=float) * terms


@every_pass
@every_case
def test_auto_takes_the_cheapest(case, pass_):
    problem = case.problem(core, pass_)
    for isa in core.isas():
        rows = problem.explain(isa)
        assert [row["algorithm"] for row in rows] == core.algorithms()
        for row in rows:
            if row["refusal"] is None:
                assert row["seconds"] >= 0
                assert row["workspace"] >= 0
            else:
                assert row["refusal"].endswith(".")
                assert row["seconds"] is row["workspace"] is None
        accepted = [row for row in rows if row["refusal"] is None]
        best = min(accepted, key=lambda row: row["seconds"])["algorithm"]
        assert problem.choose(isa) == best
        strict = [row for row in accepted if row["is_strict"]]
        names = {row["algorithm"] for row in strict}
        assert names == {name for name, _ in STRICT if name in names}
        assert problem.choose(isa, "auto:strict") in names
        report = problem.run(*case.operands(pass_), isa=isa)
        assert (report["algorithm"], report["isa"]) == (best, isa)
    assert problem.choose() == problem.choose(core.isas()[-1])


@every_dtype
@every_pass
@pytest.mark.parametrize("groups", [1, 16])
def test_workspace_has_a_bound(groups, pass_, dtype):
    # 1 MiB for each thread. Beside it, whatever the image: the filter gradient's
    # slices, at most 32 partial results of blocks of 192 x 256 sums, or the packed
    # filter, at most 64 MiB.
    partial_sums = 32 * 192 * 256 * (8 if dtype == "float64" else 4)
    bound = 2**20 + (partial_sums if pass_ == "filter_gradient" else 2**26)

    def workspace(size, channels, kernel):
        case = Case((size,) * 2, kernel, channels, channels, 8, groups)
        rows = case.problem(core, pass_, dtype).explain()
        return {row["algorithm"]: row["workspace"] for row in rows}

    for channels, taps in itertools.product((16, 64, 512, 2048), (1, 3, 7)):
        sizes = (8, 32, 256, 1024, 4096)
        of_size = {size: workspace(size, channels, (taps, taps)) for size in sizes}
        for of_algorithm in of_size.values():
            of_algorithm.pop("fft")  # in test_fft.py: by the lengths that it takes
        assert of_size[4096] == of_size[1024]
        for of_algorithm in of_size.values():
            assert max(of_algorithm["direct"], of_algorithm["gemm"]) <= bound
            # Winograd's: the frequencies of some tiles, and partial filters.
            for algorithm, most in of_algorithm.items():
                if outputs_of(algorithm) and most is not None:
                    assert most <= 2**28


# Instruction sets.

IN_A_FRESH_PROCESS = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("kconv._core", sys.argv[1])
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
import numpy
problem = core.Problem("forward", (4, 4), (3, 3), 2, 3)
x, w = (numpy.ones(s, "float32") for s in (problem.input_shape, problem.filter_shape))
refused = []
for isa in ("sse2", "portable", "avx2", "avx512"):
    try:
        problem.run(x, w, isa=isa)
    except ValueError as error:
        assert "Received: " in str(error)
        refused.append(isa)
print(json.dumps({
    "isas": core.isas(),
    "best": core.cpu_info()["isa"],
    "ran": problem.run(x, w)["isa"],
    "refused": refused,
    "tensorflow": any("tensorflow" in name for name in sys.modules),
}))
"""


def in_a_fresh_process(limit):
    environment = {k: v for k, v in os.environ.items() if k != "KCONV_MAX_ISA"}
    if limit is not None:
        environment["KCONV_MAX_ISA"] = limit
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, core.__file__],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_environment_lowers_the_instruction_set():
    every = in_a_fresh_process(None)["isas"]
    assert every in (["portable"], ["sse2", "avx2", "avx512"][: len(every)])
    # A name that does not exist, or that this machine does not reach, lowers nothing.
    limits = {None: every, "": every, "neon": every, "avx512": every}
    limits |= {isa: every[: i + 1] for i, isa in enumerate(every)}
    for limit, isas in limits.items():
        found = in_a_fresh_process(limit)
        assert found["isas"] == isas
        assert found["best"] == found["ran"] == isas[-1]
        names = ("sse2", "portable", "avx2", "avx512")
        assert found["refused"] == [isa for isa in names if isa not in isas]
        assert not found["tensorflow"]


def test_cpu_info():
    info = core.cpu_info()
    assert info["isa"] == core.isas()[-1]
    assert 2**12 <= info["l1d"] <= info["l2"] <= info["l3"] < 2**40
    assert 1e8 < info["frequency"] < 1e11


def test_version():
    import kconv

    assert core.__version__ == kconv.__version__


# Bad input.

GOOD = {
    "pass_": "forward",
    "input_size": (5, 6),
    "kernel_size": (3, 2),
    "in_channels": 4,
    "out_channels": 6,
}

BAD = {
    "unknown pass": {"pass_": "backward"},
    "unknown layout": {"layout": "NHWC"},
    "unknown dtype": {"dtype": "int32"},
    "no dimensions": {"input_size": (), "kernel_size": ()},
    "four dimensions": {"input_size": (3,) * 4, "kernel_size": (1,) * 4},
    "kernel of another rank": {"kernel_size": (3,)},
    "strides of another rank": {"strides": (1, 1, 1)},
    "dilation of another rank": {"dilation_rate": (1,)},
    "padding of another rank": {"padding": ((0, 0),)},
    "negative size": {"input_size": (5, -1)},
    "empty kernel": {"kernel_size": (3, 0)},
    "negative kernel": {"kernel_size": (-3, 2)},
    "zero stride": {"strides": (0, 1)},
    "negative stride": {"strides": (1, -2)},
    "most negative stride": {"strides": (1, -(2**63))},
    "zero dilation": {"dilation_rate": (1, 0)},
    "negative dilation": {"dilation_rate": (-1, 1)},
    "negative padding": {"padding": ((0, 0), (0, -1))},
    "no channels": {"in_channels": 0},
    "negative channels": {"in_channels": -4},
    "no filters": {"out_channels": 0},
    "negative batch": {"batch": -1},
    "no groups": {"groups": 0},
    "negative groups": {"groups": -2},
    "channels do not divide": {"groups": 3},
    "filters do not divide": {"groups": 4},
    "kernel beyond image": {"kernel_size": (6, 2)},
    "kernel beyond padded image": {"kernel_size": (9, 2), "padding": ((2, 1), (0, 0))},
    "dilated kernel beyond image": {"dilation_rate": (3, 1)},
    "padding overflows": {"padding": ((2**62, 2**62), (0, 0))},
    "padding and size overflow": {"padding": ((2**63 - 1, 0), (0, 0))},
    "dilation overflows": {"dilation_rate": (2**62, 1), "kernel_size": (5, 2)},
    "input overflows": {"input_size": (2**31, 2**31)},
    "one axis overflows": {"input_size": (2**62, 6)},
    "batch overflows": {"batch": 2**62},
    "channels overflow": {"in_channels": 2**62},
    "filter overflows": {"in_channels": 2**31, "out_channels": 2**31},
    "sizes beside an empty axis overflow": {
        "input_size": (2**40, 0),
        "batch": 2**40,
    },
    "output overflows": {"in_channels": 1, "out_channels": 2**46, "batch": 2**12},
}


@pytest.mark.parametrize("change", BAD.values(), ids=BAD)
def test_bad_problem(change):
    for pass_ in PASSES:
        with pytest.raises(ValueError, match=r"\. Received: .+"):
            core.Problem(**{**GOOD, "pass_": pass_, **change})


def test_sizes_beyond_64_bits():
    for name in ("in_channels", "out_channels", "batch", "groups"):
        for value in (2**63, -(2**64), 2.5, "4", None):
            with pytest.raises((ValueError, TypeError)):
                core.Problem(**{**GOOD, name: value})


def test_sizes_beyond_32_bits_need_no_memory():
    for pass_, dtype in itertools.product(PASSES, DTYPES):
        problem = core.Problem(
            pass_, (2**33, 5), (3, 1), 2, 3, batch=2**20, padding=((1, 1), (0, 0))
        )
        assert problem.input_shape == (2**20, 2**33, 5, 2)
        assert problem.output_shape == (2**20, 2**33, 5, 3)
        assert problem.macs == 2.0**53 * 5 * 3 * 3 * 2
        rows = [row for row in problem.explain() if row["refusal"] is None]
        assert len(rows) >= 2
        assert all(row["seconds"] > 1e3 and row["workspace"] < 2**40 for row in rows)
        x, w = np.zeros((1, 3, 5, 2), DTYPES[dtype]), np.zeros((3, 1, 2, 3))
        with pytest.raises((ValueError, TypeError)):
            problem.run(x, w)


def test_bad_run():
    case = Case((5, 6), (3, 2), 4, 6)
    x, w = case.operands("forward")
    problem = case.problem(core, "forward")
    absent = next(i for i in ("avx512", "portable") if i not in core.isas())
    for a, b in (
        (x[0], w),
        (x, w[..., :5]),
        (x[:, :4], w),
        (np.zeros((0, *x.shape[1:]), x.dtype), w),
        (w, x),
        (x.astype(np.float64), w),
        (x, w.astype(np.float16)),
        (x.astype(">f4"), w),
        (x.astype(np.int32), w),
        (np.asfortranarray(x), w),
        (np.repeat(x, 2, axis=2)[:, :, ::2], w),
        (np.broadcast_to(x[:, :, :, :1], x.shape), w),
        (x.tolist(), w),
        (None, w),
    ):
        with pytest.raises((ValueError, TypeError)):
            problem.run(a, b)
    for options in (
        {"algorithm": "fastest"},
        {"algorithm": ""},
        {"isa": "neon"},
        {"isa": absent},
        {"threads": 0},
        {"threads": -1},
        {"guard": -1},
    ):
        with pytest.raises(ValueError, match=r"\. Received: .*"):
            problem.run(x, w, **options)
    with pytest.raises(ValueError, match="Received: "):
        problem.explain("neon")
    assert problem.run(x, w)["guards_intact"]


def test_operands_are_only_read():
    case = LARGE["many_images"]
    for pass_ in PASSES:
        (a, b), _ = judged(case, pass_, "float32")
        before = a.copy(), b.copy()
        for operand in (a, b):
            operand.setflags(write=False)
        for algorithm, isa in FORCED:
            run(case.problem(core, pass_), a, b, algorithm, isa, threads=2)
        np.testing.assert_equal((a, b), before)
