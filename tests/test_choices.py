"""The file of measured choices, with all that can be wrong with it."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from kconv import choices, settings

MACHINE = {"processor": "A", "isa": "avx2", "l1d": 1, "l2": 2, "l3": 3}
VERSIONS = {"kconv": "1", "TensorFlow": "2", "stock": "Eigen"}


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    """A file of its own for each test, on a machine of a test."""
    path = tmp_path / "cache" / "choices.json"
    monkeypatch.setenv("KCONV_CHOICES", str(path))
    monkeypatch.setattr(choices, "machine", lambda: MACHINE)
    monkeypatch.setattr(choices, "versions", lambda: VERSIONS)
    monkeypatch.setattr(settings, "accuracy", lambda: "fast")
    monkeypatch.setattr(settings, "workspace_limit", lambda: None)
    return path


def entry(algorithm="gemm", when="2020-01-01T00:00:00Z"):
    return {"algorithm": algorithm, "seconds": {algorithm: 1.0}, "when": when}


def section(found, **other):
    setting = {"machine": MACHINE, "versions": VERSIONS, "threads": 2}
    terms = {"accuracy": "fast", "workspace_limit": None}
    return {**setting, **terms, "choices": found, **other}


def write(path, *sections, **other):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**choices.FORMAT, "sections": sections, **other}))


def loaded_quietly():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return choices.load()


# Where it is.


def test_location(monkeypatch, tmp_path):
    monkeypatch.setenv("KCONV_CHOICES", "~/mine.json")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert choices.location() == tmp_path / "mine.json"
    monkeypatch.delenv("KCONV_CHOICES")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert choices.location() == Path("/caches/kconv/choices.json")
    for none in ("", "relative"):  # which the standard says to ignore
        monkeypatch.setenv("XDG_CACHE_HOME", none)
        expected = tmp_path / ".cache" / "kconv" / "choices.json"
        assert choices.location() == expected
    monkeypatch.setenv("KCONV_CHOICES", "Off")
    assert choices.location() is None


def test_switched_off_nothing_is_read_or_written(path, monkeypatch):
    write(path, section({"p": entry()}))
    before = path.read_bytes()
    monkeypatch.setenv("KCONV_CHOICES", "off")
    assert loaded_quietly() == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choices.save({"q": entry()}, 2) is None
    assert path.read_bytes() == before


def test_without_a_home_choices_hold_for_the_process(monkeypatch):
    monkeypatch.delenv("KCONV_CHOICES")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    assert loaded_quietly() == {}
    with pytest.warns(UserWarning, match="hold for this process only: set KCONV_CHO"):
        assert choices.save({"p": entry()}, 2) is None


# What is read.


def test_what_was_saved_is_loaded(path):
    assert loaded_quietly() == {}
    found = {"p": choices.entry("gemm", {"gemm": 0.00123456, "direct": 2})}
    assert choices.save(found, 2) == path
    choices.save({"p": choices.entry("builtin", {"builtin": 1})}, 4)
    expected = {(2, "p"): "gemm", (4, "p"): "builtin"}
    assert loaded_quietly() == expected
    (two, _), wrong = choices.read()
    assert two["choices"]["p"]["seconds"] == {"gemm": 0.001235, "direct": 2}
    assert wrong == []
    assert sorted(os.listdir(path.parent)) == ["choices.json", "choices.json.lock"]


def test_later_choices_replace_earlier_ones():
    choices.save({"p": entry("gemm"), "q": entry("gemm")}, 2)
    choices.save({"p": entry("direct")}, 2)
    assert loaded_quietly() == {(2, "p"): "direct", (2, "q"): "gemm"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "no JSON"),
        ("\x00\x00", "no JSON"),
        pytest.param("[" * 100_000, "no JSON", id="deep"),
        ("[]", "no tuned choices"),
        ('{"models": {}}', "no tuned choices"),
        (json.dumps({**choices.FORMAT, "version": 2, "sections": []}), "other format"),
        (json.dumps(choices.FORMAT), "no sections"),
        (json.dumps({**choices.FORMAT, "sections": {}}), "no sections"),
    ],
)
def test_corrupt_file_is_ignored_and_moved_aside(path, text, reason):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.warns(UserWarning, match=f"{path}: .*{reason}.*kconv tune") as told:
        assert choices.load() == {}
    assert len(told) == 1
    assert path.read_text() == text
    with pytest.warns(UserWarning, match="moved to .*choices.json.bad") as told:
        assert choices.save({"p": entry()}, 2) == path
    assert len(told) == 1
    assert Path(f"{path}.bad").read_text() == text
    assert loaded_quietly() == {(2, "p"): "gemm"}


def test_bytes_that_are_no_text_are_ignored(path):
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe{}")
    with pytest.warns(UserWarning, match="ignored"):
        assert choices.load() == {}


def test_empty_file_is_a_new_one(path):
    path.parent.mkdir()
    path.touch()
    assert loaded_quietly() == {}
    choices.save({"p": entry()}, 2)
    assert not Path(f"{path}.bad").exists()


@pytest.mark.parametrize(
    "bad",
    [
        7,
        {},
        section([]),
        section({}, threads="2"),
        section({}, threads=-1),
        section({}, threads=True),
        section({}, threads=2**31),
        section({}, machine=None),
        section({}, versions={"kconv": []}),
        section({}, accuracy="exact"),
        section({}, workspace_limit="1M"),
        section({}, workspace_limit=-1),
        section({"q": None}),
        section({"\ud800": entry()}),
        section({"q\0": entry()}),
        section({"q": entry() | {"algorithm": 7}}),
        section({"q": entry() | {"when": 7}}),
        section({"q": entry() | {"seconds": {"gemm": "1"}}}),
        section({"q": entry() | {"seconds": {"gemm": float("nan")}}}),
        section({"q": entry() | {"seconds": {"gemm": 0}}}),
        section({"q": entry() | {"seconds": [1]}}),
        section({"q": entry() | {"seconds": {"gemm": 10**400}}}),
    ],
)
def test_damaged_part_is_ignored_and_the_rest_kept(path, bad):
    write(path, bad, section({"p": entry()}))
    with pytest.warns(UserWarning, match="damaged, and part of it") as told:
        assert choices.load() == {(2, "p"): "gemm"}
    assert len(told) == 1
    with pytest.warns(UserWarning, match="moved to"):
        choices.save({"r": entry()}, 2)
    assert loaded_quietly() == {(2, "p"): "gemm", (2, "r"): "gemm"}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"machine": {**MACHINE, "processor": "B"}}, r"other processors \(B, or"),
        ({"machine": {**MACHINE, "isa": "sse2"}}, "instruction sets"),
        ({"machine": {**MACHINE, "l3": 4}}, "other caches"),
        ({"versions": {**VERSIONS, "kconv": "0"}}, "other versions than these"),
        ({"versions": {**VERSIONS, "stock": "oneDNN"}}, "TensorFlow 2, stock Eigen"),
    ],
)
def test_foreign_and_stale_sections_are_ignored_and_kept(path, other, words):
    write(path, section({"p": entry()}, **other))
    with pytest.warns(UserWarning, match=f"{words}.*kconv tune") as told:
        assert choices.load() == {}
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choices.save({"q": entry()}, 2)
    # Beside a section that fits the others are no news.
    assert loaded_quietly() == {(2, "q"): "gemm"}
    assert choices.read()[0][0] == section({"p": entry()}, **other)


def test_algorithms_that_are_gone_are_ignored(path):
    write(path, section({"p": entry("spectral"), "q": entry("winograd:f4")}))
    with pytest.warns(UserWarning, match="algorithms that are gone: spectral.*tune"):
        assert choices.load() == {(2, "q"): "winograd:f4"}


def test_choices_hold_under_the_settings_they_were_measured_under(monkeypatch):
    def under(accuracy, limit):
        monkeypatch.setattr(settings, "accuracy", lambda: accuracy)
        monkeypatch.setattr(settings, "workspace_limit", lambda: limit)

    free = {"p": entry("winograd:f4"), "q": entry("builtin")}
    choices.save(free, 2)
    under("strict", None)
    choices.save({"p": entry("gemm"), "r": entry("gemm")}, 2)
    under("fast", 1 << 20)
    choices.save({"p": entry("direct"), "s": entry("direct")}, 2)
    under("strict", 1 << 20)
    choices.save({"t": entry("grouped")}, 2)

    def expected(**mine):
        return {(2, key): name for key, name in mine.items()}

    free = {"p": "winograd:f4", "q": "builtin"}
    under("fast", None)
    assert loaded_quietly() == expected(**free)
    under("strict", None)
    assert loaded_quietly() == expected(**free | {"p": "gemm", "r": "gemm"})
    under("fast", 1 << 20)
    assert loaded_quietly() == expected(**free | {"p": "direct", "s": "direct"})
    under("fast", 1 << 21)
    assert loaded_quietly() == expected(**free)
    under("strict", 1 << 20)
    assert loaded_quietly()[2, "t"] == "grouped"


def test_load_never_raises(path, monkeypatch):
    write(path, section({"p": entry()}))

    def machine():
        raise KeyError("l1d")

    monkeypatch.setattr(choices, "machine", machine)
    with pytest.warns(UserWarning, match="tuned choices are ignored, for 'l1d'"):
        assert choices.load() == {}
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match=f"Is a directory .{path}"):
        assert choices.load() == {}


# What is written.


def test_oldest_choices_make_room(monkeypatch):
    monkeypatch.setattr(choices, "MOST_CHOICES", 3)
    ages = {"a": "2020", "b": "2023", "c": "2021"}
    choices.save({k: entry(when=v) for k, v in ages.items()}, 1)
    choices.save({"d": entry(when="2022"), "e": entry(when="2024")}, 2)
    assert set(loaded_quietly()) == {(1, "b"), (2, "d"), (2, "e")}
    choices.save({k: entry(when="2025") for k in "fgh"}, 2)
    assert len(choices.read()[0]) == 1  # a section without choices goes


def test_what_cannot_be_written_is_a_warning(path):
    path.parent.write_text("a file in the place of the folder")
    with pytest.warns(UserWarning, match="cannot be written, and hold for this"):
        assert choices.save({"p": entry()}, 2) is None
    path.parent.unlink()
    path.mkdir(parents=True)
    (path / "important").touch()
    with pytest.warns(UserWarning, match="cannot be written"):
        assert choices.save({"p": entry()}, 2) is None
    assert (path / "important").exists()


def test_failed_write_leaves_the_old_file(path, monkeypatch):
    choices.save({"p": entry()}, 2)

    def fsync(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.warns(UserWarning, match="No space left"):
        assert choices.save({"q": entry()}, 2) is None
    assert loaded_quietly() == {(2, "p"): "gemm"}
    assert sorted(os.listdir(path.parent)) == ["choices.json", "choices.json.lock"]


def test_a_link_stays_one(path, tmp_path, monkeypatch):
    real = tmp_path / "real.json"
    path.parent.mkdir()
    path.symlink_to(real)
    choices.save({"p": entry()}, 2)
    assert path.is_symlink()
    assert real.is_file()
    assert loaded_quietly() == {(2, "p"): "gemm"}


def test_clear_forgets_this_machine_only(path):
    foreign = section({"p": entry()}, machine={**MACHINE, "isa": "sse2"})
    stale = section({"p": entry()}, versions={**VERSIONS, "kconv": "0"})
    write(path, foreign, stale, section({"p": entry(), "q": entry()}))
    assert choices.clear() == 3
    assert choices.read() == ([foreign], [])
    path.unlink()
    assert choices.clear() == 0
    assert not path.exists()


# Several writers. The file of the module is all that they need.

WRITER = """
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("choices", sys.argv[1])
choices = importlib.util.module_from_spec(spec)
spec.loader.exec_module(choices)
choices.machine, choices.versions = dict, dict
class Settings:
    accuracy = staticmethod(lambda: "fast")
    workspace_limit = staticmethod(lambda: None)
