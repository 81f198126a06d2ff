"""Whole models in the benchmark: what is timed, who takes turns, what is told."""

import csv
import json
import pathlib

import keras
import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf

from kconv import cli, layers
from kconv.benchmark import (
    model_calls,
    model_references,
    model_report,
    model_worker,
    models,
)
from kconv.benchmark.candidates import Candidate, Measurement
from kconv.benchmark.models import Memory, ModelBenchmark, Result
from kconv.benchmark.subjects import PREDICT, TRAIN, Subject

MADE = {"macs": 10, "parameters": 5, "difference": 0.0}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A small model in a file, and its subject."""
    folder = tmp_path_factory.mktemp("model")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ],
        name="small",
    )
    model.save(folder / "small.keras")
    return Subject(str(folder / "small.keras"), PREDICT, 2, folder=str(folder))


def of(subject, **changes):
    return Subject(**{**subject.to_json(), **changes})


# What is timed.


def test_both_models_of_a_file_compute_the_same(saved):
    stock, own = model_calls.make(saved)
    assert type(stock.layers[0]) is keras.layers.Conv2D
    assert type(own.layers[0]) is layers.Conv2D
    images = model_calls.arguments(stock, saved)
    assert [tuple(one.shape) for one in images] == [(2, 8, 8, 3)]
    np.testing.assert_allclose(stock(*images), own(*images), atol=1e-5)


def test_models_by_name_have_the_size_layout_and_dtype_that_are_asked_for():
    subject = Subject("mobilenet_v2", PREDICT, 1, 32, "mixed_bfloat16")
    stock, own = model_calls.make(subject)
    assert stock.input_shape == own.input_shape == (None, 32, 32, 3)
    assert {one.dtype_policy.name for one in own.layers} == {"mixed_bfloat16"}
    np.testing.assert_array_equal(stock.get_weights()[0], own.get_weights()[0])
    assert keras.config.dtype_policy().name == "float32"
    stock, own = model_calls.make(
        Subject("lenet5", PREDICT, 1, 32, layout="channels_first")
    )
    assert own.input_shape == (None, 3, 32, 32)
    assert keras.config.image_data_format() == "channels_last"


def test_the_dtype_of_a_file_can_be_another(saved):
    _, own = model_calls.make(of(saved, dtype="mixed_float16"))
    assert own.layers[0].compute_dtype == "float16"
    step = model_calls.call(own, of(saved, pass_=TRAIN), "graph")
    assert np.isfinite(step())


@pytest.mark.parametrize("mode", ["eager", "graph", "frozen", "prepared", "xla"])
def test_every_mode_predicts(saved, mode):
    stock, own = model_calls.make(saved)
    expected = stock(*model_calls.arguments(stock, saved), training=False)
    model = stock if mode == "xla" else own
    result = model_calls.call(model, saved, mode)()
    np.testing.assert_allclose(tf.nest.flatten(result)[0], expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_training_step_changes_weights_as_stock_does(saved, mode):
    subject = of(saved, pass_=TRAIN)
    both = model_calls.make(subject)
    before = [model.get_weights() for model in both]
    losses = [model_calls.call(model, subject, mode)() for model in both]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert losses[0] > 0
    moved = [
        [now - then for now, then in zip(model.get_weights(), old, strict=True)]
        for model, old in zip(both, before, strict=True)
    ]
    for theirs, ours in zip(*moved, strict=True):
        assert np.abs(theirs).max() > 0
        np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-6)


def test_models_without_sizes_need_one(tmp_path):
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(2, 3)])
    model.save(tmp_path / "open.keras")
    subject = Subject(str(tmp_path / "open.keras"), PREDICT, 2)
    with pytest.raises(ValueError, match="--size is needed"):
        model_calls.arguments(model, subject)
    [images] = model_calls.arguments(model, of(subject, size=9))
    assert images.shape == (2, 9, 9, 3)


# The worker.


def test_a_worker_makes_models_times_them_and_measures_memory(saved, tmp_path):
    server = model_worker.Server.__new__(model_worker.Server)
    server._operands, server._models = {}, {}
    server._stopwatch = model_worker.worker.Stopwatch()
    subject = of(saved, folder=str(tmp_path)).to_json()
    made = server.make(dict(subject))
    assert made["macs"] == 2 * (36 * 27 * 4 + 144 * 3)
    assert made["difference"] < 1e-5
    assert made["shapes"] == [[2, 8, 8, 3]]
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"stock.keras", "kconv.keras", "frozen.pb"}
    candidate = Candidate("kconv", "graph").to_json()
    answer = server.prepare(subject, candidate)
    assert answer["refusal"] is None
    assert min(server.time(candidate, 0)["seconds"]) > 0
    memory = server.memory(subject, candidate, 2)
    assert 0 < memory["start"] <= memory["peak"]
    assert server.forget() == {}
    with pytest.raises(KeyError):
        server.time(candidate, 0)


def test_what_stock_refuses_is_a_result(saved, monkeypatch):
    server = model_worker.Server.__new__(model_worker.Server)

    def fail(*arguments):
        raise tf.errors.UnimplementedError(None, None, "No such kernel.\nMore.")

    monkeypatch.setattr(server, "_model_call", fail, raising=False)
    candidate = Candidate("stock", "graph").to_json()
    answer = server.prepare(saved.to_json(), candidate)
    assert answer["refusal"] == "No such kernel."
    with pytest.raises(tf.errors.UnimplementedError):
        server.prepare(saved.to_json(), candidate | {"name": "kconv"})


# Turns.


SECONDS = {"graph": 2.0, "frozen": 2.2, "eager": 9.0, "xla": 2.5, "prepared": 0.5}


class FakeWorker:
    """Answers as a process does: kconv in half of `SECONDS`, everything else in them.

    `asked` has the candidates that were timed, by all processes.
    """

    asked, pid = (), 0

    def __init__(self, environment, threads, command=None):
        self.engine = environment.get("TF_ENABLE_ONEDNN_OPTS")

    def make(self, subject):
        return MADE

    def multiply(self, size, count):
        return [1e-3] * count

    def prepare(self, subject, candidate, limit, patience):
        if candidate.mode == "xla" and self.engine == "0":
            raise TimeoutError
        return {"refusal": None, "choice": "", "seconds": seconds_of(candidate)}

    def time(self, candidate, seconds):
        FakeWorker.asked += (candidate,)
        return [seconds_of(candidate)]

    def memory(self, subject, candidate, calls, patience):
        return {"start": 100, "built": 110, "peak": 220 if self.engine == "1" else 200}

    def forget(self):
        pass

    close = forget


def seconds_of(candidate):
    return SECONDS[candidate.mode] / (2 if candidate.name == "kconv" else 1)


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.setattr(FakeWorker, "asked", ())
    with ModelBenchmark(repeats=3, make_worker=FakeWorker) as made:
        yield made


def test_candidates_take_turns_and_slow_ones_drop_out(benchmark):
    result = benchmark.measure(Subject("lenet5", PREDICT, 8))
    assert result.best("kconv").candidate == Candidate("kconv", "prepared", "oneDNN")
    assert result.best("stock").candidate == Candidate("stock", "graph", "oneDNN")
    assert result.ratio() == 8.0
    times = {m.candidate: len(m.seconds) for m in result.measurements}
    assert times[Candidate("stock", "graph", "Eigen")] == 3
    # Four and a half times slower: called once.
    assert times[Candidate("stock", "eager", "oneDNN")] == 1
    assert Candidate("stock", "eager", "oneDNN") not in FakeWorker.asked
    # Twice as slow as another setting of kconv's: in the first turn only.
    assert times[Candidate("kconv", "graph", "oneDNN")] == 1
    # Turns go to and fro.
    racing = [Candidate("stock", "graph", engine) for engine in ("oneDNN", "Eigen")]
    order = [c for c in FakeWorker.asked if c in racing]
    assert order == [*racing, *reversed(racing), *racing]


def test_patience_ends_what_compiles_for_ever(benchmark):
    result = benchmark.measure(Subject("lenet5", TRAIN, 8))
    refusals = {m.candidate: m.refusal for m in result.measurements}
    assert "not ready" in refusals[Candidate("stock", "xla", "Eigen")]
    assert refusals[Candidate("stock", "xla", "oneDNN")] is None
    assert not any(c.mode in ("frozen", "prepared") for c in refusals)
    assert not any((c.name, c.mode) == ("kconv", "xla") for c in refusals)


def test_memory_is_that_of_the_fastest_and_of_graphs(benchmark):
    result = benchmark.measure(Subject("lenet5", TRAIN, 8))
    benchmark.measure_memory(result)
    assert {(c.name, c.mode, c.engine) for c in result.memory} == {
        (name, "graph", engine)
        for name in ("stock", "kconv")
        for engine in ("oneDNN", "Eigen")
    }
    assert result.memory_of_best("kconv").peak == 220
    assert result.least_memory("kconv").peak == 200
    assert result.memory_ratio(Result.least_memory) == 1.0


def test_interrupted_it_has_what_there_is(benchmark, monkeypatch):
    def interrupt(self, candidate, seconds):
        if len(FakeWorker.asked) == 5:
            raise KeyboardInterrupt
        FakeWorker.asked += (candidate,)
        return [1.0]

    monkeypatch.setattr(FakeWorker, "time", interrupt)
    result = benchmark.measure(Subject("lenet5", TRAIN, 8))
    assert result.is_interrupted
    assert sum(len(m.seconds) for m in result.measurements) >= 5
    assert result.ratio() == 1.0


# The report.


@pytest.fixture
def results():
    def measured(subject, name, mode, *seconds, refusal=None):
        candidate = Candidate(name, mode, "oneDNN")
        return Measurement(subject, candidate, list(seconds), refusal)

    fast, slow = Subject("vgg16", TRAIN, 8, 128), Subject("lenet5", PREDICT, 1)
    first = Result(
        fast,
        MADE,
        [
            measured(fast, "kconv", "graph", 0.1, 0.2, 0.3),
            measured(fast, "stock", "graph", 0.6),
            measured(fast, "stock", "xla", refusal="It was not ready in 5 s."),
            measured(fast, "torch", "eager", 0.4),
        ],
        missing={"openvino": "not installed"},
    )
    first.memory = {
        m.candidate: Memory(2**29, 2**29, peak, 2**20)
        for m, peak in zip(first.measurements[:2], (3 * 2**29, 2**30), strict=True)
    }
    second = Result(
        slow,
        MADE,
        [measured(slow, "kconv", "graph", 0.2), measured(slow, "stock", "graph", 0.1)],
    )
    return [first, second]


def test_the_table_shows_losses_and_memory(results, capsys):
    from rich.console import Console

    model_report.show(results, Console(width=300))
    words = capsys.readouterr().out
    assert "3.00x" in words
    assert "0.50x loss" in words
    assert "1536 1024 1.50x" in words
    assert "1 of 2 lost" in words
    assert "400.0 ±0% 2.00x" in words  # PyTorch
    assert "OpenVINO: not installed" in words
    assert "not ready in 5 s" in words


def test_files_and_picture(results, tmp_path):
    from kconv.benchmark import model_plots
    from kconv.benchmark.noise import NoiseWatch

    model_report.write_csv(results, tmp_path / "r.csv")
    verdict = NoiseWatch(lambda: []).verdict()
    model_report.write_json(results, {"cpu": "x"}, verdict, tmp_path / "r.json")
    with open(tmp_path / "r.csv") as file:
        rows = list(csv.DictReader(file))
    written = json.loads((tmp_path / "r.json").read_text())
    assert [row["name"] for row in rows] == [row["name"] for row in written["rows"]]
    assert written["environment"] == {"cpu": "x"}
    assert float(rows[0]["stock_over_this"]) == pytest.approx(3)
    assert int(rows[0]["memory_peak"]) == 3 * 2**29
    assert rows[2]["refusal"] == "It was not ready in 5 s."
    model_plots.models(results, tmp_path / "r.png")
    assert matplotlib.image.imread(tmp_path / "r.png").std() > 0.1


# References and arguments.


def test_references_that_are_missing_are_none(monkeypatch):
    there = {"a": {"torch", "keras"}, "b": {"openvino", "torch"}}
    monkeypatch.setattr(
        model_references.references, "installed", lambda python, modules: there[python]
    )
    monkeypatch.setattr(
        model_references.references, "interpreters", lambda named: ["b", "a"]
    )
    found = model_references.find()
    assert found == {"torch": "a", "onnxruntime": None, "openvino": "b"}
    assert model_references.find([]) == {}
    sentence = model_references.write_onnx(Subject("x", PREDICT, 1), {})
    assert "tf2onnx" in sentence
    subject = Subject("x", TRAIN, 1)
    names = {c.name for c in model_references.candidates(found, subject)}
    assert names == {"torch"}


def test_a_library_that_fails_is_a_result(monkeypatch):
    # It runs as a script.
    monkeypatch.syspath_prepend(pathlib.Path(models.__file__).parent)
    import model_reference_worker

    class Library:
        version = "1"

        def __init__(self, threads):
            assert threads == 3

        def call(self, subject, mode):
            if mode == "bad":
                raise OSError("No.\nMore.")
            return lambda: None

    monkeypatch.setitem(model_reference_worker.LIBRARIES, "fake", Library)
    server = model_reference_worker.Server("fake", 3)
    subject = Subject("x", PREDICT, 1).to_json()
    assert server.describe() == {"fake": "1"}
    assert server.prepare(subject, {"mode": "bad"})["refusal"] == "No."
    assert server.prepare(subject, {"mode": "good"})["refusal"] is None
    assert min(server.time({"mode": "good"}, 0)["seconds"]) >= 0


def test_arguments_become_subjects(monkeypatch, saved):
    given = {}

    def run(subjects, **options):
        given.update(options, subjects=subjects)

    monkeypatch.setattr(models, "run", run)
    assert cli.main(["bench", "models"]) == 0
    assert {s.model for s in given["subjects"]} == {"vgg16", "resnet50", "mobilenet_v2"}
    assert {s.pass_ for s in given["subjects"]} == {PREDICT}
    assert given["memory"] is True
    assert cli.main(["bench", "train", "lenet5", "--no-memory", "--size", "32"]) == 0
    assert given["subjects"] == [Subject("lenet5", TRAIN, 8, 32, "float32")]
    assert given["memory"] is False
    line = ["bench", "file", saved.model, "--train", "--batch", "1", "2"]
    assert cli.main(line) == 0
    assert [s.batch for s in given["subjects"]] == [1, 2]
    assert given["subjects"][0] == Subject(saved.model, TRAIN, 1)
    assert given["subjects"][0].name == pathlib.Path(saved.model).stem


@pytest.mark.parametrize("name", ["no_such_model", "none.keras"])
def test_unknown_models_are_told_at_once(name, capsys):
    assert cli.main(["bench", "models", name]) == 1
    assert f"Received: {'name=' * (name[-1] == 'l')}" in capsys.readouterr().err
