"""What the benchmark tells: tables, files, pictures, noise, and by which options."""

import csv
import json
import math
import os

import pytest
from rich.console import Console

from kconv import cli
from kconv.benchmark import implementation, layers, noise, plots, references, report
from kconv.benchmark.candidates import XLA, Candidate, Measurement
from kconv.benchmark.machine import Machine
from kconv.benchmark.noise import NoiseWatch, Verdict
from kconv.benchmark.problems import LAYERS, PASSES, Layer, Problem

SMALL = Layer(3, 6, 4, 8)
MACHINE = Machine(flops=50e9, bandwidth=20e9)


def measured(name, seconds, mode="graph", engine="default", problem=None, **rest):
    problem = problem or Problem(SMALL, 1, "forward")
    return Measurement(problem, Candidate(name, mode, engine), seconds, **rest)


def compared(problem, stock=2e-3, ours=1e-3, others=()):
    return report.Comparison(
        [
            measured("stock", [stock], "eager", "oneDNN", problem, choice="oneDNN jit"),
            *others,
            measured("auto", [ours], problem=problem, choice="direct"),
        ]
    )


@pytest.fixture
def comparisons():
    """Gains and losses, in all passes and both layouts."""
    problems = [
        Problem(SMALL, 2, pass_, layout=layout)
        for layout in ("channels_last", "channels_first")
        for pass_ in PASSES
    ]
    found = [
        compared(problem, ours=(i + 1) * 8e-4) for i, problem in enumerate(problems)
    ]
    first = problems[0]
    openvino = measured("openvino", [3e-3], "f32", "openvino", first)
    refused = measured("openvino", [], "f32", "openvino", problems[1], refusal="No.")
    found[0] = compared(first, others=[openvino])
    found[1] = compared(problems[1], ours=4e-3, others=[refused])
    return found


# Comparisons and tables.


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


def test_geometric_mean():
    assert report.geometric_mean([1, 4]) == pytest.approx(2)
    assert math.isnan(report.geometric_mean([]))


def words_of(comparisons, capsys, machine=None):
    report.show(comparisons, machine, Console(width=80))
    return capsys.readouterr().out


def test_tables_are_whole_and_show_losses(comparisons, capsys):
    words = words_of(comparisons, capsys, MACHINE)
    assert "…" not in words
    lines = [line for line in words.splitlines() if "6x6 4→8" in line]
    assert len(lines) == 6
    assert "eager: oneDNN jit" in lines[0]
    assert "2.00x 3.00x (direct)" in lines[0]
    # 2 * 9 * 4 * 8 * 36 * 2 operations in a millisecond, of 50e9 a second.
    assert " 0.0 " in lines[0]
    assert "0.50x" in lines[1]
    assert "refused" in lines[1]
    assert "channels_first" in lines[3]
    assert "2.00x, 0 of 1" in words
    assert "0.50x, 1 of 1" in words
    # Of gradients, which it refuses, there is no mean.
    _, _, theirs = words.partition("Geometric mean of openvino's")
    assert "forward" in theirs
    assert "input_gradient" not in theirs


def test_narrow_terminals_lose_nothing(comparisons, capsys):
    console = Console(width=80, force_terminal=True, no_color=True)
    report.show(comparisons, MACHINE, console)
    words = capsys.readouterr().out
    assert "…" not in words
    assert words.count("0.50x") == 2


def test_rates_are_those_of_the_definition_of_a_convolution():
    problem = Problem(Layer(3, 100, 50, 20), 1, "forward")
    comparison = compared(problem, ours=0.09)
    (_, row) = report.rows([comparison], MACHINE)
    assert row["gflops"] == pytest.approx(2)
    assert row["of_peak"] == pytest.approx(2 / 50)
    assert report.rows([comparison])[1]["of_peak"] is None


def test_the_report_does_without_a_reference(comparisons, capsys):
    problem = Problem(Layer(3, 6, 4, 4, groups=4), 2, "forward")
    refused = report.Comparison(
        [
            measured("stock", [], problem=problem, refusal="No."),
            measured("auto", [1e-3], problem=problem, choice="direct"),
        ]
    )
    assert refused.ratio("auto") is None
    words = words_of([*comparisons, refused], capsys)
    assert "6x6 4→4 dw" in words
    assert "of peak" not in words
    assert report.rows([refused])[1]["stock_over_this"] is None


