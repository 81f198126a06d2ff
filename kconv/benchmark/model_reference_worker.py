"""The child's side for other libraries: times whole models on request.

`python kconv/benchmark/model_reference_worker.py LIBRARY THREADS` answers questions as
`server.serve` says. It runs as a script under an interpreter that needs neither kconv
nor TensorFlow, and so imports only files beside it.
"""

import os
import sys

from server import Stopwatch, serve
from subjects import PREDICT, Subject


class OnnxRuntime:
    """ONNX Runtime, on the model that tf2onnx made; a mode is a level and a manner."""

    def __init__(self, threads):
        import onnxruntime

        self._library, self._threads = onnxruntime, threads
        self.version = onnxruntime.__version__

    def call(self, subject, mode):
        """A function without arguments that predicts and returns arrays."""
        library = self._library
        level, _, passive = mode.partition(", ")
        options = library.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = getattr(
            library.GraphOptimizationLevel, f"ORT_ENABLE_{level.upper()}"
        )
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0" if passive else "1"
        )
        session = library.InferenceSession(
            subject.path("model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        kinds = {"tensor(float)": "float32", "tensor(float16)": "float16"}
        given = {
            one.name: random_array(one.shape, kinds.get(one.type, "int32"))
            for one in session.get_inputs()
        }
        return lambda: session.run(None, given)


class OpenVino:
    """OpenVINO, which reads TensorFlow's graph; a mode is a precision."""

    def __init__(self, threads):
        import openvino

        self._library, self._threads = openvino, threads
        self.version = openvino.__version__

    def call(self, subject, mode):
        """A function without arguments that predicts and returns arrays."""
        core = self._library.Core()
        model = core.read_model(subject.path("frozen.pb"))
        options = {
            "INFERENCE_NUM_THREADS": self._threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if mode != "default":
            options["INFERENCE_PRECISION_HINT"] = mode
        request = core.compile_model(model, "CPU", options).create_infer_request()
        given = [
            random_array(list(one.shape), one.element_type.to_dtype())
            for one in model.inputs
        ]
        request.infer(given)
        outputs = [request.get_output_tensor(i) for i in range(len(model.outputs))]

        def run():
            request.infer()
            return [tensor.data for tensor in outputs]

        return run


class KerasOnTorch:
    """The same Keras model of stock layers, on PyTorch."""

    def __init__(self, threads):
        os.environ["KERAS_BACKEND"] = "torch"
        import keras
        import torch

        torch.set_num_threads(threads)
        self._keras, self._torch = keras, torch
        self.version = f"{torch.__version__}, Keras {keras.__version__}"

    def call(self, subject, mode):
        """A function without arguments that predicts, or makes a training step."""
        keras, torch = self._keras, self._torch
        model = keras.saving.load_model(subject.path("stock.keras"), compile=False)
        images = [self._random(one, subject) for one in model.inputs]
        images = images[0] if len(images) == 1 else images
        if subject.pass_ == PREDICT:

            def predict():
                with torch.inference_mode():
                    results = model(images, training=False)
                return [one.numpy() for one in keras.tree.flatten(results)]

            return predict
        optimizer = keras.optimizers.SGD(1e-4, 0.9)
        optimizer.build(model.trainable_variables)
        labels = torch.zeros((subject.batch,), dtype=torch.int32)
        entropy = keras.losses.SparseCategoricalCrossentropy()

        def step():
            model.zero_grad()
            outputs = keras.tree.flatten(model(images, training=True))
            if len(outputs) == 1 and outputs[0].ndim == 2:
                value = entropy(labels, outputs[0])
            else:
                value = sum(one.float().square().mean() for one in outputs)
            value.backward()
            gradients = [one.value.grad for one in model.trainable_variables]
            with torch.no_grad():
                optimizer.apply(gradients, model.trainable_variables)
            return [value.item()]

        return step

    def _random(self, tensor, subject):
        shape = [subject.size if n is None else n for n in tensor.shape[1:]]
        dtype = self._keras.backend.standardize_dtype(tensor.dtype)
        array = random_array([subject.batch, *shape], "float32")
        tensor = self._torch.from_numpy(array)
        if "float" not in dtype:
            tensor = self._torch.zeros_like(tensor)
        return tensor.to(getattr(self._torch, dtype))


LIBRARIES = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "torch": KerasOnTorch,
}


class Server:
    """Answers the questions of one parent process.

    Args:
        name: Key of `LIBRARIES`.
        threads: Threads within an operation.
    """

    def __init__(self, name, threads):
        self._name, self._library = name, LIBRARIES[name](threads)
        self._stopwatch = Stopwatch()

    def describe(self):
        """The version."""
        return {self._name: self._library.version}

    def prepare(self, problem, candidate, limit=None):
        """Loads a model and calls it."""
        answer = {"refusal": None, "choice": self._name}
        try:
            call = self._library.call(Subject(**problem), candidate["mode"])
            return answer | self._stopwatch.prepare(candidate["mode"], call, (), limit)
        except Exception as error:
            # Of whatever kind: the libraries have no exceptions in common.
            words = str(error).strip().splitlines() or [type(error).__name__]
            return answer | {"refusal": words[0]}

    def time(self, candidate, seconds):
        """Measures a candidate that is prepared."""
        return {"seconds": self._stopwatch.measure(candidate["mode"], seconds)}

    def forget(self):
        """Frees the models."""
        self._stopwatch.forget()
        return {}


def random_array(shape, dtype):
    """Random numbers; zeros for what is not floating."""
    import numpy

    if "float" not in str(dtype):
        return numpy.zeros(shape, dtype)
    return numpy.random.default_rng(0).standard_normal(shape, "float32").astype(dtype)


if __name__ == "__main__":
    serve(lambda: Server(sys.argv[1], int(sys.argv[2])))
