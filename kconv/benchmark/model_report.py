"""Turns measurements of whole models into a table and files."""

import csv
import json

from rich.console import Console
from rich.table import Table

from kconv.benchmark.model_references import REFERENCES
from kconv.benchmark.report import LOSS, geometric_mean

# Beyond this part of stock's memory ours is too much.
MOST_MEMORY = 1.1

_MIB = 2**20


def show(results, console):
    """Prints the table, whole where there is no edge of a terminal, and what it lacks.

    Args:
        results: List of `models.Result`.
        console: A `rich.console.Console`.
    """
    found = table(results)
    if not console.is_terminal:
        width = Console(width=10_000).measure(found).maximum
        console.width = max(console.width, width)
    console.print(found)
    ratios = [r for r in (result.ratio() for result in results) if r]
    if len(ratios) > 1:
        losses = sum(ratio < LOSS for ratio in ratios)
        console.print(
            f"Geometric mean of stock's time over ours: {geometric_mean(ratios):.2f}x,"
            f" {losses} of {len(ratios)} lost.",
            highlight=False,
        )
    for sentence in notes(results):
        console.print(sentence, highlight=False, soft_wrap=True)


def table(results):
    """A `rich.table.Table` with a line for each model, time and memory side by side."""
    others = [n for n in REFERENCES if any(r.best(n) for r in results)]
    has_memory = any(result.memory for result in results)
    made = Table(title="Milliseconds a call, and the time of others over ours")
    for heading in ("model", "pass", "batch"):
        made.add_column(heading, no_wrap=True)
    for name in ("kconv", "stock"):
        made.add_column(name, justify="right", no_wrap=True)
        made.add_column("its best", no_wrap=True)
    made.add_column("ratio", justify="right", no_wrap=True)
    for name in others:
        made.add_column(REFERENCES[name].title, justify="right", no_wrap=True)
    if has_memory:
        for heading in (
            *("peak MiB, kconv and stock", "the least of each"),
            "kconv's workspace MiB",
        ):
            made.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        subject = result.subject
        made.add_row(
            subject.name,
            subject.pass_,
            str(subject.batch),
            *_timed(result.best("kconv")),
            *_timed(result.best("stock")),
            _ratio(result.ratio()),
            *(_other(result, name) for name in others),
            *(_memory(result) if has_memory else ()),
        )
    return made


def notes(results):
    """Sentences on what the table does not show."""
    told = []
    for result in results:
        for name, sentence in result.missing.items():
            title = REFERENCES[name].title if name in REFERENCES else name
            told.append(f"{title}: {sentence}")
        for measurement in result.measurements:
            if measurement.refusal:
                candidate = measurement.candidate
                told.append(
                    f"{result.subject}: {candidate.name}, {candidate.setting}:"
                    f" {measurement.refusal}"
                )
    if any(result.memory for result in results):
        told.append(
            "Peak MiB: resident memory of processes of their own, all libraries"
            " included, each in its fastest setting, and each in the one that takes"
            " least."
        )
    return list(dict.fromkeys(told))


def rows(results):
    """Flat dictionaries, one for each model and way to run it."""
    return [
        {
            "model": result.subject.name,
            "pass": result.subject.pass_,
            "batch": result.subject.batch,
            "size": result.subject.size,
            "dtype": result.subject.dtype,
            "layout": result.subject.layout,
            "macs": result.made["macs"],
            "parameters": result.made["parameters"],
            "difference": result.made["difference"],
            "name": measurement.candidate.name,
            "setting": measurement.candidate.setting,
            "is_best": measurement is result.best(measurement.candidate.name),
            "refusal": measurement.refusal,
            "seconds": measurement.median if measurement.seconds else None,
            "spread": measurement.spread if measurement.seconds else None,
            "calls": len(measurement.seconds),
            "stock_over_this": _over(result.best("stock"), measurement),
            **_memory_row(result.memory.get(measurement.candidate)),
        }
        for result in results
        for measurement in result.measurements
    ]


def write_csv(results, path):
    """Writes `rows` as comma-separated values."""
    lines = rows(results)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


def write_json(results, environment, verdict, path):
    """Writes `rows` with the description of the machine and of its noise."""
    written = {
        "environment": environment,
        "noise": verdict.to_json(),
        "notes": notes(results),
        "rows": rows(results),
    }
    with open(path, "w") as file:
        json.dump(written, file, indent=1)


def _memory_row(memory):
    names = "start", "built", "peak", "workspace"
    return {f"memory_{n}": getattr(memory, n, None) for n in names}


def _over(theirs, measurement):
    if theirs is None or not measurement.seconds:
        return None
    return theirs.median / measurement.median


def _timed(measurement):
    if measurement is None:
        return "-", ""
    words = f"{1e3 * measurement.median:.1f} ±{100 * measurement.spread:.0f}%"
    return words, measurement.candidate.setting


def _ratio(ratio):
    if ratio is None:
        return "-"
    if ratio < LOSS:
        return f"[red]{ratio:.2f}x loss[/]"
    return f"[green]{ratio:.2f}x[/]" if ratio > 1 / LOSS else f"{ratio:.2f}x"


def _other(result, name):
    words = _timed(result.best(name))[0]
    return words if words == "-" else f"{words} {_ratio(result.ratio(name))}"


def _memory(result):
    ours = result.memory_of_best("kconv")
    return [
        *(
            _memory_cell(result, which)
            for which in (type(result).memory_of_best, type(result).least_memory)
        ),
        f"{ours.workspace / _MIB:.1f}" if ours else "-",
    ]


def _memory_cell(result, which):
    ratio = result.memory_ratio(which)
    if ratio is None:
        return "-"
    ours, theirs = (which(result, name).peak / _MIB for name in ("kconv", "stock"))
    color = "red" if ratio > MOST_MEMORY else "green"
    return f"{ours:.0f} {theirs:.0f} [{color}]{ratio:.2f}x[/]"
