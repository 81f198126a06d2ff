"""The build: flags and symbols of objects, what libraries export, wheels."""

import concurrent.futures
import dataclasses
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import time
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture
def build(monkeypatch):
    """The module setup.py, in the folder where its commands run."""
    monkeypatch.chdir(ROOT)
    spec = importlib.util.spec_from_file_location("kconv_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def run(*command, **options):
    """Runs a command and returns its output; the test fails if the command does."""
    command = [str(word) for word in command]
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}"
    return result.stdout


def compile_all(build, units):
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(build.compile_unit, units))


def isa_units(build):
    return [unit for unit in build.core_units() if unit.source.parent.name == "isa"]


def test_every_isa_file_has_flags(build):
    sources = [path for path in build.sources() if path.parent.name == "isa"]
    assert sources
    assert {path.stem for path in sources} <= set(build.X86_FLAGS)


def test_isa_files_get_their_own_flags_and_others_none(build):
    if build.is_portable():
        assert {unit.source.stem for unit in isa_units(build)} == {"baseline"}
        return
    for unit in [*build.core_units(), *build.python_units()]:
        flags = {flag for flag in unit.command if flag.startswith("-m")}
        own = unit.source.stem if unit.source.parent.name == "isa" else "baseline"
        assert flags == set(build.X86_FLAGS[own].split())


def test_isa_objects_define_no_symbol_that_others_could_pick_up(build):
    # A weak symbol compiled for AVX-512 may be linked into the baseline.
    units = isa_units(build)
    compile_all(build, units)
    for unit in units:
        symbols = run("nm", "-C", unit.object).splitlines()
        assert symbols
        weak = [line for line in symbols if re.search(" [WVu] ", line)]
        assert not weak, f"{unit.source}:\n" + "\n".join(weak)


