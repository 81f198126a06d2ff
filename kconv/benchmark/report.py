"""Turns measurements into a table, means and files."""

import csv
import dataclasses
import itertools
import json
import math

from rich.console import Console
from rich.table import Table

from kconv.benchmark import references as libraries
from kconv.benchmark.problems import PASSES

# Slower than stock by more than the noise of a quiet machine.
LOSS = 0.97

# Names of candidates that kconv's are compared with: TensorFlow, other libraries, and
# kconv's own "auto" for the layer of the same width in one group.
REFERENCES = ("stock", *libraries.REFERENCES, "dense")


class Comparison:
    """A problem: each candidate in its fastest setting.

    Args:
        measurements: All `Measurement`s of one problem.

    Attributes:
        problem: The `Problem`.
        references: A dictionary from a name out of `REFERENCES` to `Measurement`.
        ours: The same for kconv's algorithms.
    """

    def __init__(self, measurements):
        self.problem = measurements[0].problem
        best = {}
        for measurement in measurements:
            name = measurement.candidate.name
            if name not in best or measurement.median < best[name].median:
                best[name] = measurement
        self.references = {name: best.pop(name) for name in REFERENCES if name in best}
        self.ours = best

    @property
    def stock(self):
        """The `Measurement` of stock TensorFlow."""
        return self.references["stock"]

    def ratio(self, name, reference="stock"):
        """The time of a reference over ours: above one is a gain.

        None if either refused or was not measured.
        """
        theirs = self.references.get(reference)
        return None if theirs is None else _ratio(theirs, self.ours[name])


def references(comparisons):
    """Names of the references that were measured, in order."""
    return [r for r in REFERENCES if any(r in c.references for c in comparisons)]


def geometric_mean(values):
    """Geometric mean of an iterable of positive numbers; nan if it is empty."""
    logarithms = [math.log(value) for value in values]
    if not logarithms:
        return math.nan
    return math.exp(math.fsum(logarithms) / len(logarithms))


def gflops(measurement):
    """Billions of operations a second, a product and a sum counted as two.

    Those of the convolution as it is defined, however it was computed. None if it was
    not measured.
    """
    if not measurement.seconds:
        return None
    return 2e-9 * _macs(measurement) / measurement.median


def show(comparisons, machine, console):
    """Prints the tables: in terminals that are too narrow, cells take several lines."""
    tables = [
        layer_table(comparisons, machine),
        *(mean_table(comparisons, reference) for reference in references(comparisons)),
    ]
    for table in tables:
        width = Console(width=10_000).measure(table).maximum
        if not console.is_terminal:
            console.width = max(console.width, width)  # a file has no edge
        elif width > console.width:
            for column in table.columns:
                column.no_wrap, column.overflow = False, "fold"
        console.print(table)


def layer_table(comparisons, machine=None):
    """A `rich.table.Table` with a line for each problem.

    Beside ours are the times of the references over it, in the order of their columns,
    and beside the first of ours what it computes a second, also as a part of what
    `machine` can.
    """
    others = references(comparisons)
    table = Table(
        title=f"Milliseconds a call, and the time of {', '.join(others)} over it",
        expand=False,
    )
    layouts = {c.problem.layout for c in comparisons}
    for heading in ("layer", "kernel", "batch", "pass"):
        table.add_column(heading, no_wrap=True)
    if len(layouts) > 1:
        table.add_column("layout", no_wrap=True)
    for reference in others:
        table.add_column(reference, justify="right", no_wrap=True)
        table.add_column("its best", no_wrap=True)
    names = list(comparisons[0].ours)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
        if name == names[0]:
            table.add_column("GFLOP/s", justify="right", no_wrap=True)
            if machine:
                table.add_column("of peak", justify="right", no_wrap=True)
    previous = None
    for comparison in comparisons:
        problem = comparison.problem
        theirs = [comparison.references.get(reference) for reference in others]
        group = (problem.layer.kind, problem.layout, problem.batch, problem.pass_)
        if previous not in (None, group):
            table.add_section()
        previous = group
        first, *rest = (_cell(comparison, name, others) for name in names)
        table.add_row(
            str(problem.layer),
            problem.layer.kernel_name,
            str(problem.batch),
            problem.pass_,
            *([problem.layout] if len(layouts) > 1 else []),
            *(cell for one in theirs for cell in (_milliseconds(one), _best(one))),
            first,
            *_rates(comparison.ours[names[0]], machine),
            *rest,
        )
    return table


