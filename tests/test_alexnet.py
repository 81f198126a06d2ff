"""kconv.models.AlexNet, in what it has of its own."""

import keras
import pytest

import kconv


@pytest.fixture(scope="module")
def features():
    return kconv.models.AlexNet(include_top=False)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(224, (55, 27, 13, 6)), (227, (56, 27, 13, 6)), (63, (15, 7, 3, 1))],
)
def test_sizes(features, size, sizes):
    """Those of torchvision: floor((n + 2 pad - kernel) / stride) + 1."""
    x, found = keras.KerasTensor((None, size, size, 3)), []
    for layer in features.layers[1:]:
        x = layer(x)
        if layer.name == "conv1" or "pool" in layer.name:
            found.append(x.shape[1])
    assert tuple(found) == sizes
    assert x.shape[-1] == 256


def test_convolutions_alone(features):
    # 64 (3 11^2 + 1), 192 (64 5^2 + 1), 384 (192 3^2 + 1), 256 (384 3^2 + 1),
    # 256 (256 3^2 + 1)
    assert features.count_params() == 23_296 + 307_392 + 663_936 + 884_992 + 590_080
    assert features.output_shape == (None, None, None, 256)
