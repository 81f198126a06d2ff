"""A picture of a `Profile`."""

from kconv.profiler.wording import decimal, short

# Colours that those who see no red or no green can tell apart.
_WORK, _WEIGHTS, _FIELD, _GRID = "#4269d0", "#efb118", "#3ca951", "#d9dce3"
# Names below the bars, while they can be read.
_MOST_NAMES = 40
# Dots of the receptive fields, while they are apart.
_MOST_MARKERS = 80


def draw(profile, path):
    """Draws MACs and parameters of each row as bars, and receptive fields by depth.

    Rows with neither are left out, normalizations among them: less than a hundredth of
    the parameters and no MACs.

    Args:
        profile: A `Profile`.
        path: String or path, of the picture.
    """
    # Not pyplot, which would choose a backend for the whole process.
    from matplotlib.figure import Figure

    few = profile.total.parameters / 100
    rows = [row for row in profile.layers if row.macs or row.parameters > few]
    rows = rows or list(profile.layers)
    width = max(8, min(16, 3 + 0.42 * len(rows)))
    figure = Figure(figsize=(width, 9), layout="constrained")
    axes = figure.subplots(
        3, sharex=True, gridspec_kw={"height_ratios": (1, 1, 1.1), "hspace": 0.04}
    )
    figure.suptitle(_title(profile), fontsize=13, fontweight="bold")
    places = range(len(rows))
    _bars(axes[0], places, [row.macs or 0 for row in rows], "MACs", _WORK)
    _bars(axes[1], places, [row.parameters for row in rows], "parameters", _WEIGHTS)
    _fields(axes[2], rows, profile)
    for axis in axes:
        axis.set_axisbelow(True)
        axis.grid(axis="y", color=_GRID, linewidth=0.8)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(length=0, labelsize=9)
        axis.set_xlim(-0.7, len(rows) - 0.3)
    _names(axes[2], rows)
    figure.savefig(path, dpi=150)


def _title(profile):
    total = profile.total
    shapes = ", ".join("x".join(map(str, s)) for s in profile.input_shapes.values())
    return (
        f"{profile.name} on {shapes}: {decimal(total.macs)} MACs,"
        f" {decimal(total.parameters)} parameters"
    )


def _bars(axis, places, heights, heading, colour):
    axis.bar(places, heights, 0.8, color=colour)
    axis.set_title(heading, fontsize=10, loc="left")
    axis.yaxis.set_major_formatter(lambda value, _: decimal(value).replace(".0 ", " "))
    axis.margins(y=0.12)
    total = sum(heights)
    for place, height in zip(places, heights, strict=True):
        # The largest bars say their part.
        if total and height >= max(0.5 * max(heights), 0.08 * total):
            text = f"{100 * height / total:.0f}%"
            axis.text(place, height, text, ha="center", va="bottom", fontsize=8)


def _fields(axis, rows, profile):
    """The range of sizes over all paths, of the first spatial axis."""
    known = [(n, row) for n, row in enumerate(rows) if row.receptive_fields]
    known = [
        (n, [f.size[0] for f in row.receptive_fields if f.size]) for n, row in known
    ]
    known = [(n, sizes) for n, sizes in known if sizes]
    axis.set_title(
        "receptive field in pixels: the range over all paths", fontsize=10, loc="left"
    )
    if not known:
        axis.text(0.5, 0.5, "unknown", ha="center", transform=axis.transAxes)
        return
    places = [n for n, _ in known]
    low, high = [min(s) for _, s in known], [max(s) for _, s in known]
    axis.fill_between(places, low, high, color=_FIELD, alpha=0.2, linewidth=0)
    style = {"color": _FIELD}
    if len(rows) <= _MOST_MARKERS:
        style |= {"marker": "o", "markersize": 3.5}
    axis.plot(places, high, linewidth=1.8, **style)
    if low != high:
        axis.plot(places, low, linewidth=1, linestyle="--", **style)
    axis.set_ylim(0, 1.15 * max(high))
    _say(axis, places[-1], high[-1])
    if low[-1] != high[-1]:
        _say(axis, places[-1], low[-1])
    sizes = {max(shape[1:-1], default=0) for shape in profile.input_shapes.values()}
    if len(sizes) == 1 and 1 < max(sizes) < 1.1 * max(high):
        size = max(sizes)
        axis.axhline(size, color="gray", linewidth=1, linestyle=":")
        text = f"the image: {size}"
        axis.text(-0.5, size, text, va="bottom", fontsize=8, color="gray")


def _say(axis, place, value):
    axis.annotate(
        str(value),
        (place, value),
        (0, 5),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        color=_FIELD,
    )


def _names(axis, rows):
    if len(rows) <= _MOST_NAMES:
        places = range(len(rows))
    else:
        step = -(-len(rows) // _MOST_NAMES)
        places = range(0, len(rows), step)
    names = [short(rows[n].name) for n in places]
    axis.set_xticks(places, names, rotation=60, ha="right", rotation_mode="anchor")
    axis.tick_params(axis="x", labelsize=8)
