"""Layers and models whose filters are prepared."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from problems import Case
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2,
)

import kconv
from kconv import native

assert native.ops() is not None, native.why_missing()

X, _ = Case((9, 11), (3, 3), 16, 32, batch=2).operands("forward")


# Layers.


def make_layer(**options):
    options = {"padding": "same", "algorithm": "winograd", **options}
    layer = kconv.layers.Conv2D(24, 3, **options)
    layer.build((None, None, None, 16))
    return layer


def uses_prepared(layer, x=X, **options):
    """Whether a call gives the op a prepared filter that is not empty."""
    given = []
    original = native.ops().kconv_conv

    def spy(**arguments):
        given.extend(int(tf.size(t)) for t in arguments["prepared"])
        return original(**arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native.ops(), "kconv_conv", spy)
        layer(x, **options)
    return any(given)


def test_layer():
    layer = make_layer(activation="relu")
    expected = layer(X)
    assert not layer.is_prepared
    assert layer.prepare() and layer.is_prepared
    assert uses_prepared(layer)
    assert not uses_prepared(layer, training=True)
    np.testing.assert_array_equal(layer(X), expected)
    np.testing.assert_array_equal(layer(X, training=True), expected)
    layer.trainable = False
    assert uses_prepared(layer, training=True)
    layer.release()
    assert not layer.is_prepared
    assert not uses_prepared(layer)
    np.testing.assert_array_equal(layer(X), expected)


@pytest.mark.parametrize("dtype", ("mixed_float16", "mixed_bfloat16", "float16"))
def test_layer_of_half_types(dtype):
    layer = make_layer(dtype=dtype, groups=2)
    x = X.astype("float16")
    expected = layer(x)
    # Mixed, it is a cast of the kernel that convolves.
    assert layer.prepare() == (dtype == "float16")
    np.testing.assert_array_equal(layer(x), expected)


def mark(layer):
    """Makes results of a prepared layer without a bias 0 where it uses the form."""
    form = layer._prepared.trackables["prepared"]
    spoiled = form.numpy()
    spoiled[128:] = 0
    form.assign(spoiled)


def one_element(kernel):
    value = kernel.numpy()
    value[1, 1, 7, 11] += 1
    return value


def step_in_a_graph(layer):
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(layer.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(X, training=True) ** 2)
        (gradient,) = tape.gradient(loss, layer.trainable_variables)
        optimizer.apply_gradients([(gradient, layer.kernel)])

    step()


ONE_ELEMENT = {
    "assign": lambda layer, model: layer.kernel.assign(one_element(layer.kernel)),
    "set_weights": lambda layer, model: model.set_weights([one_element(layer.kernel)]),
    "scatter": lambda layer, model: layer.kernel.value.scatter_nd_update(
        [[1, 1, 7, 11]], [7.0]
    ),
    "assign_add": lambda layer, model: layer.kernel.value.assign_add(
        one_element(layer.kernel) - layer.kernel
    ),
    "optimizer": lambda layer, model: step_in_a_graph(layer),
}


@pytest.mark.parametrize("change", ONE_ELEMENT.values(), ids=ONE_ELEMENT)
def test_any_change_is_seen_at_once(change):
    layer = make_layer(use_bias=False)
    model = keras.Sequential([keras.Input((9, 11, 16)), layer])
    assert layer.prepare()
    mark(layer)
    traced = tf.function(layer)
    functions = (layer, traced, lambda x: model.predict(x, verbose=0))
    for function in functions:
        assert not np.any(function(X))
    before = layer.kernel.numpy()
    change(layer, model)
    assert np.any(before != layer.kernel.numpy())
    fresh = make_layer(use_bias=False)
    fresh.set_weights(layer.get_weights())
    for function in functions:
        np.testing.assert_array_equal(function(X), fresh(X))


def test_dtype_policy_that_changes():
    layer = make_layer()
    layer.prepare()
    traced = tf.function(layer)
    expected = traced(X)
    layer.dtype_policy = keras.DTypePolicy("mixed_float16")
    y = layer(X)
    layer.release()
    np.testing.assert_array_equal(layer(X), y)
    np.testing.assert_array_equal(traced(X), expected)
    assert not layer.prepare()


FROZEN_SCRIPT = """
import sys
import numpy as np
import tensorflow as tf
from kconv import native

