"""`kconv bench auto`: whether "auto" chooses well, on problems drawn at random."""

import csv as csv_format
import dataclasses
import itertools
import json as json_format
import os
import random
import statistics
import time

import tensorflow as tf
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kconv import builtin, dispatch, native, ops, runtime, settings, system
from kconv.benchmark.calls import in_sequence, random_operands, repetitions
from kconv.benchmark.drawn import MOST_DRAWN, stream
from kconv.benchmark.noise import NoiseWatch
from kconv.benchmark.problems import PASSES
from kconv.benchmark.race import WATCH_COUNT, WATCH_SIZE
from kconv.benchmark.server import timed
from kconv.operands import Operands

# A choice is right if it takes at most so many times as long as the best candidate, and
# `auto` never slower than stock if at most so many times as long as that.
TOLERANCE = 1.1

# What is so near to that, or beyond it, is asked for again. Were it only what is
# beyond, chance could make wrong choices right, but not right ones wrong.
_DOUBTFUL = 1.05

# In the environment of a file that has only such problems, beside the factor.
CLOSE = "estimates within"

# What stock is called where kconv's "builtin" refuses: the way of Keras's layers.
STOCK = "stock"

_TURN_SECONDS = 0.02
_TURNS = 5
# What is asked for again is so often, with tensors that lie elsewhere in memory: that
# alone makes a tenth of difference.
_RERUNS = 2
_MORE_TURNS = 10
# A candidate this many times slower than the fastest gets no second turn; one that is
# estimated to be, and long, not even the first.
_HOPELESS = 2.0
_NOT_WORTH_A_CALL = 8.0
_LONG_SECONDS = 0.3
# Stock leaves groups to XLA, whose loops take minutes for what others do at once.
_MOST_MACS_OF_XLA = 5e7


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How well a choice did.

    Attributes:
        problem: A `Drawn`.
        chosen: String, what "auto" takes.
        estimates: Dictionary from a candidate to the seconds that it expects.
        seconds: Dictionary from a candidate to its median seconds.
    """

    problem: object
    chosen: str
    estimates: dict
    seconds: dict

    @property
    def best(self):
        """The fastest candidate."""
        rivals = [name for name in self.seconds if name != STOCK]
        return min(rivals, key=self.seconds.get)

    @property
    def over_best(self):
        """The time of the choice over that of the fastest candidate."""
        return self.seconds[self.chosen] / self.seconds[self.best]

    @property
    def over_stock(self):
        """The time of the choice over stock's; None where stock has no such kernel."""
        stock = self.seconds.get(builtin.NAME, self.seconds.get(STOCK))
        return None if stock is None else self.seconds[self.chosen] / stock

    @property
    def is_right(self):
        """Whether the choice is near the best."""
        return self.over_best <= TOLERANCE

    @property
    def is_lost(self):
        """Whether stock is clearly faster."""
        return self.over_stock is not None and self.over_stock > TOLERANCE

    @property
    def is_doubtful(self):
        """Whether more turns may turn it."""
        return max(self.over_best, self.over_stock or 0) > _DOUBTFUL


def judge(problem):
    """Measures all candidates of a problem in turns.

    Args:
        problem: A `Drawn`.

    Returns:
        A `Verdict`.
    """
    told = _explain(problem)
    calls = _calls(problem, told)
    seconds = _measure(problem, calls, told.chosen)
    verdict = _verdict(problem, told, seconds)
    for _ in range(_RERUNS if verdict.is_doubtful else 0):
        again = {told.chosen, verdict.best, builtin.NAME, STOCK} & calls.keys()
        rerun = {name: calls[name] for name in calls if name in again}
        for name, times in _measure(problem, rerun, told.chosen, _MORE_TURNS).items():
            seconds[name] += times
        verdict = _verdict(problem, told, seconds)
    return verdict


def _measure(problem, calls, chosen, turns=_TURNS):
    """Seconds of calls of each candidate, of graphs and operands made anew."""
    operands = random_operands(
        problem.pass_,
        problem.dtype,
        problem.input_shape,
        problem.kernel_shape,
        problem.output_shape,
    )
    runs = {}
    for name, call in calls.items():
        graph = in_sequence(call, 1)
        timed(graph, *operands)
        expected = timed(graph, *operands)
        count = repetitions(expected)
        if count > 1:
            graph = in_sequence(call, count)
            timed(graph, *operands)
        runs[name] = graph, count
    return _race(runs, operands, turns, chosen)


def _explain(problem):
    return ops.explain(
        problem.input_shape,
        problem.kernel_shape,
        strides=problem.strides,
        padding=problem.padding,
        data_format=problem.data_format,
        dilation_rate=problem.dilation_rate,
        dtype=problem.dtype,
        pass_=problem.pass_,
    )


