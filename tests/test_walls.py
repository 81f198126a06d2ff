"""The walls between the parts of the package, and that the guards of them are awake.

A guard takes the sources, path to text, and returns what breaks its wall. Each is also
shown a small violation, which it must find.
"""

import ast
import re
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".py", ".cc", ".h", ".cu", ".cuh", ".inc"}
MOST_LINES = 600

# What computes, and knows nothing of layers.
BELOW_LAYERS = [
    f"kconv/{name}.py"
    for name in (
        *("spec", "runtime", "explanation", "dispatch", "gradients", "epilogue"),
        *("native", "prepared", "settings", "operands", "padding", "transposition"),
        *("choices", "system"),
    )
]

# Headers that hold no code which the linker could merge between instruction sets.
PLAIN_HEADERS = {
    *("stdint.h", "cstdint", "stddef.h", "cstddef", "math.h", "string.h"),
    *("immintrin.h", "arm_neon.h"),
}


def sources_of(*folders):
    paths = (path for folder in folders for path in sorted((ROOT / folder).rglob("*")))
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in paths
        if path.suffix in SUFFIXES and path.is_file()
    }


# C++.


def includes(text):
    """Headers that a C++ file includes, angle brackets or quotes kept."""
    found = re.findall(r'^\s*#\s*include\s*(<[^>]+>|"[^"]+")', text, re.MULTILINE)
    return [(name[1:-1], name[0] == '"') for name in found]


def headers_in_wrong_rooms(sources, headers, is_room):
    """Includes of `headers`, a pattern, in csrc/ but outside of their room."""
    return [
        f"{path} includes {name}"
        for path, text in sources.items()
        if path.startswith("csrc/") and not is_room(PurePosixPath(path))
        for name, _ in includes(text)
        if re.match(headers, name)
    ]


def tensorflow_outside_its_room(sources):
    return headers_in_wrong_rooms(
        sources,
        r"(tensorflow|absl|Eigen|unsupported/Eigen|xla|tsl|google/protobuf)/",
        lambda path: path.parts[1] == "tf",
    )


def pybind11_outside_its_room(sources):
    return headers_in_wrong_rooms(
        sources,
        r"pybind11/|Python\.h|numpy/",
        lambda path: path.parts[1] == "python",
    )


def cuda_outside_its_room(sources):
    """CUDA's own headers; those of csrc/cuda need no CUDA."""
    ours = {path.removeprefix("csrc/") for path in sources if path.endswith(".h")}
    found = headers_in_wrong_rooms(
        sources,
        r"cuda|cublas|cudnn|cooperative_groups|mma\.h|nv",
        lambda path: path.suffix in {".cu", ".cuh"},
    )
    return [one for one in found if one.split(" includes ")[1] not in ours]


def cu_files_see_no_framework(sources):
    return headers_in_wrong_rooms(
        {path: text for path, text in sources.items() if path.endswith((".cu", "cuh"))},
        r"(tensorflow|absl|Eigen|unsupported/Eigen|xla|tsl|pybind11)/",
        lambda path: False,
    )


def algorithms_include_no_other(sources):
    found = []
    for path, text in sources.items():
        room = re.match(r"csrc/algorithms/(\w+)/", path)
        for name, _ in includes(text) if room else ():
            other = re.search(r"algorithms/(\w+)/", name)
            climbs = name.startswith("../")
            if climbs or (other and other[1] != room[1]):
                found.append(f"{path} includes {name}")
    return found


def deformable_knows_no_algorithms(sources):
    """Nor do these know of it: both stand on gemm/ and the headers of csrc/."""
    return [
        f"{path} includes {name}"
        for path, text in sources.items()
        for name, _ in includes(text)
        if (
            path.startswith("csrc/deformable/")
            and re.match(r"(\.\./)?(algorithms|registry|prepared|choices)\b", name)
        )
        or (path.startswith("csrc/algorithms/") and "deformable/" in name)
    ]


def instruction_set_files_share_no_code(sources):
    """What an isa/ file sees, however indirectly, is plain headers and our own."""
    found = []
    for start in sources:
        if "/isa/" not in start:
            continue
        seen, waiting = set(), [start]
        while waiting:
            path = waiting.pop()
            seen.add(path)
            for name, quoted in includes(sources[path]):
                beside = (PurePosixPath(path).parent / name).as_posix()
                candidates = [p for p in (beside, f"csrc/{name}") if p in sources]
                if candidates and candidates[0] not in seen:
                    waiting.append(candidates[0])
                if not candidates and (quoted or name not in PLAIN_HEADERS):
                    found.append(f"{start} sees {name}, included by {path}")
    return found


