"""The scripts of tests/gpu, with the host in the place of a GPU."""

import ctypes
import functools
import pathlib
import sys
import types

import cuda_twin
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent / "gpu"))
import check
import deformable
import device
import speed


class Host:
    """What `device.Torch` is, of NumPy."""

    def __init__(self):
        self.spoiled = False

    def put(self, array):
        return np.ascontiguousarray(array).copy()

    def empty(self, byte_count):
        return np.full(max(16, byte_count), 255, np.uint8)

    def address(self, tensor):
        return tensor.ctypes.data

    def get(self, tensor, shape, dtype):
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        found = tensor[:count].copy().view(dtype).reshape(shape)
        if self.spoiled:
            found.flat[-1] += found.dtype.type(0.5)
        return found

    def stream(self):
        return None

    def wait(self):
        pass


@functools.cache
def native():
    """The library once more, with the structs of the scripts' own interface."""
    handle = cuda_twin.library()._handle
    return device.interface.declared(ctypes.CDLL("twin", handle=handle))


def run(gpu, algorithm, words, pass_, dtype="float32"):
    return check.check(gpu, native(), algorithm, words, pass_, dtype, 0, False)


@pytest.mark.parametrize("pass_", check.PASSES)
@pytest.mark.parametrize("algorithm", ["direct", "depthwise"])
def test_check(algorithm, pass_):
    cases = {"direct": check.DIRECT[-4:], "depthwise": check.DEPTHWISE[-5:]}[algorithm]
    for words in check.both_layouts(cases):
        assert not run(Host(), algorithm, words, pass_)
    for dtype in ("float16", "bfloat16"):
        assert not run(Host(), algorithm, cases[0], pass_, dtype)


@pytest.mark.parametrize("pass_", check.PASSES)
def test_check_finds_a_wrong_value(pass_):
    gpu = Host()
    gpu.spoiled = True
    with pytest.raises(AssertionError, match="1 of"):
        run(gpu, "depthwise", check.DEPTHWISE[2], pass_)


@pytest.mark.parametrize(
    ("shifts", "words"), [((1,), "alignment"), ((0,), "two runs differ")]
)
def test_check_finds_results_that_differ(shifts, words, monkeypatch):
    real, runs = check.run, []

    def once_off(*what, shift=0, **more):
        result = real(*what, shift=shift, **more)
        runs.append(shift)
        if len(runs) > 1 and shift in shifts:
            result.flat[0] *= 1 + 1e-6
        return result

    monkeypatch.setattr(check, "run", once_off)
    with pytest.raises(AssertionError, match=words):
        run(Host(), "depthwise", check.DEPTHWISE[2], "forward")


@pytest.mark.parametrize("pass_", check.PASSES)
def test_check_of_deformable(pass_):
    kinds = check.types()
    for number, words in enumerate(deformable.SMALL):
        what = (words, pass_, "float32", kinds["float32"], number)
        deformable.check(Host(), native(), *what)
    for dtype in ("float64", "bfloat16"):
        what = (deformable.SMALL[4], pass_, dtype, kinds[dtype], 1)
        deformable.check(Host(), native(), *what)


def test_check_of_deformable_counts_failures(capsys, monkeypatch):
    monkeypatch.setattr(deformable, "SMALL", deformable.SMALL[:1])
    gpu, kinds = Host(), {"float32": check.types()["float32"]}
    assert deformable.check_all(gpu, native(), kinds, small=True) == (3, 0)
    gpu.spoiled = True
    assert deformable.check_all(gpu, native(), kinds, small=True) == (3, 3)
    assert capsys.readouterr().out.count("FAILED deformable") == 3


def test_times_of_deformable(capsys, monkeypatch):
    monkeypatch.setattr(deformable, "LAYERS", [((5, 6), 8, 2)])
    gpu = Host()
    gpu.torch = types.SimpleNamespace(cuda=types.SimpleNamespace(empty_cache=int))
    passes = []

    def median(torch, calls):
        calls[0]()
        passes.append(calls)
        return 2e-6

    deformable.table(gpu, native(), median, 1e9)
    rows = capsys.readouterr().out.splitlines()
    assert len(passes) == 6
    # 5 x 6 x 2 pixels, 9 taps, 8 x 8 channels, two operations, of 1000 a microsecond.
    share = f"{2 * 60 * 9 * 64 / 2000:.0%}"
    assert [row.split()[-1] for row in rows[2:]] == [share] * 4
    assert [row.split()[-2] for row in rows[2:]] == ["2.0", "4.0"] * 2


def test_peaks_are_those_of_the_driver():
    # An H100 with HBM3: 132 processors at 1.98 GHz, 5120 bits at 2.619 GHz.
    told = {13: 1980000, 16: 132, 36: 2619000, 37: 5120, 38: 50 << 20, 75: 9, 76: 0}

    def attribute(value, which, gpu):
        value._obj.value = told[which]
        return 0

    def get(gpu, number):
        gpu._obj.value = number
        return 0

    driver = types.SimpleNamespace(
        cuInit=lambda flags: 0, cuDeviceGet=get, cuDeviceGetAttribute=attribute
    )
    peaks = device.peaks(0, driver)
    assert peaks.bandwidth == pytest.approx(3.352e12, rel=1e-3)
    assert peaks.flops == pytest.approx(66.9e12, rel=1e-3)
    assert peaks.cache == 50 << 20
    driver.cuInit = lambda flags: 100
    with pytest.raises(RuntimeError, match=r"cuInit failed\. Received: error 100"):
        device.peaks(0, driver)


class Clock:
    """A GPU as events see it: calls take time, and so does the sleep."""

    def __init__(self):
        self.now, self.slept = 0.0, 0
        self.cuda = self
        self.Event = lambda enable_timing: Event(self)

    def synchronize(self):
        pass

    def _sleep(self, clocks):
        self.slept += 1
        self.now += 1e3


class Event:
    def __init__(self, clock):
        self.clock = clock

    def record(self):
        self.at = self.clock.now

    def elapsed_time(self, other):
        return other.at - self.at


@pytest.mark.parametrize(
    ("milliseconds", "timed"), [((0.5, 0.5, 0.5), 30), ((20, 30, 40), 15), ((100,), 5)]
)
def test_median_of_calls_alone(milliseconds, timed):
    clock, made = Clock(), []

    def call(duration):
        made.append(duration)
        clock.now += duration

    calls = [lambda one=one: call(one) for one in milliseconds]
    expected = sorted(milliseconds)[len(milliseconds) // 2] / 1e3
    assert speed.median(clock, calls) == pytest.approx(expected)
    assert len(made) == max(speed.WARM, len(calls)) + 1 + timed
    assert clock.slept == 2


def test_memory_of_a_sanitized_run_is_no_pool(monkeypatch):
    class Cuda:
        set_allocator = staticmethod(lambda allocator: pools.append(allocator))
        runtime = types.SimpleNamespace(getDeviceProperties=lambda _: {"name": b"GPU"})

    pools = []
    cupy = types.SimpleNamespace(cuda=Cuda, __version__="0")
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delenv("PYTORCH_NO_CUDA_MEMORY_CACHING", raising=False)
    assert device.find().name == "CuPy 0"
    assert pools == []
    device.find(pooled=False)
    assert pools == [None]
    assert device.os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"


def test_call_refuses_what_the_library_refuses():
    words = {**check.DIRECT[2], "pass_": "forward"}
    with pytest.raises(ValueError, match="depthwise refuses"):
        device.Call(Host(), native(), "depthwise", words, [None] * 4)
    assert ctypes.sizeof(device.interface.Problem) == 24 + 8 * (4 + 6 * 3)
