"""The child's side: times and measures whole models of TensorFlow on request.

`python -m kconv.benchmark.model_worker THREADS` answers questions as `server.serve`
says; see `model_client.ModelWorker`.
"""

import gc
import sys

import keras
import numpy as np

from kconv import native, profiler
from kconv.benchmark import model_calls, resident, worker
from kconv.benchmark.server import serve
from kconv.benchmark.subjects import PREDICT, Subject

# Some memory is there before a model is, most of it that of TensorFlow itself.
_AT_START = resident.now()


class Server(worker.Server):
    """Answers the questions of one parent process.

    Args:
        threads: Threads of TensorFlow's pool within an operation.
    """

    def __init__(self, threads):
        super().__init__(threads)
        self._models = {}

    def make(self, subject):
        """Makes the two models of a subject and writes them to its folder.

        For predictions stock's graph with constants goes there as well, for other
        libraries.
        """
        subject = Subject(**subject)
        stock, own = model_calls.make(subject)
        arguments = model_calls.arguments(stock, subject)
        stock.save(subject.path("stock.keras"))
        own.save(subject.path("kconv.keras"))
        profile = profiler.profile(
            own, model_calls.shapes_of(own, subject), subject.batch
        )
        answer = {
            "macs": profile.total.macs,
            "parameters": stock.count_params(),
            "difference": _difference(stock(*arguments), own(*arguments)),
        }
        if subject.pass_ == PREDICT:
            frozen = model_calls.frozen(
                lambda *images: stock(*images, training=False), *arguments
            )
            with open(subject.path("frozen.pb"), "wb") as file:
                file.write(frozen.graph.graph.as_graph_def().SerializeToString())
            answer["inputs"] = [tensor.name for tensor in frozen.graph.inputs]
            answer["outputs"] = [tensor.name for tensor in frozen.graph.outputs]
            answer["shapes"] = [list(t.shape) for t in frozen.graph.inputs]
        return answer

    def prepare(self, problem, candidate, limit=None):
        """Loads a model and calls it, which also traces it."""
        subject = Subject(**problem)
        answer = {"refusal": None, "choice": candidate["name"]}
        try:
            call = self._model_call(subject, candidate)
            return answer | self._stopwatch.prepare(_key(candidate), call, (), limit)
        except Exception as error:
            if candidate["name"] != "stock":
                raise
            # What stock does not take it tells only when it runs.
            return answer | {"refusal": _sentence(error)}

    def time(self, candidate, seconds):
        """Measures a candidate that is prepared."""
        return {"seconds": self._stopwatch.measure(_key(candidate), seconds)}

    def forget(self):
        """Frees models and functions."""
        super().forget()
        self._models.clear()
        keras.backend.clear_session()
        gc.collect()
        return {}

    def memory(self, subject, candidate, calls):
        """Calls a model, and tells the memory that this took; once in a process."""
        call = self._model_call(Subject(**subject), candidate)
        # What reading a file takes for a moment is not what the model takes.
        gc.collect()
        resident.reset_peak()
        native.reset_workspace_peak()
        built = resident.now()
        for _ in range(calls):
            call()
        return {
            "start": _AT_START,
            "built": built,
            "peak": resident.peak(),
            "workspace": native.workspace_peak(),
        }

    def _model_call(self, subject, candidate):
        name, mode = candidate["name"], candidate["mode"]
        key = name, mode == model_calls.PREPARED
        if key not in self._models:
            path = subject.path(f"{name}.keras")
            self._models[key] = keras.saving.load_model(path, compile=False)
        return model_calls.call(self._models[key], subject, mode)


def _key(candidate):
    return candidate["name"], candidate["mode"]


def _sentence(error):
    """The first line of what an exception says."""
    words = str(getattr(error, "message", error)).strip().splitlines()
    return words[0] if words else type(error).__name__


def _difference(theirs, ours):
    """The largest distance of two predictions, as a part of the largest value."""
    most = 0.0
    for a, b in zip(keras.tree.flatten(theirs), keras.tree.flatten(ours), strict=True):
        a, b = (np.asarray(keras.ops.cast(x, "float64")) for x in (a, b))
        most = max(most, float(np.max(np.abs(a - b)) / (np.max(np.abs(a)) or 1)))
    return most


if __name__ == "__main__":
    serve(lambda: Server(int(sys.argv[1])))
