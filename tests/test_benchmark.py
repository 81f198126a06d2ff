"""What the benchmark times: layers in groups, with strides, and PyTorch's kernels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kconv import cli
from kconv.benchmark import calls, client, layers, report
from kconv.benchmark.layers import Candidate, LayerBenchmark, Measurement
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

TORCH = client.pytorch()[0]
needs_torch = pytest.mark.skipif(
    subprocess.run([TORCH, "-c", "import torch"], capture_output=True).returncode != 0,
    reason="PyTorch is missing",
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
    assert "31x31 28x28 128→128 dw" in str(
        Problem(LAYERS["depthwise"][-1], 1, "forward")
    )


def test_kinds_are_where_they_are_listed():
    for kind, listed in LAYERS.items():
        assert {layer.kind for layer in listed} == {kind}
        assert len(make_problems(kind, [1, 8])) == 2 * 3 * len(listed)


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
    call = calls.stock(problem)
    if problem.layer.kind == "grouped":
        # Uncompiled stock takes groups only with oneDNN.
        call = tf.function(call, jit_compile=True)
    result = call(*calls.stock_operands(problem, operands))
    shapes = dict(
        zip(
            PASSES,
            (problem.output_shape, problem.input_shape, problem.filter_shape),
            strict=True,
        )
    )
    return np.reshape(result, shapes[problem.pass_])


@problems
def test_stock_and_kconv_compute_the_same(problem):
    operands = calls.operands(problem)
    refusal, _, call = calls.kconv(problem, "auto")
    assert refusal is None
    result = call(*operands)
    expected = stock_result(problem, operands)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_stock_that_refuses_is_a_result():
    worker = client.Worker({"TF_ENABLE_ONEDNN_OPTS": "0"}, threads=1)
    problem = Problem(SMALL[7], 1, "input_gradient")
    answer = worker.prepare(problem, Candidate("stock", "graph", "Eigen"))
    assert "not supported" in answer["refusal"]
    answer = worker.prepare(problem, Candidate("stock", layers.XLA))
    assert answer["refusal"] is None
    assert worker.time(Candidate("stock", layers.XLA), 0)
    worker.close()


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


def test_only_settings_of_the_same_are_held_against_one():
    fast, slow = Candidate("stock", "graph"), Candidate("stock", "eager")
    refused = Candidate("stock", layers.XLA)
    answers = {
        fast: {"refusal": None, "seconds": 0.1},
        slow: {"refusal": None, "seconds": 5.0},
        refused: {"refusal": "No."},
    }
    assert layers._limit(slow, answers) == pytest.approx(1.0)
    assert layers._limit(slow, answers, least=2.0) == 2.0
    assert layers._limit(Candidate("auto", "graph"), answers) is None


# Candidates and the report.


@pytest.fixture(scope="module")
def comparison():
    """A layer in groups, measured for real."""
    with LayerBenchmark(["auto"], threads=1, repeats=1, seconds=0) as benchmark:
        measurements = benchmark.measure(Problem(SMALL[7], 2, "forward"))
    modes = {m.candidate.mode for m in measurements if m.candidate.name == "stock"}
    assert modes == {"graph", "eager", layers.XLA}
    return report.Comparison(measurements)


def test_groups_are_compared_with_the_dense_layer(comparison, tmp_path):
    assert list(comparison.references) == ["stock", "dense"]
    assert report.references([comparison]) == ["stock", "dense"]
    assert comparison.ratio("auto", "dense") > 0
    assert comparison.ratio("auto", "torch") is None
    rows = report.rows([comparison])
    assert [row["name"] for row in rows] == ["stock", "dense", "auto"]
    assert {row["kind"] for row in rows} == {"grouped"}
    assert all(row["dense_over_this"] > 0 for row in rows)
    rates = [row["gflops"] * row["seconds"] * 1e9 / 2 for row in rows]
    problem = comparison.problem
    work = [problem.macs, problem.dense.macs, problem.macs]
    np.testing.assert_allclose(rates, work)


def test_depthwise_layers_are_not_compared_with_dense_ones():
    benchmark = object.__new__(LayerBenchmark)
    benchmark._algorithms, benchmark._modes = ["auto"], ["graph"]
    benchmark._engines, benchmark._torch_engines = ["oneDNN"], layers.TORCH_ENGINES
    problem = Problem(SMALL[2], 1, "forward")
    assert benchmark.candidates(problem) == [
        Candidate("stock", "graph", "oneDNN"),
        Candidate("torch", "contiguous", "torch"),
        Candidate("torch", "channels_last", "torch"),
        Candidate("torch", "contiguous", "passive"),
        Candidate("torch", "channels_last", "passive"),
        Candidate("auto", "graph"),
    ]


def test_the_report_does_without_a_reference(comparison, capsys):
    from rich.console import Console

    problem = Problem(SMALL[2], 2, "forward")
    refused = report.Comparison(
        [
            Measurement(problem, Candidate("stock", "graph"), [], refusal="No."),
            Measurement(problem, Candidate("auto", "graph"), [1e-3], choice="direct"),
        ]
    )
    assert refused.ratio("auto") is None
    both = [comparison, refused]
    console = Console(width=200)
    console.print(report.layer_table(both))
    for reference in report.references(both):
        console.print(report.mean_table(both, reference))
    words = capsys.readouterr().out
    assert "6x6 4→4 dw" in words
    assert "refused" in words
    assert "Geometric mean of dense's" in words
    assert report.rows([refused])[1]["stock_over_this"] is None


def test_options_reach_the_benchmark(monkeypatch):
    given = {}
    monkeypatch.setattr(layers, "run", lambda **options: given.update(options))
    assert cli.main(["bench", "layers", "--layers", "depthwise"]) == 0
    assert (given["layers"], given["torch"]) == ("depthwise", False)
    assert cli.main(["bench", "layers", "--torch"]) == 0
    assert (given["torch"], given["torch_python"]) == (True, None)
    assert cli.main(["bench", "layers", "--torch-python", "x/python"]) == 0
    assert (given["torch"], given["torch_python"]) == (True, "x/python")


# PyTorch.


def test_the_interpreter_of_pytorch_can_be_named(monkeypatch):
    monkeypatch.delenv("KCONV_TORCH_PYTHON", raising=False)
    assert client.pytorch()[0] == sys.executable
    monkeypatch.setenv("KCONV_TORCH_PYTHON", "other/python")
    assert client.pytorch()[0] == "other/python"
    assert client.pytorch("third/python")[0] == "third/python"


def test_missing_pytorch_is_one_sentence(tmp_path):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('torch')\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    worker = client.Worker(environment, 1, client.pytorch(sys.executable))
    with pytest.raises(RuntimeError, match="PyTorch is missing: `pip install torch`"):
        worker.environment()
    worker.close()


def test_a_process_that_is_gone_is_told():
    for _ in range(3):
        worker = client.Worker({}, 1, client.pytorch("/bin/true"))
        worker._process.wait()
        with pytest.raises(RuntimeError, match=r"ended.*Received: exit code 0"):
            worker.environment()
        worker.close()


@needs_torch
def test_pytorch_is_timed_in_a_process_of_its_own():
    worker = client.Worker({}, 1, client.pytorch())
    assert "pytorch" in worker.environment()
    problem = Problem(SMALL[4], 2, "filter_gradient")
    for mode in layers.TORCH_MODES:
        candidate = Candidate("torch", mode, "torch")
        answer = worker.prepare(problem, candidate)
        assert (answer["refusal"], answer["choice"]) == (None, "torch")
        assert min(worker.time(candidate, 0)) > 0
        assert candidate.setting == mode
    worker.forget()
    worker.close()


# Reads problems and their tensors, channels first, and writes what the passes give.
SCRIPT = """
import json, sys, torch
from problems import Problem
from pytorch_worker import make_call

