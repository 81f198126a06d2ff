"""Other libraries: how they are found, asked, and that they compute the same."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kconv.benchmark import calls, client, references
from kconv.benchmark.candidates import Candidate
from kconv.benchmark.problems import PASSES, Layer, Problem

FOLDER = Path(client.__file__).parent
FOUND = references.find()
FORWARD_ONLY = ("onnxruntime", "openvino")

# Of each kind, and uneven padding.
SMALL = [
    Layer(3, 6, 4, 8),
    Layer(3, 8, 4, 4, stride=2),
    Layer(3, 6, 4, 8, groups=4),
    Layer(5, 6, 4, 4, stride=2, groups=4),
    Layer(3, 8, 6, 12, stride=2, groups=3),
    Layer(4, 8, 4, 6, stride=2),
    Layer(2, 9, 4, 6, dims=1, dilation=4),
    Layer(3, 5, 4, 6, stride=2, dims=3),
]


def needs(name):
    reason = f"{references.REFERENCES[name].title} is missing"
    return pytest.mark.skipif(name not in FOUND, reason=reason)


# Where they are.


@pytest.fixture
def nothing_named(monkeypatch):
    for variable in (references.VARIABLE, references.TORCH_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def interpreter(tmp_path):
    """A function that writes a program which says that it has some modules."""

    def write(name, *modules):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho '{json.dumps(modules)}'\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return write


@pytest.mark.usefixtures("nothing_named")
def test_interpreters_can_be_named(monkeypatch):
    assert references.interpreters() == [sys.executable]
    monkeypatch.setenv(references.TORCH_VARIABLE, "torch/python")
    monkeypatch.setenv(references.VARIABLE, os.pathsep.join(["one", "two"]))
    assert references.interpreters(["first"]) == [
        *("first", "one", "two", "torch/python", sys.executable)
    ]


@pytest.mark.usefixtures("nothing_named")
def test_each_is_taken_from_the_first_that_has_it(monkeypatch, interpreter):
    # ONNX Runtime needs both.
    one = interpreter("one", "torch", "onnxruntime")
    two = interpreter("two", "torch", "onnxruntime", "onnx")
    none = interpreter("none")
    monkeypatch.setattr(sys, "executable", none)
    assert references.find() == {}
    assert references.find(named=[one, two]) == {"torch": one, "onnxruntime": two}
    assert references.find(["onnxruntime"], [one]) == {}
    assert references.find([], [two]) == {}
    assert references.find([], [two], required=["torch"]) == {"torch": two}
    monkeypatch.setenv(references.VARIABLE, two)
    assert references.find(["torch", "openvino"]) == {"torch": two}


@pytest.mark.usefixtures("nothing_named")
def test_what_is_asked_for_and_missing_is_one_sentence(monkeypatch, interpreter):
    monkeypatch.setattr(sys, "executable", interpreter("none"))
    with pytest.raises(RuntimeError, match="PyTorch is missing: `pip install torch`"):
        references.find(required=["torch"])
    with pytest.raises(RuntimeError, match="`pip install onnx onnxruntime`"):
        references.find(required=["onnxruntime"])


def test_interpreters_that_do_not_run_are_told(tmp_path):
    for path in (str(tmp_path / "nowhere"), "/bin/false", "/bin/true"):
        with pytest.raises(RuntimeError, match=f"does not run. Received: {path}"):
            references.find(named=[path])


def test_every_setting_is_a_candidate():
    assert references.candidates({}) == []
    assert references.candidates(["torch"]) == [
        Candidate("torch", "contiguous", "torch"),
        Candidate("torch", "channels_last", "torch"),
        Candidate("torch", "contiguous", "passive"),
        Candidate("torch", "channels_last", "passive"),
    ]
    for name, reference in references.REFERENCES.items():
        assert next(iter(reference.engines)) == name
        assert (FOLDER / reference.worker).is_file()


# Their processes. Where a library is missing, something without a will takes its place.

FAKE = """
import sys
from unittest.mock import MagicMock

