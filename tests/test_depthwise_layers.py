"""kconv.layers of depthwise and separable convolution, against Keras's own."""

import inspect

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from keras.src import testing

import kconv
from kconv.layers.bases import of_any_rank

NAMES = ("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D")
DEEP = ("DepthwiseConv3D", "SeparableConv3D")
CONFIGURATIONS = [
    {},
    {"strides": 2, "padding": "same", "depth_multiplier": 3},
    {"dilation_rate": 2, "padding": "same", "use_bias": False},
    {"data_format": "channels_first", "activation": "relu", "depth_multiplier": 2},
    {"data_format": "channels_first", "strides": 2, "padding": "same"},
    {"kernel_size": 1, "algorithm": "gemm", "activation": "relu6"},
    {"algorithm": "direct", "dtype": "mixed_float16", "activation": "gelu"},
    {"algorithm": "builtin", "dtype": "mixed_bfloat16", "activation": "relu"},
    {"depthwise_regularizer": "l2", "bias_regularizer": "l1"},
]


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def rank_of(name):
    return int(name[-2])


def init(name, options):
    required = {"kernel_size": 3}
    if name.startswith("Separable"):
        required["filters"] = 6
    return {**required, **options}


def shape_of(name, options, batch=2):
    size = (9, 8, 7)[: rank_of(name)]
    if options.get("data_format") == "channels_first":
        return (batch, 4, *size)
    return (batch, *size, 4)


def pair(name, options):
    """A kconv layer, Keras's of the same weights, and a call of that in the layout."""
    ours = getattr(kconv.layers, name)(**init(name, options))
    # Stock cannot compute channels_first on CPU: it is asked for the transposed.
    left_out = ("algorithm", "data_format")
    stock = {k: v for k, v in options.items() if k not in left_out}
    stock = getattr(keras.layers, name)(**init(name, stock))
    shape = shape_of(name, options)
    ours.build(shape)
    stock.build(shape_of(name, {}))
    if ours.use_bias:
        ours.bias.assign(images(*ours.bias.shape))
    stock.set_weights(ours.get_weights())
    if shape[1] != 4:
        return ours, stock, stock

    def transposed(x):
        y = stock(tf.experimental.numpy.moveaxis(x, 1, -1))
        return tf.experimental.numpy.moveaxis(y, -1, 1)

    return ours, stock, transposed


class TestAsKerasTestsItsLayers(testing.TestCase):
    """Serialization, symbolic shapes, dtypes, training, and more."""

    def check(self, name, options):
        arguments = init(name, options)
        layer = getattr(kconv.layers, name)
        shape = shape_of(name, options)
        self.run_layer_test(
            layer,
            init_kwargs=arguments,
            input_shape=shape,
            expected_output_shape=layer(**arguments).compute_output_shape(shape),
            expected_num_trainable_weights=(
                1 + name.startswith("Separable") + options.get("use_bias", True)
            ),
            expected_num_non_trainable_weights=0,
            expected_num_losses=2 if "depthwise_regularizer" in options else 0,
            supports_masking=False,
            custom_objects={name: layer},
        )

    def test_depthwise(self):
        for options in CONFIGURATIONS[1:4]:
            self.check("DepthwiseConv2D", options)
        self.check("DepthwiseConv1D", CONFIGURATIONS[-1])

    def test_separable(self):
        for options in CONFIGURATIONS[1:4]:
            self.check("SeparableConv2D", options)
        self.check("SeparableConv1D", CONFIGURATIONS[-1])

    def test_three_dimensions(self):
        for name in DEEP:
            self.check(name, {"strides": (1, 2, 1), "algorithm": "gemm"})


