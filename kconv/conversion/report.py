"""What was swapped in a model, and what was left and why."""

from typing import NamedTuple


class Row(NamedTuple):
    """A layer or an operation of a model.

    Attributes:
        path: String, the names of the layers that it is in, and its own, joined by
            slashes. A layer that is in several has the path that comes first.
        class_name: String, what it was, such as `"keras.layers.Conv2D"`.
        became: String, what it is now, or None if it was left.
        reason: String, the sentence why it was left, or None if it was not.
    """

    path: str
    class_name: str
    became: str | None
    reason: str | None


class Report(tuple):
    """What `kconv.convert` or `kconv.revert` did, a tuple of `Row`.

    `str()` of it is a table.
    """

    __slots__ = ()

    @property
    def swapped(self):
        """Tuple of the rows that became something else."""
        return tuple(row for row in self if row.became)

    @property
    def left(self):
        """Tuple of the rows that were left as they were."""
        return tuple(row for row in self if not row.became)

    def __str__(self):
        table = [("path", "was", "became")]
        table += [(row.path, row.class_name, row.became or "-") for row in self]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        reasons = ["why it was left", *(row.reason or "" for row in self)]
        lines = [
            "  ".join([*map(str.ljust, cells, widths), reason]).rstrip()
            for cells, reason in zip(table, reasons, strict=True)
        ]
        lines.append(f"{len(self.swapped)} swapped, {len(self.left)} left.")
        return "\n".join(lines)


def public_name(something):
    """Returns the name under which users know the class of a layer or an operation.

    Args:
        something: An operation, such as a layer.

    Returns:
        String.
    """
    kind = type(something)
    package = kind.__module__.partition(".")[0]
    if package not in ("keras", "kconv"):
        return f"{kind.__module__}.{kind.__qualname__}"
    # Classes of Keras's operations have no public names.
    room = "layers" if hasattr(something, "weights") else "ops"
    return f"{package}.{room}.{kind.__name__}"