def _verdict(problem, told, seconds):
    estimates = {row.algorithm: row.seconds for row in told.candidates if row.seconds}
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return Verdict(problem, told.chosen, estimates, medians)


def _race(runs, operands, turns, chosen):
    """Seconds of each call of each run, in turns, in an order that changes."""
    times = {name: [] for name in runs}
    racing = list(runs)
    generator = random.Random(0)
    for _ in range(turns):
        generator.shuffle(racing)
        for name in racing:
            graph, count = runs[name]
            graph(*operands)
            until = time.perf_counter() + _TURN_SECONDS
            while True:
                times[name].append(timed(graph, *operands) / count)
                if time.perf_counter() >= until:
                    break
        fastest = min(min(seconds) for seconds in times.values())
        racing = [
            name
            for name in racing
            if name == chosen or min(times[name]) <= _HOPELESS * fastest
        ]
    return times


def _accepted(told):
    rows = dispatch.allowed(told.candidates, settings.heeded_name(dispatch.AUTO))
    return [row for row in rows if row.refusal is None]


def _calls(problem, told):
    """A function of the two operands for each candidate that is worth it."""
    rows = _accepted(told)
    least = min(row.seconds for row in rows)
    calls = {
        row.algorithm: _call(problem, row.algorithm)
        for row in rows
        if row.seconds < max(_LONG_SECONDS, _NOT_WORTH_A_CALL * least)
        or row.algorithm == told.chosen  # which a measurement may have made it
    }
    if builtin.NAME not in calls and _stock_may_be_called(problem):
        calls[STOCK] = _stock(problem)
    return calls


def _stock_may_be_called(problem):
    spec = problem.spec(builtin.NAME)
    if builtin.is_unsafe(problem.pass_, spec, problem.kernel_shape, problem.dtype):
        return False
    return spec.groups == 1 or problem.macs <= _MOST_MACS_OF_XLA


def _call(problem, algorithm):
    spec = problem.spec(algorithm)
    computed = {
        "input_gradient": tf.zeros(problem.input_shape, problem.dtype),
        "filter_gradient": tf.zeros(problem.kernel_shape, problem.dtype),
    }

    def call(first, second):
        operands = {
            "forward": (first, second, None),
            "input_gradient": (computed["input_gradient"], second, first),
            "filter_gradient": (first, computed["filter_gradient"], second),
        }[problem.pass_]
        if algorithm == builtin.NAME:
            return builtin.run(problem.pass_, spec, Operands(*operands))
        return dispatch.run(problem.pass_, spec, Operands(*operands))

    return call


def _stock(problem):
    """What Keras's layers do, and the gradients of it, where no kernel takes all."""
    spec = problem.spec(builtin.NAME)

    def call(first, second):
        image, kernel, upstream = {
            "forward": (first, second, None),
            "input_gradient": (
                tf.zeros(problem.input_shape, problem.dtype),
                second,
                first,
            ),
            "filter_gradient": (
                first,
                tf.zeros(problem.kernel_shape, problem.dtype),
                second,
            ),
        }[problem.pass_]
        if upstream is None:
            return builtin.conv(spec, image, kernel)
        wanted = image if problem.pass_ == "input_gradient" else kernel
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(wanted)
            output = builtin.conv(spec, image, kernel)
        return tape.gradient(output, wanted, upstream)

    return call


def is_close(problem, factor):
    """Whether the second best corrected estimate is within a factor of the best."""
    best, *others = sorted(row.seconds for row in _accepted(_explain(problem)))
    return bool(others) and others[0] <= factor * best


