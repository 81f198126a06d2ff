"""kconv.models.StackedHourglass, in what it has of its own."""

import keras
import numpy as np
import pytest

import kconv
from kconv.models.hourglass import hourglass

SMALL = {"channels": 8, "order": 2, "classes": 3}


def convolution(n, filters, size):
    return filters * (n * size**2 + 1)


def residual(n, filters):
    """`layers/Residual.lua` of princeton-vl/pose-hg-train, line by line."""
    half = filters // 2
    return (
        *(2 * n, convolution(n, half, 1)),
        *(2 * half, convolution(half, half, 3)),
        *(2 * half, convolution(half, filters, 1)),
        *([] if n == filters else [convolution(n, filters, 1)]),
    )


def parameters(stacks, n=256, modules=1, maps=16, levels=4):
    """What `createModel` of its `src/models/hg.lua` makes, line by line."""
    one = modules * sum(residual(n, n))
    stem = [convolution(3, 64, 7), 2 * 64]
    stem += [*residual(64, 128), *residual(128, 128), *residual(128, n)]
    # Each level: up1, low1, low3; the innermost: low2.
    glass = [levels * 3 * one, one]
    head = [one, convolution(n, n, 1), 2 * n, convolution(n, maps, 1)]
    again = [convolution(n, n, 1), convolution(maps, n, 1)]
    return sum(stem) + stacks * sum(glass + head) + (stacks - 1) * sum(again)


def test_parameters_by_the_authors_code():
    assert parameters(2) == 6_570_400
    assert parameters(8) == 25_434_112
    # bearpaw/pytorch-pose has 256 channels one residual block earlier, in its stem.
    earlier = sum(residual(256, 256)) - sum(residual(128, 128))
    assert parameters(8) + earlier == 25_594_624


def test_parameters_of_another():
    model = kconv.models.StackedHourglass(stacks=1, channels=24, blocks=2, order=2)
    trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert trained == parameters(1, 24, modules=2, levels=2)
    assert model.output_shape == (None, 64, 64, 16)


def down_and_up(x, order):
    """An hourglass whose residual blocks pass on what they take."""
    if order == 0:
        return x
    n, height, width, channels = x.shape
    pooled = x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))
    low = down_and_up(pooled, order - 1)
    return x + low.repeat(2, axis=1).repeat(2, axis=2)


def test_hourglass_without_its_residuals():
    image = keras.Input((16, 24, 4))
    outputs = hourglass(image, kconv.layers, 4, 1, 3, "one")
    model = keras.Model(image, outputs)
    assert len([w for w in model.weights if w.path.endswith("_3_conv/kernel")]) == 10
    for weight in model.weights:
        if weight.path.endswith("_3_conv/kernel"):
            weight.assign(0 * weight)
    x = np.random.default_rng(0).standard_normal((2, 16, 24, 4)).astype("float32")
    np.testing.assert_allclose(model(x), down_and_up(x, 3), rtol=1e-5, atol=1e-5)


def test_maps_and_features():
    options = {"stacks": 2, **SMALL}
    model = kconv.models.StackedHourglass(classifier_activation="sigmoid", **options)
    assert model.output_shape == [(None, 64, 64, 3)] * 2
    features = kconv.models.StackedHourglass(
        include_top=False, input_shape=(None, None, 3), **options
    )
    own = {weight.path: weight for weight in model.weights}
    assert own.keys() - {weight.path for weight in features.weights} == {
        "stack2_maps/kernel",
        "stack2_maps/bias",
    }
    features.set_weights([own[weight.path] for weight in features.weights])
    image = np.random.default_rng(0).standard_normal((1, 256, 256, 3))
    found = features(image)
    assert found.shape == (1, 64, 64, 8)
    # The second hourglass takes the maps of the first without the activation.
    maps = keras.ops.sigmoid(model.get_layer("stack2_maps")(found))
    np.testing.assert_allclose(model(image)[-1], maps, rtol=1e-4, atol=1e-5)


def test_features_and_maps_go_on():
    keras.utils.set_random_seed(0)
    model = kconv.models.StackedHourglass(stacks=2, input_shape=(16, 32, 3), **SMALL)
    for weight in model.weights:
        if weight.path.startswith("stack2_"):
            weight.assign(
                next(w for w in model.weights if w.path == "stack1_" + weight.path[7:])
            )
    image = np.random.default_rng(0).standard_normal((2, 16, 32, 3))
    kernels = [
        model.get_layer(f"stack1_{part}_again").kernel for part in ("features", "maps")
    ]
    values = [np.asarray(kernel) for kernel in kernels]
    outputs = {}
    for kept in ((0, 0), (1, 0), (0, 1)):
        for kernel, value, factor in zip(kernels, values, kept, strict=True):
            kernel.assign(factor * value)
        first, outputs[kept] = model(image)
        assert first.shape == (2, 4, 8, 3)
    # Of the same input the same hourglass makes the same maps.
    np.testing.assert_allclose(outputs[0, 0], first, rtol=1e-5, atol=1e-5)
    for kept in ((1, 0), (0, 1)):
        assert np.abs(outputs[kept] - first).max() > 0.1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"stacks": 0}, "Received: stacks=0"),
        ({"channels": 2.0}, "Received: channels=2.0"),
        ({"channels": 33}, "even. Received: channels=33"),
        ({"blocks": True}, "Received: blocks=True"),
        ({"order": -1}, "Received: order=-1"),
        ({"input_shape": (64, 96, 3)}, r"of 64.*Received: input_shape=\(64, 96, 3\)"),
    ],
    ids=str,
)
def test_wrong_options(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        kconv.models.StackedHourglass(**options)
