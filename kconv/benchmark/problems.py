"""What is measured: layers of well-known networks, in three passes."""

import dataclasses
import math

PASSES = ("forward", "input_gradient", "filter_gradient")
DTYPES = ("float32", "float64", "bfloat16", "float16")
LAYOUTS = ("channels_last", "channels_first")


_BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}


# Taps an axis from which on a kernel is a large one.
_LARGE = 7


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution alike along all axes: padding "same", in one dimension "causal".

    `size` and `kernel` are those of an axis.
    """

    kernel: int
    size: int
    in_channels: int
    out_channels: int
    stride: int = 1
    groups: int = 1
    dims: int = 2
    dilation: int = 1

    @property
    def kind(self):
        """What sort of layer: a key of `LAYERS`."""
        if self.dims != 2:
            return f"{self.dims}d"
        if self.groups == 1:
            if self.stride > 1:
                return "strided"
            return "large" if self.kernel >= _LARGE else self.kernel_name
        return "depthwise" if self.groups == self.in_channels else "grouped"

    @property
    def kernel_name(self):
        """The kernel's size, "3x3"."""
        return "x".join([str(self.kernel)] * self.dims)

    @property
    def padding(self):
        """The name of the padding."""
        return "causal" if self.dims == 1 else "same"

    @property
    def output_size(self):
        """Size of the output along each axis."""
        return -(-self.size // self.stride)

    @property
    def pads(self):
        """Pixels before and after, along each axis: the odd one after."""
        reach = (self.kernel - 1) * self.dilation + 1
        if self.padding == "causal":
            return reach - 1, 0
        total = max((self.output_size - 1) * self.stride + reach - self.size, 0)
        return total // 2, total - total // 2

    @property
    def dense(self):
        """The layer of the same width in one group."""
        return dataclasses.replace(self, groups=1)

    def __str__(self):
        size = "x".join([str(self.size)] * self.dims)
        words = [f"{size} {self.in_channels}→{self.out_channels}"]
        if self.kind == "depthwise":
            words.append("dw")
        elif self.kind == "grouped":
            words.append(f"in {self.groups} groups")
        if self.stride > 1:
            words.append(f"stride {self.stride}")
        if self.dilation > 1:
            words.append(f"dilation {self.dilation}")
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


# MobileNet, EfficientNet (5x5), ConvNeXt (7x7), and kernels as RepLKNet and SLaK have
# them.
LAYERS_DEPTHWISE = (
    _depthwise(3, 112, 32),
    _depthwise(3, 56, 128),
    _depthwise(3, 28, 256),
    _depthwise(3, 112, 64, stride=2),
    _depthwise(5, 28, 240),
    _depthwise(7, 56, 96),
    _depthwise(7, 14, 384),
    _depthwise(13, 56, 96),
    _depthwise(51, 56, 64),
    _depthwise(31, 28, 128),
)

# Dense kernels of 7 taps and more, which the algorithm "fft" is for.
LAYERS_LARGE = (
    Layer(7, 56, 64, 64),
    Layer(7, 14, 256, 256),
    Layer(9, 56, 64, 64),
    Layer(11, 28, 128, 128),
    Layer(17, 56, 64, 64),
    Layer(31, 28, 64, 64),
)

# ResNeXt-50 and ShuffleNet.
LAYERS_GROUPED = (
    Layer(3, 56, 128, 128, groups=32),
    Layer(3, 14, 512, 512, groups=32),
    Layer(1, 28, 240, 240, groups=3),
)

# The downsampling layers of DCGAN and pix2pix (4x4), of ResNet and of U-Nets. The input
# gradient is the transposed convolution that takes the image up again.
LAYERS_STRIDED = (
    Layer(4, 128, 64, 128, stride=2),
    Layer(4, 64, 64, 128, stride=2),
    Layer(4, 32, 128, 256, stride=2),
    Layer(4, 16, 256, 512, stride=2),
    Layer(4, 8, 512, 1024, stride=2),
    Layer(3, 128, 64, 64, stride=2),
    Layer(3, 56, 64, 128, stride=2),
    Layer(3, 56, 128, 128, stride=2),
    Layer(3, 28, 256, 256, stride=2),
    Layer(3, 14, 512, 512, stride=2),
    Layer(2, 128, 64, 128, stride=2),
    Layer(2, 64, 128, 256, stride=2),
    Layer(2, 32, 256, 512, stride=2),
)


def _causal(kernel, channels, dilation, size=8192):
    return Layer(kernel, size, channels, channels, dims=1, dilation=dilation)


# WaveNet.
LAYERS_1D = (
    *(_causal(2, 32, dilation) for dilation in (1, 16, 512)),
    *(_causal(2, 64, dilation) for dilation in (1, 16, 512)),
    *(_causal(3, 128, dilation) for dilation in (1, 16, 512)),
)

# 3D U-Net.
LAYERS_3D = (
    Layer(3, 32, 16, 32, dims=3),
    Layer(3, 16, 64, 64, dims=3),
    Layer(3, 32, 32, 64, stride=2, dims=3),
    Layer(3, 16, 64, 128, stride=2, dims=3),
    Layer(2, 32, 32, 64, stride=2, dims=3),
)

# By kind, in the order of the report.
LAYERS = {
    "3x3": LAYERS_3X3,
    "1x1": LAYERS_1X1,
    "large": LAYERS_LARGE,
    "depthwise": LAYERS_DEPTHWISE,
    "grouped": LAYERS_GROUPED,
    "strided": LAYERS_STRIDED,
    "1d": LAYERS_1D,
    "3d": LAYERS_3D,
}
ALL = "all"


@dataclasses.dataclass(frozen=True)
class Problem:
    """One pass of a layer on a batch.

    Shapes are those of channels_last; `arranged` makes them those of the layout.
    """

    layer: Layer
    batch: int
    pass_: str
    dtype: str = "float32"
    layout: str = "channels_last"

    @property
    def input_shape(self):
        """(batch, *size, channels) of the layer's input."""
        layer = self.layer
        return (self.batch, *[layer.size] * layer.dims, layer.in_channels)

    @property
    def filter_shape(self):
        """(*kernel, in_channels // groups, out_channels)."""
        layer = self.layer
        channels = layer.in_channels // layer.groups
        return (*[layer.kernel] * layer.dims, channels, layer.out_channels)

    @property
    def output_shape(self):
        """(batch, *size, channels) of the layer's output."""
        layer = self.layer
        return (self.batch, *[layer.output_size] * layer.dims, layer.out_channels)

    @property
    def macs(self):
        """Multiply-accumulates, padding counted as work."""
        # Every output is a sum over the taps of its filter.
        return math.prod(self.output_shape) * math.prod(self.filter_shape[:-1])

    @property
    def intensity(self):
        """Operations for each byte of the three operands, a product and a sum two."""
        shapes = self.input_shape, self.filter_shape, self.output_shape
        elements = sum(math.prod(shape) for shape in shapes)
        return 2 * self.macs / (elements * _BYTES[self.dtype])

    def arranged(self, shape):
        """The shape of an image in the layout."""
        return channels_first(shape) if self.layout == "channels_first" else shape

    @property
    def dense(self):
        """The same pass of the layer of the same width in one group."""
        return dataclasses.replace(self, layer=self.layer.dense)

    def __str__(self):
        layer = self.layer
        words = f"{layer.kernel_name} {layer}, batch {self.batch}, {self.pass_}"
        last = self.layout == "channels_last"
        return words if last else f"{words}, {self.layout}"

    def to_json(self):
        """As a dictionary that `from_json` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields):
        """The problem that `to_json` wrote."""
        return cls(**{**fields, "layer": Layer(**fields["layer"])})


def make_problems(
    layers=(ALL,), batches=(1, 8), passes=PASSES, dtype="float32", layouts=LAYOUTS[:1]
):
    """Every pass of every layer at every batch size.

    Args:
        layers: Keys of `LAYERS`, or `ALL`.
        batches: Batch sizes.
        passes: Names from `PASSES`.
        dtype: Name from `DTYPES`.
        layouts: Names from `LAYOUTS`.

    Returns:
        A list of `Problem`, in the order of the report.
    """
    kinds = LAYERS if ALL in layers else [kind for kind in LAYERS if kind in layers]
    return [
        Problem(layer, batch, pass_, dtype, layout)
        for kind in kinds
        for layout in layouts
        for batch in batches
        for pass_ in passes
        for layer in LAYERS[kind]
    ]


def channels_first(shape):
    """The shape (batch, *size, channels) as (batch, channels, *size)."""
    batch, *size, channels = shape
    return batch, channels, *size
