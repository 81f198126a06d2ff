"""Models with kconv layers, saved here and loaded in a fresh process."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kconv

LOAD = """
import sys

import numpy as np

import kconv
import keras, tensorflow as tf

folder = sys.argv[1]
given = np.load(f"{folder}/given.npz")
x, results = given["x"], {}

model = keras.saving.load_model(f"{folder}/model.keras")
results["keras"] = model(x)
results["algorithms"] = [
    layer.algorithm for layer in model.layers if isinstance(layer, kconv.layers.Conv2D)
]
results["keras_fit"] = model.fit(x, given["y"], verbose=0).history["loss"]

exported = tf.saved_model.load(f"{folder}/exported")
results["exported"] = exported.serve(x)
results["exported_other_batch"] = exported.serve(x[:1])

module = tf.saved_model.load(f"{folder}/module")
with tf.GradientTape() as tape:
    y = module(x)
results["module"] = y
results["module_gradient"] = tape.gradient(y, module.kernel)

np.savez(f"{folder}/results.npz", **results)
"""


ALGORITHMS = ("auto", "auto:strict", "winograd", "gemm", "direct", "builtin")


def make_model():
    """Layers with every kind of algorithm, blocks, and an operation."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((12, 12, 4))
    x = inputs
    for algorithm in ALGORITHMS:
        layer = kconv.layers.Conv2D(
            8, 3, padding="same", activation="relu", algorithm=algorithm
        )
        x = layer(x)
    x = kconv.layers.Conv2D(8, 3, padding="same", groups=4)(x)
    x = kconv.layers.ChannelShuffle(4)(x)
    x = kconv.layers.SqueezeExcite(4)(x)
    x = kconv.layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = kconv.layers.SeparableConv2D(8, 3, padding="same", activation="gelu")(x)
    x = kconv.ops.depthwise_conv(x, np.ones((2, 3, 8, 1), "float32"), padding="same")
    kernel = keras.Variable(np.ones((2, 2, 2, 8), "float32"))
    x = kconv.ops.conv(x, kernel.numpy(), padding=((1, 0), (0, 1)))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    model.compile("sgd", "mse")
    return model


def make_module():
    """A function of unknown batch with a gradient of its own."""
    module = tf.Module()
    module.kernel = tf.Variable(tf.random.stateless_normal((3, 3, 4, 6), (1, 2)))

    def conv(x):
        return kconv.ops.conv(x, module.kernel, strides=2)

    signature = [tf.TensorSpec((None, 12, 12, 4))]
    module.__call__ = tf.function(conv, input_signature=signature)
    return module


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """The model, the module, inputs, and what a fresh process made of them."""
    folder = tmp_path_factory.mktemp("saved")
    rng = np.random.default_rng(0)
    given = {
        "x": rng.standard_normal((5, 12, 12, 4)).astype("float32"),
        "y": rng.standard_normal((5, 8)).astype("float32"),
    }
    np.savez(folder / "given.npz", **given)
    model, module = make_model(), make_module()
    model.save(folder / "model.keras")
    model.export(folder / "exported", verbose=False)
    tf.saved_model.save(module, folder / "module")
    subprocess.run(
        [sys.executable, "-c", LOAD, str(folder)],
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=300,
    )
    return model, module, given, np.load(folder / "results.npz")


def test_keras_file(loaded):
    model, _, given, results = loaded
    np.testing.assert_allclose(results["keras"], model(given["x"]), rtol=1e-5)
    assert list(results["algorithms"]) == [*ALGORITHMS, "auto"]
    loss = model.evaluate(given["x"], given["y"], verbose=0)
    np.testing.assert_allclose(results["keras_fit"], [loss], rtol=1e-5)


def test_exported_model(loaded):
    model, _, given, results = loaded
    expected = model(given["x"])
    np.testing.assert_allclose(results["exported"], expected, rtol=1e-5)
    np.testing.assert_allclose(results["exported_other_batch"], expected[:1], rtol=1e-4)


def test_saved_function_and_its_gradient(loaded):
    _, module, given, results = loaded
    with tf.GradientTape() as tape:
        y = tf.nn.conv2d(given["x"], module.kernel, 2, "VALID")
    gradient = tape.gradient(y, module.kernel)
    np.testing.assert_allclose(results["module"], y, atol=1e-4)
    largest = np.abs(gradient).max()
    np.testing.assert_allclose(
        results["module_gradient"], gradient, atol=1e-6 * largest
    )


def test_weights_go_between_kconv_and_keras(tmp_path):
    ours = keras.Sequential([keras.Input((9, 9, 3)), kconv.layers.Conv2D(4, 3)])
    stock = keras.Sequential([keras.Input((9, 9, 3)), keras.layers.Conv2D(4, 3)])
    x = np.random.default_rng(0).standard_normal((2, 9, 9, 3)).astype("float32")
    ours.save_weights(tmp_path / "ours.weights.h5")
    stock.load_weights(tmp_path / "ours.weights.h5")
    np.testing.assert_allclose(stock(x), ours(x), atol=1e-4)
