"""The deformable convolutions that the tests of kernels share."""

import dataclasses
import functools

import numpy as np
import reference
from deform_reference import Options, forward, gradients
from problems import DTYPES

PLAIN = Options()


@dataclasses.dataclass(frozen=True)
class Case:
    """A deformable convolution."""

    size: tuple
    kernel: tuple
    channels: int
    filters: int
    batch: int = 1
    mask: bool = True
    spread: float = 1.5  # of the offsets
    options: Options = PLAIN

    def operands(self, dtype="float32", seed=0):
        """Input, filter, offsets, mask or None, and the output's gradient.

        Offsets are multiples of 1/64, so that no coordinate is rounded.
        """
        rng = np.random.default_rng(seed)
        o = self.options
        out = o.output_size(self.size, self.kernel)
        points = o.offset_groups * self.kernel[0] * self.kernel[1]

        def normal(*shape):
            return rng.standard_normal(shape, np.float32).astype(DTYPES[dtype])

        x = normal(self.batch, *self.size, self.channels)
        w = normal(*self.kernel, self.channels // o.groups, self.filters)
        shape = self.batch, *out, 2 * points
        offsets = np.round(64 * self.spread * rng.standard_normal(shape)) / 64
        mask = normal(self.batch, *out, points) if self.mask else None
        return (
            x,
            w,
            offsets.astype(DTYPES[dtype]),
            mask,
            normal(self.batch, *out, self.filters),
        )

    @functools.cache  # noqa: B019
    def judged(self, dtype):
        """Operands, and (exact, magnitude) of each result by name."""
        x, w, offsets, mask, dy = operands = self.operands(dtype)
        sizes = [v if v is None else np.abs(v) for v in (x, w, mask)]
        exact = forward(x, w, offsets, mask, self.options)
        largest = forward(sizes[0], sizes[1], offsets, sizes[2], self.options)
        results = {"output": (exact, largest)}
        names = ("input", "filter", "offsets", "mask")
        exact = gradients(x, w, offsets, mask, dy, self.options)
        largest = gradients(x, w, offsets, mask, dy, self.options, absolute=True)
        results.update(zip(names, zip(exact, largest, strict=True), strict=True))
        return operands, results


def assert_case(case, dtype, results):
    expected = case.judged(dtype)[1]
    for name, result in results.items():
        reference.assert_accurate(result, *expected[name])


SAME = ((1, 1), (1, 1))
CASES = {
    "plain": Case((7, 9), (3, 3), 8, 6, options=Options(padding=SAME)),
    "no_mask": Case((7, 9), (3, 3), 5, 7, mask=False, batch=2),
    "strides": Case(
        (11, 8), (3, 2), 4, 5, options=Options((2, 3), padding=((2, 0), (1, 3)))
    ),
    "dilation": Case((9, 12), (2, 3), 6, 4, options=Options(dilation_rate=(3, 2))),
    "groups": Case((6, 5), (3, 3), 12, 8, options=Options(groups=4, padding=SAME)),
    "offset_groups": Case(
        (6, 5), (3, 3), 12, 8, options=Options(offset_groups=3, padding=SAME)
    ),
    "both_groups": Case(
        (5, 6), (3, 3), 12, 8, 2, options=Options(groups=4, offset_groups=6)
    ),
    "crossing_groups": Case(
        (5, 6), (2, 3), 12, 6, 2, options=Options(groups=3, offset_groups=2)
    ),
    "one_channel": Case(
        (6, 6), (3, 3), 7, 14, options=Options(groups=7, offset_groups=7)
    ),
    "one_pixel": Case((1, 1), (1, 1), 1, 1, spread=0.5),
    "far": Case((5, 5), (3, 3), 4, 4, spread=6.0, options=Options(padding=SAME)),
    "many_channels": Case((4, 5), (3, 3), 300, 33, options=Options(padding=SAME)),
    "many_filters": Case((4, 3), (1, 2), 9, 300),
    "slices": Case((3, 4), (2, 2), 70, 8, options=Options(offset_groups=2)),
    "large_kernel": Case(
        (13, 12), (7, 5), 20, 3, options=Options(padding=((3, 3),) * 2)
    ),
    "blocks": Case((26, 23), (1, 2), 10, 9, batch=2, options=Options(padding=SAME)),
}
