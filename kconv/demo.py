"""`kconv demo`: the main job on real data, stock Keras beside kconv.

ResNet-50 looks at photographs, LeNet-5 learns handwritten digits. Each is run twice,
with stock layers and with kconv's, from the same weights on the same data.
"""

import collections
import pathlib
import statistics
import time

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.progress import track
from rich.table import Table

import kconv

IMAGE_SIZE = 224

# Largest difference of ResNet-50's outputs over their largest value. The sums of its
# fifty layers in another order differ by some 1e-6.
OUTPUT_TOLERANCE = 1e-4

# Rounding errors grow with every step of training; accuracy must not notice.
LOSS_TOLERANCE = 1e-2
ACCURACY_TOLERANCE = 0.01

TIMING_ROUNDS = 12

console = Console()


def run(weights="random", images=(), output="kconv_demo", epochs=12, seed=0):
    """Runs both comparisons and prints what came out.

    Args:
        weights: "random", "imagenet" or the path of a file with ResNet-50's weights.
        images: Paths of photographs; the two of scikit-learn if there are none.
        output: Folder for the plot.
        epochs: Epochs to train LeNet-5.
        seed: Integer, the seed of all random numbers.

    Returns:
        True if kconv agrees with stock Keras within the tolerances that are printed.
    """
    started = time.perf_counter()
    agreed = compare_resnet(weights, images, seed)
    agreed &= compare_training(pathlib.Path(output), epochs, seed)
    verdict = "[green]agree[/]" if agreed else "[red]disagree[/]"
    seconds = time.perf_counter() - started
    console.print(f"kconv and stock Keras {verdict}. {seconds:.0f} seconds in all.")
    return agreed


def build_resnet(weights):
    """Returns the stock ResNet-50, whose outputs are logits."""
    try:
        return keras.applications.ResNet50(
            weights=None if weights == "random" else weights,
            classifier_activation=None,
        )
    except Exception as error:  # Keras raises a bare one where a download fails.
        raise RuntimeError(
            f"ResNet-50 cannot be built: {error}. Received: weights={weights}"
        ) from error


def compare_resnet(weights, images, seed):
    """Runs ResNet-50 on photographs; True if both models say the same."""
    console.rule("ResNet-50 on photographs")
    keras.utils.set_random_seed(seed)
    names, photographs = load_photographs(images)
    with console.status("Building ResNet-50 and converting it"):
        stock = build_resnet(weights)
        models = {"stock": stock, "kconv": kconv.convert(stock)}
    batch = keras.applications.resnet50.preprocess_input(photographs.copy())
    agreed = show_agreement(models, names, batch, real=weights != "random")
    show_timings(models, batch[:1])
    show_algorithms(models["kconv"])
    return agreed


def load_photographs(paths):
    """Returns names and a float array (n, 224, 224, 3) of values from 0 to 255."""
    from PIL import Image, ImageOps

    if paths:
        pictures = {str(path): Image.open(path).convert("RGB") for path in paths}
    else:
        from sklearn.datasets import load_sample_images

        samples = load_sample_images()
        files = (pathlib.Path(name).name for name in samples.filenames)
        pictures = dict(zip(files, map(Image.fromarray, samples.images), strict=True))
    size = (IMAGE_SIZE, IMAGE_SIZE)
    arrays = [np.asarray(ImageOps.fit(p, size), "float32") for p in pictures.values()]
    return list(pictures), np.stack(arrays)


