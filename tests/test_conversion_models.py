"""kconv.convert and kconv.revert on models that somebody's own classes make."""

import keras
import numpy as np
import pytest
from keras import layers

import kconv


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def convs(model):
    """Names of stock and of kconv layers that are Conv2D or DepthwiseConv2D."""
    return tuple(
        [
            layer.name
            for layer in model._flatten_layers()
            if type(layer) in (module.Conv2D, module.DepthwiseConv2D)
        ]
        for module in (layers, kconv.layers)
    )


def states(model):
    """Names, values and flags of all variables."""
    return [(v.path, v.numpy().tolist(), v.trainable) for v in model.variables]


class Block(layers.Layer):
    """Holds layers in a list, in a dictionary and from build()."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.parts = [layers.Conv2D(filters, 3, padding="same") for _ in range(2)]
        self.more = {"depthwise": layers.DepthwiseConv2D(3, padding="same")}

    def build(self, shape):
        inner = (*shape[:-1], self.filters)
        self.late = layers.Conv2D(self.filters, 1)
        self.late.build(inner)
        self.parts[0].build(shape)
        self.parts[1].build(inner)
        self.more["depthwise"].build(inner)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return self.late(self.more["depthwise"](x))

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.filters)


class Net(keras.Model):
    """Takes no name, dtype or flag, as in many a tutorial, and has no build()."""

    def __init__(self):
        super().__init__()
        self.first = layers.Conv2D(4, 3, activation="relu")
        self.block = Block(5)
        self.norm = layers.BatchNormalization()
        self.drop = layers.Dropout(0.5)
        self.head = keras.Sequential([layers.Conv2D(4, 2), layers.Flatten()])
        image = keras.Input((5, 5, 5))
        self.graph = keras.Model(image, layers.Conv2D(2, 1)(image) + 1)

    def call(self, x, training=None):
        x = self.norm(self.block(self.first(x)), training=training)
        return self.head(self.graph(self.drop(x, training=training)))

    def train_step(self, data):
        return {**super().train_step(data), "answer": 42}


def trained():
    keras.utils.set_random_seed(1)
    model = Net()
    model(images(1, 7, 7, 3))
    model.norm.trainable = False
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(images(4, 7, 7, 3), images(4, 64), verbose=0)
    return model


def optimizer(model):
    return [(v.path, v.numpy().tolist()) for v in model.optimizer.variables]


def test_subclassed_model():
    model, x = trained(), images(2, 7, 7, 3)
    before, expected = states(model), model(x).numpy()
    names = convs(model)[0]
    converted = kconv.convert(model)
    assert len(names) == 7
    assert convs(converted) == ([], names)
    reverted = kconv.revert(converted)
    assert convs(reverted) == convs(model) == (names, [])
    np.testing.assert_allclose(converted(x), expected, atol=1e-5)
    assert np.array_equal(reverted(x), expected)
    for copy in (converted, reverted):
        assert type(copy) is Net
        assert states(copy) == before == states(model)
        assert not {id(v) for v in copy.variables} & {id(v) for v in model.variables}
        assert optimizer(copy) == optimizer(model)
    # The copies of the layers are those that are trained.
    losses = [
        one.fit(x, images(2, 64), epochs=2, shuffle=False, verbose=0).history
        for one in (model, converted, reverted)
    ]
    assert losses[0] == losses[2]
    assert losses[1]["answer"] == [42, 42]
    np.testing.assert_allclose(losses[1]["loss"], losses[0]["loss"], rtol=1e-4)


def test_nested_in_each_other():
    class Outer(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inner = keras.Sequential([Net(), layers.Reshape((8, 8, 1)), Block(2)])

        def call(self, x):
            return self.inner(x)

    inputs = keras.Input((7, 7, 3))
    model = keras.Model(inputs, layers.Conv2D(3, 3)(Outer(name="outer")(inputs)))
    names, x = convs(model)[0], images(2, 7, 7, 3)
    assert len(names) == 12
    converted = kconv.convert(model)
    assert convs(converted) == ([], names)
    assert states(converted) == states(model)
    reverted = kconv.revert(converted)
    assert np.array_equal(reverted(x), model(x))
    assert reverted.get_config() == model.get_config()
    # A class of the same name is of nobody else's concern.
    assert type(converted.get_layer("outer")) is Outer


def test_unbuilt_subclassed_model():
    converted = kconv.convert(Net())
    assert not converted.built
    assert convs(converted)[0] == []
    assert converted(images(2, 7, 7, 3)).shape == (2, 64)


def test_subclassed_model_of_another_policy():
    class Small(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = layers.Conv2D(2, 3)

        def call(self, x):
            return self.conv(x)

    keras.config.set_dtype_policy("float64")
    try:
        model = Small()
    finally:
        keras.config.set_dtype_policy("float32")
    y = model(images(1, 5, 5, 3).astype("float64"))
    converted = kconv.convert(model)
    assert converted.conv.kernel.dtype == "float64"
    assert converted(images(1, 5, 5, 3).astype("float64")).dtype == y.dtype


class Cell(layers.Layer):
    """An RNN's cell that convolves each step."""

    state_size = 3

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv1D(1, 3, padding="same")
        self.depthwise = layers.DepthwiseConv2D(1)

    def build(self, shape):
        self.conv.build((None, 3, 1))
        self.depthwise.build((None, 3, 1, 1))

    def call(self, inputs, states):
        x = keras.ops.reshape(inputs + states[0], (-1, 3, 1, 1))
        y = keras.ops.tanh(self.depthwise(x))[:, :, 0, 0]
        return y, [y]


