"""Files of stock models for converted ones, and of converted models for stock ones."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import kconv

LOAD = """
import sys

import keras
import numpy as np

folder = sys.argv[1]
x = np.load(f"{folder}/x.npy")
results = {}
results["reverted"] = keras.saving.load_model(f"{folder}/reverted.keras")(x)
assert not [name for name in sys.modules if name.startswith("kconv")]

import kconv

model = keras.saving.load_model(f"{folder}/converted.keras")
results["converted"] = model(x)
results["classes"] = [type(layer).__module__ for layer in model._flatten_layers()]
results["loss"] = model.fit(x, np.zeros((2, 3)), verbose=0).history["loss"]
np.savez(f"{folder}/results.npz", **results)
"""


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


class Holder(layers.Layer):
    """Holds its convolutions in a list and in a dictionary."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [layers.Conv2D(4, 1), {"a": layers.SeparableConv2D(4, 3)}]
        self.parts[1]["b"] = layers.Conv2D(4, 1)

    def build(self, shape):
        for part in (self.parts[0], self.parts[1]["a"], self.parts[1]["b"]):
            part.build(shape)

    def call(self, x):
        return self.parts[0](self.parts[1]["a"](self.parts[1]["b"](x)))


def make_model():
    """Nested and shared layers, in wrappers too; all classes are Keras's."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((2, 10, 10, 3))
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    block = keras.Sequential([layers.DepthwiseConv2D(3), layers.ReLU()])
    x = layers.TimeDistributed(layers.Conv2D(4, 3))(inputs)
    x = layers.TimeDistributed(layers.SeparableConv1D(4, 3, padding="same"))(
        layers.Reshape((16, 8, 4))(x)
    )
    x = block(shared(x)) + shared(x)[:, 1:-1, 1:-1]
    x = layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.BatchNormalization()(x)))
    model = keras.Model(inputs, x)
    model.compile("sgd", "mse")
    return model


def make_holder():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((2, 10, 10, 3))
    x = layers.Conv2D(4, 1)(inputs[:, 0])
    return keras.Model(inputs, Holder()(x))


@pytest.mark.parametrize("make", (make_model, make_holder))
def test_weights_go_both_ways(make, tmp_path):
    stock, x = make(), images(2, 2, 10, 10, 3)
    converted = kconv.convert(stock)
    expected = stock(x).numpy()
    stock.save_weights(tmp_path / "stock.weights.h5")
    for variable in converted.weights:
        variable.assign(variable + 1)
    converted.save_weights(tmp_path / "changed.weights.h5")
    changed = converted(x).numpy()
    converted.load_weights(tmp_path / "stock.weights.h5")
    np.testing.assert_allclose(converted(x), expected, atol=1e-5)
    stock.load_weights(tmp_path / "changed.weights.h5")
    np.testing.assert_allclose(stock(x), changed, rtol=1e-4)
    for ours, theirs in zip(stock.weights, converted.weights, strict=True):
        assert not np.array_equal(ours, theirs)


def test_models_load_in_a_fresh_process(tmp_path):
    stock, x = make_model(), images(2, 2, 10, 10, 3)
    stock.fit(x, images(2, 3), verbose=0)
    converted = kconv.convert(stock)
    converted.save(tmp_path / "converted.keras")
    kconv.revert(converted).save(tmp_path / "reverted.keras")
    np.save(tmp_path / "x.npy", x)
    subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path)],
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=300,
    )
    results, expected = np.load(tmp_path / "results.npz"), stock(x)
    np.testing.assert_allclose(results["reverted"], expected, rtol=1e-6)
    np.testing.assert_allclose(results["converted"], expected, atol=1e-5)
    assert sum(name.startswith("kconv") for name in results["classes"]) == 4
    loss = converted.evaluate(x, np.zeros((2, 3)), verbose=0)
    assert results["loss"][0] > 0
    assert loss > 0


def test_a_stock_file_is_converted_after_loading(tmp_path):
    stock, x = make_model(), images(2, 2, 10, 10, 3)
    stock.save(tmp_path / "stock.keras")
    loaded = keras.saving.load_model(tmp_path / "stock.keras")
    converted = kconv.convert(loaded)
    np.testing.assert_allclose(converted(x), stock(x), atol=1e-5)
    converted.save(tmp_path / "converted.keras")
    again = kconv.revert(keras.saving.load_model(tmp_path / "converted.keras"))
    kinds = [
        [(layer.name, type(layer)) for layer in one._flatten_layers()]
        for one in (stock, loaded, again)
    ]
    assert kinds[0] == kinds[1] == kinds[2]
    assert np.array_equal(again(x), stock(x))
