"""kconv.models with channels first: the same of transposed images."""

import keras
import numpy as np
import pytest

import kconv

OPTIONS = {
    "alexnet": {"input_shape": (64, 70, 3)},
    "deformable_resnet50": {"input_shape": (32, 40, 3), "blocks": (1, 1)},
    "googlenet": {"input_shape": (66, 80, 3), "auxiliary_heads": True},
    "googlenet_bn": {"input_shape": (48, 64, 3)},
    "hourglass2": {"input_shape": (16, 24, 3), "channels": 16, "order": 1},
}


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")
    keras.backend.clear_session()


# Of hundreds of layers, and much like others that are here.
LARGE = ("googlenet_bn",)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in OPTIONS]
)
def test_same_as_channels_last(name, channels_first):
    keras.utils.set_random_seed(0)
    *size, channels = OPTIONS[name]["input_shape"]
    options = {**OPTIONS[name], "classes": 5}
    first = kconv.models.build(name, **{**options, "input_shape": (channels, *size)})
    keras.config.set_image_data_format("channels_last")
    last = kconv.models.build(name, **options)
    last.set_weights(first.get_weights())
    x = np.random.default_rng(0).standard_normal((2, *size, channels))
    found, expected = (
        keras.tree.flatten(model(image))
        for model, image in ((first, np.moveaxis(x, -1, 1)), (last, x))
    )
    for y, other in zip(found, expected, strict=True):
        y = np.moveaxis(y, 1, -1) if y.ndim == 4 else y
        np.testing.assert_allclose(y, other, atol=2e-5 * np.abs(other).max())