def algorithms_are_listed(sources):
    """Every folder of csrc/algorithms has lines in algorithms.inc, and no other has."""
    folders = {
        path.split("/")[2]
        for path in sources
        if re.match(r"csrc/algorithms/\w+/\w+", path)
    }
    listed = re.findall(
        r"^\s*KCONV_(?:ALGORITHM|VARIANT)\(\s*((\w+)[^)]*)\)",
        sources["csrc/algorithms.inc"],
        re.MULTILINE,
    )
    families, entries = {family for _, family in listed}, [name for name, _ in listed]
    unlisted = [f"{name} has no line" for name in sorted(folders - families)]
    unknown = [f"{name} has no folder" for name in sorted(families - folders)]
    twice = {f"{name} twice" for name in entries if entries.count(name) > 1}
    return unlisted + unknown + sorted(twice)


# Python.


def module_of(path):
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path, text):
    """Full names of all that a Python file imports, wherever in it."""
    package = module_of(path).split(".")
    if not path.endswith("__init__.py"):
        package = package[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else ())]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def imports_across(sources, is_importer, forbidden):
    """Imports of module `forbidden` or of what is in it."""
    return [
        f"{path} imports {name}"
        for path, text in sources.items()
        if path.startswith("kconv/") and path.endswith(".py") and is_importer(path)
        for name in imports(path, text)
        if f"{name}.".startswith(f"{forbidden}.")
    ]


def ops_import_no_layers(sources):
    """Neither does what ops imports, however indirectly; kconv itself aside."""
    modules = {module_of(path): path for path in sources if path.endswith(".py")}
    below = set()
    folders = "kconv/ops/", "kconv/builtin/"
    waiting = [
        path
        for path in modules.values()
        if path in BELOW_LAYERS or path.startswith(folders)
    ]
    while waiting:
        path = waiting.pop()
        below.add(path)
        for name in imports(path, sources[path]):
            for module in (name, name.rpartition(".")[0]):
                found = modules.get(module, "kconv/__init__.py")
                if found not in {"kconv/__init__.py", *below}:
                    waiting.append(found)
    return [
        violation
        for forbidden in ("kconv.layers", "kconv.models", "kconv.conversion")
        for violation in imports_across(sources, below.__contains__, forbidden)
    ]


def layers_import_no_models(sources):
    return imports_across(
        sources, lambda path: path.startswith("kconv/layers/"), "kconv.models"
    )


def nobody_imports_cli(sources):
    return imports_across(
        sources, lambda path: path != "kconv/__main__.py", "kconv.cli"
    )


def only_native_loads_libraries(sources):
    loaders = {
        *("load_op_library", "load_library", "load_file_system_library", "CDLL"),
        *("LoadLibrary", "PyDLL", "dlopen", "spec_from_file_location"),
        *("ExtensionFileLoader", "ctypes", "cffi"),
    }
    found = []
    for path, text in sources.items():
        loaders_of_ours = "kconv/native.py", "kconv/cuda.py"
        if not path.startswith("kconv/") or path in loaders_of_ours:
            continue
        if not path.endswith(".py"):
            continue
        names = set(imports(path, text))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.update(re.findall(r"^[\w.]*\b_(?:core|tfops)\w*$", node.value))
        for name in sorted(names):
            last = name.split(".")[-1]
            if {name, last} & loaders or re.match(r"_(core|tfops)", last):
                found.append(f"{path} uses {name}")
    return found


def only_gradients_register_gradients(sources):
    return [
        f"{path} registers a gradient"
        for path, text in sources.items()
        if path.startswith("kconv/") and path != "kconv/gradients.py"
        if re.search(r"\bRegisterGradient\b", text)
    ]


# All.


def files_are_short(sources):
    lengths = {path: len(text.splitlines()) for path, text in sources.items()}
    return [f"{path} has {n} lines" for path, n in lengths.items() if n > MOST_LINES]


