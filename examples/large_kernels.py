"""Times convolutions of large kernels by several algorithms, in turns."""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

import kconv

# Kernel, size, channels, whether depthwise, images.
LAYERS = (
    (9, 56, 64, False, 1),
    (11, 28, 128, False, 8),
    (17, 56, 64, False, 1),
    (31, 28, 64, False, 1),
    (9, 56, 96, True, 8),
    (13, 56, 96, True, 8),
    (31, 28, 128, True, 8),
    (51, 56, 64, True, 1),
)


def make_calls(kernel, size, channels, is_depthwise, batch):
    """Returns a forward pass, and one with both gradients, of each algorithm."""
    x = tf.random.normal((batch, size, size, channels))
    of_group = 1 if is_depthwise else channels
    w = tf.random.normal((kernel, kernel, of_group, channels))

    def forward(name):
        return kconv.ops.conv(x, w, padding="same", algorithm=name)

    def step(name):
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = forward(name)
        return sum(map(tf.reduce_sum, tape.gradient(y, [x, w], y)))

    own = "depthwise" if is_depthwise else "gemm"
    return {
        (pass_.__name__, name): tf.function(lambda p=pass_, n=name: p(n))
        for pass_ in (forward, step)
        for name in ("fft", own, "builtin", "auto")
    }


def main():
    """Times and prints medians in milliseconds."""
    tf.get_logger().setLevel("ERROR")  # graphs are made in a loop on purpose
    tf.config.threading.set_intra_op_parallelism_threads(2)
    for layer in LAYERS:
        calls = make_calls(*layer)
        seconds = {name: [] for name in calls}
        for _ in range(6):
            for name, call in calls.items():
                begin = time.perf_counter()
                call().numpy()
                seconds[name].append(time.perf_counter() - begin)
        kernel, size, channels, is_depthwise, batch = layer
        kind = "depthwise" if is_depthwise else "dense"
        print(
            f"{kernel}x{kernel} {kind}, {size}x{size}, {channels} channels, "
            f"{batch} images"
        )
        for pass_ in ("forward", "step"):
            for (of, name), times in seconds.items():
                if of == pass_:
                    # The first call traces.
                    middle = statistics.median(times[1:])
                    print(f"   {pass_} {name} {1e3 * middle:.2f} ms", end="")
            print(flush=True)


if __name__ == "__main__":
    main()
