"""`kconv bench deformable`: deformable convolution beside what else there is."""

import contextlib
import csv as csv_format
import dataclasses
import json as json_format
import math
import statistics
import time

import tensorflow as tf
from rich.console import Console
from rich.table import Table

from kconv import builtin, deformation, native, ops, runtime, system
from kconv.benchmark import references
from kconv.benchmark.auto import fixed_work
from kconv.benchmark.calls import in_sequence, repetitions
from kconv.benchmark.candidates import Candidate, spread
from kconv.benchmark.client import Worker
from kconv.benchmark.deformable_problem import FORWARD, LAYERS, PASSES, Deformable
from kconv.benchmark.noise import NoiseWatch
from kconv.benchmark.race import TURN_SECONDS
from kconv.benchmark.server import Stopwatch

# Deformable convolutions, and plain ones of the same size by name of the algorithm.
KCONV, GATHER, PLAIN = "kconv", "tf.gather", ("direct", "auto")


@dataclasses.dataclass(frozen=True)
class Result:
    """What was measured of a problem.

    Attributes:
        problem: A `Deformable`.
        seconds: Dictionary from the name of a candidate to the seconds of each call.
    """

    problem: Deformable
    seconds: dict

    def median(self, name):
        """Seconds of a call of a candidate, None if it was not measured."""
        return statistics.median(self.seconds[name]) if name in self.seconds else None

    def over_kconv(self, name):
        """The time of a candidate over kconv's; None if one was not measured."""
        times = self.median(name), self.median(KCONV)
        return None if None in times else times[0] / times[1]


def call(problem, name):
    """A function of the operands of a problem.

    Args:
        problem: A `Deformable`.
        name: `KCONV`, `GATHER` or one of `PLAIN`.

    Returns:
        A function of images, kernel, offsets and mask. It returns the output; of a
        training step the sum of an element of the output and one of each gradient.
    """

    def forward(image, kernel, offsets, mask):
        if name in PLAIN:
            return ops.conv(image, kernel, padding="same", algorithm=name)
        if name == KCONV:
            return ops.deform_conv(image, kernel, offsets, mask, padding="same")
        shapes = (tuple(one.shape) for one in (image, kernel, offsets, mask))
        spec = deformation.deform_spec(*shapes, padding="same")
        return builtin.deform_conv(spec, image, kernel, offsets, mask)

    def train(*operands):
        operands = [tf.identity(one) for one in operands]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(operands)
            y = forward(*operands)
        wanted = operands[:2] if name in PLAIN else operands
        # As good as any gradient from above, and no more work.
        slopes = tape.gradient(y, wanted, operands[0])
        # A sum, of which no graph leaves out a part.
        return tf.add_n([tf.reshape(one, [-1])[0] for one in (y, *slopes)])

    return forward if problem.pass_ == FORWARD else train


def operands(problem):
    """Random tensors: images, kernel, offsets of about a pixel, and mask."""
    generator = tf.random.Generator.from_seed(0)
    *others, mask = (
        tf.cast(generator.normal(shape), problem.dtype) for shape in problem.shapes
    )
    return *others, tf.sigmoid(mask)


class DeformableBenchmark:
    """Measures candidates in turns; a context manager.

    TensorFlow's run in this process, as the environment says, others in their own.

    Args:
        threads: Threads of other libraries within an operation.
        repeats: Turns of each candidate.
        seconds: After so long on a problem no further turns are started, once each
            candidate had three.
        found: What `references.find` returned.
    """

    def __init__(self, threads=2, repeats=7, seconds=5.0, found=None):
        self._repeats, self._seconds = repeats, seconds
        self._workers = {}
        for name, python in (found or {}).items():
            command = references.command(name, python, references.DEFORMABLE)
            for engine, environment in references.DEFORMABLE[name].engines.items():
                self._workers[engine] = Worker(environment, threads, command)
        self._others = references.candidates(found or {}, references.DEFORMABLE)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for worker in self._workers.values():
            worker.close()

    def environment(self):
        """Describes the other libraries: a dictionary of plain values."""
        told = [worker.environment() for worker in self._workers.values()]
        return {name: value for one in told for name, value in one.items()}

    def watch(self):
        """Returns a `NoiseWatch` of this benchmark."""
        return NoiseWatch(fixed_work, lambda: [w.pid for w in self._workers.values()])

    def measure(self, problem):
        """Measures every candidate on a problem: a `Result`, of the best of each."""
        stopwatch, arguments = Stopwatch(), operands(problem)
        racing = [*([KCONV] if has_kernels() else ()), GATHER, *PLAIN]
        for name in racing:
            one = call(problem, name)

            def sequence(seconds, one=one):
                count = repetitions(seconds)
                return in_sequence(one, count), count

            stopwatch.prepare(name, in_sequence(one, 1), arguments, sequence=sequence)
        for other in self._others:
            answer = self._workers[other.engine].prepare(problem, other)
            racing += [other] if answer["refusal"] is None else []
        times = {one: [] for one in racing}
        started = time.perf_counter()
        for turn in range(self._repeats):
            for one in racing:
                if isinstance(one, Candidate):
                    times[one] += self._workers[one.engine].time(one, TURN_SECONDS)
                else:
                    times[one] += stopwatch.measure(one, TURN_SECONDS)
            # Whoever comes first in a turn finds other caches than the last.
            racing.reverse()
            if turn >= 2 and time.perf_counter() - started > self._seconds:
                break
        for worker in self._workers.values():
            worker.forget()
        best = {}
        for one, seconds in times.items():
            name = one.name if isinstance(one, Candidate) else one
            best[name] = min(best.get(name, seconds), seconds, key=statistics.median)
        return Result(problem, best)


