"""kconv.layers, against Keras's own."""

import inspect
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src import testing
from tiling import tolerance

import kconv

CONFIGURATIONS = [
    {},
    {"strides": 2, "padding": "same"},
    {"strides": (2, 1), "kernel_size": (2, 3), "groups": 2},
    {"dilation_rate": (2, 1), "padding": "same", "use_bias": False},
    {"data_format": "channels_first", "activation": "relu"},
    {"data_format": "channels_first", "groups": 4, "strides": 2, "padding": "same"},
    {"kernel_size": 1, "filters": 4, "algorithm": "gemm"},
    {"algorithm": "direct", "dtype": "float16"},
    {"algorithm": "builtin", "dtype": "mixed_bfloat16"},
    {
        "kernel_regularizer": "l2",
        "bias_regularizer": "l1",
        "kernel_constraint": "unit_norm",
    },
]


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def pair(**options):
    """A kconv layer and a Keras layer of the same weights."""
    options = {"filters": 8, "kernel_size": 3, **options}
    ours = kconv.layers.Conv2D(**options)
    options.pop("algorithm", None)
    stock = keras.layers.Conv2D(**options)
    return ours, stock


class TestAsKerasTestsItsLayers(testing.TestCase):
    """Serialization, symbolic shapes, dtypes, training, and more."""

    def test_all_configurations(self):
        for options in CONFIGURATIONS:
            init = {"filters": 8, "kernel_size": 3, **options}
            stock = {k: v for k, v in init.items() if k != "algorithm"}
            shape = (3, 7, 8, 4)
            if options.get("data_format") == "channels_first":
                shape = (3, 4, 7, 8)
            output_shape = keras.layers.Conv2D(**stock).compute_output_shape(shape)
            self.run_layer_test(
                kconv.layers.Conv2D,
                init_kwargs=init,
                input_shape=shape,
                expected_output_shape=output_shape,
                expected_num_trainable_weights=1 + init.get("use_bias", True),
                expected_num_non_trainable_weights=0,
                expected_num_losses=2 if "kernel_regularizer" in init else 0,
                supports_masking=False,
                custom_objects={"Conv2D": kconv.layers.Conv2D},
            )


@pytest.mark.parametrize("options", CONFIGURATIONS, ids=str)
def test_same_as_keras(options):
    if options.get("data_format") == "channels_first":
        x = images(2, 4, 9, 8)
        last = {**options, "data_format": "channels_last"}
    else:
        x, last = images(2, 9, 8, 4), options
    # Stock cannot compute channels_first on CPU: it is asked for the transposed.
    ours, _ = pair(**options)
    _, stock = pair(**last)
    first = last is not options
    y = ours(x)
    stock.build((2, 9, 8, 4))
    stock.set_weights(ours.get_weights())
    expected = stock(np.moveaxis(x, 1, -1) if first else x)
    expected = np.moveaxis(expected.numpy(), -1, 1) if first else expected.numpy()
    assert y.dtype == expected.dtype
    assert y.shape == expected.shape
    unit = {"float16": 2e-3, "bfloat16": 2e-2}.get(
        y.dtype.name, tolerance(ours.algorithm)
    )
    difference = np.abs(np.subtract(y, expected, dtype="float32"))
    assert difference.max() <= unit * np.abs(expected).max()


def test_arguments_are_those_of_keras():
    ours = inspect.signature(kconv.layers.Conv2D.__init__).parameters
    stock = inspect.signature(keras.layers.Conv2D.__init__).parameters
    positional = [
        (p.name, p.default) for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert positional == [
        (p.name, p.default) for p in stock.values() if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert set(ours) - set(stock) == {"algorithm", "padding_mode"}
    assert ours["algorithm"].default == "auto"
    assert kconv.layers.Convolution2D is kconv.layers.Conv2D


def test_config():
    layer = kconv.layers.Conv2D(4, 3, algorithm="direct", name="conv")
    stock = keras.layers.Conv2D(4, 3, name="conv").get_config()
    assert layer.get_config() == {**stock, "algorithm": "direct"}
    again = kconv.layers.Conv2D.from_config(layer.get_config())
    assert again.algorithm == "direct"
    name = keras.saving.get_registered_name(kconv.layers.Conv2D)
    assert name == "kconv>Conv2D"


def test_algorithm_reaches_the_op():
    layer = kconv.layers.Conv2D(4, 3, algorithm="direct")
    x = images(1, 5, 5, 2)
    layer(x)
    graph = tf.function(layer).get_concrete_function(x).graph
    (op,) = (op for op in graph.get_operations() if op.type == "Kconv>Conv")
    assert op.get_attr("algorithm") == b"direct"


@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "fastest"},
        {"filters": 0},
        {"kernel_size": (3, 0)},
        {"strides": 0},
        {"groups": 3},
        {"padding": "causal"},
        {"strides": 2, "dilation_rate": 0},
        {"padding": 1},
        {"padding": ((1, 1),)},
        {"padding": ((1, -1), (1, 1))},
        {"padding_mode": "symmetric"},
    ],
    ids=str,
)
def test_bad_arguments(options):
    with pytest.raises(ValueError, match="Received"):
        kconv.layers.Conv2D(**{"filters": 8, "kernel_size": 3, **options})


