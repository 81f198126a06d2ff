"""kconv.layers.DeformableConv2D and what surrounds it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from deforming import twin

import kconv

TORCH_PADS = ((1, 1), (1, 1))


def random(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def make(filters=4, kernel_size=3, **options):
    return kconv.layers.DeformableConv2D(filters, kernel_size, **options)


def filled(layer, shape=None, scale=0.3):
    """A layer with random weights, those of the offset branch too."""
    if not layer.built:
        layer.build(shape)
    layer.set_weights(
        [scale * random(*v.shape, seed=i) for i, v in enumerate(layer.weights)]
    )
    return layer


def definition(layer, x, offsets=None, mask=None):
    """What a layer with the channels last computes, but for the activation."""
    spec = kconv.spec.conv_spec(
        x.shape,
        layer.kernel.shape,
        layer.strides,
        layer.padding,
        "channels_last",
        layer.dilation_rate,
    )
    if layer.own_offsets:
        branch = kconv.spec.conv_spec(
            x.shape,
            layer.offset_kernel.shape,
            layer.strides,
            layer.padding,
            "channels_last",
            layer.dilation_rate,
        )
        found = kconv.builtin.conv(branch, tf.constant(x), layer.offset_kernel.value)
        found += layer.offset_bias
        offsets, mask = found, None
        if layer.modulated:
            places = 2 * found.shape[-1] // 3
            offsets, mask = found[..., :places], tf.sigmoid(found[..., places:])
    outputs = twin(
        tf.constant(x),
        layer.kernel,
        tf.convert_to_tensor(offsets),
        None if mask is None else tf.convert_to_tensor(mask),
        spec.strides,
        spec.pads(x.shape[1:3], layer.kernel_size),
        spec.dilation_rate,
        layer.offset_groups,
    )
    return outputs if layer.bias is None else outputs + layer.bias


OPTIONS = [
    {},
    {"modulated": True, "padding": "same", "strides": 2},
    {"groups": 2, "offset_groups": 3, "modulated": True, "padding": TORCH_PADS},
    {"strides": (1, 2), "dilation_rate": 2, "padding": ((3, 0), (2, 2))},
    {"offset_groups": 6, "use_bias": False, "kernel_size": (1, 4)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_values_and_slopes_are_those_of_the_definition(options):
    layer = filled(make(**options, dtype="float64"), (2, 8, 7, 6))
    x = random(2, 8, 7, 6)
    results = []
    for function in (layer, lambda x: definition(layer, x)):
        with tf.GradientTape() as tape:
            y = function(x)
            total = tf.reduce_sum(tf.sin(y))
        variables = [v.value for v in layer.trainable_variables]
        results.append([y, *tape.gradient(total, variables)])
    assert results[0][0].shape == layer.compute_output_shape(x.shape)
    for value, other in zip(*results, strict=True):
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(value, other, atol=1e-11 * np.abs(other).max())


@pytest.mark.parametrize("modulated", [False, True])
def test_it_begins_as_a_plain_convolution(modulated):
    x = random(2, 8, 7, 6).astype("float32")
    layer = make(modulated=modulated, padding="same", strides=2)
    plain = kconv.layers.Conv2D(4, 3, padding="same", strides=2)
    y = layer(x)
    plain.build(x.shape)
    plain.set_weights([v.numpy() for v in layer.weights[:2]])
    expected = plain(x) * (0.5 if modulated else 1)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    assert [v.path.split("/")[-1] for v in layer.weights] == [
        *("kernel", "bias", "offset_kernel", "offset_bias")
    ]
    count = 27 if modulated else 18
    assert [v.shape for v in layer.weights[2:]] == [(3, 3, 6, count), (count,)]
    assert not np.any(layer.offset_kernel)
    assert not np.any(layer.offset_bias)


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_offsets_as_an_input(modulated, layout):
    options = {"modulated": modulated, "offset_groups": 2, "padding": "same"}
    layer = make(own_offsets=False, data_format=layout, dtype="float64", **options)
    arrays = [random(2, 8, 7, 6), 2 * random(2, 8, 7, 36), random(2, 8, 7, 18)]
    arrays = arrays if modulated else arrays[:2]
    last = layout == "channels_last"
    given = arrays if last else [np.moveaxis(one, -1, 1) for one in arrays]
    y = layer(given)
    assert len(layer.weights) == 2
    shapes = [one.shape for one in given]
    assert layer.compute_output_shape(shapes) == tuple(y.shape)
    y = y if last else np.moveaxis(y, 1, -1)
    np.testing.assert_allclose(y, definition(layer, *arrays), atol=1e-11)


def test_channels_first_is_the_same():
    options = {"modulated": True, "offset_groups": 2, "strides": 2, "padding": "same"}
    last = filled(make(**options, dtype="float64"), (2, 8, 7, 6))
    first = make(**options, dtype="float64", data_format="channels_first")
    x = random(2, 8, 7, 6)
    y = first(np.moveaxis(x, -1, 1))
    first.set_weights(last.get_weights())
    y = first(np.moveaxis(x, -1, 1))
    np.testing.assert_allclose(np.moveaxis(y, 1, -1), last(x), atol=1e-12)
    assert first.compute_output_shape((2, 6, 8, 7)) == (2, 4, 4, 4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16"])
def test_half_types(policy):
    layer = filled(make(dtype=policy, modulated=True, padding="same"), (2, 8, 7, 6))
    exact = filled(make(dtype="float64", modulated=True, padding="same"), (2, 8, 7, 6))
    x = random(2, 8, 7, 6)
    with tf.GradientTape() as tape:
        y = layer(x)
        total = tf.reduce_sum(tf.cast(y, "float32") ** 2)
    assert y.dtype == layer.compute_dtype
    expected = exact(x)
    unit = 0.1 if policy == "mixed_bfloat16" else 0.02
    assert (
        np.abs(tf.cast(y, "float64") - expected).max() <= unit * np.abs(expected).max()
    )
    for slope, variable in zip(
        tape.gradient(total, layer.trainable_variables), layer.weights, strict=True
    ):
        assert slope.dtype == variable.dtype
        assert np.abs(slope).max() > 0


@pytest.mark.parametrize("own", [False, True])
def test_saved_and_loaded(own, tmp_path):
    image = keras.Input((8, None, 6))
    layer = make(
        own_offsets=own,
        modulated=True,
        activation="relu",
        padding=TORCH_PADS,
        kernel_regularizer="l2",
        offset_bias_initializer="ones",
    )
    others = [keras.Input((8, None, n)) for n in (18, 9)]
    given = image if own else [image, *others]
    model = keras.Model(given, layer(given))
    assert model.output_shape == (None, 8, None, 4)
    filled(layer)
    data = [random(2, 8, 7, n).astype("float32") for n in (6, 18, 9)]
    data = data[0] if own else data
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(data), model(data))
    assert loaded.layers[-1].get_config() == layer.get_config()
    assert len(loaded.losses) == 1
    model.save_weights(tmp_path / "model.weights.h5")
    other = keras.models.clone_model(model)
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other(data), model(data))


def test_trains_with_lora_and_in_fit():
    layer = make(modulated=True, padding="same", lora_rank=2)
    pooling = keras.layers.GlobalAveragePooling2D()
    model = keras.Sequential([keras.Input((8, 8, 3)), layer, pooling])
    model.compile(keras.optimizers.SGD(0.3), "mse")
    before = [v.numpy() for v in layer.weights]
    x, y = random(16, 8, 8, 3), random(16, 4)
    losses = model.fit(x, y, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    changed = {
        v.path.split("/")[-1]
        for v, old in zip(layer.weights, before, strict=True)
        if np.any(v.numpy() != old)
    }
    assert changed == {
        *("bias", "lora_kernel_a", "lora_kernel_b", "offset_kernel", "offset_bias")
    }


@pytest.mark.parametrize(
    ("options", "shape", "sentence"),
    [
        ({"offset_groups": 0}, None, "Received: offset_groups=0"),
        ({"offset_groups": 1.0}, None, "Received: offset_groups=1.0"),
        ({"padding": "causal"}, None, "causal"),
        ({"padding": ((1, 1),)}, None, "Received: padding="),
        ({"groups": 3}, None, "groups=3"),
        ({"kernel_size": 0}, None, "kernel_size"),
        ({"offset_groups": 4}, (2, 8, 8, 6), "divides.*Received: offset_groups=4"),
        ({"groups": 4}, (2, 8, 8, 6), r"multiple of `groups`.*inputs\.shape="),
        ({}, (2, 8, 8, None), "must be known"),
        ({}, (2, 2, 8, 6), "larger than the padded input"),
        ({}, (2, 8, 6), "rank 4"),
        ({}, [(2, 8, 8, 6), (2, 6, 6, 18)], "1 tensors.*Received: input_shape="),
        ({"own_offsets": False}, [(2, 8, 8, 6), (2, 6, 6, 9)], "`offsets` must have"),
        ({"own_offsets": False}, [(2, 8, 8, 6)] * 3, "2 tensors"),
        (
            {"own_offsets": False, "modulated": True},
            [(2, 8, 8, 6), (2, 6, 6, 18)],
            "3 tensors",
        ),
    ],
    ids=str,
)
def test_wrong_arguments(options, shape, sentence):
    with pytest.raises(ValueError, match=f"(?s){sentence}"):
        make(**options).build(shape)


def test_wrong_inputs():
    with pytest.raises(ValueError, match="2 input"):
        make(own_offsets=False)(random(2, 8, 8, 6))
    layer = make()
    layer(random(2, 8, 8, 6))
    for wrong in (random(2, 8, 8, 5), random(2, 8, 6), [random(2, 8, 8, 6)] * 2):
        with pytest.raises(ValueError, match=r"expect|rank|axis"):
            layer(wrong)
    with pytest.raises(ValueError, match=r"not in a list.*Received: input_shape=\["):
        make()([random(2, 8, 8, 6)])
    with pytest.raises(NotImplementedError):
        layer.quantize("int8")


def test_converting_leaves_it_as_it_is():
    plain = keras.layers.Conv2D(6, 1, name="plain")
    model = keras.Sequential(
        [keras.Input((8, 8, 6)), make(name="deformable", modulated=True), plain]
    )
    x = random(2, 8, 8, 6).astype("float32")
    converted, report = kconv.convert(model, algorithm="gemm", return_report=True)
    rows = {row.path: row for row in report}
    assert rows["deformable"].reason == "Already a kconv layer."
    assert type(converted.get_layer("plain")) is kconv.layers.Conv2D
    np.testing.assert_allclose(converted(x), model(x), atol=1e-5)
    reverted, report = kconv.revert(converted, return_report=True)
    rows = {row.path: row for row in report}
    assert rows["deformable"].reason == "Keras has no DeformableConv2D."
    assert type(reverted.get_layer("plain")) is keras.layers.Conv2D


def test_profile():
    layer = make(modulated=True, padding="same", strides=2, groups=2)
    model = keras.Sequential([keras.Input((8, 8, 6)), layer])
    profile = kconv.profile(model)
    (row,) = profile.layers
    by_hand = 4 * 4 * (9 * 3 * 4 + 9 * 6 * 27)
    assert (row.macs, row.parameters) == (by_hand, 112 + 9 * 6 * 27 + 27)
    assert row.receptive_field == "3"

    image, far = keras.Input((8, 8, 6)), keras.Input((16, 16, 2))
    offsets = keras.layers.Conv2D(18, 5, strides=2, padding="same")(far)
    y = make(own_offsets=False, padding="same")([image, offsets])
    y = kconv.ops.deform_conv(
        y, np.ones((3, 3, 4, 2), "float32"), offsets, None, 1, "same"
    )
    profile = kconv.profile(keras.Model([image, far], y))
    macs = [row.macs for row in profile.layers]
    assert macs == [8 * 8 * 25 * 2 * 18, 8 * 8 * 9 * 6 * 4, 8 * 8 * 9 * 4 * 2]
    # Of the image three pixels and then five, of what moves them five.
    assert profile.layers[1].receptive_field == "3-5"


def test_only_the_offset_branch_is_tuned():
    model = keras.Sequential([keras.Input((8, 8, 6)), make(modulated=True)])
    problems, omitted = kconv.tuner.problems.collect(model, None, (1,), ("forward",))
    assert [one.filter_shape for one in problems] == [(3, 3, 6, 27)]
    assert omitted == []


def torch_layer(x, weight, bias, branch, branch_bias, stride, groups, modulated):
    """What mmcv's ModulatedDeformConv2dPack computes with padding=1."""
    x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    _, _, height, width = x.shape
    rows, columns = ((n - 3) // stride + 1 for n in (height, width))
    y = np.zeros((x.shape[0], weight.shape[0], rows, columns))
    taps = branch.shape[0] // (3 if modulated else 2)
    for n, i, j in np.ndindex(x.shape[0], rows, columns):
        window = x[n, :, i * stride : i * stride + 3, j * stride : j * stride + 3]
        found = np.tensordot(branch, window, 3) + branch_bias
        for o, c, p, q in np.ndindex(*weight.shape):
            channel = o // (weight.shape[0] // groups) * weight.shape[1] + c
            part = channel // (x.shape[1] // (taps // 9))
            t = part * 9 + p * 3 + q
            up, left = i * stride + p + found[2 * t], j * stride + q + found[2 * t + 1]
            value = sum(
                x[n, channel, a, b]
                * max(0, 1 - abs(up - a))
                * max(0, 1 - abs(left - b))
                for a, b in np.ndindex(height, width)
            )
            scale = 1 / (1 + np.exp(-found[2 * taps + t])) if modulated else 1
            y[n, o, i, j] += weight[o, c, p, q] * scale * value
    return y + bias.reshape(-1, 1, 1)


@pytest.mark.parametrize(
    ("stride", "groups", "parts", "modulated"), [(1, 1, 1, False), (2, 2, 2, True)]
)
def test_weights_from_pytorch(stride, groups, parts, modulated):
    x, weight, bias = random(1, 4, 5, 6), random(4, 4 // groups, 3, 3), random(4)
    count = (27 if modulated else 18) * parts
    branch, branch_bias = 0.2 * random(count, 4, 3, 3), random(count)
    layer = make(
        strides=stride,
        padding=TORCH_PADS,
        groups=groups,
        offset_groups=parts,
        modulated=modulated,
        dtype="float64",
    )
    layer.build((None, None, None, 4))
    arrays = weight, bias, branch, branch_bias
    layer.set_weights(kconv.conversion.deformable_weights(*arrays))
    y = np.moveaxis(layer(np.moveaxis(x, 1, -1)), -1, 1)
    expected = torch_layer(x, *arrays, stride, groups, modulated)
    np.testing.assert_allclose(y, expected, atol=1e-11)


def test_parts_of_weights_from_pytorch():
    function = kconv.conversion.deformable_weights
    assert [one.shape for one in function(random(8, 6, 3, 5))] == [(3, 5, 6, 8)]
    kernel, branch, bias = function(random(8, 6, 3, 3), None, random(18, 6, 3, 3))
    assert (kernel.shape, branch.shape) == ((3, 3, 6, 8), (3, 3, 6, 18))
    np.testing.assert_array_equal(bias, np.zeros(18))
    for arrays, sentence in (
        ((random(8, 6, 3),), "`weight` must be of rank 4"),
        ((random(8, 6, 3, 3), random(7)), "each filter of `weight`"),
        (
            (random(8, 6, 3, 3), None, None, random(18)),
            "each filter of `offset_weight`",
        ),
        ((random(8, 6, 3, 3), None, random(18, 6, 1, 1)), "the size of `weight`"),
        ((random(8, 6, 3, 3), None, random(17, 6, 3, 3)), "2 or 3 filters"),
        ((random(8, 6, 3, 3), None, random(9, 6, 3, 3)), "2 or 3 filters"),
        ((random(8, 6, 3, 3), None, random(18, 7, 3, 3)), "a multiple of those"),
    ):
        with pytest.raises(ValueError, match=rf"{sentence}.*Received: weight\.shape"):
            function(*arrays)
    with pytest.raises(ValueError, match=r"`weight` .*Received: weight=None, bias"):
        function(None, random(8))


def test_which_layers_of_the_model_are_deformable():
    model = kconv.models.build(
        "deformable_resnet50", input_shape=(32, 32, 3), classes=5, modulated=True
    )
    found = [
        one for one in model.layers if isinstance(one, kconv.layers.DeformableConv2D)
    ]
    names = [
        f"stage{s + 3}_block{i + 1}" for s, n in enumerate((4, 6, 3)) for i in range(n)
    ]
    assert [one.name for one in found] == [f"{name}_inner_conv" for name in names]
    assert [one.strides[0] for one in found] == [2, 1, 1, 1, 2, *(1,) * 5, 2, 1, 1]
    assert all(one.modulated and one.padding == TORCH_PADS for one in found)
    branches = [np.prod(v.shape) for one in found for v in one.weights[1:]]
    assert sum(branches) == 871_263
    keras.backend.clear_session()
