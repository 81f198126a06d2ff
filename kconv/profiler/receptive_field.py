"""Which pixels of the inputs an output sees: the arithmetic of receptive fields.

All of it is exact: along an axis an output sees the pixels from `low` to `high`, and
both are known for each output of a period. Convolutions keep a period of one output;
upsampling by 2 makes it 2, for there pairs of outputs see the same.

With a period of one, a window of k taps, stride s and dilation d on top of a field of
size R and stride S gives the size R + (k - 1) d S and the stride s S.

Source: Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural
Networks", Distill, 2019.
"""

import functools
import math
from fractions import Fraction
from typing import NamedTuple

# Of more distinct fields than this only the extremes are kept.
MOST_PATHS = 128


class Axis(NamedTuple):
    """What outputs see along one axis of an input.

    Attributes:
        step: Int, pixels from what an output sees to what the same output of the next
            period does; 0 if all see the same.
        lows: Tuple of ints, the first pixel that each output of a period sees; None
            for one that sees nothing.
        highs: The same of the last pixels.
    """

    step: int
    lows: tuple
    highs: tuple

    @property
    def size(self):
        """The most pixels that an output sees."""
        pairs = zip(self.lows, self.highs, strict=True)
        return max((b - a + 1 for a, b in pairs if a is not None), default=0)

    @property
    def stride(self):
        """Pixels from what an output sees to what the next one does."""
        return Fraction(self.step, len(self.lows))

    @property
    def centre(self):
        """The pixel in the middle of what output 0 sees; may be negative."""
        if self.lows[0] is None:
            return None
        return Fraction(self.lows[0] + self.highs[0], 2)

    def bounds(self, index):
        """First and last pixel that an output sees, or (None, None)."""
        periods, index = divmod(index, len(self.lows))
        if self.lows[index] is None:
            return None, None
        moved = periods * self.step
        return self.lows[index] + moved, self.highs[index] + moved

    def hull(self, indices):
        """First and last pixel that several outputs see, or (None, None)."""
        bounds = [self.bounds(index) for index in indices]
        return (
            min((low for low, _ in bounds if low is not None), default=None),
            max((high for _, high in bounds if high is not None), default=None),
        )


IDENTITY = Axis(1, (0,), (0,))


