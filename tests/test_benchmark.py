"""What the benchmark times: problems, stock's calls and kconv's, and the stopwatch."""

import numpy as np
import pytest
import tensorflow as tf

from kconv.benchmark import calls, race, stock
from kconv.benchmark.candidates import (
    FROZEN,
    MODES,
    NATIVE,
    XLA,
    Candidate,
    Measurement,
    tensorflow_candidates,
)
from kconv.benchmark.problems import LAYERS, PASSES, Layer, Problem, make_problems
from kconv.benchmark.server import Stopwatch

# One of each kind, and uneven "same" padding.
SMALL = [
    Layer(3, 6, 4, 8),
    Layer(3, 7, 4, 4, stride=2),
    Layer(3, 6, 4, 4, groups=4),
    Layer(3, 6, 4, 8, groups=4),
    Layer(3, 6, 4, 4, stride=2, groups=4),
    Layer(5, 6, 4, 4, groups=4),
    Layer(7, 5, 4, 4, groups=4),
    Layer(3, 6, 8, 8, groups=2),
    Layer(1, 6, 6, 6, groups=3),
    Layer(3, 8, 6, 12, stride=2, groups=3),
    Layer(4, 8, 4, 6, stride=2),
    Layer(2, 9, 4, 6, dims=1, dilation=4),
    Layer(3, 5, 4, 6, stride=2, dims=3),
]
problems = pytest.mark.parametrize(
    "problem",
    [Problem(layer, 2, pass_) for layer in SMALL for pass_ in PASSES],
    ids=str,
)


# Problems.


def test_layers_tell_what_they_are():
    strided = Layer(3, 112, 64, 64, stride=2, groups=64)
    assert str(strided) == "112x112 64→64 dw stride 2"
    assert strided.kind == "depthwise"
    grouped = Layer(3, 56, 128, 128, groups=32)
    assert str(grouped) == "56x56 128→128 in 32 groups"
    assert grouped.kind == "grouped"
    assert (grouped.dense.kind, str(grouped.dense)) == ("3x3", "56x56 128→128")
    strided = Layer(4, 64, 64, 128, stride=2)
    assert (strided.kind, str(strided)) == ("strided", "64x64 64→128 stride 2")
    causal = Layer(2, 4096, 32, 64, dims=1, dilation=16)
    assert (causal.kind, str(causal)) == ("1d", "4096 32→64 dilation 16")
    assert (causal.padding, causal.pads) == ("causal", (16, 0))
    volume = Layer(3, 16, 8, 8, dims=3)
    assert (volume.kind, str(volume)) == ("3d", "16x16x16 8→8")
    assert volume.kernel_name == "3x3x3"
    assert all(layer.kind == kind for kind in LAYERS for layer in LAYERS[kind])
    assert "31x31 28x28 128→128 dw" in str(
        Problem(LAYERS["depthwise"][-1], 1, "forward")
    )


def test_problems_come_in_the_order_asked_for():
    problems = make_problems(["3x3"], [8], ["forward"])
    assert len(problems) == 9
    assert problems[0].macs == 8 * 224 * 224 * 9 * 64 * 64
    assert len(make_problems(["all"])) == 2 * 3 * (9 + 9 + 6 + 10 + 3 + 13 + 9 + 5)
    assert Problem.from_json(problems[0].to_json()) == problems[0]
    kinds = ["depthwise", "1x1"]
    layouts = ["channels_first", "channels_last"]
    both = make_problems(kinds, [1], ["forward"], layouts=layouts)
    assert [p.layer.kind for p in both] == ["1x1"] * 18 + ["depthwise"] * 20
    assert [p.layout for p in both[8:10]] == layouts


def test_intensity_counts_each_operand_once():
    problem = Problem(Layer(3, 10, 4, 8), 2, "forward", "bfloat16")
    elements = 2 * 100 * 4 + 9 * 4 * 8 + 2 * 100 * 8
    assert problem.intensity == pytest.approx(2 * 2 * 100 * 9 * 4 * 8 / elements / 2)
    assert problem.arranged((2, 10, 10, 4)) == (2, 10, 10, 4)
    first = Problem(Layer(3, 10, 4, 8), 2, "forward", layout="channels_first")
    assert first.arranged(first.input_shape) == (2, 4, 10, 10)
    assert str(first).endswith("channels_first")


def test_kinds_are_where_they_are_listed():
    for kind, listed in LAYERS.items():
        assert {layer.kind for layer in listed} == {kind}
        assert len(make_problems([kind], [1, 8])) == 2 * 3 * len(listed)


