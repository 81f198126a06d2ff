"""Deformable convolution on a GPU: checks for check.py, times for speed.py.

Held against float64 by definition, and against torchvision where it can be imported.
"""

import ctypes

import device  # lets Python find the tests' files below
import numpy as np

# isort: split
import deform_reference
import reference

PASSES = device.interface.PASSES
NAMES = ("input", "filter", "offsets", "mask", "gradient")


def case(size, kernel, channels, filters, batch=1, **more):
    """Words of one deformable convolution, in those of `interface.deform`."""
    words = {
        "input_size": size,
        "kernel_size": kernel,
        "in_channels": channels,
        "out_channels": filters,
        "batch": batch,
        "groups": 1,
        "offset_groups": 1,
        "strides": (1, 1),
        "dilation_rate": (1, 1),
        "padding": ((0, 0), (0, 0)),
        "mask": True,
    }
    return {**words, **more}


SAME = ((1, 1), (1, 1))
SMALL = [
    case((7, 9), (3, 3), 8, 6, padding=SAME),
    case((7, 9), (3, 3), 5, 7, 2, mask=False),
    case((11, 8), (3, 2), 4, 5, strides=(2, 3), padding=((2, 0), (1, 3))),
    case((9, 12), (2, 3), 6, 4, dilation_rate=(3, 2)),
    case((5, 6), (3, 3), 12, 8, 2, groups=4, offset_groups=6),
    case((5, 6), (2, 3), 12, 6, 2, groups=3, offset_groups=2),
    case((3, 5), (3, 3), 128, 64, padding=SAME),
    case((6, 5), (3, 3), 4, 8, 0, padding=SAME),
]
# Tiles of all sizes, slices, more blocks than run at a time, sorts of several bytes.
LARGE = [
    case((30, 31), (3, 3), 64, 96, 2, padding=SAME),
    case((28, 29), (3, 3), 64, 64, 2, groups=2, offset_groups=4, padding=SAME),
    case((41, 40), (3, 3), 33, 40, padding=SAME, strides=(2, 1)),
    case((14, 14), (3, 3), 256, 128, padding=((2, 2),) * 2, dilation_rate=(2, 2)),
    case((90, 91), (1, 3), 8, 8, padding=((0, 0), (1, 1))),
    case((31, 32), (9, 9), 40, 4, padding=((4, 4),) * 2),
]


def options_of(words):
    """Returns the `Options` of deform_reference.py."""
    names = ("strides", "dilation_rate", "padding", "groups", "offset_groups")
    return deform_reference.Options(**{name: words[name] for name in names})


def operands_of(words, kind, seed):
    """Input, filter, offsets, mask or None, and the output's gradient."""
    rng, kernel = np.random.default_rng(seed), words["kernel_size"]
    out = options_of(words).output_size(words["input_size"], kernel)
    pixels = (words["batch"], *out)
    points = words["offset_groups"] * kernel[0] * kernel[1]

    def normal(*shape):
        return rng.standard_normal(shape, np.float32).astype(kind)

    x = normal(words["batch"], *words["input_size"], words["in_channels"])
    of_group = words["in_channels"] // words["groups"]
    w = normal(*kernel, of_group, words["out_channels"])
    # Multiples of 1/64, so that no coordinate is rounded.
    offsets = np.round(96 * rng.standard_normal((*pixels, 2 * points))) / 64
    mask = normal(*pixels, points) if words["mask"] else None
    return x, w, offsets.astype(kind), mask, normal(*pixels, words["out_channels"])


class Call:
    """A pass on tensors of a device, as often as wanted."""

    def __init__(self, gpu, native, words, operands, results, shift=0):
        """Takes input, filter, offsets, mask, the output's gradient and the bias.

        Those that a pass has no use for are None. The tensors begin `shift` bytes after
        the memory that holds them.
        """
        self._gpu, self._native = gpu, native
        self._problem = ctypes.byref(device.interface.deform(**words))
        size = native.kconv_cuda_deform_workspace(self._problem)
        if size < 0:
            raise ValueError(native.kconv_cuda_deform_refuse(self._problem).decode())
        self._kept = (*operands, *results, gpu.empty(size))
        x, w, offsets, mask, dy, bias = operands
        given = [x, w, offsets, mask, bias, dy, *results, *[None] * (3 - len(results))]
        self._arguments = device.interface.DeformArguments(
            *(t if t is None else gpu.address(t) + shift for t in given),
            gpu.address(self._kept[-1]),
        )

    def __call__(self):
        """Puts the work on the current stream."""
        error = self._native.kconv_cuda_deform_run(
            self._problem, ctypes.byref(self._arguments), self._gpu.stream()
        )
        if error:
            raise RuntimeError(error.decode())


