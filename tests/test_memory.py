"""Memory: what is resident, and that calls of other shapes leave nothing behind."""

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

import kconv
from kconv.benchmark import resident

SCRIPT = Path(__file__).with_name("growth.py")
MIB = 2**20

# What the allocator holds back at times; and leaks from here on are found: of a call
# that leaves as little as a small image, hundreds are more.
MOST_GROWTH = MIB
LEAK = 3000  # floats

linux = pytest.mark.skipif(resident.now() is None, reason="needs /proc/self/status")


def growth(way, calls, warm_up, shapes, leak=0):
    """Bytes that a process grows after its warm-up, in each half of the other calls.

    A list of pairs: without a leak, and with one if it is asked for.
    """
    arguments = [way, "kconv", calls, warm_up, shapes, leak]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(kconv.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [(middle - start, end - middle) for start, middle, end in found]


def is_growing(halves):
    """Whether both halves grew: what fills once, such as a cache, is no leak."""
    return min(halves) > MOST_GROWTH / 2


@linux
def test_graphs_of_unknown_shapes_leave_nothing_behind():
    found, with_a_leak = growth("graph", 1000, 300, shapes=1000, leak=LEAK)
    assert not is_growing(found)
    assert is_growing(with_a_leak)


@linux
@pytest.mark.slow
@pytest.mark.parametrize("shapes", [40, 3000])
@pytest.mark.parametrize("way", ["graph", "eager"])
def test_many_calls_leave_nothing_behind(way, shapes):
    [found] = growth(way, 3000, 1500, shapes)
    assert not is_growing(found)


@linux
def test_the_peak_is_that_since_its_reset():
    # A mapping of its own: what malloc is given back may stay resident in its heap.
    size = 128 * MIB
    mapping = mmap.mmap(-1, size)
    empty = resident.now()
    for page in range(0, size, mmap.PAGESIZE):
        mapping[page] = 1
    full = resident.now()
    assert full > empty + size / 2
    mapping.close()
    assert resident.now() < full - size / 2
    assert resident.peak() > full - MIB
    if not resident.reset_peak():
        pytest.skip("The system does not allow the peak to be reset.")
    assert resident.peak() < full - size / 2


def test_systems_that_tell_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(resident, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(resident, "_CLEAR", tmp_path)
    assert (resident.now(), resident.peak()) == (None, None)
    assert not resident.reset_peak()
