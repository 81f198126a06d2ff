"""Times of the GPU library's kernels beside PyTorch's, by CUDA events.

PyTorch's are cuDNN's, or its own where it prefers them, as often for depthwise.

`tests/gpu/run.sh speed`. Medians of single calls, each on the next of several copies of
its tensors, which together are larger than the GPU's second-level cache. Of each time,
the share of the memory's bandwidth (tensors read and written once) and of the peak of
float32 arithmetic without tensor cores.
"""

import statistics
import sys

import deformable
import device

PASSES = device.interface.PASSES
CACHES = 3  # sizes of the second-level cache that the copies fill together
WARM, CALLS = 5, (5, 30)
SECONDS = 0.3  # of fewer calls than the most
# The GPU sleeps while the CPU queues the calls, some 20 ms: short kernels would
# otherwise wait for it, and the events would tell the speed of Python.
SLEEP = 40_000_000  # clocks

# Kernel, size, channels, batch, stride: of MobileNet, EfficientNet, ConvNeXt and
# RepLKNet.
LAYERS = [
    (3, 112, 64, 32, 1),
    (3, 56, 128, 64, 1),
    (3, 112, 96, 32, 2),
    (5, 28, 240, 64, 1),
    (5, 56, 144, 32, 2),
    (7, 56, 128, 32, 1),
    (7, 14, 512, 64, 1),
    (13, 28, 256, 32, 1),
    (31, 56, 128, 16, 1),
    (31, 28, 256, 32, 1),
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
    """Yields (pass, seconds of kconv's depthwise, of PyTorch, bytes, flops)."""
    torch = gpu.torch
    kernel, size, channels, batch, stride = layer
    pad = kernel // 2
    out = (size + 2 * pad - kernel) // stride + 1
    kind = getattr(torch, dtype)
    item = torch.empty((), dtype=kind).element_size()
    elements = batch * channels * (size * size + out * out) + kernel**2 * channels
    copies = max(2, CACHES * cache // (elements * item) + 1)
    words = {
        "input_size": (size, size),
        "kernel_size": (kernel, kernel),
        "in_channels": channels,
        "out_channels": channels,
        "batch": batch,
        "groups": channels,
        "strides": (stride, stride),
        "padding": ((pad, pad),) * 2,
        "layout": layout,
        "dtype": dtype,
    }
    last = layout == "channels_last"

    def image(spatial):
        shape = (batch, channels, spatial, spatial)
        tensor = torch.randn(shape, device="cuda").to(kind)
        order = torch.channels_last if last else torch.contiguous_format
        return tensor.to(memory_format=order)

    xs, ys = ([image(s) for _ in range(copies)] for s in (size, out))
    w = torch.randn((channels, 1, kernel, kernel), device="cuda").to(kind)
    ours = w.permute(2, 3, 1, 0).contiguous()
    options = ([stride] * 2, [pad] * 2, [1] * 2, False, [0] * 2, channels)
    flops = 2 * batch * channels * out * out * kernel * kernel
    for number, pass_ in enumerate(PASSES):
        calls = [
            device.Call(
                *(gpu, native, "depthwise", {**words, "pass_": pass_}),
                (x, ours.clone() if number == 2 else ours, y, None),
            )
            for x, y in zip(xs, ys, strict=True)
        ]
        mine = median(torch, calls)
        wanted = [i == number - 1 for i in range(3)]

        def stock(x, y, number=number, wanted=wanted):
            if number == 0:
                return torch.nn.functional.conv2d(
                    x, w, None, stride, pad, 1, groups=channels
                )
            return torch.ops.aten.convolution_backward(
                y, x, w, None, *options, output_mask=wanted
            )

        theirs = median(
            torch, [lambda x=x, y=y: stock(x, y) for x, y in zip(xs, ys, strict=True)]
        )
        yield pass_, mine, theirs, elements * item, flops


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
        f"{'kernel size channels batch stride':34}{'type':>9}{'layout':>15}{'pass':>17}"
        f"{'kconv µs':>10}{'PyTorch µs':>11}{'ratio':>7}{'memory':>8}{'peak':>6}"
    )
    for layout in LAYOUTS:
        for dtype in DTYPES:
            for layer in LAYERS:
                name = "{0}x{0} {1}x{1} {2} {3} /{4}".format(*layer)
                for row in measure(gpu, native, layer, dtype, layout, cache):
                    pass_, mine, theirs, moved, flops = row
                    of_memory = f"{moved / mine / bandwidth:.0%}"
                    of_peak = f"{flops / mine / peak:.0%}"
                    print(
                        f"{name:34}{dtype:>9}{layout:>15}{pass_:>17}"
                        f"{mine * 1e6:10.1f}{theirs * 1e6:11.1f}"
                        f"{theirs / mine:7.2f}{of_memory:>8}{of_peak:>6}",
                        flush=True,
                    )
                torch.cuda.empty_cache()
    deformable.table(gpu, native, median, peak)


if __name__ == "__main__":
    main()
