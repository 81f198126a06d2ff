"""The child's side: times stock and kconv calls on request.

`python -m kconv.benchmark.worker THREADS` reads a JSON object a line from standard
input and answers each with one on standard output; see `client.Worker`.
"""

import json
import os
import platform
import sys
import time

import tensorflow as tf

from kconv import native
from kconv.benchmark import calls
from kconv.benchmark.problems import Problem
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
        self._calls = {}

    def answer(self, question):
        """Returns the answer to a question, both dictionaries."""
        question = dict(question)
        return getattr(self, question.pop("do"))(**question)

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

    def prepare(self, problem, candidate):
        """Builds a candidate and calls it once, which also traces it."""
        problem = Problem.from_json(problem)
        if problem not in self._operands:
            self._operands[problem] = calls.operands(problem)
        if candidate["name"] == "stock":
            refusal, choice, call = None, "stock", calls.stock(problem)
        else:
            refusal, choice, call = calls.kconv(problem, candidate["name"])
        if refusal is None:
            count = 1
            if candidate["mode"] == "graph":
                count = calls.repetitions(problem)
                call = calls.in_sequence(call, count)
            arguments = self._operands[problem]
            call(*arguments)
            self._calls[_key(candidate)] = (call, arguments, count)
        return {"refusal": refusal, "choice": choice}

    def time(self, candidate, seconds):
        """Calls once for the caches, then until the time is up."""
        call, arguments, count = self._calls[_key(candidate)]
        call(*arguments)
        times = []
        while count * sum(times) < seconds:
            started = time.perf_counter()
            call(*arguments)
            times.append((time.perf_counter() - started) / count)
        return {"seconds": times}

    def forget(self):
        """Frees operands and functions."""
        self._operands.clear()
        self._calls.clear()
        return {}


def _key(candidate):
    return candidate["name"], candidate["mode"]


def main():
    """Serves until standard input ends."""
    # What a library prints must not end up among the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    server = Server(int(sys.argv[1]))
    for line in sys.stdin:
        try:
            answer = server.answer(json.loads(line))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
