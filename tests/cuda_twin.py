"""The GPU library on the host, and calls of it: `cuda_host.cc`.

What each thread of each block does runs step by step, from the headers that nvcc
compiles for the GPU. What this cannot show is how a GPU runs it.
"""

import contextlib
import ctypes
import dataclasses
import fcntl
import functools
import hashlib
import os
import pathlib
import shutil
import subprocess

import numpy as np
import reference
from problems import DTYPES, judged, magnitude, naming

from kconv import cuda

ROOT = pathlib.Path(__file__).parent.parent
FOLDER = ROOT / "build" / "twin"
SOURCES = (
    *("tests/cuda_host.cc", "csrc/cuda/kconv_cuda.cc", "csrc/shape.cc"),
    *("tests/cuda_deform_host.cc", "csrc/cuda/kconv_cuda_deform.cc"),
    "csrc/deformable/shape.cc",
)


def build():
    """Compiles the library once for all processes; returns its path.

    KCONV_HOST_FLAGS adds sanitizers.
    """
    compiler = next(filter(shutil.which, ("g++", "clang++", "c++")))
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]
    flags += ["-Wno-psabi", "-Icsrc", "-Itests", '-DKCONV_VERSION="twin"']
    flags += os.environ.get("KCONV_HOST_FLAGS", "").split()
    command = [compiler, *flags, *SOURCES]
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"cuda_twin_{_digest(command)}.so"
    # The first process compiles, the others wait for it.
    with open(FOLDER / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _compile(command, path)
    return path


def _digest(command):
    """Names what is compiled: the compiler, the command, and all that it may read."""
    digest = hashlib.sha256("\0".join(command).encode())
    digest.update(subprocess.check_output([command[0], "--version"]))
    headers = sorted([*ROOT.glob("csrc/**/*.h"), *ROOT.glob("tests/*.h")])
    for file in (*(ROOT / source for source in SOURCES), *headers):
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _compile(command, path):
    # What was broken off must not pass for a library.
    unfinished = path.with_suffix(".part")
    done = subprocess.run(
        [*command, "-o", unfinished],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    unfinished.rename(path)


def declared(path):
    """Returns the library of a path, loaded."""
    loaded = cuda.declared(ctypes.CDLL(str(path)))
    loaded.kconv_host_launch.restype = ctypes.c_char_p
    loaded.kconv_host_deform_launch.restype = ctypes.c_char_p
    loaded.kconv_host_runs.restype = ctypes.c_int64
    return loaded


@functools.cache
def library():
    """Returns it, loaded."""
    return declared(build())


def problem_of(case, pass_, dtype="float32", **epilogue):
    return cuda.problem(pass_, **dataclasses.asdict(case), dtype=dtype, **epilogue)


def refusal(algorithm, problem):
    words = library().kconv_cuda_refuse(algorithm.encode(), ctypes.byref(problem))
    return words.decode() if words else None


def workspace_of(algorithm, problem):
    return library().kconv_cuda_workspace(algorithm.encode(), ctypes.byref(problem))


def launch_of(algorithm, problem):
    """The most blocks, threads and bytes of shared memory that it would launch."""
    launch = (ctypes.c_int64 * 3)()
    asked = ctypes.byref(problem)
    error = library().kconv_host_launch(algorithm.encode(), asked, launch)
    assert error is None, error
    return tuple(launch)


@contextlib.contextmanager
def manner(backwards=False, shift=0):
    """Runs threads backwards, and moves tensors by elements off their alignment."""
    library().kconv_host_manner(int(backwards), shift)
    try:
        yield
    finally:
        library().kconv_host_manner(0, 0)


def run(algorithm, case, pass_, a, b, bias=None, **more):
    """The result of a pass, by the threads of the GPU's kernels."""
    dtype = next(name for name, one in DTYPES.items() if a.dtype == one)
    problem = problem_of(case, pass_, dtype, bias=bias is not None, **more)
    shapes = (case.input_shape, case.filter_shape, case.output_shape)
    places = {"forward": (0, 1, 2), "input_gradient": (2, 1, 0)}.get(pass_, (0, 2, 1))
    result = np.empty(shapes[places[2]], a.dtype)
    tensors = [None] * 3
    for place, tensor in zip(places, (a, b, result), strict=True):
        tensors[place] = np.ascontiguousarray(tensor)
    workspace = np.empty(max(1, workspace_of(algorithm, problem)), np.uint8)
    arguments = cuda.Arguments(
        *(tensor.ctypes.data for tensor in tensors),
        None if bias is None else bias.ctypes.data,
        workspace.ctypes.data,
    )
    error = library().kconv_cuda_run(
        algorithm.encode(), ctypes.byref(problem), ctypes.byref(arguments), None
    )
    assert error is None, error
    return result


def check(algorithm, case, pass_, dtype="float32", **options):
    """Holds a pass against the reference, and returns its result."""
    with naming(algorithm, case, pass_, dtype, options):
        (a, b), (exact, of_plain_sum) = judged(case, pass_, dtype)
        result = run(algorithm, case, pass_, a, b, **options)
        error = magnitude(algorithm, case, pass_, a, b, of_plain_sum)
        reference.assert_accurate(result, exact, error)
    return result