@pytest.mark.parametrize("options", CONFIGURATIONS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_same_as_keras(name, options):
    ours, own, stock = pair(name, options)
    x = tf.constant(images(*shape_of(name, options)))
    results = []
    for function, layer in ((ours, ours), (stock, own)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
            loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 2)
        weights = [v.value for v in layer.trainable_weights]
        results.append([y, *tape.gradient(loss, [x, *weights])])
    assert [w.shape for w in ours.weights] == [w.shape for w in own.weights]
    # Stock's depthwise kernels round half types after every addition.
    unit = {"mixed_float16": 2e-2, "mixed_bfloat16": 1e-1}
    unit = unit.get(options.get("dtype"), 5e-6)
    for result, expected in zip(*results, strict=True):
        assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
        result, expected = (tf.cast(t, tf.float32) for t in (result, expected))
        error = tf.reduce_max(tf.abs(result - expected))
        assert error <= unit * tf.reduce_max(tf.abs(expected))


@pytest.mark.parametrize("layout", ("channels_last", "channels_first"))
@pytest.mark.parametrize("name", DEEP)
def test_three_dimensions(name, layout):
    options = {
        "depth_multiplier": 2,
        "strides": (2, 1, 1),
        "padding": "valid",
        "dilation_rate": (1, 2, 1),
        "activation": "relu",
        "data_format": layout,
    }
    layer = getattr(kconv.layers, name)(**init(name, options))
    shape = shape_of(name, options)
    x = images(*shape)
    y = layer(x)
    layer.bias.assign(images(*layer.bias.shape))
    y = layer(x)
    depthwise = layer.weights[0]
    assert depthwise.shape == (3, 3, 3, 4, 2)
    expected = reference.conv(
        x,
        np.reshape(depthwise, (3, 3, 3, 1, 8)),
        strides=(2, 1, 1),
        dilation_rate=(1, 2, 1),
        padding=((0, 0),) * 3,
        groups=4,
        layout=layout,
    )
    if name == "SeparableConv3D":
        axis = 1 if layout == "channels_first" else -1
        mixed = np.tensordot(expected, layer.pointwise_kernel[0, 0, 0], (axis, 0))
        expected = np.moveaxis(mixed, -1, axis)
    expected = reference.finish(expected, layer.bias, "relu", layout)
    assert y.shape == expected.shape == layer.compute_output_shape(shape)
    assert np.abs(y - expected).max() <= 2e-6 * np.abs(expected).max()
    again = type(layer).from_config(layer.get_config())
    again.build(shape)
    again.set_weights(layer.get_weights())
    assert np.array_equal(again(x), y)


@pytest.mark.parametrize("name", (*NAMES, *DEEP))
def test_arguments_are_those_of_keras(name):
    ours = inspect.signature(getattr(kconv.layers, name).__init__).parameters
    stock = getattr(keras.layers, name.replace("3D", "2D"))
    stock = inspect.signature(stock.__init__).parameters

    def positional(parameters):
        return [
            (p.name, p.default if name not in DEEP else str(p.default)[:2])
            for p in parameters.values()
            if p.kind is p.POSITIONAL_OR_KEYWORD
        ]

    assert positional(ours) == positional(stock)
    assert set(ours) - set(stock) == {"algorithm", "padding_mode"}
    assert ours["algorithm"].default == "auto"
    assert ours["algorithm"].kind is inspect.Parameter.KEYWORD_ONLY


def test_names():
    for name in (*NAMES, *DEEP):
        layer = getattr(kconv.layers, name)
        assert keras.saving.get_registered_name(layer) == f"kconv>{name}"
        if name.startswith("Separable"):
            alias = name.replace("Conv", "Convolution")
            assert getattr(kconv.layers, alias) is layer
    for name in dir(keras.layers):
        if name.startswith(("Depthwise", "Separable")):
            assert hasattr(kconv.layers, name)


@pytest.mark.parametrize("name", NAMES)
def test_config(name):
    options = init(name, {"depth_multiplier": 2, "name": "conv"})
    layer = getattr(kconv.layers, name)(**options, algorithm="direct")
    stock = getattr(keras.layers, name)(**options).get_config()
    assert layer.get_config() == {**stock, "algorithm": "direct"}
    assert type(layer).from_config(layer.get_config()).algorithm == "direct"
    assert not layer.supports_jit


@pytest.mark.parametrize("name", (*NAMES, *DEEP))
@pytest.mark.parametrize(
    "options",
    [
        {"algorithm": "fastest"},
        {"kernel_size": 0},
        {"strides": 0},
        {"depth_multiplier": 0},
        {"padding": "full"},
    ],
    ids=str,
)
def test_bad_arguments(options, name):
    with pytest.raises(ValueError, match="Received"):
        getattr(kconv.layers, name)(**init(name, options))


@pytest.mark.parametrize("activation", ("relu", "relu6", "linear", None, "gelu"))
@pytest.mark.parametrize("name", (*NAMES, *DEEP))
def test_bias_and_activation_are_part_of_the_op(name, activation):
    options = {"activation": activation, "algorithm": "gemm"}
    layer = getattr(kconv.layers, name)(**init(name, options))
    x = images(*shape_of(name, options))
    layer.build(x.shape)
    function = tf.function(layer, autograph=False)
    operations = function.get_concrete_function(x).graph.get_operations()
    nodes = [op for op in operations if op.type == "Kconv>Conv"]
    assert len(nodes) == 1 + name.startswith("Separable")
    assert [op.get_attr("num_bias") for op in nodes][-1] == 1
    fused = [op.get_attr("activation").decode() for op in nodes]
    last = activation if activation in ("relu", "relu6") else "linear"
    assert fused == ["linear"] * (len(nodes) - 1) + [last]
    names = {op.type for op in operations}
    assert not names & {"BiasAdd", "AddV2", "Relu", "Relu6", "Maximum"} or (
        activation == "gelu"
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("broadcast", "dtype"), [(False, "float64"), (True, "float32")]
)
def test_a_subclass_keeps_its_bias(broadcast, dtype, name):
    def with_own_bias(base):
        class Biased(base):
            def build(self, input_shape):
                super().build(input_shape)
                filters = 6 if name.startswith("Separable") else 4
                shape = (1, filters) if broadcast else (filters,)
                self.bias = tf.constant(images(*shape), dtype)

        return Biased(**init(name, {"activation": "relu"}))

    x = images(*shape_of(name, {}))
    ours, stock = (
        with_own_bias(getattr(m, name)) for m in (kconv.layers, keras.layers)
    )
    for layer in (ours, stock):
        layer.build(x.shape)
    ours.set_weights(stock.get_weights())
    y, expected = ours(x), stock(x)
    assert y.dtype == expected.dtype
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_strides_may_differ_and_be_combined_with_dilation():
    # Keras's layer cannot do the first on CPU, and the second in recent versions only.
    for options in (
        {"strides": (2, 1), "padding": "same"},
        {"strides": (2, 2), "dilation_rate": (2, 1)},
    ):
        layer = kconv.layers.DepthwiseConv2D(3, **options)
        x = images(2, 9, 8, 4)
        y = layer(x)
        expected = kconv.ops.conv(
            x, np.reshape(layer.kernel, (3, 3, 1, 4)), **options, algorithm="direct"
        )
        assert y.shape == layer.compute_output_shape(x.shape)
        np.testing.assert_allclose(y, expected, atol=1e-5)


def networks(module):
    keras.utils.set_random_seed(1)
    image = keras.Input((12, 12, 3))
    x = module.DepthwiseConv2D(3, depth_multiplier=4, activation="relu")(image)
    x = module.SeparableConv2D(16, 3, strides=2, padding="same", activation="relu6")(x)
    x = keras.layers.Reshape((25, 16))(x)
    x = module.SeparableConv1D(12, 5, activation="gelu")(x)
    x = module.DepthwiseConv1D(3, strides=2, padding="same")(x)
    x = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling1D()(x))
    return keras.Model(image, x)


