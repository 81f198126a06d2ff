"""What all of kconv's layers have in common, against Keras's and by definition."""

import inspect

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

import kconv
from kconv.spec import same_pads

RANKS = (1, 2, 3)
NAMES = tuple(
    kind.format(rank)
    for kind in ("Conv{}D", "Conv{}DTranspose", "DepthwiseConv{}D", "SeparableConv{}D")
    for rank in RANKS
)
# Keras has none of these.
OURS_ALONE = ("DepthwiseConv3D", "SeparableConv3D")
PLAIN = tuple(name for name in NAMES if name not in OURS_ALONE)
GROUPED = tuple(name for name in NAMES if name.startswith("Conv"))
PADDED = tuple(name for name in NAMES if "Transpose" not in name)
# It is a plain convolution at first: test_deformable_layers.
DEFORMABLE = ("DeformableConv2D",)
POLICIES = ("float32", "float64", "mixed_float16", "mixed_bfloat16")


def random(*shape, seed=0):
    return np.random.default_rng((seed, len(shape))).standard_normal(shape)


def rank_of(name):
    return next(rank for rank in RANKS if f"{rank}D" in name)


def make(kind, module=kconv.layers, **options):
    """A layer of four filters or a multiplier of two, kernels of three taps."""
    size = {"depth_multiplier": 2} if kind.startswith("Depth") else {"filters": 4}
    options = {**size, **options}
    return getattr(module, kind)(**{"kernel_size": 3, **options})


def image(name, layout="channels_last", size=7, batch=2, channels=4):
    sizes = [size + i for i in range(rank_of(name))]
    if layout == "channels_first":
        return random(batch, channels, *sizes)
    return random(batch, *sizes, channels)


@pytest.mark.parametrize("name", PLAIN)
def test_arguments_and_weights_are_those_of_keras(name):
    ours, stock = (getattr(m, name) for m in (kconv.layers, keras.layers))
    assert issubclass(ours, stock)
    parameters = [inspect.signature(c.__init__).parameters for c in (ours, stock)]
    positional = [
        [
            (p.name, p.default)
            for p in each.values()
            if p.kind is p.POSITIONAL_OR_KEYWORD
        ]
        for each in parameters
    ]
    assert positional[0] == positional[1]
    more = {"algorithm", "groups" if "Transpose" in name else "padding_mode"}
    assert set(parameters[0]) - set(parameters[1]) == more
    layers = [make(name, module, name="one") for module in (kconv.layers, keras.layers)]
    for layer in layers:
        layer.build((None, *image(name).shape[1:]))
    weights = [[(v.path, v.shape, v.dtype) for v in layer.weights] for layer in layers]
    assert weights[0] == weights[1]
    assert layers[0].get_config() == {**layers[1].get_config(), "algorithm": "auto"}


@pytest.mark.parametrize("name", NAMES)
def test_other_names_of_keras(name):
    ours = getattr(kconv.layers, name)
    assert keras.saving.get_registered_name(ours) == f"kconv>{name}"
    assert name in kconv.layers.__all__
    other = name.replace("Conv", "Convolution")
    if not name.startswith("Depthwise"):
        assert getattr(kconv.layers, other) is ours
    assert hasattr(keras.layers, other) <= hasattr(kconv.layers, other)


def test_all_other_layers_are_those_of_keras():
    layers = kconv.layers
    model = keras.Sequential([layers.Input((4, 4, 3)), layers.Conv2D(2, 3)])
    model.add(layers.Flatten())
    model.add(layers.Dense(3))
    assert layers.Dense is keras.layers.Dense
    assert type(model.layers[0]).__module__ == "kconv.layers.conv"
    assert set(dir(keras.layers)) <= set(dir(layers))
    assert set(layers.__all__) < set(dir(layers))
    with pytest.raises(AttributeError, match=r"Neither kconv\.layers nor keras"):
        _ = layers.Conv4D


def test_every_convolution_is_here():
    ours = {name for name in kconv.layers.__all__ if "Conv" in name}
    others = {name for name in ours if "Convolution" in name}
    assert ours - others == {*NAMES, *DEFORMABLE}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", PLAIN)
def test_same_as_keras(name, policy):
    options = {"padding": "same", "strides": 2, "activation": "gelu", "dtype": policy}
    layers = [make(name, module, **options) for module in (kconv.layers, keras.layers)]
    x = image(name)
    outputs, slopes = [], []
    for layer in layers:
        layer.build(x.shape)
        layer.set_weights(
            [random(*v.shape, seed=i) for i, v in enumerate(layer.weights)]
        )
        with tf.GradientTape() as tape:
            y = layer(x)
            loss = tf.reduce_sum(tf.cast(y, "float32") ** 2)
        outputs.append(y)
        slopes.append(tape.gradient(loss, layer.trainable_variables))
    assert outputs[0].dtype == outputs[1].dtype
    assert outputs[0].shape == outputs[1].shape
    # Of half types stock rounds after more of the steps.
    unit = {"mixed_float16": 5e-3, "mixed_bfloat16": 4e-2}.get(policy, 1e-5)
    pairs = zip([outputs[0], *slopes[0]], [outputs[1], *slopes[1]], strict=True)
    for found, expected in pairs:
        assert found.dtype == expected.dtype
        expected = np.asarray(expected, "float64")
        error = np.abs(np.asarray(found, "float64") - expected).max()
        assert error <= unit * np.abs(expected).max()


