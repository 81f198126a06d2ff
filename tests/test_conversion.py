"""kconv.convert and kconv.revert: what changes, what stays, what is left alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kconv

CONVERTED = (
    *("Conv2D", "DepthwiseConv1D", "DepthwiseConv2D"),
    *("SeparableConv1D", "SeparableConv2D"),
)


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def sequential():
    return keras.Sequential(
        [
            keras.Input((8, 8, 4), name="image"),
            layers.Conv2D(6, 3, activation="relu", name="first"),
            layers.BatchNormalization(),
            layers.Conv2D(8, 3, groups=2, padding="same", use_bias=False),
            layers.Flatten(),
            layers.Dense(3),
        ],
        name="sequence",
    )


def functional():
    """Shared layers, nested models, operations, several inputs and outputs."""
    image = keras.Input((8, 8, 4), name="image")
    other = keras.Input((8, 8, 4), name="other")
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    block = keras.Sequential(
        [layers.Conv2D(4, 1, name="inside"), layers.ReLU()], name="block"
    )
    deep = keras.Input((8, 8, 4))
    nested = keras.Model(deep, block(shared(deep)) + deep, name="nested")
    x = keras.ops.relu(shared(image)) * 2.0 + nested(other)
    x = block(x) - shared(x)
    outputs = {"map": x, "mean": layers.GlobalAveragePooling2D(name="mean")(x)}
    return keras.Model({"image": image, "other": other}, outputs, name="graph")


def flatten(model):
    """All layers, those of nested models and wrappers too."""
    return [layer for layer in model._flatten_layers() if layer is not model]


def classes(model, kind):
    return [layer.name for layer in flatten(model) if type(layer) is kind]


def convs(model):
    """Names of stock and of kconv layers."""
    return tuple(
        [
            layer.name
            for layer in flatten(model)
            if type(layer) in [getattr(module, name) for name in CONVERTED]
        ]
        for module in (layers, kconv.layers)
    )


def flags(model):
    return [
        (layer.name, layer.trainable)
        for layer in flatten(model)
        if not isinstance(layer, layers.InputLayer)  # which has nothing to train
    ]


def assert_same(model, copy, x, tolerance=1e-5):
    """The same names, weights and results, and no variable in common."""
    assert copy.name == model.name
    assert [w.path for w in copy.weights] == [w.path for w in model.weights]
    assert [w.dtype for w in copy.weights] == [w.dtype for w in model.weights]
    assert flags(copy) == flags(model)
    for a, b in zip(model.get_weights(), copy.get_weights(), strict=True):
        assert np.array_equal(a, b)
    assert not {id(v) for v in model.variables} & {id(v) for v in copy.variables}
    results = [keras.tree.flatten(one(x)) for one in (model, copy)]
    for ours, theirs in zip(*results, strict=True):
        difference = np.abs(np.subtract(ours, theirs, dtype="float32")).max()
        assert difference <= tolerance * np.abs(theirs).max()


def check_both_ways(model, x, **options):
    """Converts and reverts; returns the converted model."""
    before, weights = model.get_config(), model.get_weights()
    names = convs(model)[0]
    converted = kconv.convert(model, **options)
    assert convs(converted) == ([], names)
    assert names
    assert_same(model, converted, x)
    reverted = kconv.revert(converted)
    assert convs(reverted) == (names, [])
    assert_same(model, reverted, x)
    assert reverted.get_config() == before
    # The argument is what it was.
    assert model.get_config() == before
    assert convs(model) == (names, [])
    for a, b in zip(weights, model.get_weights(), strict=True):
        assert np.array_equal(a, b)
    return converted


def randomize(model):
    for seed, variable in enumerate(model.weights):
        variable.assign(np.abs(images(*variable.shape, seed=seed)))


def test_sequential():
    model = sequential()
    randomize(model)
    converted = check_both_ways(model, images(2, 8, 8, 4))
    assert type(converted) is keras.Sequential
    assert converted.inputs[0].name == model.inputs[0].name


def test_functional_with_shared_and_nested():
    model = functional()
    randomize(model)
    x = {"image": images(2, 8, 8, 4), "other": images(2, 8, 8, 4, seed=1)}
    converted = check_both_ways(model, x)
    assert set(converted.input) == {"image", "other"}
    assert converted.get_layer("shared") is converted.get_layer("nested").get_layer(
        "shared"
    )
    assert converted.get_layer("block") is converted.get_layer("nested").get_layer(
        "block"
    )
    assert len(model.get_layer("shared")._inbound_nodes) == 3


def test_algorithm():
    converted = kconv.convert(sequential(), algorithm="direct")
    assert converted.get_layer("first").algorithm == "direct"
    assert kconv.convert(sequential()).get_layer("first").algorithm == "auto"
    # Layers that are kconv's already get it too, those in wrappers as well.
    again = kconv.convert(converted, algorithm="gemm")
    assert again.get_layer("first").algorithm == "gemm"
    wrapper = layers.TimeDistributed(kconv.layers.Conv2D(2, 1))
    again = kconv.convert(keras.Sequential([wrapper]), algorithm="gemm")
    assert again.layers[0].layer.algorithm == "gemm"
    with pytest.raises(ValueError, match="Received: algorithm='fastest'"):
        kconv.convert(sequential(), algorithm="fastest")


def test_trainable_flags():
    model = functional()
    model.get_layer("nested").trainable = False
    model.get_layer("nested").get_layer("block").trainable = True
    model.get_layer("block").layers[0].trainable = False
    converted = kconv.convert(model)
    assert flags(converted) == flags(model)
    assert len(converted.trainable_weights) == len(model.trainable_weights)
    model.trainable = False
    converted = kconv.convert(model)
    assert flags(converted) == flags(model)
    assert converted.trainable_weights == []


def test_dtype_policies():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, dtype="mixed_float16", name="half")(inputs)
    x = layers.Conv2D(4, 3, dtype="float64", name="double")(x)
    model = keras.Model(inputs, x)
    converted = check_both_ways(model, images(2, 8, 8, 4))
    assert converted.get_layer("half").dtype_policy.name == "mixed_float16"
    assert converted.get_layer("double").dtype_policy.name == "float64"


class Mine(layers.Conv2D):
    """A subclass, which may do what it likes."""

    def call(self, inputs):
        return 2 * super().call(inputs)


def double(x):
    return 2 * x


def test_what_is_of_another_class_stays():
    inputs = keras.Input((2, 8, 8, 4))
    x = layers.TimeDistributed(layers.Conv2D(4, 3, name="wrapped"))(inputs)
    x = layers.Reshape((6, 12, 4))(x)
    x = Mine(4, 3, padding="same", name="mine")(x)
    x = layers.Conv2DTranspose(4, 3)(x)
    x = layers.Conv2DTranspose(4, 3, padding="same")(x)
    x = layers.Conv2D(3, 1, activation=double, name="plain")(x)
    x = layers.Lambda(lambda x: keras.ops.square(x) + 1, name="anonymous")(x)
    model = keras.Model(inputs, layers.Dropout(0.5)(x))
    converted = kconv.convert(model)
    assert type(converted.get_layer("mine")) is Mine
    # A wrapper keeps its class, and its layer is swapped.
    assert convs(converted) == ([], ["wrapped", "plain"])
    assert convs(kconv.revert(converted)) == (["wrapped", "plain"], [])
    x = images(2, 2, 8, 8, 4)
    np.testing.assert_allclose(converted(x), model(x), rtol=1e-4, atol=1e-5)
    # The state of random generators comes along.
    for ours, theirs in zip(converted.variables, model.variables, strict=True):
        assert np.array_equal(ours, theirs)


def test_unbuilt():
    model = keras.Sequential([layers.Conv2D(4, 3), layers.Flatten()], name="later")
    converted = kconv.convert(model)
    assert not converted.built
    assert not model.built
    assert convs(converted) == ([], [model.layers[0].name])
    assert converted(images(2, 5, 5, 3)).shape == (2, 36)
    assert not model.built
    model.layers[0].build((None, 5, 5, 3))
    converted = kconv.convert(model)
    for ours, theirs in zip(converted.weights, model.weights, strict=True):
        assert np.array_equal(ours, theirs)


def test_built_by_a_call():
    model = keras.Sequential([layers.Conv2D(4, 3), layers.Flatten()])
    x = images(2, 5, 5, 3)
    expected = model(x)
    np.testing.assert_allclose(kconv.convert(model)(x), expected, atol=1e-6)


class Pick(layers.Layer):
    def call(self, inputs):
        return inputs["image"]


def test_a_stack_without_a_graph():
    model = keras.Sequential([Pick(), layers.Conv2D(4, 3)])
    x = {"image": images(2, 5, 5, 3), "other": images(2, 1)}
    expected = model(x)
    converted = kconv.convert(model)
    assert converted.built == model.built
    assert [w.path for w in converted.weights] == [w.path for w in model.weights]
    np.testing.assert_allclose(converted(x), expected, atol=1e-6)
    assert np.array_equal(kconv.revert(converted)(x), expected)


def test_lora():
    model = sequential()
    model.get_layer("first").enable_lora(2)
    model.get_layer("first").lora_kernel_b.assign(images(2, 6))
    converted = kconv.convert(model)
    x = images(2, 8, 8, 4)
    np.testing.assert_allclose(converted(x), model(x), atol=1e-4)
    assert len(converted.trainable_weights) == len(model.trainable_weights)


def test_compiled(recwarn):
    model = sequential()
    model.get_layer("first").trainable = False
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    assert kconv.convert(model).compiled  # before there is a state
    x, y = images(8, 8, 8, 4), images(8, 3)
    model.fit(x, y, verbose=0)
    converted = kconv.convert(model)
    assert not [w.message for w in recwarn if "The copy" in str(w.message)]
    assert converted.compiled
    assert not converted.jit_compile
    assert converted.optimizer is not model.optimizer
    for ours, theirs in zip(
        converted.optimizer.variables, model.optimizer.variables, strict=True
    ):
        assert np.array_equal(ours, theirs)
    histories = [
        one.fit(x, y, epochs=2, shuffle=False, verbose=0).history["loss"]
        for one in (model, converted, kconv.revert(converted))
    ]
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-4)


def test_compiled_with_what_keras_cannot_restore():
    def loss(y, predicted):
        return keras.ops.mean(keras.ops.square(y - predicted))

    model = sequential()
    model.compile("sgd", loss)
    with pytest.warns(
        UserWarning, match="'sequence' is not compiled: .*'loss'"
    ) as told:
        converted = kconv.convert(model)
    assert [warning.filename for warning in told] == [__file__]
    assert not converted.compiled
    assert model.compiled
    assert convs(converted)[0] == []


class Trained(keras.Model):
    """Functional by its constructor, with a method and a weight of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = self.add_weight(name="scale")

    def answer(self):
        return 42


