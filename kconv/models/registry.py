"""The models by their names: kconv's own and those of keras.applications."""

import difflib
import inspect

import keras

from kconv import layers as kconv_layers
from kconv.conversion import convert
from kconv.models.alexnet import AlexNet
from kconv.models.deformable_resnet import DeformableResNet50
from kconv.models.googlenet import GoogLeNet
from kconv.models.hourglass import StackedHourglass
from kconv.models.lenet import LeNet5
from kconv.models.resnext import ResNeXt50
from kconv.models.se_resnet import SEResNet50
from kconv.models.shufflenet_v1 import ShuffleNetV1
from kconv.models.shufflenet_v2 import ShuffleNetV2

# Name -> function, and the arguments that make it of that name.
OWN = {
    "alexnet": (AlexNet, {}),
    "deformable_resnet50": (DeformableResNet50, {}),
    "googlenet": (GoogLeNet, {}),
    "googlenet_bn": (
        GoogLeNet,
        {"name": "googlenet_bn", "batch_normalization": True},
    ),
    "hourglass2": (StackedHourglass, {"name": "hourglass2", "stacks": 2}),
    "hourglass8": (StackedHourglass, {"name": "hourglass8", "stacks": 8}),
    "lenet5": (LeNet5, {}),
    "resnext50": (ResNeXt50, {}),
    "se_resnet50": (SEResNet50, {}),
    "shufflenet_v1": (ShuffleNetV1, {}),
    "shufflenet_v2": (ShuffleNetV2, {}),
}

APPLICATIONS = {
    name: function
    for name, function in sorted(vars(keras.applications).items())
    if inspect.isfunction(function)
}


def list():
    """Returns the names that `kconv.models.build` takes.

    Returns:
        A list of strings: kconv's own models, then those of `keras.applications` by
        their names there.

    Example:

    >>> "se_resnet50" in kconv.models.list(), "ResNet50" in kconv.models.list()
    (True, True)
    """
    return [*OWN, *APPLICATIONS]


def build(name, /, *, weights=None, layers=kconv_layers, **options):
    """Builds a model by its name.

    What keras.applications has comes from there, converted by `kconv.convert`; the
    others are kconv's own, such as `kconv.models.AlexNet`, built from `kconv.layers`.

    Args:
        name: String, one of `kconv.models.list()`. Upper and lower case, underscores
            and hyphens do not matter.
        weights: None, for random ones, or the path of a file to load them from; for
            those of keras.applications also `"imagenet"`, a download.
        layers: Module that layers are taken from. `keras.layers` makes the same model
            of stock layers.
        **options: Arguments of the model's function: all take `include_top`,
            `input_tensor`, `input_shape`, `pooling`, `classes`, `classifier_activation`
            and `name`.

    Returns:
        A Keras model.

    Raises:
        ValueError: If there is no such model, or if an argument is wrong.

    Example:

    >>> model = kconv.models.build("lenet5", classes=26)
    >>> model = kconv.models.build("MobileNetV2", input_shape=(96, 96, 3), classes=5)
    """
    found = find(name)
    if layers is not kconv_layers and layers is not keras.layers:
        raise ValueError(
            "`layers` must be the module kconv.layers or keras.layers. "
            f"Received: layers={layers!r}"
        )
    if found in OWN:
        function, arguments = OWN[found]
        return function(weights=weights, layers=layers, **{**arguments, **options})
    model = APPLICATIONS[found](weights=weights, **options)
    return convert(model, in_place=True) if layers is kconv_layers else model


def find(name):
    """Returns the name out of `list()` that is meant; arguments as of `build`.

    Raises:
        ValueError: If there is none.
    """
    names = {_plain(known): known for known in list()}
    found = names.get(_plain(name))
    if found is None:
        near = difflib.get_close_matches(_plain(name), names, n=3)
        near = [names[one] for one in near] or list()
        raise ValueError(
            "`name` must be one of `kconv.models.list()`, such as "
            f"{', '.join(map(repr, near))}. Received: name={name!r}"
        )
    return found


def _plain(name):
    return str(name).lower().replace("_", "").replace("-", "")