@pytest.mark.parametrize("name", NAMES)
def test_float16_gives_float16_and_channels_first_is_the_same(name):
    last = make(name, dtype="float16", padding="same")
    first = make(name, dtype="float16", padding="same", data_format="channels_first")
    x = image(name).astype("float16")
    moved = np.moveaxis(x, -1, 1)
    for layer, data in ((last, x), (first, moved)):
        layer.build(data.shape)
        layer.set_weights(
            [random(*v.shape, seed=i) for i, v in enumerate(layer.weights)]
        )
    y, z = last(x), first(moved)
    assert y.dtype.name == z.dtype.name == "float16"
    assert z.shape == first.compute_output_shape(moved.shape)
    y, z = np.moveaxis(y, -1, 1).astype("float64"), np.asarray(z, "float64")
    np.testing.assert_allclose(z, y, atol=4e-3 * np.abs(y).max())


def dense_kernel(layer):
    """The kernel of a layer as that of a convolution in groups, and the groups."""
    if hasattr(layer, "depthwise_kernel"):
        kernel = layer.depthwise_kernel.numpy()
    else:
        kernel = layer.kernel.numpy()
        if not hasattr(layer, "depth_multiplier"):
            return kernel, layer.groups
    *size, channels, multiplier = kernel.shape
    return kernel.reshape(*size, 1, channels * multiplier), channels


def definition(layer, x, pads, padded=None):
    """What a layer computes, by the definition, without bias and activation."""
    kernel, groups = dense_kernel(layer)
    y = reference.conv(
        x if padded is None else padded,
        kernel,
        strides=layer.strides,
        dilation_rate=layer.dilation_rate,
        padding=pads if padded is None else ((0, 0),) * layer.rank,
        groups=groups,
        layout=layer.data_format,
    )
    if hasattr(layer, "pointwise_kernel"):
        pointwise = layer.pointwise_kernel.numpy()
        y = np.tensordot(y, pointwise.reshape(pointwise.shape[-2:]), 1)
    return y


@pytest.mark.parametrize("name", (*PADDED, *DEFORMABLE))
@pytest.mark.parametrize("padding", ("same", "pairs"))
def test_strides_with_dilation_and_pairs_of_pads(name, padding):
    rank = rank_of(name)
    pairs = tuple((2, 1 + i) for i in range(rank))
    strides = tuple(2 + i % 2 for i in range(rank))
    layer = make(
        name,
        padding="same" if padding == "same" else pairs,
        strides=strides,
        dilation_rate=2,
        use_bias=False,
        dtype="float64",
    )
    x = image(name)
    if padding == "same":
        axes = zip(x.shape[1:-1], (3,) * rank, strides, (2,) * rank, strict=True)
        pairs = tuple(same_pads(*axis) for axis in axes)
    y = layer(x)
    assert y.shape == layer.compute_output_shape(x.shape)
    expected = definition(layer, x, pairs)
    np.testing.assert_allclose(y, expected, atol=1e-12 * np.abs(expected).max())
    symbolic = layer(keras.Input((*(None,) * rank, x.shape[-1])))
    assert symbolic.shape == (None,) * (rank + 1) + (y.shape[-1],)
    again = type(layer).from_config(layer.get_config())
    assert again.padding == layer.padding
    assert again.dilation_rate == layer.dilation_rate
    # Gradients, by differences along a random direction.
    direction = random(*x.shape, seed=5)

    def value(step):
        return tf.reduce_sum(tf.sin(layer(x + step * direction))).numpy()

    with tf.GradientTape() as tape:
        data = tf.constant(x)
        tape.watch(data)
        total = tf.reduce_sum(tf.sin(layer(data)))
    slope = np.sum(tape.gradient(total, data) * direction)
    expected = (value(1e-5) - value(-1e-5)) / 2e-5
    np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-6)


MODES = {"reflect": "reflect", "circular": "wrap", "replicate": "edge"}