def show_agreement(models, names, batch, real):
    """Compares feature maps, logits and classes; True within the tolerance."""
    outputs = {}
    for name, model in models.items():
        features = model.get_layer("conv5_block3_out").output
        both = keras.Model(model.input, [features, model.output])
        outputs[name] = [np.asarray(y) for y in both(batch, training=False)]

    agreed = True
    table = Table(title="Agreement of kconv with stock")
    for heading in ("photograph", "feature map", "logits", "top five classes"):
        table.add_column(heading)
    for i, name in enumerate(names):
        one = {key: [y[i] for y in values] for key, values in outputs.items()}
        differences = [
            relative_difference(*pair) for pair in zip(*one.values(), strict=True)
        ]
        top = {key: np.argsort(-logits)[:5] for key, (_, logits) in one.items()}
        agreed &= top["stock"][0] == top["kconv"][0]
        agreed &= max(differences) <= OUTPUT_TOLERANCE
        same = (top["stock"] == top["kconv"]).all()
        numbers = " ".join(map(str, top["kconv"]))
        table.add_row(
            name,
            *(f"{d:.1e}" for d in differences),
            f"{'same' if same else 'other'}: {numbers}",
        )
    if len(names) > 1:
        table.add_section()
        scale = [relative_difference(y[0], y[1]) for y in outputs["stock"]]
        table.add_row("for scale: first to second", *(f"{d:.1e}" for d in scale))
    table.caption = (
        f"Largest difference over largest value; at most {OUTPUT_TOLERANCE:.0e} passes."
    )
    console.print(table)
    if real:
        show_classes(names, outputs["kconv"][1])
    return bool(agreed)


def relative_difference(expected, actual):
    """Largest difference of two arrays over the largest value of the first."""
    return np.abs(expected - actual).max() / np.abs(expected).max()


def show_classes(names, logits):
    """Prints the five likeliest classes of each photograph."""
    probabilities = np.asarray(keras.ops.softmax(logits))
    try:
        words = [
            [word for _, word, _ in decoded]
            for decoded in keras.applications.resnet50.decode_predictions(probabilities)
        ]
    except Exception as error:
        # The names are a download that Keras makes; without it there are numbers.
        console.print(f"No names of classes: {error}")
        words = [np.argsort(-p)[:5] for p in probabilities]
    for name, row, p in zip(names, words, np.sort(probabilities)[:, ::-1], strict=True):
        likeliest = ", ".join(f"{w} {x:.0%}" for w, x in zip(row, p[:5], strict=True))
        console.print(f"{name}: {likeliest}")


def show_timings(models, image):
    """Times one image in each way to call a model, all in turns."""
    image = tf.constant(image)
    calls = {}
    for name, model in track(
        models.items(), "Tracing and freezing", console=console, transient=True
    ):
        graph = tf.function(lambda x, model=model: model(x, training=False))
        calls[name, "eager"] = lambda x, model=model: model(x, training=False)
        calls[name, "tf.function"] = graph
        calls[name, "frozen graph"] = freeze(graph, image)
        for way in ("eager", "tf.function", "frozen graph"):
            calls[name, way](image)

    times = {key: [] for key in calls}
    for _ in track(range(TIMING_ROUNDS), "Timing", console=console, transient=True):
        for key, call in calls.items():
            started = time.perf_counter()
            call(image)
            times[key].append(time.perf_counter() - started)

    medians = {key: 1e3 * statistics.median(values) for key, values in times.items()}
    table = Table(title="Milliseconds an image, medians of calls in turns")
    for heading in ("", "stock", "kconv"):
        table.add_column(heading, justify="right" if heading else "left")
    ways = list(dict.fromkeys(way for _, way in medians))
    for way in ways:
        table.add_row(way, *(f"{medians[name, way]:.1f}" for name in models))
    best = {name: min(medians[name, way] for way in ways) for name in models}
    table.add_section()
    table.add_row("best", *(f"{value:.1f}" for value in best.values()))
    console.print(table)
    ratio = best["stock"] / best["kconv"]
    console.print(f"Stock's best time is {ratio:.2f} times that of kconv's best.")


def freeze(function, example):
    """A graph of `function` whose variables are constants, as for deployment."""
    from tensorflow.python.framework import convert_to_constants

    concrete = function.get_concrete_function(tf.TensorSpec.from_tensor(example))
    return convert_to_constants.convert_variables_to_constants_v2(concrete)


def show_algorithms(model):
    """Prints which algorithm each convolution takes, layers of a shape together."""
    counts = collections.Counter()
    for layer in model.layers:
        if isinstance(layer, kconv.layers.Conv2D):
            explanation = kconv.ops.explain(
                layer.input,
                layer.kernel,
                strides=layer.strides,
                padding=layer.padding,
                data_format=layer.data_format,
                dilation_rate=layer.dilation_rate,
                algorithm=layer.algorithm,
            )
            size = "x".join(map(str, layer.kernel_size))
            counts[
                "x".join(map(str, layer.input.shape[1:])),
                f"{size}, stride {layer.strides[0]}",
                str(layer.filters),
                explanation.chosen,
            ] += 1
    table = Table(title="Algorithms of the forward pass, one image")
    for heading in ("input", "kernel", "filters", "algorithm", "layers"):
        table.add_column(heading)
    for row, count in counts.items():
        table.add_row(*row, str(count))
    console.print(table)


