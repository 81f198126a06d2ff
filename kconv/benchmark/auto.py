"""`kconv bench auto`: whether "auto" chooses well, on problems drawn at random."""

import dataclasses
import random
import statistics
import time

import tensorflow as tf

from kconv import builtin, dispatch, ops, settings
from kconv.benchmark.calls import in_sequence, repetitions
from kconv.benchmark.server import timed
from kconv.operands import Operands

# A choice is right if it takes at most so many times as long as the best candidate, and
# `auto` never slower than stock if at most so many times as long as that.
TOLERANCE = 1.1

# What stock is called where kconv's "builtin" refuses: the way of Keras's layers.
STOCK = "stock"

_TURN_SECONDS = 0.02
_TURNS = 5
# Where a verdict is bad, it is asked for again with so many turns.
_MORE_TURNS = 15
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


def judge(problem):
    """Measures all candidates of a problem in turns.

    Args:
        problem: A `Drawn`.

    Returns:
        A `Verdict`.
    """
    told = _explain(problem)
    calls = _calls(problem, told)
    operands = _operands(problem)
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
    seconds = _race(runs, operands, _TURNS, told.chosen)
    verdict = _verdict(problem, told, seconds)
    if not verdict.is_right or verdict.is_lost:
        again = {told.chosen, verdict.best, builtin.NAME, STOCK}
        runs = {name: run for name, run in runs.items() if name in again}
        seconds |= _race(runs, operands, _MORE_TURNS, told.chosen, hopeless=1e9)
        verdict = _verdict(problem, told, seconds)
    return verdict


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


def _race(runs, operands, turns, chosen, hopeless=_HOPELESS):
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
            if name == chosen or min(times[name]) <= hopeless * fastest
        ]
    return times


def _operands(problem):
    generator = tf.random.Generator.from_seed(0)
    shapes = {
        "forward": (problem.input_shape, problem.kernel_shape),
        "input_gradient": (problem.output_shape, problem.kernel_shape),
        "filter_gradient": (problem.input_shape, problem.output_shape),
    }[problem.pass_]
    return tuple(tf.cast(generator.normal(shape), problem.dtype) for shape in shapes)


def _calls(problem, told):
    """A function of the two operands for each candidate that is worth it."""
    rows = dispatch.allowed(told.candidates, settings.heeded_name(dispatch.AUTO))
    rows = [row for row in rows if row.refusal is None]
    least = min(row.seconds for row in rows)
    calls = {
        row.algorithm: _call(problem, row.algorithm)
        for row in rows
        if row.seconds < max(_LONG_SECONDS, _NOT_WORTH_A_CALL * least)
    }
    grouped = problem.spec(dispatch.AUTO).groups > 1
    if builtin.NAME not in calls and not (grouped and problem.macs > _MOST_MACS_OF_XLA):
        calls[STOCK] = _stock(problem)
    return calls


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