def test_training_is_that_of_keras():
    x, labels = images(20, 12, 12, 3), np.arange(20) % 5
    histories, weights = [], []
    for module in (kconv.layers, keras.layers):
        model = networks(module)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss, jit_compile="auto")
        # The last batch of an epoch is a smaller one.
        fitted = model.fit(x, labels, epochs=2, batch_size=8, shuffle=False, verbose=0)
        histories.append(fitted.history["loss"])
        weights.append(model.get_weights())
        assert not model.jit_compile
    np.testing.assert_allclose(*histories, rtol=1e-4)
    for ours, stock in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, stock, atol=1e-4)


def test_trainable_flags():
    model = networks(kconv.layers)
    layer = model.layers[1]
    layer.trainable = False
    assert layer.trainable_weights == []
    model.compile("sgd", "mse")
    before = layer.get_weights()
    model.fit(images(4, 12, 12, 3), images(4, 5), verbose=0)
    for old, new in zip(before, layer.get_weights(), strict=True):
        assert np.array_equal(old, new)


def test_models_are_saved_and_loaded_both_ways(tmp_path):
    x = images(2, 12, 12, 3)
    ours, stock = networks(kconv.layers), networks(keras.layers)
    expected = stock(x)
    np.testing.assert_allclose(ours(x), expected, atol=1e-5)
    for model, name in ((ours, "ours"), (stock, "stock")):
        model.save(tmp_path / f"{name}.keras")
        model.save_weights(tmp_path / f"{name}.weights.h5")
        again = keras.saving.load_model(tmp_path / f"{name}.keras")
        assert [type(layer) for layer in again.layers] == [
            type(layer) for layer in model.layers
        ]
        np.testing.assert_allclose(again(x), expected, atol=1e-5)
    ours.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(x), expected, atol=1e-5)
    for model, name in ((ours, "stock"), (stock, "ours")):
        model.set_weights([0 * v for v in model.get_weights()])
        model.load_weights(tmp_path / f"{name}.weights.h5")
        np.testing.assert_allclose(model(x), expected, atol=1e-5)
    parts = [getattr(kconv.layers, n)(**init(n, {"padding": "same"})) for n in DEEP]
    deep = keras.Sequential([keras.Input((5, 6, 7, 2)), *parts])
    deep.save(tmp_path / "deep.keras")
    again = keras.saving.load_model(tmp_path / "deep.keras")
    x = images(2, 5, 6, 7, 2)
    np.testing.assert_allclose(again(x), deep(x), atol=1e-6)


