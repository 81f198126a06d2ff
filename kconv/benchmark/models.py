"""`kconv bench models`, `train` and FILE: whole models, kconv's against stock."""

import dataclasses
import math
import pathlib
import shutil
import tempfile
import time

from rich.console import Console
from rich.progress import Progress

from kconv.benchmark import model_plots, model_references, model_report, plots
from kconv.benchmark.candidates import (
    EAGER,
    ENGINES,
    FROZEN,
    GRAPH,
    STOCK_ENGINES,
    XLA,
    Candidate,
    Measurement,
)
from kconv.benchmark.model_client import ModelWorker
from kconv.benchmark.noise import NoiseWatch
from kconv.benchmark.subjects import PREDICT

# A graph of kconv's layers whose filters `kconv.prepare` has prepared.
PREPARED = "prepared"
MODES = (GRAPH, FROZEN, EAGER, XLA)

# Seconds that a candidate is measured before the next has its turn.
TURN_SECONDS = 0.3

# So many times slower than another setting of the same, a candidate gets no second
# turn, and with the second number none at all.
HOPELESS, NOT_WORTH_A_TURN = 1.5, 3.0

# Shorter calls are timed anyway: the first ones tell too little.
LONG_SECONDS = 0.2

# The work that watches the machine: a matrix product of this size, so many times.
WATCH_SIZE, WATCH_COUNT = 384, 5

# Every candidate that is not hopeless has so many turns, however long they take.
FEWEST_TURNS = 3

# Calls of the processes whose memory is measured. In the first few the peak grows: the
# order in which gradients come and go differs.
MEMORY_CALLS = 8


@dataclasses.dataclass(frozen=True)
class Memory:
    """The resident memory of a process that does nothing but run a candidate.

    Attributes:
        start: Bytes before the model was there: the interpreter and the libraries.
        built: Bytes before the first call.
        peak: The most bytes of all calls.
        workspace: The most bytes that kconv's algorithms had at a time beside their
            operands; they are part of the peak.
    """

    start: int
    built: int
    peak: int
    workspace: int = 0


@dataclasses.dataclass
class Result:
    """What was measured of a subject.

    Attributes:
        subject: The `Subject`.
        made: What `ModelWorker.make` returned.
        measurements: List of `Measurement`.
        memory: A dictionary from `Candidate` to `Memory`.
        missing: A dictionary from the names of references to a sentence.
        is_interrupted: Whether something is missing because the user ended it.
    """

    subject: object
    made: dict
    measurements: list
    memory: dict = dataclasses.field(default_factory=dict)
    missing: dict = dataclasses.field(default_factory=dict)
    is_interrupted: bool = False

    def best(self, name):
        """The fastest `Measurement` of "stock", "kconv" or a reference; or None."""
        own = [m for m in self.measurements if m.candidate.name == name and m.seconds]
        return min(own, key=lambda m: m.median, default=None)

    def ratio(self, name="stock"):
        """The time of another one's best over that of ours; None without them."""
        theirs, ours = self.best(name), self.best("kconv")
        return theirs.median / ours.median if theirs and ours else None

    def memory_of_best(self, name):
        """The `Memory` of the fastest setting of "stock" or "kconv"; or None."""
        best = self.best(name)
        return self.memory.get(best.candidate) if best else None

    def least_memory(self, name):
        """The `Memory` with the lowest peak among the settings measured; or None."""
        own = [m for c, m in self.memory.items() if c.name == name]
        return min(own, key=lambda m: m.peak, default=None)

    def memory_ratio(self, which):
        """Our memory over stock's by `memory_of_best` or `least_memory`; or None."""
        ours, theirs = which(self, "kconv"), which(self, "stock")
        return ours.peak / theirs.peak if ours and theirs else None