def test_files_hold_every_way(comparisons, tmp_path):
    report.write_csv(comparisons, tmp_path / "rows.csv", MACHINE)
    with open(tmp_path / "rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 2 + 2
    assert (rows[0]["algorithm"], rows[0]["layout"]) == ("oneDNN jit", "channels_last")
    verdict = Verdict(0.0, 0.5, 0.01, 0.02)
    path = tmp_path / "rows.json"
    report.write_json(comparisons, {"threads": 1}, path, MACHINE, verdict)
    written = json.loads(path.read_text())
    assert written["environment"] == {"threads": 1}
    assert written["machine"] == {"flops": 50e9, "bandwidth": 20e9}
    assert written["noise"]["others"] == 0.5
    assert written["noise"]["is_quiet"] is False
    assert {row["name"] for row in written["rows"]} == {"stock", "openvino", "auto"}


# Pictures.


def test_pictures_are_drawn(comparisons, tmp_path):
    pytest.importorskip("matplotlib")
    plots.ratios(comparisons, tmp_path / "ratios.png")
    plots.roofline(comparisons, MACHINE, tmp_path / "roofline.png")
    for name in ("ratios.png", "roofline.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_the_roofline_has_two_parts():
    assert MACHINE.ceiling(1.0) == 20e9
    assert MACHINE.ceiling(100.0) == 50e9


def test_nothing_is_measured_for_pictures_that_cannot_be_drawn(monkeypatch, capsys):
    monkeypatch.setattr(plots.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["bench", "layers", "--plot", "x.png"]) == 1
    assert "matplotlib is missing" in capsys.readouterr().err


# What stock took.


def test_implementations_are_read_from_what_onednn_prints():
    told = (
        "onednn_verbose,v1,info,oneDNN v3.7.3\n"
        "onednn_verbose,v1,primitive,exec,cpu,reorder,jit:uni,undef,x,,,64x64,0.1\n"
        "onednn_verbose,v1,primitive,exec,cpu,convolution,brg_conv_fwd:avx2,forward\n"
    )
    assert implementation.name(told) == "oneDNN brg_conv_fwd:avx2"
    older = "dnnl_verbose,exec,cpu,convolution,jit:avx2,forward_training"
    older = older.replace("dnnl", "onednn")
    assert implementation.name(older) == "oneDNN jit:avx2"
    # Eigen's product calls oneDNN's for its pieces.
    pieces = "onednn_verbose,v1,primitive,exec,cpu,gemm_api,,undef,x,,,9x9:9x9,0.1"
    assert implementation.name(pieces) == "Eigen"
    assert implementation.name("") == "Eigen"


def test_what_is_printed_is_caught_and_no_more(capfd):
    # Not by Python: what a library prints.
    words = implementation.printed(os.write, 1, b"inside\n")
    os.write(1, b"after\n")
    assert words == "inside\n"
    assert capfd.readouterr().out == "after\n"


# Noise.


def test_a_quiet_machine_is_said_to_be():
    quiet = Verdict(0.0, 0.02, 0.01, 0.1)
    assert quiet.is_quiet
    assert str(quiet).startswith("The machine was quiet: stolen 0.0%")
    unknown = Verdict(None, None, None, None)
    assert unknown.is_quiet is None
    assert str(unknown) == "Noise: not measured."


@pytest.mark.parametrize(
    ("values", "phrase"),
    [
        ((0.02, 0.0, 0.0, 0.0), "2.0% of the processors' time was stolen (at most 1%)"),
        ((0.0, 0.3, 0.0, 0.0), "other programs used 30.0%"),
        ((None, None, 0.2, 0.0), "the same work took ±20% (at most 5%)"),
        ((None, None, 0.0, 0.5), "50% longer at times"),
    ],
)
def test_noise_is_told(values, phrase):
    verdict = Verdict(*values)
    assert verdict.is_quiet is False
    assert phrase in str(verdict)
    assert str(verdict).startswith("Too noisy to believe: ")


def test_the_watch_counts_what_is_not_its_own(monkeypatch):
    # All, busy and stolen ticks, and those of this process and another of its own.
    processors = iter([(1000, 400, 10), (2000, 1200, 20), (3000, 1300, 50)])
    own = iter([100, 0, 500, 200, 900, 200])
    monkeypatch.setattr(noise, "_processor_ticks", lambda: next(processors))
    monkeypatch.setattr(noise, "_process_ticks", lambda pid: next(own))
    watch = NoiseWatch(lambda: [1.0, 1.0, 2.0], lambda: [7])
    assert watch.verdict() == Verdict(None, None, None, None)
    for _ in range(3):
        watch.sample()
    # 800 were busy, 600 of them its own; then 100 and 400, counted at other moments.
    assert watch.verdict() == Verdict(40 / 2000, 200 / 2000, None, None)


def test_processes_that_ended_stay_its_own(monkeypatch):
    processors = iter([(1000, 0, 0), (2000, 500, 0), (3000, 1200, 0)])
    monkeypatch.setattr(noise, "_processor_ticks", lambda: next(processors))
    # This process's ticks hold those of the other once that has ended.
    ticks = iter([{1: 100}, {1: 200, 7: 400}, {1: 850}])
    now = {}
    monkeypatch.setattr(noise.os, "getpid", lambda: 1)
    monkeypatch.setattr(noise, "_process_ticks", lambda pid: now[pid])

    def others():
        now.clear()
        now.update(next(ticks))
        return [pid for pid in now if pid != 1]

    watch = NoiseWatch(lambda: [1.0], others)
    for _ in range(3):
        watch.sample()
    # All 500 were its own, and then 850 - (200 + 400) of 700.
    assert watch.verdict().others == 450 / 2000


def test_the_watch_compares_the_same_work(monkeypatch):
    monkeypatch.setattr(noise, "_processor_ticks", lambda: None)
    times = iter([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [2.0, 2.0]])
    watch = NoiseWatch(lambda: next(times))
    for _ in range(4):
        watch.sample()
    verdict = watch.verdict()
    assert (verdict.stolen, verdict.others) == (None, None)
    assert verdict.spread == pytest.approx(0.125)
    assert verdict.swing == pytest.approx(0.7)


def test_ticks_are_read_from_the_system(tmp_path, monkeypatch):
    path = tmp_path / "stat"
    path.write_text(
        "cpu  9 9 9 9 9 9 9 9 9 9\n"
        "cpu0 1 2 3 40 50 6 7 8 0 0\n"
        "cpu1 100 0 0 0 0 0 0 0 0 0\n"
        "cpu12 1000 0 0 0 0 0 0 0 0 0\n"
        "intr 5\n"
    )
    monkeypatch.setattr(noise.os, "sched_getaffinity", lambda pid: {0, 1})
    assert noise._processor_ticks(path) == (217, 119, 8)
    assert noise._processor_ticks(tmp_path / "nothing") is None
    path.write_text("cpu0 what\n")
    assert noise._processor_ticks(path) is None
    monkeypatch.setattr(noise, "_PROC", tmp_path)
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "stat").write_text(
        "42 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 300 20 5 1 20 0\n"
    )
    assert noise._process_ticks(42) == 326
    assert noise._process_ticks(43) == 0


# The command.


class Fake:
    """A benchmark that has measured already."""

    def __init__(self, *settings):
        Fake.settings = settings

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def environment(self):
        return {"processor": "of a test"}

    def machine(self):
        return MACHINE

    def watch(self):
        return NoiseWatch(lambda: [1.0])

    def measure(self, problem):
        if problem.batch == 3:
            raise KeyboardInterrupt
        comparison = compared(problem)
        return [comparison.stock, *comparison.ours.values()]


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(layers, "LayerBenchmark", Fake)
    monkeypatch.setattr(references, "find", lambda *asked: {"torch": "x/python"})


@pytest.mark.usefixtures("fake")
def test_the_command_prints_everything(tmp_path, capsys):
    path = tmp_path / "rows.json"
    arguments = ["--batch", "1", "2", "--passes", "forward", "--json", str(path)]
    assert cli.main(["bench", "depthwise", *arguments]) == 0
    words = capsys.readouterr().out
    for part in (
        *("processor: of a test", "openvino: not installed", "peak: 50.0 GFLOP/s"),
        *("bandwidth: 20.0 GB/s", "31x31", "Geometric mean of stock's", "quiet"),
    ):
        assert part in words
    assert "torch: not installed" not in words
    written = json.loads(path.read_text())
    assert written["environment"]["onnxruntime"] == "not installed"
    assert len(written["rows"]) == 2 * 2 * len(LAYERS["depthwise"])
    assert Fake.settings[-1] == {"torch": "x/python"}


@pytest.mark.usefixtures("fake")
def test_interrupted_it_prints_what_it_has(capsys):
    arguments = ["--batch", "1", "3", "--passes", "forward"]
    assert cli.main(["bench", "grouped", *arguments]) == 0
    words = capsys.readouterr().out
    assert "Interrupted after 3 problems." in words
    assert "in 32 groups" in words
    assert cli.main(["bench", "grouped", "--batch", "3"]) == 0
    assert "Interrupted after 0 problems." in capsys.readouterr().out


@pytest.mark.usefixtures("fake")
def test_interrupted_before_it_measured_it_ends(monkeypatch):
    def interrupted(*settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(layers, "LayerBenchmark", interrupted)
    assert cli.main(["bench", "grouped"]) == 130


@pytest.fixture
def given(monkeypatch):
    """The arguments that `layers.run` was called with last."""
    given = {}
    monkeypatch.setattr(layers, "run", lambda **options: given.update(options))
    return given


def test_subjects_differ_in_their_layers(given):
    for arguments, expected in (
        (["depthwise"], ["depthwise"]),
        (["grouped"], ["grouped"]),
        (["layers"], ["all"]),
        (["layers", "--layers", "1d", "3x3"], ["1d", "3x3"]),
    ):
        assert cli.main(["bench", *arguments]) == 0
        assert given["layers"] == expected
    assert given["modes"][-1] == XLA
    assert (given["layout"], given["csv"]) == (["channels_last"], None)
    layout = ["--layout", "channels_first", "channels_last"]
    assert cli.main(["bench", "grouped", *layout, "--csv", "x.csv"]) == 0
    assert (given["layout"], given["csv"]) == (layout[1:], "x.csv")


def test_references_are_asked_for(given):
    def asked(*arguments):
        assert cli.main(["bench", "layers", *arguments]) == 0
        return given["wanted"], given["required"], given["pythons"]

    assert asked() == (None, [], [])
    assert asked("--references") == ([], [], [])
    assert asked("--references", "torch") == (["torch"], ["torch"], [])
    assert asked("--references-python", "a", "b") == (None, [], ["a", "b"])
    assert asked("--torch") == (None, ["torch"], [])
    assert asked("--torch-python", "x") == (None, ["torch"], ["x"])
