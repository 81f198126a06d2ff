"""kconv.layers.LocalResponseNormalization, by definition and as Keras would."""

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from keras.src import testing

import kconv

Layer = kconv.layers.LocalResponseNormalization

ARGUMENTS = [
    {},
    {"depth_radius": 0, "alpha": 0.5},
    {"depth_radius": 1, "bias": 0.5, "alpha": 2.0, "beta": 0.5},
    {"depth_radius": 3, "bias": 1.0, "alpha": 0.1, "beta": 1.5},
    {"depth_radius": 20, "alpha": 1.0, "beta": -0.3},
]


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def definition(x, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75):
    """The paper's formula, channel by channel, of channels that are last."""
    y = np.empty_like(x)
    for c in range(x.shape[-1]):
        window = x[..., max(c - depth_radius, 0) : c + depth_radius + 1]
        y[..., c] = x[..., c] / (bias + alpha * (window**2).sum(-1)) ** beta
    return y


class TestAsKerasTestsItsLayers(testing.TestCase):
    """Serialization, symbolic shapes, dtypes, training, and more."""

    def test_all_configurations(self):
        for options in (ARGUMENTS[3], {"data_format": "channels_first"}):
            self.run_layer_test(
                Layer,
                init_kwargs=options,
                input_shape=(3, 7, 8, 4),
                expected_output_shape=(3, 7, 8, 4),
                expected_num_trainable_weights=0,
                expected_num_non_trainable_weights=0,
                supports_masking=True,
                custom_objects={"LocalResponseNormalization": Layer},
            )


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_definition(arguments):
    x = 3 * random(2, 5, 4, 9)
    expected = definition(x, **arguments)
    np.testing.assert_allclose(Layer(dtype="float64", **arguments)(x), expected, 1e-13)
    y = Layer(**arguments)(x.astype("float32"))
    assert y.dtype == "float32"
    np.testing.assert_allclose(y, expected, rtol=3e-6)


@pytest.mark.parametrize("arguments", ARGUMENTS[:4], ids=str)
def test_same_as_tensorflow(arguments):
    x = 3 * random(2, 5, 4, 9).astype("float32")
    defaults = {"depth_radius": 2, "bias": 2.0, "alpha": 1e-4, "beta": 0.75}
    expected = tf.nn.local_response_normalization(x, **{**defaults, **arguments})
    np.testing.assert_allclose(Layer(**arguments)(x), expected, rtol=3e-6)


@pytest.mark.parametrize("shape", [(3, 6), (2, 5, 6), (2, 3, 4, 6), (2, 3, 2, 4, 6)])
def test_channels_first_of_any_rank(shape):
    x = random(*shape)
    arguments = {"depth_radius": 1, "alpha": 1.0, "dtype": "float64"}
    expected = np.moveaxis(definition(x, 1, alpha=1.0), -1, 1)
    layer = Layer(data_format="channels_first", **arguments)
    y = layer(np.moveaxis(x, -1, 1))
    assert y.shape == layer.compute_output_shape(y.shape)
    np.testing.assert_allclose(y, expected, rtol=1e-13)
    np.testing.assert_allclose(Layer(**arguments)(x), np.moveaxis(y, 1, -1), 1e-13)


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_gradients_of_two_orders(layout):
    layer = Layer(1, 1.0, 0.5, data_format=layout, dtype="float64")
    x = tf.constant(random(2, 4, 3, 4))
    weight, direction = random(*x.shape, seed=1), random(*x.shape, seed=2)

    def slopes(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value = tf.reduce_sum(weight * layer(x))
            first = inner.gradient(value, x)
            along = tf.reduce_sum(first * direction)
        return value, along, outer.gradient(along, x)

    step = 1e-5
    after, before = (slopes(x + sign * step * direction) for sign in (1, -1))
    _, along, second = slopes(x)
    np.testing.assert_allclose(along, (after[0] - before[0]) / (2 * step), rtol=1e-7)
    curvature = np.sum(second * direction)
    np.testing.assert_allclose(
        curvature, (after[1] - before[1]) / (2 * step), rtol=1e-7
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("policy", ["{}", "mixed_{}"])
def test_sums_of_half_types_are_exact(dtype, policy):
    # The squares are above the largest float16.
    x = (400 * random(2, 5, 7)).astype(getattr(ml_dtypes, dtype, dtype))
    layer = Layer(alpha=1.0, beta=0.5, dtype=policy.format(dtype))
    y = layer(tf.constant(x))
    assert y.dtype == dtype
    expected = definition(x.astype("float64"), alpha=1.0, beta=0.5)
    unit = {"float16": 2**-11, "bfloat16": 2**-8}[dtype]
    np.testing.assert_allclose(np.asarray(y, "float64"), expected, rtol=1.1 * unit)


def test_whole_numbers():
    y = Layer(alpha=1.0)(np.arange(6).reshape(1, 6))
    expected = definition(np.arange(6.0).reshape(1, 6), alpha=1.0)
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_unknown_sizes_and_empty_batches(layout):
    layer = Layer(alpha=1.0, data_format=layout)
    signature = tf.TensorSpec((None, None, None, None), "float32")
    function = tf.function(layer, input_signature=[signature])
    x = random(2, 3, 4, 5).astype("float32")
    np.testing.assert_allclose(function(x), layer(x), rtol=1e-6)
    assert function(x[:0]).shape == layer(x[:0]).shape == (0, 3, 4, 5)


def test_model_is_saved_and_converted(tmp_path):
    model = keras.Sequential(
        [keras.Input((6, 6, 3)), kconv.layers.Conv2D(4, 3), Layer(1, alpha=0.5)]
    )
    x = random(2, 6, 6, 3).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.layers[-1].get_config() == model.layers[-1].get_config()
    stock, report = kconv.revert(model, return_report=True)
    assert report.left == ()
    assert type(stock.layers[-1]) is Layer
    ours, report = kconv.convert(stock, algorithm="gemm", return_report=True)
    assert report.left == ()
    np.testing.assert_allclose(ours(x), model(x), rtol=1e-4, atol=1e-6)


def test_registered_name_and_data_format():
    assert keras.saving.get_registered_name(Layer) == (
        "kconv>LocalResponseNormalization"
    )
    assert Layer().data_format == "channels_last"
    keras.config.set_image_data_format("channels_first")
    try:
        assert Layer().data_format == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"depth_radius": -1}, "Received: depth_radius=-1"),
        ({"depth_radius": 2.0}, "Received: depth_radius=2.0"),
        ({"bias": 0}, "Received: bias=0"),
        ({"alpha": -1e-4}, "alpha=-0.0001"),
        ({"bias": float("nan")}, "Received: bias=nan"),
        ({"bias": "x"}, "Received: bias='x'"),
        ({"alpha": None}, "Received: alpha=None"),
        ({"alpha": float("inf")}, "Received: alpha=inf"),
        ({"beta": float("nan")}, "Received: beta=nan"),
        ({"beta": [1]}, r"Received: beta=\[1\]"),
        ({"data_format": "last"}, "Received: data_format='last'"),
    ],
    ids=str,
)
def test_wrong_arguments(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Layer(**arguments)