def test_shapes_and_work_count_strides_and_groups():
    problem = Problem(Layer(3, 7, 8, 16, stride=2, groups=4), 5, "forward")
    assert problem.input_shape == (5, 7, 7, 8)
    assert problem.filter_shape == (3, 3, 2, 16)
    assert problem.output_shape == (5, 4, 4, 16)
    assert problem.macs == 5 * 4 * 4 * 16 * 9 * 2
    assert problem.dense.macs == 4 * problem.macs
    depthwise = Problem(Layer(7, 14, 384, 384, groups=384), 1, "forward")
    assert depthwise.filter_shape == (7, 7, 1, 384)
    assert depthwise.macs == 14 * 14 * 384 * 49
    assert Problem.from_json(depthwise.to_json()) == depthwise
    volume = Problem(Layer(3, 7, 8, 16, stride=2, dims=3), 5, "forward")
    assert volume.input_shape == (5, 7, 7, 7, 8)
    assert volume.filter_shape == (3, 3, 3, 8, 16)
    assert volume.output_shape == (5, 4, 4, 4, 16)
    assert volume.macs == 5 * 4**3 * 16 * 27 * 8


@pytest.mark.parametrize("layer", SMALL, ids=str)
def test_pads_give_the_output(layer):
    before, after = layer.pads
    assert 0 <= after - before <= 1 or (layer.padding, after) == ("causal", 0)
    padded = layer.size + before + after
    reach = (layer.kernel - 1) * layer.dilation + 1
    assert (padded - reach) // layer.stride + 1 == layer.output_size


# Calls.


def stock_result(problem, operands):
    """What stock computes, in the shape of kconv's."""
    call = stock.call(problem)
    if problem.layer.kind == "grouped":
        # Uncompiled stock takes groups only with oneDNN.
        call = tf.function(call, jit_compile=True)
    result = call(*stock.operands(problem, operands))
    shapes = {
        "forward": problem.arranged(problem.output_shape),
        "input_gradient": problem.arranged(problem.input_shape),
        "filter_gradient": problem.filter_shape,
    }
    return np.reshape(result, shapes[problem.pass_])


def agree(problem):
    operands = calls.operands(problem)
    refusal, _, call = calls.kconv(problem, "auto")
    assert refusal is None
    result = call(*operands)
    expected = stock_result(problem, operands)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@problems
def test_stock_and_kconv_compute_the_same(problem):
    agree(problem)


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("layer", [SMALL[1], SMALL[4], *SMALL[-2:]], ids=str)
def test_they_compute_the_same_with_the_channels_first(layer, pass_):
    agree(Problem(layer, 2, pass_, layout="channels_first"))


