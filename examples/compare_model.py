"""Times a model of keras.applications, stock against converted, in turns.

    python examples/compare_model.py VGG16
    python examples/compare_model.py ResNet50 --batch 8 --size 128 --train

Stock TensorFlow may be faster with oneDNN or without: run it with
TF_ENABLE_ONEDNN_OPTS=1 as well, and count the better one.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

import kconv


def make_call(model, images, labels, train):
    """Returns a function without arguments: one prediction or training step."""
    if not train:
        predict = tf.function(lambda x: model(x, training=False))
        return lambda: predict(images).numpy()
    loss = keras.losses.SparseCategoricalCrossentropy()
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        return value

    return lambda: step().numpy()


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
    arguments = parser.parse_args()

    tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
    shape = (arguments.size, arguments.size, 3)
    stock = getattr(keras.applications, arguments.model)(
        weights=None, input_shape=shape
    )
    images = tf.random.normal((arguments.batch, *shape))
    labels = tf.zeros((arguments.batch,), tf.int32)
    calls = {
        name: make_call(model, images, labels, arguments.train)
        for name, model in (("stock", stock), ("kconv", kconv.convert(stock)))
    }
    seconds = {name: [] for name in calls}
    for turn in range(arguments.rounds + 2):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if turn >= 2:  # after tracing and a warm-up
                seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name}  {1e3 * median:8.1f} ms")
    print(f"ratio {medians['stock'] / medians['kconv']:8.2f}")


if __name__ == "__main__":
    main()
