"""The GPU library: built where nvcc is, and harmless everywhere."""

import ast
import ctypes
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import kconv
from kconv import cuda, info

ROOT = pathlib.Path(__file__).parent.parent
needs_library = pytest.mark.skipif(
    not cuda.LIBRARY.exists(), reason="kconv/_cuda.so is not built here."
)


@pytest.fixture
def build(monkeypatch):
    """The module setup.py, in the folder where its commands run."""
    monkeypatch.chdir(ROOT)
    for name in ("KCONV_CUDA", "NVCC", "NVCC_CCBIN", "CUDA_HOME", "CUDA_PATH", "CXX"):
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("kconv_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def run(*command):
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=True
    ).stdout


def nvcc_in(folder, words="exit 1"):
    """A program of that name."""
    folder.mkdir(parents=True)
    program = folder / "nvcc"
    program.write_text(f"#!/bin/sh\n{words}\n")
    program.chmod(0o755)
    return str(program)


def names(build):
    return [one.name for one in build.extensions()]


def test_it_is_built_where_nvcc_is(build, tmp_path, monkeypatch):
    monkeypatch.setenv("NVCC", "no-such-nvcc")
    assert build.nvcc() is None
    assert "kconv._cuda" not in names(build)
    program = nvcc_in(tmp_path / "cuda" / "bin")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    assert build.nvcc() == [program]
    assert "kconv._cuda" in names(build)
    monkeypatch.setenv("NVCC", f"{program} --threads 2")
    assert build.nvcc() == [program, "--threads", "2"]
    monkeypatch.setenv("KCONV_CUDA", "0")
    assert "kconv._cuda" not in names(build)


def test_missing_nvcc_is_an_error_where_it_was_asked_for(build, monkeypatch):
    monkeypatch.setenv("NVCC", "no-such-nvcc")
    monkeypatch.setenv("KCONV_CUDA", "1")
    assert "kconv._cuda" in names(build)
    with pytest.raises(build.CCompilerError, match="Received: NVCC=no-such-nvcc"):
        build.cuda_units()


class Command:
    """What `BuildNative.build_cuda` needs of a command."""

    inplace_before = False

    def __init__(self, folder):
        self.output, self.warnings = folder / "_cuda.so", []

    def get_ext_fullpath(self, name):
        assert name == "kconv._cuda"
        return str(self.output)

    def warn(self, words):
        self.warnings.append(words)


def test_failing_nvcc_is_a_warning(build, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "OBJECTS", tmp_path / "objects")
    monkeypatch.setenv("NVCC", nvcc_in(tmp_path / "bin", "echo nonsense >&2; exit 1"))
    command = Command(tmp_path)
    command.output.write_text("of an earlier build")
    build.BuildNative.build_cuda(command)
    (words,) = command.warnings
    assert "nvcc failed" in words
    assert "nonsense" in words
    assert not command.output.exists()
    monkeypatch.setenv("KCONV_CUDA", "1")
    with pytest.raises(build.CCompilerError, match="nonsense"):
        build.BuildNative.build_cuda(Command(tmp_path))


def test_nvcc_that_cannot_start_is_a_warning(build, tmp_path, monkeypatch):
    program = pathlib.Path(nvcc_in(tmp_path / "bin"))
    program.write_text("#!/no/such/interpreter\n")
    monkeypatch.setattr(build, "OBJECTS", tmp_path / "objects")
    monkeypatch.setenv("NVCC", str(program))
    command = Command(tmp_path)
    build.BuildNative.build_cuda(command)
    assert "nvcc failed" in command.warnings[0]


@pytest.mark.parametrize(
    ("variables", "flags"),
    [
        ({"CXX": "g++ -m64"}, ["-ccbin", "g++"]),
        ({"CXX": "env g++ -m64"}, ["-ccbin", "g++"]),  # as ccache
        ({"CXX": "g++", "NVCC": " -ccbin g++-12"}, []),
        ({"CXX": "g++", "NVCC_CCBIN": "g++-12"}, []),
    ],
)
def test_host_compiler_of_nvcc(build, variables, flags, tmp_path, monkeypatch):
    program = nvcc_in(tmp_path / "bin")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NVCC", program + variables.get("NVCC", ""))
    assert build.nvcc_host_flags() == flags


def test_gpu_sources_are_in_no_other_library(build):
    core = {unit.source.as_posix() for unit in build.core_units()}
    assert not [name for name in core if name.startswith("csrc/cuda/")]
    assert "csrc/shape.cc" in core


def test_every_cu_file_is_compiled(build, tmp_path, monkeypatch):
    monkeypatch.setenv("NVCC", nvcc_in(tmp_path / "bin"))
    units = {unit.source.as_posix(): unit.command for unit in build.cuda_units()}
    assert "csrc/algorithms/direct/cuda.cu" in units
    command = units["csrc/algorithms/depthwise/cuda.cu"]
    for code in ("code=sm_80", "code=[sm_90,compute_90]"):
        assert code in " ".join(command)
    assert "csrc/cuda/kconv_cuda.cc" in units


@needs_library
def test_library_exports_its_interface_and_needs_no_cuda():
    exported = run("nm", "-D", "--defined-only", cuda.LIBRARY).split()[2::3]
    assert exported
    assert all(name.startswith("kconv_cuda_") for name in exported)
    undefined = run("nm", "-D", "--undefined-only", cuda.LIBRARY)
    assert "malloc" in undefined
    assert "cuda" not in undefined.lower()
    needed = run("readelf", "--dynamic", cuda.LIBRARY)
    assert "NEEDED" in needed
    assert "cuda" not in needed.replace("_cuda.so", "").lower()
    assert "tensorflow" not in needed


