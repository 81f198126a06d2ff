"""What is measured: layers of well-known networks, in three passes."""

import dataclasses

PASSES = ("forward", "input_gradient", "filter_gradient")
DTYPES = ("float32", "float64", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution of square images, stride 1, padding "same"."""

    kernel: int
    size: int
    in_channels: int
    out_channels: int

    @property
    def kind(self):
        """Name of the kernel's size, "3x3"."""
        return f"{self.kernel}x{self.kernel}"

    def __str__(self):
        return f"{self.size}x{self.size} {self.in_channels}→{self.out_channels}"


# VGG-16 and the 3x3 layers of ResNet.
LAYERS_3X3 = (
    Layer(3, 224, 64, 64),
    Layer(3, 112, 128, 128),
    Layer(3, 56, 256, 256),
    Layer(3, 28, 512, 512),
    Layer(3, 14, 512, 512),
    Layer(3, 56, 64, 64),
    Layer(3, 28, 128, 128),
    Layer(3, 14, 256, 256),
    Layer(3, 7, 512, 512),
)

# The 1x1 layers of ResNet-50.
LAYERS_1X1 = (
    Layer(1, 56, 64, 64),
    Layer(1, 56, 64, 256),
    Layer(1, 56, 256, 64),
    Layer(1, 28, 512, 128),
    Layer(1, 28, 128, 512),
    Layer(1, 14, 1024, 256),
    Layer(1, 14, 256, 1024),
    Layer(1, 7, 512, 2048),
    Layer(1, 7, 2048, 512),
)

LAYERS = {"3x3": LAYERS_3X3, "1x1": LAYERS_1X1, "all": LAYERS_3X3 + LAYERS_1X1}


@dataclasses.dataclass(frozen=True)
class Problem:
    """One pass of a layer on a batch."""

    layer: Layer
    batch: int
    pass_: str
    dtype: str = "float32"

    @property
    def input_shape(self):
        """(batch, height, width, channels) of the layer's input."""
        layer = self.layer
        return (self.batch, layer.size, layer.size, layer.in_channels)

    @property
    def filter_shape(self):
        """(height, width, in_channels, out_channels)."""
        layer = self.layer
        return (layer.kernel, layer.kernel, layer.in_channels, layer.out_channels)

    @property
    def output_shape(self):
        """(batch, height, width, channels) of the layer's output."""
        return (*self.input_shape[:3], self.layer.out_channels)

    @property
    def macs(self):
        """Multiply-accumulates, padding counted as work."""
        layer = self.layer
        pixels = self.batch * layer.size**2
        return pixels * layer.kernel**2 * layer.in_channels * layer.out_channels

    def __str__(self):
        layer = self.layer
        return f"{layer.kind} {layer}, batch {self.batch}, {self.pass_}"

    def to_json(self):
        """As a dictionary that `from_json` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields):
        """The problem that `to_json` wrote."""
        return cls(**{**fields, "layer": Layer(**fields["layer"])})


def make_problems(layers="all", batches=(1, 8), passes=PASSES, dtype="float32"):
    """Every pass of every layer at every batch size.

    Args:
        layers: "3x3", "1x1" or "all".
        batches: Batch sizes.
        passes: Names from `PASSES`.
        dtype: Name from `DTYPES`.

    Returns:
        A list of `Problem`, in the order of the report.
    """
    return [
        Problem(layer, batch, pass_, dtype)
        for kind in ("3x3", "1x1")
        for batch in batches
        for pass_ in passes
        for layer in LAYERS[layers]
        if layer.kind == kind
    ]
