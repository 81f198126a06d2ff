"""Builds the compiled parts of kconv; pyproject.toml holds everything else.

kconv/_core.<abi>.so              the algorithms, as a pybind11 module
kconv/_tfops_<major>_<minor>.so   the same algorithms as TensorFlow ops, for one
                                  minor version of TensorFlow
kconv/_cuda.so                    kernels for NVIDIA GPUs, where nvcc is found

setuptools applies flags to a whole extension, but the kernels of an instruction set
need flags of their own. So the objects are compiled here, in parallel, into
build/objects, and an object is reused while its command, its source and every
header it read stay the same.

Environment:
    CXX, CXXFLAGS, LDFLAGS   compiler and further flags
    KCONV_PORTABLE=1         portable kernels only, as on a CPU other than x86-64
    KCONV_WERROR=1           warnings are errors
    KCONV_CUDA=0             no kernels for GPUs, even where nvcc is found
    KCONV_CUDA=1             an error where they cannot be built
    NVCC                     nvcc and further flags

`python setup.py build_cuda` builds kconv/_cuda.so only, beside the Python files, and
needs neither TensorFlow nor pybind11.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError

ROOT = Path(__file__).resolve().parent
OBJECTS = Path("build/objects")

# Folders of csrc/ that are compiled for one library only.
GLUE = ("cuda", "python", "tf")

COMMON_FLAGS = (
    *("-std=c++17", "-O3", "-g0", "-fPIC", "-pthread", "-Icsrc"),
    *("-ffp-contract=fast", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"),
)

# GPUs of compute capability 8 and 9, and newer ones by way of PTX.
CUDA_FLAGS = (
    *("-std=c++17", "-O3", "-Icsrc", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall"),
    *("-gencode", "arch=compute_80,code=sm_80"),
    *("-gencode", "arch=compute_90,code=[sm_90,compute_90]"),
)
# Of the core, the files that the GPU library needs too.
CUDA_SHARED = ("csrc/shape.cc", "csrc/deformable/shape.cc")

# File name below an isa/ folder -> the flags of that instruction set.
X86_FLAGS = {
    "baseline": "",
    "avx2": "-mavx2 -mfma -mf16c",
    "avx512": (
        "-mavx512f -mavx512vl -mavx512dq -mavx512bw -mavx2 -mfma -mf16c"
        " -mprefer-vector-width=512"
    ),
}
PORTABLE_FLAGS = {"baseline": ""}


@dataclass(frozen=True)
class Unit:
    """A source file, the object it becomes and the whole command but for these."""

    source: Path
    object: Path
    command: tuple[str, ...]


@dataclass(frozen=True)
class TensorFlow:
    """The installed TensorFlow: its version and the folder that holds its headers."""

    version: str
    folder: Path

    @property
    def minor(self) -> str:
        """Major and minor version, which an op library is bound to: "2.21"."""
        return ".".join(self.version.split(".")[:2])

    @property
    def library(self) -> str:
        """Name of the op library for this version: "_tfops_2_21"."""
        return "_tfops_" + self.minor.replace(".", "_")


def kconv_version() -> str:
    """The version of the package, read without importing it."""
    text = (ROOT / "kconv" / "__init__.py").read_text()
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


def find_tensorflow() -> TensorFlow | None:
    """Finds the installed TensorFlow without the seconds that importing it takes."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        return None
    # The distribution may be tensorflow, tensorflow-cpu or one of their relatives.
    names = importlib.metadata.packages_distributions().get("tensorflow", ())
    versions = [importlib.metadata.version(name) for name in names]
    return TensorFlow(versions[0], Path(spec.origin).parent) if versions else None


def compiler() -> list[str]:
    """The C++ compiler as the start of a command line."""
    command = shlex.split(os.environ.get("CXX", ""))
    if not command:
        command = [next(filter(shutil.which, ("g++", "clang++", "c++")), "g++")]
    if shutil.which(command[0]) is None:
        raise CCompilerError(
            f"kconv needs a C++17 compiler such as g++. Received: CXX={command[0]}"
        )
    return command