@pytest.mark.parametrize("name", (*NAMES, *DEEP))
def test_xla_and_unknown_sizes(name):
    rank = rank_of(name)
    inputs = keras.Input((*[None] * rank, 3))
    options = {"strides": 2, "padding": "same", "activation": "relu"}
    layer = getattr(kconv.layers, name)(**init(name, options))
    model = keras.Model(inputs, layer(inputs))
    for batch, size in ((1, (5, 6, 7)), (3, (8, 5, 6))):
        x = images(batch, *size[:rank], 3)
        expected = layer(x)
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=1e-5)
    compiled = tf.function(lambda x: layer(x), jit_compile=True, autograph=False)
    np.testing.assert_allclose(compiled(x), expected, atol=1e-5)


def test_a_keras_without_bases_is_told():
    for name in NAMES:
        base = of_any_rank(getattr(keras.layers, name))
        assert issubclass(getattr(keras.layers, name), base)

    class Alone(keras.layers.Layer):
        pass

    with pytest.raises(RuntimeError, match=r"keras\.layers\.Alone .*Received: keras"):
        of_any_rank(Alone)(rank=3)


@pytest.mark.parametrize(
    "options", [{"groups": 2}, {"groups": 4}, {"groups": 4, "strides": 2}]
)
def test_groups_of_conv2d(options, tmp_path):
    layer = kconv.layers.Conv2D(8, 3, activation="relu", padding="same", **options)
    stock = keras.layers.Conv2D(8, 3, activation="relu", padding="same", **options)
    x = images(2, 9, 8, 4)
    layer.build(x.shape)
    stock.build(x.shape)
    stock.set_weights(layer.get_weights())
    results = []
    for own in (layer, stock):
        with tf.GradientTape() as tape:
            y = own(x)
        results.append([y, tape.gradient(y, own.kernel.value)])
    for result, expected in zip(*results, strict=True):
        np.testing.assert_allclose(result, expected, atol=2e-5)
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(x), results[1][0], atol=1e-5)
