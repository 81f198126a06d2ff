"""Measures the candidates of a problem, in this process and as a model calls them."""

import dataclasses
import statistics
import time

import tensorflow as tf

from kconv import builtin, dispatch, runtime
from kconv.benchmark import calls
from kconv.benchmark.server import Stopwatch
from kconv.operands import Operands, Outline
from kconv.tuner import race

# Seconds that a candidate is measured before the next has its turn.
TURN_SECONDS = 0.02

# What a candidate may raise, which needs more memory than there is, say.
_FAILURES = (tf.errors.OpError, MemoryError)


def measure(problem, deadline, clock=time.perf_counter):
    """Measures all that `auto` may take for a problem.

    Args:
        problem: A `Problem`.
        deadline: Float, when `clock` shows it no other candidate is begun, and each has
            the fewest turns.
        clock: A function, the seconds.

    Returns:
        A dictionary from names of algorithms to lists of seconds, of those that had
        turns; and one from all that were called to the median, or to the seconds of a
        call where that was far behind. Both are empty if there was no time for a
        second candidate. One that fails is left out.
    """
    try:
        arguments = operands(problem)
    except _FAILURES:
        return {}, {}
    watch, first = Stopwatch(), {}
    for name in _in_order(problem):
        if first and clock() + problem.candidates[name] > deadline:
            continue  # one call of it would take all that is left
        least = min(first.values(), default=None)
        try:
            answer = _prepare(watch, problem, name, arguments, least)
        except _FAILURES:
            continue
        first[name] = answer["seconds"]
    if not first or (clock() > deadline and len(first) == 1 < len(problem.candidates)):
        return {}, {}
    hopeless = race.HOPELESS * min(first.values())
    racing = [n for n, s in first.items() if s <= hopeless or n == problem.before]
    times = race.run(
        racing,
        lambda name: watch.measure(name, TURN_SECONDS),
        lambda: clock() < deadline,
    )
    return times, first | {n: statistics.median(s) for n, s in times.items()}


def operands(problem):
    """Random tensors that a `Problem` works on, in the order its call takes them."""
    return calls.random_operands(
        problem.pass_,
        problem.dtype,
        problem.input_shape,
        problem.filter_shape,
        problem.output_shape,
    )


def _in_order(problem):
    """What runs now, then the others from the lowest estimate on."""
    names = dict.fromkeys((problem.before, *problem.candidates))
    return [name for name in names if name in problem.candidates]


def _prepare(watch, problem, name, arguments, least):
    call = caller(problem, name)

    def sequence(seconds):
        if least is not None and seconds > race.HOPELESS * least:
            return waited, 1  # it has no turn
        count = calls.repetitions(seconds)
        # Called as a function it would warn of being traced often.
        graph = calls.in_sequence(call, count).get_concrete_function(*arguments)
        return _waiting(graph), count

    waited = _waiting(call)
    limit = None if least is None else race.HOPELESS * least
    return watch.prepare(name, waited, arguments, limit, sequence)


def _waiting(call):
    """`call`, over when the GPU is done as well."""
    if not runtime.has_gpu():
        return call

    def waiting(*arguments):
        result = call(*arguments)
        runtime.synchronise()
        return result

    return waiting


def caller(problem, algorithm):
    """Returns a function of the operands that a pass works on, in their order."""
    spec = dataclasses.replace(problem.spec, algorithm=algorithm)
    dtype = tf.as_dtype(problem.dtype)
    # The operand that a pass computes gives it nothing but a shape.
    shape = tf.TensorShape(problem.input_shape)
    image = Outline(shape, dtype, tf.constant(problem.input_shape, tf.int64))
    kernel = tf.zeros(problem.filter_shape, dtype)

    def call(first, second):
        operands = {
            "forward": (first, second, None),
            "input_gradient": (image, second, first),
            "filter_gradient": (first, kernel, second),
        }[problem.pass_]
        if algorithm == builtin.NAME:
            return builtin.run(problem.pass_, spec, Operands(*operands))
        return dispatch.run(problem.pass_, spec, Operands(*operands))

    return call