def has_kernels():
    """Whether kconv's kernels compute, and not TensorFlow's ops."""
    return deformation.why_stock("auto", "float32") is None


def run(
    batch=2,
    passes=PASSES,
    dtype="float32",
    threads=2,
    repeats=7,
    seconds=5.0,
    wanted=None,
    pythons=(),
    csv=None,
    json=None,
    layers=LAYERS,
):
    """Measures the layers, and prints a table.

    Interrupted, it prints what it has.

    Args:
        batch: Int, images.
        passes: Names from `PASSES`.
        dtype: String.
        threads: Threads of each library's pool within an operation.
        repeats: As of `DeformableBenchmark`.
        seconds: As of `DeformableBenchmark`.
        wanted: Names of other libraries, which must be there; None for those that are.
        pythons: Interpreters that may have them.
        csv: None, or a path to write the results to.
        json: None, or a path to write the results and the settings to.
        layers: Pairs of a size and channels.

    Returns:
        A list of `Result`.
    """
    if threads != runtime.threads():
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    # Of functions made anew for each problem, which are meant.
    tf.get_logger().setLevel("ERROR")
    found = references.find(wanted, pythons, wanted or (), references.DEFORMABLE)
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a file has no edge
    results = []
    with DeformableBenchmark(threads, repeats, seconds, found) as benchmark:
        environment = _environment(threads) | benchmark.environment()
        for name, value in environment.items():
            console.print(f"{name}: {value}", highlight=False)
        watch = benchmark.watch()
        with contextlib.suppress(KeyboardInterrupt):
            for pass_ in passes:
                for size, channels in layers:
                    watch.sample()
                    problem = Deformable(size, channels, batch, pass_, dtype)
                    results.append(benchmark.measure(problem))
            watch.sample()
        noise = watch.verdict()
    if not results:
        return results
    console.print(table(results))
    for line in summary(results):
        console.print(line, highlight=False)
    style = "bold red" if noise.reasons else None
    console.print(str(noise), highlight=False, soft_wrap=True, style=style)
    rows = [row for result in results for row in rows_of(result)]
    if csv:
        with open(csv, "w", newline="") as file:
            writer = csv_format.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    if json:
        written = {"environment": environment, "noise": noise.to_json(), "rows": rows}
        with open(json, "w") as file:
            json_format.dump(written, file, indent=1)
    return results


def table(results):
    """A `rich.table.Table` of milliseconds, and of times over kconv's."""
    names = _names(results)
    made = Table(title="Milliseconds, and in brackets how many times as long as kconv")
    made.add_column("layer, 3x3")
    made.add_column("pass")
    for name in names:
        words = f"plain, {name}" if name in PLAIN else name
        made.add_column(words, justify="right", no_wrap=True)
    for result in results:
        cells = []
        for name in names:
            median, over = result.median(name), result.over_kconv(name)
            words = "-" if median is None else f"{1e3 * median:.2f}"
            if name != KCONV and over is not None:
                words += f" ({over:.2f})"
            cells.append(words)
        made.add_row(str(result.problem), result.problem.pass_, *cells)
    return made


def summary(results):
    """Sentences: the geometric means of what others take over what kconv takes."""
    lines = []
    for name in _names(results):
        for pass_ in dict.fromkeys(result.problem.pass_ for result in results):
            over = [r.over_kconv(name) for r in results if r.problem.pass_ == pass_]
            over = [one for one in over if one is not None]
            if name != KCONV and over:
                mean = math.exp(statistics.mean(map(math.log, over)))
                kind = f"The plain convolution by {name}" if name in PLAIN else name
                lines.append(
                    f"{pass_}: {kind} takes {mean:.2f} times as long as kconv's "
                    f"deformable one ({min(over):.2f} to {max(over):.2f})."
                )
    return lines


def rows_of(result):
    """A flat dictionary for each candidate of a `Result`."""
    return [
        {
            **result.problem.to_json(),
            "candidate": name,
            "seconds": result.median(name),
            "spread": spread(seconds),
            "over_kconv": result.over_kconv(name),
        }
        for name, seconds in result.seconds.items()
    ]


def _names(results):
    return list(dict.fromkeys(name for result in results for name in result.seconds))


def _environment(threads):
    core = native.core()
    return {
        "processor": f"{system.processors()} x {system.processor_name()}",
        "instruction set": core.cpu_info()["isa"] if core else "none",
        "threads": threads,
        "TensorFlow": f"{tf.__version__}, {runtime.engine()}",
    }
