"""Measured choices for a model: `kconv.tune`."""

import math
import numbers
import time

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from kconv import choices, dispatch, native, profiler, runtime, settings
from kconv.spec import is_integer
from kconv.tuner import problems, race, timing
from kconv.tuner.report import TunedProblem, TuningReport

__all__ = ["TunedProblem", "TuningReport", "tune"]


def tune(
    model,
    input_shape=None,
    passes=dispatch.PASSES,
    batch_size=1,
    seconds=60.0,
    dtype=None,
    save=True,
    progress=True,
):
    """Measures what is fastest for the convolutions of a model, and remembers it.

    `algorithm="auto"` chooses by estimates. Here every algorithm that it may take, and
    TensorFlow's own kernel, computes each distinct convolution of the model, in turns
    and in this process, with its threads and settings. The fastest is what `"auto"`
    takes from then on, in this process and, by a file in the user's cache, in later
    ones on the same processor with the same versions and as many threads; where nothing
    is faster than the estimate's choice by more than the noise, that stays. The model
    is only looked at; nothing is measured of other layers.

    The convolutions that take most of the time come first. When the time is up, or
    Ctrl-C is pressed, what was measured is kept, and another call goes on to what is
    left only by a longer time. A `tf.function`, and so a compiled Keras model, keeps
    the choice between kconv's algorithms and `"builtin"` that it was traced with: call
    `compile` again to have it traced anew. Choose `batch_size`, `passes` and threads as
    the model will be used; a choice holds for no other batch.

    Args:
        model: A `keras.Model`, or another layer. Of stock layers are measured what
            kconv's would compute after `kconv.convert`.
        input_shape: As in `kconv.profile`.
        passes: Passes to measure: `"forward"`, `"input_gradient"`, `"filter_gradient"`.
            For inference `"forward"` is enough.
        batch_size: Positive int, or a list of them.
        seconds: Positive float, the time to measure for. The problem that is measured
            when it is over is finished.
        dtype: String, `"float16"`, `"bfloat16"`, `"float32"` or `"float64"`, to measure
            in that instead of what the model computes in.
        save: Bool, whether to write to the file as well.
        progress: Bool, whether to show progress on standard error.

    Returns:
        A `TuningReport`: `rows`, with the layers, the choice before and now, and the
        seconds of each candidate; `changed`, how many choices are new; `gain`, the time
        of all that was measured before over that now. `str()` of it is a table.

    Raises:
        ValueError: If an argument is wrong, the model does not take the shape, or there
            is no convolution to choose for.
        RuntimeError: If `"auto"` would not use the choices: with op determinism on,
            with a GPU, or without kconv's kernels.

    Example:

    >>> model = kconv.convert(keras.applications.MobileNetV2(weights=None))
    >>> report = kconv.tune(model, passes="forward", batch_size=8)
    >>> report.show()
    """
    passes = profiler.checked_passes(passes)
    batch_sizes = _checked_batches(batch_size)
    _check_seconds(seconds)
    dtype = _checked_dtype(dtype)
    _check_use()
    found, omitted = problems.collect(model, input_shape, batch_sizes, passes, dtype)
    if not found:
        sentences = dict.fromkeys(one.sentence for one in omitted)
        raise ValueError(
            'The model has no convolution that `algorithm="auto"` chooses for. '
            f"{' '.join(sentences)} Received: model={model.name!r}"
        )
    started = time.perf_counter()
    rows, failed, interrupted = _measure(found, started + seconds, progress)
    threads = dispatch.present_terms().threads
    entries = {row.key: choices.entry(row.now, row.seconds) for row in rows}
    path = None
    if entries:
        mine = {(threads, key): one["algorithm"] for key, one in entries.items()}
        native.set_choices({**native.choices(), **mine})
        if save:
            path = choices.save(entries, threads)
    return TuningReport(
        rows=tuple(rows),
        omitted=(*omitted, *_omitted(failed)),
        left=len(found) - len(rows) - len(failed),
        threads=threads,
        elapsed=time.perf_counter() - started,
        interrupted=interrupted,
        path=None if path is None else str(path),
    )


def _measure(found, deadline, progress):
    """Returns the rows of problems, those that failed, and whether Ctrl-C came."""
    rows, failed = [], []
    columns = (
        TextColumn("tuning"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not progress) as p:
        task = p.add_task("", total=len(found))
        try:
            for problem in found:
                if time.perf_counter() > deadline:
                    break
                p.update(task, description=f"{problem.pass_} {problems.text(problem)}")
                row = _row(problem, *timing.measure(problem, deadline))
                if row is not None:
                    rows.append(row)
                elif time.perf_counter() < deadline:
                    failed.append(problem)
                p.advance(task)
        except KeyboardInterrupt:
            return rows, failed, True
    return rows, failed, False


def _omitted(failed):
    sentence = "Nothing could compute it, for want of memory."
    return [problems.Omitted(layer, sentence) for one in failed for layer in one.layers]


def _row(problem, times, seconds):
    if not times:
        return None
    now = race.choose(times, problem.before)
    return TunedProblem(
        layers=tuple(problem.layers),
        uses=problem.uses,
        pass_=problem.pass_,
        problem=problems.text(problem),
        key=problem.key,
        before=problem.before,
        now=now,
        seconds=dict(sorted(seconds.items(), key=lambda pair: pair[1])),
        spread=race.spread(times[now]) / seconds[now],
    )


def _checked_batches(batch_size):
    listed = batch_size if isinstance(batch_size, list | tuple) else [batch_size]
    if not listed or not all(is_integer(one) and one > 0 for one in listed):
        raise ValueError(
            "`batch_size` must be a positive integer or a list of them. Received: "
            f"batch_size={batch_size!r}"
        )
    return tuple(dict.fromkeys(map(int, listed)))


def _check_seconds(seconds):
    is_number = isinstance(seconds, numbers.Real) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds < math.inf:
        raise ValueError(
            f"`seconds` must be a positive number. Received: seconds={seconds!r}"
        )


def _checked_dtype(dtype):
    if dtype is None:
        return None
    try:
        name = keras.backend.standardize_dtype(dtype)
    except (TypeError, ValueError):
        name = None
    if name not in dispatch.DTYPES:
        raise ValueError(
            f"`dtype` must be one of {list(dispatch.DTYPES)}, or None. Received: "
            f"dtype={dtype!r}"
        )
    return name


def _check_use():
    """Raises RuntimeError where `auto` would not use choices."""
    if runtime.is_deterministic():
        raise RuntimeError(
            'Op determinism is on, and `algorithm="auto"` uses no measured choices'
            " then, for they differ from machine to machine: tune without it."
        )
    why = dispatch.why_stock(settings.AUTO, "float32")
    if why:
        raise RuntimeError(f"There is nothing to choose from. {why}")