def test_class_of_a_functional_model():
    inputs = keras.Input((8, 8, 3))
    model = Trained(inputs, layers.Conv2D(4, 3)(inputs))
    model.scale.assign(5)
    converted = kconv.convert(model)
    assert type(converted) is Trained
    assert converted.answer() == 42
    assert converted.scale == 5
    assert len(convs(converted)[1]) == 1


class Tripled(keras.Model):
    """Functional, but for what it computes and how it is trained and tested."""

    def call(self, inputs):
        return 3 * super().call(inputs)

    def test_step(self, data):
        return {"answer": 42}


class Chain(keras.Sequential):
    """Sequential, but for what it computes."""

    def call(self, inputs, training=None, mask=None):
        return 3 * super().call(inputs)


class Passing(keras.Sequential):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class Sized(keras.Sequential):
    """Made from something else than layers."""

    def __init__(self, filters, name=None):
        super().__init__([layers.Conv2D(filters, 3)], name=name)


class Block(keras.Model):
    """Functional, made from something else than inputs and outputs."""

    def __init__(self, filters, name=None):
        inputs = keras.Input((8, 8, 3))
        super().__init__(inputs, layers.Conv2D(filters, 3)(inputs), name=name)


def test_subclasses_stay_what_they_are():
    inputs = keras.Input((8, 8, 3))
    tripled = Tripled(inputs, layers.Conv2D(4, 3)(inputs))
    chains = [
        kind([keras.Input((8, 8, 3)), layers.Conv2D(4, 3)], name="chain")
        for kind in (Chain, Passing)
    ]
    x = images(2, 8, 8, 3)
    for model in (tripled, *chains):
        converted = check_both_ways(model, x)
        assert type(converted) is type(model)
    tripled.compile(loss="mse")
    answer = kconv.convert(tripled).evaluate(x, x, verbose=0, return_dict=True)
    assert answer == {"answer": 42}


