"""Deformable convolutions that are measured, as both sides of a worker know them."""

import dataclasses

FORWARD, TRAIN = PASSES = ("forward", "train")

# Sizes and channels of the 3x3 layers of ResNets.
LAYERS = ((56, 64), (28, 128), (14, 256))

KERNEL = 3


@dataclasses.dataclass(frozen=True)
class Deformable:
    """A pass of a modulated deformable convolution, of 3x3 taps and as many filters.

    Attributes:
        size: Height and width of the images, which "same" padding keeps.
        channels: Int.
        batch: Int.
        pass_: `FORWARD`, or `TRAIN`, which has the gradients of all operands besides.
        dtype: String.
    """

    size: int
    channels: int
    batch: int
    pass_: str
    dtype: str = "float32"

    @property
    def shapes(self):
        """Shapes of images, kernel, offsets and mask, with the channels last."""
        grid, taps = (self.batch, self.size, self.size), KERNEL**2
        kernel = KERNEL, KERNEL, self.channels, self.channels
        return (*grid, self.channels), kernel, (*grid, 2 * taps), (*grid, taps)

    def __str__(self):
        size = f"{self.size}x{self.size}x{self.channels}"
        dtype = "" if self.dtype == "float32" else f", {self.dtype}"
        return f"{size}, batch {self.batch}{dtype}"

    def to_json(self):
        """As a dictionary of the constructor's arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, arguments):
        """The inverse of `to_json`."""
        return cls(**arguments)
