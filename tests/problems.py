"""The problems that the tests of kernels share."""

import contextlib
import dataclasses
import functools

import ml_dtypes
import numpy as np
import pytest
import reference
import tiling

from kconv import native

PASSES = ("forward", "input_gradient", "filter_gradient")
DTYPES = {
    "float32": np.float32,
    "float64": np.float64,
    "bfloat16": ml_dtypes.bfloat16,
    "float16": np.float16,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One convolution. Strides, dilation and padding default to 1, 1 and 0."""

    input_size: tuple
    kernel_size: tuple
    in_channels: int
    out_channels: int
    batch: int = 1
    groups: int = 1
    strides: tuple = None
    dilation_rate: tuple = None
    padding: tuple = None
    layout: str = "channels_last"

    def __post_init__(self):
        """Fills in the defaults, one for each dimension."""
        defaults = {"strides": 1, "dilation_rate": 1, "padding": (0, 0)}
        for field, default in defaults.items():
            if getattr(self, field) is None:
                object.__setattr__(self, field, (default,) * len(self.input_size))

    @property
    def options(self):
        """What the functions of reference.py take beside arrays and shapes."""
        names = ("strides", "dilation_rate", "padding", "groups", "layout")
        return {name: getattr(self, name) for name in names}

    @property
    def output_size(self):
        """Number of output positions along each axis."""
        axes = zip(
            self.input_size,
            self.kernel_size,
            self.strides,
            self.dilation_rate,
            self.padding,
            strict=True,
        )
        return tuple(reference.output_size(*axis, *pads) for *axis, pads in axes)

    @property
    def input_shape(self):
        """Shape of the input."""
        return self._tensor(self.input_size, self.in_channels)

    @property
    def filter_shape(self):
        """Shape of the filter."""
        of_group = self.in_channels // self.groups
        return (*self.kernel_size, of_group, self.out_channels)

    @property
    def output_shape(self):
        """Shape of the output."""
        return self._tensor(self.output_size, self.out_channels)

    def _tensor(self, size, channels):
        if self.layout == "channels_first":
            return (self.batch, channels, *size)
        return (self.batch, *size, channels)

    def problem(self, core, pass_, dtype="float32", **epilogue):
        """The same as a Problem of the compiled module."""
        return core.Problem(pass_, **dataclasses.asdict(self), dtype=dtype, **epilogue)

    def operands(self, pass_, dtype="float32", seed=0):
        """Random operands of a pass, in the order that `Problem.run` takes them."""
        x, w, dy = self.input_shape, self.filter_shape, self.output_shape
        shapes = {
            "forward": (x, w),
            "input_gradient": (dy, w),
            "filter_gradient": (x, dy),
        }
        rng = np.random.default_rng(seed)
        return tuple(
            rng.standard_normal(shape, np.float32).astype(DTYPES[dtype])
            for shape in shapes[pass_]
        )

    def bias(self, dtype="float32", seed=0, pass_="forward"):
        """A random bias for the image that a pass writes."""
        rng = np.random.default_rng((seed, 1))
        forward = pass_ == "forward"
        channels = self.out_channels if forward else self.in_channels
        return rng.standard_normal(channels, np.float32).astype(DTYPES[dtype])

    def finished(self, expected, bias, activation):
        """What becomes of `judged`'s (exact, magnitude) with an epilogue.

        Neither activation moves two values further apart: the errors of the sums are
        all that there is.
        """
        exact, magnitude = expected
        if bias is not None:
            size = np.abs(np.asarray(bias, np.float64))
            magnitude = reference.finish(magnitude, size, "linear", self.layout)
        return reference.finish(exact, bias, activation, self.layout), magnitude

    def exact(self, pass_, a, b):
        """The reference's result of a pass."""
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if pass_ == "forward":
            return reference.conv(a, b, **self.options)
        if pass_ == "input_gradient":
            return reference.input_gradient(self.input_shape, b, a, **self.options)
        return reference.filter_gradient(a, self.filter_shape, b, **self.options)


@contextlib.contextmanager
def naming(*what):
    """Puts before a failure what a test of many kernels was at, as an algorithm."""
    try:
        yield
    except (Exception, pytest.fail.Exception) as error:
        raise AssertionError(f"{', '.join(map(str, what))}: {error}") from error


def magnitude(algorithm, case, pass_, a, b, of_plain_sum):
    """What `reference.assert_accurate` wants for an algorithm.

    Args:
        algorithm: The name of one, not of a family or mode.
        case: A `Case`.
        pass_: Name of a pass.
        a: Array, the first operand.
        b: Array, the second operand.
        of_plain_sum: Array, the pass over the operands' absolute values.

    Returns:
        Array.
    """
    if tiling.is_strict(algorithm):
        return of_plain_sum
    largest = tiling.magnitude(algorithm, case, pass_, a, b)
    return np.full_like(of_plain_sum, largest)


@functools.lru_cache(maxsize=16)
def _judged(case, pass_, dtype, seed):
    a, b = case.operands(pass_, dtype, seed)
    exact = case.exact(pass_, a, b)
    return (a, b), (exact, case.exact(pass_, np.abs(a), np.abs(b)))


@functools.lru_cache(maxsize=16)
def judged(case, pass_, dtype, seed=0, algorithm="direct"):
    """Operands of a pass with what `reference.assert_accurate` wants for them.

    Args:
        case: A `Case`.
        pass_: Name of a pass.
        dtype: Key of `DTYPES`.
        seed: Int.
        algorithm: Any name that `kconv.ops.conv` takes. Judged is what runs by that
            name; by default by a plain sum.

    Returns:
        (a, b), (exact, magnitude).
    """
    (a, b), (exact, of_plain_sum) = _judged(case, pass_, dtype, seed)
    if algorithm.startswith(("auto", "winograd")):
        problem = case.problem(native.core(), pass_, dtype)
        algorithm = problem.choose(algorithm=algorithm)
    return (a, b), (exact, magnitude(algorithm, case, pass_, a, b, of_plain_sum))


def _both_layouts(cases):
    first = {
        f"{name}_channels_first": dataclasses.replace(case, layout="channels_first")
        for name, case in cases.items()
    }
    return {**cases, **first}


# What may follow a pass that writes an image: whether with a bias, and the activation.
EPILOGUES = [(True, "linear"), (True, "relu"), (True, "relu6"), (False, "relu")]

_SAME_3 = ((1, 1), (1, 1))

# Small ones: every parameter, alone and together, in both layouts.
SMALL = _both_layouts(
    {
        "1d": Case((19,), (3,), 5, 7, batch=2),
        "1d_all": Case(
            (31,),
            (4,),
            3,
            17,
            batch=2,
            strides=(3,),
            dilation_rate=(2,),
            padding=((4, 1),),
        ),
        "1d_grouped": Case((23,), (5,), 6, 9, groups=3, padding=((2, 2),)),
        "2d_valid": Case((9, 11), (3, 3), 16, 32, batch=2),
        "2d_same": Case((13, 10), (3, 3), 17, 33, padding=_SAME_3),
        "2d_one_channel": Case((12, 12), (5, 5), 1, 6, padding=((2, 2), (2, 2))),
        "2d_one_filter": Case((8, 9), (3, 2), 5, 1, padding=((1, 1), (0, 1))),
        "2d_unequal_strides": Case((14, 17), (3, 4), 3, 5, strides=(2, 3)),
        "2d_stride_beyond_kernel": Case((17, 16), (2, 1), 3, 5, strides=(3, 4)),
        "2d_rows_never_read": Case((12, 12), (3, 3), 4, 8, strides=(2, 4)),
        "2d_dilation": Case((15, 14), (3, 3), 4, 8, dilation_rate=(2, 3)),
        "2d_strides_and_dilation": Case(
            (19, 18),
            (3, 4),
            5,
            3,
            batch=2,
            strides=(2, 3),
            dilation_rate=(3, 2),
            padding=((3, 2), (0, 5)),
        ),
        "2d_dilation_shares_a_factor_with_strides": Case(
            (16, 17),
            (3, 3),
            4,
            6,
            strides=(2, 4),
            dilation_rate=(4, 2),
            padding=((4, 4), (2, 2)),
        ),
        "2d_asymmetric_padding": Case((7, 8), (3, 3), 3, 5, padding=((0, 2), (3, 1))),
        "2d_padding_beyond_kernel": Case(
            (5, 4), (2, 3), 3, 5, padding=((4, 3), (5, 7)), strides=(1, 2)
        ),
        "2d_outputs_of_padding_only": Case(
            (2, 3), (3, 3), 5, 4, padding=((9, 8), (0, 11)), dilation_rate=(2, 1)
        ),
        "2d_kernel_is_image": Case((6, 7), (6, 7), 5, 10, batch=3),
        "2d_kernel_is_padded_image": Case(
            (4, 3), (7, 5), 3, 6, batch=2, padding=((1, 2), (2, 0))
        ),
        "2d_one_pixel": Case((1, 1), (3, 3), 8, 9, batch=5, padding=_SAME_3),
        "2d_1x1": Case((7, 9), (1, 1), 33, 17, batch=2),
        "2d_1x1_strided": Case((9, 8), (1, 1), 12, 20, batch=2, strides=(2, 3)),
        "2d_1x1_padded": Case((5, 6), (1, 1), 7, 9, padding=((1, 2), (0, 3))),
        "2d_1x1_grouped": Case((6, 7), (1, 1), 24, 30, groups=3),
        "2d_1x1_strided_grouped": Case(
            (6, 7), (1, 1), 8, 12, groups=4, strides=(2, 2), batch=2
        ),
        "2d_grouped": Case((9, 8), (3, 3), 12, 20, groups=4, padding=_SAME_3),
        "2d_grouped_odd": Case(
            (9, 8),
            (3, 2),
            15,
            51,
            batch=2,
            groups=3,
            strides=(2, 1),
            dilation_rate=(1, 2),
            padding=((2, 0), (1, 1)),
        ),
        "2d_depthwise": Case((10, 9), (3, 3), 19, 19, groups=19, padding=_SAME_3),
        "2d_depthwise_multiplier": Case(
            (9, 10), (3, 3), 7, 21, batch=2, groups=7, strides=(2, 2), padding=_SAME_3
        ),
        "3d": Case((5, 6, 7), (2, 3, 2), 3, 10, batch=2),
        "3d_all": Case(
            (7, 8, 9),
            (3, 2, 3),
            6,
            8,
            groups=2,
            strides=(2, 1, 3),
            dilation_rate=(1, 2, 2),
            padding=((1, 0), (2, 1), (0, 3)),
        ),
        "3d_1x1": Case((3, 4, 5), (1, 1, 1), 9, 8),
        "empty_batch": Case((6, 5), (3, 3), 4, 8, batch=0, padding=_SAME_3),
        "empty_row": Case((6, 0), (3, 3), 4, 8, batch=2, padding=_SAME_3),
        "empty_row_padded": Case((0, 5), (3, 2), 3, 4, padding=((2, 3), (1, 0))),
        "empty_image": Case((0, 0, 0), (1, 2, 3), 4, 8, strides=(1, 2, 3)),
    }
)

# Large ones: each crosses a block of some loop, so threads have parts to share.
LARGE = {
    "many_input_channels": Case((7, 8), (3, 3), 200, 24, padding=_SAME_3),
    "many_output_channels": Case((7, 8), (3, 3), 24, 200, padding=_SAME_3),
    "1x1_very_many_input_channels": Case((5, 5), (1, 1), 1100, 10),
    "1x1_very_many_output_channels": Case((5, 5), (1, 1), 10, 1100),
    "1x1_many_pixels": Case((61, 67), (1, 1), 9, 34, batch=2),
    "many_pixels": Case((70, 70), (3, 3), 8, 16, batch=3, padding=_SAME_3),
    "many_pixels_strided": Case((97, 95), (5, 3), 3, 19, batch=2, strides=(2, 2)),
    "many_pixels_1d": Case((9001,), (9,), 2, 3, strides=(2,), padding=((4, 4),)),
    "many_pixels_3d": Case((17, 18, 19), (3, 3, 3), 5, 12, padding=((1, 1),) * 3),
    "many_images": Case((4, 4), (3, 3), 32, 40, batch=41, padding=_SAME_3),
    "many_groups": Case((14, 14), (3, 3), 128, 128, groups=32, padding=_SAME_3),
    "wide_groups": Case((12, 12), (3, 3), 144, 70, groups=2, padding=_SAME_3),
    "depthwise_1d": Case((2500,), (9,), 8, 8, groups=8, padding=((4, 4),)),
    "depthwise_wide": Case((4, 600), (3, 3), 20, 20, groups=20, padding=_SAME_3),
    "depthwise_many_rows": Case((80, 21), (3, 3), 70, 70, 3, 70, padding=_SAME_3),
    "depthwise_strided": Case(
        (41, 43), (5, 5), 48, 48, 2, 48, strides=(2, 2), padding=((2, 2), (1, 2))
    ),
    "depthwise_7x7": Case((15, 16), (7, 7), 40, 40, 2, 40, padding=((3, 3), (3, 3))),
    "depthwise_31x31": Case((13, 24), (31, 31), 24, 24, 1, 24, padding=((15, 15),) * 2),
    "depthwise_13x10_strided": Case(
        (33, 30), (13, 10), 17, 17, 2, 17, strides=(2, 2), padding=((6, 5), (4, 9))
    ),
    "depthwise_wide_strides": Case(
        (37, 50), (3, 9), 16, 16, 2, 16, strides=(4, 3), padding=((1, 1), (0, 3))
    ),
    "depthwise_multiplier_3_all": Case(
        (30, 33),
        (4, 9),
        11,
        33,
        batch=2,
        groups=11,
        strides=(2, 4),
        dilation_rate=(3, 2),
        padding=((3, 1), (9, 6)),
    ),
    "depthwise_multiplier_50": Case((12, 13), (3, 3), 2, 100, 2, 2, padding=_SAME_3),
    "depthwise_multiplier_channels_first": Case(
        (13, 14), (5, 3), 6, 12, 2, 6, padding=_SAME_3, layout="channels_first"
    ),
    "depthwise_channels_first": Case(
        (21, 25), (7, 7), 24, 24, 2, 24, padding=((3, 3),) * 2, layout="channels_first"
    ),
    "depthwise_3d": Case((9, 10, 11), (3, 5, 3), 24, 24, 2, 24, padding=((1, 1),) * 3),
    "depthwise_3d_all": Case(
        (9, 10, 15),
        (3, 2, 3),
        10,
        20,
        groups=10,
        strides=(2, 1, 2),
        dilation_rate=(1, 3, 4),
        padding=((1, 0), (2, 1), (0, 3)),
    ),
    # Few channels a group: some groups share a vector, and the last one is not full.
    "groups_of_2": Case((9, 90), (3, 3), 22, 22, groups=11, padding=_SAME_3),
    "groups_of_4_strided": Case(
        (21, 20), (5, 3), 28, 28, batch=2, groups=7, strides=(2, 3), padding=_SAME_3
    ),
    "groups_of_4_dilated_channels_first": Case(
        (19, 20),
        (3, 4),
        28,
        28,
        groups=7,
        dilation_rate=(2, 3),
        padding=((2, 2), (3, 7)),
        layout="channels_first",
    ),
    "groups_of_3_and_4": Case((11, 13), (3, 5), 15, 20, batch=2, groups=5),
    "groups_of_6_and_2": Case((11, 12), (3, 2), 42, 14, groups=7, strides=(1, 2)),
    "groups_of_8_3d": Case(
        (5, 6, 9), (3, 2, 3), 24, 24, groups=3, padding=((1, 1), (1, 0), (1, 1))
    ),
    "groups_of_16_channels_first": Case(
        (14, 15), (3, 3), 48, 48, groups=3, padding=_SAME_3, layout="channels_first"
    ),
    "groups_of_32_and_24": Case((7, 9), (3, 3), 64, 48, groups=2, padding=_SAME_3),
    "groups_of_4_1d": Case((3001,), (7,), 12, 12, groups=3, padding=((3, 3),)),
    "groups_of_5_many_rows": Case((300, 3), (7, 1), 10, 10, batch=2, groups=2),
    "large_kernel": Case((24, 24), (13, 11), 9, 20, padding=((6, 6), (5, 5))),
    "channels_first": Case(
        (20, 22), (3, 3), 33, 65, batch=2, padding=_SAME_3, layout="channels_first"
    ),
    "channels_first_1x1": Case(
        (31, 33), (1, 1), 40, 50, batch=2, layout="channels_first"
    ),
}

CASES = {**SMALL, **LARGE}