@pytest.mark.parametrize("kind", (Sized, Block))
def test_a_class_that_cannot_be_made_again_is_told(kind):
    model = kind(4)
    for given in (model, keras.Sequential([model])):
        with pytest.raises(
            ValueError,
            match=rf"constructor .*Received: model=.* of type {kind.__name__}",
        ):
            kconv.convert(given)


def test_adapted_layers():
    inputs = keras.Input((8, 8, 3))
    normalization = layers.Normalization()
    normalization.adapt(images(16, 8, 8, 3) * 5 + 3)
    wrapped = layers.TimeDistributed(layers.Normalization(name="inner"))
    model = keras.Model(inputs, layers.Conv2D(4, 3)(wrapped(normalization(inputs))))
    wrapped.layer.adapt(images(16, 8, 3) * 2 - 1)
    assert_same(model, kconv.convert(model), images(2, 8, 8, 3))
    alone = keras.Sequential([normalization])
    x = images(2, 8, 8, 3)
    np.testing.assert_array_equal(kconv.convert(alone)(x), alone(x))


@pytest.mark.parametrize(
    "layer",
    [
        layers.TextVectorization(output_sequence_length=4),
        layers.TextVectorization(output_mode="tf_idf"),
        layers.StringLookup(),
    ],
    ids=("text", "tf_idf", "lookup"),
)
def test_vocabularies(layer):
    words = tf.constant([["one two two"], ["three two"], ["one"]])
    early = kconv.convert(keras.Sequential([layer])).layers[0]
    assert early.get_vocabulary() == layer.get_vocabulary()
    layer.adapt(words)
    model = keras.Sequential([keras.Input((1,), dtype="string"), layer])
    converted = kconv.revert(kconv.convert(model))
    assert converted.layers[0].get_vocabulary() == layer.get_vocabulary()
    assert np.array_equal(converted(words), model(words))
    assert np.abs(model(words)).max() > 1