def test_object_is_made_again_only_when_something_changed(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, header = pathlib.Path("one.cc"), pathlib.Path("one.h")
    header.write_text("inline int One() { return 1; }\n")
    source.write_text('#include "one.h"\nint Two() { return 2 * One(); }\n')
    output = pathlib.Path("objects/one.o")
    unit = build.Unit(source, output, (*build.compiler(), "-I."))
    assert not build.is_current(unit)
    build.compile_unit(unit)
    assert build.is_current(unit)
    assert not build.is_current(
        dataclasses.replace(unit, command=(*unit.command, "-O1"))
    )
    later = time.time() + 10
    os.utime(header, (later, later))
    assert not build.is_current(unit)
    build.compile_unit(unit)
    os.utime(output, (later + 1, later + 1))
    assert build.is_current(unit)
    header.unlink()
    assert not build.is_current(unit)


def test_compiler_errors_are_shown(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = pathlib.Path("wrong.cc")
    source.write_text("int Wrong() { return nonsense; }\n")
    unit = build.Unit(source, pathlib.Path("wrong.o"), tuple(build.compiler()))
    with pytest.raises(build.CCompilerError, match="nonsense"):
        build.compile_unit(unit)


def test_missing_compiler_is_one_sentence(build, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.CCompilerError, match="Received: CXX=no-such-compiler"):
        build.compiler()


def test_tensorflow_is_found_without_importing_it(build):
    found = build.find_tensorflow()
    assert (found.folder / "include" / "tensorflow").is_dir()
    script = (
        "import runpy, sys;"
        "print(runpy.run_path('setup.py')['find_tensorflow']().version);"
        "assert 'tensorflow' not in sys.modules"
    )
    assert run(sys.executable, "-c", script).strip() == found.version


def test_libraries_export_only_what_they_must(build):
    from kconv import native

    exported = run("nm", "-D", "--defined-only", native.core().__file__)
    assert [line.split()[-1] for line in exported.splitlines()] == ["PyInit__core"]
    library = ROOT / "kconv" / f"{build.find_tensorflow().library}.so"
    exported = run("nm", "-D", "--defined-only", library).split()[2::3]
    # What native.py calls; TensorFlow finds the ops by their registration.
    assert exported and all(name.startswith("kconv_") for name in exported)


def test_core_library_is_free_of_tensorflow():
    from kconv import native

    needed = run("readelf", "--dynamic", native.core().__file__)
    assert "NEEDED" in needed
    assert "tensorflow" not in needed


def test_portable_build(build, tmp_path, monkeypatch):
    monkeypatch.setenv("KCONV_PORTABLE", "1")
    # Compiled in a fraction of the time: what is wanted is the results.
    monkeypatch.setenv("CXXFLAGS", f"{os.environ.get('CXXFLAGS', '')} -O0")
    units = [*build.core_units(), *build.python_units()]
    assert not [flag for unit in units for flag in unit.command if flag[:2] == "-m"]
    assert {unit.source.stem for unit in isa_units(build)} == {"baseline"}
    compile_all(build, units)
    build.link(units, tmp_path / "_core.so", "global: PyInit__core;", [])
    script = """
        import importlib.util, sys
        import numpy as np
        spec = importlib.util.spec_from_file_location("_core", sys.argv[1])
        core = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(core)
        assert core.isas() == ["portable"]
        for algorithm in core.algorithms():
            groups = 8 if algorithm == "depthwise" else 2
            taps = 9 if algorithm == "fft" else 3
            sizes = [taps + 2] * 2, [taps] * 2
            problem = core.Problem("forward", *sizes, 8, 8, groups=groups)
            shapes = (1, *sizes[0], 8), (*sizes[1], 8 // groups, 8)
            ones = [np.ones(shape, "float32") for shape in shapes]
            done = problem.run(*ones, algorithm=algorithm)
            expected = 8 * taps**2 / groups
            np.testing.assert_allclose(done["result"], expected, 1e-4)
            assert done["isa"] == "portable", done["isa"]
    """
    run(sys.executable, "-c", textwrap.dedent(script), tmp_path / "_core.so")


CHECK_LAYER = """
    import sys
    import numpy as np
    import keras
    import kconv
    from kconv import native

    assert "site-packages" in kconv.__file__, kconv.__file__
    layer = kconv.layers.Conv2D(8, 3, padding="same", algorithm=sys.argv[1])
    image = np.random.default_rng(0).normal(size=(2, 9, 9, 4)).astype("float32")
    result = np.asarray(layer(image))
    stock = keras.layers.Conv2D(8, 3, padding="same")
    stock.build(image.shape)
    stock.set_weights(layer.get_weights())
    np.testing.assert_allclose(result, stock(image), atol=1e-5)
    print(native.why_missing() or "native")
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the source tree without anything built."""
    folder = tmp_path / "source"
    built = shutil.ignore_patterns(
        ".git", ".venv", "build", "dist", "*.so", "*.egg-info", "__pycache__", ".*cache"
    )
    shutil.copytree(ROOT, folder, ignore=built)
    return folder


def make_environment(folder):
    """Makes a virtual environment and returns its Python."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


@pytest.mark.slow
def test_wheel_from_sdist_works_in_a_fresh_environment(build, copy, tmp_path):
    # Left behind by a build for another TensorFlow: must not be shipped.
    (copy / "kconv" / "_tfops_2_5.so").write_bytes(b"")
    python = make_environment(tmp_path / "environment")
    run(sys.executable, "setup.py", "-q", "sdist", "-d", tmp_path, cwd=copy)
    (sdist,) = tmp_path.glob("kconv-*.tar.gz")
    run(python, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, sdist)
    (wheel,) = tmp_path.glob("kconv-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    libraries = sorted(name for name in names if name.endswith(".so"))
    of_gpu = ["kconv/_cuda"] if build.wants_cuda() else []
    assert [re.sub(r"\..*", "", name) for name in libraries] == [
        "kconv/_core",
        *of_gpu,
        "kconv/_tfops_2_21",
    ]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"kconv"}

    # Where there are two names for TensorFlow, take the one of the build.
    extra = "cpu" if build.is_portable() is False else "tensorflow"
    run(python, "-m", "pip", "install", f"{wheel}[{extra}]")
    script = textwrap.dedent(CHECK_LAYER)
    words = run(python, "-c", script, "gemm", cwd=tmp_path).splitlines()
    assert words[-1] == "native"
    disabled = {**os.environ, "KCONV_DISABLE_NATIVE": "1"}
    words = run(python, "-c", script, "auto", cwd=tmp_path, env=disabled).splitlines()
    assert "KCONV_DISABLE_NATIVE" in words[-1]


@pytest.mark.slow
def test_build_without_tensorflow_has_the_core_only(copy, tmp_path):
    python = make_environment(tmp_path / "environment")
    run(python, "-m", "pip", "install", "setuptools>=77", "pybind11", "numpy")
    without_gpu = {**os.environ, "KCONV_CUDA": "0"}
    build_in_place = ("setup.py", "build_ext", "--inplace")
    words = run(python, *build_in_place, cwd=copy, env=without_gpu)
    assert "TensorFlow is not installed here" in words
    (library,) = (copy / "kconv").glob("*.so")
    assert library.name.startswith("_core.")
    script = (
        "import importlib.util as u, sys;"
        "spec = u.spec_from_file_location('_core', sys.argv[1]);"
        "core = u.module_from_spec(spec); spec.loader.exec_module(core);"
        "print(core.algorithms())"
    )
    assert "direct" in run(python, "-c", script, library)
