"""Whether "auto" chooses well: the problems, the verdicts and the command."""

import collections
import csv
import itertools
import json

import pytest
import tensorflow as tf

from kconv import cli, runtime
from kconv.benchmark import auto, drawn
from kconv.benchmark.problems import PASSES

COUNT = 400


@pytest.fixture(scope="module")
def problems():
    return drawn.draw(7, COUNT)


def test_the_seed_draws_the_problems(problems):
    assert drawn.draw(7, COUNT) == problems
    assert drawn.draw(7, 20) == problems[:20]
    others = drawn.draw(8, COUNT)
    assert len(set(others) & set(problems)) < COUNT / 10


def test_all_kinds_and_settings_are_drawn(problems):
    kinds = collections.Counter(problem.kind for problem in problems)
    assert set(kinds) == set(drawn.KINDS)
    assert len(set(kinds.values())) == 1
    for seen, expected in (
        ({p.pass_ for p in problems}, set(PASSES)),
        ({p.input_shape[0] for p in problems}, set(drawn.BATCHES)),
        ({p.dtype for p in problems}, {"float32", "float64", "bfloat16", "float16"}),
        ({p.data_format for p in problems}, {"channels_last", "channels_first"}),
        ({len(p.input_shape) - 2 for p in problems}, {1, 2, 3}),
    ):
        assert seen == expected


def test_problems_are_what_they_say(problems):
    for problem in problems:
        spec = problem.spec("auto")
        assert min(problem.output_shape) >= 1
        assert problem.macs >= 1
        grouped = spec.groups > 1
        assert grouped == (problem.kind in ("grouped", "depthwise"))
        assert (problem.kernel_shape[-2] == 1) >= (problem.kind == "depthwise")
        # What stands in a report tells problems apart.
        assert problem.kind in str(problem)
        assert problem.pass_ in str(problem)


def test_passes_and_types_can_be_asked_for():
    few = drawn.draw(0, 30, ["filter_gradient"], ["float16"])
    assert {(p.pass_, p.dtype) for p in few} == {("filter_gradient", "float16")}


SMALL = drawn.Drawn("3x3", "forward", "float32", (1, 8, 8, 8), (3, 3, 8, 8))


def verdict(**seconds):
    return auto.Verdict(SMALL, "gemm", {}, seconds)


@pytest.mark.parametrize(
    ("seconds", "right", "lost"),
    [
        ({"gemm": 1.0, "direct": 2.0}, True, False),
        ({"gemm": 1.09, "direct": 1.0}, True, False),
        ({"gemm": 1.11, "direct": 1.0}, False, False),
        ({"gemm": 1.11, "builtin": 1.0}, False, True),
        ({"gemm": 1.0, "builtin": 1.2}, True, False),
        # What Keras does where there is no kernel is no candidate, but can win.
        ({"gemm": 1.2, "stock": 1.0}, True, True),
    ],
)
def test_verdicts(seconds, right, lost):
    found = verdict(**seconds)
    assert (found.is_right, found.is_lost) == (right, lost)


def test_the_report_shows_what_is_wrong():
    verdicts = [
        verdict(gemm=1.0, builtin=2.0),
        verdict(gemm=1.5, direct=1.0),
        verdict(gemm=1.3, stock=1.0),
    ]
    assert auto.table(verdicts).row_count == 2
    right, lost = auto.summary(verdicts)
    assert right.startswith("2 of 3 choices (66.7%) are within a tenth")
    assert lost.startswith("1 of 2 are more than a tenth slower than stock")


@pytest.mark.parametrize(
    ("first", "second", "right"), [(2.0, 1.0, True), (1.08, 1.2, False)]
)
def test_what_is_in_doubt_is_asked_again(monkeypatch, first, second, right):
    asked = []

    def race(runs, operands, turns, chosen):
        asked.append(sorted(runs))
        mine = first if len(asked) == 1 else second
        return {name: [1.0 if name == "direct" else mine] for name in runs}

    monkeypatch.setattr(auto, "_race", race)
    found = auto.judge(SMALL)
    assert len(asked) == 3
    for again in asked[1:]:
        assert set(again) <= {found.chosen, "direct", "builtin", "stock"}
    assert found.is_right is right
    # What was not timed again keeps its first time.
    assert set(found.seconds) == set(asked[0])


def test_all_candidates_are_timed(monkeypatch):
    monkeypatch.setattr(auto, "_TURN_SECONDS", 0.0)
    monkeypatch.setattr(auto, "_TURNS", 1)
    monkeypatch.setattr(auto, "_MORE_TURNS", 1)
    monkeypatch.setattr(auto, "_RERUNS", 1)
    for pass_ in PASSES:
        problem = drawn.Drawn("grouped", pass_, "float32", (1, 6, 6, 8), (3, 3, 4, 8))
        found = auto.judge(problem)
        accepted = {
            row.algorithm
            for row in auto._explain(problem).candidates
            if row.refusal is None
        }
        assert set(found.seconds) == accepted | {"stock"}
        assert found.chosen in accepted
        assert min(found.seconds.values()) > 0


def test_the_command_writes_verdicts(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(auto, "_TURN_SECONDS", 0.0)
    monkeypatch.setattr(auto, "_TURNS", 1)
    monkeypatch.setattr(auto, "_MORE_TURNS", 1)
    monkeypatch.setattr(auto, "_RERUNS", 1)
    monkeypatch.setattr(auto, "stream", lambda *rest: itertools.repeat(SMALL))
    files = {kind: tmp_path / f"auto.{kind}" for kind in ("csv", "json")}
    options = [f"--{kind}={path}" for kind, path in files.items()]
    threads = []
    # Once a test has computed something, TensorFlow takes no other number.
    monkeypatch.setattr(
        tf.config.threading, "set_intra_op_parallelism_threads", threads.append
    )
    words = ["bench", "auto", "--seed", "3", "--count", "2", "--threads", "3"]
    assert cli.main([*words, *options]) == 0
    assert threads == [3]
    assert " of 2 choices" in capsys.readouterr().out
    with open(files["csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["problem"] for row in rows] == [str(SMALL)] * 2
    written = json.loads(files["json"].read_text())
    assert written["environment"]["seed"] == 3
    assert set(written["rows"][0]["seconds"]) == {*written["rows"][0]["estimates"]}


def test_close_choices_alone_can_be_asked_for(monkeypatch, capsys):
    judged = []

    def judge(problem):
        judged.append(problem)
        return auto.Verdict(problem, "direct", {}, {"direct": 1.0})

    monkeypatch.setattr(auto, "judge", judge)
    threads = f"--threads={runtime.threads()}"
    words = ["bench", "auto", "--seed=7", "--count=4", threads, "--close", "1.2"]
    assert cli.main(words) == 0
    close = []
    for problem in drawn.draw(7, COUNT):
        rows = auto._explain(problem).candidates
        best, second, *_ = sorted(row.seconds for row in rows if not row.refusal)
        close += [problem] * (second / best <= 1.2)
    assert judged == close[:4]
    assert 4 < len(close) < COUNT
    monkeypatch.setattr(auto, "MOST_DRAWN", 3)
    few = {"seed": 7, "threads": runtime.threads(), "count": 5}
    assert len(auto.run(close=99.0, **few)) == 3
    assert auto.run(close=1.0, **few) == []
    told = capsys.readouterr().out
    for count in (0, 3):
        assert f"{count} of 5 convolutions were judged" in told
    for wrong in ("0.9", "nan", "inf"):
        with pytest.raises(SystemExit):
            cli.main([*words[:-1], wrong])
