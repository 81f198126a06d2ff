"""Whether a machine is quiet enough for its timings to be believed."""

import dataclasses
import os
import statistics
from pathlib import Path

from kconv.benchmark.candidates import spread

# More than this is too much: of the time of the processors, what the machine under this
# virtual one took, and what other programs used; of the times of a fixed piece of work,
# the spread, and the distance from the fastest tenth to the slowest over the median.
MOST_STOLEN = 0.01
MOST_OTHERS = 0.05
MOST_SPREAD = 0.05
MOST_SWING = 0.25

# Below this many samples of the work nothing is said of it, and below this many ticks
# of the processors nothing of their time.
_FEWEST_SAMPLES, _FEWEST_TICKS = 4, 50

_PROC = Path("/proc")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a `NoiseWatch` found; None for what could not be measured.

    Attributes:
        stolen: Part of the processors' time that went to other virtual machines.
        others: Part of it that other programs used.
        spread: Half the distance between the quartiles of the work's times, as a part
            of the median.
        swing: The distance between the first tenth and the last of them, likewise.
    """

    stolen: float | None
    others: float | None
    spread: float | None
    swing: float | None

    @property
    def reasons(self):
        """Why the timings are not to be believed: a list of phrases, or none."""
        measured = (
            ("{:.1%} of the processors' time was stolen", self.stolen, MOST_STOLEN),
            (
                "other programs used {:.1%} of the processors' time",
                self.others,
                MOST_OTHERS,
            ),
            ("the same work took ±{:.0%}", self.spread, MOST_SPREAD),
            ("and {:.0%} longer at times", self.swing, MOST_SWING),
        )
        return [
            f"{phrase.format(value)} (at most {most:.0%})"
            for phrase, value, most in measured
            if value is not None and value > most
        ]

    @property
    def is_quiet(self):
        """Whether nothing speaks against the timings; None if nothing was measured."""
        if all(v is None for v in dataclasses.astuple(self)):
            return None
        return not self.reasons

    def __str__(self):
        if self.is_quiet is None:
            return "Noise: not measured."
        if self.reasons:
            return f"Too noisy to believe: {'; '.join(self.reasons)}."
        parts = (
            ("stolen {:.1%}", self.stolen),
            ("other programs {:.1%}", self.others),
            ("the same work ±{:.1%}", self.spread),
        )
        told = [phrase.format(value) for phrase, value in parts if value is not None]
        return f"The machine was quiet: {', '.join(told)}."

    def to_json(self):
        """As a dictionary of plain values."""
        return {
            **dataclasses.asdict(self),
            "is_quiet": self.is_quiet,
            "reasons": self.reasons,
        }


class NoiseWatch:
    """Watches a machine while something is measured on it.

    Args:
        work: A function that does a fixed piece of work several times and returns the
            seconds of each.
        processes: A function that returns the ids of the processes that belong to the
            measurement, besides this one.
    """

    def __init__(self, work, processes=lambda: ()):
        self._work = work
        self._processes = processes
        self._medians, self._seconds = [], []
        self._last = None
        self._stolen = self._others = self._total = 0

    def sample(self):
        """Does the work, and counts the processors' time since the last sample."""
        seconds = self._work()
        self._seconds += seconds
        self._medians.append(statistics.median(seconds))
        own = [os.getpid(), *self._processes()]
        now = _processor_ticks(), {pid: _process_ticks(pid) for pid in own}
        if self._last and now[0] and self._last[0]:
            total, busy, stolen = (
                b - a for a, b in zip(self._last[0], now[0], strict=True)
            )
            # A process that has gone counts among its parent's children now.
            mine = sum(now[1].values()) - sum(self._last[1].values())
            self._total += total
            self._stolen += stolen
            # The two are not counted at the same moment.
            self._others += max(busy - max(mine, 0), 0)
        self._last = now

    def verdict(self):
        """What was found until now: a `Verdict`."""
        stolen = others = spread_ = swing = None
        if self._total >= _FEWEST_TICKS:
            stolen, others = self._stolen / self._total, self._others / self._total
        if len(self._medians) >= _FEWEST_SAMPLES:
            tenths = statistics.quantiles(self._medians, n=10, method="inclusive")
            spread_ = spread(self._seconds)
            swing = (tenths[-1] - tenths[0]) / statistics.median(self._medians)
        return Verdict(stolen, others, spread_, swing)


def _processor_ticks(path=_PROC / "stat"):
    """Ticks of the processors that this process may use: all, busy and stolen.

    None where there is no such file.
    """
    try:
        names = {f"cpu{i}" for i in os.sched_getaffinity(0)}
        words = [line.split() for line in path.read_text().splitlines()]
        rows = [[int(n) for n in row[1:9]] for row in words if row and row[0] in names]
        ticks = [sum(column) for column in zip(*rows, strict=True)]
        user, nice, system, idle, wait, interrupts, soft, stolen = ticks
    except (AttributeError, OSError, ValueError):
        return None
    busy = user + nice + system + interrupts + soft
    return busy + idle + wait + stolen, busy, stolen


def _process_ticks(pid):
    """Ticks of a process and of its children that have ended; zero if it is gone."""
    try:
        words = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0
    # The name, in brackets, may hold blanks.
    fields = words.rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))