class Kconv:
    settings = Settings
sys.modules["kconv"] = Kconv  # the whole takes seconds to import
def save(i):
    return choices.save({f"{sys.argv[2]} {i}": choices.entry("gemm", {"gemm": 1})}, 1)
"""
SEVERAL = "for i in range(25): assert save(i)"
KILLED = "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nsave(0)"


def writer(name, what):
    command = [sys.executable, "-c", WRITER + what, choices.__file__, name]
    return subprocess.Popen(command)


def keys():
    sections, wrong = choices.read()
    assert wrong == []
    return {key for one in sections for key in one["choices"]}


def test_writers_at_once_lose_nothing():
    writers = [writer(str(n), SEVERAL) for n in range(6)]
    while any(one.poll() is None for one in writers):
        keys()  # whole at every moment
    assert [one.returncode for one in writers] == [0] * 6
    assert keys() == {f"{n} {i}" for n in range(6) for i in range(25)}


def test_killed_writer_does_no_harm(path):
    choices.save({"p": entry()}, 2)
    assert writer("killed", KILLED).wait() == -9
    (left,) = path.parent.glob("*.new")
    assert "killed 0" in left.read_text()
    assert keys() == {"p"}
    choices.save({"q": entry()}, 2)
    assert keys() == {"p", "q"}
    assert not left.exists()


def test_lock_that_is_never_freed_is_not_waited_for(path, monkeypatch):
    monkeypatch.setattr(choices, "_LOCK_SECONDS", 0.02)
    path.parent.mkdir()
    with choices._locked(path), pytest.warns(UserWarning, match="keeps it locked"):
        assert choices.save({"p": entry()}, 2) is None
    assert choices.save({"p": entry()}, 2) == path
