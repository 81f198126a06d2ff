"""The command line, the demonstration and the benchmark, on small problems."""

import csv
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from kconv import cli, demo, models
from kconv.benchmark import calls, layers, report
from kconv.benchmark.client import Worker
from kconv.benchmark.layers import Candidate, LayerBenchmark, Measurement
from kconv.benchmark.problems import PASSES, Layer, Problem, make_problems

SMALL = Layer(3, 6, 4, 8)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["demo", "--help"],
        ["bench", "layers", "--help"],
        ["profile", "--help"],
        ["tune", "--help"],
        ["info", "--help"],
    ],
)
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 0
    words = capsys.readouterr().out
    assert "usage: kconv" in words
    # One default each.
    for option in re.split(r"\n  --", words):
        assert option.count("(default: ") <= 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["bench"],
        ["bench", "layers", "--batch", "0"],
        ["bench", "layers", "--passes", "sideways"],
        ["bench", "layers", "--layers", "deepwise"],
        ["bench", "layers", "--torch-python"],
        ["profile"],
        ["profile", "lenet5", "--batch", "0"],
        ["profile", "lenet5", "--input-shape", "-1"],
        ["profile", "lenet5", "--passes", "backward"],
        ["tune", "lenet5", "--batch", "0"],
        ["tune", "lenet5", "--passes", "backward"],
        ["tune", "lenet5", "--dtype", "int8"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: kconv" in capsys.readouterr().err


def test_unknown_algorithm_is_one_sentence(capsys):
    assert cli.main(["bench", "layers", "--algorithm", "gemm", "magic"]) == 1
    assert "Received: ['magic']" in capsys.readouterr().err


def test_module_runs_as_the_command():
    words = subprocess.run(
        [sys.executable, "-m", "kconv", "--help"], capture_output=True, text=True
    )
    assert words.returncode == 0
    assert "demo" in words.stdout


# The demonstration.


@pytest.mark.parametrize("agreed", [True, False])
def test_demo_exits_by_its_verdict(monkeypatch, agreed):
    monkeypatch.setattr(demo, "compare_resnet", lambda *arguments: True)
    monkeypatch.setattr(demo, "compare_training", lambda *arguments: agreed)
    assert cli.main(["demo"]) == (0 if agreed else 1)


def test_demo_trains_both_models_alike(tmp_path, capsys):
    assert demo.compare_training(tmp_path / "new", epochs=1, seed=0)
    assert (tmp_path / "new" / "learning_curves.png").stat().st_size > 10_000
    assert "accuracy on 360 new digits" in capsys.readouterr().out


def test_demo_notices_training_that_differs(tmp_path):
    twins = {name: models.LeNet5() for name in ("stock", "kconv")}
    curves = {
        "stock": {"loss": [1.0, 0.5], "accuracy": [0.5, 0.9]},
        "kconv": {"loss": [1.0, 0.6], "accuracy": [0.5, 0.9]},
    }
    assert not demo.show_training(twins, curves, tmp_path, 360)
    curves["kconv"]["loss"] = curves["stock"]["loss"]
    assert demo.show_training(twins, curves, tmp_path, 360)


def test_demo_notices_outputs_that_differ(capsys):
    keras = demo.keras
    keras.utils.set_random_seed(0)

    def model():
        image = keras.Input((8, 8, 3))
        features = keras.layers.Conv2D(4, 3, name="conv5_block3_out")(image)
        pooled = keras.layers.GlobalAveragePooling2D()(features)
        return keras.Model(image, keras.layers.Dense(10)(pooled))

    batch = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32")
    stock, other = model(), model()
    models = {"stock": stock, "kconv": other}
    assert not demo.show_agreement(models, ["noise"], batch, real=False)
    models["kconv"] = demo.kconv.convert(stock)
    assert demo.show_agreement(models, ["noise"], batch, real=False)


def test_demo_takes_photographs_of_any_size(tmp_path):
    from PIL import Image

    path = tmp_path / "gray.png"
    Image.fromarray(np.full((50, 300), 7, "uint8")).save(path)
    names, photographs = demo.load_photographs([path])
    assert names == [str(path)]
    assert photographs.shape == (1, 224, 224, 3)
    assert (photographs == 7).all()


@pytest.mark.slow
def test_whole_demo(tmp_path):
    assert cli.main(["demo", "--epochs", "1", "--output", str(tmp_path)]) == 0


# The benchmark.


def measured(name, seconds, mode="graph", problem=None, **rest):
    problem = problem or Problem(SMALL, 1, "forward")
    return Measurement(problem, Candidate(name, mode), seconds, **rest)


def test_best_setting_of_each_counts():
    comparison = report.Comparison(
        [
            measured("stock", [4.0]),
            measured("stock", [2.0, 2.0, 9.0], mode="eager"),
            measured("gemm", [1.0]),
            measured("gemm", [3.0], mode="eager"),
            measured("direct", [], refusal="No."),
        ]
    )
    assert comparison.stock.candidate.mode == "eager"
    assert comparison.ratio("gemm") == 2
    assert comparison.ratio("direct") is None


def test_spread_is_half_the_distance_of_the_quartiles():
    assert measured("gemm", [1.0]).spread == 0
    assert measured("gemm", [2.0, 3.0, 4.0, 5.0, 6.0]).spread == pytest.approx(0.25)


def test_geometric_mean():
    assert report.geometric_mean([1, 4]) == pytest.approx(2)
    assert math.isnan(report.geometric_mean([]))


def test_problems_come_in_the_order_asked_for():
    problems = make_problems("3x3", [8], ["forward"])
    assert len(problems) == 9
    assert problems[0].macs == 8 * 224 * 224 * 9 * 64 * 64
    assert len(make_problems("all")) == 2 * 3 * (9 + 9 + 8 + 3 + 13 + 9 + 5)
    assert Problem.from_json(problems[0].to_json()) == problems[0]


@pytest.fixture(scope="module")
def comparisons():
    """Small problems, measured for real by all candidates."""
    names = ["auto", "gemm", "direct"]
    with LayerBenchmark(names, threads=1, repeats=1, seconds=0) as benchmark:
        assert "tensorflow" in benchmark.environment()
        return [
            report.Comparison(benchmark.measure(Problem(SMALL, 2, pass_)))
            for pass_ in PASSES
        ]


def test_benchmark_measures_all_passes(comparisons):
    assert [c.problem.pass_ for c in comparisons] == list(PASSES)
    for comparison in comparisons:
        assert comparison.stock.choice == "stock"
        assert list(comparison.ours) == ["auto", "gemm", "direct"]
        for name in ("gemm", "direct"):
            assert comparison.ours[name].choice == name
        assert all(comparison.ratio(name) > 0 for name in comparison.ours)


def test_benchmark_writes_files(comparisons, tmp_path):
    report.write_csv(comparisons, tmp_path / "rows.csv")
    with open(tmp_path / "rows.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3 * 4
    report.write_json(comparisons, {"threads": 1}, tmp_path / "rows.json")
    written = json.loads((tmp_path / "rows.json").read_text())
    assert written["environment"] == {"threads": 1}
    assert {row["name"] for row in written["rows"]} == {
        *("stock", "auto", "gemm", "direct")
    }
    report.write_plot(comparisons, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_a_refusal_is_a_result_of_the_benchmark():
    three = Problem(SMALL, 2, "forward")
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


def test_benchmark_prints_a_table_and_means(comparisons, monkeypatch, capsys):
    class Measured(LayerBenchmark):
        def __init__(self, *arguments):
            self._workers = {}

        def environment(self):
            return {"processor": "of a test"}

        def measure(self, problem):
            comparison = comparisons[PASSES.index(problem.pass_)]
            return [comparison.stock, *comparison.ours.values()]

    monkeypatch.setattr(layers, "LayerBenchmark", Measured)
    assert cli.main(["bench", "layers", "--layers", "1x1", "--batch", "2"]) == 0
    words = capsys.readouterr().out
    assert "processor: of a test" in words
    assert "6x6 4→8" in words
    assert "Geometric mean" in words


def test_worker_that_fails_says_why():
    worker = Worker({"KERAS_BACKEND": "nonsense"}, threads=1)
    with pytest.raises(RuntimeError, match="nonsense"):
        worker.environment()
    worker.close()


def test_worker_answers_errors_and_lives_on():
    worker = Worker({}, threads=1)
    with pytest.raises(RuntimeError, match="KeyError"):
        worker.time(Candidate("gemm", "graph"), 0.01)
    assert worker.environment()["threads"] == 1
    worker.close()
