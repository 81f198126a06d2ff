"""What kconv's models have in common: the manners of keras.applications."""

import os

import keras

from kconv.models.checks import check_activation, check_pooling, checked_positive
from kconv.spec import is_integer


def channel_axis():
    """Returns the axis of channels in an image with its batch: -1 or 1."""
    return 1 if keras.config.image_data_format() == "channels_first" else -1


def normalized(x, layers, name, activation=None):
    """Normalizes a batch as He et al. do, and applies an activation.

    Args:
        x: KerasTensor.
        layers: Module, `kconv.layers` or `keras.layers`.
        name: String, the prefix of the names of the layers.
        activation: String or None.

    Returns:
        A KerasTensor.
    """
    x = layers.BatchNormalization(
        axis=channel_axis(), momentum=0.9, epsilon=1e-5, name=f"{name}_bn"
    )(x)
    if activation is None:
        return x
    return layers.Activation(activation, name=f"{name}_{activation}")(x)


def pooled(x, layers, pooling):
    """Pools feature maps, as `pooling` of keras.applications asks."""
    if pooling == "avg":
        return layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if pooling == "max":
        return layers.GlobalMaxPooling2D(name="max_pool")(x)
    return x


class Frame:
    """The image that a model begins with, and the model that is made in the end.

    Everything is checked before a layer is made.

    Args:
        include_top: Bool, whether the model ends with its classifier.
        weights: None or a path, what the weights are loaded from.
        input_tensor: KerasTensor or None, the image.
        input_shape: Tuple of ints or None, the shape of the image. Sizes may be None.
        pooling: None, `"avg"` or `"max"`.
        classes: Int, the number of classes.
        classifier_activation: String, callable or None.
        default_shape: Tuple (height, width, channels), which `input_shape` is if it is
            not given.
        smallest: Int, the least height and width.
        is_fixed: Bool, whether the classifier needs to know height and width.

    Raises:
        ValueError: If an argument is wrong.

    Attributes:
        image: KerasTensor.
    """

    def __init__(
        self,
        include_top,
        weights,
        input_tensor,
        input_shape,
        pooling,
        classes,
        classifier_activation,
        *,
        default_shape,
        smallest,
        is_fixed=False,
    ):
        if weights is not None and not (
            isinstance(weights, str | os.PathLike) and os.path.isfile(weights)
        ):
            raise ValueError(
                "`weights` must be None or the path of a file with weights: there are "
                f"none to download. Received: weights={weights!r}"
            )
        check_pooling(pooling)
        checked_positive("classes", classes)
        check_activation("classifier_activation", classifier_activation)
        self._weights = weights
        self._is_given = input_tensor is not None
        if self._is_given:
            self.image = _checked_tensor(input_tensor, input_shape)
            _check_shape(
                "input_tensor.shape",
                tuple(self.image.shape)[1:],
                smallest,
                include_top and is_fixed,
            )
            return
        if input_shape is None:
            input_shape = _default_shape(default_shape, include_top)
        _check_shape("input_shape", input_shape, smallest, include_top and is_fixed)
        self.image = keras.Input(tuple(input_shape))

    def model(self, outputs, name):
        """Makes the model, and loads its weights.

        Args:
            outputs: KerasTensor, or a structure of them.
            name: String, the name of the model.

        Returns:
            A Keras model.
        """
        inputs = self.image
        if self._is_given:  # it may be what other layers made
            inputs = keras.utils.get_source_inputs(inputs)
            inputs = inputs[0] if len(inputs) == 1 else inputs
        model = keras.Model(inputs, outputs, name=name)
        if self._weights is not None:
            model.load_weights(self._weights)
        return model


def _default_shape(shape, include_top):
    *size, channels = shape if include_top else (None, None, shape[-1])
    return (channels, *size) if channel_axis() == 1 else (*size, channels)


def _checked_tensor(tensor, input_shape):
    # One that is made by hand is no layer's, and begins no model.
    if not isinstance(tensor, keras.KerasTensor) or not _maker(tensor):
        raise ValueError(
            "`input_tensor` must be a Keras tensor, such as `keras.Input` returns. "
            f"Received: input_tensor={tensor!r}"
        )
    shape = tuple(tensor.shape)[1:]
    if input_shape is not None and tuple(input_shape) != shape:
        raise ValueError(
            "`input_shape` is not that of `input_tensor`. Received: "
            f"input_shape={tuple(input_shape)}, input_tensor.shape={tensor.shape}"
        )
    return tensor


def _maker(tensor):
    return getattr(tensor, "_keras_history", (None,))[0]


def _check_shape(name, shape, smallest, is_fixed):
    received = f"Received: {name}={shape}"
    if (
        not isinstance(shape, tuple | list)
        or len(shape) != 3
        or not all(n is None or (is_integer(n) and n > 0) for n in shape)
    ):
        raise ValueError(
            f"`{name}` must be of three positive integers, a size may be None. "
            f"{received}"
        )
    axis = channel_axis()
    *size, channels = shape if axis == -1 else (*shape[1:], shape[0])
    if channels is None:
        raise ValueError(f"`{name}` must tell the number of channels. {received}")
    if any(n is not None and n < smallest for n in size):
        raise ValueError(
            f"`{name}` must be of at least {smallest}x{smallest} pixels. {received}"
        )
    if is_fixed and None in size:
        raise ValueError(
            f"With `include_top=True` `{name}` must tell height and width. {received}"
        )
