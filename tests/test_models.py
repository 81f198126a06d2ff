"""kconv.models: its names and the manners of its models."""

import keras
import numpy as np
import pytest

import kconv
from kconv.models.registry import APPLICATIONS, OWN

# Name -> parameters, all or trainable, and who says so, of the model as it is by
# default: with 1000 classes and its classifier, unless its source has others.
COUNTS = {
    # torchvision's documentation of alexnet, `num_params`.
    "alexnet": (61_100_840, "all"),
    # torchvision's resnet50, 25,557,032, and offset branches of 18 filters of 3x3 taps,
    # with biases: 4 of 128 channels, 6 of 256, 3 of 512; test_deformable_layers has 27.
    "deformable_resnet50": (26_137_874, "trainable"),
    # By table 1 of Szegedy et al. 2015: test_googlenet.
    "googlenet": (6_998_552, "trainable"),
    "googlenet_bn": (7_005_832, "trainable"),
    # By the authors' code: test_hourglass.
    "hourglass2": (6_570_400, "trainable"),
    "hourglass8": (25_434_112, "trainable"),
    # LeCun et al. 1998, figure 2 and section II.B: C1 156, C3 2416 (dense: all 6 maps
    # to all 16), C5 48120, F6 10164, output 850.
    "lenet5": (61_706, "trainable"),
    # torchvision's resnext50_32x4d.
    "resnext50": (25_028_904, "trainable"),
    # pytorchcv's seresnet50: ResNet-50's 25,557,032, and 2,530,992 of the gates.
    "se_resnet50": (28_088_024, "trainable"),
    # pytorchcv's shufflenet_g3_w1; of 137 million multiplications as in table 1.
    "shufflenet_v1": (1_865_728, "trainable"),
    # torchvision's shufflenet_v2_x1_0.
    "shufflenet_v2": (2_278_604, "trainable"),
    # What `summary()` of Keras's models tells; keras.io/api/applications has them in
    # millions. By hand, from table 1 of Simonyan and Zisserman 2014, VGG-16:
    # 9 (3 64 + 64 64 + 64 128 + 128 128 + 128 256 + 2 256 256 + 256 512 + 5 512 512) +
    # 7 7 512 4096 + 4096 4096 + 4096 1000, and biases 4224 + 2 4096 + 1000.
    "VGG16": (138_357_544, "all"),
    "VGG19": (143_667_240, "all"),
    "ResNet50": (25_636_712, "all"),
    "Xception": (22_910_480, "all"),
    "MobileNet": (4_253_864, "all"),
    "MobileNetV2": (3_538_984, "all"),
    "DenseNet121": (8_062_504, "all"),
    "InceptionV3": (23_851_784, "all"),
}


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


# They take seconds to build. Keras's are converted like those that are left.
LARGE = ("hourglass8", "VGG19", "Xception", "DenseNet121", "InceptionV3")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in COUNTS],
)
def test_number_of_parameters(name, monkeypatch):
    def zeros(initializer, shape, dtype=None):
        return keras.ops.zeros(shape, dtype)

    # Random numbers would take most of the time.
    monkeypatch.setattr(keras.initializers.VarianceScaling, "__call__", zeros)
    expected, which = COUNTS[name]
    model = kconv.models.build(name)
    weights = model.weights if which == "all" else model.trainable_weights
    assert count(weights) == expected
    keras.backend.clear_session()


def test_names():
    names = kconv.models.list()
    assert all(isinstance(name, str) for name in names)
    assert len(set(names)) == len(names)
    assert set(OWN) < set(names)
    assert {"ResNet50", "MobileNetV2", "Xception"} < set(names)
    assert {name for name in names if name in dir(keras.applications)} == set(
        APPLICATIONS
    )


def test_every_own_model_is_counted():
    assert set(OWN) <= set(COUNTS)


@pytest.mark.parametrize("name", ["LeNet5", "lenet-5", "LENET_5"])
def test_spellings_of_a_name(name):
    assert kconv.models.build(name).name == "lenet5"


