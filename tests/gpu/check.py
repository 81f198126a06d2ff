"""Every kernel of the GPU library against float64 by definition, and against cuDNN.

`tests/gpu/run.sh check`; with --small few and small cases, for compute-sanitizer, and
no cuDNN, whose kernels are not what that is to judge.
"""

import argparse
import sys
import time
from types import SimpleNamespace

import deformable
import device
import numpy as np
import reference
import tiling

PASSES = device.interface.PASSES


def case(size, kernel, channels, filters, batch=1, groups=1, **more):
    """Words of one convolution, in those of `interface.problem`."""
    dims = len(size)
    words = {
        "input_size": size,
        "kernel_size": kernel,
        "in_channels": channels,
        "out_channels": filters,
        "batch": batch,
        "groups": groups,
        "strides": (1,) * dims,
        "dilation_rate": (1,) * dims,
        "padding": ((0, 0),) * dims,
        "layout": "channels_last",
    }
    return {**words, **more}


def depthwise(size, kernel, channels, batch=2, stride=1, **more):
    """Words of a depthwise convolution with "same" padding for odd kernels."""
    dims = len(size)
    more.setdefault("padding", ((kernel // 2, (kernel - 1) // 2),) * dims)
    return case(
        *(size, (kernel,) * dims, channels, channels, batch, channels),
        strides=(stride,) * dims,
        **more,
    )


SAME = ((1, 1), (1, 1))
DIRECT = [
    case((19,), (3,), 5, 7, 2),
    case((31,), (4,), 6, 9, 2, 3, strides=(3,), dilation_rate=(2,), padding=((4, 1),)),
    case((13, 10), (3, 3), 17, 33, 3, padding=SAME),
    case((15, 14), (3, 2), 8, 12, 2, 4, strides=(2, 1), dilation_rate=(1, 2)),
    case((7, 8), (3, 3), 3, 5, padding=((0, 2), (3, 1))),
    case((6, 7, 9), (2, 3, 3), 6, 8, 2, 2, strides=(2, 1, 3), padding=((1, 0),) * 3),
    case((6, 5), (3, 3), 4, 8, 0, padding=SAME),
]
# Slices of the filter gradient, and more blocks than run at a time.
DIRECT_LARGE = [
    case((70, 71), (3, 3), 8, 16, 8, padding=SAME),
    case((28, 28), (3, 3), 64, 96, 4, padding=SAME),
    depthwise((30, 31), 5, 40, 4, dilation_rate=(2, 2), padding=((4, 4),) * 2),
]
DEPTHWISE = [
    depthwise((17, 30), 3, 40),
    depthwise((19, 33), 3, 36, stride=2),
    depthwise((9, 10), 2, 8),
    depthwise((14, 16), 5, 33),
    depthwise((15, 31), 7, 12, stride=2),
    depthwise((61,), 9, 12),
    depthwise((21, 30), 31, 9),
    depthwise((18, 16), 5, 24, stride=2),
    case((20, 31), (9, 3), 16, 16, 2, 16, padding=((4, 4), (1, 1))),
    case((16, 23), (11, 5), 10, 10, 1, 10, strides=(1, 2), padding=((5, 5), (2, 2))),
    depthwise((6, 5), 3, 4, 0),
    depthwise((6, 0), 3, 4),
]
DEPTHWISE_LARGE = [
    depthwise((56, 57), 3, 144, 4),
    depthwise((112, 113), 3, 33, 2, stride=2),
    depthwise((28, 29), 5, 240, 4),
    depthwise((56, 56), 7, 96, 4),
    depthwise((28, 28), 13, 64, 4),
    depthwise((56, 56), 31, 32, 2),
    depthwise((33, 60), 31, 16, 2, stride=2),
]
WINOGRAD = [
    case((8, 16), (3, 3), 16, 32, 2, padding=SAME),
    case((9, 11), (3, 3), 12, 40, 2),
    case((10, 13), (3, 3), 17, 70, padding=((0, 2), (3, 1))),
    case((5, 4), (3, 3), 5, 6, padding=((4, 3), (5, 7))),
    case((7, 8), (3, 3), 64, 66, 3, 2, padding=SAME),
    case((6, 5), (3, 3), 4, 8, 0, padding=SAME),
]
# Slices of tiles, and more blocks than run at a time.
WINOGRAD_LARGE = [
    case((56, 56), (3, 3), 64, 64, 16, padding=SAME),
    case((30, 31), (3, 3), 130, 200, 20, padding=SAME),
    case((14, 14), (3, 3), 512, 512, 8, padding=SAME),
    case((28, 28), (3, 3), 96, 90, 4, 2, padding=SAME),
    case((61, 67), (3, 3), 3, 32, 4, padding=((2, 0), (1, 2))),
]
GROUPED = [
    case((18, 33), (3, 3), 36, 36, 2, 9, padding=SAME),
    case((16, 17), (3, 3), 40, 40, 2, 5, padding=SAME),
    case((21, 20), (5, 3), 15, 25, 2, 5, strides=(2, 3), padding=SAME),
    case((15, 22), (3, 2), 66, 66, 2, 33, dilation_rate=(3, 4)),
    case((13, 14), (3, 3), 64, 64, 2, 2, padding=SAME),
    case((401,), (7,), 12, 12, 2, 3, padding=((3, 3),)),
]
GROUPED_LARGE = [
    case((56, 56), (3, 3), 128, 128, 16, 32, padding=SAME),
    case((57, 55), (5, 5), 128, 128, 8, 16, strides=(2, 2), padding=((2, 2),) * 2),
    case((28, 28), (3, 3), 480, 240, 16, 15, padding=SAME),
]
# Tiles of 8 to 128 columns, which the number of blocks chooses.
GEMM_LARGE = [
    case((260, 263), (1, 1), 12, 30, padding=((0, 0),) * 2),
    case((61, 187), (3, 3), 12, 60, 3, dilation_rate=(2, 5)),
    case((56, 56), (3, 3), 128, 500, 16, padding=SAME),
    case((57, 55), (3, 3), 256, 256, 16, strides=(2, 2), padding=SAME),
    case((28, 28), (3, 3), 72, 144, 16, 3, padding=SAME),
    case((112, 112), (7, 7), 3, 64, 16, strides=(2, 2), padding=((3, 3),) * 2),
]


def both_layouts(cases):
    """The cases in channels last and first."""
    for words in cases:
        yield words
        yield {**words, "layout": "channels_first"}


def shapes_of(words):
    """Shapes of input, filter and output."""
    size = words["input_size"]
    axes = zip(
        *(size, words["kernel_size"], words["strides"], words["dilation_rate"]),
        words["padding"],
        strict=True,
    )
    out = [reference.output_size(*axis, *pads) for *axis, pads in axes]
    first = words["layout"] == "channels_first"

    def image(spatial, channels):
        inner = (channels, *spatial) if first else (*spatial, channels)
        return (words["batch"], *inner)

    of_group = words["in_channels"] // words["groups"]
    return (
        image(size, words["in_channels"]),
        (*words["kernel_size"], of_group, words["out_channels"]),
        image(out, words["out_channels"]),
    )


def types():
    """The NumPy type of each dtype."""
    try:
        import ml_dtypes
    except ImportError:
        sys.exit("ml_dtypes is missing, NumPy's bfloat16: pip install ml_dtypes.")
    found = {name: np.dtype(name) for name in ("float32", "float64", "float16")}
    return {**found, "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def exact(words, pass_, a, b):
    """The result by definition, in float64."""
    options = {
        name: words[name]
        for name in ("strides", "dilation_rate", "padding", "groups", "layout")
    }
    shapes = shapes_of(words)
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if pass_ == "forward":
        return reference.conv(a, b, **options)
    if pass_ == "input_gradient":
        return reference.input_gradient(shapes[0], b, a, **options)
    return reference.filter_gradient(a, shapes[1], b, **options)


PLACES = {
    "forward": (0, 1, 2),
    "input_gradient": (2, 1, 0),
    "filter_gradient": (0, 2, 1),
}


def run(gpu, native, algorithm, words, pass_, a, b, bias=None, shift=0, **more):
    """The result of a pass on tensors that lie `shift` elements off their alignment."""
    places, item = PLACES[pass_], a.dtype.itemsize
    shape = shapes_of(words)[places[2]]
    count = int(np.prod(shape))

    def put(array):
        return gpu.put(np.concatenate([np.zeros(shift, array.dtype), array.ravel()]))

    written = gpu.empty((shift + count) * item)
    tensors = [None] * 3
    for place, tensor in zip(places, (put(a), put(b), written), strict=True):
        tensors[place] = tensor
    tensors.append(None if bias is None else put(bias))
    dtype = next(name for name, kind in types().items() if kind == a.dtype)
    options = {**words, **more, "pass_": pass_, "dtype": dtype}
    options["bias"] = bias is not None
    call = device.Call(gpu, native, algorithm, options, tensors, shift * item)
    call()
    gpu.wait()
    return gpu.get(written, (shift + count,), a.dtype)[shift:].reshape(shape)


def magnitude_of(algorithm, words, pass_, a, b, of_plain_sum):
    """The measure of an algorithm's errors: the plain sum's, or that of its tiles."""
    if tiling.is_strict(algorithm):
        return of_plain_sum
    one = SimpleNamespace(**words)
    largest = tiling.magnitude(algorithm, one, pass_, a, b)
    return np.full_like(of_plain_sum, largest)


def check(gpu, native, algorithm, words, pass_, dtype, seed, cudnn=True):
    """Raises an AssertionError where a kernel is wrong.

    Returns whether cuDNN was asked as well.
    """
    rng, kind, shapes = np.random.default_rng(seed), types()[dtype], shapes_of(words)
    a, b = (
        rng.standard_normal(shapes[place], np.float32).astype(kind)
        for place in PLACES[pass_][:2]
    )
    of_plain_sum = exact(words, pass_, np.abs(a), np.abs(b))
    magnitude = magnitude_of(algorithm, words, pass_, a, b, of_plain_sum)
    expected = exact(words, pass_, a, b)
    what = (gpu, native, algorithm, words, pass_, a, b)
    result = run(*what)
    reference.assert_accurate(result, expected, magnitude)
    assert result.tobytes() == run(*what).tobytes(), "two runs differ in bits"
    moved = run(*what, shift=1)
    assert result.tobytes() == moved.tobytes(), "alignment changes bits"
    if pass_ != "filter_gradient":
        image = PLACES[pass_][2]
        first = words["layout"] == "channels_first"
        channels = shapes[image][1 if first else -1]
        bias = rng.standard_normal(channels, np.float32).astype(kind)
        result = run(*what, bias, activation="relu6")
        wide = np.abs(np.asarray(bias, np.float64))
        reference.assert_accurate(
            result,
            reference.finish(expected, bias, "relu6", words["layout"]),
            reference.finish(magnitude, wide, "linear", words["layout"]),
        )
    if not cudnn or dtype == "bfloat16" or 0 in shapes[0] + shapes[2]:
        return False
    return compare_with_cudnn(gpu, words, pass_, a, b, expected, of_plain_sum)


def compare_with_cudnn(gpu, words, pass_, a, b, expected, magnitude):
    """Asserts that cuDNN, through PyTorch, agrees with the reference as well.

    A mistake in how this test reads a problem would show here, where kconv and the
    reference, which share the reading, would agree. Returns False for problems that
    PyTorch has no words for.
    """
    torch = gpu.torch
    if any(before != after for before, after in words["padding"]):
        return False  # PyTorch pads both sides alike
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    dims = len(words["input_size"])
    last = words["layout"] == "channels_last"

    def image(array):
        tensor = torch.from_numpy(np.ascontiguousarray(array)).cuda()
        return tensor.movedim(-1, 1) if last else tensor

    def weights(array):
        tensor = torch.from_numpy(np.ascontiguousarray(array)).cuda()
        return tensor.movedim(-1, 0).movedim(-1, 1).contiguous()

    shapes = shapes_of(words)
    convolve = getattr(torch.nn.functional, f"conv{dims}d")
    zeros = [np.zeros(shape, a.dtype) for shape in shapes]
    for place, array in zip(PLACES[pass_], (a, b), strict=False):
        zeros[place] = array
    x, w = image(zeros[0]).requires_grad_(), weights(zeros[1]).requires_grad_()
    y = convolve(
        *(x, w, None, words["strides"]),
        [before for before, _ in words["padding"]],
        *(words["dilation_rate"], words["groups"]),
    )
    if pass_ == "forward":
        found = y
    else:
        wanted = x if pass_ == "input_gradient" else w
        (found,) = torch.autograd.grad(y, wanted, image(zeros[2]))
    found = found.detach()
    if pass_ == "filter_gradient":
        found = found.movedim(1, -1).movedim(0, -1)
    elif last:
        found = found.movedim(1, -1)
    found = found.double().cpu().numpy()
    epsilon = np.finfo(a.dtype).eps
    wrong = np.abs(found - expected) > 8 * epsilon * magnitude + epsilon
    assert not wrong.any(), f"cuDNN and the reference differ in {wrong.sum()} values"
    return True


def main():
    """Checks everything; the exit status says whether all is right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="few and small cases")
    small = parser.parse_args().small
    gpu, native = device.find(pooled=not small), device.library()
    cudnn = isinstance(gpu, device.Torch) and not small
    print(f"{gpu.gpu}, {gpu.name}", flush=True)
    table = {"direct": DIRECT, "depthwise": DEPTHWISE}
    for algorithm in ("winograd:f2", "winograd:f4"):
        table[algorithm] = WINOGRAD if small else WINOGRAD + WINOGRAD_LARGE
    table["gemm"], table["grouped"] = DIRECT + GROUPED, GROUPED
    if not small:
        table["direct"] = table["direct"] + DIRECT_LARGE + DEPTHWISE
        table["depthwise"] = table["depthwise"] + DEPTHWISE_LARGE
        table["grouped"] = table["grouped"] + GROUPED_LARGE
        table["gemm"] = table["gemm"] + GROUPED_LARGE + GEMM_LARGE
    of_halves = ["float32", "float16", "bfloat16"]
    dtypes = {
        "direct": list(types()),
        "depthwise": of_halves,
        "winograd:f2": of_halves,
        "winograd:f4": ["float32"],
        "grouped": of_halves,
        "gemm": of_halves,
    }
    if small:
        # Of two bytes and of four, whose loads have lengths of their own.
        dtypes = {name: of[:2] for name, of in dtypes.items()}
        dtypes["direct"] = ["float32"]
    checks = failures = compared = 0
    for algorithm, cases in table.items():
        start, before = time.perf_counter(), checks
        for number, words in enumerate(both_layouts(cases)):
            for dtype in dtypes[algorithm]:
                for pass_ in PASSES:
                    checks += 1
                    what = (gpu, native, algorithm, words, pass_, dtype, number)
                    try:
                        compared += check(*what, cudnn)
                    except (AssertionError, RuntimeError, ValueError) as error:
                        failures += 1
                        print(f"FAILED {algorithm} {pass_} {dtype} {words}: {error}")
        seconds = time.perf_counter() - start
        print(f"{algorithm}: {checks - before} checks, {seconds:.0f} s", flush=True)
    start = time.perf_counter()
    names = ["float32", "float16"] if small else types()
    chosen = {name: types()[name] for name in names}
    done = deformable.check_all(gpu, native, chosen, small)
    seconds = time.perf_counter() - start
    print(f"deformable: {done[0]} checks, {seconds:.0f} s", flush=True)
    checks, failures = checks + done[0], failures + done[1]
    print(f"{checks} checks, {compared} of them with cuDNN too, {failures} failures")
    if cudnn and not compared:
        print("FAILED: nothing was compared with cuDNN")
        return 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