results = []
for given in json.load(sys.stdin):
    tensors = iter(given["tensors"])
    call, operands = make_call(
        torch,
        Problem.from_json(given["problem"]),
        given["memory_format"],
        lambda shape: torch.tensor(next(tensors)).reshape(shape),
    )
    results.append(call(*operands).tolist())
print(json.dumps(results))
"""


def torch_results(questions):
    """Runs `SCRIPT`: starting PyTorch takes seconds, so once."""
    folder = Path(client.__file__).parent
    done = subprocess.run(
        [TORCH, "-c", SCRIPT],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    return [np.asarray(result) for result in json.loads(done.stdout)]


@needs_torch
def test_pytorch_computes_the_same():
    questions, expected = [], []
    for layer in SMALL:
        image, kernel = calls.operands(Problem(layer, 2, "forward"))
        gradient, _ = calls.operands(Problem(layer, 2, "input_gradient"))
        orders = ([0, 3, 1, 2], image), ([3, 2, 0, 1], kernel), ([0, 3, 1, 2], gradient)
        tensors = [np.transpose(t, order).ravel().tolist() for order, t in orders]
        for pass_, operands in zip(
            PASSES,
            [(image, kernel), (gradient, kernel), (image, gradient)],
            strict=True,
        ):
            problem = Problem(layer, 2, pass_)
            result = calls.kconv(problem, "auto")[2](*operands)
            for memory_format in ("contiguous_format", "channels_last"):
                questions.append(
                    {
                        "problem": problem.to_json(),
                        "memory_format": memory_format,
                        "tensors": tensors,
                    }
                )
                expected.append((problem, result))
    results = torch_results(questions)
    for (problem, ours), theirs in zip(expected, results, strict=True):
        back = [2, 3, 1, 0] if problem.pass_ == "filter_gradient" else [0, 2, 3, 1]
        theirs = theirs.transpose(back)
        if problem.pass_ == "input_gradient" and theirs.shape != ours.shape:
            inner = slice(problem.layer.pads[0], problem.layer.pads[0] + ours.shape[1])
            theirs = theirs[:, inner, inner]  # it is that by the padded image
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-4, atol=1e-4, err_msg=str(problem)
        )
