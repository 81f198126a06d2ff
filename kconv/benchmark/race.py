"""Measures every way to compute a problem, in turns."""

import dataclasses
import time

from kconv.benchmark import implementation, machine, references
from kconv.benchmark.candidates import (
    ENGINES,
    MODES,
    STOCK_ENGINES,
    XLA,
    Measurement,
    tensorflow_candidates,
)
from kconv.benchmark.client import Worker
from kconv.benchmark.noise import NoiseWatch

# Seconds that a candidate is measured before the next has its turn.
TURN_SECONDS = 0.03

# A candidate this many times slower than the fastest gets no second turn.
HOPELESS = 3.0

# One that is so many times slower than another setting of the same does not even get
# the first turn, where its calls take longer than this.
NOT_WORTH_A_TURN = 10.0
LONG_SECONDS = 0.2

# An algorithm of kconv's that is so many times slower than the fastest, and slower than
# a single call is by chance, is not tried in further modes.
NOT_WORTH_A_MODE = 6.0
SHORT_SECONDS = 0.01

# Nobody waits longer until a candidate is compiled and was called three times.
PATIENCE_SECONDS = 60.0

# The work that watches the machine: a matrix product of this size, so many times.
WATCH_SIZE, WATCH_COUNT = 384, 5


class LayerBenchmark:
    """Measures candidates in turns, in worker processes; a context manager.

    kconv runs as the environment says.

    Args:
        algorithms: Names of algorithms of kconv, of families or modes.
        modes: Names from `MODES`: how both are called.
        engines: Names from `STOCK_ENGINES`: what stock's kernels use.
        threads: Threads of TensorFlow's pool within an operation.
        repeats: Turns of each candidate.
        seconds: After so long on a problem no further turns are started, once
            each candidate had three.
        found: What `references.find` returned.
    """

    def __init__(
        self,
        algorithms,
        modes=MODES,
        engines=STOCK_ENGINES,
        threads=2,
        repeats=7,
        seconds=5.0,
        found=None,
    ):
        self._algorithms = algorithms
        self._modes = modes
        self._engines = engines
        self._threads = threads
        self._repeats = repeats
        self._seconds = seconds
        self._found = found or {}
        self._teller = None
        self._workers = {
            engine: Worker(environment, threads)
            for engine, environment in ENGINES.items()
            if engine in (*engines, "default")
        }
        for name, python in self._found.items():
            for engine, environment in references.REFERENCES[name].engines.items():
                command = references.command(name, python)
                self._workers[engine] = Worker(environment, threads, command)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for worker in (*self._workers.values(), self._teller):
            if worker:
                worker.close()

    def environment(self):
        """Describes the machine and the settings: a dictionary of plain values."""
        described = self._workers["default"].environment()
        for name in self._found:
            described |= self._workers[name].environment()
        return described

    def machine(self):
        """Measures what the machine can do: a `Machine`."""
        workers = [self._workers[e] for e in (*self._engines, "default")]
        return machine.measure(workers, self._threads)

    def watch(self):
        """Returns a `NoiseWatch` of this benchmark."""
        default = self._workers["default"]
        return NoiseWatch(
            lambda: default.multiply(WATCH_SIZE, WATCH_COUNT),
            lambda: [w.pid for w in (*self._workers.values(), self._teller) if w],
        )

    def candidates(self, problem):
        """Every way to compute a problem: a list of `Candidate`."""
        return [
            *references.candidates(self._found),
            *tensorflow_candidates(
                problem, self._algorithms, self._modes, self._engines
            ),
        ]

    def measure(self, problem):
        """Measures every candidate on a problem.

        Returns:
            A list of `Measurement`, one for each candidate.
        """
        answers = self._prepare(problem)
        times = {c: [] for c, answer in answers.items() if answer["refusal"] is None}
        racing = [
            c
            for c in times
            if answers[c]["seconds"] <= _limit(c, answers, LONG_SECONDS)
        ]
        started = time.perf_counter()
        for turn in range(self._repeats):
            for candidate in racing:
                times[candidate] += self._worker(candidate).time(
                    candidate, TURN_SECONDS
                )
            # The least: of a few calls most may have met with a busy processor.
            least = {c: min(times[c]) for c in racing}
            hopeless = HOPELESS * min(least.values(), default=0)
            racing = [c for c in racing if least[c] <= hopeless]
            # Whoever comes first in a turn finds other caches than the last.
            racing.reverse()
            if turn >= 2 and time.perf_counter() - started > self._seconds:
                break
        for worker in self._workers.values():
            worker.forget()
        measurements = [
            Measurement(
                problem, c, times.get(c, []), answer["refusal"], answer["choice"]
            )
            for c, answer in answers.items()
        ]
        return self._told(measurements)

    def _prepare(self, problem):
        """Returns what the workers answer: a dictionary from `Candidate`."""
        answers = {}
        waiting = self.candidates(problem)
        while waiting:
            candidate = waiting.pop(0)
            if _is_beaten(candidate, answers, self._algorithms):
                refusal = "It was too slow when called otherwise."
                answers[candidate] = {"refusal": refusal, "choice": ""}
                continue
            try:
                answers[candidate] = self._worker(candidate).prepare(
                    problem, candidate, _limit(candidate, answers), PATIENCE_SECONDS
                )
            except TimeoutError as error:
                answers[candidate] = {"refusal": str(error), "choice": ""}
                # They went with their process.
                waiting += [
                    other
                    for other, answer in answers.items()
                    if other.engine == candidate.engine and answer["refusal"] is None
                ]
        return answers

    def _told(self, measurements):
        """The same with the implementation of stock's best."""
        stock = [m for m in measurements if m.candidate.name == "stock" and m.seconds]
        if not stock:
            return measurements
        best = min(stock, key=lambda m: m.median)
        choice = self._implementation(best.problem, best.candidate)
        told = dataclasses.replace(best, choice=choice)
        return [told if m is best else m for m in measurements]

    def _implementation(self, problem, candidate):
        if candidate.mode == XLA:
            return implementation.COMPILED
        if candidate.engine != "oneDNN":
            return implementation.EIGEN
        # To tell takes oneDNN time: it does so in a process that is not timed.
        if self._teller is None:
            environment = ENGINES["oneDNN"] | implementation.ENVIRONMENT
            self._teller = Worker(environment, self._threads)
        try:
            return self._teller.implementation(problem, candidate)
        finally:
            self._teller.forget()

    def _worker(self, candidate):
        if candidate.engine == XLA and XLA not in self._workers:
            # What compiles for ever is ended with its process, and nothing else.
            self._workers[XLA] = Worker({}, self._threads)
        return self._workers[candidate.engine]


def _limit(candidate, answers, least=0.0):
    """Seconds beyond which a call is not worth a turn; None if nothing is known."""
    known = [
        answer["seconds"]
        for other, answer in answers.items()
        if other.name == candidate.name and answer["refusal"] is None
    ]
    return max(least, NOT_WORTH_A_TURN * min(known)) if known else None


def _is_beaten(candidate, answers, algorithms):
    """Whether a further mode of an algorithm need not be tried."""
    if candidate.name not in algorithms or candidate.name.startswith("auto"):
        return False
    known = {c: a["seconds"] for c, a in answers.items() if a["refusal"] is None}
    own = [seconds for c, seconds in known.items() if c.name == candidate.name]
    limit = max(SHORT_SECONDS, NOT_WORTH_A_MODE * min(known.values(), default=0))
    return bool(own) and min(own) > limit
