"""`kconv bench layers`: single layers, kconv against stock, in one run."""

import dataclasses
import math
import statistics
import time

from rich.console import Console
from rich.progress import Progress

from kconv.benchmark import report
from kconv.benchmark.client import Worker
from kconv.benchmark.problems import PASSES, make_problems

# Seconds that a candidate is measured before the next has its turn.
TURN_SECONDS = 0.03

# A candidate this many times slower than the fastest gets no second turn.
HOPELESS = 3.0


# What TF_ENABLE_ONEDNN_OPTS can be, and as the user has it.
ENGINES = {
    "oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "1"},
    "Eigen": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "default": {},
}

# Between them stock's best is found: by default TensorFlow takes oneDNN on some
# processors only.
STOCK_ENGINES = ("oneDNN", "Eigen")

MODES = ("graph", "eager")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to compute a problem.

    Attributes:
        name: "stock", "auto" or another name of algorithms of kconv.
        mode: "eager" or "graph", a `tf.function`.
        engine: Key of `ENGINES`: what TensorFlow's own kernels use.
    """

    name: str
    mode: str
    engine: str = "default"

    @property
    def setting(self):
        """How it was called, for the report."""
        return self.mode if self.engine == "default" else f"{self.mode}, {self.engine}"

    def to_json(self):
        """As a dictionary of the constructor's arguments."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a candidate did on a problem.

    Attributes:
        problem: The `Problem`.
        candidate: The `Candidate`.
        seconds: Seconds of each call; empty if it refused.
        refusal: None, or a sentence.
        choice: Name of the algorithm that ran.
    """

    problem: object
    candidate: Candidate
    seconds: list
    refusal: str | None = None
    choice: str = ""

    @property
    def median(self):
        """Seconds a call; infinite if it refused."""
        return statistics.median(self.seconds) if self.seconds else math.inf

    @property
    def spread(self):
        """Half the distance between the quartiles, as a part of the median."""
        if len(self.seconds) < 2:
            return 0.0
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (third - first) / 2 / self.median


class LayerBenchmark:
    """Measures candidates in turns, in worker processes; a context manager.

    kconv runs as the environment says.

    Args:
        algorithms: Names of algorithms of kconv, of families or modes.
        modes: Names from `MODES`: how both are called.
        engines: Keys of `ENGINES`: what stock's kernels use.
        threads: Threads of TensorFlow's pool within an operation.
        repeats: Turns of each candidate.
        seconds: After so long on a problem no further turns are started, once
            each candidate had three.
    """

    def __init__(
        self,
        algorithms,
        modes=MODES,
        engines=STOCK_ENGINES,
        threads=2,
        repeats=7,
        seconds=5.0,
    ):
        self._candidates = [
            *(Candidate("stock", m, e) for e in engines for m in modes),
            *(Candidate(name, m) for name in algorithms for m in modes),
        ]
        self._repeats = repeats
        self._seconds = seconds
        self._workers = {
            engine: Worker(environment, threads)
            for engine, environment in ENGINES.items()
            if engine in (*engines, "default")
        }

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for worker in self._workers.values():
            worker.close()

    def environment(self):
        """Describes the machine and the settings: a dictionary of plain values."""
        return self._workers["default"].environment()

    def measure(self, problem):
        """Measures every candidate on a problem.

        Returns:
            A list of `Measurement`, one for each candidate.
        """
        answers = {c: self._worker(c).prepare(problem, c) for c in self._candidates}
        times = {c: [] for c in self._candidates if answers[c]["refusal"] is None}
        racing = list(times)
        started = time.perf_counter()
        for turn in range(self._repeats):
            for candidate in racing:
                times[candidate] += self._worker(candidate).time(
                    candidate, TURN_SECONDS
                )
            fastest = min(statistics.median(times[c]) for c in racing)
            racing = [
                c for c in racing if statistics.median(times[c]) <= HOPELESS * fastest
            ]
            # Whoever comes first in a turn finds other caches than the last.
            racing.reverse()
            if turn >= 2 and time.perf_counter() - started > self._seconds:
                break
        for worker in self._workers.values():
            worker.forget()
        return [
            Measurement(problem, c, times.get(c, []), **answers[c])
            for c in self._candidates
        ]

    def _worker(self, candidate):
        return self._workers[candidate.engine]


def run(
    layers="all",
    batches=(1, 8),
    passes=PASSES,
    algorithms=None,
    dtype="float32",
    modes=MODES,
    engines=STOCK_ENGINES,
    threads=2,
    repeats=7,
    seconds=5.0,
    csv=None,
    json=None,
    plot=None,
):
    """Measures layers and prints the results.

    Interrupted, it prints what it has.

    Args:
        layers: "3x3", "1x1" or "all".
        batches: Batch sizes.
        passes: Names of passes.
        algorithms: Names of algorithms; by default "auto" and each of kconv's.
        dtype: Type of all operands.
        modes: As in `LayerBenchmark`.
        engines: As in `LayerBenchmark`.
        threads: As in `LayerBenchmark`.
        repeats: As in `LayerBenchmark`.
        seconds: As in `LayerBenchmark`.
        csv: None, or a path to write to.
        json: None, or a path to write to.
        plot: None, or a path to write a picture to.

    Raises:
        ValueError: If there is no such algorithm.
        RuntimeError: If a process of the benchmark fails.
    """
    algorithms = _known(algorithms)
    console = Console()
    if not console.is_terminal:
        # The table is wide, and a file has no edge.
        console = Console(width=160)
    problems = make_problems(layers, batches, passes, dtype)
    comparisons = []
    with LayerBenchmark(
        algorithms, modes, engines, threads, repeats, seconds
    ) as benchmark:
        environment = benchmark.environment()
        for name, value in environment.items():
            console.print(f"{name}: {value}", highlight=False)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("", total=len(problems))
            try:
                for problem in problems:
                    progress.update(task, description=str(problem))
                    comparisons.append(report.Comparison(benchmark.measure(problem)))
                    progress.advance(task)
            except KeyboardInterrupt:
                progress.stop()
                console.print(f"Interrupted after {len(comparisons)} problems.")
    if not comparisons:
        return
    console.print(report.layer_table(comparisons))
    console.print(report.mean_table(comparisons))
    if csv:
        report.write_csv(comparisons, csv)
    if json:
        report.write_json(comparisons, environment, json)
    if plot:
        report.write_plot(comparisons, plot)


def _known(algorithms):
    from kconv import native, ops
    from kconv.settings import AUTO, AUTO_STRICT

    # Stock is measured anyway.
    known = [AUTO, AUTO_STRICT, *ops.algorithms()[:-1]]
    unknown = set(algorithms or ()) - set(known)
    if unknown:
        raise ValueError(
            f"Algorithms must be among {known}. Received: {sorted(unknown)}"
        )
    return algorithms or [AUTO, *(native.core().algorithms() if native.ops() else [])]