# Guard -> the smallest sources that break its wall.
WALLS = {
    tensorflow_outside_its_room: {
        "csrc/registry.cc": '#include "tensorflow/core/framework/op.h"\n'
    },
    pybind11_outside_its_room: {"csrc/tf/ops.cc": "#  include <pybind11/pybind11.h>\n"},
    cuda_outside_its_room: {
        "csrc/algorithms/gemm/gemm.cc": "#include <cuda_runtime.h>\n"
    },
    cu_files_see_no_framework: {
        "csrc/algorithms/gemm/cuda.cu": '#include "absl/strings/str_cat.h"\n'
    },
    algorithms_include_no_other: {
        "csrc/algorithms/gemm/gemm.cc": '#include "algorithms/direct/direct.h"\n'
    },
    deformable_knows_no_algorithms: {
        "csrc/deformable/forward.cc": '#include "algorithms/gemm/blocking.h"\n'
    },
    instruction_set_files_share_no_code: {
        "csrc/gemm/isa/avx2.cc": '#include "gemm/generic.h"\n',
        "csrc/gemm/generic.h": '#include "conv.h"\n',
        "csrc/conv.h": "#include <stdint.h>\n#include <functional>\n",
    },
    algorithms_are_listed: {
        "csrc/algorithms.inc": "KCONV_ALGORITHM(gemm)\n",
        "csrc/algorithms/gemm/gemm.cc": "",
        "csrc/algorithms/winograd/winograd.cc": "",
    },
    ops_import_no_layers: {
        "kconv/ops/conv.py": "def conv():\n    from ..layers.conv import Conv2D\n"
    },
    layers_import_no_models: {"kconv/layers/conv.py": "from .. import models\n"},
    nobody_imports_cli: {"kconv/demo.py": "from kconv import cli\n"},
    only_native_loads_libraries: {
        "kconv/ops/conv.py": "import tensorflow as tf\ntf.load_op_library('a.so')\n"
    },
    only_gradients_register_gradients: {
        "kconv/ops/conv.py": "@tf.RegisterGradient('Kconv>Conv')\ndef f(): pass\n"
    },
    files_are_short: {"kconv/ops/conv.py": "pass\n" * (MOST_LINES + 1)},
}

guards = pytest.mark.parametrize(
    "guard", WALLS, ids=[guard.__name__ for guard in WALLS]
)


@guards
def test_wall_stands(guard):
    assert guard(sources_of("csrc", "kconv", "tests")) == []


@guards
def test_guard_finds_a_violation(guard):
    assert len(guard(WALLS[guard])) == 1


MORE_VIOLATIONS = [
    (algorithms_are_listed, {"csrc/algorithms.inc": "KCONV_ALGORITHM(gemm)\n"}),
    (algorithms_are_listed, {"csrc/algorithms.inc": "KCONV_VARIANT(winograd, f2)\n"}),
    (
        algorithms_are_listed,
        {
            "csrc/algorithms.inc": "KCONV_VARIANT(a, f2)\n" * 2,
            "csrc/algorithms/a/a.cc": "",
        },
    ),
    (
        algorithms_include_no_other,
        {"csrc/algorithms/a/a.cc": '#include "../b/b.h"\n'},
    ),
    (
        deformable_knows_no_algorithms,
        {"csrc/algorithms/a/a.cc": '#include "deformable/sampling.h"\n'},
    ),
    (
        instruction_set_files_share_no_code,
        {"csrc/gemm/isa/avx2.cc": "#include <vector>\n"},
    ),
    (
        instruction_set_files_share_no_code,
        {"csrc/gemm/isa/avx2.cc": '#include "missing.h"\n'},
    ),
    (ops_import_no_layers, {"kconv/ops/conv.py": "import kconv.layers.conv\n"}),
    (ops_import_no_layers, {"kconv/ops/conv.py": "from .. import layers\n"}),
    (ops_import_no_layers, {"kconv/spec.py": "from kconv.layers import Conv2D\n"}),
    (
        ops_import_no_layers,
        {"kconv/builtin/choice.py": "from kconv import conversion\n"},
    ),
    (
        ops_import_no_layers,
        {
            "kconv/ops/conv.py": "from ..dispatch import run\n",
            "kconv/dispatch.py": "import kconv.models\n",
        },
    ),
    (nobody_imports_cli, {"kconv/benchmark/layers.py": "from ..cli import main\n"}),
    (
        only_native_loads_libraries,
        {"kconv/ops/conv.py": "from kconv import _core\n"},
    ),
    (
        cuda_outside_its_room,
        {
            "csrc/cuda/launch.cuh": "",
            "csrc/conv.h": '#include "cuda/launch.cuh"\n',
        },
    ),
    (only_native_loads_libraries, {"kconv/ops/conv.py": "import ctypes\n"}),
    (
        only_native_loads_libraries,
        {"kconv/ops/conv.py": "importlib.import_module('kconv._core')\n"},
    ),
]


@pytest.mark.parametrize(("guard", "sources"), MORE_VIOLATIONS)
def test_guard_finds_more_violations(guard, sources):
    assert len(guard(sources)) == 1


def test_guards_see_the_sources():
    sources = sources_of("csrc", "kconv", "tests")
    for path in (
        "csrc/conv.h",
        "csrc/algorithms.inc",
        "csrc/gemm/isa/avx2.cc",
        "kconv/__init__.py",
        "kconv/layers/conv.py",
        "tests/reference.py",
    ):
        assert path in sources
