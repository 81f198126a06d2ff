"""Layers that change their classes where they are, and models that notice."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kconv


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


class Net(keras.Model):
    """Cannot be copied: its constructor takes a function."""

    def __init__(self, make):
        super().__init__()
        self.conv, self.head = make(), layers.DepthwiseConv2D(2)

    def call(self, x):
        return self.head(self.conv(x))


def make():
    return Net(lambda: layers.Conv2D(4, 3))


def attributes(layer):
    """What an object has beside what its class has, but for TensorFlow's own."""
    return {name for name in vars(layer) if not name.startswith("_self_")}


def test_a_swapped_layer_is_as_one_that_was_made():
    for stock, ours in (
        (layers.Conv2D(4, 3, name="one"), kconv.layers.Conv2D(4, 3, name="one")),
        (
            layers.SeparableConv1D(4, 3, name="one"),
            kconv.layers.SeparableConv1D(4, 3, name="one"),
        ),
    ):
        swapped = type(stock).from_config(stock.get_config())
        x = images(2, *(7,) * stock.rank, 3)
        for one in (stock, ours, swapped):
            one(x)
        model = keras.Sequential([swapped])
        for function, like in ((kconv.convert, ours), (kconv.revert, stock)):
            function(model, in_place=True)
            assert type(swapped) is type(like)
            assert attributes(swapped) == attributes(like)
            assert swapped.supports_jit == like.supports_jit
            assert swapped.call_signature_parameters == like.call_signature_parameters
            assert swapped._call_has_training_arg == like._call_has_training_arg
            assert swapped._call_has_context_arg == like._call_has_context_arg
            assert swapped.get_config() == like.get_config()


def test_lora():
    model = keras.Sequential([keras.Input((5, 5, 3)), layers.Conv2D(4, 3)])
    model.layers[0].enable_lora(2)
    model.layers[0].lora_kernel_b.assign(images(2, 4))
    x = images(2, 5, 5, 3)
    expected, names = model(x), [v.path for v in model.trainable_weights]
    for function in (kconv.convert, kconv.revert):
        function(model, in_place=True)
        assert [v.path for v in model.trainable_weights] == names
        np.testing.assert_allclose(model(x), expected, atol=1e-4)


def test_export(tmp_path):
    inputs = keras.Input((5, 5, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3)(inputs))
    x = images(2, 5, 5, 3)
    for function in (kconv.convert, kconv.revert):
        function(model, in_place=True)
        model.export(tmp_path / function.__name__, verbose=False)
        loaded = tf.saved_model.load(tmp_path / function.__name__)
        np.testing.assert_allclose(loaded.serve(x), model(x), atol=1e-5)
        nodes = loaded.serve.get_concrete_function(x).graph.as_graph_def()
        kinds = {node.op for f in nodes.library.function for node in f.node_def}
        assert any("Kconv" in kind for kind in kinds) == (function is kconv.convert)


def test_what_was_traced_is_traced_again():
    model, x = make(), images(2, 7, 7, 3)
    model.compile("sgd", "mse")
    outer = keras.Sequential([model, layers.Flatten()])
    y = images(*outer(x).shape)
    outer.compile("sgd", "mse")
    expected = outer.predict(x, verbose=0)
    outer.evaluate(x, y, verbose=0)
    kconv.convert(outer, in_place=True, algorithm="depthwise")
    for call in (outer.predict, lambda x, **_: outer.evaluate(x, y), model.predict):
        with pytest.raises(ValueError, match="algorithm='depthwise'"):
            call(x, verbose=0)
    kconv.convert(outer, in_place=True)
    np.testing.assert_allclose(outer.predict(x, verbose=0), expected, atol=1e-5)
    kconv.revert(outer, in_place=True)
    assert np.array_equal(outer.predict(x, verbose=0), expected)


def test_training_goes_on():
    keras.utils.set_random_seed(1)
    x, y = images(4, 7, 7, 3), images(4, 4, 4, 4)
    models = make(), make()
    for model in models:
        model(x)
        model.compile(keras.optimizers.Adam(0.01), "mse")
        model.set_weights(models[0].get_weights())
    losses = []
    for step in (None, kconv.convert, None, kconv.revert, None):
        if step:
            step(models[1], in_place=True)
        losses.append(
            [m.fit(x, y, verbose=0, shuffle=False).history["loss"][0] for m in models]
        )
    losses = np.array(losses)
    np.testing.assert_allclose(losses[:, 1], losses[:, 0], rtol=1e-4)
    assert losses[-1, 0] < losses[0, 0]
    assert models[1].optimizer.iterations == 5


def test_xla():
    model, x = make(), images(2, 7, 7, 3)
    model(x)
    model.compile("sgd", "mse", jit_compile=True)
    other = make()
    other.jit_compile = True
    both = keras.Sequential([model, layers.Reshape((-1, 1, 1)), other])
    kconv.convert(both, in_place=True)
    assert not model.jit_compile
    assert not other.jit_compile
    assert model.predict(x, verbose=0).shape == (2, 4, 4, 4)
    kconv.revert(both, in_place=True)
    assert model.jit_compile
    model.compile("sgd", "mse", jit_compile=False)
    kconv.revert(kconv.convert(model, in_place=True), in_place=True)
    assert not model.jit_compile


def test_a_copy_of_a_model_for_xla_says_nothing(recwarn):
    inputs = keras.Input((7, 7, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3)(inputs))
    model.compile("sgd", "mse", jit_compile=True)
    converted = kconv.convert(model)
    assert not converted.jit_compile
    assert kconv.revert(converted).jit_compile
    assert not [str(w.message) for w in recwarn if "jit_compile" in str(w.message)]