def is_portable() -> bool:
    """True where only the portable kernels are built."""
    if is_on("KCONV_PORTABLE"):
        return True
    machine = subprocess.check_output([*compiler(), "-dumpmachine"], text=True)
    return not machine.startswith("x86_64")


def make_units(
    paths: Iterable[Path], folder: str, flags: Iterable[str] = ()
) -> list[Unit]:
    """Units of `paths` with `flags`, their objects below build/objects/`folder`."""
    portable = is_portable()
    isa_flags = PORTABLE_FLAGS if portable else X86_FLAGS
    command = [*compiler(), *COMMON_FLAGS, f'-DKCONV_VERSION="{kconv_version()}"']
    if portable:
        command += ["-DKCONV_PORTABLE"]
        folder += "-portable"
    if is_on("KCONV_WERROR"):
        command += ["-Werror"]
    command += [*flags, *shlex.split(os.environ.get("CXXFLAGS", ""))]

    units = []
    for source in sorted(paths):
        own_flags = []
        if source.parent.name == "isa":
            if source.stem not in isa_flags:
                continue
            own_flags = isa_flags[source.stem].split()
        output = OBJECTS / folder / source.with_suffix(".o")
        units.append(Unit(source, output, (*command, *own_flags)))
    return units


def sources(glue: str | None = None) -> list[Path]:
    """Sources of csrc/`glue`, or of the core: all that is not glue."""
    found = [path.relative_to(ROOT) for path in (ROOT / "csrc").rglob("*.cc")]
    if glue is None:
        return [path for path in found if path.parts[1] not in GLUE]
    return [path for path in found if path.parts[1] == glue]


def core_units() -> list[Unit]:
    """The algorithms, which know neither Python nor TensorFlow."""
    return make_units(sources(), "core")


def python_units() -> list[Unit]:
    """The glue to Python."""
    import pybind11

    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").exists():
        raise CCompilerError(
            "Python's headers are missing; Debian and Ubuntu have them in python3-dev."
            f" Received: {headers}"
        )
    flags = [f"-I{headers}", f"-I{pybind11.get_include()}"]
    folder = sysconfig.get_config_var("SOABI")
    return make_units(sources("python"), folder, flags)


def tensorflow_units(tensorflow: TensorFlow) -> list[Unit]:
    """The glue to TensorFlow."""
    flags = [
        f"-isystem{tensorflow.folder / 'include'}",
        "-DEIGEN_MAX_ALIGN_BYTES=64",
    ]
    return make_units(sources("tf"), f"tensorflow-{tensorflow.version}", flags)


def is_on(variable: str) -> bool:
    """Whether an environment variable is set, and not to 0."""
    return os.environ.get(variable, "0") not in ("", "0")


def nvcc() -> list[str] | None:
    """CUDA's compiler as the start of a command line, None where it is missing."""
    command = shlex.split(os.environ.get("NVCC", "")) or ["nvcc"]
    if found := shutil.which(command[0]):
        return [found, *command[1:]]
    for name in ("CUDA_HOME", "CUDA_PATH"):
        folder = os.environ.get(name)
        if folder and (found := shutil.which("nvcc", path=f"{folder}/bin")):
            return [found]
    return None


def nvcc_host_flags() -> list[str]:
    """Our C++ compiler, for nvcc to use, unless it was given one."""
    given = any(word.startswith(("-ccbin", "--compiler-bindir")) for word in nvcc())
    if given or os.environ.get("NVCC_CCBIN"):
        return []
    # A single program: not the wrappers, as ccache, that CXX may begin with.
    programs = [word for word in compiler() if shutil.which(word)]
    return ["-ccbin", programs[-1]]