native.ops()
graph = tf.compat.v1.GraphDef.FromString(open(sys.argv[1], "rb").read())
(x,) = (node.name for node in graph.node if node.op == "Placeholder")
function = tf.compat.v1.wrap_function(
    lambda: tf.graph_util.import_graph_def(graph, name=""), []
)
function = function.prune(f"{x}:0", sys.argv[3])
np.save(sys.argv[2], function(tf.constant(np.load(sys.argv[2]))))
"""


def test_frozen_graph(tmp_path):
    layer = make_layer()
    layer.prepare()
    signature = [tf.TensorSpec(X.shape)]
    traced = tf.function(layer, input_signature=signature).get_concrete_function()
    frozen = convert_variables_to_constants_v2(traced)
    (y,) = frozen(tf.constant(X))
    np.testing.assert_array_equal(y, layer(X))
    # As on another machine.
    graph, x = tmp_path / "graph.pb", tmp_path / "x.npy"
    graph.write_bytes(frozen.graph.as_graph_def().SerializeToString())
    np.save(x, X)
    subprocess.run(
        [sys.executable, "-c", FROZEN_SCRIPT, graph, x, frozen.outputs[0].name],
        env={**os.environ, "KCONV_MAX_ISA": native.core().isas()[0]},
        check=True,
    )
    np.testing.assert_allclose(np.load(x), layer(X), atol=1e-4)


def test_layers_without_a_use():
    class Own(kconv.layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, kernel) * 2

    for layer in (
        make_layer(strides=2, algorithm="auto"),
        make_layer(algorithm="gemm"),
        make_layer(dtype="float64", algorithm="auto"),
        kconv.layers.Conv2D(8, 1),
        Own(8, 3),
    ):
        if not layer.built:
            layer.build((None, None, None, 16))
        assert not layer.prepare()
        assert not layer.is_prepared
        layer(X)


def test_prepare_wants_a_layer_that_is_built():
    layer = kconv.layers.Conv2D(8, 3)
    with pytest.raises(ValueError, match=r"Received: .*built=False"):
        layer.prepare()
    layer(X)
    with pytest.raises(
        ValueError, match=r"outside of any tf\.function.*executing_eagerly=False"
    ):
        tf.function(layer.prepare)()


def new_weights(layer, tmp_path):
    """Ways to change the kernel, and whether the layer itself sees each of them."""
    weights = [w + np.float32(0.5) for w in layer.get_weights()]
    other = make_layer()
    other.set_weights(weights)
    model = keras.Sequential([keras.Input((9, 11, 16)), layer])
    path = tmp_path / "a.weights.h5"
    keras.Sequential([keras.Input((9, 11, 16)), other]).save_weights(path)
    return weights, {
        "set_weights": (lambda: layer.set_weights(weights), True),
        "load_weights": (lambda: model.load_weights(path), True),
        "of the model": (lambda: model.set_weights(weights), False),
        "assign": (
            lambda: [v.assign(w) for v, w in zip(layer.weights, weights, strict=True)],
            False,
        ),
        "by TensorFlow": (
            lambda: [
                v.value.assign(w) for v, w in zip(layer.weights, weights, strict=True)
            ],
            False,
        ),
    }


@pytest.mark.parametrize(
    "way", ("set_weights", "load_weights", "of the model", "assign", "by TensorFlow")
)
def test_new_weights_are_seen(way, tmp_path):
    layer = make_layer()
    traced_before = tf.function(layer)
    traced_before(X)
    assert layer.prepare()
    traced = tf.function(layer)
    np.testing.assert_array_equal(traced(X), layer(X))
    weights, ways = new_weights(layer, tmp_path)
    change, releases = ways[way]
    change()
    assert layer.is_prepared != releases
    fresh = make_layer()
    fresh.set_weights(weights)
    expected = fresh(X)
    for function in (layer, traced, traced_before):
        np.testing.assert_array_equal(function(X), expected)
    assert layer.prepare()
    for function in (layer, traced, traced_before):
        np.testing.assert_array_equal(function(X), expected)
    layer.release()
    np.testing.assert_array_equal(traced(X), expected)


def test_lora():
    layer = make_layer()
    layer.prepare()
    layer.enable_lora(2)
    assert not layer.is_prepared
    layer.lora_kernel_b.assign(tf.ones_like(layer.lora_kernel_b))
    expected = layer(X)
    assert not layer.prepare()
    np.testing.assert_array_equal(layer(X), expected)


def test_training_a_prepared_layer():
    losses = []
    for prepared in (False, True):
        keras.utils.set_random_seed(0)
        layer = make_layer(activation="relu")
        if prepared:
            layer.prepare()
        model = keras.Sequential([layer, keras.layers.GlobalAveragePooling2D()])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        y = np.ones((2, 24), "float32")
        fitted = model.fit(X, y, epochs=3, verbose=0, validation_data=(X, y))
        losses.append((fitted.history["loss"], fitted.history["val_loss"]))
        for _ in range(2):  # without the flag
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(X) ** 2)
            gradients = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply_gradients(
                zip(gradients, model.trainable_variables, strict=True)
            )
            losses[-1] += (loss.numpy(),)
    np.testing.assert_allclose(losses[1][0], losses[0][0], rtol=1e-5)
    np.testing.assert_allclose(losses[1][1], losses[0][1], rtol=1e-5)
    np.testing.assert_allclose(losses[1][2:], losses[0][2:], rtol=1e-5)


@pytest.mark.parametrize("dims", (X.shape, (None, None, None, 16)))
@pytest.mark.parametrize("forward", ((1, 2), (1, 2, "small")))
def test_gradients_by_stock(forward, dims, estimates):
    ours, stock = forward[:2]

    def by_batch(batch):  # stock's kernel for one image, or for none
        return (stock, ours) if len(forward) > 2 and batch < 2 else (ours, stock)

    estimates(
        {
            "forward": by_batch,
            "input_gradient": lambda batch: (2, 1),
            "filter_gradient": lambda batch: (2, 1),
        }
    )
    layer = make_layer(activation="relu", algorithm="auto")

    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return y, *tape.gradient(y, [x, *(v.value for v in layer.weights)])

    expected = gradients(tf.constant(X))
    assert layer.prepare()
    traced = tf.function(gradients, input_signature=[tf.TensorSpec(dims)])
    for function in (gradients, traced):
        for found, plain in zip(function(tf.constant(X)), expected, strict=True):
            np.testing.assert_allclose(found, plain, rtol=1e-4, atol=1e-3)


# Models.


def make_model():
    keras.utils.set_random_seed(1)
    inner = keras.Sequential(
        [keras.Input((9, 11, 16)), kconv.layers.Conv2D(16, 3, algorithm="winograd")]
    )
    return keras.Sequential(
        [
            keras.Input((9, 11, 16)),
            kconv.layers.Conv2D(16, 3, padding="same", algorithm="winograd"),
            keras.layers.BatchNormalization(),
            kconv.layers.Conv2D(16, 1),
            inner,
            keras.layers.Conv2D(4, 3),
        ]
    )


def test_model():
    model = make_model()
    expected = model.predict(X, verbose=0)
    assert kconv.prepare(model) == 2
    np.testing.assert_array_equal(model.predict(X, verbose=0), expected)
    np.testing.assert_allclose(model(X), expected, atol=1e-5)
    assert kconv.prepare(model) == 2
    weights = [w * np.float32(1.5) for w in model.get_weights()]
    model.set_weights(weights)
    fresh = make_model()
    fresh.set_weights(weights)
    expected = fresh.predict(X, verbose=0)
    np.testing.assert_array_equal(model.predict(X, verbose=0), expected)
    assert kconv.release(model) == 2
    assert kconv.release(model) == 0
    np.testing.assert_array_equal(model.predict(X, verbose=0), expected)
    for function in (kconv.prepare, kconv.release):
        with pytest.raises(TypeError, match="Received: model='no'"):
            function("no")


def test_saving(tmp_path):
    model = make_model()
    plain, prepared = tmp_path / "plain.keras", tmp_path / "prepared.keras"
    model.save(plain)
    kconv.prepare(model)
    expected = model.predict(X, verbose=0)
    model.save(prepared)
    assert prepared.stat().st_size == pytest.approx(plain.stat().st_size, abs=256)
    cloned = keras.models.clone_model(model)
    for copy in (
        keras.saving.load_model(prepared),
        kconv.convert(model),
        cloned,
    ):
        assert kconv.release(copy) == 0
        if copy is cloned:
            copy.set_weights(model.get_weights())
        assert np.abs(copy.predict(X, verbose=0) - expected).max() < 1e-4
    assert len(model.weights) == len(keras.saving.load_model(prepared).weights)
    assert kconv.release(model) == 2


def test_export(tmp_path):
    model = make_model()
    size = {}
    for name in ("plain", "prepared", "released"):
        if name == "prepared":
            assert kconv.prepare(model) == 2
        elif name == "released":
            assert kconv.release(model) == 2
        expected = model.predict(X, verbose=0)
        model.export(tmp_path / name, verbose=False)
        tf.saved_model.save(model, tmp_path / f"{name}_by_tf")
        exported = tf.saved_model.load(tmp_path / name)
        np.testing.assert_allclose(exported.serve(X), expected, atol=1e-5)
        exported = tf.saved_model.load(tmp_path / f"{name}_by_tf")
        (y,) = exported.signatures["serving_default"](tf.constant(X)).values()
        np.testing.assert_allclose(y, expected, atol=1e-5)
        # A prepared filter, which would be of no use elsewhere, has 9 KiB.
        for kind in (name, f"{name}_by_tf"):
            data = tmp_path / kind / "variables" / "variables.data-00000-of-00001"
            size[kind] = data.stat().st_size
    for kind in ("prepared", "released"):
        assert size[kind] < size["plain"] + 1024
        assert size[f"{kind}_by_tf"] < size["plain_by_tf"] + 1024


def test_checkpoint(tmp_path):
    model = make_model()
    before = tf.train.Checkpoint(model=model).save(str(tmp_path / "before"))
    kconv.prepare(model)
    expected = model.predict(X, verbose=0)
    after = tf.train.Checkpoint(model=model).save(str(tmp_path / "after"))
    names = [
        [name for name, _ in tf.train.list_variables(path)] for path in (before, after)
    ]
    assert names[0] == names[1]
    model.set_weights([w * 2 for w in model.get_weights()])
    tf.train.Checkpoint(model=model).restore(after).assert_consumed()
    np.testing.assert_array_equal(model.predict(X, verbose=0), expected)
