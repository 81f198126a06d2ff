"""`kconv bench layers`: single layers, kconv against stock, in one run."""

import dataclasses
import math
import statistics
import time

from rich.console import Console
from rich.progress import Progress

from kconv.benchmark import report
from kconv.benchmark.client import Worker, pytorch
from kconv.benchmark.problems import ALL, PASSES, make_problems

# Seconds that a candidate is measured before the next has its turn.
TURN_SECONDS = 0.03

# A candidate this many times slower than the fastest gets no second turn.
HOPELESS = 3.0

# One that is so many times slower than another setting of the same does not even get
# the first turn, where its calls take longer than this.
NOT_WORTH_A_TURN = 10.0
LONG_SECONDS = 0.2

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

# What Keras does for layers in groups: without oneDNN it is stock's only way.
XLA = "XLA"

# How PyTorch's tensors lie in memory, as its users may choose.
TORCH_MODES = ("contiguous", "channels_last")

# How its threads wait for each other. As they are by default they spin, which is a bit
# faster where the processor is idle, and many times slower where something else runs.
TORCH_ENGINES = {"torch": {}, "passive": {"OMP_WAIT_POLICY": "passive"}}


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to compute a problem.

    Attributes:
        name: One of `report.REFERENCES`, "auto" or another name of algorithms of
            kconv. "dense" is kconv's "auto" for the layer of the same width in one
            group.
        mode: "eager"; "graph", a `tf.function`; `XLA`, a graph of compiled calls; or
            one of `TORCH_MODES`.
        engine: Key of `ENGINES`: what TensorFlow's own kernels use; or of
            `TORCH_ENGINES`.
    """

    name: str
    mode: str
    engine: str = "default"

    @property
    def setting(self):
        """How it was called, for the report."""
        if self.engine in ("default", "torch"):
            return self.mode
        return f"{self.mode}, {self.engine}"

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
        torch: Whether PyTorch is a candidate.
        torch_python: As in `client.pytorch`.
    """

    def __init__(
        self,
        algorithms,
        modes=MODES,
        engines=STOCK_ENGINES,
        threads=2,
        repeats=7,
        seconds=5.0,
        torch=False,
        torch_python=None,
    ):
        self._algorithms = algorithms
        self._modes = modes
        self._engines = engines
        self._repeats = repeats
        self._seconds = seconds
        self._workers = {}
        self._torch_engines = TORCH_ENGINES if torch else {}
        for engine, environment in self._torch_engines.items():
            self._workers[engine] = Worker(environment, threads, pytorch(torch_python))
        for engine, environment in ENGINES.items():
            if engine in (*engines, "default"):
                self._workers[engine] = Worker(environment, threads)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for worker in self._workers.values():
            worker.close()

    def environment(self):
        """Describes the machine and the settings: a dictionary of plain values."""
        # PyTorch first, which may be missing.
        asked = [self._workers[e] for e in ("torch", "default") if e in self._workers]
        described = [worker.environment() for worker in asked]
        return {k: v for one in reversed(described) for k, v in one.items()}

    def candidates(self, problem):
        """Every way to compute a problem: a list of `Candidate`."""
        modes, grouped = self._modes, problem.layer.kind == "grouped"
        return [
            *(Candidate("stock", m, e) for e in self._engines for m in modes),
            *([Candidate("stock", XLA)] if grouped else ()),
            *(
                Candidate("torch", m, e)
                for e in self._torch_engines
                for m in TORCH_MODES
            ),
            *(Candidate("dense", m) for m in modes if grouped),
            *(Candidate(name, m) for name in self._algorithms for m in modes),
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
        return [
            Measurement(
                problem, c, times.get(c, []), answer["refusal"], answer["choice"]
            )
            for c, answer in answers.items()
        ]

    def _prepare(self, problem):
        """Returns what the workers answer: a dictionary from `Candidate`."""
        answers = {}
        for candidate in self.candidates(problem):
            limit = _limit(candidate, answers)
            answers[candidate] = self._worker(candidate).prepare(
                problem, candidate, limit
            )
        return answers

    def _worker(self, candidate):
        return self._workers[candidate.engine]


def _limit(candidate, answers, least=0.0):
    """Seconds beyond which a call is not worth a turn; None if nothing is known."""
    known = [
        answer["seconds"]
        for other, answer in answers.items()
        if other.name == candidate.name and answer["refusal"] is None
    ]
    return max(least, NOT_WORTH_A_TURN * min(known)) if known else None


def run(
    layers=ALL,
    batches=(1, 8),
    passes=PASSES,
    algorithms=None,
    dtype="float32",
    modes=MODES,
    engines=STOCK_ENGINES,
    threads=2,
    repeats=7,
    seconds=5.0,
    torch=False,
    torch_python=None,
    csv=None,
    json=None,
    plot=None,
):
    """Measures layers and prints the results.

    Interrupted, it prints what it has.

    Args:
        layers: As in `make_problems`.
        batches: Batch sizes.
        passes: Names of passes.
        algorithms: Names of algorithms; by default "auto" and each of kconv's.
        dtype: Type of all operands.
        modes: As in `LayerBenchmark`.
        engines: As in `LayerBenchmark`.
        threads: As in `LayerBenchmark`.
        repeats: As in `LayerBenchmark`.
        seconds: As in `LayerBenchmark`.
        torch: As in `LayerBenchmark`.
        torch_python: As in `LayerBenchmark`.
        csv: None, or a path to write to.
        json: None, or a path to write to.
        plot: None, or a path to write a picture to.

    Raises:
        ValueError: If there is no such algorithm.
        RuntimeError: If a process of the benchmark fails, or PyTorch is missing.
    """
    algorithms = _known(algorithms)
    console = Console()
    if not console.is_terminal:
        # The table is wide, and a file has no edge.
        console = Console(width=200)
    problems = make_problems(layers, batches, passes, dtype)
    comparisons = []
    with LayerBenchmark(
        algorithms, modes, engines, threads, repeats, seconds, torch, torch_python
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
    for reference in report.references(comparisons):
        console.print(report.mean_table(comparisons, reference))
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
