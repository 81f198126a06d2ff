"""No problem makes the kernels of the CPU read or write out of range."""

import concurrent.futures
import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

from kconv import native

ROOT = pathlib.Path(__file__).parent.parent
# A conversion of a huge number to an integer is a bug as well.
SANITIZERS = "-fsanitize=address,undefined,float-cast-overflow"
FLAGS = (SANITIZERS, "-fno-sanitize-recover=all", "-O1", "-g1")
SHARED = ("csrc/cpu.cc", "csrc/shape.cc", "csrc/gemm")

core = native.core()
assert core is not None, native.why_missing()
FAMILIES = {name.split(":")[0]: [] for name in core.algorithms()}
for name in core.algorithms():
    FAMILIES[name.split(":")[0]].append(name)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_algorithms_stay_within_their_arrays(family, tmp_path, monkeypatch):
    names = FAMILIES[family]
    tested = (f"&kAlgorithm_{name.replace(':', '_')}" for name in names)
    told = drive(
        tmp_path,
        monkeypatch,
        "tests/conv_driver.cc",
        f"csrc/algorithms/{family}",
        f"-DKCONV_TESTED={','.join(tested)}",
    )
    runs = re.findall(r"^(\S+): (\d+) runs$", told, re.MULTILINE)
    assert [name for name, _ in runs] == [name for name in names for _ in core.isas()]
    # What it refuses did not run. Each case makes 48 runs, and "grouped" takes four.
    assert all(int(count) >= 4 * 48 for _, count in runs), told


@pytest.mark.slow
def test_deformable_kernels_stay_within_their_arrays(tmp_path, monkeypatch):
    driver = "tests/deform_driver.cc"
    told = drive(tmp_path, monkeypatch, driver, "csrc/deformable")
    assert " 0 failures" in told


def drive(folder, monkeypatch, driver, kernels, *flags):
    """Compiles kernels and their driver with sanitizers; returns what it tells."""
    monkeypatch.chdir(ROOT)
    build = setup_module_of_kconv()
    units = [
        unit
        for unit in build.core_units()
        if unit.source.as_posix().startswith((f"{kernels}/", *SHARED))
    ]
    sources = [unit.source for unit in units]
    commands = [unit.command for unit in units]
    sources.append(driver)
    commands.append((*build.compiler(), *build.COMMON_FLAGS, *flags))
    objects = [folder / f"{i}.o" for i in range(len(sources))]

    def compile_one(i):
        run(*commands[i], *FLAGS, "-c", sources[i], "-o", objects[i])

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, range(len(sources))))
    program = folder / "driver"
    run(*build.compiler(), *FLAGS, "-pthread", *objects, "-o", program)
    return run(program)


def setup_module_of_kconv():
    spec = importlib.util.spec_from_file_location("kconv_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


def run(*command):
    result = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    return result.stdout
