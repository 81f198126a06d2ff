"""What kconv's models of shuffled and of weighed channels have of their own."""

import gc

import keras
import numpy as np
import pytest
import reference

import kconv

SMALL = {
    "resnext50": {"blocks": (2, 1), "cardinality": 2},
    "se_resnet50": {"blocks": (2, 1)},
    "shufflenet_v1": {"blocks": (2, 1), "groups": 2},
    "shufflenet_v2": {"blocks": (2, 1), "scale": 0.5},
}


def small(name, **options):
    """A small model, for logits, that carries what it is given on to its end."""
    keras.utils.set_random_seed(0)
    options = {"classifier_activation": None, "classes": 5, **SMALL[name], **options}
    model = kconv.models.build(name, **{"input_shape": (32, 32, 3), **options})
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "_bn/" in weight.path:  # a small variance makes large activations
            first = {"gamma": 1, "moving_variance": 0.1}.get(weight.name, 0)
            weight.assign(first + 0.1 * rng.random(weight.shape))
    return model


def images(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def between(model, *names):
    """A model of what layers of another give."""
    return keras.Model(model.input, [model.get_layer(name).output for name in names])


# pytorchcv tells the counts of ShuffleNet, torchvision the others.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("shufflenet_v1", {"groups": 1}, 1_531_936),
        ("shufflenet_v1", {"groups": 2}, 1_733_848),
        ("shufflenet_v1", {"groups": 4}, 1_968_344),
        ("shufflenet_v1", {"groups": 8}, 2_434_768),
        ("shufflenet_v1", {"scale": 0.5}, 718_324),
        ("shufflenet_v2", {"scale": 0.5}, 1_366_792),
        ("shufflenet_v2", {"scale": 1.5}, 3_503_624),
        ("shufflenet_v2", {"scale": 2}, 7_393_996),
        ("resnext50", {"blocks": (3, 4, 23, 3), "width": 8}, 88_791_336),
    ],
    ids=str,
)
def test_number_of_parameters(name, options, expected):
    model = kconv.models.build(name, **options)
    assert sum(np.prod(w.shape) for w in model.trainable_weights) == expected


@pytest.mark.parametrize("name", SMALL)
def test_channels_first_is_the_same(name):
    last = small(name)
    keras.config.set_image_data_format("channels_first")
    try:
        first = small(name, input_shape=(3, 32, 32))
    finally:
        keras.config.set_image_data_format("channels_last")
    first.set_weights(last.get_weights())
    x = images(2, 32, 32, 3)
    expected = last(x).numpy()
    assert np.abs(expected[0] - expected[1]).max() > 0.01 * np.abs(expected).max()
    error = np.abs(first(np.moveaxis(x, -1, 1)) - expected).max()
    assert error <= 1e-5 * np.abs(expected).max()
    assert first.layers[1].output.shape[1] == 3


