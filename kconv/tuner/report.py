"""What `kconv.tune` found."""

import dataclasses
import io
import statistics

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kconv.profiler.wording import short

# Beyond this spread choices are not to be relied upon.
NOISY = 0.1

_HEADINGS = ("layer", "problem", "pass", "before", "now", "ms", "gain", "others, ms")


@dataclasses.dataclass(frozen=True)
class TunedProblem:
    """A pass of a convolution that was measured.

    Attributes:
        layers: Tuple of strings, names of the layers that have it.
        uses: Int, how often a step of the model computes it.
        pass_: String; of a transposed convolution the pass of the convolution that it
            undoes.
        problem: String, sizes in a few words.
        key: String, the whole problem, as the file of choices has it.
        before: String, the algorithm that `"auto"` took.
        now: String, the one that it takes now.
        seconds: Dictionary from names of algorithms to the median of a call, the least
            first.
        spread: Float, half the distance of the quartiles of the calls of `now`, as a
            part of their median.
    """

    layers: tuple
    uses: int
    pass_: str
    problem: str
    key: str
    before: str
    now: str
    seconds: dict
    spread: float

    @property
    def gain(self):
        """Float, the time before over the time now; None if that before failed."""
        if self.before not in self.seconds:
            return None
        return self.seconds[self.before] / self.seconds[self.now]


@dataclasses.dataclass(frozen=True)
class TuningReport:
    """The answer of `kconv.tune`.

    Attributes:
        rows: Tuple of `TunedProblem`, in the order they were measured.
        omitted: Tuple of objects with `layer` and `sentence`, the convolutions that
            there is no choice for, and why.
        left: Int, the problems that there was no time for.
        threads: Int, those that the choices hold for.
        elapsed: Float, the seconds that it took.
        interrupted: Bool, whether Ctrl-C ended it.
        path: String, the file that was written, or None.

    `str()` of it is a table, and `show()` prints one.
    """

    rows: tuple
    omitted: tuple
    left: int
    threads: int
    elapsed: float
    interrupted: bool
    path: str | None

    @property
    def changed(self):
        """Int, how many choices are other ones than before."""
        return sum(row.now != row.before for row in self.rows)

    @property
    def gain(self):
        """Float, the time of all passes measured before over now, or None."""
        known = [row for row in self.rows if row.gain is not None]
        now = sum(row.uses * row.seconds[row.now] for row in known)
        before = sum(row.uses * row.seconds[row.before] for row in known)
        return before / now if known else None

    @property
    def spread(self):
        """Float, the median of the spreads of all rows: how busy the machine was."""
        return statistics.median(row.spread for row in self.rows) if self.rows else 0.0

    def __str__(self):
        console = Console(file=io.StringIO(), width=_WIDTH, color_system=None)
        self._print(console)
        lines = console.file.getvalue().splitlines()
        return "\n".join(line.rstrip() for line in lines)

    def show(self):
        """Prints the table."""
        console = Console()
        if not (console.is_terminal or console.is_jupyter):
            print(self)  # a file or a pipe has no width
            return
        self._print(console)

    def _print(self, console):
        if self.rows:
            console.print(self._table())
        for line in self._summary():
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _table(self):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for heading in _HEADINGS:
            right = heading in ("ms", "gain")
            table.add_column(heading, justify="right" if right else "left")
        for row in self.rows:
            table.add_row(*_cells(row))
        return table

    def _summary(self):
        lines = []
        if self.rows:
            gain = "" if self.gain is None else f", {self.gain:.2f}x as fast together"
            lines.append(
                f"{self.changed} of {len(self.rows)} choices changed (threads:"
                f" {self.threads}){gain}, in {self.elapsed:.0f} s."
            )
        if self.spread > NOISY:
            lines.append(
                f"The machine is busy: calls of the same algorithm differ by"
                f" {100 * self.spread:.0f} %. Only what stood out was changed; tune"
                " again when it is quiet."
            )
        if self.left:
            why = "Ctrl-C came" if self.interrupted else "the time was up"
            lines.append(
                f"{self.left} problems were not measured, for {why}: estimates choose"
                " there."
            )
        for sentence in dict.fromkeys(one.sentence for one in self.omitted):
            names = [one.layer for one in self.omitted if one.sentence == sentence]
            lines.append(f"Not measured: {', '.join(dict.fromkeys(names))}. {sentence}")
        if self.path:
            lines.append(f"Written to {self.path}.")
        elif self.rows:
            lines.append("Not written: the choices hold for this process only.")
        return lines


_WIDTH = 160


def _cells(row):
    names = short(row.layers[0])
    if len(row.layers) > 1:
        names += f" +{len(row.layers) - 1}"
    changed = row.now != row.before
    others = (
        f"{name} {1e3 * seconds:.3g}"
        for name, seconds in row.seconds.items()
        if name != row.now
    )
    return (
        Text(names, style="bold"),
        Text(row.problem),
        Text(row.pass_.replace("_", " ")),
        Text(row.before),
        Text(row.now, style="green" if changed else ""),
        f"{1e3 * row.seconds[row.now]:.3g}",
        "?" if row.gain is None else f"{row.gain:.2f}x" if changed else "",
        Text(", ".join(others), style="dim"),
    )