def test_an_unbuilt_layer_is_built_by_its_class(monkeypatch):
    built = []

    def build(self, input_shape):
        built.append(input_shape)
        super(kconv.layers.Conv2D, self).build(input_shape)

    monkeypatch.setattr(kconv.layers.Conv2D, "build", build)
    model = keras.Sequential([layers.Conv2D(4, 3)])
    kconv.convert(model, in_place=True)
    model(images(1, 5, 5, 3))
    assert built == [(1, 5, 5, 3)]
    assert model.layers[0].built
    assert model.weights[0].path == f"{model.name}/{model.layers[0].name}/kernel"
    model = keras.Sequential([kconv.layers.Conv2D(4, 3)])
    kconv.revert(model, in_place=True)
    model(images(1, 5, 5, 3))
    assert len(built) == 1


def test_prepared_layers_give_back():
    model = keras.Sequential([keras.Input((9, 9, 16)), kconv.layers.Conv2D(16, 3)])
    layer, x = model.layers[0], images(1, 9, 9, 16)
    assert kconv.prepare(model) == 1
    kconv.convert(model, in_place=True)  # nothing to do
    assert layer.is_prepared
    kconv.convert(model, in_place=True, algorithm="gemm")
    assert not layer.is_prepared
    kconv.prepare(model)
    y, slot = model(x), layer._prepared
    kconv.revert(model, in_place=True)
    assert not slot
    assert type(layer) is layers.Conv2D
    np.testing.assert_allclose(model(x), y, atol=1e-4)


def test_a_compile_and_optimizers_of_its_own():
    class Two(keras.Model):
        def __init__(self, part):
            super().__init__()
            self.part = part

        def compile(self, optimizer, other):
            super().compile(optimizer, loss="mse")
            self.other = other

        def call(self, x):
            return self.part(x)

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = keras.ops.mean(keras.ops.square(self(x) - y))
            gradients = tape.gradient(loss, self.trainable_weights)
            self.other.apply(gradients, self.trainable_weights)
            return {"mine": loss}

    model, x, y = Two(layers.Conv2D(2, 3)), images(2, 5, 5, 3), images(2, 3, 3, 2)
    model.compile("sgd", keras.optimizers.Adam())
    model.fit(x, y, verbose=0)
    kconv.convert(model, in_place=True)
    assert type(model.part) is kconv.layers.Conv2D
    assert list(model.fit(x, y, verbose=0).history) == ["mine"]
    assert model.other.iterations == 2


def test_operations_of_a_graph():
    inputs = keras.Input((7, 7, 3))
    x = kconv.ops.conv(inputs, images(3, 3, 3, 4), padding="SAME")
    x = kconv.ops.conv(x, images(1, 1, 4, 4), activation="relu")
    model = keras.Model(inputs, kconv.layers.Conv2D(2, 1)(x))
    node, x = model.operations[1], images(2, 7, 7, 3)
    expected, names = model(x), [op.name for op in model.operations]
    _, report = kconv.revert(model, in_place=True, return_report=True)
    assert model.operations[1] is node
    assert [row.became for row in report] == [
        *("keras.ops.Conv", None, "keras.layers.Conv2D")
    ]
    assert [op.name for op in model.operations] == names
    np.testing.assert_allclose(model(x), expected, atol=1e-4)
    again = keras.Model.from_config(model.get_config())
    assert type(again.operations[1]) is type(node) is not kconv.ops.Conv


def test_an_error_leaves_the_model_as_it_was(monkeypatch):
    def fail(cls, config):
        raise OSError("no")

    model = make()
    monkeypatch.setattr(kconv.layers.DepthwiseConv2D, "from_config", classmethod(fail))
    with pytest.raises(OSError, match="no"):
        kconv.convert(model, in_place=True)
    assert type(model.conv) is layers.Conv2D


def test_an_error_of_the_old_class_leaves_the_model_as_it_was():
    model = keras.Sequential([layers.Conv2D(4, 3), layers.Conv2D(4, 3)])
    # Keras's constructor refuses both together, kconv's does not.
    model.layers[1].strides = model.layers[1].dilation_rate = (2, 2)
    with pytest.raises(TypeError, match="not supported in conjunction"):
        kconv.convert(model, in_place=True)
    assert [type(layer) for layer in model.layers] == [layers.Conv2D] * 2


@pytest.mark.parametrize("kind", ("Conv2D", "Conv2DTranspose", "DepthwiseConv2D"))
def test_activations_that_are_layers(kind):
    options = {"kernel_size": 3, "activation": layers.PReLU()}
    if kind != "DepthwiseConv2D":
        options["filters"] = 4
    inputs = keras.Input((5, 5, 4))
    model = keras.Model(inputs, getattr(layers, kind)(**options)(inputs))
    x = images(2, 5, 5, 4)
    model(x)  # which builds the activation
    model.set_weights([images(*v.shape, seed=i) for i, v in enumerate(model.weights)])
    (layer,) = model.layers[1:]
    activation, paths = layer.activation, [v.path for v in model.weights]
    expected = model(x)
    copy = kconv.convert(model)
    assert copy.layers[1].activation is not activation
    np.testing.assert_allclose(copy(x), expected, atol=1e-4)
    for function in (kconv.convert, kconv.revert):
        function(model, in_place=True)
        assert layer.activation is activation
        assert layer._layers == [activation]
        assert [v.path for v in model.weights] == paths
        np.testing.assert_allclose(model(x), expected, atol=1e-4)
