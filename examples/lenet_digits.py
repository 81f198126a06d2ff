"""Trains LeNet-5 of `kconv.models` to read scikit-learn's handwritten digits.

They are 1797 real ones of 8x8 pixels, scaled up to 24x24 and framed, because LeNet-5
takes 32x32. A fifth of them is held out. The others are turned, moved and scaled a bit,
anew in every epoch. The plot shows how the model learnt, what it takes for what, and
the digits that it read worst.

    pip install '.[cpu,demo]'
    python examples/lenet_digits.py --plot lenet_digits.png
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split

import kconv

SHAPE = (32, 32, 1)

# Largest difference of the probabilities of kconv and stock Keras.
TOLERANCE = 1e-4


def load_data(seed):
    """Returns x_train, x_test, y_train, y_test; the images are from 0 to 1."""
    digits = load_digits()
    images = digits.images[..., np.newaxis].astype("float32") / 16
    images = np.asarray(keras.ops.image.resize(images, (24, 24)))
    images = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    return train_test_split(
        images, digits.target, test_size=0.2, random_state=seed, stratify=digits.target
    )


def make_dataset(images, labels, batch):
    """Returns a `tf.data.Dataset` of batches, in another order and guise every time."""
    vary = keras.Sequential(
        [
            keras.layers.RandomRotation(0.04, fill_mode="constant"),
            keras.layers.RandomTranslation(0.08, 0.08, fill_mode="constant"),
            keras.layers.RandomZoom(0.1, 0.1, fill_mode="constant"),
        ]
    )
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    dataset = dataset.shuffle(len(images)).batch(batch)
    return dataset.map(lambda x, y: (vary(x, training=True), y)).prefetch(2)


def draw(path, history, images, labels, probabilities, least):
    """Writes learning curves, confusion matrix and misread digits as a PNG.

    Args:
        path: Path of the file.
        history: Dictionary from name to a list with a number for each epoch.
        images: Array (n, 32, 32, 1), digits held out.
        labels: Array (n,), what they are.
        probabilities: Array (n, 10), what the model says.
        least: Float, the accuracy to be reached.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(11, 7), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.5, 1))
    curve, matrix = upper.subplots(1, 2, width_ratios=(1.4, 1))

    epochs = range(1, len(history["loss"]) + 1)
    curve.plot(epochs, history["accuracy"], "o-", label="digits it learns from, varied")
    curve.plot(epochs, history["val_accuracy"], "s-", label="digits held out")
    curve.axhline(least, color="black", linestyle=":", label="to be reached")
    curve.yaxis.set_major_formatter("{x:.0%}")
    curve.xaxis.get_major_locator().set_params(integer=True)
    curve.set(xlabel="epoch", ylabel="accuracy", title="Learning curves")
    curve.grid(alpha=0.3)
    curve.legend(loc="lower right")

    read = probabilities.argmax(axis=1)
    counts = confusion_matrix(labels, read, labels=range(10))
    matrix.imshow(counts, cmap="Blues")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if count > counts.max() / 2 else "black"
            matrix.text(column, row, count, ha="center", va="center", color=colour)
    matrix.set(xticks=range(10), yticks=range(10), xlabel="read as", ylabel="is")
    matrix.set_title("Digits held out")

    certainty = probabilities[np.arange(len(labels)), labels]
    worst = np.argsort(certainty)[:10]
    lower.suptitle(
        "The ten digits held out that were read worst: what they are, with the "
        "probability given; in red what they were taken for"
    )
    for axis, i in zip(lower.subplots(1, 10), worst, strict=False):
        axis.imshow(images[i, ..., 0], cmap="gray_r")
        axis.set(xticks=[], yticks=[])
        axis.set_xlabel(f"{labels[i]}: {certainty[i]:.0%}")
        if read[i] != labels[i]:
            mistaken = f"{read[i]}: {probabilities[i].max():.0%}"
            axis.set_title(mistaken, color="tab:red", fontsize="medium")
    figure.suptitle("LeNet-5 on kconv's kernels reads scikit-learn's digits")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main():
    """Trains, tests and compares with stock Keras; returns a sentence if that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--epochs", type=int, default=30, help="times over the digits")
    parser.add_argument("--batch", type=int, default=32, help="digits a step")
    parser.add_argument(
        "--least", type=float, default=0.97, help="accuracy to be reached"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument(
        "--plot", type=pathlib.Path, default="lenet_digits.png", help="file to write"
    )
    options = parser.parse_args()

    keras.utils.set_random_seed(options.seed)
    x_train, x_test, y_train, y_test = load_data(options.seed)
    model = kconv.models.build("lenet5", input_shape=SHAPE, classes=10)
    model.summary()
    steps = options.epochs * -(-len(x_train) // options.batch)
    rate = keras.optimizers.schedules.CosineDecay(0.05, steps)
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
    )
    history = model.fit(
        make_dataset(x_train, y_train, options.batch),
        epochs=options.epochs,
        shuffle=False,  # the dataset does that
        validation_data=(x_test, y_test),
        verbose=1 if sys.stdout.isatty() else 2,
    ).history

    probabilities = model.predict(x_test, verbose=0)
    draw(options.plot, history, x_test, y_test, probabilities, options.least)
    accuracy = history["val_accuracy"][-1]
    stock = kconv.models.build(
        "lenet5", input_shape=SHAPE, classes=10, layers=keras.layers
    )
    stock.set_weights(model.get_weights())
    difference = np.abs(stock.predict(x_test, verbose=0) - probabilities).max()

    wrong = (probabilities.argmax(axis=1) != y_test).sum()
    print(f"Learning curves, confusion matrix, misread digits: {options.plot}")
    print(f"Largest difference to stock Keras: {difference:.1e} of a probability.")
    print(
        f"After {options.epochs} epochs LeNet-5 reads {accuracy:.1%} of {len(y_test)} "
        f"digits held out, {wrong} wrongly."
    )
    if difference > TOLERANCE:
        return f"kconv and stock Keras disagree: {difference:.1e} > {TOLERANCE:.0e}."
    if accuracy < options.least:
        return f"LeNet-5 has not learnt enough: accuracy below {options.least:.0%}."


if __name__ == "__main__":
    sys.exit(main())
