"""ShuffleNet V2."""

import keras

from kconv import layers as kconv_layers
from kconv.models.checks import checked_blocks, checked_one_of
from kconv.models.frame import Frame, channel_axis, pooled
from kconv.models.parts import classified, conv, depthwise, stem

# Channels of stages 2 to 4 and of the last convolution, by scale: the paper's table 5.
WIDTHS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}


def ShuffleNetV2(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name="shufflenet_v2",
    *,
    scale=1.0,
    blocks=(4, 8, 4),
    layers=kconv_layers,
):
    """Builds ShuffleNet V2, which convolves half of the channels and shuffles them.

    A unit leaves one half of its channels as it is and sends the other through a
    pointwise, a depthwise and a pointwise convolution; the halves are put side by side
    and shuffled. The first unit of a stage, of stride 2, has a branch in the place of
    either half. Strides of 2 pad an image on both sides, as in PyTorch. Of 2,278,604
    trainable parameters 1,253,604 are left without the classifier.

    Args:
        include_top: Bool, whether the model ends with its classifier.
        weights: None, for random ones, or the path of a file to load them from.
        input_tensor: KerasTensor to begin with, such as `keras.Input` or a layer
            returns, or None.
        input_shape: Tuple of 3 ints, the shape of an image without the batch, in the
            order of `keras.config.image_data_format()`. At least 32x32 pixels; by
            default `(224, 224, 3)`. Height and width may be None, and without the
            classifier by default are.
        pooling: What follows where `include_top` is False: None for the feature maps as
            they are, `"avg"` or `"max"` for the mean or the maximum of each.
        classes: Int, the number of classes.
        classifier_activation: String or callable, the activation of the classifier;
            None for logits.
        name: String, the name of the model.
        scale: Float, the width: 0.5, 1.0, 1.5 or 2.0.
        blocks: Tuple of ints, the units of stages 2 to 4. Fewer make fewer stages.
        layers: Module that layers are taken from. `keras.layers` makes the same model
            of stock layers, but for the shuffle.

    Returns:
        A Keras model.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> model = kconv.models.ShuffleNetV2(scale=0.5, classes=10)
    >>> model.output_shape
    (None, 10)

    Source: Ma, Zhang, Zheng, Sun, "ShuffleNet V2: practical guidelines for efficient
    CNN architecture design", ECCV 2018 (arXiv:1807.11164).
    """
    scale = checked_one_of("scale", scale, WIDTHS)
    blocks = checked_blocks(blocks, 3)
    frame = Frame(
        include_top,
        weights,
        input_tensor,
        input_shape,
        pooling,
        classes,
        classifier_activation,
        default_shape=(224, 224, 3),
        smallest=32,
    )
    *widths, last = WIDTHS[scale]
    x = stem(frame.image, layers, 24, 3)
    for stage, (units, filters) in enumerate(zip(blocks, widths, strict=False), 2):
        x = _strided_unit(x, layers, filters, f"stage{stage}_unit1")
        for i in range(2, units + 1):
            x = _unit(x, layers, f"stage{stage}_unit{i}")
    x = conv(x, layers, last, 1, "last")
    if include_top:
        x = classified(x, layers, classes, classifier_activation)
    else:
        x = pooled(x, layers, pooling)
    return frame.model(x, name)


def _unit(x, layers, name):
    left, right = keras.ops.split(x, 2, axis=channel_axis())
    filters = right.shape[channel_axis()]
    right = conv(right, layers, filters, 1, f"{name}_reduce")
    right = depthwise(right, layers, f"{name}_depthwise")
    right = conv(right, layers, filters, 1, f"{name}_expand")
    return _joined(left, right, layers, name)


def _strided_unit(x, layers, filters, name):
    left = depthwise(x, layers, f"{name}_left_depthwise", strides=2)
    left = conv(left, layers, filters // 2, 1, f"{name}_left")
    right = conv(x, layers, filters // 2, 1, f"{name}_reduce")
    right = depthwise(right, layers, f"{name}_depthwise", strides=2)
    right = conv(right, layers, filters // 2, 1, f"{name}_expand")
    return _joined(left, right, layers, name)


def _joined(left, right, layers, name):
    x = layers.Concatenate(axis=channel_axis(), name=f"{name}_concat")([left, right])
    return kconv_layers.ChannelShuffle(2, name=f"{name}_shuffle")(x)
