"""kconv.layers with a bias and an activation that are parts of the convolution."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import kconv

# What a bias and an activation are where they are ops of their own.
EPILOGUE_OPS = {"BiasAdd", "AddV2", "Add", "Relu", "Relu6", "Maximum"}


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


LAYERS = [
    {"activation": "relu"},
    {"activation": "relu6", "use_bias": False},
    {"activation": None},
    {"activation": "linear", "strides": 2, "padding": "same"},
    {"activation": "gelu"},
    {"activation": "gelu", "use_bias": False},
    {"activation": "relu", "groups": 2},
    {"activation": "relu6", "data_format": "channels_first"},
    {"activation": "relu", "data_format": "channels_first", "groups": 2},
]


def ops_of(function, *arguments):
    """Types of the ops in the graph of a function."""
    graph = tf.function(function).get_concrete_function(*arguments).graph
    return {op.type for op in graph.get_operations()}


def pair(options):
    """A kconv layer and a stock one, of the same weights, and an input for each."""
    kconv_layer = kconv.layers.Conv2D(8, 3, **options)
    first = options.get("data_format") == "channels_first"
    # Stock cannot compute channels_first on CPU: it is asked for the transposed.
    last = {k: v for k, v in options.items() if k not in ("algorithm", "data_format")}
    keras_layer = keras.layers.Conv2D(8, 3, **last)
    x = images(4, 9, 8, 4)
    kconv_layer.build((4, 4, 9, 8) if first else x.shape)
    keras_layer.build(x.shape)
    if kconv_layer.use_bias:
        kconv_layer.bias.assign(images(8))
    keras_layer.set_weights(kconv_layer.get_weights())

    def call_transposed(x):
        y = kconv_layer(tf.transpose(x, (0, 3, 1, 2)))
        return tf.transpose(y, (0, 2, 3, 1))

    return kconv_layer, keras_layer, call_transposed if first else kconv_layer, x


@pytest.mark.parametrize("options", LAYERS, ids=str)
@pytest.mark.parametrize("policy", ("float32", "mixed_float16", "mixed_bfloat16"))
def test_layer_is_that_of_keras(policy, options):
    options = {**options, "dtype": policy}
    layer, stock, call, x = pair({**options, "algorithm": "gemm"})
    other, _, call_other, _ = pair({**options, "algorithm": "auto"})
    other.set_weights(layer.get_weights())
    x = tf.constant(x)
    results = []
    for function, own in ((call, layer), (call_other, other), (stock, stock)):
        for wrap in (lambda f: f, tf.function):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = wrap(function)(x)
                loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 2)
            weights = [v.value for v in own.trainable_weights]
            results.append([y, *tape.gradient(loss, [x, *weights])])
    unit = {"float32": 5e-6, "mixed_float16": 5e-3, "mixed_bfloat16": 4e-2}[policy]
    for ours, theirs in itertools.product(results[:4], results[4:]):
        for result, expected in zip(ours, theirs, strict=True):
            assert result.dtype == expected.dtype
            result, expected = (tf.cast(t, tf.float32) for t in (result, expected))
            error = tf.reduce_max(tf.abs(result - expected))
            assert error <= unit * tf.reduce_max(tf.abs(expected))


@pytest.mark.parametrize("options", LAYERS, ids=str)
def test_the_layer_is_one_op(options):
    layer = kconv.layers.Conv2D(8, 3, **options, algorithm="gemm")
    first = options.get("data_format") == "channels_first"
    x = images(*((4, 4, 9, 8) if first else (4, 9, 8, 4)))
    layer.build(x.shape)
    graph = tf.function(layer).get_concrete_function(x).graph
    (op,) = (op for op in graph.get_operations() if op.type == "Kconv>Conv")
    assert len(op.inputs) == 2 + layer.use_bias
    name = options["activation"] or "linear"
    if name == "gelu":
        name = "linear"
    else:
        assert not EPILOGUE_OPS & {op.type for op in graph.get_operations()}
    assert op.get_attr("activation").decode() == name

    # In training too: the step is the only op of the activation.
    def gradient(x):
        with tf.GradientTape() as tape:
            y = layer(x)
        return tape.gradient(y, [v.value for v in layer.trainable_weights])

    assert not {"Relu", "Relu6", "BiasAdd"} & ops_of(gradient, x)


def test_functions_of_other_names_are_called():
    x = images(2, 9, 8, 4)
    calls = []

    def doubled(y):
        calls.append(y)
        return tf.nn.relu(2 * y)

    class Unhashable:
        __hash__ = None

        def __call__(self, y):
            return doubled(y)

    for function in (doubled, keras.layers.ReLU(threshold=0.5), Unhashable()):
        layer = kconv.layers.Conv2D(8, 3, activation=function)
        stock = keras.layers.Conv2D(8, 3, activation=function)
        stock.build(x.shape)
        layer.build(x.shape)
        layer.set_weights(stock.get_weights())
        np.testing.assert_allclose(layer(x), stock(x), atol=1e-5)
    assert calls
    layer.activation = None
    stock.activation = None
    np.testing.assert_allclose(layer(x), stock(x), atol=1e-5)


def test_a_subclass_keeps_its_convolution():
    class Scaled(kconv.layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return 2 * super().convolution_op(inputs, kernel)

    x = images(2, 9, 8, 4)
    layer = Scaled(8, 3, activation="relu", bias_initializer="ones")
    expected = tf.nn.relu(2 * tf.nn.conv2d(x, layer_kernel(layer, x), 1, "VALID") + 1)
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)

    plain = kconv.layers.Conv2D(8, 3, activation="relu", bias_initializer="ones")
    kernel = layer_kernel(plain, x)
    plain.convolution_op = lambda inputs, kernel: (
        3 * tf.nn.conv2d(inputs, kernel, 1, "VALID")
    )
    expected = tf.nn.relu(3 * tf.nn.conv2d(x, kernel, 1, "VALID") + 1)
    np.testing.assert_allclose(plain(x), expected, atol=1e-5)


def layer_kernel(layer, x):
    layer.build(x.shape)
    return layer.kernel.value


@pytest.mark.parametrize(("shape", "dtype"), [((8,), "float64"), ((1, 8), "float32")])
def test_a_subclass_keeps_its_bias(shape, dtype):
    def with_own_bias(base):
        class Biased(base):
            def build(self, input_shape):
                super().build(input_shape)
                self.bias = tf.constant(images(*shape), dtype)

        return Biased(8, 3, activation="relu")

    x = images(2, 9, 8, 4)
    layer, stock = (with_own_bias(m.Conv2D) for m in (kconv.layers, keras.layers))
    for own in (layer, stock):
        own.build(x.shape)
    layer.kernel.assign(stock.kernel)
    y, expected = layer(x), stock(x)
    assert y.dtype == expected.dtype
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_lora():
    layer, stock, _, x = pair({"activation": "relu"})
    for own in (layer, stock):
        own.enable_lora(2)
        own.lora_kernel_b.assign(images(*own.lora_kernel_b.shape))
    stock.set_weights(layer.get_weights())
    np.testing.assert_allclose(layer(x), stock(x), atol=2e-5)


@pytest.mark.parametrize("options", LAYERS[:7], ids=str)
def test_xla(options):
    layer, stock, _, x = pair(options)
    compiled = tf.function(lambda x: layer(x), jit_compile=True)
    np.testing.assert_allclose(compiled(x), stock(x), atol=1e-5)


def test_models_are_saved_and_loaded_both_ways(tmp_path):
    x = images(2, 12, 12, 4)

    def model_of(module):
        keras.utils.set_random_seed(5)
        layers = [
            module.Conv2D(8, 3, activation=name, bias_initializer="normal")
            for name in ("relu", "relu6", "gelu", None)
        ]
        return keras.Sequential([keras.Input(x.shape[1:]), *layers])

    ours, stock = (model_of(module) for module in (kconv.layers, keras.layers))
    expected = stock(x)
    np.testing.assert_allclose(ours(x), expected, atol=1e-5)
    for model, name in ((ours, "ours"), (stock, "stock")):
        model.save(tmp_path / f"{name}.keras")
        model.save_weights(tmp_path / f"{name}.weights.h5")
        tf.saved_model.save(model, tmp_path / name)
        again = keras.saving.load_model(tmp_path / f"{name}.keras")
        np.testing.assert_allclose(again(x), expected, atol=1e-5)
        signature = tf.saved_model.load(tmp_path / name).signatures["serving_default"]
        (served,) = signature(tf.constant(x)).values()
        np.testing.assert_allclose(served, expected, atol=1e-5)
    for model, name in ((ours, "stock"), (stock, "ours")):
        model.set_weights([0 * v for v in model.get_weights()])
        model.load_weights(tmp_path / f"{name}.weights.h5")
        np.testing.assert_allclose(model(x), expected, atol=1e-5)
    converted = kconv.convert(stock)
    reverted = kconv.revert(ours)
    assert {type(layer) for layer in converted.layers} == {kconv.layers.Conv2D}
    assert {type(layer) for layer in reverted.layers} == {keras.layers.Conv2D}
    for model in (converted, reverted):
        np.testing.assert_allclose(model(x), expected, atol=1e-5)
