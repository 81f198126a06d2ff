"""The processes of the benchmark, started for real: measuring, refusing, failing."""

import sys

import numpy as np
import pytest

from kconv.benchmark import client, machine, report
from kconv.benchmark.candidates import MODES, NATIVE, XLA, Candidate
from kconv.benchmark.problems import Layer, Problem
from kconv.benchmark.race import LayerBenchmark

SMALL = Layer(3, 6, 4, 8)
GROUPED = Layer(3, 6, 8, 8, groups=2)


def python(program):
    """The command line of a worker that is a few lines."""
    return sys.executable, "-c", program


@pytest.fixture(scope="module")
def benchmark():
    """Starting TensorFlow takes seconds: so once, and without Eigen."""
    with LayerBenchmark(
        ["auto"], engines=["oneDNN"], threads=1, repeats=1, seconds=0
    ) as benchmark:
        yield benchmark


@pytest.fixture(scope="module")
def grouped(benchmark):
    return benchmark.measure(Problem(GROUPED, 2, "forward"))


def test_all_ways_are_measured(grouped):
    refused = [m.refusal for m in grouped if m.refusal]
    assert refused == []
    ways = {(m.candidate.name, m.candidate.mode) for m in grouped}
    plain = {*MODES} - {XLA}
    assert ways == {
        *(("stock", mode) for mode in MODES),
        *((name, mode) for name in ("dense", "auto") for mode in plain),
    }
    assert all(m.median > 0 for m in grouped)


def test_stocks_best_names_its_implementation(grouped):
    comparison = report.Comparison(grouped)
    assert comparison.stock.choice.split()[0] in ("oneDNN", "Eigen", "XLA")
    others = [m for m in grouped if m.candidate.name == "stock"]
    assert sum(m.choice == "stock" for m in others) == len(others) - 1


def test_groups_are_compared_with_the_dense_layer(grouped):
    comparison = report.Comparison(grouped)
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


def test_implementations_are_told_by_a_process_that_is_not_timed(benchmark):
    problem = Problem(SMALL, 1, "input_gradient")
    for mode in ("eager", "frozen"):
        candidate = Candidate("stock", mode, "oneDNN")
        assert benchmark._implementation(problem, candidate).startswith("oneDNN ")
    assert benchmark._implementation(problem, Candidate("stock", XLA, XLA)) == "XLA"
    eigen = Candidate("stock", "graph", "Eigen")
    assert benchmark._implementation(problem, eigen) == "Eigen"
    assert benchmark._teller not in benchmark._workers.values()


def test_stock_that_refuses_is_a_result(benchmark):
    # oneDNN knows no float64, and Eigen no groups.
    candidate = Candidate("stock", "graph", "oneDNN")
    worker = benchmark._workers["oneDNN"]
    problem = Problem(GROUPED, 1, "input_gradient", "float64")
    assert worker.prepare(problem, candidate)["refusal"]
    problem = Problem(GROUPED, 1, "input_gradient", layout="channels_first")
    for mode in ("graph", NATIVE):
        candidate = Candidate("stock", mode, "oneDNN")
        assert worker.prepare(problem, candidate)["refusal"] is None
        assert worker.time(candidate, 0)
    worker.forget()


def test_the_process_describes_and_watches_itself(benchmark, monkeypatch):
    monkeypatch.setattr(machine, "_SIDE", 64)
    monkeypatch.setattr(machine, "_LEAST_BYTES", 1 << 20)
    monkeypatch.setattr(machine, "_CACHES", 0)
    assert benchmark.environment()["threads"] == 1
    watch = benchmark.watch()
    for _ in range(4):
        watch.sample()
    assert watch.verdict().spread > 0
    measured = benchmark.machine()
    assert measured.flops > 1e6
    assert measured.bandwidth > 1e6


def test_worker_answers_errors_and_lives_on(benchmark):
    worker = benchmark._workers["default"]
    with pytest.raises(RuntimeError, match="KeyError"):
        worker.time(Candidate("gemm", "graph"), 0.01)
    assert worker.environment()["threads"] == 1


def test_worker_that_fails_says_why():
    worker = client.Worker({}, 1, python("import sys; sys.exit('nonsense')"))
    with pytest.raises(RuntimeError, match="nonsense"):
        worker.environment()
    worker.close()


def test_a_process_that_is_gone_is_told():
    for _ in range(3):
        worker = client.Worker({}, 1, ("/bin/true",))
        worker._process.wait()
        with pytest.raises(RuntimeError, match=r"ended.*Received: exit code 0"):
            worker.environment()
        worker.close()


def test_a_process_that_is_interrupted_was_so_for_both():
    program = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    worker = client.Worker({}, 1, python(program))
    worker._process.wait()
    with pytest.raises(KeyboardInterrupt):
        worker.environment()
    worker.close()


# Hangs where it is told to prepare, as a compiler may.
HANGING = """
import json, sys, time
for line in sys.stdin:
    if json.loads(line)["do"] == "prepare":
        time.sleep(600)
    print(json.dumps({"alive": True}), flush=True)
"""


def test_a_process_that_does_not_answer_is_replaced():
    worker = client.Worker({}, 1, python(HANGING))
    candidate = Candidate("stock", XLA, XLA)
    with pytest.raises(TimeoutError, match=r"No answer came in 0\.2 s"):
        worker.prepare(Problem(SMALL, 1, "forward"), candidate, patience=0.2)
    worker.forget()  # which it has
    assert worker.environment() == {"alive": True}
    worker.close()


def test_whoever_shared_a_process_that_is_ended_is_prepared_again():
    class Shared:
        prepared = ()

        def prepare(self, problem, candidate, limit, patience):
            assert patience > 0
            if candidate.mode == "eager":
                Shared.prepared = ()
                raise TimeoutError("No answer.")
            Shared.prepared += (candidate.mode,)
            return {"refusal": None, "choice": "stock", "seconds": 1.0}

    benchmark = object.__new__(LayerBenchmark)
    benchmark._algorithms, benchmark._found = [], {}
    benchmark._modes, benchmark._engines = ["graph", "eager", "frozen"], ["Eigen"]
    benchmark._workers = {"Eigen": Shared()}
    answers = benchmark._prepare(Problem(SMALL, 1, "forward"))
    refusals = {c.mode: answer["refusal"] for c, answer in answers.items()}
    assert refusals == {"graph": None, "eager": "No answer.", "frozen": None}
    assert Shared.prepared == ("frozen", "graph")


def test_a_process_in_the_midst_of_something_is_not_waited_for():
    worker = client.Worker({}, 1, python("import time; time.sleep(600)"))
    worker.close()
    assert worker._process.returncode < 0  # a signal
