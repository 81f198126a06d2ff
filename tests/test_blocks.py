"""kconv's layers that are no convolutions: ChannelShuffle and SqueezeExcite."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src import testing

import kconv
from kconv.layers import ChannelShuffle, SqueezeExcite

LAYOUTS = ("channels_last", "channels_first")
POLICIES = ("float32", "float64", "mixed_float16", "mixed_bfloat16")
SPATIAL = ((), (5,), (4, 5), (2, 3, 4))


def image(spatial, channels, layout="channels_last", batch=2):
    rng = np.random.default_rng(len(spatial))
    if layout == "channels_first":
        return rng.standard_normal((batch, channels, *spatial))
    return rng.standard_normal((batch, *spatial, channels))


def axis_of(layout):
    return -1 if layout == "channels_last" else 1


def shuffled(x, groups, axis):
    """Channel j of group i becomes channel i of the j-th lot of `groups`."""
    width = x.shape[axis] // groups
    order = [i * width + j for j in range(width) for i in range(groups)]
    return np.take(x, order, axis)


def excited(x, weights, axis, activation, gate):
    """Section 3 of the paper, in float64."""
    x = np.moveaxis(x, axis, -1)
    reduce_kernel, reduce_bias, expand_kernel, expand_bias = weights
    means = x.mean(tuple(range(1, x.ndim - 1)))
    hidden = activation(means @ reduce_kernel + reduce_bias)
    gates = gate(hidden @ expand_kernel + expand_bias)
    gates = gates.reshape(len(x), *(1,) * (x.ndim - 2), -1)
    return np.moveaxis(x * gates, -1, axis)


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def built(layer, shape):
    """Builds a layer, with weights that are all of some size."""
    layer.build(shape)
    rng = np.random.default_rng(7)
    layer.set_weights([rng.standard_normal(w.shape) for w in layer.weights])
    return layer


class TestAsKerasTestsItsLayers(testing.TestCase):
    """Serialization, symbolic shapes, dtypes, training, and more."""

    def test_channel_shuffle(self):
        for spatial, layout in (((), LAYOUTS[0]), ((4, 5), LAYOUTS[1])):
            shape = image(spatial, 6, layout).shape
            self.run_layer_test(
                ChannelShuffle,
                init_kwargs={"groups": 3, "data_format": layout},
                input_shape=shape,
                expected_output_shape=shape,
                expected_num_trainable_weights=0,
                expected_num_non_trainable_weights=0,
                supports_masking=True,
                custom_objects={"ChannelShuffle": ChannelShuffle},
            )

    def test_squeeze_excite(self):
        linear = {"gate_activation": "hard_sigmoid", "activation": None}
        bound = {"kernel_regularizer": "l2", "bias_constraint": "non_neg"}
        for spatial, layout, options in (
            ((5,), LAYOUTS[0], linear),
            ((4, 5), LAYOUTS[1], bound),
        ):
            shape = image(spatial, 6, layout).shape
            self.run_layer_test(
                SqueezeExcite,
                init_kwargs={"ratio": 2, "data_format": layout, **options},
                input_shape=shape,
                expected_output_shape=shape,
                expected_num_trainable_weights=4,
                expected_num_non_trainable_weights=0,
                expected_num_losses=2 * ("kernel_regularizer" in options),
                supports_masking=True,
                custom_objects={"SqueezeExcite": SqueezeExcite},
            )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spatial", SPATIAL, ids=str)
def test_channels_are_shuffled(spatial, layout):
    x = image(spatial, 12, layout)
    for groups in (1, 2, 3, 12):
        layer = ChannelShuffle(groups, data_format=layout, dtype="float64")
        np.testing.assert_array_equal(layer(x), shuffled(x, groups, axis_of(layout)))
        inverse = ChannelShuffle(12 // groups, data_format=layout, dtype="float64")
        np.testing.assert_array_equal(inverse(layer(x)), x)


def test_grouped_convolutions_see_all_channels_across_a_shuffle():
    x = image((3, 3), 6)
    for between, others_matter in ((ChannelShuffle(3), True), (lambda x: x, False)):
        layers = [
            kconv.layers.Conv2D(9, 1, groups=3, kernel_initializer="ones"),
            between,
            kconv.layers.Conv2D(3, 1, groups=3, kernel_initializer="ones"),
        ]
        with tf.GradientTape() as tape:
            data = y = tf.constant(x, "float32")
            tape.watch(data)
            for layer in layers:
                y = layer(y)
            first = tf.reduce_sum(y[..., 0])
        slope = tape.gradient(first, data).numpy()
        assert (slope[..., 2:] != 0).all() == others_matter
        assert (slope[..., :2] != 0).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_of_a_shuffle_is_the_inverse(layout):
    x, upstream = image((4, 5), 6, layout), image((4, 5), 6, layout)[::-1]
    layer = ChannelShuffle(2, data_format=layout, dtype="float64")
    with tf.GradientTape() as tape:
        data = tf.constant(x)
        tape.watch(data)
        y = layer(data)
    slope = tape.gradient(y, data, output_gradients=tf.constant(upstream))
    np.testing.assert_array_equal(slope, shuffled(upstream, 3, axis_of(layout)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spatial", SPATIAL[1:], ids=str)
def test_channels_are_weighed(spatial, layout):
    x = image(spatial, 6, layout)
    for options, functions in (
        ({}, (relu, sigmoid)),
        ({"activation": "tanh", "gate_activation": None}, (np.tanh, lambda x: x)),
    ):
        layer = SqueezeExcite(4, data_format=layout, dtype="float64", **options)
        built(layer, x.shape)
        assert [w.shape for w in layer.weights] == [(6, 1), (1,), (1, 6), (6,)]
        expected = excited(x, layer.get_weights(), axis_of(layout), *functions)
        np.testing.assert_allclose(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_names_and_sizes_of_weights():
    layer = SqueezeExcite(name="se")
    layer.build((None, None, None, 40))
    assert [(w.path, w.shape) for w in layer.weights] == [
        ("se/reduce/kernel", (40, 2)),
        ("se/reduce/bias", (2,)),
        ("se/expand/kernel", (2, 40)),
        ("se/expand/bias", (40,)),
    ]


def test_masked_steps_do_not_open_gates():
    x = image((5,), 4).astype("float32")
    x[:, 3:] = 0
    layer = built(SqueezeExcite(2, activation="tanh"), x.shape)
    y = layer(keras.layers.Masking()(x))
    np.testing.assert_allclose(y[:, :3], layer(x[:, :3]), rtol=1e-6)
    assert np.abs(y - layer(x)).max() > 1e-3
    np.testing.assert_array_equal(y._keras_mask, [[1, 1, 1, 0, 0]] * 2)


def test_gradients_of_weighing_are_differences():
    x = image((3, 4), 6)
    layer = built(SqueezeExcite(2, dtype="float64", activation="tanh"), x.shape)
    rng = np.random.default_rng(3)
    points = [x, *layer.get_weights()]
    directions = [rng.standard_normal(point.shape) for point in points]

    def value(step):
        moved = [p + step * d for p, d in zip(points, directions, strict=True)]
        y = excited(moved[0], moved[1:], -1, np.tanh, sigmoid)
        return np.sin(y).sum()

    with tf.GradientTape() as tape:
        data = tf.constant(x)
        tape.watch(data)
        loss = tf.reduce_sum(tf.sin(layer(data)))
    slopes = tape.gradient(loss, [data, *(w.value for w in layer.weights)])
    slope = sum(np.sum(s * d) for s, d in zip(slopes, directions, strict=True))
    expected = (value(1e-5) - value(-1e-5)) / 2e-5
    np.testing.assert_allclose(slope, expected, rtol=1e-7)


@pytest.mark.parametrize("policy", POLICIES)
def test_dtypes(policy):
    x = image((4, 5), 6)
    shuffle = ChannelShuffle(2, dtype=policy)
    compute = keras.DTypePolicy(policy).compute_dtype
    rounded = tf.cast(x, compute)
    y = shuffle(rounded)
    assert y.dtype == compute
    expected = shuffled(np.asarray(rounded, "float64"), 2, -1)
    np.testing.assert_array_equal(np.asarray(y, "float64"), expected)

    layer = built(SqueezeExcite(2, dtype=policy), x.shape)
    y = layer(rounded)
    assert y.dtype == compute
    weights = [np.asarray(w, "float64") for w in layer.weights]
    expected = excited(np.asarray(rounded, "float64"), weights, -1, relu, sigmoid)
    bound = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 1e-6, "float64": 1e-14}
    error = np.abs(np.asarray(y, "float64") - expected).max()
    assert error <= bound[compute] * np.abs(expected).max()


def test_integers_are_shuffled():
    y = ChannelShuffle(2)(np.array([[1, 2, 3, 10, 20, 30]]))
    assert y.dtype.is_integer
    np.testing.assert_array_equal(y, [[1, 10, 2, 20, 3, 30]])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spatial", SPATIAL[1:], ids=str)
def test_unknown_sizes_and_empty_batches(spatial, layout):
    x = image(spatial, 6, layout)
    unknown = [None] * x.ndim
    unknown[axis_of(layout)] = 6
    for layer in (ChannelShuffle(3, layout), SqueezeExcite(2, data_format=layout)):
        built(layer, tuple(unknown))
        function = tf.function(
            layer, input_signature=[tf.TensorSpec(unknown, "float32")]
        )
        (output,) = function.get_concrete_function().outputs
        assert output.shape.as_list() == unknown
        data = tf.constant(x, "float32")
        np.testing.assert_allclose(function(data), layer(data), rtol=1e-6)
        assert function(data[:0]).shape == layer(data[:0]).shape == (0, *x.shape[1:])
        assert layer(keras.Input(tuple(unknown[1:]))).shape == tuple(unknown)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_empty_images_are_shuffled(layout):
    x = image((4, 0), 6, layout)
    assert ChannelShuffle(3, layout)(x).shape == x.shape


def test_xla():
    x = tf.constant(image((4, 5), 6), "float32")
    for layer in (ChannelShuffle(2), built(SqueezeExcite(2), x.shape)):
        compiled = tf.function(lambda x, layer=layer: layer(x), jit_compile=True)
        np.testing.assert_allclose(compiled(x), layer(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("groups", (0, -2, 2.0, True, None, "2"))
def test_wrong_groups(groups):
    with pytest.raises(ValueError, match=f"`groups` must .*groups={groups!r}"):
        ChannelShuffle(groups)


@pytest.mark.parametrize("ratio", (0, -2, 2.0, True, None, "2"))
def test_wrong_ratio(ratio):
    with pytest.raises(ValueError, match=f"`ratio` must .*ratio={ratio!r}"):
        SqueezeExcite(ratio)


@pytest.mark.parametrize("layer", (ChannelShuffle, SqueezeExcite))
def test_wrong_data_format(layer):
    with pytest.raises(ValueError, match="Received: data_format='channels_2nd'"):
        layer(2, data_format="channels_2nd")


def test_channels_that_do_not_divide():
    layer, sentence = ChannelShuffle(4), r"multiple of `groups`.*Received: .*groups=4"
    for call in (
        lambda: layer(np.zeros((1, 4, 4, 6))),
        lambda: layer(keras.Input((4, 4, 6))),
        lambda: layer.compute_output_shape((1, 4, 4, None)),
        lambda: layer(np.zeros(4)),
    ):
        with pytest.raises(ValueError, match=f"(?s){sentence}"):
            call()
    assert layer(np.zeros((1, 6, 4))).shape == (1, 6, 4)


@pytest.mark.parametrize("shape", [(2, 6), (2, 1, 1, 1, 1, 6), (2, 4, None)])
def test_shapes_that_cannot_be_weighed(shape):
    with pytest.raises(ValueError, match=r"spatial dimensions.*Received: inputs.shape"):
        SqueezeExcite().build(shape)
    layer = SqueezeExcite()
    layer.build((None, 4, 4, 6))
    with pytest.raises(ValueError, match=r"expected axis -1 .* value 6"):
        layer(np.zeros((2, 4, 4, 5)))


def test_models_are_converted_and_saved(tmp_path):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((6, 7, 4))
    x = keras.layers.Conv2D(12, 3)(inputs)
    x = ChannelShuffle(3, name="shuffle")(x)
    x = SqueezeExcite(4, activation="gelu", name="se")(x)
    x = keras.layers.Conv2D(3, 1)(x)
    model = keras.Model(inputs, x)
    images = image((6, 7), 4).astype("float32")
    expected = model(images)

    converted, report = kconv.convert(model, return_report=True)
    assert (len(report.swapped), report.left) == (2, ())
    reverted, report = kconv.revert(converted, return_report=True)
    assert (len(report.swapped), report.left) == (2, ())
    for other in (converted, reverted, kconv.convert(model, "gemm", in_place=True)):
        assert type(other.get_layer("shuffle")) is ChannelShuffle
        assert type(other.get_layer("se")) is SqueezeExcite
        np.testing.assert_allclose(other(images), expected, atol=1e-5)

    converted.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), converted(images))
    assert loaded.get_layer("se").activation is keras.activations.gelu
