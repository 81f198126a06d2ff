"""LeNet-5."""

from kconv import layers as kconv_layers
from kconv.models.frame import Frame, pooled


def LeNet5(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=10,
    classifier_activation="softmax",
    name="lenet5",
    *,
    layers=kconv_layers,
):
    """Builds LeNet-5, the network that read digits.

    It has what later descriptions kept of the paper's: C3 sees all maps of S2, the
    subsampling is a plain average, tanh is not scaled, and a dense layer with softmax
    stands for the Euclidean radial basis functions. Of its 61,706 parameters 50,692 are
    left without the classifier, F6 and the layer after it.

    Args:
        include_top: Bool, whether the model ends with its classifier.
        weights: None, for random ones, or the path of a file to load them from.
        input_tensor: KerasTensor to begin with, such as `keras.Input` or a layer
            returns, or None.
        input_shape: Tuple of 3 ints, the shape of an image without the batch, in the
            order of `keras.config.image_data_format()`. At least 32x32 pixels; by
            default `(32, 32, 1)`. Without the classifier height and width may be None,
            and by default are.
        pooling: What follows where `include_top` is False: None for the feature maps as
            they are, `"avg"` or `"max"` for the mean or the maximum of each.
        classes: Int, the number of classes.
        classifier_activation: String or callable, the activation of the classifier;
            None for logits.
        name: String, the name of the model.
        layers: Module that layers are taken from. `keras.layers` makes the same model
            of stock layers.

    Returns:
        A Keras model.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> model = kconv.models.LeNet5()
    >>> model.count_params()
    61706

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document
    recognition", Proceedings of the IEEE 86, 1998.
    """
    frame = Frame(
        include_top,
        weights,
        input_tensor,
        input_shape,
        pooling,
        classes,
        classifier_activation,
        default_shape=(32, 32, 1),
        smallest=32,
        is_fixed=True,
    )
    x = layers.Conv2D(6, 5, activation="tanh", name="c1")(frame.image)
    x = layers.AveragePooling2D(2, name="s2")(x)
    x = layers.Conv2D(16, 5, activation="tanh", name="c3")(x)
    x = layers.AveragePooling2D(2, name="s4")(x)
    x = layers.Conv2D(120, 5, activation="tanh", name="c5")(x)
    if include_top:
        x = layers.Flatten(name="flatten")(x)
        x = layers.Dense(84, activation="tanh", name="f6")(x)
        x = layers.Dense(classes, activation=classifier_activation, name="predictions")(
            x
        )
    else:
        x = pooled(x, layers, pooling)
    return frame.model(x, name)
