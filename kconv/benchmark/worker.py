"""The child's side: times stock and kconv calls on request.

`python -m kconv.benchmark.worker THREADS` answers questions as `server.serve` says; see
`client.Worker`.
"""

import os
import platform
import sys

import tensorflow as tf

from kconv import native
from kconv.benchmark import calls, implementation, stock
from kconv.benchmark.candidates import EAGER, FROZEN, NATIVE, XLA
from kconv.benchmark.problems import Problem
from kconv.benchmark.server import Stopwatch, serve, timed
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
        refusal, choice, call, arguments = self._call(problem, candidate)
        answer = {"refusal": refusal, "choice": choice}
        if refusal is not None:
            return answer
        mode, first = candidate["mode"], call
        if mode == FROZEN:
            arguments, kernel = arguments[:1], arguments[1]

            def first(operand):
                return call(operand, kernel)

        def sequence(seconds):
            count = calls.repetitions(seconds)
            several = calls.in_sequence(call, count)
            if mode == FROZEN:
                several = calls.frozen(several, *arguments, kernel)
            return several, count

        try:
            return answer | self._stopwatch.prepare(
                _key(candidate),
                first,
                arguments,
                limit,
                None if mode == EAGER else sequence,
            )
        except tf.errors.OpError as error:
            # What stock does not take it tells only when it runs.
            if candidate["name"] != "stock":
                raise
            return answer | {"refusal": error.message.splitlines()[0]}

    def implementation(self, problem, candidate):
        """Which implementation stock takes, as oneDNN must have been told to tell."""
        _, _, call, arguments = self._call(problem, candidate)
        if candidate["mode"] == FROZEN:
            call, arguments = calls.frozen(call, *arguments), arguments[:1]
        elif candidate["mode"] != EAGER:
            call = tf.function(call)
        call(*arguments)
        words = implementation.printed(call, *arguments)
        return {"implementation": implementation.name(words)}

    def multiply(self, size, count):
        """Multiplies square matrices of float32, and once more beforehand."""
        matrix = tf.random.stateless_normal((size, size), (0, 0))
        tf.matmul(matrix, matrix)
        return {"seconds": [timed(tf.matmul, matrix, matrix) for _ in range(count)]}

    def time(self, candidate, seconds):
        """Measures a candidate that is prepared."""
        return {"seconds": self._stopwatch.measure(_key(candidate), seconds)}

    def forget(self):
        """Frees operands and functions."""
        self._operands.clear()
        self._stopwatch.forget()
        return {}

    def _call(self, problem, candidate):
        """Returns refusal, algorithm, function and operands of a candidate."""
        problem = Problem.from_json(problem)
        name, mode = candidate["name"], candidate["mode"]
        if name == "dense":
            problem, name = problem.dense, "auto"
        if problem not in self._operands:
            self._operands[problem] = calls.operands(problem)
        arguments = self._operands[problem]
        if name != "stock":
            return (*calls.kconv(problem, name), arguments)
        call = stock.call(problem, native=mode == NATIVE)
        if mode == XLA:
            call = tf.function(call, jit_compile=True)
        return None, "stock", call, stock.operands(problem, arguments)


def _key(candidate):
    return candidate["name"], candidate["mode"]


if __name__ == "__main__":
    serve(lambda: Server(int(sys.argv[1])))