@pytest.mark.parametrize("name", PADDED)
@pytest.mark.parametrize("mode", MODES)
def test_padding_modes(name, mode):
    rank = rank_of(name)
    pairs = tuple((2, 1) if i % 2 else (0, 3) for i in range(rank))
    options = {"padding": pairs, "use_bias": False, "dtype": "float64"}
    layer = make(name, **options, padding_mode=mode)
    x = image(name, size=4)
    y = layer(x)
    padded = np.pad(x, ((0, 0), *pairs, (0, 0)), MODES[mode])
    expected = definition(layer, x, pairs, padded)
    np.testing.assert_allclose(y, expected, atol=1e-12 * np.abs(expected).max())
    assert y.shape == layer.compute_output_shape(x.shape)
    # Of unknown sizes, and with gradients.
    shape = (None,) * (rank + 1) + x.shape[-1:]

    @tf.function(input_signature=[tf.TensorSpec(shape, "float64")])
    def function(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y)
        return y, tape.gradient(loss, x)

    z, slope = function(x)
    np.testing.assert_array_equal(z, y)
    total = np.sum(slope * x)  # of a linear function
    np.testing.assert_allclose(total, np.sum(y), rtol=1e-9, atol=1e-9)
    assert type(layer).from_config(layer.get_config()).padding_mode == mode
    # The plain case takes no detour.
    plain = make(name, **options)
    assert "padding_mode" not in plain.get_config()
    plain.build(x.shape)
    signature = tf.TensorSpec(shape, "float64")
    graph = tf.function(plain).get_concrete_function(signature).graph
    types = {op.type for op in graph.get_operations()}
    assert not types & {"Pad", "PadV2", "MirrorPad", "ConcatV2"}


def test_padding_modes_with_names_and_causal():
    x = random(1, 6, 1)
    layer = kconv.layers.Conv1D(
        1, 3, padding="causal", padding_mode="replicate", dtype="float64"
    )
    layer.build(x.shape)
    layer.kernel.assign(np.ones((3, 1, 1)))
    assert layer(x)[0, 0, 0] == 3 * x[0, 0, 0]
    layer = kconv.layers.Conv1D(
        1, 4, padding="same", padding_mode="circular", dtype="float64", use_bias=False
    )
    layer.build(x.shape)
    layer.kernel.assign(np.ones((4, 1, 1)))
    expected = sum(np.roll(x, shift, 1) for shift in (1, 0, -1, -2))
    np.testing.assert_allclose(layer(x), expected)


@pytest.mark.parametrize("mode", MODES)
def test_padding_modes_of_an_empty_batch(mode):
    layer = kconv.layers.Conv2D(4, 3, padding="same", padding_mode=mode)
    with tf.GradientTape() as tape:
        y = layer(tf.zeros((0, 5, 6, 3)))
    assert y.shape == (0, 5, 6, 4)
    (slope,) = tape.gradient(y, [layer.kernel.value])
    np.testing.assert_array_equal(slope, np.zeros(slope.shape))


@pytest.mark.parametrize(("mode", "pads"), [("reflect", 4), ("circular", 5)])
def test_too_much_padding_is_told(mode, pads):
    layer = kconv.layers.Conv1D(1, 3, padding=((pads, 0),), padding_mode=mode)
    with pytest.raises(ValueError, match=r"needs 5 pixels.*Received: .*axis=1"):
        layer(random(1, 4, 1))
    function = tf.function(
        layer, input_signature=[tf.TensorSpec((None, None, 1), "float32")]
    )
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(random(1, 4, 1).astype("float32"))


@pytest.mark.parametrize("layout", ("channels_last", "channels_first"))
@pytest.mark.parametrize("name", [name for name in NAMES if "Transpose" in name])
def test_groups_of_transposes(name, layout):
    options = {"strides": 2, "dilation_rate": 3, "padding": "valid", "filters": 6}
    layer = make(name, **options, groups=2, data_format=layout, dtype="float64")
    x = image(name, layout, size=3)
    y = layer(x)
    assert y.shape == layer.compute_output_shape(x.shape)
    assert layer.kernel.shape == (*(3,) * rank_of(name), 3, 4)
    assert [v.path.split("/")[-1] for v in layer.weights] == ["kernel", "bias"]
    expected = reference.input_gradient(
        y.shape,
        layer.kernel.numpy(),
        x,
        strides=layer.strides,
        dilation_rate=layer.dilation_rate,
        padding=((0, 0),) * layer.rank,
        groups=2,
        layout=layout,
    )
    np.testing.assert_allclose(y, expected, atol=1e-12)
    assert type(layer).from_config(layer.get_config()).groups == 2
    assert type(make(name, filters=6, groups=np.int64(2)).groups) is int
    for groups in (0, 4, None, 2.0, True):
        with pytest.raises(ValueError, match=r"`groups` must be.*Received: groups="):
            make(name, filters=6, groups=groups)


def test_prepared_kernels_of_one_and_three_dimensions():
    for name in ("Conv1D", "Conv3D"):
        layer = make(name, filters=16, padding="same", algorithm="winograd")
        x = image(name, size=9, channels=16).astype("float32")
        y = layer(x)
        assert layer.prepare()
        np.testing.assert_array_equal(layer(x), y)
        layer.release()
        assert not layer.is_prepared


def test_quantisation_leaves_convolutions_as_they_are():
    conv, dense = make("Conv2D"), keras.layers.Dense(2)
    flatten = keras.layers.Flatten()
    model = keras.Sequential([keras.Input((8, 8, 3)), conv, flatten, dense])
    x = image("Conv2D", size=8, channels=3)[:, :, :8]
    expected = conv(x)
    model.quantize("int8")
    assert dense.quantization_mode == "int8"
    np.testing.assert_array_equal(conv(x), expected)
    with pytest.raises(NotImplementedError):
        conv.quantize("int8")
