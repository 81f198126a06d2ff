"""Converts a model of keras.applications, profiles it and checks that it is the same.

Tells what was swapped, which layers cost most and which algorithm computes them, and
runs both models on scikit-learn's two photographs. `kconv bench models` times them.

    pip install '.[cpu,demo]'
    python examples/convert_and_profile.py MobileNetV2 --plot profile.png
"""

import argparse
import collections
import inspect
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_images

import kconv

# Largest difference of the logits of kconv and stock Keras over the largest logit.
TOLERANCE = 1e-4

console = Console()


def load_photographs(size):
    """Returns two photographs, an array (2, size, size, 3) of values from 0 to 255."""
    images = np.stack(load_sample_images().images).astype("float32")
    resized = keras.ops.image.resize(images, (size, size), crop_to_aspect_ratio=True)
    return np.array(resized)


def show_report(report):
    """Prints how many layers of which class became what, and why some were left."""
    table = Table(title="What was swapped")
    for heading in ("layers", "was", "is", "why it was left"):
        table.add_column(heading, justify="right" if heading == "layers" else "left")
    if not report.left:
        table.columns.pop()
    kinds = collections.Counter((r.class_name, r.became, r.reason) for r in report)
    for (was, became, reason), count in kinds.items():
        cells = str(count), was, became or was, reason or ""
        table.add_row(*cells[: len(table.columns)])
    console.print(table)


def show_algorithms(profile, rows):
    """Prints what the algorithms compute, and the layers that cost most.

    Args:
        profile: What `kconv.profile` returned.
        rows: Integer, how many layers.
    """
    convolutions = [row for row in profile.layers if row.algorithms]
    total = profile.total.macs
    table = Table(title="Algorithms of the forward pass, one image")
    for heading in ("algorithm", "layers", "million MACs", "multiplications, million"):
        table.add_column(heading, justify="left" if heading == "algorithm" else "right")
    for algorithm in sorted({row.algorithms["forward"] for row in convolutions}):
        same = [row for row in convolutions if row.algorithms["forward"] == algorithm]
        table.add_row(
            algorithm,
            str(len(same)),
            f"{sum(row.macs for row in same) / 1e6:.1f}",
            f"{sum(row.multiplications['forward'] for row in same) / 1e6:.1f}",
        )
    console.print(table)

    table = Table(title=f"The {rows} convolutions that cost most")
    for heading in ("layer", "output", "MACs", "receptive field", "algorithm"):
        table.add_column(
            heading, justify="right" if heading in ("MACs", "output") else "left"
        )
    for row in sorted(convolutions, key=lambda row: -row.macs)[:rows]:
        table.add_row(
            row.name,
            "x".join(map(str, row.output_shape[1:])),
            f"{row.macs / total:.1%}",
            f"{row.receptive_field} pixels",
            row.algorithms["forward"],
        )
    console.print(table)


def main():
    """Converts, profiles and compares; returns a sentence if something differs."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    names = [n for n, f in vars(keras.applications).items() if inspect.isfunction(f)]
    parser.add_argument(
        "model",
        nargs="?",
        default="MobileNetV2",
        choices=names,
        metavar="model",
        help="a name out of keras.applications",
    )
    parser.add_argument("--size", type=int, default=224, help="height and width")
    parser.add_argument("--rows", type=int, default=8, help="layers in the table")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    parser.add_argument(
        "--plot", type=pathlib.Path, default="profile.png", help="file to write"
    )
    options = parser.parse_args()

    keras.utils.set_random_seed(options.seed)
    make = getattr(keras.applications, options.model)
    shape = (options.size, options.size, 3)
    with console.status(f"Making {options.model} and converting it"):
        stock = make(weights=None, input_shape=shape, classifier_activation=None)
        model, report = kconv.convert(stock, return_report=True)
    show_report(report)

    with console.status("Profiling"):
        before, after = (kconv.profile(m, input_shape=shape) for m in (stock, model))
    show_algorithms(after, options.rows)
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    after.plot(options.plot)

    preprocess = inspect.getmodule(make).preprocess_input
    photographs = preprocess(load_photographs(options.size))
    expected, actual = (m.predict(photographs, verbose=0) for m in (stock, model))
    scale = np.abs(expected).max()
    difference = np.abs(expected - actual).max() / scale
    between = np.abs(expected[0] - expected[1]).max() / scale

    print(f"Work, parameters and receptive fields by layer: {options.plot}")
    print(
        f"{options.model} has {after.total.macs / 1e6:.0f} million MACs an image; the "
        f"algorithms leave {after.total.multiplications['forward'] / 1e6:.0f} million "
        "multiplications."
    )
    print(
        f"Largest relative difference to stock Keras on two photographs: "
        f"{difference:.1e}; from one photograph to the other it is {between:.1e}."
    )
    totals = [(p.total.macs, p.total.parameters) for p in (before, after)]
    if totals[0] != totals[1]:
        return f"Conversion changed MACs and parameters: {totals[0]}, {totals[1]}."
    if not report.swapped:
        return "Nothing was swapped."
    if difference > TOLERANCE:
        return f"kconv and stock Keras disagree: {difference:.1e} > {TOLERANCE:.0e}."


if __name__ == "__main__":
    sys.exit(main())
