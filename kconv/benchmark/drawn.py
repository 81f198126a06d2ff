"""Convolutions drawn at random, of the kinds and sizes that image networks have."""

import dataclasses
import itertools
import math
import random

from kconv.benchmark.problems import DTYPES, PASSES
from kconv.spec import conv_spec

BATCHES = (1, 2, 4, 8, 16, 32)

# So many are looked through where only some are wanted.
MOST_DRAWN = 20_000

# Longer ones would take most of the time, and are the least in doubt.
_MOST_MACS = 6e9
_MOST_ELEMENTS = 3e7

_SIZES = (7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 224)
_CHANNELS = (8, 16, 24, 32, 48, 64, 80, 96, 128, 144, 160, 192, 240, 256, 320, 384, 512)
_MORE_CHANNELS = (*_CHANNELS, 576, 728, 960, 1024, 2048)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A pass of a convolution, as a Keras layer may ask for it.

    Attributes:
        kind: String, a key of `KINDS`.
        pass_: String, one of `PASSES`.
        dtype: String.
        input_shape: Tuple of ints.
        kernel_shape: Tuple of ints.
        strides: Int.
        padding: String.
        data_format: String.
        dilation_rate: Int.
    """

    kind: str
    pass_: str
    dtype: str
    input_shape: tuple
    kernel_shape: tuple
    strides: int = 1
    padding: str = "same"
    data_format: str = "channels_last"
    dilation_rate: int = 1

    def spec(self, algorithm):
        """The `ConvSpec`."""
        return conv_spec(
            self.input_shape,
            self.kernel_shape,
            self.strides,
            self.padding,
            self.data_format,
            self.dilation_rate,
            algorithm,
        )

    @property
    def is_too_small(self):
        """Whether the dilated kernel is larger than the image."""
        first = 1 if self.data_format == "channels_last" else 2
        reaches = ((k - 1) * self.dilation_rate + 1 for k in self.kernel_shape[:-2])
        return any(
            reach > size
            for reach, size in zip(reaches, self.input_shape[first:], strict=False)
        )

    @property
    def output_shape(self):
        """Tuple of ints."""
        return self.spec("auto").output_shape(self.input_shape, self.kernel_shape)

    @property
    def macs(self):
        """Multiply-accumulates, padding counted as work."""
        # Every output is a sum over the taps of its filter.
        return math.prod(self.output_shape) * math.prod(self.kernel_shape[:-1])

    def __str__(self):
        sizes = [
            "x".join(map(str, shape)) for shape in (self.input_shape, self.kernel_shape)
        ]
        words = [self.kind, self.pass_, f"{sizes[0]} * {sizes[1]}"]
        if self.strides > 1:
            words.append(f"stride {self.strides}")
        if self.dilation_rate > 1:
            words.append(f"dilation {self.dilation_rate}")
        if self.padding != "same":
            words.append(self.padding)
        if self.data_format == "channels_first":
            words.append(self.data_format)
        if self.dtype != "float32":
            words.append(self.dtype)
        return ", ".join(words)


def stream(seed, passes=PASSES, dtypes=None):
    """Draws problems without end.

    Args:
        seed: Int; the same one gives the same problems.
        passes: Names of passes to draw from.
        dtypes: Names of types to draw from; by default mostly float32.

    Yields:
        A `Drawn` of each kind in turn.
    """
    generator = random.Random(seed)
    for kind in itertools.cycle(KINDS):
        yield _fitting(generator, kind, passes, dtypes or _DTYPES)


def draw(seed, count, passes=PASSES, dtypes=None):
    """A list of the first `count` problems of `stream`."""
    return list(itertools.islice(stream(seed, passes, dtypes), count))


# Float32 is what nearly all train and serve with on a CPU.
_DTYPES = ("float32",) * 17 + DTYPES[1:]


def _fitting(generator, kind, passes, dtypes):
    while True:
        problem = _one(generator, kind, passes, dtypes)
        if problem.padding == "valid" and problem.is_too_small:
            continue
        elements = max(
            map(
                math.prod,
                (problem.input_shape, problem.kernel_shape, problem.output_shape),
            )
        )
        if problem.macs <= _MOST_MACS and 0 < elements <= _MOST_ELEMENTS:
            return problem


def _one(generator, kind, passes, dtypes):
    pick = generator.choice
    dims, options = KINDS[kind](pick)
    size, channels, kernel, filters, groups = (
        options.pop(name)
        for name in ("size", "channels", "kernel", "filters", "groups")
    )
    sizes = [size] * dims
    if dims == 2 and generator.random() < 0.2:
        sizes[1] = max(kernel, size * 3 // 4)  # images are not all square
    data_format = "channels_first" if generator.random() < 0.1 else "channels_last"
    batch = pick(BATCHES)
    last = data_format == "channels_last"
    return Drawn(
        kind,
        pick(passes),
        pick(dtypes),
        (batch, *sizes, channels) if last else (batch, channels, *sizes),
        (*[kernel] * dims, channels // groups, filters),
        data_format=data_format,
        **options,
    )


def _layer(pick, sizes, channels, kernels, groups=1, **options):
    """A layer with about so many channels as fit images of its size in a network."""
    size = pick(sizes)
    fitting = [c for c in channels if c * size <= 16384] or channels[:1]
    taken = pick(fitting)
    return {
        "size": size,
        "channels": taken,
        "filters": pick(_near(taken, fitting)),
        "kernel": pick(kernels),
        "groups": groups,
        **options,
    }


def _near(channels, among):
    """Numbers of filters that layers of so many channels have."""
    return [n for n in among if channels <= 6 * n and n <= 6 * channels] or [channels]


def _dense(pick):
    return 2, _layer(pick, _SIZES, _CHANNELS, (3,), padding=pick(("same", "valid")))


def _pointwise(pick):
    return 2, _layer(pick, _SIZES, _MORE_CHANNELS, (1,))


def _wide(pick):
    return 2, _layer(pick, _SIZES[4:], _CHANNELS[:12], (5, 7))


def _stem(pick):
    kernel, stride = pick(((3, 1), (3, 2), (5, 1), (7, 2), (11, 4), (4, 4), (16, 16)))
    sizes = [size for size in (*_SIZES[9:], 160, 192) if size >= 2 * kernel]
    layer = _layer(pick, sizes, _CHANNELS[:8], (kernel,), strides=stride)
    return 2, layer | {"channels": pick((1, 3, 3, 3, 4))}


def _strided(pick):
    return 2, _layer(pick, _SIZES[1:], _CHANNELS, (1, 2, 3, 3, 4, 5), strides=2)


def _dilated(pick):
    return 2, _layer(
        pick, _SIZES[4:], _CHANNELS, (3,), dilation_rate=pick((2, 3, 4, 6))
    )


def _depthwise(pick):
    kernel, stride = pick((3, 3, 3, 5, 5, 7, 9, 31)), pick((1, 1, 2))
    layer = _layer(pick, _SIZES, _MORE_CHANNELS[:-2], (kernel,), strides=stride)
    channels = layer["channels"]
    multiplier = pick((1, 1, 1, 1, 2))
    return 2, layer | {"groups": channels, "filters": channels * multiplier}


def _grouped(pick):
    layer = _layer(
        pick, _SIZES[:-1], _CHANNELS[1:], (1, 3, 3, 5), strides=pick((1, 1, 2))
    )
    channels = layer["channels"]
    groups = pick([g for g in (2, 3, 4, 8, 16, 32, 64) if channels % g == 0])
    if groups == channels:
        groups //= 2
    per_group = pick((1, 1, 1, 2))
    return 2, layer | {"groups": groups, "filters": channels * per_group}


def _one_dimension(pick):
    sizes = (64, 128, 256, 500, 1000, 2048, 4096, 8192, 16000)
    size, channels = pick(sizes), pick(_CHANNELS)
    dilation = pick((1, 1, 2, 4, 16))
    options = {"strides": 2} if dilation == 1 and pick((0, 0, 1)) else {}
    return 1, {
        "size": size,
        "channels": channels,
        "filters": pick(_near(channels, _CHANNELS)),
        "kernel": pick((1, 2, 3, 3, 5, 7, 9)),
        "groups": 1,
        "dilation_rate": dilation,
        "padding": pick(("same", "valid")),
        **options,
    }


def _three_dimensions(pick):
    kernel, stride = pick(((3, 1), (3, 1), (1, 1), (2, 2), (3, 2)))
    return 3, {
        "size": pick((8, 12, 16, 24, 32, 48)),
        "channels": pick((1, 4, 16, 32, 64, 96, 128)),
        "filters": pick((8, 16, 32, 64, 96, 128)),
        "kernel": kernel,
        "groups": 1,
        "strides": stride,
    }


# By name: a function of `random.choice` that returns the dimensions and the rest.
KINDS = {
    "3x3": _dense,
    "1x1": _pointwise,
    "depthwise": _depthwise,
    "strided": _strided,
    "grouped": _grouped,
    "stem": _stem,
    "5x5, 7x7": _wide,
    "dilated": _dilated,
    "1d": _one_dimension,
    "3d": _three_dimensions,
}
