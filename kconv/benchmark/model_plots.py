"""A picture of whole models: times over ours, and memory."""

from kconv.benchmark.model_references import REFERENCES

_MIB = 2**20


def models(results, path):
    """Draws the times of stock and others over ours and, if measured, the memory.

    Args:
        results: List of `models.Result`.
        path: String, where to.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [_times]
    if any(result.memory for result in results):
        panels.append(_memory)
    figure, axes = pyplot.subplots(
        len(panels),
        figsize=(max(7, 1.5 * len(results)), 3.6 * len(panels)),
        squeeze=False,
        layout="constrained",
    )
    labels = [_label(result.subject) for result in results]
    for draw, axis in zip(panels, axes[:, 0], strict=True):
        draw(axis, results)
        axis.set_xticks(range(len(results)), labels, fontsize=8)
        axis.grid(axis="y", linewidth=0.3)
        axis.set_axisbelow(True)
        axis.legend(
            fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=5
        )
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _times(axis, results):
    names = ["stock", *(n for n in REFERENCES if any(r.best(n) for r in results))]
    titles = [REFERENCES[n].title if n in REFERENCES else "stock" for n in names]
    columns = [[result.ratio(name) for result in results] for name in names]
    _bars(axis, titles, columns, "{:.2f}")
    axis.axhline(1, color="black", linewidth=1)
    axis.set_ylabel("time over kconv's\n(below 1: a loss)")
    axis.set_title("Time of a call")


def _memory(axis, results):
    # From the least of what a process takes to what the calls need.
    columns = {}
    for name in ("kconv", "stock"):
        for words, which in (
            ("fastest", "memory_of_best"),
            ("least", "least_memory"),
        ):
            found = [getattr(result, which)(name) for result in results]
            columns[f"{name}, {words}"] = [m and m.peak / _MIB for m in found]
    _bars(axis, list(columns), list(columns.values()), "{:.0f}")
    starts = [m.start / _MIB for result in results for m in result.memory.values()]
    if starts:
        axis.axhline(
            min(starts), color="black", linestyle=":", linewidth=1, label="libraries"
        )
    axis.set_ylabel("resident MiB at the peak")
    axis.set_title("Memory of a process")


def _bars(axis, titles, columns, words):
    width = 0.8 / len(columns)
    for i, (title, column) in enumerate(zip(titles, columns, strict=True)):
        known = [(k, value) for k, value in enumerate(column) if value]
        places = [k + (i - (len(columns) - 1) / 2) * width for k, _ in known]
        bars = axis.bar(places, [value for _, value in known], width, label=title)
        axis.bar_label(
            bars, [words.format(value) for _, value in known], fontsize=7, padding=1
        )
    axis.set_xlim(-0.6, max(map(len, columns)) - 0.4)
    axis.margins(y=0.15)


def _label(subject):
    size = f", {subject.size}x{subject.size}" if subject.size else ""
    return f"{subject.name}\n{subject.pass_}, batch {subject.batch}{size}"