class ModelBenchmark:
    """Measures models in turns, in worker processes; a context manager.

    kconv runs as the environment says.

    Args:
        threads: Threads of TensorFlow's pool within an operation.
        modes: Names from `MODES`.
        engines: Names from `STOCK_ENGINES`: what TensorFlow's own kernels use.
        repeats: Turns of each candidate.
        seconds: After so long on a subject no further turns are started, once each
            candidate had `FEWEST_TURNS`.
        patience: Seconds that loading, tracing and compiling may take together.
        references: A dictionary as `model_references.find` returns it.
        pythons: Interpreters that the user named.
        make_worker: What starts a process; for tests.

    Attributes:
        watch: The `NoiseWatch` of all that is measured.
    """

    def __init__(
        self,
        threads=2,
        modes=MODES,
        engines=STOCK_ENGINES,
        repeats=7,
        seconds=60.0,
        patience=180.0,
        references=None,
        pythons=(),
        make_worker=ModelWorker,
    ):
        self._threads, self._modes, self._engines = threads, modes, engines
        self._repeats, self._seconds, self._patience = repeats, seconds, patience
        self._references = references or {}
        self._pythons = pythons
        self._make_worker = make_worker
        self._workers = {}
        self.watch = NoiseWatch(
            lambda: self.worker.multiply(WATCH_SIZE, WATCH_COUNT),
            lambda: [worker.pid for worker in self._workers.values()],
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Ends all processes."""
        while self._workers:
            self._workers.popitem()[1].close()

    @property
    def worker(self):
        """The process that runs as the environment says."""
        return self._worker(Candidate("kconv", GRAPH))

    def environment(self):
        """Describes machine, settings and libraries: a dictionary of plain values."""
        found = self.worker.environment()
        for name, python in self._references.items():
            if python is not None:
                engine = next(iter(model_references.REFERENCES[name].engines))
                found |= self._worker(Candidate(name, "", engine)).environment()
        return found

    def candidates(self, subject):
        """Every way to run a subject: a list of `Candidate`, the promising first."""
        modes = list(self._modes)
        if subject.pass_ != PREDICT and FROZEN in modes:
            modes.remove(FROZEN)  # what is trained is no constant
        ours = [mode for mode in modes if mode != XLA] or [GRAPH]
        # Weights that do not change are a help to both, or to neither.
        if subject.pass_ == PREDICT and FROZEN in ours:
            ours.append(PREPARED)
        there = [name for name, python in self._references.items() if python]
        return [
            *(Candidate("kconv", m, e) for m in ours for e in self._engines),
            *(Candidate("stock", m, e) for m in modes for e in self._engines),
            *model_references.candidates(there, subject),
        ]

    def measure(self, subject, told=lambda words, part: None):
        """Measures every candidate.

        Args:
            subject: A `Subject`.
            told: A function that is given what is being done and how much of all is.

        Returns:
            A `Result`, in which memory is still missing. Interrupted in the middle, it
            has what was measured until then.
        """
        told("making it", 0)
        made = self.worker.make(subject)
        self.worker.forget()
        missing = {
            name: "not installed"
            for name, there in self._references.items()
            if not there
        }
        wanted = self.candidates(subject)
        if any(c.name == "onnxruntime" for c in wanted):
            told("converting it for ONNX Runtime", 0)
            sentence = model_references.write_onnx(subject, made, self._pythons)
            if sentence:
                missing["onnxruntime"] = sentence
                wanted = [c for c in wanted if c.name != "onnxruntime"]
        result = Result(subject, made, [], missing=missing)
        answers, times = {}, {}
        try:
            for i, candidate in enumerate(wanted):
                told(f"preparing {_words(candidate)}", i / len(wanted) / 2)
                answers[candidate] = self._prepare(subject, candidate, answers)
            self._race(answers, times, told)
        except KeyboardInterrupt:
            if not any(times.values()):
                raise
            result.is_interrupted = True
        finally:
            result.measurements = [
                Measurement(subject, c, times.get(c, []), a["refusal"], a["choice"])
                for c, a in answers.items()
            ]
        self._forget()
        return result

    def measure_memory(self, result, told=lambda words, part: None):
        """Measures the memory of a result's candidates, each in a process of its own.

        Those of both in their fastest settings, and in graphs with oneDNN and without.
        """
        wanted = [
            m.candidate
            for m in result.measurements
            if m.seconds
            and m.candidate.name in ("stock", "kconv")
            and (m.candidate.mode == GRAPH or m is result.best(m.candidate.name))
        ]
        for i, candidate in enumerate(wanted):
            told(f"memory of {_words(candidate)}", i / len(wanted))
            worker = self._make_worker(self._environment(candidate), self._threads)
            try:
                found = worker.memory(
                    result.subject, candidate, MEMORY_CALLS, self._patience
                )
                if None not in found.values():
                    result.memory[candidate] = Memory(**found)
            except (RuntimeError, TimeoutError) as error:
                result.missing[f"memory of {_words(candidate)}"] = str(error)
            finally:
                worker.close()

    def _prepare(self, subject, candidate, answers):
        # The first call traces and compiles, and is not held against a candidate.
        try:
            answer = self._worker(candidate).prepare(
                subject, candidate, None, self._patience
            )
        except TimeoutError:
            sentence = f"It was not ready in {self._patience:g} s."
            # What else was prepared there is lost.
            for other, lost in answers.items():
                if self._key(other) == self._key(candidate):
                    lost["refusal"] = lost["refusal"] or sentence
            return {"refusal": sentence, "choice": candidate.name}
        return answer

    def _race(self, answers, times, told):
        racing = []
        for candidate, answer in answers.items():
            if answer["refusal"] is None:
                limit = NOT_WORTH_A_TURN * min(
                    other["seconds"]
                    for c, other in answers.items()
                    if c.name == candidate.name and other["refusal"] is None
                )
                is_hopeless = answer["seconds"] > max(LONG_SECONDS, limit)
                # One call has been made; it stays in the report.
                times[candidate] = [answer["seconds"]] if is_hopeless else []
                racing += [] if is_hopeless else [candidate]
        started = time.perf_counter()
        for turn in range(self._repeats):
            self.watch.sample()
            for i, candidate in enumerate(racing):
                part = (turn + i / len(racing)) / self._repeats
                told(f"turn {turn + 1}, {_words(candidate)}", 0.5 + part / 2)
                times[candidate] += self._worker(candidate).time(
                    candidate, TURN_SECONDS
                )
            # The least: of a few calls most may have met with a busy processor.
            least = {}
            for c in racing:
                least[c.name] = min(least.get(c.name, math.inf), *times[c])
            racing = [c for c in racing if min(times[c]) <= HOPELESS * least[c.name]]
            # Whoever comes first in a turn finds other caches than the last.
            racing.reverse()
            if (
                turn + 1 >= FEWEST_TURNS
                and time.perf_counter() - started > self._seconds
            ):
                break
        self.watch.sample()

    def _forget(self):
        for worker in self._workers.values():
            worker.forget()

    def _key(self, candidate):
        """Candidates of one key share a process; what XLA compiles may end its own."""
        return candidate.engine, candidate.name if candidate.mode == XLA else ""

    def _environment(self, candidate):
        if candidate.name in model_references.REFERENCES:
            engines = model_references.REFERENCES[candidate.name].engines
            return engines[candidate.engine]
        return ENGINES[candidate.engine]

    def _worker(self, candidate):
        key = self._key(candidate)
        if key not in self._workers:
            environment = self._environment(candidate)
            command = ()
            if candidate.name in model_references.REFERENCES:
                python = self._references[candidate.name]
                command = (model_references.command(candidate.name, python),)
            self._workers[key] = self._make_worker(environment, self._threads, *command)
        return self._workers[key]


def run(
    subjects,
    threads=2,
    modes=MODES,
    engines=STOCK_ENGINES,
    repeats=7,
    seconds=60.0,
    patience=180.0,
    memory=True,
    wanted=None,
    pythons=(),
    csv=None,
    json=None,
    plot=None,
):
    """Measures models and prints the results.

    Interrupted, it prints what it has.

    Args:
        subjects: A list of `Subject`.
        threads: As in `ModelBenchmark`.
        modes: As in `ModelBenchmark`.
        engines: As in `ModelBenchmark`.
        repeats: As in `ModelBenchmark`.
        seconds: As in `ModelBenchmark`.
        patience: As in `ModelBenchmark`.
        memory: Whether to measure the memory too.
        wanted: As in `model_references.find`.
        pythons: Interpreters that the user named.
        csv: None, or a path to write to.
        json: None, or a path to write to.
        plot: None, or a path to write a picture to.

    Raises:
        ValueError: If there is no such model.
        RuntimeError: If a process of the benchmark fails.
    """
    plots.check(plot)
    _check_names(subjects)
    console = Console()
    found = model_references.find(wanted, pythons)
    settings = threads, modes, engines, repeats, seconds, patience, found, pythons
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="kconv_bench_") as folder,
        ModelBenchmark(*settings) as benchmark,
    ):
        environment = benchmark.environment()
        for name, value in environment.items():
            console.print(f"{name}: {value}", highlight=False, soft_wrap=True)
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("", total=len(subjects))
            try:
                for i, subject in enumerate(subjects):

                    def told(words, part, i=i, subject=subject):
                        description = f"{subject}: {words}"
                        progress.update(
                            task, description=description, completed=i + part
                        )

                    own = tempfile.mkdtemp(dir=folder)
                    subject = dataclasses.replace(subject, folder=own)
                    results.append(benchmark.measure(subject, told))
                    if memory and not results[-1].is_interrupted:
                        benchmark.measure_memory(results[-1], told)
                    shutil.rmtree(own)
                    if results[-1].is_interrupted:
                        raise KeyboardInterrupt
            except KeyboardInterrupt:
                progress.stop()
                console.print(f"Interrupted after {len(results)} models.")
        verdict = benchmark.watch.verdict()
    if not results:
        return
    model_report.show(results, console)
    style = "bold red" if verdict.reasons else None
    console.print(str(verdict), highlight=False, soft_wrap=True, style=style)
    if csv:
        model_report.write_csv(results, csv)
    if json:
        model_report.write_json(results, environment, verdict, json)
    if plot:
        model_plots.models(results, plot)


def _check_names(subjects):
    from kconv.models import registry

    for subject in subjects:
        if not subject.is_file:
            registry.find(subject.model)
        elif not pathlib.Path(subject.model).is_file():
            raise ValueError(f"There is no such file. Received: {subject.model}")


def _words(candidate):
    return f"{candidate.name}, {candidate.setting}"
