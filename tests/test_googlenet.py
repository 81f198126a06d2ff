"""kconv.models.GoogLeNet, in what it has of its own."""

import keras
import numpy as np
import pytest

import kconv
from kconv.models.googlenet import inception

# Szegedy et al. 2015, table 1: the channels of an input, then filters by column.
TABLE = {
    "3a": (192, 64, 96, 128, 16, 32, 32),
    "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64),
    "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64),
    "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128),
    "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}

# The same, column "output size" of a 224x224 image.
SIZES = {
    **{"conv1": (112, 64), "pool1": (56, 64), "conv2": (56, 192), "pool2": (28, 192)},
    **{"inception_3a": (28, 256), "inception_3b": (28, 480), "pool3": (14, 480)},
    **{"inception_4a": (14, 512), "inception_4b": (14, 512), "inception_4c": (14, 512)},
    **{"inception_4d": (14, 528), "inception_4e": (14, 832), "pool4": (7, 832)},
    **{"inception_5a": (7, 832), "inception_5b": (7, 1024)},
}


def convolutions():
    """Of each convolution: the channels of its input, its filters, its size."""
    yield from ((3, 64, 7), (64, 64, 1), (64, 192, 3))
    for n, n1, r3, n3, r5, n5, p in TABLE.values():
        yield from ((n, n1, 1), (n, r3, 1), (r3, n3, 3), (n, r5, 1), (r5, n5, 5))
        yield (n, p, 1)


def test_parameters_by_the_table():
    kernels = sum(n * filters * size**2 for n, filters, size in convolutions())
    filters = sum(filters for _, filters, _ in convolutions())
    classifier = 1024 * 1000 + 1000
    assert kernels + filters + classifier == 6_998_552
    assert kernels + 2 * filters + classifier == 7_005_832


@pytest.fixture(scope="module")
def with_heads():
    shape = (224, 224, 3)
    return kconv.models.GoogLeNet(
        input_shape=shape, classes=10, auxiliary_heads=True, classifier_activation=None
    )


def test_sizes_by_the_table(with_heads):
    found = {name: with_heads.get_layer(name).output.shape[2:] for name in SIZES}
    assert found == SIZES


def test_order_of_the_first_layers(with_heads):
    names = [layer.name for layer in with_heads.layers]
    first = ["conv1", "pool1", "lrn1", "conv2_reduce", "conv2", "lrn2", "pool2"]
    assert names[2:9] == first


def test_branches_of_a_module():
    image = keras.Input((5, 5, 3))
    outputs = inception(image, kconv.layers, (2, (4, 3), (5, 6), 7), "one")
    model = keras.Model(image, outputs)
    parts = ("1x1", "3x3", "5x5", "pool_proj")
    for i, part in enumerate(parts, start=1):
        kernel, bias = model.get_layer(f"one_{part}").weights
        kernel.assign(0 * kernel)
        bias.assign(i + 0 * bias)
    assert model.get_layer("one_3x3").kernel.shape == (3, 3, 4, 3)
    assert model.get_layer("one_5x5").kernel.shape == (5, 5, 5, 6)
    y = model(np.ones((1, 5, 5, 3)))
    expected = np.repeat([1, 2, 3, 4], [2, 3, 6, 7])
    np.testing.assert_array_equal(y, np.broadcast_to(expected, (1, 5, 5, 18)))


def test_auxiliary_heads(with_heads):
    assert [output.shape for output in with_heads.outputs] == [(None, 10)] * 3
    assert with_heads.get_layer("auxiliary_4d_pool").input.shape[1:] == (14, 14, 528)
    assert with_heads.get_layer("auxiliary_4d_flatten").input.shape[1:] == (4, 4, 128)
    inference = kconv.models.GoogLeNet(classes=10)
    heads = sum(
        (n * 128 + 128) + (2048 * 1024 + 1024) + (1024 * 10 + 10) for n in (512, 528)
    )
    assert with_heads.count_params() - inference.count_params() == heads
    rates = [
        layer.rate
        for layer in with_heads.layers
        if isinstance(layer, keras.layers.Dropout)
    ]
    assert sorted(rates) == [0.4, 0.7, 0.7]
    # What is trained is what is used.
    own = {weight.path: weight for weight in with_heads.weights}
    inference.set_weights([own[weight.path] for weight in inference.weights])
    image = np.random.default_rng(0).standard_normal((1, 224, 224, 3))
    likely = keras.ops.softmax(with_heads(image)[0])
    np.testing.assert_allclose(inference(image), likely, rtol=1e-4)


def test_without_classifier():
    model = kconv.models.build("googlenet_bn", include_top=False, pooling="avg")
    assert model.output_shape == (None, 1024)
    assert not any("lrn" in layer.name for layer in model.layers)
    with pytest.raises(ValueError, match="Received: include_top=False"):
        kconv.models.GoogLeNet(include_top=False, auxiliary_heads=True)
    with pytest.raises(ValueError, match=r"65x65.*Received: input_shape=\(64, 64, 3\)"):
        kconv.models.GoogLeNet(input_shape=(64, 64, 3), auxiliary_heads=True)
