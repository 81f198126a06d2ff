"""The child's side: times stock and kconv calls on request.

`python -m kconv.benchmark.worker THREADS` answers questions as `server.serve` says; see
`client.Worker`.
"""

import os
import platform
import sys

import tensorflow as tf

from kconv import native
from kconv.benchmark import calls
from kconv.benchmark.problems import Problem
from kconv.benchmark.server import Stopwatch, serve
from kconv.info import processor

# What changes the speed, and so belongs beside every figure.
VARIABLES = (
    "KCONV_ACCURACY",
    "KCONV_MAX_ISA",
    "KCONV_DISABLE_NATIVE",
    "ONEDNN_MAX_CPU_ISA",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_NUM_INTRAOP_THREADS",
)


class Server:
    """Answers the questions of one parent process.

    Args:
        threads: Threads of TensorFlow's pool within an operation.
    """

    def __init__(self, threads):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        self._threads = threads
        self._operands = {}
        self._stopwatch = Stopwatch()

    def describe(self):
        """Versions, processor and settings."""
        core = native.core()
        return {
            "processor": processor(),
            "instruction sets": " ".join(core.isas()) if core else "none",
            "threads": self._threads,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            **{name: os.environ[name] for name in VARIABLES if name in os.environ},
        }

    def prepare(self, problem, candidate, limit=None):
        """Builds a candidate and calls it, which also traces it."""
        problem = Problem.from_json(problem)
        name, mode = candidate["name"], candidate["mode"]
        if name == "dense":
            problem, name = problem.dense, "auto"
        if problem not in self._operands:
            self._operands[problem] = calls.operands(problem)
        arguments = self._operands[problem]
        if name == "stock":
            refusal, choice, call = None, "stock", calls.stock(problem)
            arguments = calls.stock_operands(problem, arguments)
        else:
            refusal, choice, call = calls.kconv(problem, name)
        answer = {"refusal": refusal, "choice": choice}
        if refusal is not None:
            return answer
        if mode == "XLA":
            call = tf.function(call, jit_compile=True)

        def sequence(seconds):
            count = calls.repetitions(seconds)
            return calls.in_sequence(call, count), count

        try:
            return answer | self._stopwatch.prepare(
                _key(candidate),
                call,
                arguments,
                limit,
                None if mode == "eager" else sequence,
            )
        except tf.errors.OpError as error:
            # What stock does not take it tells only when it runs.
            if name != "stock":
                raise
            return answer | {"refusal": error.message.splitlines()[0]}

    def time(self, candidate, seconds):
        """Measures a candidate that is prepared."""
        return {"seconds": self._stopwatch.measure(_key(candidate), seconds)}

    def forget(self):
        """Frees operands and functions."""
        self._operands.clear()
        self._stopwatch.forget()
        return {}


def _key(candidate):
    return candidate["name"], candidate["mode"]


if __name__ == "__main__":
    serve(lambda: Server(int(sys.argv[1])))
