"""Whole models that are measured: what they are, as both sides of a worker know it."""

import dataclasses
import pathlib

# What a call does.
PREDICT, TRAIN = PASSES = ("predict", "train")

DTYPES = ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Subject:
    """A pass of a model over a batch.

    Attributes:
        model: A name of `kconv.models`, or the path of a file that Keras saved.
        pass_: `PREDICT` or `TRAIN`.
        batch: Images of a call.
        size: Height and width of images; None for what the model knows.
        dtype: Name of a dtype policy of Keras; None for those of a file.
        layout: "channels_last" or "channels_first"; a file has its own.
        folder: Where the model is kept while it is measured.
    """

    model: str
    pass_: str
    batch: int
    size: int | None = None
    dtype: str | None = None
    layout: str = "channels_last"
    folder: str = ""

    @property
    def is_file(self):
        """Whether the model is that of a file."""
        path = pathlib.Path(self.model)
        return path.suffix in (".keras", ".h5") or path.is_file()

    @property
    def name(self):
        """The name of the model, for the report."""
        return pathlib.Path(self.model).stem if self.is_file else self.model

    def path(self, name):
        """A file of the model: "stock.keras", "kconv.keras", "frozen.pb" and so on."""
        return str(pathlib.Path(self.folder) / name)

    def __str__(self):
        words = [self.name, self.pass_, f"batch {self.batch}"]
        if self.size:
            words.append(f"{self.size}x{self.size}")
        if self.dtype not in (None, "float32"):
            words.append(self.dtype)
        if self.layout != "channels_last":
            words.append(self.layout)
        return ", ".join(words)

    def to_json(self):
        """As a dictionary of the constructor's arguments."""
        return dataclasses.asdict(self)
