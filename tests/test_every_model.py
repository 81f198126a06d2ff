"""Each of kconv's models, small, beside its twin of stock layers."""

import contextlib
import gc
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf

import kconv
from kconv.models.registry import OWN

# Options of the smallest model with all that a full one has.
SMALL = {
    "alexnet": {"input_shape": (63, 63, 3)},
    "deformable_resnet50": {"input_shape": (32, 32, 3), "blocks": (1, 1)},
    "googlenet": {"input_shape": (65, 65, 3), "auxiliary_heads": True},
    "googlenet_bn": {"input_shape": (65, 65, 3)},
    "hourglass2": {"input_shape": (16, 16, 3), "channels": 16, "order": 1},
    # Two in a row are above.
    "hourglass8": {
        **{"input_shape": (16, 16, 3), "channels": 16, "order": 1},
        **{"stacks": 1},
    },
    "lenet5": {},
    "resnext50": {"input_shape": (32, 32, 3), "blocks": (1, 1), "cardinality": 2},
    "se_resnet50": {"input_shape": (32, 32, 3), "blocks": (2, 1)},
    "shufflenet_v1": {"input_shape": (32, 32, 3), "blocks": (2, 1), "groups": 2},
    "shufflenet_v2": {"input_shape": (32, 32, 3), "scale": 0.5, "blocks": (2, 1)},
}

# Of the largest value, in float64: sums of the same products in another order.
FLOAT64_BOUND = 1e-9

# Of the largest output, in float32: see test_applications.
FLOAT32_BOUND = 2e-5

# Of hundreds of layers, and much like others that are here.
LARGE = ("googlenet_bn", "hourglass8")

models = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in OWN]
)


def small(name, **options):
    return kconv.models.build(name, **{**SMALL[name], "classes": 5, **options})


def batch(model, dtype="float32"):
    shape = (4, *model.input_shape[1:])
    images = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    generator = np.random.default_rng(1)
    targets = [
        generator.standard_normal(output.shape).astype(dtype)
        for output in keras.tree.flatten(model(images[:1]))
    ]
    return images, [np.concatenate([target] * 4) for target in targets]


def loss_of(model, images, targets, training):
    with contextlib.ExitStack() as stack:
        for layer in model.layers:
            if isinstance(layer, keras.layers.Dropout):
                stack.enter_context(mock.patch.object(layer, "rate", 0.0))
        outputs = keras.tree.flatten(model(images, training=training))
    pairs = zip(outputs, targets, strict=True)
    return tf.add_n([tf.reduce_mean((y - t) ** 2) for y, t in pairs])


def largest_error(values, expected):
    scale = np.abs(expected).max()
    assert scale > 0
    return np.abs(values - expected).max() / scale


@models
def test_is_its_stock_twin(name):
    keras.utils.set_random_seed(0)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        ours, stock = small(name), small(name, layers=keras.layers)
    finally:
        keras.config.set_dtype_policy(policy)
    assert any(isinstance(layer, kconv.layers.Conv2D) for layer in ours.layers)
    assert not any(isinstance(layer, kconv.layers.Conv2D) for layer in stock.layers)
    assert [w.path for w in ours.weights] == [w.path for w in stock.weights]
    ours.set_weights(stock.get_weights())

    images, targets = batch(stock, "float64")
    results = []
    for model in (stock, ours):
        with tf.GradientTape() as tape:
            variables = [weight.value for weight in model.trainable_weights]
            tape.watch(variables)
            loss = loss_of(model, images, targets, training=True)
        gradients = tape.gradient(loss, variables)
        outputs = keras.tree.flatten(model(images, training=False))
        results.append([np.asarray(t) for t in (*outputs, *gradients)])
    scale = max(np.abs(gradient).max() for gradient in results[0][len(targets) :])
    for i, (expected, value) in enumerate(zip(*results, strict=True)):
        if i < len(targets):
            assert largest_error(value, expected) <= FLOAT64_BOUND
        else:  # some are zero but for rounding, as of a bias that is normalized
            assert np.abs(value - expected).max() <= FLOAT64_BOUND * scale


@models
def test_learns_and_is_saved_and_reverted(name, tmp_path):
    keras.utils.set_random_seed(0)
    model = small(name)
    images, targets = batch(model)
    optimizer = keras.optimizers.SGD(1e-3)
    with tf.GradientTape() as tape:
        before = loss_of(model, images, targets, training=True)
    gradients = tape.gradient(before, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    assert loss_of(model, images, targets, training=True) < before

    expected = keras.tree.flatten(model(images))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for y, other in zip(expected, keras.tree.flatten(loaded(images)), strict=True):
        np.testing.assert_array_equal(y, other)

    reverted, report = kconv.revert(model, return_report=True)
    # What Keras has no layer for.
    assert {row.class_name for row in report.left} <= {"kconv.layers.DeformableConv2D"}
    assert len(report.swapped) > 1
    for y, other in zip(expected, keras.tree.flatten(reverted(images)), strict=True):
        assert largest_error(other, y) <= FLOAT32_BOUND
    converted = kconv.convert(reverted)
    for y, other in zip(expected, keras.tree.flatten(converted(images)), strict=True):
        np.testing.assert_array_equal(y, other)


def test_every_own_model_is_here():
    assert set(SMALL) == set(OWN)


@pytest.fixture(autouse=True)
def forgotten():
    """Gives back what Keras holds of large models."""
    yield
    keras.backend.clear_session()
    gc.collect()
