"""Every kernel of the GPU library against float64 by definition, and against cuDNN.

`tests/gpu/run.sh check`; with --small few and small cases, for compute-sanitizer.
"""

import argparse
import sys
import time

import deformable
import device
import numpy as np
import reference

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
    import ml_dtypes

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


def run(gpu, native, algorithm, words, pass_, dtype, a, b, bias=None, linear="linear"):
    """The result of a pass, computed twice; and whether both have the same bits."""
    places, shapes = PLACES[pass_], shapes_of(words)
    shape = shapes[places[2]]
    results = []
    for _ in range(2):
        written = gpu.empty(int(np.prod(shape)) * a.dtype.itemsize)
        tensors = [None] * 3
        for place, tensor in zip(
            places, (gpu.put(a), gpu.put(b), written), strict=True
        ):
            tensors[place] = tensor
        tensors.append(None if bias is None else gpu.put(bias))
        more = {"pass_": pass_, "dtype": dtype, "activation": linear}
        options = {**words, **more, "bias": bias is not None}
        device.Call(gpu, native, algorithm, options, tensors)()
        gpu.wait()
        results.append(gpu.get(written, shape, a.dtype))
    return results[0], results[0].tobytes() == results[1].tobytes()


def check(gpu, native, algorithm, words, pass_, dtype, seed):
    """Raises an AssertionError where a kernel is wrong."""
    rng, kind, shapes = np.random.default_rng(seed), types()[dtype], shapes_of(words)
    a, b = (
        rng.standard_normal(shapes[place], np.float32).astype(kind)
        for place in PLACES[pass_][:2]
    )
    magnitude = exact(words, pass_, np.abs(a), np.abs(b))
    expected = exact(words, pass_, a, b)
    result, same = run(gpu, native, algorithm, words, pass_, dtype, a, b)
    reference.assert_accurate(result, expected, magnitude)
    assert same, "two runs differ in bits"
    if pass_ != "filter_gradient":
        image = PLACES[pass_][2]
        first = words["layout"] == "channels_first"
        channels = shapes[image][1 if first else -1]
        bias = rng.standard_normal(channels, np.float32).astype(kind)
        result, _ = run(
            gpu, native, algorithm, words, pass_, dtype, a, b, bias, "relu6"
        )
        wide = np.abs(np.asarray(bias, np.float64))
        reference.assert_accurate(
            result,
            reference.finish(expected, bias, "relu6", words["layout"]),
            reference.finish(magnitude, wide, "linear", words["layout"]),
        )
    if gpu.__class__ is device.Torch and dtype != "bfloat16" and expected.size:
        compare_with_cudnn(gpu, words, pass_, a, b, expected, magnitude)


def compare_with_cudnn(gpu, words, pass_, a, b, expected, magnitude):
    """Asserts that cuDNN, through PyTorch, agrees with the reference as well.

    A mistake in how this test reads a problem would show here, where kconv and the
    reference, which share the reading, would agree.
    """
    torch = gpu.torch
    if any(before != after for before, after in words["padding"]):
        return  # PyTorch pads both sides alike
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
    if shapes[0][0] == 0:
        return
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


def main():
    """Checks everything; the exit status says whether all is right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="few and small cases")
    small = parser.parse_args().small
    gpu, native = device.find(), device.library()
    print(f"{gpu.gpu}, {gpu.name}", flush=True)
    table = {"direct": DIRECT, "depthwise": DEPTHWISE}
    if not small:
        table["direct"] = table["direct"] + DIRECT_LARGE + DEPTHWISE
        table["depthwise"] = table["depthwise"] + DEPTHWISE_LARGE
    dtypes = {"direct": list(types()), "depthwise": ["float32", "float16", "bfloat16"]}
    checks = failures = 0
    for algorithm, cases in table.items():
        start, before = time.perf_counter(), checks
        for number, words in enumerate(both_layouts(cases)):
            for dtype in ["float32"] if small else dtypes[algorithm]:
                for pass_ in PASSES:
                    checks += 1
                    try:
                        check(gpu, native, algorithm, words, pass_, dtype, number)
                    except (AssertionError, RuntimeError, ValueError) as error:
                        failures += 1
                        print(f"FAILED {algorithm} {pass_} {dtype} {words}: {error}")
        seconds = time.perf_counter() - start
        print(f"{algorithm}: {checks - before} checks, {seconds:.0f} s", flush=True)
    start = time.perf_counter()
    more, failed = deformable.check_all(gpu, native, types(), small)
    seconds = time.perf_counter() - start
    print(f"deformable: {more} checks, {seconds:.0f} s", flush=True)
    checks, failures = checks + more, failures + failed
    print(f"{checks} checks, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