sys.modules[__name__] = MagicMock(__version__="of a test")
"""


@pytest.fixture(scope="module")
def fakes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fakes")
    for module in ("onnx", "onnxruntime", "openvino"):
        (folder / f"{module}.py").write_text(FAKE)
    return {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize("name", FORWARD_ONLY)
@pytest.mark.parametrize("is_real", [False, True], ids=["fake", "real"])
def test_inference_engines_are_timed_on_forward_passes(name, is_real, fakes):
    if is_real and name not in FOUND:
        pytest.skip("it is missing")
    python = FOUND[name] if is_real else sys.executable
    worker = client.Worker(
        {} if is_real else fakes, 1, references.command(name, python)
    )
    versions = worker.environment()
    assert list(versions) == [name]
    assert is_real or versions[name] == "of a test"
    for candidate in references.candidates([name]):
        for layer in (SMALL[0], SMALL[2]):
            answer = worker.prepare(Problem(layer, 2, "forward"), candidate)
            assert (answer["refusal"], answer["choice"]) == (None, name)
            assert min(worker.time(candidate, 0)) > 0
        for pass_ in ("input_gradient", "filter_gradient"):
            answer = worker.prepare(Problem(SMALL[0], 2, pass_), candidate)
            assert "computes no gradients" in answer["refusal"]
    worker.forget()
    with pytest.raises(RuntimeError, match="KeyError"):
        worker.time(candidate, 0)
    worker.close()


@pytest.mark.parametrize(
    ("name", "dtype"), [("onnxruntime", "bfloat16"), ("openvino", "float64")]
)
def test_types_that_an_engine_lacks_are_refused(name, dtype, fakes):
    worker = client.Worker(fakes, 1, references.command(name, sys.executable))
    candidate = references.candidates([name])[0]
    answer = worker.prepare(Problem(SMALL[0], 2, "forward", dtype), candidate)
    assert dtype in answer["refusal"]
    worker.close()


@needs("torch")
def test_pytorch_is_timed_in_a_process_of_its_own():
    worker = client.Worker({}, 1, references.command("torch", FOUND["torch"]))
    assert "torch" in worker.environment()
    problem = Problem(SMALL[3], 2, "filter_gradient")
    for mode in references.REFERENCES["torch"].modes:
        candidate = Candidate("torch", mode, "torch")
        answer = worker.prepare(problem, candidate)
        assert (answer["refusal"], answer["choice"]) == (None, "torch")
        assert min(worker.time(candidate, 0)) > 0
    worker.forget()
    worker.close()


# What they compute. Each program reads problems and their tensors, channels first, and
# writes results.

PROGRAM = """
import json, sys
import numpy as np
from problems import Problem
{imports}

def compute(problem, mode, image, kernel, gradient):
    {body}

results = []
for given in json.load(sys.stdin):
    problem = Problem.from_json(given["problem"])
    tensors = [np.array(values, "float32") for values in given["tensors"]]
    results.append(np.asarray(compute(problem, given["mode"], *tensors)).tolist())
print(json.dumps(results))
"""
PROGRAMS = {
    "torch": PROGRAM.format(
        imports="import torch\nfrom pytorch_worker import make_call",
        body="""
    tensors = iter([image, kernel, gradient])
    tensor = lambda shape: torch.from_numpy(next(tensors)).reshape(shape)
    call, operands = make_call(torch, problem, mode, tensor)
    return call(*operands)""",
    ),
    "onnxruntime": PROGRAM.format(
        imports="from onnxruntime_worker import make_session",
        body="""
    run, result = make_session(problem, mode, 1, image, kernel)
    run()
    return result()""",
    ),
    "openvino": PROGRAM.format(
        imports="from openvino_worker import make_request",
        body="""
    request = make_request(problem, mode, 1, image, kernel)
    request.infer()
    return request.get_output_tensor().data""",
    ),
}


def results(name, questions):
    """Runs a program: starting a library takes seconds, so once."""
    done = subprocess.run(
        [FOUND[name], "-c", PROGRAMS[name]],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
    )
    assert done.returncode == 0, done.stderr
    return [np.asarray(result) for result in json.loads(done.stdout)]


@pytest.mark.parametrize(
    ("name", "modes", "passes"),
    [
        pytest.param(
            *("torch", ("contiguous_format", "channels_last"), PASSES),
            marks=needs("torch"),
        ),
        pytest.param(
            *("onnxruntime", ("all", "extended, passive"), ("forward",)),
            marks=needs("onnxruntime"),
        ),
        pytest.param(
            *("openvino", ("f32", "f32, unpinned"), ("forward",)),
            marks=needs("openvino"),
        ),
    ],
)
def test_they_compute_the_same(name, modes, passes):
    questions, expected = [], []
    for layer in SMALL:
        image, kernel = calls.operands(Problem(layer, 2, "forward"))
        gradient, _ = calls.operands(Problem(layer, 2, "input_gradient"))
        operands = {
            "forward": (image, kernel),
            "input_gradient": (gradient, kernel),
            "filter_gradient": (image, gradient),
        }
        first = [0, layer.dims + 1, *range(1, layer.dims + 1)]
        filters = [layer.dims + 1, layer.dims, *range(layer.dims)]
        orders = (first, image), (filters, kernel), (first, gradient)
        tensors = [np.transpose(tensor, order).tolist() for order, tensor in orders]
        for pass_ in passes:
            problem = Problem(layer, 2, pass_)
            result = calls.kconv(problem, "auto")[2](*operands[pass_])
            for mode in modes:
                questions.append(
                    {"problem": problem.to_json(), "mode": mode, "tensors": tensors}
                )
                expected.append((problem, result))
    for (problem, ours), theirs in zip(expected, results(name, questions), strict=True):
        dims = problem.layer.dims
        last = [0, *range(2, dims + 2), 1]
        filters = [*range(2, dims + 2), 1, 0]
        back = filters if problem.pass_ == "filter_gradient" else last
        theirs = theirs.transpose(back)
        if problem.pass_ == "input_gradient" and theirs.shape != ours.shape:
            # It is that by the padded image.
            inner = slice(problem.layer.pads[0], problem.layer.pads[0] + ours.shape[1])
            theirs = theirs[(slice(None), *[inner] * dims)]
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-4, atol=1e-4, err_msg=str(problem)
        )