@pytest.mark.parametrize("policy", ("mixed_float16", "mixed_bfloat16", "float64"))
def test_dtype_policies(policy):
    layer = kconv.layers.Conv2D(8, 3, dtype=policy)
    layer.build((None, 9, 8, 4))
    with tf.GradientTape() as tape:
        y = layer(images(2, 9, 8, 4))
    assert layer.kernel.dtype == layer.dtype_policy.variable_dtype
    assert y.dtype.name == layer.dtype_policy.compute_dtype
    gradient = tape.gradient(y, layer.kernel.value)
    assert gradient.dtype.name == layer.dtype_policy.variable_dtype


def test_float16_training_learns():
    x = images(64, 8, 8, 1)
    labels = (x.mean((1, 2, 3)) > 0).astype("float32")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            kconv.layers.Conv2D(8, 3, activation="relu", dtype="mixed_float16"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(1, activation="sigmoid", dtype="float32"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy")
    losses = model.fit(x, labels, epochs=12, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.75 * losses[0]


def test_training_is_that_of_keras():
    x, labels = images(20, 12, 12, 3), np.arange(20) % 5
    histories = []
    for layer in (kconv.layers.Conv2D, keras.layers.Conv2D):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [
                layer(8, 3, activation="relu"),
                layer(16, 3, strides=2, padding="same"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(5),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, jit_compile="auto")
        # The last batch of an epoch is a smaller one.
        fitted = model.fit(x, labels, epochs=4, batch_size=8, shuffle=False, verbose=0)
        histories.append(fitted.history["loss"])
        assert not model.jit_compile
        assert model.predict(x, batch_size=7, verbose=0).shape == (20, 5)
    np.testing.assert_allclose(*histories, rtol=1e-4)


@pytest.mark.parametrize("algorithm", ("auto", "gemm"))
def test_a_function_compiled_by_xla(algorithm):
    layer = kconv.layers.Conv2D(8, 3, groups=2, algorithm=algorithm)
    x = tf.constant(images(2, 9, 8, 4))
    expected = layer(x)

    @tf.function(jit_compile=True)
    def gradient(x):
        with tf.GradientTape() as tape:
            y = layer(x)
        return y, tape.gradient(y, layer.kernel.value)

    y, dw = gradient(x)
    with tf.GradientTape() as tape:
        eager = layer(x)
    expected_dw = tape.gradient(eager, layer.kernel.value)
    error = tolerance(algorithm)
    np.testing.assert_allclose(y, expected, atol=error)
    np.testing.assert_allclose(dw, expected_dw, atol=error * np.abs(expected_dw).max())


def test_keras_knows_that_the_layer_is_not_for_xla():
    model = keras.Sequential([kconv.layers.Conv2D(2, 3), keras.layers.Flatten()])
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model.compile("sgd", "mse", jit_compile=True)
    assert not model.jit_compile


def test_lora():
    ours, stock = pair()
    x = images(2, 9, 8, 4)
    for layer in (ours, stock):
        layer.build(x.shape)
        layer.enable_lora(2)
        layer.lora_kernel_b.assign(images(*layer.lora_kernel_b.shape))
    stock.set_weights(ours.get_weights())
    expected = stock(x)
    error = tolerance(ours.algorithm) * np.abs(expected).max()
    np.testing.assert_allclose(ours(x), expected, rtol=0, atol=error)
    assert [v.trainable for v in ours.weights] == [v.trainable for v in stock.weights]


def test_unknown_sizes():
    inputs = keras.Input((None, None, 3))
    outputs = kconv.layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
    model = keras.Model(inputs, outputs)
    for batch, height, width in itertools.product((1, 3), (5, 8), (7,)):
        x = images(batch, height, width, 3)
        expected = keras.ops.conv(x, model.layers[1].kernel, 2, "same")
        result = model.predict(x, verbose=0)
        np.testing.assert_allclose(result, expected, atol=2e-6)
