"""Turns measurements into a table, means, files and a plot."""

import csv
import json
import math

from rich.table import Table

from kconv.benchmark.problems import PASSES

# Slower than stock by more than the noise of a quiet machine.
LOSS = 0.97


class Comparison:
    """A problem: stock in its fastest setting, and kconv's algorithms in theirs.

    Args:
        measurements: All `Measurement`s of one problem.

    Attributes:
        problem: The `Problem`.
        stock: A `Measurement`.
        ours: A dictionary from name to `Measurement`.
    """

    def __init__(self, measurements):
        self.problem = measurements[0].problem
        best = {}
        for measurement in measurements:
            name = measurement.candidate.name
            if name not in best or measurement.median < best[name].median:
                best[name] = measurement
        self.stock = best.pop("stock")
        self.ours = best

    def ratio(self, name):
        """Stock's time over ours: above one is a gain. None if it refused."""
        measurement = self.ours[name]
        if not measurement.seconds:
            return None
        return self.stock.median / measurement.median


def geometric_mean(values):
    """Geometric mean of an iterable of positive numbers; nan if it is empty."""
    logarithms = [math.log(value) for value in values]
    if not logarithms:
        return math.nan
    return math.exp(math.fsum(logarithms) / len(logarithms))


def layer_table(comparisons):
    """A `rich.table.Table` with a line for each problem."""
    table = Table(title="Milliseconds a call, and stock's time over it", expand=False)
    for heading in ("layer", "kernel", "batch", "pass"):
        table.add_column(heading, no_wrap=True)
    table.add_column("stock", justify="right", no_wrap=True)
    table.add_column("its best setting", no_wrap=True)
    names = list(comparisons[0].ours)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    previous = None
    for comparison in comparisons:
        problem, stock = comparison.problem, comparison.stock
        group = (problem.layer.kind, problem.batch, problem.pass_)
        if previous not in (None, group):
            table.add_section()
        previous = group
        table.add_row(
            str(problem.layer),
            problem.layer.kind,
            str(problem.batch),
            problem.pass_,
            _milliseconds(stock),
            stock.candidate.setting,
            *(_cell(comparison, name) for name in names),
        )
    return table


def mean_table(comparisons):
    """A `rich.table.Table` of geometric means for each kind and pass."""
    table = Table(title="Geometric mean of stock's time over ours, losses of all")
    for heading in ("kernel", "pass", "batch"):
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
                    and c.problem.pass_ == pass_
                    and batch in (None, c.problem.batch)
                ]
                if group:
                    cells = [_mean_cell(group, name) for name in names]
                    label = "all" if batch is None else str(batch)
                    table.add_row(kind, pass_, label, *cells)
        table.add_section()
    return table


def rows(comparisons):
    """Flat dictionaries, one for each problem and way to compute it."""
    return [
        {
            "kernel": comparison.problem.layer.kind,
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
                2e-9 * comparison.problem.macs / measurement.median
                if measurement.seconds
                else None
            ),
            "stock_over_this": (
                comparison.stock.median / measurement.median
                if measurement.seconds
                else None
            ),
        }
        for comparison in comparisons
        for measurement in (comparison.stock, *comparison.ours.values())
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
            f"{c.problem.layer.kind} {c.problem.layer}, N={c.problem.batch}"
            for c in group
        ]
        axis.set_xticks(range(len(group)), labels, rotation=60, ha="right", fontsize=7)
        axis.axhline(1, color="black", linewidth=1)
        axis.set_ylabel("stock's time over ours")
        axis.set_title(pass_)
    axes[0, 0].legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _milliseconds(measurement):
    return f"{1e3 * measurement.median:.2f} ±{100 * measurement.spread:.0f}%"


def _cell(comparison, name):
    ratio = comparison.ratio(name)
    measurement = comparison.ours[name]
    if ratio is None:
        return "refused"
    color = "green" if ratio > 1 / LOSS else "red" if ratio < LOSS else "white"
    chosen = f" ({measurement.choice})" if measurement.choice != name else ""
    return f"{_milliseconds(measurement)} [{color}]{ratio:.2f}x[/]{chosen}"


def _mean_cell(group, name):
    ratios = [r for r in (c.ratio(name) for c in group) if r is not None]
    if not ratios:
        return "refused"
    losses = sum(ratio < LOSS for ratio in ratios)
    return f"{geometric_mean(ratios):.2f}x, {losses} of {len(ratios)}"