@pytest.mark.parametrize(("name", "size"), [("shufflenet_v2", 3), ("se_resnet50", 7)])
def test_strides_pad_both_sides(name, size):
    model = small(name)
    x = images(1, 32, 32, 3)
    y = between(model, "stem_conv")(x)
    kernel = model.get_layer("stem_conv").kernel.numpy()
    expected = reference.conv(
        x,
        kernel,
        strides=(2, 2),
        dilation_rate=(1, 1),
        padding=((size // 2,) * 2,) * 2,
        groups=1,
        layout="channels_last",
    )
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_half_of_the_channels_stays():
    model = small("shufflenet_v2")
    parts = between(model, "stage2_unit1_shuffle", "stage2_unit2_shuffle")
    before, after = parts(images(2, 32, 32, 3))
    np.testing.assert_array_equal(after[..., ::2], before[..., :24])
    assert np.ptp(before) > 0
    assert after.shape == before.shape == (2, 4, 4, 48)


def test_means_are_put_beside():
    model = small("shufflenet_v1")
    before, after = between(model, "pool", "stage2_unit1_relu")(images(1, 32, 32, 3))
    padded = np.pad(before[0], ((1, 1), (1, 1), (0, 0)))
    for i, j in np.ndindex(4, 4):
        mean = padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].mean((0, 1))
        np.testing.assert_allclose(after[0, i, j, :24], mean, rtol=1e-5)


@pytest.mark.parametrize(("groups", "shuffles"), [(1, 0), (4, 2)])
def test_groups_of_pointwise_convolutions(groups, shuffles):
    model = small("shufflenet_v1", groups=groups, blocks=(1, 1))
    kinds = [type(layer) for layer in model.layers]
    assert kinds.count(kconv.layers.ChannelShuffle) == shuffles
    in_groups = [
        layer.groups for layer in model.layers if type(layer) is kconv.layers.Conv2D
    ]
    assert in_groups == [1, 1, *(groups,) * 3]


def test_only_what_is_added_is_weighed():
    model = small("se_resnet50")
    gates = model.get_layer("stage3_block1_se").expand
    gates.kernel.assign(0 * gates.kernel)
    gates.bias.assign(0 * gates.bias - 1e9)
    names = "stage3_block1_shortcut_bn", "stage3_block1_relu"
    shortcut, after = between(model, *names)(images(2, 32, 32, 3))
    np.testing.assert_array_equal(after, np.maximum(shortcut, 0))
    assert np.max(after) > 0


@pytest.mark.parametrize(
    "name",
    [
        *("se_resnet50", "shufflenet_v1"),
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("resnext50", "shufflenet_v2")
        ),
    ],
)
def test_images_of_any_size(name):
    model = small(name, input_shape=(None, None, 3), include_top=False)
    fixed = small(name, input_shape=(33, 70, 3), include_top=False)
    assert model.output_shape == (None, None, None, fixed.output_shape[-1])
    assert fixed.output_shape[1:3] == ((5, 9) if "res" in name else (3, 5))
    fixed.set_weights(model.get_weights())
    x = images(1, 33, 70, 3)
    y = fixed(x).numpy()
    np.testing.assert_allclose(model(x), y, rtol=0, atol=1e-5 * np.abs(y).max())


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("shufflenet_v2", {"scale": 0.25}, r"0\.5.*2\.0.*Received: scale=0.25"),
        ("shufflenet_v2", {"scale": [1]}, r"Received: scale=\[1\]"),
        (
            "shufflenet_v2",
            {"blocks": (4, 8, 4, 1)},
            "`blocks` must be up to 3 ",
        ),
        ("shufflenet_v1", {"scale": "1"}, "Received: scale='1'"),
        ("shufflenet_v2", {"scale": True}, "Received: scale=True"),
        ("shufflenet_v1", {"groups": True}, "Received: groups=True"),
        ("shufflenet_v1", {"groups": np.arange(2)}, "Received: groups=array"),
        ("shufflenet_v1", {"groups": 5}, "Received: groups=5"),
        ("shufflenet_v1", {"groups": 8, "scale": 0.5}, "Received: groups=8, scale=0.5"),
        ("shufflenet_v1", {"blocks": ()}, "Received: blocks="),
        ("shufflenet_v1", {"blocks": (4, 8, 0)}, "Received: blocks="),
        ("resnext50", {"blocks": 3}, "`blocks` must be up to 4 .*Received: blocks=3"),
        ("resnext50", {"cardinality": 0}, "Received: cardinality=0"),
        ("resnext50", {"width": 4.0}, "Received: width=4.0"),
        ("resnext50", {"input_shape": (31, 32, 3)}, "32x32"),
        ("se_resnet50", {"blocks": (3, 4, 6, True)}, "Received: blocks="),
        ("se_resnet50", {"ratio": -1}, "Received: ratio=-1"),
    ],
    ids=str,
)
def test_wrong_options(name, options, sentence):
    with pytest.raises(ValueError, match=f"(?s){sentence}"):
        kconv.models.build(name, **options)


@pytest.fixture(autouse=True, scope="module")
def forgotten():
    """Gives back what Keras holds of models."""
    yield
    keras.backend.clear_session()
    gc.collect()
