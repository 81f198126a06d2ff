"""Other libraries that run whole models, where they are installed."""

import subprocess
from pathlib import Path

from kconv.benchmark import references
from kconv.benchmark.candidates import Candidate
from kconv.benchmark.references import Reference
from kconv.benchmark.subjects import PASSES, PREDICT

_WORKER = "model_reference_worker.py"

# By name, in the order of the report; beside each the passes that it has.
REFERENCES = {
    "torch": Reference(
        "Keras on PyTorch",
        ("torch", "keras"),
        _WORKER,
        ("eager",),
        {"torch": {}, "passive": {"OMP_WAIT_POLICY": "passive"}},
    ),
    "onnxruntime": Reference(
        "ONNX Runtime",
        ("onnxruntime",),
        _WORKER,
        ("all", "extended", "all, passive"),
        {"onnxruntime": {}},
    ),
    "openvino": Reference(
        "OpenVINO", ("openvino",), _WORKER, ("f32", "default"), {"openvino": {}}
    ),
}
_PASSES = {"torch": PASSES, "onnxruntime": (PREDICT,), "openvino": (PREDICT,)}

# What makes a model of ONNX of TensorFlow's graph.
_CONVERTER = ("tensorflow", "tf2onnx")
_CONVERSION_SECONDS = 600


def find(wanted=None, named=()):
    """Looks for the libraries: a dictionary from their names to their interpreters.

    Args:
        wanted: Names from `REFERENCES`; by default all.
        named: As of `references.find`.

    Returns:
        A dictionary from every name of `wanted` to an interpreter, or to None where
        the library is not installed.
    """
    wanted = [name for name in REFERENCES if wanted is None or name in wanted]
    found = dict.fromkeys(wanted)
    for python in references.interpreters(named):
        modules = {m for name in wanted for m in REFERENCES[name].modules}
        there = references.installed(python, sorted(modules)) if modules else set()
        for name in wanted:
            if found[name] is None and there.issuperset(REFERENCES[name].modules):
                found[name] = python
    return found


def command(name, python):
    """The command line of a worker, but for the threads."""
    return python, str(Path(__file__).with_name(_WORKER)), name


def candidates(names, subject):
    """Every way in which libraries run a subject: a list of `Candidate`."""
    return [
        Candidate(name, mode, engine)
        for name in names
        if subject.pass_ in _PASSES[name]
        for engine in REFERENCES[name].engines
        for mode in REFERENCES[name].modes
    ]


def write_onnx(subject, made, named=()):
    """Converts TensorFlow's graph of a subject for ONNX Runtime.

    Args:
        subject: A `Subject`, which was made.
        made: What `ModelWorker.make` returned.
        named: As of `references.find`.

    Returns:
        None, or a sentence why there is none.
    """
    for python in references.interpreters(named):
        if not references.installed(python, _CONVERTER).issuperset(_CONVERTER):
            continue
        files = "--graphdef", subject.path("frozen.pb")
        files += "--output", subject.path("model.onnx")
        ends = "--inputs", ",".join(made["inputs"])
        ends += "--outputs", ",".join(made["outputs"])
        try:
            done = subprocess.run(
                [python, "-m", "tf2onnx.convert", *files, *ends],
                capture_output=True,
                text=True,
                timeout=_CONVERSION_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"tf2onnx was not done in {_CONVERSION_SECONDS} s."
        if done.returncode:
            words = done.stderr.strip().splitlines() or ["it failed."]
            return f"tf2onnx: {words[-1]}"
        return None
    return "tf2onnx, which converts models for it, is not installed."