def run(
    seed=0,
    count=200,
    passes=PASSES,
    dtypes=None,
    threads=2,
    close=None,
    csv=None,
    json=None,
):
    """Judges the choices for random problems, and prints what is wrong with them.

    Interrupted, it prints what it has.

    Args:
        seed: Int, of the problems.
        count: Int, how many problems, or fewer if `close` leaves fewer of many drawn.
        passes: As in `stream`.
        dtypes: As in `stream`.
        threads: Threads of TensorFlow's pool within an operation.
        close: None, or a factor: only of problems that `is_close` tells to be so.
        csv: None, or a path to write the verdicts to.
        json: None, or a path to write the verdicts and the settings to.

    Returns:
        A list of `Verdict`.
    """
    if threads != runtime.threads():
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    # Of functions made anew for each problem, which are meant.
    tf.get_logger().setLevel("ERROR")
    console = Console()
    if not console.is_terminal:
        # The table is wide, and a file has no edge.
        console = Console(width=160)
    settings_ = environment(seed, threads)
    problems = stream(seed, passes, dtypes)
    if close is not None:
        settings_[CLOSE] = close
        looked_through = itertools.islice(problems, MOST_DRAWN)
        problems = (p for p in looked_through if is_close(p, close))
    for name, value in settings_.items():
        console.print(f"{name}: {value}", highlight=False)
    watch = NoiseWatch(fixed_work)
    verdicts = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("", total=count)
        try:
            for problem in itertools.islice(problems, count):
                progress.update(task, description=str(problem))
                watch.sample()
                verdicts.append(judge(problem))
                progress.advance(task)
        except KeyboardInterrupt:
            progress.stop()
            console.print("Interrupted.")
    watch.sample()
    if len(verdicts) < count:
        console.print(f"{len(verdicts)} of {count} convolutions were judged.")
    if verdicts:
        console.print(table(verdicts))
        for line in summary(verdicts):
            console.print(line, highlight=False)
        noise = watch.verdict()
        style = "bold red" if noise.reasons else None
        console.print(str(noise), highlight=False, soft_wrap=True, style=style)
    if csv and verdicts:
        lines = [row(verdict) for verdict in verdicts]
        with open(csv, "w", newline="") as file:
            writer = csv_format.DictWriter(file, lines[0])
            writer.writeheader()
            writer.writerows(lines)
    if json:
        written = {
            "environment": settings_,
            "noise": watch.verdict().to_json(),
            "rows": [
                row(verdict)
                | {"seconds": verdict.seconds, "estimates": verdict.estimates}
                for verdict in verdicts
            ],
        }
        with open(json, "w") as file:
            json_format.dump(written, file, indent=1)
    return verdicts


def table(verdicts):
    """A `rich.table.Table` of the choices that were wrong or lost to stock."""
    made = Table(title='Where "auto" is not within a tenth of the best, or of stock')
    made.add_column("problem")
    for heading in ("chosen", "the best"):
        made.add_column(heading, no_wrap=True)
        made.add_column("ms", justify="right", no_wrap=True)
    made.add_column("chosen over best", justify="right")
    made.add_column("over stock", justify="right")
    for verdict in sorted(verdicts, key=lambda v: -v.over_best):
        if verdict.is_right and not verdict.is_lost:
            continue
        cells = [
            cell
            for name in (verdict.chosen, verdict.best)
            for cell in (name, f"{1e3 * verdict.seconds[name]:.3f}")
        ]
        over = "-" if verdict.over_stock is None else f"{verdict.over_stock:.2f}"
        made.add_row(str(verdict.problem), *cells, f"{verdict.over_best:.2f}", over)
    return made


def summary(verdicts):
    """Sentences: how many choices were right, and how many lost to stock."""
    right = sum(verdict.is_right for verdict in verdicts)
    compared = [v for v in verdicts if v.over_stock is not None]
    lost = sum(verdict.is_lost for verdict in compared)
    return [
        f"{right} of {len(verdicts)} choices ({right / len(verdicts):.1%}) are within a"
        " tenth of the best candidate.",
        f"{lost} of {len(compared)} are more than a tenth slower than stock.",
    ]


def row(verdict):
    """A flat dictionary of a `Verdict`."""
    problem = verdict.problem
    return {
        "kind": problem.kind,
        "problem": str(problem),
        "pass": problem.pass_,
        "dtype": problem.dtype,
        "macs": problem.macs,
        "chosen": verdict.chosen,
        "best": verdict.best,
        "chosen_seconds": verdict.seconds[verdict.chosen],
        "best_seconds": verdict.seconds[verdict.best],
        "over_best": verdict.over_best,
        "over_stock": verdict.over_stock,
        "is_right": verdict.is_right,
        "is_lost": verdict.is_lost,
    }


def environment(seed, threads):
    """What the verdicts depend on, as a dictionary."""
    return {
        "seed": seed,
        "processor": f"{system.processors()} x {system.processor_name()}",
        "instruction set": native.core().cpu_info()["isa"],
        "threads": threads,
        "TensorFlow": f"{tf.__version__}, {runtime.engine()}",
        "ONEDNN_MAX_CPU_ISA": os.environ.get("ONEDNN_MAX_CPU_ISA", "not set"),
        "measured choices": len(native.choices()),
    }


def fixed_work():
    """Seconds of each of several matrix products, for a `NoiseWatch`."""
    matrix = tf.random.stateless_normal((WATCH_SIZE, WATCH_SIZE), (0, 0))
    tf.matmul(matrix, matrix)
    return [timed(tf.matmul, matrix, matrix) for _ in range(WATCH_COUNT)]
