"""What `kconv.profile` finds: rows, their total, and their ways into files."""

import csv
import dataclasses
import json
from fractions import Fraction

from kconv.profiler.algorithms import Refusal
from kconv.profiler.wording import shape_text, shapes_of


@dataclasses.dataclass(frozen=True)
class ReceptiveField:
    """The pixels of an input that an output sees along one kind of path.

    Attributes:
        input: String, the name of the input.
        size: Tuple of ints, pixels along each spatial axis of the input.
        stride: Tuple of ints or Fractions, pixels from what an output sees to what the
            next one does; 0 if all outputs see the same.
        centre: Tuple of ints or Fractions, the middle of what output 0 sees, in pixels
            from the first one, which is 0. It may lie on the padding, and be negative.
    """

    input: str
    size: tuple
    stride: tuple
    centre: tuple

    def __str__(self):
        sizes = self.size[:1] if len(set(self.size)) == 1 else self.size
        return "x".join(map(str, sizes))


@dataclasses.dataclass(frozen=True)
class LayerProfile:
    """One call of a layer or an operation.

    Attributes:
        name: String, its name after those of the layers that hold it, with slashes.
        kind: String, its class.
        output_shape: Tuple of ints with the batch; a tuple of those if there are
            several outputs, and empty if there is none.
        parameters: Int, weights that no row above has counted.
        trainable_parameters: Int, those of them that are trained.
        macs: Int, multiply-accumulates of the batch; None if not counted.
        activation_bytes: Int, of the outputs.
        weight_bytes: Int, of the weights that `parameters` counts.
        intensity: Float, two operations a MAC over the bytes of inputs, weights and
            outputs, in FLOP/byte; None if `macs` is.
        receptive_fields: Tuple of `ReceptiveField`, the distinct ones of all paths from
            the inputs, smallest first; None if unknown; empty if it sees no place.
        merged_fields: Int, how many more were merged on the way; they lie between
            these, and the extremes are kept.
        algorithms: Dictionary from a pass to the algorithm that kconv takes; empty if
            it convolves nothing.
        multiplications: Dictionary from a pass to the multiplications of its products
            by that algorithm; None if not counted.
        note: String, what is to be said of the row.
    """

    name: str
    kind: str
    output_shape: tuple
    parameters: int
    trainable_parameters: int
    macs: int | None
    activation_bytes: int
    weight_bytes: int
    intensity: float | None
    receptive_fields: tuple | None
    merged_fields: int
    algorithms: dict
    multiplications: dict
    note: str

    @property
    def receptive_field(self):
        """String, the size, such as `"5"`, `"3-7"` over all paths or `"3x5"`."""
        if self.receptive_fields is None:
            return "unknown"
        if not self.receptive_fields:
            return ""
        dims = {len(field.size) for field in self.receptive_fields}
        if len(dims) > 1:
            texts = [str(field) for field in self.receptive_fields]
            return ", ".join(dict.fromkeys((texts[0], texts[-1])))
        sizes = list(zip(*(field.size for field in self.receptive_fields), strict=True))
        texts = [_range(min(axis), max(axis)) for axis in sizes]
        return texts[0] if len(set(texts)) == 1 else " x ".join(texts)


@dataclasses.dataclass(frozen=True)
class Total:
    """All rows together.

    Attributes:
        parameters: Int, as `model.count_params()`.
        trainable_parameters: Int.
        macs: Int, of all rows that are counted.
        uncounted: Int, the rows whose work is not counted.
        activation_bytes: Int, of all outputs: what training holds.
        peak_bytes: Int, the most of inputs and outputs that is alive at once in
            inference, if each is freed after what reads it last.
        weight_bytes: Int.
        multiplications: Dictionary from a pass to the multiplications of all rows that
            are counted, by the algorithms that kconv takes.
    """

    parameters: int
    trainable_parameters: int
    macs: int
    uncounted: int
    activation_bytes: int
    peak_bytes: int
    weight_bytes: int
    multiplications: dict

    def saved(self, pass_=None):
        """Float, MACs over the multiplications of a pass, by default of the first."""
        left = self.multiplications[pass_ or next(iter(self.multiplications))]
        return self.macs / left if left else 1.0


@dataclasses.dataclass(frozen=True)
class Profile:
    """What a model costs, layer by layer. `str()` of it is a table.

    Attributes:
        name: String, of the model.
        input_shapes: Dictionary from the name of an input to its shape with the batch.
        passes: Tuple of strings, the passes that `algorithms` tells of.
        layers: Tuple of `LayerProfile`, in the order of the calls.
        total: A `Total`.
        refusals: Tuple of `Refusal`, each algorithm that does not take a convolution;
            empty unless asked for.
    """

    name: str
    input_shapes: dict
    passes: tuple
    layers: tuple
    total: Total
    refusals: tuple[Refusal, ...] = ()

    def __str__(self):
        from kconv.profiler.table import text

        return text(self)

    def show(self):
        """Prints the table, with colours where the terminal has them."""
        from kconv.profiler.table import show

        show(self)

    def to_dict(self):
        """Returns all of it as dictionaries, lists, strings and numbers, as in JSON."""
        return {
            "name": self.name,
            "input_shapes": {k: list(v) for k, v in self.input_shapes.items()},
            "passes": list(self.passes),
            "layers": [_plain(row) for row in self.layers],
            "total": _plain(self.total),
            "refusals": [_plain(refusal) for refusal in self.refusals],
        }

    def to_json(self, path):
        """Writes `to_dict()` to a file.

        Args:
            path: String or path.
        """
        with open(path, "w", encoding="utf-8") as file:
            json.dump(self.to_dict(), file, indent=1)
            file.write("\n")

    def to_csv(self, path):
        """Writes a line for each layer, and one for the total, to a file.

        Args:
            path: String or path.
        """
        lines = [self._line(row) for row in self.layers]
        total = {k: v for k, v in vars(self.total).items() if k in _COLUMNS}
        total |= _by_pass("multiplications", self.total.multiplications, self.passes)
        names = [*_COLUMNS]
        for name in ("algorithm", "multiplications"):
            names += [f"{name}_{pass_}" for pass_ in self.passes]
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*names, "note"])
            writer.writeheader()
            writer.writerows([*lines, {"name": "total", **total}])

    def _line(self, row):
        line = {name: getattr(row, name) for name in _COLUMNS}
        line["output_shape"] = " ".join(shape_text(s) for s in shapes_of(row))
        line |= _by_pass("algorithm", row.algorithms, self.passes)
        line |= _by_pass("multiplications", row.multiplications, self.passes)
        return {**line, "note": row.note}

    def plot(self, path):
        """Draws work, parameters and receptive fields by layer into a file.

        Args:
            path: String or path, whose suffix says the format, such as `.png`.

        Raises:
            ModuleNotFoundError: If matplotlib is missing.
        """
        from kconv.profiler.plot import draw

        draw(self, path)


_COLUMNS = (
    *("name", "kind", "output_shape", "parameters", "trainable_parameters", "macs"),
    *("activation_bytes", "weight_bytes", "intensity", "receptive_field"),
)


def _by_pass(name, values, passes):
    return {f"{name}_{pass_}": values.get(pass_) for pass_ in passes}


def _range(low, high):
    return str(low) if low == high else f"{low}-{high}"


def _plain(value):
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name.rstrip("_"): _plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Fraction):
        return float(value)
    return value