def test_models_of_keras_are_converted():
    name = "mobilenet_v2"
    model = kconv.models.build(name, input_shape=(32, 32, 3), classes=3)
    convolutions = [
        layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)
    ]
    assert all(isinstance(layer, kconv.layers.Conv2D) for layer in convolutions)
    assert len(convolutions) > 30
    stock = kconv.models.build(
        name, input_shape=(32, 32, 3), classes=3, layers=keras.layers
    )
    assert kconv.revert(model).count_params() == stock.count_params()
    assert not any(isinstance(layer, kconv.layers.Conv2D) for layer in stock.layers)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"called": "resnet5o"}, r"`kconv.models.list\(\)`.*ResNet50.*name='resnet5o'"),
        ({"called": 3}, "Received: name=3"),
        ({"layers": np}, "Received: layers="),
        ({"weights": "imagenet"}, "Received: weights='imagenet'"),
        ({"weights": 3}, "Received: weights=3"),
        ({"pooling": "mean"}, "Received: pooling='mean'"),
        ({"classes": 0}, "Received: classes=0"),
        ({"pooling": np.arange(2)}, "Received: pooling=array"),
        ({"layers": np.arange(2)}, "Received: layers=array"),
        ({"classes": 2.0}, "Received: classes=2.0"),
        ({"classifier_activation": "x"}, "Received: classifier_activation='x'"),
        ({"classifier_activation": []}, r"Received: classifier_activation=\[\]"),
        ({"input_shape": (32, 32)}, r"Received: input_shape=\(32, 32\)"),
        ({"input_shape": 32}, "Received: input_shape=32"),
        ({"input_shape": (31, 32, 1)}, r"32x32.*Received: input_shape=\(31, 32, 1\)"),
        ({"input_shape": (32, 32, None)}, "channels. Received: input_shape="),
        ({"input_shape": (None, None, 1)}, "height and width. Received: input_shape="),
        ({"input_tensor": np.zeros((1, 32, 32, 1))}, "Received: input_tensor="),
        (
            {"input_tensor": keras.KerasTensor((None, 32, 32, 1))},
            "Received: input_tensor=",
        ),
        (
            {"input_tensor": keras.Input((32, 32, 1)), "input_shape": (32, 32, 3)},
            "Received: input_shape=",
        ),
    ],
    ids=str,
)
def test_wrong_options(options, sentence):
    with pytest.raises(ValueError, match=f"(?s){sentence}"):
        name = options.get("called", "lenet5")
        kconv.models.build(name, **{k: v for k, v in options.items() if k != "called"})


@pytest.mark.parametrize(("pooling", "rank"), [(None, 4), ("avg", 2), ("max", 2)])
def test_without_classifier(pooling, rank):
    model = kconv.models.build("lenet5", include_top=False, pooling=pooling)
    assert model.input_shape == (None, None, None, 1)
    features = model(np.ones((2, 36, 40, 1), "float32"))
    assert features.shape == ((2, 2, 3, 120) if rank == 4 else (2, 120))


def test_begins_with_a_tensor():
    image = keras.Input((28, 28, 1))
    tensor = keras.layers.ZeroPadding2D(2)(image)
    model = kconv.models.build("lenet5", input_tensor=tensor, name="padded")
    assert model.input is image
    assert model.name == "padded"
    assert model(np.ones((2, 28, 28, 1), "float32")).shape == (2, 10)


def test_weights_from_a_file(tmp_path):
    path = tmp_path / "lenet5.weights.h5"
    model = kconv.models.build("lenet5", classes=3)
    model.save_weights(path)
    other = kconv.models.build("lenet5", classes=3, weights=path)
    for weight, own in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(weight, own)


def test_activation_of_the_classifier():
    logits = kconv.models.build("lenet5", classifier_activation=None)
    assert logits.layers[-1].activation is keras.activations.linear
    likely = kconv.models.build("lenet5")
    assert likely.layers[-1].activation is keras.activations.softmax
