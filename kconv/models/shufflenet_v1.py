"""ShuffleNet."""

from kconv import layers as kconv_layers
from kconv.models.checks import checked_blocks, checked_one_of
from kconv.models.frame import Frame, channel_axis, pooled
from kconv.models.parts import classified, conv, depthwise, stem

# Channels of stage 2, of half those of stage 3 and so on, by groups: the paper's
# table 1.
WIDTHS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}

# Channels of the stem by scale, those of the authors' own models: the paper tells of
# other scales only that channels are multiplied.
STEMS = {0.5: 12, 1.0: 24, 1.5: 24, 2.0: 48}


def ShuffleNetV1(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name="shufflenet_v1",
    *,
    scale=1.0,
    groups=3,
    blocks=(4, 8, 4),
    layers=kconv_layers,
):
    """Builds ShuffleNet, of pointwise convolutions in groups and shuffled channels.

    A unit has a pointwise convolution in groups to a quarter of the channels, a
    shuffle, a depthwise convolution and a pointwise one in groups, and its input is
    added; where it has a stride of 2, the mean over 3x3 pixels of its input is put
    beside instead. The very first pointwise convolution is in one group, for its input
    has few channels. Strides of 2 pad an image on both sides, as in PyTorch. Of
    1,865,728 trainable parameters 904,728 are left without the classifier.

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
        scale: Float, the width: 0.5, 1.0, 1.5 or 2.0. The groups must still divide all
            channels, as 1 and 3 do at any of these.
        groups: Int, the groups of pointwise convolutions: 1, 2, 3, 4 or 8. The more,
            the wider is the model, of about the same cost.
        blocks: Tuple of ints, the units of stages 2 to 4. Fewer make fewer stages.
        layers: Module that layers are taken from. `keras.layers` makes the same model
            of stock layers, but for the shuffle.

    Returns:
        A Keras model.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> model = kconv.models.ShuffleNetV1(groups=8, classes=10)
    >>> model.output_shape
    (None, 10)

    Source: Zhang, Zhou, Lin, Sun, "ShuffleNet: an extremely efficient convolutional
    neural network for mobile devices", CVPR 2018 (arXiv:1707.01083).
    """
    scale = checked_one_of("scale", scale, STEMS)
    groups = checked_one_of("groups", groups, WIDTHS)
    narrow, width = STEMS[scale], int(WIDTHS[groups] * scale)
    if width // 4 % groups or (width - narrow) % groups:
        raise ValueError(
            "`groups` must divide the channels, which at this scale are "
            f"{width // 4} and {width - narrow}. "
            f"Received: groups={groups}, scale={scale}"
        )
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
    x = stem(frame.image, layers, narrow, 3)
    for stage, units in enumerate(blocks, 2):
        for i in range(1, units + 1):
            before = 1 if (stage, i) == (2, 1) else groups
            strides = 2 if i == 1 else 1
            unit = f"stage{stage}_unit{i}"
            x = _unit(x, layers, width, (before, groups), strides, unit)
        width *= 2
    if include_top:
        x = classified(x, layers, classes, classifier_activation)
    else:
        x = pooled(x, layers, pooling)
    return frame.model(x, name)


def _unit(x, layers, filters, groups, strides, name):
    axis = channel_axis()
    before, after = groups
    added = filters if strides == 1 else filters - x.shape[axis]
    y = conv(x, layers, filters // 4, 1, f"{name}_reduce", groups=before)
    if after > 1:
        y = kconv_layers.ChannelShuffle(after, name=f"{name}_shuffle")(y)
    y = depthwise(y, layers, f"{name}_depthwise", strides=strides)
    y = conv(y, layers, added, 1, f"{name}_expand", groups=after, activation=None)
    if strides == 1:
        x = layers.Add(name=f"{name}_add")([x, y])
    else:
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
        x = layers.AveragePooling2D(3, 2, name=f"{name}_pool")(x)
        x = layers.Concatenate(axis=axis, name=f"{name}_concat")([x, y])
    return layers.Activation("relu", name=f"{name}_relu")(x)
