"""No offset makes the kernels of deformable convolution read or write out of range."""

import concurrent.futures
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# A conversion of a huge number to an integer is a bug as well.
SANITIZERS = "-fsanitize=address,undefined,float-cast-overflow"
FLAGS = (SANITIZERS, "-fno-sanitize-recover=all", "-O1", "-g1")


def setup_module_of_kconv():
    spec = importlib.util.spec_from_file_location("kconv_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_kernels_stay_within_their_arrays(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    build = setup_module_of_kconv()
    units = [
        unit
        for unit in build.core_units()
        if unit.source.parts[1] in ("deformable", "gemm", "cpu.cc", "shape.cc")
    ]
    sources = [unit.source for unit in units]
    commands = [unit.command for unit in units]
    sources.append(pathlib.Path("tests/deform_driver.cc"))
    commands.append((*build.compiler(), *build.COMMON_FLAGS))
    objects = [tmp_path / f"{i}.o" for i in range(len(sources))]

    def compile_one(i):
        run(*commands[i], *FLAGS, "-c", sources[i], "-o", objects[i])

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, range(len(sources))))
    driver = tmp_path / "driver"
    run(*build.compiler(), *FLAGS, "-pthread", *objects, "-o", driver)
    assert " 0 failures" in run(driver)


def run(*command):
    result = subprocess.run(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    return result.stdout
