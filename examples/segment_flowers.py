"""Learns to cut flowers out of photographs: a U-Net made of kconv's layers.

flower_images.py puts the images together from scikit-learn's two photographs: flowers
among impostors that neither colour nor outline gives away. What the model is tested on
has backgrounds and impostors that it never saw.

    pip install '.[cpu,demo]'
    python examples/segment_flowers.py --plot segmentation.png
"""

import argparse
import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from flower_images import Composer
from rich.console import Console
from rich.progress import track

import kconv
from kconv import layers

# Largest difference of the probabilities of kconv and stock Keras.
TOLERANCE = 1e-4
TIMING_ROUNDS = 8

# Progress is not output.
console = Console(stderr=True)


def make_unet(size, width):
    """Returns a U-Net: its outputs are logits, above zero where a flower is.

    Source: Ronneberger, Fischer, Brox: U-Net: convolutional networks for biomedical
    image segmentation, 2015.

    Args:
        size: Integer, height and width of the images, a multiple of 8.
        width: Integer, the filters of the first level; each next one has twice as many.
    """
    options = {"padding": "same", "activation": "relu"}

    def double(x, filters):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, kernel_initializer="he_normal", **options)(x)
        return x

    inputs = x = layers.Input((size, size, 3))
    skips = []
    for filters in (width, 2 * width, 4 * width):
        skips.append((filters, double(x, filters)))
        x = layers.MaxPooling2D(2)(skips[-1][1])
    x = double(x, 8 * width)
    for filters, skip in reversed(skips):
        x = layers.Conv2DTranspose(filters, 2, strides=2, **options)(x)
        x = double(layers.Concatenate()([skip, x]), filters)
    return keras.Model(inputs, layers.Conv2D(1, 1)(x), name="unet")


def iou(truth, predicted):
    """Intersection over union of all pixels of all images."""
    truth = truth > 0.5
    return (truth & predicted).sum() / (truth | predicted).sum()


def find_threshold(images, masks):
    """Returns the best rule of one colour channel and one threshold.

    Args:
        images: Array (n, height, width, 3).
        masks: Array (n, height, width, 1).

    Returns:
        A function from images to masks.
    """
    rules = [
        lambda x, c=channel, sign=sign, t=threshold: sign * (x[..., c, None] - t) > 0
        for channel in range(3)
        for sign in (-1, 1)
        for threshold in np.linspace(0, 1, 16)
    ]
    return max(rules, key=lambda rule: iou(masks, rule(images)))


def time_steps(models, images, masks):
    """Times training steps of one batch in turns; returns medians in milliseconds."""
    seconds = {name: [] for name in models}
    for turn in track(
        range(TIMING_ROUNDS + 2), "Timing", console=console, transient=True
    ):
        for name, model in models.items():
            started = time.perf_counter()
            model.train_on_batch(images, masks)
            if turn >= 2:  # after tracing and a warm-up
                seconds[name].append(time.perf_counter() - started)
    return {name: 1e3 * statistics.median(times) for name, times in seconds.items()}


def draw(path, images, masks, probabilities, bars, least):
    """Writes images, truths and predictions, and a diagram of the bars, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    count = len(images)
    figure = pyplot.figure(figsize=(1.7 * count, 7.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(5.2, 2.4))
    axes = upper.subplots(3, count)
    for column in range(count):
        axes[0, column].imshow(images[column])
        axes[1, column].imshow(masks[column], cmap="gray", vmin=0, vmax=1)
        shown = axes[2, column].imshow(probabilities[column], vmin=0, vmax=1)
    for row, label in zip(axes, ("image", "truth", "prediction"), strict=True):
        row[0].set_ylabel(label, fontsize=12)
        for axis in row:
            axis.set(xticks=[], yticks=[])
    upper.colorbar(shown, ax=axes[2, :], label="probability", pad=0.01)
    upper.suptitle("Where are flowers? Compositions with a background never seen")

    axis = lower.subplots()
    drawn = axis.barh(list(bars), list(bars.values()), color="tab:blue")
    axis.bar_label(drawn, fmt="%.2f", padding=4)
    axis.axvline(least, color="black", linestyle=":", label="to be reached")
    axis.set(xlim=(0, 1.05), xlabel="intersection over union of all test images")
    axis.invert_yaxis()
    axis.legend(loc="upper right")
    axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main():
    """Trains, tests, compares with stock Keras; returns a sentence if that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--size", type=int, default=64, help="height and width")
    parser.add_argument("--width", type=int, default=16, help="filters at the top")
    parser.add_argument("--images", type=int, default=2000, help="to learn from")
    parser.add_argument("--epochs", type=int, default=4, help="times over the images")
    parser.add_argument("--batch", type=int, default=8, help="images a step")
    parser.add_argument("--tests", type=int, default=192, help="images held out")
    parser.add_argument("--least", type=float, default=0.8, help="IoU to be reached")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument(
        "--plot", type=pathlib.Path, default="segmentation.png", help="file to write"
    )
    options = parser.parse_args()

    keras.utils.set_random_seed(options.seed)
    compositions = {}
    for part, count in (("train", options.images), ("test", options.tests)):
        composer = Composer(options.size, part, options.seed)
        compositions[part] = composer.compose_many(count, f"Composing to {part}")
    images, masks = compositions["test"]
    model = make_unet(options.size, options.width)
    bars = {
        "all is flower": iou(masks, np.ones_like(masks, bool)),
        "best threshold of training": iou(
            masks, find_threshold(*compositions["train"])(images)
        ),
        "U-Net before training": iou(masks, model.predict(images, verbose=0) > 0),
    }

    steps = options.epochs * options.images // options.batch
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1.5e-3, steps)),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    model.fit(
        *compositions["train"],
        batch_size=options.batch,
        epochs=options.epochs,
        verbose=1 if sys.stdout.isatty() else 2,
    )
    logits = model.predict(images, verbose=0)
    bars["U-Net, trained"] = iou(masks, logits > 0)

    stock = kconv.revert(model)
    probabilities, expected = (
        1 / (1 + np.exp(-x)) for x in (logits, stock.predict(images, verbose=0))
    )
    difference = np.abs(probabilities - expected).max()
    shown = np.flatnonzero(masks.any(axis=(1, 2, 3)))[:8]
    examples = images[shown], masks[shown], probabilities[shown]
    draw(options.plot, *examples, bars, options.least)
    batch = images[: options.batch], masks[: options.batch]
    milliseconds = time_steps({"stock": stock, "kconv": model}, *batch)

    scores = ", ".join(f"{name} {value:.3f}" for name, value in bars.items())
    print(f"IoU of {options.tests} images with backgrounds never seen: {scores}.")
    print(
        f"A training step of {options.batch} images of {options.size}x{options.size}: "
        f"stock {milliseconds['stock']:.0f} ms, kconv {milliseconds['kconv']:.0f} ms "
        f"(ratio {milliseconds['stock'] / milliseconds['kconv']:.2f}, in turns)."
    )
    print(f"Images, truths and predictions: {options.plot}")
    print(f"Largest difference to stock Keras: {difference:.1e} of a probability.")
    if difference > TOLERANCE:
        return f"kconv and stock Keras disagree: {difference:.1e} > {TOLERANCE:.0e}."
    if bars["U-Net, trained"] < options.least:
        return f"The U-Net has not learnt enough: IoU below {options.least}."


if __name__ == "__main__":
    sys.exit(main())
