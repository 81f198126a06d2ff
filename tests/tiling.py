"""What is particular to algorithms in tiles: roundings, the way of a NaN.

Those of "fft", whose lengths its estimates choose, are at most 128 places an axis.
Those of Winograd:

F(m, r) computes m outputs from r taps and n = m + r - 1 inputs along an axis, y = A^T
[(G g) * (B^T d)], and is nested over at most two axes.
"""

import functools
import importlib.util
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).resolve().parents[1] / "csrc/algorithms/winograd/cook_toom.py"


def _load():
    spec = importlib.util.spec_from_file_location("cook_toom", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cook_toom = _load()


def outputs_of(algorithm):
    """The m of "winograd:fm", None for other algorithms."""
    family, _, variant = algorithm.partition(":f")
    return int(variant) if family == "winograd" and variant else None


def is_strict(algorithm):
    """Whether one algorithm rounds as a plain sum and keeps a NaN in its windows."""
    return algorithm != "fft" and outputs_of(algorithm) is None


def taps_a_stride(case):
    """The r of each axis: every s-th tap belongs together, and so every s-th pixel."""
    axes = zip(case.kernel_size, case.strides, strict=True)
    return [-(-kernel // stride) for kernel, stride in axes]


def transformed_axes(case):
    """The axes that a tile extends over: the last two of 3 taps, or of 5, or of 2."""
    for taps in (3, 5, 2):
        axes = [i for i, r in enumerate(taps_a_stride(case)) if r == taps]
        if axes:
            return axes[-2:]
    return []


def tolerance(algorithm):
    """Error allowed in float32 by a name of algorithms, as part of the largest value.

    The rough measure where results are not compared with the reference.
    """
    if algorithm == "auto" or algorithm.startswith("winograd"):
        return 5e-5
    return 2e-6


@functools.cache
def amplification(m, r):
    """How much more F(m, r) rounds than r products and their sum do, as a factor.

    Where g and d are random, of variance 1, the j-th product has the variance
    |G_j|^2 |B_j|^2 and comes with a rounding error in proportion to its size; output i
    is the sum of A_ij times these. A plain sum of r products has variance r. Nested
    over two axes the factor is squared.
    """
    at, g, bt = (np.array(table, np.float64) for table in cook_toom.cook_toom(m, r))
    products = (g**2).sum(axis=1) * (bt**2).sum(axis=1)
    return np.sqrt((at**2 @ products).max() / r)


def magnitude(algorithm, case, pass_, a, b):
    """What takes the place of the sum of |x||w| in the judgement of `reference`.

    The error is spread over a tile, and so its measure is the largest of these sums,
    as if every window met the largest element of the image: a tile may hold elements
    that the windows of its outputs do not. Times the amplification that came within
    1.4 roundings of the errors that were seen, over all cases, passes and variants;
    `reference.ROUNDINGS` allows 4. The transforms of "fft" do not amplify.
    """
    if algorithm == "fft":
        return _largest_sum(case, pass_, a, b)
    m, axes = outputs_of(algorithm), transformed_axes(case)
    r = taps_a_stride(case)[axes[0]]
    if pass_ == "filter_gradient":
        m, r = r, m
    return amplification(m, r) ** len(axes) * _largest_sum(case, pass_, a, b)


def _largest_sum(case, pass_, a, b):
    a, b = (np.abs(np.asarray(v, np.float64)) for v in (a, b))
    if 0 in (a.size, b.size):
        return 0.0
    groups = case.groups
    peaks = _of_channels(case, np.max, a).reshape(groups, -1)
    if pass_ == "filter_gradient":
        sums = _of_channels(case, np.sum, b).reshape(groups, -1)
        return (peaks.max(axis=1) * sums.max(axis=1)).max()
    if pass_ == "forward":
        return np.einsum("igo,gi->go", _sum_of_taps(b, groups), peaks).max()
    # An input meets every s-th tap only.
    residues = (
        b[tuple(slice(v, None, s) for v, s in zip(residue, case.strides, strict=True))]
        for residue in np.ndindex(*case.strides)
    )
    return max(
        np.einsum("igo,go->gi", _sum_of_taps(taps, groups), peaks).max()
        for taps in residues
    )


def _sum_of_taps(b, groups):
    return b.reshape(-1, b.shape[-2], groups, b.shape[-1] // groups).sum(axis=0)


def _of_channels(case, reduce, x):
    last = np.moveaxis(x, 1, -1) if case.layout == "channels_first" else x
    return reduce(last.reshape(-1, last.shape[-1]), axis=0)


def spoiled(algorithm, case, pass_, place):
    """Which results a NaN or infinity of the first operand may spoil.

    All outputs, of the same group, of every tile that reads it; of the filter gradient,
    all taps along the tile's axes, with a stride every s-th. A tile reads what any of
    its outputs does, be it within the image or not.

    Args:
        algorithm: Name of one of Winograd's algorithms, or "fft".
        case: A `Case`.
        pass_: Name of a pass.
        place: Index of an element of the first operand.

    Returns:
        Bool array of the shape of the result.
    """
    is_fft = algorithm == "fft"
    m, axes = outputs_of(algorithm), [] if is_fft else transformed_axes(case)
    first, *rest = place
    channel, pixel = (rest[0], rest[1:])
    if case.layout == "channels_last":
        channel, pixel = (rest[-1], rest[:-1])
    backwards = pass_ == "input_gradient"
    results = case.input_size if backwards else case.output_size
    masks = []
    for i, q in enumerate(pixel):
        d, s = case.dilation_rate[i], case.strides[i]
        before = case.padding[i][0]
        p, t = np.ogrid[: results[i], : case.kernel_size[i]]
        if is_fft:
            # Within a tile of any length, of any image that a dilation keeps apart.
            if pass_ == "filter_gradient":
                masks.append(np.ones(case.kernel_size[i], bool))
            else:
                here = q + (-before if backwards else before)
                masks.append(abs(p[:, 0] - here) < 128 * d)
            continue
        # The outputs of the tile that holds p: neighbours within their phase.
        step = s if backwards and s > 1 else d if s == 1 else 1
        start, count = p, 1
        if i in axes:
            start, count = p % step + p // step // m * m * step, m
        reads = False
        for output in (start + j * step for j in range(count)):
            place_of_output, place_of_input = (q, output) if backwards else (output, q)
            reads = reads | (place_of_output * s + t * d - before == place_of_input)
        if i in axes:
            # Of the filter gradient all taps that ever meet this pixel.
            reads = reads.any(axis=1, keepdims=True) & (
                (t - q - before) % s == 0 if pass_ == "filter_gradient" else t >= 0
            )
        masks.append(reads.any(axis=0 if pass_ == "filter_gradient" else 1))
    mask = functools.reduce(np.multiply.outer, masks)
    groups = case.groups
    if pass_ == "filter_gradient":
        of_group = case.in_channels // groups
        rows = np.arange(of_group) == channel % of_group
        columns = np.arange(case.out_channels) * groups // case.out_channels
        columns = columns == channel // of_group
        return mask[..., None, None] & rows[:, None] & columns
    sources, targets = case.in_channels, case.out_channels
    if backwards:
        sources, targets = targets, sources
    group = channel * groups // sources
    mask = mask[..., None] & (np.arange(targets) * groups // targets == group)
    mask = (np.arange(case.batch) == first).reshape(-1, *[1] * mask.ndim) & mask
    return np.moveaxis(mask, -1, 1) if case.layout == "channels_first" else mask
