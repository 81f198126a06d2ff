"""kconv's layers on a GPU in TensorFlow, against the CPU in the same process.

`tests/gpu/run.sh tensorflow`, with a TensorFlow that has CUDA and kconv built for it.
It proves what `gpu_ops.py` cannot without a GPU: that the ops run there, in order with
TensorFlow's own on its stream, and in its memory.
"""

import os
import sys

os.environ["KCONV_GPU"] = "1"
os.environ["KCONV_CHOICES"] = "off"

import numpy as np
import tensorflow as tf

import kconv
from kconv import cuda, gpu, native

# Input, kernel, and options of kconv.ops.conv.
CALLS = (
    ((4, 33, 30, 32), (3, 3, 32, 48), {"padding": "same"}),
    ((4, 33, 30, 32), (3, 3, 8, 48), {"strides": 2}),
    ((2, 40, 41, 16), (3, 3, 16, 24), {"dilation_rate": 3}),
    ((4, 33, 30, 40), (5, 5, 1, 40), {"padding": "same"}),
    ((2, 300, 24), (5, 24, 32), {"padding": ((4, 0),)}),
    ((2, 9, 10, 11, 6), (3, 3, 3, 6, 8), {"padding": "same"}),
)
TYPES = {"float32": 2e-5, "float16": 5e-3, "bfloat16": 4e-2}

# Repeats of the same training steps, which must give the same bits.
STEPS = 20


def random(shape, seed, dtype="float32"):
    """Values whose sums of products are not far from 1."""
    values = np.random.default_rng(seed).standard_normal(shape)
    scale = np.sqrt(np.prod(shape[:-1])) if seed else 1.0
    return tf.cast(tf.constant(values / scale, "float32"), dtype)


def passes(device, x, kernel, bias, algorithm, options):
    """The output and all gradients, on a device."""
    with tf.device(device):
        x, kernel, bias = (tf.identity(one) for one in (x, kernel, bias))
        with tf.GradientTape() as tape:
            tape.watch([x, kernel, bias])
            y = kconv.ops.conv(
                x, kernel, bias=bias, activation="relu", algorithm=algorithm, **options
            )
            # Ops of TensorFlow's before and after ours, on the same stream.
            total = tf.reduce_sum(tf.cast(y * y, "float32"))
        found = [y, *tape.gradient(total, [x, kernel, bias])]
    if "GPU" in device:
        assert all("GPU" in one.device for one in found), [one.device for one in found]
    return [tf.cast(one, "float32").numpy() for one in found]


def compare(found, expected, bound, words):
    """Ends the program where two results differ by more than a part of the largest."""
    for name, one, other in zip(("y", "dx", "dw", "db"), found, expected, strict=True):
        error = np.max(np.abs(one - other)) / max(np.max(np.abs(other)), 1e-30)
        if not error <= bound:
            sys.exit(f"{words}: {name} differs by {error:.2e} of the largest value.")


def check_ops(names):
    """Every algorithm, in every type, where it takes the problem."""
    done = dict.fromkeys(names, 0)
    for number, (input_shape, kernel_shape, options) in enumerate(CALLS):
        for dtype, bound in TYPES.items():
            x, kernel = random(input_shape, 0, dtype), random(kernel_shape, 1, dtype)
            bias = random(kernel_shape[-1:], 2, dtype)
            operands = x, kernel, bias
            expected = passes("/CPU:0", *operands, "direct", options)
            for name in names:
                try:
                    found = passes("/GPU:0", *operands, name, options)
                except (tf.errors.InvalidArgumentError, ValueError):
                    continue  # refused; check.py says whether it may be
                slack = 20 if name.startswith("winograd") else 1
                words = f"{name}, call {number}, {dtype}"
                compare(found, expected, slack * bound, words)
                done[name] += 1
    print("calls that agree:", done)
    missing = [name for name, count in done.items() if count == 0]
    if missing:
        sys.exit(f"No call was taken by {missing}.")


def check_deformable(device="/GPU:0"):
    """Deformable convolution, whose results no other op of the training shows."""
    operands = [
        random((2, 17, 15, 8), 0),
        random((3, 3, 4, 12), 1),
        random((2, 17, 15, 36), 0),
        random((2, 17, 15, 18), 0),
    ]
    options = {"padding": "same", "offset_groups": 2}

    def passes(device):
        with tf.device(device):
            given = [tf.identity(one) for one in operands]
            with tf.GradientTape() as tape:
                tape.watch(given)
                y = kconv.ops.deform_conv(*given, **options)
                total = tf.reduce_sum(y * y)
            found = [y, *tape.gradient(total, given)]
        if not all(one.device.endswith(device[1:]) for one in found):
            sys.exit(f"Not on {device}: {[one.device for one in found]}")
        return [one.numpy() for one in found]

    for i, (one, other) in enumerate(
        zip(passes(device), passes("/CPU:0"), strict=True)
    ):
        error = np.max(np.abs(one - other)) / np.max(np.abs(other))
        if not error <= 1e-4:
            sys.exit(f"deformable: result {i} differs by {error:.2e} of the largest.")
    print("deformable convolution agrees")


def check_training():
    """A model that trains on the GPU gives the same bits every time."""

    def losses():
        tf.keras.utils.set_random_seed(3)
        layers = [
            kconv.layers.Conv2D(16, 3, activation="relu", algorithm="direct"),
            kconv.layers.DepthwiseConv2D(5, padding="same", algorithm="depthwise"),
            kconv.layers.DeformableConv2D(8, 3),
            tf.keras.layers.GlobalAveragePooling2D(),
            tf.keras.layers.Dense(10),
        ]
        model = tf.keras.Sequential([tf.keras.Input((24, 24, 3)), *layers])
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss)
        x = random((8, 24, 24, 3), 0).numpy()
        labels = np.arange(8)
        return [model.train_on_batch(x, labels) for _ in range(STEPS)]

    first, second = losses(), losses()
    if not first[-1] < first[0]:
        sys.exit(f"Training does not learn: {first}")
    # TensorFlow's own ops may differ from run to run; ours must not add to it.
    print("losses:", first[0], "to", first[-1], "; same bits again:", first == second)


def main():
    """Runs all, or says what is missing."""
    if not tf.config.list_physical_devices("GPU"):
        sys.exit("TensorFlow sees no GPU.")
    native.ops()
    if not gpu.is_used():
        sys.exit(f"kconv's GPU library is not in use. {cuda.find().why_missing}")
    check_ops(cuda.algorithms(native.gpu()))
    check_deformable()
    check_training()


if __name__ == "__main__":
    main()
