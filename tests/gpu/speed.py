"""Times of the GPU library's kernels beside PyTorch's, by CUDA events.

PyTorch's are cuDNN's, or its own where it prefers them, as often for depthwise.

`tests/gpu/run.sh speed`. Medians of single calls, each on the next of several copies of
its tensors, which together are larger than the GPU's second-level cache. Of each time,
the share of the memory's bandwidth (tensors read and written once) and of the peak of
float32 arithmetic without tensor cores.
"""

import ctypes
import statistics
import sys
from typing import NamedTuple

import deformable
import device

PASSES = device.interface.PASSES
CACHES = 3  # sizes of the second-level cache that the copies fill together
WARM, CALLS = 5, (5, 30)
SECONDS = 0.3  # of fewer calls than the most
# The GPU sleeps while the CPU queues the calls, some 20 ms: short kernels would
# otherwise wait for it, and the events would tell the speed of Python.
SLEEP = 40_000_000  # clocks


class Layer(NamedTuple):
    """A convolution with "same" padding, and the algorithms that are timed on it."""

    kernel: int
    size: int
    channels: int
    filters: int
    groups: int
    batch: int
    stride: int
    algorithms: tuple
    dilation: int = 1


def _depthwise(kernel, size, channels, batch, stride):
    sizes = (kernel, size, channels, channels, channels, batch, stride)
    return Layer(*sizes, ("depthwise",))


def _winograd(size, channels, filters, batch, groups=1):
    algorithms = ("winograd:f4", "winograd:f2")
    return Layer(3, size, channels, filters, groups, batch, 1, algorithms)


def _grouped(kernel, size, channels, groups, batch, stride=1):
    sizes = (kernel, size, channels, channels, groups, batch, stride)
    return Layer(*sizes, ("grouped", "gemm"))


def _dense(kernel, size, channels, filters, batch, stride=1, dilation=1):
    sizes = (kernel, size, channels, filters, 1, batch, stride)
    return Layer(*sizes, ("gemm",), dilation)


LAYERS = [
    # Of MobileNet, EfficientNet, ConvNeXt and RepLKNet.
    _depthwise(3, 112, 64, 32, 1),
    _depthwise(3, 56, 128, 64, 1),
    _depthwise(3, 112, 96, 32, 2),
    _depthwise(5, 28, 240, 64, 1),
    _depthwise(5, 56, 144, 32, 2),
    _depthwise(7, 56, 128, 32, 1),
    _depthwise(7, 14, 512, 64, 1),
    _depthwise(13, 28, 256, 32, 1),
    _depthwise(31, 56, 128, 16, 1),
    _depthwise(31, 28, 256, 32, 1),
    # Of VGG and ResNet.
    _winograd(224, 64, 64, 16),
    _winograd(112, 64, 128, 32),
    _winograd(112, 128, 128, 32),
    _winograd(56, 256, 256, 32),
    _winograd(28, 512, 512, 32),
    _winograd(14, 512, 512, 64),
    _winograd(56, 64, 64, 64),
    _winograd(28, 128, 128, 64, 4),
    # Of ResNeXt, of 4 to 32 channels a group, and of RegNet.
    _grouped(3, 56, 128, 32, 64),
    _grouped(3, 56, 256, 32, 64, 2),
    _grouped(3, 28, 256, 32, 64),
    _grouped(3, 14, 512, 32, 64),
    _grouped(3, 7, 1024, 32, 64),
    _grouped(3, 28, 320, 20, 64),
    _grouped(5, 28, 128, 16, 64),
    # Of DeepLab, with dilation; strides, wide kernels and 1x1 of ResNet and ConvNeXt.
    _dense(3, 33, 512, 256, 16, 1, 6),
    _dense(3, 33, 512, 256, 16, 1, 12),
    _dense(3, 28, 512, 512, 32, 1, 2),
    _dense(7, 224, 3, 64, 32, 2),
    _dense(3, 56, 128, 128, 64, 2),
    _dense(5, 27, 64, 192, 64),
    _dense(1, 56, 256, 64, 64),
    _dense(1, 14, 1024, 256, 64),
]
DTYPES = ("float32", "float16", "bfloat16")
LAYOUTS = ("channels_last", "channels_first")


def seconds(torch, calls):
    """Of each call, queued one behind the other."""
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in calls]
    torch.cuda.synchronize()
    torch.cuda._sleep(SLEEP)
    for call, (start, end) in zip(calls, events, strict=True):
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) / 1e3 for start, end in events]


def median(torch, calls):
    """Median seconds of a call, one after the other round the list."""
    for i in range(max(WARM, len(calls))):
        calls[i % len(calls)]()
    least, most = CALLS
    (one,) = seconds(torch, calls[:1])
    count = min(most, max(least, int(SECONDS / one)))
    return statistics.median(
        seconds(torch, [calls[i % len(calls)] for i in range(count)])
    )