def written(pass_, operands):
    """Arrays like those that a pass writes."""
    x, w, offsets, mask, dy = operands
    if pass_ == "forward":
        return [dy]
    if pass_ == "filter_gradient":
        return [w]
    return [x, offsets] if mask is None else [x, offsets, mask]


def run(gpu, native, words, pass_, operands, bias=None, shift=0, **more):
    """The results of a pass on tensors `shift` elements off their alignment."""
    like, item = written(pass_, operands), operands[0].dtype.itemsize

    def put(array):
        if array is None:
            return None
        return gpu.put(np.concatenate([np.zeros(shift, array.dtype), array.ravel()]))

    given = [*operands, bias]
    if pass_ == "forward":
        given[4] = None
    results = [gpu.empty(one.nbytes + shift * item) for one in like]
    words = {**words, **more, "pass_": pass_, "bias": bias is not None}
    tensors = [put(one) for one in given]
    Call(gpu, native, words, tensors, results, shift * item)()
    gpu.wait()
    return [
        gpu.get(result, (shift + one.size,), one.dtype)[shift:].reshape(one.shape)
        for result, one in zip(results, like, strict=True)
    ]


def exact(words, pass_, operands, absolute=False):
    """The results by definition, in float64; or of every factor's magnitude."""
    if words["batch"] == 0:  # which the definition's code has no place for
        return [np.zeros(one.shape) for one in written(pass_, operands)]
    x, w, offsets, mask, dy = operands
    options = options_of(words)
    if pass_ == "forward":
        x, w, mask = (
            one if one is None or not absolute else np.abs(one) for one in (x, w, mask)
        )
        return [deform_reference.forward(x, w, offsets, mask, options)]
    found = deform_reference.gradients(x, w, offsets, mask, dy, options, absolute)
    if pass_ == "filter_gradient":
        return [found[1]]
    return [found[0], *found[2 : 3 if mask is None else 4]]


def check(gpu, native, words, pass_, dtype, kind, seed):
    """Raises an AssertionError where a kernel is wrong."""
    operands = operands_of(words, kind, seed)
    expected = exact(words, pass_, operands)
    largest = exact(words, pass_, operands, absolute=True)

    def compute(**more):
        found = run(gpu, native, words, pass_, operands, dtype=dtype, **more)
        for one, wanted, magnitude in zip(found, expected, largest, strict=True):
            reference.assert_accurate(one, wanted, magnitude)
        return found

    for one, other in zip(compute(), compute(), strict=True):
        assert one.tobytes() == other.tobytes(), "two runs differ in bits"
    compute(shift=1)
    if pass_ == "forward":
        bias = np.linspace(-2, 2, words["out_channels"]).astype(kind)
        more = {"dtype": dtype, "activation": "relu6"}
        (found,) = run(gpu, native, words, pass_, operands, bias, **more)
        wide = np.asarray(bias, np.float64)
        finished = reference.finish(expected[0], wide, "relu6", "channels_last")
        reference.assert_accurate(found, finished, largest[0] + np.abs(wide))
    if dtype == "float64" and words["batch"]:
        compare_with_torchvision(gpu, words, pass_, operands)


def check_all(gpu, native, types, small):
    """Prints what fails; returns how many checks there were, and failures."""
    checks = failures = 0
    for number, words in enumerate(SMALL if small else SMALL + LARGE):
        for dtype, kind in types.items():
            for pass_ in PASSES:
                checks += 1
                try:
                    check(gpu, native, words, pass_, dtype, kind, number)
                except (AssertionError, RuntimeError, ValueError) as error:
                    failures += 1
                    print(f"FAILED deformable {pass_} {dtype} {words}: {error}")
    return checks, failures


def rival(gpu):
    """Returns torchvision's deformable convolution, or None."""
    if not isinstance(gpu, device.Torch):
        return None
    try:
        from torchvision.ops import deform_conv2d
    except (ImportError, OSError, RuntimeError):
        return None
    return deform_conv2d


def channels_first(gpu, operands):
    """Operands in torchvision's order of axes, as leaves of a gradient."""

    def image(array):
        tensor = gpu.torch.from_numpy(array).cuda()
        return tensor.permute(0, 3, 1, 2).contiguous().requires_grad_()

    x, w, offsets, mask, dy = operands
    filters = gpu.torch.from_numpy(w).cuda().permute(3, 2, 0, 1).contiguous()
    mask = None if mask is None else image(mask)
    return image(x), filters.requires_grad_(), image(offsets), mask, image(dy).detach()