@pytest.mark.parametrize("pass_", ["forward", "input_gradient"])
def test_frozen_graphs_hold_the_kernel_and_compute_the_same(pass_):
    problem = Problem(SMALL[0], 2, pass_)
    tensors = calls.operands(problem)
    for call, operands in (
        (calls.kconv(problem, "direct")[2], tensors),
        (stock.call(problem), stock.operands(problem, tensors)),
    ):
        sequence = calls.in_sequence(call, 3)
        frozen = calls.frozen(sequence, *operands)
        assert frozen.get_concrete_function(operands[0]).captured_inputs == []
        for one, other in zip(frozen(operands[0]), sequence(*operands), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_refusal_is_a_result_of_the_benchmark():
    three = Problem(SMALL[0], 2, "forward")
    one = Problem(Layer(1, 6, 4, 8), 2, "forward")
    for name in ("winograd", "winograd:f4"):
        refusal, choice, call = calls.kconv(one, name)
        assert "2, 3 or 5 taps" in refusal
        assert (choice, call) == ("", None)
        refusal, choice, call = calls.kconv(three, name)
        assert refusal is None
        assert choice.startswith(name)
        assert call(*calls.operands(three)).shape == three.output_shape
    assert calls.kconv(three, "auto:strict")[1] in ("gemm", "direct", "builtin")


# The stopwatch.


def test_a_call_over_the_limit_is_refused(monkeypatch):
    counted = []
    watch = Stopwatch()
    monkeypatch.setattr(Stopwatch, "_HOPELESS", 0)
    answer = watch.prepare("slow", lambda: counted.append(1), (), limit=0)
    assert "was not repeated" in answer["refusal"]
    assert len(counted) == 1
    assert watch.prepare("only", lambda: None, ())["refusal"] is None


def test_the_stopwatch_shares_time_among_the_calls_of_a_sequence():
    counted = []

    def sequence(seconds):
        assert seconds > 0
        return lambda: counted.extend([1] * 5), 5

    watch = Stopwatch()
    watch.prepare("key", lambda: None, (), sequence=sequence)
    times = watch.measure("key", 1e-3)
    assert min(times) > 0
    assert len(counted) == 5 * (2 + len(times))  # prepared, warmed up
    watch.forget()
    with pytest.raises(KeyError):
        watch.measure("key", 0)


def test_graphs_repeat_short_calls():
    assert calls.repetitions(1e-6) == 20
    assert calls.repetitions(2e-3) == 5
    assert calls.repetitions(3.0) == 1


# Candidates.


def test_stock_is_tried_in_all_ways_and_kconv_but_by_xla():
    problem = Problem(SMALL[0], 1, "forward")
    found = tensorflow_candidates(problem, ["auto"])
    assert [c for c in found if c.name == "stock"] == [
        *(Candidate("stock", mode, "oneDNN") for mode in MODES if mode != XLA),
        *(Candidate("stock", mode, "Eigen") for mode in MODES if mode != XLA),
        Candidate("stock", XLA, XLA),
    ]
    assert {c.mode for c in found if c.name == "auto"} == {*MODES} - {XLA}
    assert {c.name for c in found} == {"stock", "auto"}


def test_candidates_depend_on_the_problem():
    def found(layer, pass_, modes=MODES, **rest):
        problem = Problem(layer, 1, pass_, **rest)
        return tensorflow_candidates(problem, ["auto"], modes, ["oneDNN"])

    # There is no filter to freeze.
    gradient = found(SMALL[0], "filter_gradient")
    assert FROZEN not in {c.mode for c in gradient}
    # Keras has XLA compile groups, whoever asks; kconv cannot.
    assert found(SMALL[7], "forward", ["graph"]) == [
        Candidate("stock", "graph", "oneDNN"),
        Candidate("stock", XLA, XLA),
        Candidate("dense", "graph"),
        Candidate("auto", "graph"),
    ]
    assert found(SMALL[2], "forward", [XLA]) == [
        Candidate("stock", XLA, XLA),
        Candidate("auto", "graph"),
    ]
    for layer, expected in ((SMALL[0], True), (SMALL[-1], False)):
        first = found(layer, "forward", ["graph"], layout="channels_first")
        assert (Candidate("stock", NATIVE, "oneDNN") in first) == expected


def test_settings_name_what_is_not_the_default():
    assert Candidate("auto", "graph").setting == "graph"
    assert Candidate("stock", "graph", "oneDNN").setting == "graph, oneDNN"
    assert Candidate("stock", XLA, XLA).setting == "xla"
    assert Candidate("torch", "contiguous", "torch").setting == "contiguous"
    assert Candidate("torch", "contiguous", "passive").setting == "contiguous, passive"


def test_spread_is_half_the_distance_of_the_quartiles():
    def measured(seconds):
        return Measurement(None, Candidate("gemm", "graph"), seconds)

    assert measured([1.0]).spread == 0
    assert measured([2.0, 3.0, 4.0, 5.0, 6.0]).spread == pytest.approx(0.25)


def test_only_settings_of_the_same_are_held_against_one():
    fast, slow = Candidate("stock", "graph"), Candidate("stock", "eager")
    refused = Candidate("stock", XLA)
    answers = {
        fast: {"refusal": None, "seconds": 0.1},
        slow: {"refusal": None, "seconds": 5.0},
        refused: {"refusal": "No."},
    }
    assert race._limit(slow, answers) == pytest.approx(1.0)
    assert race._limit(slow, answers, least=2.0) == 2.0
    assert race._limit(Candidate("auto", "graph"), answers) is None


def test_slow_algorithms_are_not_tried_in_all_modes():
    fast, slow = Candidate("auto", "graph"), Candidate("direct", "graph")
    answers = {
        fast: {"refusal": None, "seconds": 0.01},
        slow: {"refusal": None, "seconds": 0.1},
        Candidate("gemm", "graph"): {"refusal": None, "seconds": 0.02},
        Candidate("grouped", "graph"): {"refusal": "No."},
    }
    names = ["auto", "direct", "gemm", "grouped"]
    beaten = [
        n for n in names if race._is_beaten(Candidate(n, "eager"), answers, names)
    ]
    assert beaten == ["direct"]
    # What is compared with is measured in any case.
    assert not race._is_beaten(Candidate("stock", "eager"), answers, names)