def measure(gpu, native, layer, dtype, layout, cache):
    """Yields (pass, {name: seconds}, bytes, flops) of each pass of a layer.

    The names are those of kconv's algorithms that take the problem, "cuDNN" and, in
    float32, "TF32": cuDNN with tensor cores, which round more.
    """
    torch = gpu.torch
    kernel, size, channels, filters, groups, batch, stride, algorithms, apart = layer
    pad = kernel // 2 * apart
    out = (size + 2 * pad - (kernel - 1) * apart - 1) // stride + 1
    kind = getattr(torch, dtype)
    item = torch.empty((), dtype=kind).element_size()
    of_filter = kernel**2 * channels * filters // groups
    elements = batch * (channels * size**2 + filters * out**2) + of_filter
    copies = max(2, CACHES * cache // (elements * item) + 1)
    words = {
        "input_size": (size, size),
        "kernel_size": (kernel, kernel),
        "in_channels": channels,
        "out_channels": filters,
        "batch": batch,
        "groups": groups,
        "strides": (stride, stride),
        "dilation_rate": (apart, apart),
        "padding": ((pad, pad),) * 2,
        "layout": layout,
        "dtype": dtype,
    }
    last = layout == "channels_last"

    def image(spatial, of_channels):
        shape = (batch, of_channels, spatial, spatial)
        tensor = torch.randn(shape, device="cuda").to(kind)
        order = torch.channels_last if last else torch.contiguous_format
        return tensor.to(memory_format=order)

    xs = [image(size, channels) for _ in range(copies)]
    ys = [image(out, filters) for _ in range(copies)]
    shape = (filters, channels // groups, kernel, kernel)
    w = torch.randn(shape, device="cuda").to(kind)
    ours = w.permute(2, 3, 1, 0).contiguous()
    options = ([stride] * 2, [pad] * 2, [apart] * 2, False, [0] * 2, groups)
    flops = 2 * batch * out * out * of_filter
    for number, pass_ in enumerate(PASSES):
        seconds = {}
        problem = {**words, "pass_": pass_}
        for algorithm in algorithms:
            asked = ctypes.byref(device.interface.problem(**problem))
            if native.kconv_cuda_refuse(algorithm.encode(), asked) is not None:
                continue
            calls = [
                device.Call(
                    *(gpu, native, algorithm, problem),
                    (x, ours.clone() if number == 2 else ours, y, None),
                )
                for x, y in zip(xs, ys, strict=True)
            ]
            seconds[algorithm] = median(torch, calls)
            del calls
        if not seconds:
            continue
        wanted = [i == number - 1 for i in range(3)]

        def stock(x, y, number=number, wanted=wanted):
            if number == 0:
                return torch.nn.functional.conv2d(
                    x, w, None, stride, pad, apart, groups=groups
                )
            return torch.ops.aten.convolution_backward(
                y, x, w, None, *options, output_mask=wanted
            )

        calls = [lambda x=x, y=y: stock(x, y) for x, y in zip(xs, ys, strict=True)]
        seconds["cuDNN"] = median(torch, calls)
        if dtype == "float32" and groups < channels:
            torch.backends.cudnn.allow_tf32 = True
            seconds["TF32"] = median(torch, calls)
            torch.backends.cudnn.allow_tf32 = False
        yield pass_, seconds, elements * item, flops


def main():
    """Prints the table."""
    gpu, native = device.find(), device.library()
    if not isinstance(gpu, device.Torch):
        sys.exit("The table needs PyTorch, for its times.")
    torch = gpu.torch
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    limits = device.peaks()
    bandwidth, peak, cache = limits.bandwidth, limits.flops, limits.cache
    print(f"{gpu.gpu}, {gpu.name}, cuDNN {torch.backends.cudnn.version()}, TF32 off")
    print(
        f"bandwidth {bandwidth / 1e12:.2f} TB/s, float32 {peak / 1e12:.1f} TFLOP/s, "
        f"L2 {cache / 2**20:.0f} MiB"
    )
    print(
        f"{'kernel size channels batch stride dilation':40}{'type':>9}{'layout':>15}"
        f"{'pass':>17}{'by':>13}{'µs':>10}{'cuDNN/it':>10}{'memory':>8}{'peak':>6}"
    )
    for layout in LAYOUTS:
        for dtype in DTYPES:
            for layer in LAYERS:
                kernel, size, channels, filters, groups, batch, stride, _, apart = layer
                name = f"{kernel}x{kernel} {size}x{size} {channels}-{filters}/{groups}"
                name += f" {batch} /{stride}" + (f" *{apart}" if apart > 1 else "")
                for row in measure(gpu, native, layer, dtype, layout, cache):
                    pass_, times, moved, flops = row
                    for by, seconds in times.items():
                        of_memory = moved / seconds / bandwidth if bandwidth else 0
                        of_peak = flops / seconds / peak if peak else 0
                        print(
                            f"{name:40}{dtype:>9}{layout:>15}{pass_:>17}{by:>13}"
                            f"{seconds * 1e6:10.1f}{times['cuDNN'] / seconds:10.2f}"
                            f"{of_memory:8.0%}{of_peak:6.0%}",
                            flush=True,
                        )
                torch.cuda.empty_cache()
    deformable.table(gpu, native, median, peak)


if __name__ == "__main__":
    main()
