"""Every architecture of keras.applications, converted and reverted.

The outputs are logits of random weights, and the bound is a part of the largest. One
convolution of kconv rounds by up to some 4e-6 of its largest value (Winograd's in
float32, see `kconv.ops.conv`), a stock one by some 1e-7. The errors of hundreds of
layers add up like random ones, with the square root of their number, if the model
carries them on as they are. It does not where activations grow from block to block,
until the sigmoid gates of an EfficientNet are steps: of EfficientNetV2L as Keras
initializes it the stock model has no correct digit in float32. Variances of 2 in the
normalizations keep that from happening. The largest error was then 5e-6; the bound is
four times that, for other processors, where other algorithms are the fastest.
"""

import gc
import inspect

import keras
import numpy as np
import pytest

import kconv

BOUND = 2e-5

NAMES = sorted(
    name
    for name, value in vars(keras.applications).items()
    if inspect.isfunction(value)
)

# Depthwise and dense convolutions, and residual blocks; the others run by `-m slow`.
# Networks of other kinds are converted and reverted in test_every_model.
FAST = ("MobileNetV3Small",)

# The smallest images that an architecture takes, where they are not of 32x32 pixels.
SIZES = {"InceptionResNetV2": 75, "InceptionV3": 75, "Xception": 71}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in NAMES
    ],
)
def test_application(name, record_property):
    keras.utils.set_random_seed(0)
    size = SIZES.get(name, 32)
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=5, classifier_activation=None
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(2 * keras.ops.ones_like(layer.moving_variance))
    x = np.random.default_rng(0).standard_normal((2, size, size, 3)).astype("float32")
    expected = model(x).numpy()
    assert np.ptp(expected) > 0.1 * np.abs(expected).max()

    converted, report = kconv.convert(model, return_report=True)
    assert len(report.swapped) > 10
    assert report.left == ()
    error = np.abs(converted(x) - expected).max() / np.abs(expected).max()
    record_property("largest_error", f"{error:.1e}")
    assert error <= BOUND

    reverted = kconv.revert(converted)
    assert reverted.get_config() == model.get_config()
    assert np.array_equal(reverted(x), expected)


@pytest.fixture(autouse=True)
def forgotten():
    """Gives back what Keras holds of large models."""
    yield
    keras.backend.clear_session()
    gc.collect()