def load_digits(seed):
    """Scikit-learn's digits at LeNet's size: x_train, x_test, y_train, y_test."""
    from sklearn import datasets, model_selection

    digits = datasets.load_digits()
    images = digits.images[..., np.newaxis].astype("float32") / 16
    images = np.asarray(keras.ops.image.resize(images, (32, 32)))
    return model_selection.train_test_split(
        images, digits.target, test_size=0.2, random_state=seed, stratify=digits.target
    )


def compare_training(output, epochs, seed):
    """Trains LeNet-5 with both kinds of layers; True if they learn the same."""
    console.rule("LeNet-5 learns handwritten digits")
    x_train, x_test, y_train, y_test = load_digits(seed)
    models = {
        name: kconv.models.LeNet5(classifier_activation=None, layers=layers)
        for name, layers in {"stock": keras.layers, "kconv": kconv.layers}.items()
    }
    models["kconv"].set_weights(models["stock"].get_weights())
    for model in models.values():
        model.compile(
            optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            # Both in the same way: XLA would not run custom ops.
            jit_compile=False,
        )

    curves = {name: {"loss": [], "accuracy": []} for name in models}
    generator = np.random.default_rng(seed)
    for _ in track(range(epochs), "Training", console=console, transient=True):
        order = generator.permutation(len(x_train))
        for name, model in models.items():
            history = model.fit(
                x_train[order], y_train[order], shuffle=False, verbose=0
            )
            tested = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
            curves[name]["loss"].append(history.history["loss"][0])
            curves[name]["accuracy"].append(tested["accuracy"])

    output.mkdir(parents=True, exist_ok=True)
    plot = output / "learning_curves.png"
    draw_curves(curves, plot)
    return show_training(models, curves, plot, len(x_test))


def show_training(models, curves, plot, tested):
    """Prints where training ended; True if it ended within the tolerances."""
    weights = [model.get_weights() for model in models.values()]
    difference = max(np.abs(a - b).max() for a, b in zip(*weights, strict=True))
    stock, ours = curves["stock"], curves["kconv"]
    apart = {key: np.abs(np.subtract(stock[key], ours[key])).max() for key in stock}

    table = Table(title="LeNet-5 after training from the same weights")
    for heading in ("", "loss", f"accuracy on {tested} new digits"):
        table.add_column(heading)
    for name, curve in curves.items():
        table.add_row(name, f"{curve['loss'][-1]:.5f}", f"{curve['accuracy'][-1]:.2%}")
    table.add_section()
    table.add_row(
        "most apart in any epoch", f"{apart['loss']:.1e}", f"{apart['accuracy']:.2%}"
    )
    table.caption = (
        f"At most {LOSS_TOLERANCE:.0e} and {ACCURACY_TOLERANCE:.0%} apart passes."
    )
    console.print(table)
    console.print(f"Largest difference of two weights: {difference:.1e}")
    console.print(f"Learning curves: {plot}")
    return apart["loss"] <= LOSS_TOLERANCE and apart["accuracy"] <= ACCURACY_TOLERANCE


def draw_curves(curves, path):
    """Writes loss and accuracy of every epoch as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="tight")
    titles = {"loss": "training loss", "accuracy": "accuracy on new digits"}
    for axis, (key, title) in zip(axes, titles.items(), strict=True):
        for (name, curve), style in zip(curves.items(), ("-", "--"), strict=True):
            width = 4 if style == "-" else 2
            epochs = range(1, len(curve[key]) + 1)
            axis.plot(epochs, curve[key], style, linewidth=width, label=name)
        axis.set_xlabel("epoch")
        axis.set_title(title)
    axes[0].set_yscale("log")
    axes[0].legend()
    figure.suptitle("LeNet-5 on scikit-learn's digits, same start, same batches")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