@needs_library
def test_library_answers_without_a_gpu():
    script = """
import ctypes, importlib.util, sys
spec = importlib.util.spec_from_file_location("cuda_interface", sys.argv[1])
cuda = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = cuda
spec.loader.exec_module(cuda)
library = cuda.declared(ctypes.CDLL(str(cuda.LIBRARY)))
names = [library.kconv_cuda_algorithm(-1), library.kconv_cuda_algorithm(0)]
while names[-1] is not None:
    names.append(library.kconv_cuda_algorithm(len(names) - 1))
words = dict(batch=2, groups=32, padding=((1, 1), (1, 1)))
one = cuda.problem("filter_gradient", (56, 56), (3, 3), 32, 32, **words)
other = cuda.problem("forward", (56, 56), (3, 3), 32, 32)
wrong = cuda.problem("forward", (2, 2), (3, 3), 32, 32)
print([
    library.kconv_cuda_interface() == cuda.INTERFACE,
    library.kconv_cuda_version().decode(),
    names,
    library.kconv_cuda_refuse(b"depthwise", one),
    b"one filter" in library.kconv_cuda_refuse(b"depthwise", other),
    b"Received: " in library.kconv_cuda_refuse(b"direct", wrong),
    b"algorithm=none" in library.kconv_cuda_refuse(b"none", one),
    library.kconv_cuda_workspace(b"depthwise", one) > 4 * 9 * 32,
    library.kconv_cuda_workspace(b"depthwise", other),
    "tensorflow" in sys.modules,
])
"""
    table = (ROOT / "csrc" / "cuda" / "algorithms.cc").read_text(encoding="utf-8")
    listed = [name.encode() for name in re.findall(r'{"([\w:]+)"', table)]
    assert b"direct" in listed
    # A process of its own: this library must not need what tests have loaded.
    found = run(sys.executable, "-c", script, ROOT / "kconv" / "cuda.py")
    assert ast.literal_eval(found) == [
        *(True, kconv.__version__, [None, *listed, None]),
        *(None, True, True, True, True, -1, False),
    ]


def fake(monkeypatch, driver=13000, built=13000, devices=1, version="0"):
    """Lets `find` meet a driver and a library that say these numbers."""

    def says(value):
        def function(*_):
            return value

        return function

    class Library:
        kconv_cuda_interface = staticmethod(says(cuda.INTERFACE))
        kconv_cuda_version = staticmethod(says(version.encode()))
        kconv_cuda_runtime_version = staticmethod(says(built))
        kconv_cuda_devices = staticmethod(says(devices))

    monkeypatch.setattr(cuda, "driver_version", lambda: driver)
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda path: Library)
    monkeypatch.setattr(cuda, "declared", lambda library: library)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, None),
        ({"driver": 13010, "built": 13000}, None),
        ({"driver": None}, "NVIDIA's driver, cannot be loaded"),
        ({"driver": 12080}, "Received: one of CUDA 12.8"),
        ({"devices": 0}, "no GPU"),
        ({"version": "0.0.1"}, "built for kconv 0.0.1"),
    ],
)
def test_what_it_needs(facts, words, monkeypatch, tmp_path):
    path = tmp_path / "_cuda.so"
    path.touch()
    fake(monkeypatch, **facts)
    status = cuda.find("0", path)
    if words is None:
        assert status.library is not None
        assert status.why_missing is None
    else:
        assert status.library is None
        assert words in status.why_missing


def test_missing_or_broken_library(tmp_path, monkeypatch):
    monkeypatch.setattr(cuda, "driver_version", lambda: 13000)
    path = tmp_path / "_cuda.so"
    assert "not built" in cuda.find(path=path).why_missing
    path.write_bytes(b"no library")
    assert "cannot be loaded" in cuda.find(path=path).why_missing


def test_driver_that_is_missing():
    assert cuda.driver_version("libno-such-driver.so.1") is None


def test_info_tells_of_it(monkeypatch):
    found = info.collect()["devices"]["kconv's GPU library"]
    why = cuda.find(kconv.__version__).why_missing
    assert found == (why or found)
    status = cuda.Status(ctypes.CDLL(None), None, "0", 13000, 13020, 2)
    monkeypatch.setattr(cuda, "find", lambda version: status)
    found = info.collect()["devices"]["kconv's GPU library"]
    assert found == "loaded, of CUDA 13.0, for 2 GPUs"


def test_run_sh_fails_loudly(tmp_path):
    script = ROOT / "tests" / "gpu" / "run.sh"
    done = subprocess.run([script, "nonsense"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Received: nonsense" in done.stderr
    if cuda.find().library is None:
        environment = {**os.environ, "PYTHON": sys.executable}
        for stage in ("check", "speed"):
            done = subprocess.run(
                [script, stage], capture_output=True, text=True, env=environment
            )
            assert done.returncode != 0
            assert "=== done" not in done.stdout
            assert "GPU" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="There is no nvcc.")
def test_everything_compiles_without_a_warning(build, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "OBJECTS", tmp_path / "objects")
    monkeypatch.setenv("KCONV_WERROR", "1")
    units = build.cuda_units()
    build.compile_all(units)
    build.link_cuda(units, tmp_path / "_cuda.so")
    assert "kconv_cuda_run" in run("nm", "-D", "--defined-only", tmp_path / "_cuda.so")