def gather(axis, indices, period, advance):
    """The field of something on top of another.

    Args:
        axis: `Axis` of what it reads.
        indices: Function from the index of an output to the indices that it reads.
        period: Int, outputs after which the same repeats ...
        advance: ... so many indices further on.

    Returns:
        An `Axis`.
    """
    if axis.step == 0 and len(axis.lows) == 1:
        return axis  # everything, already
    below = len(axis.lows)
    periods = below // math.gcd(below, advance)
    hulls = [axis.hull(indices(index)) for index in range(period * periods)]
    lows, highs = zip(*hulls, strict=True)
    return _shortest(Axis(axis.step * (advance * periods // below), lows, highs))


def _shortest(axis):
    """The same field with the shortest period."""
    length = len(axis.lows)
    for period in range(1, length):
        if length % period or axis.step % (length // period):
            continue
        step = axis.step // (length // period)
        short = Axis(step, axis.lows[:period], axis.highs[:period])
        pairs = zip(axis.lows, axis.highs, strict=True)
        if all(short.bounds(n) == pair for n, pair in enumerate(pairs)):
            return short
    return axis


@functools.lru_cache(maxsize=65536)
def window(axis, taps, stride=1, dilation=1, before=0):
    """The field of a convolution or pooling, with `before` pixels of padding."""

    def indices(index):
        first = index * stride - before
        return range(first, first + taps * dilation, dilation)

    return gather(axis, indices, 1, stride)


@functools.lru_cache(maxsize=65536)
def transposed(axis, taps, stride=1, dilation=1, before=0):
    """The field of a transposed convolution, `before` outputs of which are cut off.

    Input i reaches the outputs i * stride + tap * dilation - before.
    """

    def indices(index):
        places = (index + before - tap * dilation for tap in range(taps))
        return [place // stride for place in places if place % stride == 0]

    return gather(axis, indices, stride, 1)


@functools.lru_cache(maxsize=65536)
def enlarged(axis, factor, reach=0):
    """The field of an interpolation by a whole factor.

    Args:
        axis: `Axis` of what it reads.
        factor: Int.
        reach: Int, pixels read on each side of the place of an output: 0 for the
            nearest pixel, 1 for linear interpolation, 2 for cubic.

    Returns:
        An `Axis`.
    """

    def indices(index):
        if not reach:
            return (index // factor,)
        # The place of an output is (index + 1/2) / factor - 1/2.
        place, rest = divmod(2 * index + 1 - factor, 2 * factor)
        return range(place - reach + 1, place + reach + 1) if rest else (place,)

    return gather(axis, indices, factor, 1)


@functools.lru_cache(maxsize=65536)
def everything(axis, size):
    """The field of what reads all of so many positions."""
    period = len(axis.lows)
    ends = {*range(min(size, period)), *range(max(size - period, 0), size)}
    low, high = axis.hull(ends)
    return Axis(0, (low,), (high,))


class Path(NamedTuple):
    """What a tensor sees of one input along one kind of way through the model.

    Attributes:
        source: Int, the index of the input.
        axes: Tuple of `Axis`, one for each spatial axis of the input.
        places: Tuple of ints, the axis of the tensor along which that moves; None where
            all of the tensor sees the same.
        moved: Frozenset of ints, the axes whose pixels were shuffled: which of those
            that `axes` tells an element sees is not known.
    """

    source: int
    axes: tuple
    places: tuple
    moved: frozenset = frozenset()

    def change(self, axis, field, place, moved=None):
        """The path with one axis of the input replaced."""
        changed = self.moved if moved is None else self.moved - {axis}
        return Path(
            self.source,
            (*self.axes[:axis], field, *self.axes[axis + 1 :]),
            (*self.places[:axis], place, *self.places[axis + 1 :]),
            changed | {axis} if moved else changed,
        )


class Fields(NamedTuple):
    """All distinct paths to a tensor.

    Attributes:
        paths: Frozenset of `Path`.
        merged: Int, how many more were merged on the way, which lie between these.
    """

    paths: frozenset = frozenset()
    merged: int = 0

    def map(self, function):
        """The fields with each path replaced by what the function makes of it."""
        return limited(frozenset(map(function, self.paths)), self.merged)

    def along(self, function, axes):
        """Replaces what is seen along axes of the tensor.

        Args:
            function: Function from an `Axis` and the axis of the tensor to an `Axis`.
            axes: Ints, axes of the tensor.

        Returns:
            `Fields`.
        """

        def changed(path):
            for n, place in enumerate(path.places):
                if place in axes and n not in path.moved:
                    path = path.change(n, function(path.axes[n], place), place)
            return path

        return self.map(changed)

    def collapse(self, shape, axes):
        """What sees everything along axes of a tensor of this shape."""

        def changed(path):
            for n, place in enumerate(path.places):
                if place in axes:
                    field = path.axes[n]
                    if n not in path.moved:
                        field = everything(field, shape[place])
                    path = path.change(n, field, None, moved=False)
            return path

        return self.map(changed)

    def collapse_all(self, shape):
        """What sees everything of a tensor of this shape."""
        found = self.collapse(shape, range(len(shape)))
        return found.map(lambda path: path._replace(moved=frozenset()))

    def shuffle(self, shape):
        """What sees nobody knows which part of a tensor of this shape."""

        def changed(path):
            for n, place in enumerate(path.places):
                if place is not None:
                    field = path.axes[n]
                    if n not in path.moved:
                        field = everything(field, shape[place])
                    path = path.change(n, field, None, moved=True)
            return path

        return self.map(changed)

    def place(self, places):
        """The fields with axes of the tensor renamed, by a dictionary or a list."""
        return self.map(
            lambda path: path._replace(
                places=tuple(None if p is None else places[p] for p in path.places)
            )
        )


def source(index, spatial):
    """The fields of an input itself, with these of its axes being spatial."""
    axes = (IDENTITY,) * len(spatial)
    return Fields(frozenset([Path(index, axes, tuple(spatial))]))


def union(fields):
    """The fields of what reads several tensors."""
    fields = list(fields)
    if len(fields) == 1:
        return fields[0]
    paths = frozenset().union(*(one.paths for one in fields))
    return limited(paths, max((one.merged for one in fields), default=0))


def limited(paths, merged):
    """`Fields` of these paths, or of their extremes if there are too many."""
    if len(paths) <= MOST_PATHS:
        return Fields(paths, merged)
    groups = {}
    for path in paths:
        key = path.source, path.places, path.moved
        groups.setdefault(key, []).append(path)
    kept = set()
    for group in groups.values():
        group.sort(key=_order)
        for n in range(len(group[0].axes)):
            for measure in (_size, _first, _last):
                measures = [measure(path.axes[n]) for path in group]
                for end in (min(measures), max(measures)):
                    kept.add(group[measures.index(end)])
    return Fields(frozenset(kept), merged + len(paths) - len(kept))


def _order(path):
    return [(axis.size, _first(axis)) for axis in path.axes]


def _size(axis):
    return axis.size


def _first(axis):
    return min((low for low in axis.lows if low is not None), default=0)


def _last(axis):
    return max((high for high in axis.highs if high is not None), default=0)
