"""The table of a `Profile`, as plain text and in a terminal."""

import os
import textwrap

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kconv.profiler.wording import (
    FOOTER,
    binary,
    decimal,
    shape_text,
    shapes_of,
    short,
)

_SHORT = {
    "forward": "forward",
    "input_gradient": "input gradient",
    "filter_gradient": "filter gradient",
}


def text(profile):
    """Returns the table, its total and what is to be said of it as plain text."""
    headings, rows = _cells(profile)
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [_title(profile)]
    for row in (headings, *rows):
        cells = (
            cell.rjust(width) if _is_number(heading) else cell.ljust(width)
            for cell, width, heading in zip(row, widths, headings, strict=True)
        )
        lines.append("  ".join(cells).rstrip())
    width = max(80, *map(len, lines))
    return "\n".join([*lines, "", *summary(profile, width)])


def show(profile):
    """Prints the table; where a terminal is too narrow, without some columns."""
    console = Console()
    if not (console.is_terminal or console.is_jupyter or "COLUMNS" in os.environ):
        print(profile)  # into a file or a pipe, which have no width
        return
    headings, rows, hidden = _fitting(*_cells(profile), console.width)
    table = Table(
        title=Text(_title(profile)),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, _GAP - 1, 0, 0),  # a divider is one more
        pad_edge=False,
        show_edge=False,
    )
    for heading in headings:
        table.add_column(
            heading,
            justify="right" if _is_number(heading) else "left",
            style=_STYLES.get(heading),
            no_wrap=heading != "note",
            overflow="ellipsis",
        )
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    if hidden:
        hidden = ", ".join(dict.fromkeys(hidden))
        console.print(f"Not shown in a terminal of this width: {hidden}.", style="dim")
    for line in summary(profile):
        console.print(line, markup=False, highlight=False)


_GAP = 2
_STYLES = {"layer": "bold", "algorithm": "cyan", "saves": "green", "note": "dim"}
# What is left out first. None: names of layers are cut before the rest is.
_DISPENSABLE = ("FLOP/byte", "memory", "kind", "saves", None, "output", "parameters")
_LEAST_NAME, _LEAST_NOTE = 16, 24


def _fitting(headings, rows, width):
    """Leaves out columns, and beginnings of names, until a table fits.

    Returns:
        The headings, the rows, and the headings that were left out.
    """
    hidden = []
    for one in _DISPENSABLE:
        while one in headings and _width(headings, rows) > width:
            hidden.append(one)
            n = headings.index(one)
            headings = headings[:n] + headings[n + 1 :]
            rows = [row[:n] + row[n + 1 :] for row in rows]
        excess = _width(headings, rows) - width
        if one is None and excess > 0:
            most = max((len(row[0]) for row in rows), default=0) - excess
            most = max(_LEAST_NAME, most)
            rows = [[short(name, most), *others] for name, *others in rows]
    return headings, rows, hidden


def _width(headings, rows):
    """Characters of a table; notes are broken, between words."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    if headings[-1] == "note":
        widths[-1] = min(widths[-1], _LEAST_NOTE)
    return sum(widths) + _GAP * (len(widths) - 1)


def summary(profile, width=None):
    """Lines that tell the total, the refusals and the convention, which is broken."""
    total = profile.total
    frozen = total.parameters - total.trainable_parameters
    lines = [
        f"parameters   {total.parameters:,} ({frozen:,} of them not trainable),"
        f" {binary(total.weight_bytes)}",
        f"MACs         {total.macs:,} ({decimal(total.macs)})",
        f"activations  {binary(total.activation_bytes)} held for training,"
        f" {binary(total.peak_bytes)} at most at once in inference",
    ]
    if total.uncounted:
        lines[1] += (
            f", without {_several(total.uncounted, 'row')} not counted: see the notes"
        )
    for pass_ in profile.passes:
        done = total.multiplications[pass_]
        if 0 < done < total.macs:
            lines.append(
                f"{_SHORT[pass_]}: {decimal(done)} multiplications by the algorithms"
                f" that kconv takes, {total.saved(pass_):.2f} times fewer"
            )
    if profile.refusals:
        lines += ["", "Refusals:"]
    longest = max((len(one.algorithm) for one in profile.refusals), default=0)
    heading = None
    for one in profile.refusals:
        if heading != (one.layer, one.pass_):
            heading = one.layer, one.pass_
            lines.append(f"{one.layer}, {_SHORT[one.pass_]}")
        lines.append(f"  {one.algorithm:{longest}}  {one.sentence}")
    return [*lines, "", *(textwrap.wrap(FOOTER, width) if width else [FOOTER])]


def _title(profile):
    shapes = profile.input_shapes
    told = [f"{n}: {s}" if len(shapes) > 1 else str(s) for n, s in shapes.items()]
    return f"{profile.name}, input {', '.join(told)}"


def _is_number(heading):
    return heading not in ("layer", "kind", "output", "note") and not (
        heading.startswith("algorithm") or heading in _SHORT.values()
    )


def _cells(profile):
    """Returns the headings and the rows; a column that is empty is left out."""
    one = len(profile.passes) == 1
    headings = [
        *("layer", "kind", "output", "parameters", "MACs", "memory", "FLOP/byte"),
        "field",
    ]
    for pass_ in profile.passes:
        headings += ["algorithm", "saves"] if one else [_SHORT[pass_], "saves"]
    headings.append("note")
    rows = [_row(row, profile.passes) for row in profile.layers]
    kept = [
        n
        for n, heading in enumerate(headings)
        if heading not in ("note", "saves") or any(row[n] for row in rows)
    ]
    return [headings[n] for n in kept], [[row[n] for n in kept] for row in rows]


def _row(row, passes):
    cells = [
        row.name,
        row.kind,
        ", ".join(map(shape_text, shapes_of(row))) or "-",
        f"{row.parameters:,}",
        "?" if row.macs is None else decimal(row.macs),
        binary(row.activation_bytes),
        "?" if row.intensity is None else f"{row.intensity:.1f}",
        row.receptive_field,
    ]
    for pass_ in passes:
        name = row.algorithms.get(pass_, "")
        saved = ""
        if name and row.macs and row.multiplications[pass_] < row.macs:
            saved = f"{row.macs / row.multiplications[pass_]:.2f}x"
        cells += [name, saved]
    merged = f"{row.merged_fields} fields between these merged"
    notes = [row.note, merged if row.merged_fields else ""]
    return [*cells, "; ".join(filter(None, notes))]


def _several(count, word):
    return f"{count} {word}" if count == 1 else f"{count} {word}s"
