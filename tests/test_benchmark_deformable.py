"""kconv bench deformable."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf

from kconv import cli
from kconv.benchmark import deformable, deformable_problem, references
from kconv.benchmark.deformable_problem import PASSES, Deformable

SMALL = ((5, 4),)
FOUND = references.find(known=references.DEFORMABLE)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Problems that take no time."""
    monkeypatch.setattr(deformable, "TURN_SECONDS", 1e-4)
    monkeypatch.setattr(deformable, "repetitions", lambda seconds: 2)


@pytest.mark.parametrize("pass_", PASSES)
def test_candidates_compute_what_they_say(pass_):
    problem = Deformable(5, 4, 2, pass_, "float64")
    assert Deformable.from_json(problem.to_json()) == problem
    operands = deformable.operands(problem)
    assert tuple(tuple(one.shape) for one in operands) == problem.shapes
    results = {
        name: deformable.call(problem, name)(*operands)
        for name in (deformable.KCONV, deformable.GATHER, *deformable.PLAIN)
    }
    own = results.pop(deformable.KCONV)
    np.testing.assert_allclose(results[deformable.GATHER], own, atol=1e-12)
    direct, auto = (results[name] for name in deformable.PLAIN)
    np.testing.assert_allclose(direct, auto, atol=1e-12)
    assert own.shape == (() if pass_ == "train" else (2, 5, 5, 4))
    assert np.abs(own - direct).max() > 0.1


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(deformable_problem, "KERNEL", 1)  # short graphs
    run = deformable.run
    monkeypatch.setattr(deformable, "run", lambda **o: run(**o, layers=SMALL))
    threads = str(tf.config.threading.get_intra_op_parallelism_threads() or 2)
    monkeypatch.setattr(deformable.runtime, "threads", lambda: int(threads))
    table, file = tmp_path / "x.csv", tmp_path / "x.json"
    words = ["--batch", "1", "--repeats", "2", "--references", "--threads", threads]
    words += ["--csv", str(table), "--json", str(file)]
    assert cli.main(["bench", "deformable", *words]) == 0
    told = capsys.readouterr().out
    assert "5x5x4, batch 1" in told
    assert "forward: tf.gather takes " in told
    rows = json.loads(file.read_text())["rows"]
    names = ("kconv", "tf.gather", "direct", "auto")
    assert [(r["pass_"], r["candidate"]) for r in rows] == [
        (pass_, name) for pass_ in PASSES for name in names
    ]
    assert all(row["seconds"] > 0 for row in rows)
    assert [row["over_kconv"] for row in rows[::4]] == [1, 1]
    with open(table, newline="") as lines:
        assert len(list(csv.DictReader(lines))) == 8


def test_without_kernels(monkeypatch):
    monkeypatch.setattr(deformable_problem, "KERNEL", 1)
    monkeypatch.setattr(deformable, "has_kernels", lambda: False)
    with deformable.DeformableBenchmark(repeats=1) as benchmark:
        result = benchmark.measure(Deformable(5, 4, 1, "forward"))
    assert deformable.KCONV not in result.seconds
    assert result.over_kconv("auto") is None
    assert deformable.summary([result]) == []
    assert deformable.table([result]).row_count == 1


def test_a_missing_library_is_told():
    if FOUND:
        pytest.skip("torchvision is there")
    with pytest.raises(RuntimeError, match="pip install torch torchvision"):
        deformable.run(wanted=["torchvision"], layers=SMALL)


@pytest.mark.skipif(not FOUND, reason="torchvision is missing")
def test_torchvision():
    with deformable.DeformableBenchmark(repeats=1, found=FOUND) as benchmark:
        assert "torchvision" in benchmark.environment()
        for pass_ in PASSES:
            result = benchmark.measure(Deformable(5, 4, 1, pass_))
            assert result.median("torchvision") > 0
