"""AlexNet."""

from kconv import layers as kconv_layers
from kconv.models.frame import Frame, pooled


def AlexNet(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name="alexnet",
    *,
    layers=kconv_layers,
):
    """Builds AlexNet in one tower, as Krizhevsky described it in 2014.

    It is the network of torchvision, and takes its weights, with two things to mind: a
    kernel has its axes in another order, and `fc6` takes the values of an image row by
    row, not channel by channel. The fourth convolution has 256 filters, as Krizhevsky's
    own code for one tower; the paper's footnote says 384. As in torchvision there is no
    local response normalization. Of its 61,100,840 parameters
    2,469,696 are left without the classifier.

    Convolutions and hidden layers begin with weights drawn as by He et al. 2015, for
    rectifiers.

    Args:
        include_top: Bool, whether the model ends with its classifier.
        weights: None, for random ones, or the path of a file to load them from.
        input_tensor: KerasTensor to begin with, such as `keras.Input` or a layer
            returns, or None.
        input_shape: Tuple of 3 ints, the shape of an image without the batch, in the
            order of `keras.config.image_data_format()`. At least 63x63 pixels; by
            default `(224, 224, 3)`. Without the classifier height and width may be
            None, and by default are. With 227x227 pixels the weights are the same.
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

    >>> model = kconv.models.AlexNet()
    >>> model.count_params()
    61100840

    Source: Krizhevsky, "One weird trick for parallelizing convolutional neural
    networks", 2014, of the network of Krizhevsky, Sutskever, Hinton, "ImageNet
    classification with deep convolutional neural networks", NIPS 2012.
    """
    frame = Frame(
        include_top,
        weights,
        input_tensor,
        input_shape,
        pooling,
        classes,
        classifier_activation,
        default_shape=(224, 224, 3),
        smallest=63,
        is_fixed=True,
    )
    rectified = {"activation": "relu", "kernel_initializer": "he_normal"}

    # "same" would pad 3 rows above and 4 below.
    x = layers.ZeroPadding2D(2, name="conv1_pad")(frame.image)
    x = layers.Conv2D(64, 11, strides=4, name="conv1", **rectified)(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    x = layers.Conv2D(192, 5, padding="same", name="conv2", **rectified)(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool2")(x)
    for i, filters in enumerate((384, 256, 256), start=3):
        x = layers.Conv2D(filters, 3, padding="same", name=f"conv{i}", **rectified)(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool5")(x)
    if include_top:
        x = layers.Flatten(name="flatten")(x)
        for i in (6, 7):
            x = layers.Dropout(0.5, name=f"drop{i}")(x)
            x = layers.Dense(4096, name=f"fc{i}", **rectified)(x)
        x = layers.Dense(classes, activation=classifier_activation, name="predictions")(
            x
        )
    else:
        x = pooled(x, layers, pooling)
    return frame.model(x, name)