def mean_table(comparisons, reference="stock"):
    """A `rich.table.Table` of geometric means for each kind and pass."""
    table = Table(
        title=f"Geometric mean of {reference}'s time over ours, losses of all"
    )
    for heading in ("layers", "pass", "batch"):
        table.add_column(heading)
    names = list(comparisons[0].ours)
    for name in names:
        table.add_column(name, justify="right")
    batches = sorted({c.problem.batch for c in comparisons})
    layouts = list(dict.fromkeys(c.problem.layout for c in comparisons))
    groups = itertools.product(
        dict.fromkeys(c.problem.layer.kind for c in comparisons),
        layouts,
        PASSES,
        [*batches, None] if len(batches) > 1 else batches,
    )
    previous = None
    for kind, layout, pass_, batch in groups:
        group = [
            c
            for c in comparisons
            if (c.problem.layer.kind, c.problem.layout) == (kind, layout)
            and reference in c.references
            and c.problem.pass_ == pass_
            and batch in (None, c.problem.batch)
        ]
        # Inference engines refuse all gradients.
        if not any(c.references[reference].seconds for c in group):
            continue
        if previous not in (None, (kind, layout)):
            table.add_section()
        previous = kind, layout
        table.add_row(
            kind if len(layouts) == 1 else f"{kind}, {layout}",
            pass_,
            "all" if batch is None else str(batch),
            *(_mean_cell(group, name, reference) for name in names),
        )
    return table


def rows(comparisons, machine=None):
    """Flat dictionaries, one for each problem and way to compute it.

    Args:
        comparisons: A list of `Comparison`.
        machine: None, or a `Machine`, whose peak the rates are compared with.
    """
    return [
        {
            "kind": comparison.problem.layer.kind,
            "kernel": comparison.problem.layer.kernel_name,
            "layer": str(comparison.problem.layer),
            "batch": comparison.problem.batch,
            "pass": comparison.problem.pass_,
            "dtype": comparison.problem.dtype,
            "layout": comparison.problem.layout,
            "name": measurement.candidate.name,
            "setting": measurement.candidate.setting,
            "algorithm": measurement.choice,
            "refusal": measurement.refusal,
            "seconds": measurement.median if measurement.seconds else None,
            "spread": measurement.spread if measurement.seconds else None,
            "calls": len(measurement.seconds),
            "gflops": gflops(measurement),
            "of_peak": _of_peak(measurement, machine),
            **{
                f"{reference}_over_this": (
                    _ratio(comparison.references[reference], measurement)
                    if reference in comparison.references
                    else None
                )
                for reference in references(comparisons)
            },
        }
        for comparison in comparisons
        for measurement in (
            *comparison.references.values(),
            *comparison.ours.values(),
        )
    ]


def write_csv(comparisons, path, machine=None):
    """Writes `rows` as comma-separated values."""
    lines = rows(comparisons, machine)
    # Of what was measured, references may be only in some.
    names = dict.fromkeys(name for line in lines for name in line)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(lines)


def write_json(comparisons, environment, path, machine=None, verdict=None):
    """Writes `rows` with the description of the machine and of its noise."""
    written = {
        "environment": environment,
        "machine": dataclasses.asdict(machine) if machine else None,
        "noise": verdict.to_json() if verdict else None,
        "rows": rows(comparisons, machine),
    }
    with open(path, "w") as file:
        json.dump(written, file, indent=1)


def _macs(measurement):
    """Multiply-accumulates of what a candidate computes."""
    dense = measurement.candidate.name == "dense"
    return (measurement.problem.dense if dense else measurement.problem).macs


def _of_peak(measurement, machine):
    """What it computes a second as a part of the peak, or None."""
    if machine is None or not measurement.seconds:
        return None
    return 1e9 * gflops(measurement) / machine.flops


def _rates(measurement, machine):
    """The cells of the first of ours."""
    rate, part = gflops(measurement), _of_peak(measurement, machine)
    cells = ["" if rate is None else f"{rate:.1f}"]
    return cells if machine is None else [*cells, "" if part is None else f"{part:.0%}"]


def _ratio(theirs, ours):
    if not theirs.seconds or not ours.seconds:
        return None
    return theirs.median / ours.median


def _milliseconds(measurement):
    if measurement is None:
        return ""
    if not measurement.seconds:
        return "refused"
    return f"{1e3 * measurement.median:.2f} ±{100 * measurement.spread:.0f}%"


def _best(measurement):
    """The best setting of a reference, and what ran where that is known."""
    if measurement is None or not measurement.seconds:
        return ""
    candidate, choice = measurement.candidate, measurement.choice
    known = choice not in (candidate.name, "")
    if candidate.name == "stock":
        # The implementation says more than what was allowed.
        return f"{candidate.mode}: {choice}" if known else candidate.setting
    return f"{candidate.setting} ({choice})" if known else candidate.setting


def _cell(comparison, name, others):
    measurement = comparison.ours[name]
    if not measurement.seconds:
        return "refused"
    parts = [_milliseconds(measurement)]
    for reference in others:
        ratio = comparison.ratio(name, reference)
        if ratio is None:
            parts.append("-")
            continue
        color = "green" if ratio > 1 / LOSS else "red" if ratio < LOSS else "white"
        parts.append(f"[{color}]{ratio:.2f}x[/]")
    if measurement.choice != name:
        parts.append(f"({measurement.choice})")
    return " ".join(parts)


def _mean_cell(group, name, reference):
    ratios = [r for r in (c.ratio(name, reference) for c in group) if r is not None]
    if not ratios:
        return "refused"
    losses = sum(ratio < LOSS for ratio in ratios)
    return f"{geometric_mean(ratios):.2f}x, {losses} of {len(ratios)}"
