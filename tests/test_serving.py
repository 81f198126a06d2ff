"""Models with kconv layers where they are served: other processes, other runtimes."""

import os
import pathlib
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import kconv

ROOT = pathlib.Path(kconv.__file__).parent.parent
X = np.random.default_rng(0).standard_normal((5, 12, 12, 4)).astype("float32")


def make_model(layers=kconv.layers):
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input(X.shape[1:])
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = layers.DepthwiseConv2D(3, activation="relu")(x)
    x = layers.SeparableConv2D(6, 3, strides=2, activation="silu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


class Subclassed(keras.Model):
    """A model with a `call` of its own."""

    def __init__(self):
        super().__init__()
        self.conv = kconv.layers.Conv2D(4, 3, algorithm="gemm")

    def call(self, x):
        return self.conv(x)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of models in several formats, and what the model computes."""
    folder = tmp_path_factory.mktemp("served")
    model, subclassed = make_model(), Subclassed()
    subclassed(X)
    for one, name in ((model, "ours"), (kconv.revert(model), "reverted")):
        one.save(folder / f"{name}.keras")
        one.export(folder / name, verbose=False)
    subclassed.save_weights(folder / "subclassed.weights.h5")
    results = {"model": model(X), "subclassed": subclassed(X)}
    np.savez(folder / "given.npz", x=X, **results)
    return folder


def run(script, *arguments, **environment):
    """Runs a script in a fresh process; whether it came to its end."""
    result = subprocess.run(
        [sys.executable, "-c", f"{script}\nprint('the end')", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout.endswith("the end\n")


WITH_KCONV = """
import sys

import keras, numpy as np, tensorflow as tf

folder = sys.argv[1]
given = np.load(f"{folder}/given.npz")
x, expected = given["x"], given["model"]
try:
    tf.saved_model.load(f"{folder}/ours")
    raise AssertionError("kconv is not imported, and its ops are known")
except RuntimeError as error:
    assert "Op type not registered 'Kconv>" in str(error), error

import kconv

exported = tf.saved_model.load(f"{folder}/ours")
layer = keras.layers.TFSMLayer(f"{folder}/ours", call_endpoint="serve")
inputs = keras.Input(x.shape[1:])
model = keras.Model(inputs, 2 * layer(inputs))
for batch in (5, 1, 3):
    for found in (exported.serve(x[:batch]), model.predict(x[:batch], verbose=0) / 2):
        np.testing.assert_allclose(found, expected[:batch], rtol=1e-4, atol=1e-6)
assert exported.serve(x[:0]).shape == (0, 3)
"""


def test_exported_model_where_kconv_is_imported(files):
    assert run(WITH_KCONV, files)


WITHOUT_KCONV = """
import sys

sys.modules["kconv"] = None  # as where it is not installed

import keras, numpy as np, tensorflow as tf

folder = sys.argv[1]
given = np.load(f"{folder}/given.npz")
x, expected = given["x"], given["model"]


def check(function, expected=expected):
    np.testing.assert_allclose(function(x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(function(x[:2]), expected[:2], rtol=1e-4, atol=1e-5)


exported = tf.saved_model.load(f"{folder}/reverted")
check(exported.serve)
check(keras.layers.TFSMLayer(f"{folder}/reverted", call_endpoint="serve"))
check(keras.saving.load_model(f"{folder}/reverted.keras"))
for load in (tf.saved_model.load, lambda path: keras.layers.TFSMLayer(path, "serve")):
    try:
        load(f"{folder}/ours")
        raise AssertionError("it was loaded")
    except RuntimeError as error:
        assert "Op type not registered 'Kconv>" in str(error), error
try:
    keras.saving.load_model(f"{folder}/ours.keras")
    raise AssertionError("it was loaded")
except TypeError as error:
    assert "kconv>Conv2D" in str(error), error

# Any model with kconv's layers, exported for such places: their kernels are off here.
del sys.modules["kconv"]
import kconv

assert "KCONV_DISABLE_NATIVE" in kconv.native.why_missing()


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = kconv.layers.Conv2D(4, 3, algorithm="gemm")

    def call(self, x):
        return self.conv(x)


model, subclassed = keras.saving.load_model(f"{folder}/ours.keras"), Subclassed()
subclassed(x)
subclassed.load_weights(f"{folder}/subclassed.weights.h5")
for one, name in ((model, "model"), (subclassed, "subclassed")):
    one.export(f"{folder}/{name}_without", verbose=False)
    exported = tf.saved_model.load(f"{folder}/{name}_without")
    check(exported.serve, given[name])
"""


def test_models_where_kconv_cannot_be_imported(files):
    assert run(WITHOUT_KCONV, files, KCONV_DISABLE_NATIVE="1")


def test_exported_by_stock_kernels():
    def types(model):
        traced = tf.function(model).get_concrete_function(tf.TensorSpec(X.shape))
        return {op.type for op in traced.graph.get_operations()}

    assert "Kconv>Conv" in types(make_model())
    for model in (
        kconv.revert(make_model()),
        kconv.convert(make_model(), algorithm="builtin"),
    ):
        assert not [name for name in types(model) if name.startswith("Kconv")]


# LiteRT, which was TensorFlow Lite.


def interpreter(**options):
    """An interpreter out of the package that has one."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        Interpreter = getattr(tf.lite, "Interpreter", None)
    if Interpreter is None:
        pytest.skip("neither TensorFlow nor ai_edge_litert has an interpreter")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"[\s\S]*tf\.lite\.Interpreter is deprecated")
        return Interpreter(**options)


def compute(lite, x):
    (given,), (computed,) = lite.get_input_details(), lite.get_output_details()
    lite.resize_tensor_input(given["index"], x.shape)
    lite.allocate_tensors()
    lite.set_tensor(given["index"], x)
    lite.invoke()
    return lite.get_tensor(computed["index"])


def test_reverted_model_in_litert(files, tmp_path):
    model = make_model()
    path = tmp_path / "model.tflite"
    kconv.revert(model).export(path, format="litert", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(files / "reverted"))
    for options in (
        {"model_path": str(path)},
        {"model_content": converter.convert()},
    ):
        lite = interpreter(**options)
        for batch in (1, 5):
            np.testing.assert_allclose(
                compute(lite, X[:batch]), model(X[:batch]), atol=1e-5
            )


def test_litert_says_what_it_does_not_know(files):
    converter = tf.lite.TFLiteConverter.from_saved_model(str(files / "ours"))
    with pytest.raises(Exception, match=r"tf\.Kconv>Conv' op is neither a custom op"):
        converter.convert()


# ONNX.


@pytest.fixture
def onnxruntime():
    pytest.importorskip("tf2onnx", reason="Keras exports to ONNX with tf2onnx")
    return pytest.importorskip("onnxruntime", reason="it runs what is exported")


def to_onnx(model, folder):
    model(X)  # Keras exports only what has been called
    path = str(folder / "model.onnx")
    model.export(path, format="onnx", verbose=False)
    return path


@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")
def test_reverted_model_in_onnx(onnxruntime, tmp_path):
    model = make_model()
    session = onnxruntime.InferenceSession(to_onnx(kconv.revert(model), tmp_path))
    (given,) = session.get_inputs()
    for batch in (1, 5):
        (found,) = session.run(None, {given.name: X[:batch]})
        np.testing.assert_allclose(found, model(X[:batch]), atol=1e-5)


def test_onnx_says_what_it_does_not_know(onnxruntime, tmp_path, caplog):
    path = to_onnx(make_model(), tmp_path)  # which no more than logs it
    assert "Kconv>Conv] is not supported" in caplog.text
    with pytest.raises(Exception, match="Kconv>Conv"):
        onnxruntime.InferenceSession(path)
