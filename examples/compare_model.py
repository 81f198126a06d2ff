"""Times a model of keras.applications, stock against converted, in turns.

    python examples/compare_model.py VGG16
    python examples/compare_model.py ResNet50 --batch 8 --size 128 --train
    python examples/compare_model.py ConvNeXtTiny --batch 8 --size 128 --train

Stock runs as a tf.function and, which may be faster, with all of it compiled by XLA
(jit_compile=True): the better one counts. It may also be faster with oneDNN or without:
run this with TF_ENABLE_ONEDNN_OPTS=1 and with 0, and count the better one.

A call that takes longer than --patience seconds is made twice only: to train a model
with layers in groups, as ConvNeXt, may take stock minutes a step.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

import kconv


def make_call(model, images, labels, train, jit_compile):
    """Returns a function without arguments: one prediction or training step."""
    if not train:
        predict = tf.function(
            lambda x: model(x, training=False), jit_compile=jit_compile
        )
        return lambda: predict(images).numpy()
    loss = keras.losses.SparseCategoricalCrossentropy()
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=jit_compile)
    def step():
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        return value

    return lambda: step().numpy()


def measure(calls, rounds, patience):
    """Makes calls in turns.

    Args:
        calls: A dictionary from name to function.
        rounds: How often each is measured.
        patience: Seconds; a call that takes longer is not repeated.

    Returns:
        A dictionary from name to a list of seconds.
    """
    seconds = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            if seconds[name] and seconds[name][-1] > patience:
                continue
            begin = time.perf_counter()
            call()
            taken = time.perf_counter() - begin
            # After tracing and, unless that is long, a warm-up.
            if turn >= 2 or (turn == 1 and taken > patience):
                seconds[name].append(taken)
    return seconds


def main():
    """Parses the command line, times and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a name out of keras.applications, as VGG16")
    parser.add_argument("--batch", type=int, default=1, help="images a call")
    parser.add_argument("--size", type=int, default=224, help="height and width")
    parser.add_argument("--train", action="store_true", help="training steps")
    parser.add_argument("--threads", type=int, default=2, help="in an operation")
    parser.add_argument("--rounds", type=int, default=10, help="calls of each")
    parser.add_argument(
        "--patience", type=float, default=5.0, help="seconds for a call to be repeated"
    )
    parser.add_argument(
        "--no-xla", action="store_true", help="stock without XLA for the whole model"
    )
    arguments = parser.parse_args()

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    shape = (arguments.size, arguments.size, 3)
    stock = getattr(keras.applications, arguments.model)(
        weights=None, input_shape=shape
    )
    images = tf.random.normal((arguments.batch, *shape))
    labels = tf.zeros((arguments.batch,), tf.int32)
    ways = {"stock": (stock, False), "stock, XLA": (stock, True)}
    if arguments.no_xla:
        del ways["stock, XLA"]
    ways["kconv"] = (kconv.convert(stock), False)
    calls = {
        name: make_call(model, images, labels, arguments.train, jit_compile)
        for name, (model, jit_compile) in ways.items()
    }
    seconds = measure(calls, arguments.rounds, arguments.patience)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:10}  {1e3 * median:8.1f} ms  ({len(seconds[name])} calls)")
    ours = medians.pop("kconv")
    print(f"ratio       {min(medians.values()) / ours:8.2f}")


if __name__ == "__main__":
    main()