def wants_cuda() -> bool:
    """Whether to build the GPU library: where nvcc is, unless KCONV_CUDA decides."""
    if os.environ.get("KCONV_CUDA", "") == "":
        return nvcc() is not None
    return is_on("KCONV_CUDA")


def cuda_units() -> list[Unit]:
    """The GPU library: kernels, the launchers beside them, and its interface."""
    command = nvcc()
    if command is None:
        raise CCompilerError(
            "KCONV_CUDA=1 needs CUDA's compiler, nvcc, in PATH, in CUDA_HOME or by the "
            f"environment variable NVCC. Received: NVCC={os.environ.get('NVCC')}"
        )
    command += [*CUDA_FLAGS, *nvcc_host_flags()]
    if is_on("KCONV_WERROR"):
        command += ["-Werror", "all-warnings"]
    found = sorted(path.relative_to(ROOT) for path in (ROOT / "csrc").rglob("*.cu"))
    units = [
        Unit(path, OBJECTS / "cuda" / path.with_suffix(".cu.o"), tuple(command))
        for path in found
    ]
    shared = [Path(name) for name in CUDA_SHARED]
    return units + make_units([*sources("cuda"), *shared], "cuda")


def link_cuda(units: list[Unit], output: Path) -> None:
    """Links the GPU library, CUDA's runtime within it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent) as folder:
        made = Path(folder, output.name)
        script = Path(folder, "exports.map")
        script.write_text("{ global: kconv_cuda_*; local: *; };\n")
        objects = [str(unit.object) for unit in units]
        options = f"-s,-z,defs,--version-script={script}"
        flags = ["-shared", "-cudart=static", *nvcc_host_flags()]
        run([*nvcc(), *flags, *objects, "-o", str(made), f"-Xlinker={options}"])
        os.replace(made, output)


def build_cuda(output: Path = Path("kconv/_cuda.so")) -> None:
    """Compiles and links the GPU library."""
    units = cuda_units()
    compile_all(units)
    link_cuda(units, output)


def compile_all(units: list[Unit]) -> None:
    """Compiles the objects that are not current, in parallel."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_unit, units))


def is_current(unit: Unit) -> bool:
    """True if the object is newer than all it was made of, by the same command."""
    record = unit.object.with_suffix(".cmd")
    depends = unit.object.with_suffix(".d")
    if not (unit.object.exists() and record.exists() and depends.exists()):
        return False
    if record.read_text() != shlex.join(unit.command):
        return False
    # Written by the compiler: "object: source header \<newline> header ..."
    headers = depends.read_text().split(":", 1)[1].replace("\\\n", " ").split()
    made = unit.object.stat().st_mtime
    files = [Path(name) for name in headers]
    return all(file.exists() and file.stat().st_mtime < made for file in files)


def compile_unit(unit: Unit) -> None:
    """Compiles one source file if its object is not current."""
    if is_current(unit):
        return
    unit.object.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=unit.object.parent) as folder:
        made = Path(folder, unit.object.name)
        depends = made.with_suffix(".d")
        outputs = ["-MMD", "-MF", str(depends), "-c", str(unit.source), "-o", str(made)]
        run([*unit.command, *outputs])
        os.replace(depends, unit.object.with_suffix(".d"))
        os.replace(made, unit.object)
    unit.object.with_suffix(".cmd").write_text(shlex.join(unit.command))


def run(command: list[str]) -> None:
    """Runs a compiler; its words reach the user only when there are any."""
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise CCompilerError(f"{shlex.join(command)}\n{error}") from error
    if result.returncode:
        message = f"{shlex.join(command)}\n{result.stdout}{result.stderr}"
        raise CCompilerError(message)
    if result.stderr:
        print(result.stderr, flush=True)