def test_flag_of_a_variable():
    model = sequential()
    model.get_layer("first").bias.trainable = False
    converted = kconv.convert(model)
    assert [v.trainable for v in converted.variables] == [
        v.trainable for v in model.variables
    ]
    assert len(converted.trainable_weights) == len(model.trainable_weights)


def test_a_layer_shared_with_a_wrapper():
    inputs = keras.Input((2, 8, 8, 4))
    shared = layers.Conv2D(4, 3, padding="same", name="shared")
    x = layers.TimeDistributed(shared, name="times")(inputs)
    model = keras.Model(inputs, shared(x[:, 0]))
    shared.trainable = False
    converted = kconv.convert(model)
    assert len(converted.variables) == len(model.variables)
    wrapper = converted.layers[1]
    assert type(wrapper.layer) is kconv.layers.Conv2D
    assert converted.get_layer("shared") is wrapper.layer
    assert wrapper.name == "times"
    assert_same(model, converted, images(2, 2, 8, 8, 4))
    assert kconv.revert(converted).get_config() == model.get_config()


def test_policy_of_the_model():
    for model in (sequential(), functional()):
        model.dtype_policy = "mixed_bfloat16"
        assert kconv.convert(model).dtype_policy.name == "mixed_bfloat16"


def test_objects_that_keras_does_not_find_by_name():
    class Weight(keras.regularizers.Regularizer):
        def __call__(self, x):
            return 2.0 * keras.ops.sum(x)

        def get_config(self):
            return {}

    class Twos(keras.initializers.Initializer):
        def __call__(self, shape, dtype=None):
            return 2 * keras.ops.ones(shape, dtype)

        def get_config(self):
            return {}

    class Halved(keras.constraints.Constraint):
        def __call__(self, w):
            return w / 2

        def get_config(self):
            return {}

    conv = layers.Conv2D(
        4,
        3,
        kernel_regularizer=Weight(),
        bias_initializer=Twos(),
        bias_constraint=Halved(),
    )
    dense = layers.Dense(2, kernel_regularizer=Weight())
    model = keras.Sequential([keras.Input((8, 8, 3)), conv, dense])
    converted = check_both_ways(model, images(2, 8, 8, 3))
    assert type(converted.layers[0].bias_constraint) is Halved
    assert sum(converted.losses) == sum(model.losses)