def compare_with_torchvision(gpu, words, pass_, operands):
    """Asserts that torchvision agrees with the reference as well.

    At whole numbers, where it takes other slopes at the border, no offset points.
    """
    deform_conv2d = rival(gpu)
    if deform_conv2d is None or any(a != b for a, b in words["padding"]):
        return
    x, w, offsets, mask, dy = operands
    operands = x, w, offsets + 1 / 128, mask, dy
    expected = exact(words, pass_, operands)
    largest = exact(words, pass_, operands, absolute=True)
    x, w, offsets, mask, dy = channels_first(gpu, operands)
    pads = [before for before, _ in words["padding"]]
    y = deform_conv2d(
        *(x, offsets, w, None, words["strides"], pads, words["dilation_rate"], mask)
    )
    if pass_ == "forward":
        found = [y]
    else:
        wanted = [w] if pass_ == "filter_gradient" else [x, offsets]
        if pass_ == "input_gradient" and mask is not None:
            wanted.append(mask)
        found = gpu.torch.autograd.grad(y, wanted, dy)
    order = (2, 3, 1, 0) if pass_ == "filter_gradient" else (0, 2, 3, 1)
    for one, other, magnitude in zip(found, expected, largest, strict=True):
        array = one.detach().permute(*order).cpu().numpy()
        wrong = np.abs(array - other) > 1e-12 * magnitude + 1e-12
        assert not wrong.any(), (
            f"torchvision and the reference differ in {wrong.sum()} values"
        )


# Size, channels, batch: of the last stages of a ResNet, for detection and for
# classification.
LAYERS = [
    ((100, 160), 128, 2),
    ((50, 80), 256, 2),
    ((25, 40), 512, 2),
    ((28, 28), 128, 32),
    ((14, 14), 256, 32),
    ((7, 7), 512, 32),
]


def table(gpu, native, median, peak):
    """Prints times of modulated 3x3 layers beside torchvision's, in microseconds.

    torchvision computes all gradients at once: kconv's two passes are added up.
    """
    torch, deform_conv2d = gpu.torch, rival(gpu)
    if deform_conv2d is None:
        print("torchvision cannot be imported: its times are left out.")
    print(
        f"{'deformable 3x3: size channels batch':36}{'type':>9}{'pass':>11}"
        f"{'kconv µs':>10}{'torchvision':>13}{'ratio':>7}{'peak':>6}"
    )
    for dtype in ("float32", "float16"):
        for size, channels, batch in LAYERS:
            words = case(size, (3, 3), channels, channels, batch, padding=SAME)
            operands = operands_of(words, np.dtype(dtype), 0)
            given = [gpu.put(one) for one in operands]
            ours = []
            for pass_ in PASSES:
                results = [gpu.empty(one.nbytes) for one in written(pass_, operands)]
                tensors = [*given, None]
                if pass_ == "forward":
                    tensors[4] = None
                call = {**words, "pass_": pass_, "dtype": dtype}
                ours.append(median(torch, [Call(gpu, native, call, tensors, results)]))
            theirs = [None, None]
            if deform_conv2d is not None:
                theirs = _times_of_torchvision(gpu, deform_conv2d, operands, median)
            flops = 2 * batch * size[0] * size[1] * 9 * channels * channels
            for name, mine, other, times in (
                ("forward", ours[0], theirs[0], 1),
                ("gradients", ours[1] + ours[2], theirs[1], 2),
            ):
                ratio = "" if other is None else f"{other / mine:.2f}"
                of_peak = f"{times * flops / mine / peak:.0%}" if peak else ""
                print(
                    f"{size[0]}x{size[1]} {channels} {batch}".ljust(36)
                    + f"{dtype:>9}{name:>11}{mine * 1e6:10.1f}"
                    f"{'' if other is None else f'{other * 1e6:.1f}':>13}"
                    f"{ratio:>7}{of_peak:>6}",
                    flush=True,
                )
            torch.cuda.empty_cache()


def _times_of_torchvision(gpu, deform_conv2d, operands, median):
    torch = gpu.torch
    x, w, offsets, mask, dy = channels_first(gpu, operands)

    def forward():
        return deform_conv2d(x, offsets, w, None, 1, 1, 1, mask)

    with torch.no_grad():
        seconds = median(torch, [forward])
    y = forward()

    def gradients():
        torch.autograd.grad(y, (x, w, offsets, mask), dy, retain_graph=True)

    return seconds, median(torch, [gradients])
