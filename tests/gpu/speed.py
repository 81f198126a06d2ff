"""Times of the GPU library's kernels beside cuDNN's, by CUDA events.

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
WARM, CALLS = 5, 30

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


def peaks(torch):
    """Bytes a second of the memory, float32 operations a second, bytes of L2."""
    gpu = torch.cuda.get_device_properties(0)
    clock = getattr(gpu, "clock_rate", 0) * 1e3
    memory = getattr(gpu, "memory_clock_rate", 0) * 1e3
    bits = getattr(gpu, "memory_bus_width", 0)
    lanes = 64 if (gpu.major, gpu.minor) == (8, 0) else 128
    return (
        2 * memory * bits / 8,
        2 * lanes * gpu.multi_processor_count * clock,
        getattr(gpu, "L2_cache_size", 0) or 64 << 20,
    )


def median(torch, calls):
    """Median seconds of a call, one after the other round the list."""
    for i in range(max(WARM, len(calls))):
        calls[i % len(calls)]()
    events = []
    for i in range(CALLS):
        pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        pair[0].record()
        calls[i % len(calls)]()
        pair[1].record()
        events.append(pair)
    torch.cuda.synchronize()
    return statistics.median(one.elapsed_time(two) for one, two in events) / 1e3


def measure(gpu, native, layer, dtype, layout, cache):
    """Yields (pass, seconds of kconv's depthwise, seconds of cuDNN, bytes, flops)."""
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
        sys.exit("The table needs PyTorch, for cuDNN's times.")
    torch = gpu.torch
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False
    bandwidth, peak, cache = peaks(torch)
    print(f"{gpu.gpu}, {gpu.name}, cuDNN {torch.backends.cudnn.version()}, TF32 off")
    print(
        f"bandwidth {bandwidth / 1e12:.2f} TB/s, float32 {peak / 1e12:.1f} TFLOP/s, "
        f"L2 {cache / 2**20:.0f} MiB"
    )
    if not bandwidth or not peak:
        print("This PyTorch does not tell the clocks: shares are left out.")
    print(
        f"{'kernel size channels batch stride':34}{'type':>9}{'layout':>15}{'pass':>17}"
        f"{'kconv µs':>10}{'cuDNN µs':>10}{'ratio':>7}{'memory':>8}{'peak':>6}"
    )
    for layout in LAYOUTS:
        for dtype in DTYPES:
            for layer in LAYERS:
                name = "{0}x{0} {1}x{1} {2} {3} /{4}".format(*layer)
                for row in measure(gpu, native, layer, dtype, layout, cache):
                    pass_, mine, theirs, moved, flops = row
                    of_memory = f"{moved / mine / bandwidth:.0%}" if bandwidth else ""
                    of_peak = f"{flops / mine / peak:.0%}" if peak else ""
                    print(
                        f"{name:34}{dtype:>9}{layout:>15}{pass_:>17}"
                        f"{mine * 1e6:10.1f}{theirs * 1e6:10.1f}"
                        f"{theirs / mine:7.2f}{of_memory:>8}{of_peak:>6}",
                        flush=True,
                    )
                torch.cuda.empty_cache()
    deformable.table(gpu, native, median, peak)


if __name__ == "__main__":
    main()
