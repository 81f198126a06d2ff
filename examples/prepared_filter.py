"""Times convolutions of one image with their filter as it is and prepared, in turns."""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

import kconv


def main():
    """Times and prints medians in milliseconds."""
    tf.config.threading.set_intra_op_parallelism_threads(2)
    for size, channels in ((28, 512), (14, 512), (14, 256), (7, 512)):
        images = tf.random.normal((1, size, size, channels))
        kernel = tf.random.normal((3, 3, channels, channels))
        calls = {
            name: tf.function(
                lambda x=images, k=k: kconv.ops.conv(
                    x, k, padding="same", algorithm="winograd"
                )
            )
            for name, k in (
                ("as it is", kernel),
                ("prepared", kconv.ops.prepare_filter(kernel)),
            )
        }
        seconds = {name: [] for name in calls}
        for _ in range(60):
            for name, call in calls.items():
                begin = time.perf_counter()
                call().numpy()
                seconds[name].append(time.perf_counter() - begin)
        print(f"{size}x{size}, {channels} channels", end="")
        for name, times in seconds.items():
            print(f"   {name} {1e3 * statistics.median(times):6.2f} ms", end="")
        print()


if __name__ == "__main__":
    main()
