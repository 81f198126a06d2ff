"""Trains a small ShuffleNet V2 beside its stock twin on the same batches.

Both begin with the same weights; `layers=keras.layers` is all that is different. They
learn scikit-learn's 1797 real digits, of which a fifth is held out. What differs at
first is only the rounding of sums, some 1e-7. Training lets it grow, whoever rounds:
for comparison, a second stock model begins with weights nudged by that much. The plot
shows the twins learning, and how far apart they come.

    pip install '.[cpu,demo]'
    python examples/shufflenet_twin.py --plot shufflenet_twin.png
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
from rich.console import Console
from rich.progress import track
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import kconv

NAMES = ("stock", "nudged", "kconv")
# About half of what float32 rounds by, so that some of the weights change.
NUDGE = 1e-7

# Largest difference of the logits after the first step over the largest logit. Batch
# normalisation lets a step multiply what differs.
TOLERANCE = 1e-4


def load_data(size, seed):
    """Returns x_train, x_test, y_train, y_test; the images are from 0 to 1."""
    digits = load_digits()
    images = digits.images[..., np.newaxis].astype("float32") / 16
    images = np.asarray(keras.ops.image.resize(images, (size, size)))
    return train_test_split(
        images, digits.target, test_size=0.2, random_state=seed, stratify=digits.target
    )


def make_twins(size, blocks, steps):
    """Returns compiled models of equal weights, but for the nudged one.

    Args:
        size: Integer, height and width of the images.
        blocks: Three integers, the units of the stages.
        steps: Integer, the steps of training, in which the rate falls to zero.

    Returns:
        A dictionary from name to model.
    """
    models = {}
    for name in NAMES:
        models[name] = kconv.models.build(
            "shufflenet_v2",
            input_shape=(size, size, 1),
            classes=10,
            classifier_activation=None,
            scale=0.5,
            blocks=blocks,
            layers=kconv.layers if name == "kconv" else keras.layers,
        )
        rate = keras.optimizers.schedules.CosineDecay(0.01, steps)
        models[name].compile(
            keras.optimizers.SGD(rate, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    weights = models["stock"].get_weights()
    models["kconv"].set_weights(weights)
    models["nudged"].set_weights([w * (1 + NUDGE) for w in weights])
    return models


def train(models, data, epochs, batch, seed):
    """Trains the models in turns.

    Args:
        models: Dictionary from name to model.
        data: Images and labels, to train and to test, as `load_data` returns them.
        epochs: Integer.
        batch: Integer, images a step; those left over in an epoch are left out.
        seed: Integer, of the order of images.

    Returns:
        Dictionaries from name to losses and seconds of all steps and accuracies after
        all epochs, and to the difference to stock of the logits after the first step,
        relative.
    """
    x_train, x_test, y_train, y_test = data
    losses, seconds, accuracies = ({name: [] for name in models} for _ in range(3))
    random = np.random.default_rng(seed)
    differences = {}
    turns = list(models.items())
    steps = len(x_train) // batch
    # Progress is not output.
    for step in track(range(epochs * steps), "Training", console=Console(stderr=True)):
        if step % steps == 0:
            order = random.permutation(len(x_train))
        chosen = order[step % steps * batch :][:batch]
        for name, model in turns:
            model.reset_metrics()
            started = time.perf_counter()
            loss, _ = model.train_on_batch(x_train[chosen], y_train[chosen])
            seconds[name].append(time.perf_counter() - started)
            losses[name].append(float(loss))
        turns.reverse()  # neither is always the first
        if step == 0:
            logits = {name: model.predict_on_batch(x_test) for name, model in turns}
            for name, values in logits.items():
                apart = np.abs(values - logits["stock"]).max()
                differences[name] = apart / np.abs(logits["stock"]).max()
        if step % steps == steps - 1:
            for name, model in models.items():
                tested = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
                accuracies[name].append(tested["accuracy"])
    return losses, seconds, accuracies, differences


def draw(path, losses, accuracies):
    """Writes losses, how far they are apart, and accuracies as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for name, style, width in (("stock", "-", 4), ("kconv", "--", 1.5)):
        axes[0].plot(losses[name], style, linewidth=width, label=name)
        epochs = range(1, len(accuracies[name]) + 1)
        axes[2].plot(epochs, accuracies[name], style, linewidth=width, label=name)
    for name, label, colour in (
        ("kconv", "kconv and stock", "tab:green"),
        ("nudged", f"stock, nudged by {NUDGE:.0e}, and stock", "tab:gray"),
    ):
        apart = np.abs(np.subtract(losses["stock"], losses[name]))
        # Losses that are equal have no place on a logarithmic axis.
        axes[1].plot(np.where(apart > 0, apart, np.nan), color=colour, label=label)
    axes[0].set(title="Both learn alike", xlabel="step", ylabel="loss", yscale="log")
    axes[1].set(title="Rounding grows, whoever rounds", xlabel="step", yscale="log")
    axes[1].set_ylabel("difference of the losses")
    axes[2].set(title="Digits held out", xlabel="epoch", ylabel="accuracy")
    axes[2].yaxis.set_major_formatter("{x:.0%}")
    axes[2].xaxis.get_major_locator().set_params(integer=True)
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle("ShuffleNet V2 and its stock twin, same start, same batches")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main():
    """Trains both and compares them; returns a sentence if they do not agree."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--size", type=int, default=48, help="height and width")
    parser.add_argument("--epochs", type=int, default=5, help="times over the digits")
    parser.add_argument("--batch", type=int, default=32, help="digits a step")
    parser.add_argument(
        "--blocks", type=int, nargs=3, default=(2, 2, 2), help="units of the stages"
    )
    parser.add_argument(
        "--least", type=float, default=0.9, help="accuracy that both must reach"
    )
    parser.add_argument(
        "--apart", type=float, default=0.03, help="what accuracies may differ by"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument(
        "--plot", type=pathlib.Path, default="shufflenet_twin.png", help="file to write"
    )
    options = parser.parse_args()

    keras.utils.set_random_seed(options.seed)
    data = load_data(options.size, options.seed)
    steps = options.epochs * (len(data[0]) // options.batch)
    models = make_twins(options.size, options.blocks, steps)
    losses, seconds, accuracies, differences = train(
        models, data, options.epochs, options.batch, options.seed
    )
    draw(options.plot, losses, accuracies)

    # The first calls trace.
    times = {name: 1e3 * statistics.median(s[2:] or s) for name, s in seconds.items()}
    last = {name: values[-1] for name, values in accuracies.items()}
    print(f"Curves: {options.plot}")
    print(
        f"A step of {options.batch} images of {options.size}x{options.size}: stock "
        f"{times['stock']:.0f} ms, kconv {times['kconv']:.0f} ms (ratio "
        f"{times['stock'] / times['kconv']:.2f}, medians of {steps} in turns)."
    )
    difference, nudged = differences["kconv"], differences["nudged"]
    print(
        f"Largest relative difference to stock after the first step: {difference:.1e}, "
        f"of stock nudged by {NUDGE:.0e}: {nudged:.1e}."
    )
    print(
        f"Accuracy on {len(data[1])} digits held out after {options.epochs} epochs: "
        f"stock {last['stock']:.1%}, kconv {last['kconv']:.1%}."
    )
    if difference > TOLERANCE:
        return f"kconv and stock Keras disagree: {difference:.1e} > {TOLERANCE:.0e}."
    if abs(last["stock"] - last["kconv"]) > options.apart:
        return f"The accuracies are more than {options.apart:.0%} apart."
    if min(last.values()) < options.least:
        return f"A model has not learnt enough: accuracy below {options.least:.0%}."


if __name__ == "__main__":
    sys.exit(main())
