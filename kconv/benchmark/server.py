"""The loop of a worker process: a question a line comes in, an answer a line goes out.

Both are JSON objects. It needs neither kconv nor TensorFlow: a worker may run under an
interpreter that has neither.
"""

import json
import os
import sys
import time


def serve(make_worker):
    """Answers on standard output what comes from standard input, until that ends.

    Args:
        make_worker: A function without arguments that returns an object. Its method
            of the name that a question has under "do" takes the rest of the question
            as keyword arguments and returns a dictionary. What either raises is the
            answer.
    """
    # What a library prints must not end up among the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    worker = None
    for line in sys.stdin:
        try:
            worker = worker or make_worker()
            question = json.loads(line)
            answer = getattr(worker, question.pop("do"))(**question)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


def timed(call, *arguments):
    """Seconds that a call takes."""
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


class Stopwatch:
    """Times calls that are prepared once and measured in several turns."""

    # A call this long leaves the caches as it likes: warming them is in vain.
    _LONG = 0.2

    # A single short call may have met with a busy processor.
    _FEWEST = 3

    # Longer than any compilation of a single layer takes.
    _HOPELESS = 2.0

    def __init__(self):
        self._calls = {}

    def prepare(self, key, call, arguments, limit=None, sequence=None):
        """Calls once or twice, which also traces and compiles.

        Args:
            key: Anything hashable, for `measure`.
            call: A function.
            arguments: Its arguments.
            limit: None, or the seconds beyond which a call is not worth measuring.
            sequence: None, or a function of the seconds of a call that returns another
                function to be called in its place, and how many calls that makes.

        Returns:
            A dictionary: `refusal`, None or a sentence that it took too long, and
            `seconds`, those of a call.
        """
        seconds = timed(call, *arguments)
        if limit is not None and seconds > max(limit, self._HOPELESS):
            refusal = f"A call took {seconds:.1f} s and was not repeated."
            return {"refusal": refusal, "seconds": seconds}
        if seconds < self._HOPELESS:
            seconds = timed(call, *arguments)
        count = 1
        if sequence is not None:
            call, count = sequence(seconds)
            timed(call, *arguments)
        self._calls[key] = (call, arguments, count, seconds)
        return {"refusal": None, "seconds": seconds}

    def measure(self, key, seconds):
        """Calls once for the caches, then until the time is up.

        Returns:
            The seconds of each call; one at least.
        """
        call, arguments, count, expected = self._calls[key]
        fewest = 1
        if expected < self._LONG:
            call(*arguments)
            fewest = self._FEWEST
        times = []
        while len(times) < fewest or count * sum(times) < seconds:
            times.append(timed(call, *arguments) / count)
        return times

    def forget(self):
        """Frees the calls and their arguments."""
        self._calls.clear()
