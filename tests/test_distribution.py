"""Training by several devices and processes, as the examples show it."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def output_of(example):
    """Runs an example in a process of its own; what it prints."""
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / example],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def test_two_devices_train_as_one():
    pytest.importorskip("sklearn", reason="the example trains on its digits")
    words = output_of("mirrored_training.py")
    assert "2 devices:" in words
    assert words.splitlines()[-1] == "The loss on two devices equals that on one."


@pytest.mark.slow
def test_two_processes_train_as_one():
    pytest.importorskip("sklearn", reason="the example trains on its digits")
    words = output_of("multi_worker_training.py")
    assert words.count("Epoch 3/3") == 2
    assert words.splitlines()[-1] == "The loss of 2 processes equals that of one."
