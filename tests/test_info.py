"""What a bug report needs, also where parts are missing."""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys

import pytest

from kconv import choices, cli, info, native, system

HEADINGS = [
    *("versions", "build", "processor", "devices", "settings", "tuned choices"),
    *("packages", "environment"),
]


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A folder in the place of /proc."""
    monkeypatch.setattr(system, "_PROC", tmp_path)
    return tmp_path


def test_everything_is_told():
    facts = info.collect()
    assert list(facts) == HEADINGS
    assert [name for name, section in facts.items() if "error" in section] == []
    assert facts["build"]["TensorFlow ops"] == "loaded"
    assert facts["build"]["built for TensorFlow"]
    assert {"gemm", "builtin"} <= set(facts["build"]["algorithms"])
    assert set(facts["processor"]["instruction sets"]) <= set(
        facts["build"]["instruction sets built"]
    )
    assert " GHz" in facts["processor"]["frequency"]
    assert facts["devices"]["threads within operations"] >= 1
    assert facts["versions"]["NumPy"] == importlib.metadata.version("numpy")
    assert facts["packages"]["rich"] == importlib.metadata.version("rich")
    assert facts["devices"]["stock kernels"] in ("oneDNN", "Eigen")


def test_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # names are not broken over lines
    monkeypatch.setenv("KCONV_EXAMPLE", "[red]shown")
    monkeypatch.delenv("KCONV_MAX_ISA", raising=False)
    monkeypatch.setattr(info, "PACKAGES", ("no-such-package",))
    assert cli.main(["info"]) == 0
    words = capsys.readouterr().out
    lines = [line.split() for line in words.splitlines()]
    assert ["KCONV_EXAMPLE", "[red]shown"] in lines
    assert ["KCONV_MAX_ISA", "not", "set"] in lines
    assert ["no-such-package", "not", "installed"] in lines
    for word in ("TensorFlow", "instruction sets", "gemm direct", *HEADINGS):
        assert word in words


def test_json(capsys):
    assert cli.main(["info", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == HEADINGS


def test_environment(monkeypatch):
    for name in ("KCONV_CHOICES", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS", "OTHER"):
        monkeypatch.setenv(name, "value")
    monkeypatch.delenv("KCONV_ACCURACY", raising=False)
    found = info.collect()["environment"]
    for name in ("KCONV_CHOICES", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS"):
        assert found[name] == "value"
    assert found["KCONV_ACCURACY"] is None
    assert "OTHER" not in found


def test_packages_that_are_missing(monkeypatch):
    monkeypatch.setattr(info, "PACKAGES", ("numpy", "no-such-package"))
    found = info.collect()["packages"]
    assert found["no-such-package"] is None
    assert found["numpy"]


def test_tuned_choices(tmp_path, monkeypatch):
    path = tmp_path / "choices.json"
    monkeypatch.setenv("KCONV_CHOICES", str(path))
    held = {(2, "p"): "gemm", (2, "q"): "gemm"}
    monkeypatch.setattr(native, "choices", lambda: held)
    choices.save({"p": choices.entry("gemm", {"gemm": 1.0})}, 4)
    expected = {"file": str(path), "in the file": 1, "in use": ["2 for 2 threads"]}
    assert info.collect()["tuned choices"] == expected
    path.write_text("{")
    assert "no JSON" in info.collect()["tuned choices"]["damage"]
    monkeypatch.setenv("KCONV_CHOICES", "off")
    assert info.collect()["tuned choices"]["file"] == "switched off"


def test_what_fails_does_not_hide_the_rest(monkeypatch, capsys):
    def fail():
        raise OSError("It is broken.")

    monkeypatch.setattr(native, "core", fail)
    facts = info.collect()
    assert facts["build"]["error"] == "OSError: It is broken."
    assert facts["build"]["TensorFlow ops"] == "loaded"
    assert facts["packages"]["rich"]
    assert cli.main(["info"]) == 0
    assert "It is broken." in capsys.readouterr().out


def test_a_process_without_compiled_parts_and_of_strict_accuracy():
    environment = {**os.environ, "KCONV_DISABLE_NATIVE": "1"}
    environment["KCONV_ACCURACY"] = "strict"
    command = [sys.executable, "-W", "ignore", "-m", "kconv", "info", "--json"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    facts = json.loads(told.stdout)
    assert "switches kconv's kernels off" in facts["build"]["TensorFlow ops"]
    assert facts["build"]["algorithms"] == ["builtin"]
    assert facts["settings"]["accuracy"] == "strict"
    assert [name for name, section in facts.items() if "error" in section] == []


# The machine.


def test_a_system_without_proc(proc, capsys):
    assert system.processor_name()
    assert system.memory() is None
    assert system.nvidia_driver() is None
    assert "error" not in info.collect()["processor"]
    assert cli.main(["info"]) == 0


def test_what_linux_tells(proc, monkeypatch):
    monkeypatch.setattr(system, "processors", lambda: 2)
    proc.joinpath("cpuinfo").write_text(
        "processor\t: 0\nmodel name\t: A fast: one\nmodel\t: 7\n\nmodel name\t: Two\n"
    )
    proc.joinpath("meminfo").write_text(
        "MemTotal:       2048 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n"
    )
    nvidia = pathlib.Path(proc, "driver", "nvidia", "version")
    nvidia.parent.mkdir(parents=True)
    nvidia.write_text("NVRM version: NVIDIA Kernel Module  1.2\nGCC version: 12\n")
    assert info.processor() == "2 x A fast: one"
    assert system.memory() == (2 << 20, 1 << 20)
    assert system.nvidia_driver() == "NVIDIA Kernel Module  1.2"
    found = info.collect()
    assert found["processor"]["memory"] == "2.0 MiB, 1.0 MiB available"
    assert found["devices"]["NVIDIA driver"] == "NVIDIA Kernel Module  1.2"


@pytest.mark.parametrize("told", [True, False])
def test_an_assumed_frequency_is_called_so(told, tmp_path, monkeypatch):
    path = tmp_path / "cpuinfo_max_freq"
    monkeypatch.setattr(system, "_FREQUENCY", path)
    if told:
        path.write_text("3000000")
    assert ("assumed" in info.collect()["processor"]["frequency"]) is not told


def test_processors_are_those_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5}, raising=False)
    assert system.processors() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert system.processors() == 7
