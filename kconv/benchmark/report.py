"""Turns measurements into a table, means, files and a plot."""

import csv
import json
import math

from rich.table import Table

from kconv.benchmark.problems import PASSES

# Slower than stock by more than the noise of a quiet machine.
LOSS = 0.97

# Names of candidates that kconv's are compared with: TensorFlow, PyTorch, and kconv's
# own "auto" for the layer of the same width in one group.
REFERENCES = ("stock", "torch", "dense")


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


def layer_table(comparisons):
    """A `rich.table.Table` with a line for each problem.

    Beside ours are the times of the references over it, in the order of their columns.
    """
    others = references(comparisons)
    table = Table(
        title=f"Milliseconds a call, and the time of {', '.join(others)} over it",
        expand=False,
    )
    for heading in ("layer", "kernel", "batch", "pass"):
        table.add_column(heading, no_wrap=True)
    for reference in others:
        table.add_column(reference, justify="right", no_wrap=True)
        table.add_column("its best", no_wrap=True)
    names = list(comparisons[0].ours)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    previous = None
    for comparison in comparisons:
        problem = comparison.problem
        theirs = [comparison.references.get(reference) for reference in others]
        group = (problem.layer.kind, problem.batch, problem.pass_)
        if previous not in (None, group):
            table.add_section()
        previous = group
        table.add_row(
            str(problem.layer),
            problem.layer.kernel_name,
            str(problem.batch),
            problem.pass_,
            *(cell for one in theirs for cell in (_milliseconds(one), _best(one))),
            *(_cell(comparison, name, others) for name in names),
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
    for kind in dict.fromkeys(c.problem.layer.kind for c in comparisons):
        for pass_ in PASSES:
            for batch in [*batches, None] if len(batches) > 1 else batches:
                group = [
                    c
                    for c in comparisons
                    if c.problem.layer.kind == kind
                    and reference in c.references
                    and c.problem.pass_ == pass_
                    and batch in (None, c.problem.batch)
                ]
                if group:
                    cells = [_mean_cell(group, name, reference) for name in names]
                    label = "all" if batch is None else str(batch)
                    table.add_row(kind, pass_, label, *cells)
        table.add_section()
    return table


def rows(comparisons):
    """Flat dictionaries, one for each problem and way to compute it."""
    return [
        {
            "kind": comparison.problem.layer.kind,
            "kernel": comparison.problem.layer.kernel_name,
            "layer": str(comparison.problem.layer),
            "batch": comparison.problem.batch,
            "pass": comparison.problem.pass_,
            "dtype": comparison.problem.dtype,
            "name": measurement.candidate.name,
            "setting": measurement.candidate.setting,
            "algorithm": measurement.choice,
            "refusal": measurement.refusal,
            "seconds": measurement.median if measurement.seconds else None,
            "spread": measurement.spread if measurement.seconds else None,
            "calls": len(measurement.seconds),
            "gflops": (
                2e-9 * _macs(measurement) / measurement.median
                if measurement.seconds
                else None
            ),
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


def write_csv(comparisons, path):
    """Writes `rows` as comma-separated values."""
    lines = rows(comparisons)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


def write_json(comparisons, environment, path):
    """Writes `rows` with the description of the machine."""
    with open(path, "w") as file:
        json.dump(
            {"environment": environment, "rows": rows(comparisons)}, file, indent=1
        )


def write_plot(comparisons, path):
    """Draws stock's time over ours, a panel for each pass, a bar for each layer."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    passes = [p for p in PASSES if any(c.problem.pass_ == p for c in comparisons)]
    names = list(comparisons[0].ours)
    figure, axes = pyplot.subplots(
        len(passes), figsize=(14, 3.5 * len(passes)), squeeze=False, layout="tight"
    )
    for axis, pass_ in zip(axes[:, 0], passes, strict=True):
        group = [c for c in comparisons if c.problem.pass_ == pass_]
        width = 0.8 / len(names)
        for i, name in enumerate(names):
            places = [k + (i - (len(names) - 1) / 2) * width for k in range(len(group))]
            axis.bar(places, [c.ratio(name) or 0 for c in group], width, label=name)
        labels = [
            f"{c.problem.layer.kernel_name} {c.problem.layer}, N={c.problem.batch}"
            for c in group
        ]
        axis.set_xticks(range(len(group)), labels, rotation=60, ha="right", fontsize=7)
        axis.axhline(1, color="black", linewidth=1)
        axis.set_ylabel("stock's time over ours")
        axis.set_title(pass_)
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _macs(measurement):
    """Multiply-accumulates of what a candidate computes."""
    dense = measurement.candidate.name == "dense"
    return (measurement.problem.dense if dense else measurement.problem).macs


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
    """The best setting of a reference, and what ran where it is kconv's."""
    if measurement is None or not measurement.seconds:
        return ""
    setting, choice = measurement.candidate.setting, measurement.choice
    same = choice == measurement.candidate.name
    return setting if same else f"{setting} ({choice})"


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