def test_layers_with_unequal_strides_stay():
    inputs = keras.Input((8, 8, 4))
    x = kconv.layers.DepthwiseConv2D(3, strides=(2, 1), name="unequal")(inputs)
    x = layers.TimeDistributed(
        layers.TimeDistributed(kconv.layers.DepthwiseConv1D(2, strides=2))
    )(keras.ops.expand_dims(x, 1))
    x = kconv.layers.SeparableConv2D(4, 2, strides=(1, 2), name="mixed")(x[:, 0])
    x = kconv.layers.DepthwiseConv2D(1, strides=(2, 2), name="equal")(x)
    model = keras.Model(inputs, x)
    reverted = kconv.revert(model)
    kinds = [type(reverted.get_layer(n)) for n in ("unequal", "mixed", "equal")]
    ours = kconv.layers
    assert kinds == [ours.DepthwiseConv2D, ours.SeparableConv2D, layers.DepthwiseConv2D]
    x = images(2, 8, 8, 4)
    np.testing.assert_allclose(reverted(x), model(x), rtol=1e-4, atol=1e-5)


def test_layers_that_keras_does_not_have_stay():
    inputs = keras.Input((5, 6, 7, 2))
    x = kconv.layers.DepthwiseConv3D(3, depth_multiplier=2, name="deep")(inputs)
    x = kconv.layers.SeparableConv3D(4, 2, activation="relu", name="deeper")(x)
    model = keras.Model(inputs, x)
    randomize(model)
    x = images(2, 5, 6, 7, 2)
    converted = kconv.convert(model, algorithm="gemm")
    for copy in (converted, kconv.revert(model)):
        assert_same(model, copy, x)
        assert type(copy.get_layer("deep")) is kconv.layers.DepthwiseConv3D
        assert type(copy.get_layer("deeper")) is kconv.layers.SeparableConv3D
    assert converted.get_layer("deep").algorithm == "gemm"
    assert kconv.revert(model).get_layer("deeper").algorithm == "auto"


def test_depthwise_and_separable_layers():
    inputs = keras.Input((8, 8, 4))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu")(inputs)
    x = layers.SeparableConv2D(6, 3, padding="same", use_bias=False)(x)
    x = layers.TimeDistributed(layers.SeparableConv1D(5, 3))(x)
    x = layers.TimeDistributed(layers.DepthwiseConv1D(3, strides=2))(x)
    model = keras.Model(inputs, x)
    converted = check_both_ways(model, images(2, 8, 8, 4))
    assert len(convs(converted)[1]) == 4
    forced = kconv.convert(model, algorithm="winograd")
    with pytest.raises(ValueError, match="algorithm='winograd'"):
        forced(images(2, 8, 8, 4))


def test_what_cannot_be_converted():
    with pytest.raises(TypeError, match=r"must be a Keras model.*Received: .*Conv2D"):
        kconv.convert(layers.Conv2D(4, 3))
    with pytest.raises(TypeError, match="must be a Keras model"):
        kconv.revert("model.keras")


def test_conversion_says_nothing(recwarn, capsys):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation=lambda x: x * 2),
            layers.Lambda(lambda x: x + 1),
        ]
    )
    kconv.revert(kconv.convert(model))
    assert not [str(w.message) for w in recwarn if "lambda" in str(w.message)]
    assert capsys.readouterr().out == ""
