"""Random problems over all parameters: every algorithm and pass has the same answer."""

import numpy as np
from acceptance import takes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import DTYPES, EPILOGUES, PASSES, Case, magnitude
from reference import assert_accurate
from tiling import is_strict

from kconv import native

core = native.core()
assert core is not None, native.why_missing()

# The same problems on every machine and every run.
repeatable = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@st.composite
def cases(draw):
    """Any small problem that is valid; empty batches and images are."""
    rank = draw(st.integers(1, 3))
    largest = {1: 40, 2: 12, 3: 6}[rank]

    def per_axis(elements):
        return tuple(draw(elements) for _ in range(rank))

    kernel = per_axis(st.integers(1, min(largest, 5)))
    dilation = per_axis(st.integers(1, 3))
    padding = per_axis(st.tuples(st.integers(0, 6), st.integers(0, 6)))
    size = []
    for k, d, pads in zip(kernel, dilation, padding, strict=True):
        smallest = max(1, (k - 1) * d + 1 - sum(pads))
        sizes = st.integers(smallest, max(smallest, largest))
        size.append(draw(st.just(0) | sizes if draw(st.booleans()) else sizes))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 8, 19]))
    most = max(2, 40 // groups)
    return Case(
        tuple(size),
        kernel,
        in_channels=groups * draw(st.integers(1, most)),
        out_channels=groups * draw(st.integers(1, most)),
        batch=draw(st.integers(0, 3)),
        groups=groups,
        strides=per_axis(st.integers(1, draw(st.sampled_from([1, 4])))),
        dilation_rate=dilation,
        padding=padding,
        layout=draw(st.sampled_from(["channels_last", "channels_first"])),
    )


@repeatable
@given(
    case=cases(),
    dtype=st.sampled_from(list(DTYPES)),
    threads=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    epilogue=st.sampled_from([(False, "linear"), *EPILOGUES]),
)
def test_random_problem(case, dtype, threads, seed, epilogue):
    for pass_ in PASSES:
        has_bias, activation = epilogue if pass_ == "forward" else (False, "linear")
        problem = case.problem(core, pass_, dtype, bias=has_bias, activation=activation)
        assert problem.output_shape == case.output_shape
        a, b = case.operands(pass_, dtype, seed)
        exact = case.exact(pass_, a, b)
        plain_sum = case.exact(pass_, np.abs(a), np.abs(b))
        bias = case.bias(dtype, seed) if has_bias else None
        refused = {
            row["algorithm"] for row in problem.explain() if row["refusal"] is not None
        }
        assert "direct" not in refused
        for algorithm in ["auto", "auto:strict", *core.algorithms()]:
            if not algorithm.startswith("auto"):
                assert (algorithm in refused) == (not takes(algorithm, case, dtype))
            if algorithm in refused:
                continue
            for isa in core.isas():
                report = problem.run(
                    a,
                    b,
                    bias=bias,
                    algorithm=algorithm,
                    isa=isa,
                    threads=threads,
                    guard=128,
                )
                ran = report["algorithm"]
                assert ran == algorithm or algorithm.startswith("auto")
                assert report["isa"] == isa
                assert report["guards_intact"]
                assert algorithm != "auto:strict" or is_strict(ran)
                expected = exact, magnitude(ran, case, pass_, a, b, plain_sum)
                if pass_ == "forward":
                    expected = case.finished(expected, bias, activation)
                assert_accurate(report["result"], *expected)