def test_wrappers():
    inputs = keras.Input((4, 6, 6, 3))
    block = layers.TimeDistributed(layers.TimeDistributed(layers.Conv1D(3, 2)))
    x = layers.TimeDistributed(Block(3))(block(inputs))
    x = layers.ConvLSTM2D(3, 3, name="lstm")(x)
    with keras.saving.custom_object_scope({"Cell": Cell}):
        both = layers.Bidirectional(layers.RNN(Cell()))
    x = both(layers.Reshape((-1, 3))(x))
    model = keras.Model(inputs, x)
    converted, report = kconv.convert(model, return_report=True)
    names = convs(model)[0]
    assert len(names) == 6  # Conv1D aside: four of the block, two of the cells
    assert convs(converted) == ([], names)
    assert type(converted.get_layer("lstm")) is layers.ConvLSTM2D
    assert "lstm" in [row.path for row in report.left]
    x = images(2, 4, 6, 6, 3)
    np.testing.assert_allclose(converted(x), model(x), atol=1e-5)
    reverted = kconv.revert(converted)
    assert reverted.get_config() == model.get_config()
    assert np.array_equal(reverted(x), model(x))


class Given(keras.Model):
    """Made of what its config does not know."""

    def __init__(self, make, *parts):
        super().__init__()
        self.parts = [make(), *parts]

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


class Chosen(layers.Layer):
    def __init__(self, conv, **kwargs):
        super().__init__(**kwargs)
        self.conv = conv

    def call(self, x):
        return self.conv(x)

    def get_config(self):
        conv = keras.saving.serialize_keras_object(self.conv)
        return {**super().get_config(), "conv": conv}

    @classmethod
    def from_config(cls, config):
        conv = keras.saving.deserialize_keras_object(config.pop("conv"))
        return cls(conv, **config)


def with_other_arguments():
    model = Net()
    model(images(1, 7, 7, 3))
    model.first.activation = keras.activations.tanh
    return model


def with_another_layer():
    model = Net()
    model.another = layers.Conv2D(4, 3)
    return model


def with_a_layer_beside_the_graph():
    inputs = keras.Input((7, 7, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3)(inputs))
    model.another = layers.Conv2D(4, 3)
    return model


def with_a_layer_that_is_shared():
    inputs, conv = keras.Input((7, 7, 3)), layers.Conv2D(3, 3, padding="same")
    return keras.Model(inputs, Chosen(conv)(conv(inputs)))


def with_a_function():
    return Given(lambda: layers.Conv2D(3, 3), layers.Conv2D(2, 1))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (with_a_function, "cannot be made again from its config"),
        (with_other_arguments, "does not have the same arguments"),
        (with_another_layer, "does not hold the same layers"),
        (with_a_layer_beside_the_graph, "holds layer 'conv2d.*' beside"),
        (with_a_layer_that_is_shared, "is shared by layers"),
    ],
)
def test_what_cannot_be_copied_is_swapped_in_place(make, reason):
    model = make()
    for function in (kconv.convert, kconv.revert):
        with pytest.raises(
            ValueError, match=rf"{reason}.*in_place=True.*Received: (model|layer)="
        ):
            function(model)
    x = images(2, 7, 7, 3)
    expected = model(x).numpy()
    names, before = convs(model)[0], states(model)
    assert names
    assert kconv.convert(model, in_place=True) is model
    assert convs(model) == ([], names)
    np.testing.assert_allclose(model(x), expected, atol=1e-5)
    assert kconv.revert(model, in_place=True) is model
    assert convs(model) == (names, [])
    assert np.array_equal(model(x), expected)
    assert states(model) == before


def test_a_layer_given_in_a_config_is_copied():
    inputs = keras.Input((7, 7, 3))
    model = keras.Model(inputs, Chosen(layers.Conv2D(3, 3), name="chosen")(inputs))
    converted = kconv.convert(model)
    assert convs(converted) == ([], convs(model)[0])
    assert states(converted) == states(model)
