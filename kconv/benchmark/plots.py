"""Pictures of measurements: ratios by layer, and the roofline."""

import importlib.util
import pathlib

from kconv.benchmark import report
from kconv.benchmark.problems import PASSES


def check(*paths):
    """Tells before hours of measuring what would be told after them.

    Args:
        *paths: Strings, the pictures that are wanted; Nones are left out.

    Raises:
        ModuleNotFoundError: If there is nothing to draw with.
        ValueError: If the name of a picture ends like that of no picture.
    """
    paths = [path for path in paths if path]
    if not paths:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise ModuleNotFoundError("matplotlib is missing.", name="matplotlib")
    from matplotlib.backend_bases import FigureCanvasBase

    known = sorted(FigureCanvasBase.get_supported_filetypes())
    for path in paths:
        # Without an ending it becomes a PNG.
        if pathlib.Path(path).suffix[1:].lower() not in ("", *known):
            raise ValueError(f"Pictures end in {', '.join(known)}. Received: {path}")


def ratios(comparisons, path):
    """Draws stock's time over ours, a panel for each pass, a bar for each layer.

    Bars of gains stand on the line at one, those of losses hang from it. The scale is
    logarithmic: twice as fast is as far from it as twice as slow.
    """
    pyplot = _pyplot()
    passes = _passes(comparisons)
    names = list(comparisons[0].ours)
    groups = [[c for c in comparisons if c.problem.pass_ == p] for p in passes]
    labels = [[_label(c.problem) for c in group] for group in groups]
    most = max(len(group) for group in groups)
    are_alike = all(one == labels[0] for one in labels)
    figure, axes = pyplot.subplots(
        len(passes),
        figsize=(max(8, 0.3 * most * max(1, len(names) / 3)), 2 + 2.5 * len(passes)),
        squeeze=False,
        sharex=are_alike,
        layout="constrained",
    )
    panels = zip(axes[:, 0], passes, groups, labels, strict=True)
    for axis, pass_, group, words in panels:
        width = 0.8 / len(names)
        for i, name in enumerate(names):
            known = [(k, c.ratio(name)) for k, c in enumerate(group)]
            known = [(k, ratio) for k, ratio in known if ratio is not None]
            axis.bar(
                [k + (i - (len(names) - 1) / 2) * width for k, _ in known],
                [ratio - 1 for _, ratio in known],
                width,
                bottom=1,
                label=name,
            )
        axis.set_yscale("log")
        low, high = axis.get_ylim()
        axis.set_ylim(min(low, 0.8), max(high, 1.25))
        _plain_numbers(axis.yaxis)
        axis.set_xticks(
            range(len(group)),
            words,
            rotation=60,
            ha="right",
            rotation_mode="anchor",
            fontsize=7,
        )
        axis.set_xlim(-0.6, len(group) - 0.4)
        axis.axhline(1, color="black", linewidth=1)
        axis.grid(axis="y", linewidth=0.3)
        axis.set_ylabel("stock's time over ours\n(below 1: a loss)")
        axis.set_title(pass_)
    axes[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def roofline(comparisons, machine, path):
    """Draws operations a second over operations a byte, a panel for each pass.

    The lines are what was measured of the machine; the points are the first of ours
    and stock. A point may be above them, where an algorithm multiplies less than the
    convolution is defined to, or where operands were in caches.
    """
    pyplot = _pyplot()
    passes = _passes(comparisons)
    name = next(iter(comparisons[0].ours))
    figure, axes = pyplot.subplots(
        1,
        len(passes),
        figsize=(5 * len(passes) + 1, 4.5),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    reached = [c.problem.intensity for c in comparisons]
    ridge = machine.flops / machine.bandwidth
    low, high = min(*reached, ridge) / 2, max(*reached, ridge) * 2
    for axis, pass_ in zip(axes[0], passes, strict=True):
        group = [c for c in comparisons if c.problem.pass_ == pass_]
        lines = [low, ridge, high]
        axis.plot(
            lines,
            [1e-9 * machine.ceiling(x) for x in lines],
            color="black",
            linewidth=1,
            label="measured peak and bandwidth",
        )
        for label, marker, pick in (
            ("stock's best", "x", lambda c: c.references.get("stock")),
            (name, "o", lambda c: c.ours[name]),
        ):
            points = [(c.problem.intensity, pick(c)) for c in group]
            points = [(x, report.gflops(m)) for x, m in points if m and m.seconds]
            if points:
                axis.scatter(*zip(*points, strict=True), marker=marker, label=label)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(low, high)
        _plain_numbers(axis.xaxis)
        _plain_numbers(axis.yaxis)
        axis.grid(linewidth=0.3)
        axis.set_xlabel("operations for each byte of the operands")
        axis.set_title(pass_)
    axes[0, 0].set_ylabel("GFLOP/s, as a direct convolution")
    axes[0, 0].legend(fontsize=7)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _plain_numbers(axis):
    """Labels a logarithmic axis with 1, 2, 5, 10 instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _passes(comparisons):
    return [p for p in PASSES if any(c.problem.pass_ == p for c in comparisons)]


def _label(problem):
    layer = problem.layer
    words = f"{layer.kernel_name} {layer}, N={problem.batch}"
    last = problem.layout == "channels_last"
    return words if last else f"{words}, {problem.layout}"
