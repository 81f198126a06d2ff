"""What is measured: layers of well-known networks, in three passes."""

import dataclasses
import math

PASSES = ("forward", "input_gradient", "filter_gradient")
DTYPES = ("float32", "float64", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution of square images, padding "same"."""

    kernel: int
    size: int
    in_channels: int
    out_channels: int
    stride: int = 1
    groups: int = 1

    @property
    def kind(self):
        """What sort of layer: "depthwise", "grouped", or the kernel's size, "3x3"."""
        if self.groups == 1:
            return self.kernel_name
        return "depthwise" if self.groups == self.in_channels else "grouped"

    @property
    def kernel_name(self):
        """The kernel's size, "3x3"."""
        return f"{self.kernel}x{self.kernel}"

    @property
    def output_size(self):
        """Height and width of the output."""
        return -(-self.size // self.stride)

    @property
    def pads(self):
        """Pixels before and after, in height and in width: the odd one after."""
        needed = (self.output_size - 1) * self.stride + self.kernel - self.size
        total = max(needed, 0)
        return total // 2, total - total // 2

    @property
    def dense(self):
        """The layer of the same width in one group."""
        return dataclasses.replace(self, groups=1)

    def __str__(self):
        words = [f"{self.size}x{self.size} {self.in_channels}→{self.out_channels}"]
        if self.kind == "depthwise":
            words.append("dw")
        elif self.kind == "grouped":
            words.append(f"in {self.groups} groups")
        if self.stride > 1:
            words.append(f"stride {self.stride}")
        return " ".join(words)


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


def _depthwise(kernel, size, channels, stride=1):
    return Layer(kernel, size, channels, channels, stride, groups=channels)


# MobileNet, EfficientNet (5x5), ConvNeXt (7x7), and a kernel as RepLKNet has them.
LAYERS_DEPTHWISE = (
    _depthwise(3, 112, 32),
    _depthwise(3, 56, 128),
    _depthwise(3, 28, 256),
    _depthwise(3, 112, 64, stride=2),
    _depthwise(5, 28, 240),
    _depthwise(7, 56, 96),
    _depthwise(7, 14, 384),
    _depthwise(31, 28, 128),
)

# ResNeXt-50 and ShuffleNet.
LAYERS_GROUPED = (
    Layer(3, 56, 128, 128, groups=32),
    Layer(3, 14, 512, 512, groups=32),
    Layer(1, 28, 240, 240, groups=3),
)

# By kind, in the order of the report.
LAYERS = {
    "3x3": LAYERS_3X3,
    "1x1": LAYERS_1X1,
    "depthwise": LAYERS_DEPTHWISE,
    "grouped": LAYERS_GROUPED,
}
ALL = "all"


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
        """(height, width, in_channels // groups, out_channels)."""
        layer = self.layer
        channels = layer.in_channels // layer.groups
        return (layer.kernel, layer.kernel, channels, layer.out_channels)

    @property
    def output_shape(self):
        """(batch, height, width, channels) of the layer's output."""
        layer = self.layer
        return (self.batch, layer.output_size, layer.output_size, layer.out_channels)

    @property
    def macs(self):
        """Multiply-accumulates, padding counted as work."""
        # Every output is a sum over the taps of its filter.
        return math.prod(self.output_shape) * math.prod(self.filter_shape[:3])

    @property
    def dense(self):
        """The same pass of the layer of the same width in one group."""
        return dataclasses.replace(self, layer=self.layer.dense)

    def __str__(self):
        layer = self.layer
        return f"{layer.kernel_name} {layer}, batch {self.batch}, {self.pass_}"

    def to_json(self):
        """As a dictionary that `from_json` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields):
        """The problem that `to_json` wrote."""
        return cls(**{**fields, "layer": Layer(**fields["layer"])})


def make_problems(layers=ALL, batches=(1, 8), passes=PASSES, dtype="float32"):
    """Every pass of every layer at every batch size.

    Args:
        layers: A key of `LAYERS`, or `ALL`.
        batches: Batch sizes.
        passes: Names from `PASSES`.
        dtype: Name from `DTYPES`.

    Returns:
        A list of `Problem`, in the order of the report.
    """
    return [
        Problem(layer, batch, pass_, dtype)
        for kind in (LAYERS if layers == ALL else [layers])
        for batch in batches
        for pass_ in passes
        for layer in LAYERS[kind]
    ]