def link(units: list[Unit], output: Path, exported: str, flags: list[str]) -> None:
    """Links a stripped library that exports `exported` and nothing else."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent) as folder:
        made = Path(folder, output.name)
        script = Path(folder, "exports.map")
        script.write_text(f"{{ {exported} local: *; }};\n")
        objects = [str(unit.object) for unit in units]
        own = ["-shared", "-pthread", "-Wl,-s", f"-Wl,--version-script={script}"]
        own += shlex.split(os.environ.get("LDFLAGS", ""))
        run([*compiler(), *objects, "-o", str(made), *own, *flags])
        # A new file, never a rewritten one: a running process may have it mapped.
        os.replace(made, output)


class BuildNative(build_ext):
    """Compiles and links the libraries in place of setuptools' own compiler."""

    def get_ext_filename(self, fullname: str) -> str:
        """Op and GPU libraries are no Python modules: their names carry no ABI tag."""
        name = fullname.split(".")[-1]
        if name == "_cuda" or name.startswith("_tfops_"):
            return fullname.replace(".", os.sep) + ".so"
        return super().get_ext_filename(fullname)

    def run(self) -> None:
        """Remembers what setuptools' own command forgets while it runs."""
        self.inplace_before = self.inplace
        super().run()

    def build_extensions(self) -> None:
        """Compiles every object at once, then links the libraries."""
        os.chdir(ROOT)
        tensorflow = find_tensorflow()
        core = core_units()
        glue = {"kconv._core": python_units()}
        if tensorflow is None:
            self.warn(
                "TensorFlow is not installed here: building kconv without its"
                " TensorFlow ops. Layers of this build run stock TensorFlow ops."
            )
        else:
            glue[f"kconv.{tensorflow.library}"] = tensorflow_units(tensorflow)

        # The glue takes longest, so it goes first.
        units = [unit for part in reversed(glue.values()) for unit in part] + core
        compile_all(units)

        folder = Path(self.get_ext_fullpath("kconv._core")).parent
        for stale in folder.glob("_tfops_*.so"):
            stale.unlink()
        for name, part in glue.items():
            output = Path(self.get_ext_fullpath(name))
            if name == "kconv._core":
                link(part + core, output, "global: PyInit__core;", [])
            else:
                library = ["-Wl,-z,defs", f"-L{tensorflow.folder}"]
                library += ["-l:libtensorflow_framework.so.2"]
                link(part + core, output, "global: kconv_*;", library)
        self.build_cuda()

    def build_cuda(self) -> None:
        """Builds the GPU library; without it the others are complete."""
        output = Path(self.get_ext_fullpath("kconv._cuda"))
        output.unlink(missing_ok=True)
        if not wants_cuda():
            if self.inplace_before:
                (ROOT / "kconv" / "_cuda.so").unlink(missing_ok=True)
            return
        try:
            build_cuda(output)
        except CCompilerError as error:
            if is_on("KCONV_CUDA"):
                raise
            self.warn(
                "kconv is built without kernels for GPUs, as nvcc failed; KCONV_CUDA=0"
                f" does not try.\n{error}"
            )


class BuildCuda(Command):
    """Builds kconv/_cuda.so and nothing else."""

    description = "build the kernels for NVIDIA GPUs, in place"
    user_options: ClassVar[list] = []

    def initialize_options(self) -> None:
        """There are none."""

    def finalize_options(self) -> None:
        """There are none."""

    def run(self) -> None:
        """Compiles and links; fails where nvcc is missing."""
        os.chdir(ROOT)
        build_cuda()


def extensions() -> list[Extension]:
    """What setuptools should expect of build_ext; it compiles none of it."""
    tensorflow = find_tensorflow()
    names = ["_core"] + ([tensorflow.library] if tensorflow else [])
    found = [Extension(f"kconv.{name}", []) for name in names]
    if wants_cuda():
        found.append(Extension("kconv._cuda", [], optional=not is_on("KCONV_CUDA")))
    return found


if __name__ == "__main__":
    commands = {"build_ext": BuildNative, "build_cuda": BuildCuda}
    setup(ext_modules=extensions(), cmdclass=commands)
