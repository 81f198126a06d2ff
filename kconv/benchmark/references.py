"""Other libraries that the benchmark measures, where they are installed.

Each runs in processes of its own, under an interpreter that may be another than
TensorFlow's: that they share an environment is not asked for.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

from kconv.benchmark.candidates import Candidate


@dataclasses.dataclass(frozen=True)
class Reference:
    """A library.

    Attributes:
        title: How its makers write it.
        modules: Modules that must be there.
        worker: Name of the script that runs it, in this folder.
        modes: Settings that are compared, as the script knows them.
        engines: A dictionary from name to environment: a process each. The first has
            the name of the reference.
    """

    title: str
    modules: tuple
    worker: str
    modes: tuple
    engines: dict

    @property
    def install(self):
        """What installs it."""
        return f"pip install {' '.join(self.modules)}"


# By name, in the order of the report.
REFERENCES = {
    "torch": Reference(
        "PyTorch",
        ("torch",),
        "pytorch_worker.py",
        # How its tensors lie in memory.
        ("contiguous", "channels_last"),
        # How its threads wait for each other. As they are by default they spin, which
        # is a bit faster where the processor is idle, and many times slower where
        # something else runs.
        {"torch": {}, "passive": {"OMP_WAIT_POLICY": "passive"}},
    ),
    "onnxruntime": Reference(
        "ONNX Runtime",
        ("onnx", "onnxruntime"),
        "onnxruntime_worker.py",
        # With layouts of its own and without, and threads that wait as above.
        ("all", "extended", "all, passive", "extended, passive"),
        {"onnxruntime": {}},
    ),
    "openvino": Reference(
        "OpenVINO",
        ("openvino",),
        "openvino_worker.py",
        # The precision that it may compute in, and threads that are not bound to a
        # processor: where something else runs on it, they need not wait.
        ("f32", "default", "f32, unpinned", "default, unpinned"),
        {"openvino": {}},
    ),
}

# Of deformable convolutions.
DEFORMABLE = {
    "torchvision": Reference(
        "torchvision",
        ("torch", "torchvision"),
        "torchvision_worker.py",
        ("contiguous",),
        {"torchvision": {}, "passive": {"OMP_WAIT_POLICY": "passive"}},
    ),
}

# Name interpreters; that of PyTorch is older.
VARIABLE, TORCH_VARIABLE = "KCONV_REFERENCES_PYTHON", "KCONV_TORCH_PYTHON"

_PROBE = """
import importlib.util, json, sys
print(json.dumps([m for m in sys.argv[1:] if importlib.util.find_spec(m)]))
"""


def interpreters(named=()):
    """Where libraries are looked for: first those named, the present one last."""
    variable = os.environ.get(VARIABLE, "").split(os.pathsep)
    torch = os.environ.get(TORCH_VARIABLE)
    return [p for p in dict.fromkeys([*named, *variable, torch, sys.executable]) if p]


def find(wanted=None, named=(), required=(), known=REFERENCES):
    """Looks for the libraries.

    Args:
        wanted: Names from `known`; by default all.
        named: Interpreters, before those that `interpreters` returns anyway.
        required: Names from `known` that must be there.
        known: A dictionary from names to `Reference`.

    Returns:
        A dictionary from names, those of `wanted` and `required` that are installed,
        to their interpreters.

    Raises:
        RuntimeError: If one of `required` is missing, or an interpreter does not run.
    """
    pythons = interpreters(named)
    wanted = [n for n in known if wanted is None or n in {*wanted, *required}]
    if not wanted:
        return {}
    modules = [module for name in wanted for module in known[name].modules]
    found = {}
    for python in pythons:
        there = installed(python, modules)
        for name in wanted:
            if there.issuperset(known[name].modules):
                found.setdefault(name, python)
    for name in required:
        if name not in found:
            reference = known[name]
            raise RuntimeError(
                f"{reference.title} is missing: `{reference.install}`, best into an"
                " environment of its own, and name its interpreter by"
                f" --references-python or {VARIABLE}. Received: {', '.join(pythons)}"
            )
    return {name: found[name] for name in wanted if name in found}


def installed(python, modules):
    """Those of some modules that an interpreter has: a set of names.

    Raises:
        RuntimeError: If it does not run.
    """
    try:
        done = subprocess.run(
            [python, "-c", _PROBE, *modules], capture_output=True, text=True, check=True
        )
        return set(json.loads(done.stdout))
    except (OSError, subprocess.CalledProcessError, json.JSONDecodeError) as error:
        raise RuntimeError(
            f"The interpreter of a reference does not run. Received: {python}, {error}"
        ) from error


def command(name, python, known=REFERENCES):
    """The command line of a worker, but for the threads."""
    return python, str(Path(__file__).with_name(known[name].worker))


def candidates(names, known=REFERENCES):
    """Every way in which references compute a problem: a list of `Candidate`."""
    return [
        Candidate(name, mode, engine)
        for name in names
        for engine in known[name].engines
        for mode in known[name].modes
    ]
