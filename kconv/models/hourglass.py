"""Stacked hourglass networks."""

from kconv import layers as kconv_layers
from kconv.models.checks import checked_positive
from kconv.models.frame import Frame, channel_axis, normalized, pooled


def StackedHourglass(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=16,
    classifier_activation=None,
    name="stacked_hourglass",
    *,
    stacks=8,
    channels=256,
    blocks=1,
    order=4,
    layers=kconv_layers,
):
    """Builds a stack of hourglasses, which tell where the joints of a body are.

    A stem takes the image to a fourth of its height and width. Each hourglass halves
    that `order` times and comes back by nearest neighbours, with a branch beside every
    size. It predicts a map for each joint, how likely it is where; all but the last
    add their features and their maps, by 1x1 convolutions, to what the next one takes.

    With the defaults, of the authors' code, there are 25,434,112 trainable parameters;
    with `stacks=2`, 6,570,400.

    Convolutions begin with weights drawn as by He et al. 2015, for rectifiers.

    Args:
        include_top: Bool, whether the model ends with the maps of all its hourglasses,
            and not with the features that the last one predicts from.
        weights: None, for random ones, or the path of a file to load them from.
        input_tensor: KerasTensor to begin with, such as `keras.Input` or a layer
            returns, or None.
        input_shape: Tuple of 3 ints, the shape of an image without the batch, in the
            order of `keras.config.image_data_format()`. Height and width are multiples
            of `4 * 2**order`, or None; by default `(256, 256, 3)`. Without the maps
            height and width are None by default.
        pooling: What follows where `include_top` is False: None for the feature maps as
            they are, `"avg"` or `"max"` for the mean or the maximum of each.
        classes: Int, the number of maps; 16 for the joints of MPII Human Pose.
        classifier_activation: String or callable, the activation of the maps, by
            default None, for the loss of the paper is the mean squared error. The next
            hourglass takes the maps without it.
        name: String, the name of the model.
        stacks: Int, the number of hourglasses.
        channels: Int, even, the number of channels in the hourglasses.
        blocks: Int, the number of residual blocks in a row, wherever the hourglasses
            have some.
        order: Int, how often an hourglass halves height and width.
        layers: Module that layers are taken from. `keras.layers` makes the same model
            of stock layers.

    Returns:
        A Keras model. Its outputs are a list of `stacks` tensors of shape
        `(batch, height / 4, width / 4, classes)`, the last hourglass's last; of one
        hourglass, and with `include_top=False`, it is a tensor. In training each is
        held against the same target.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> model = kconv.models.StackedHourglass(stacks=2)
    >>> [maps.shape for maps in model.outputs]
    [(None, 64, 64, 16), (None, 64, 64, 16)]

    Source: Newell, Yang, Deng, "Stacked hourglass networks for human pose estimation",
    ECCV 2016, in the details the authors' code (github.com/princeton-vl/pose-hg-train,
    `src/models/hg.lua`).
    """
    stacks = checked_positive("stacks", stacks)
    channels = checked_positive("channels", channels)
    blocks = checked_positive("blocks", blocks)
    order = checked_positive("order", order)
    if channels % 2:
        raise ValueError(f"`channels` must be even. Received: channels={channels!r}")
    least = 4 * 2**order
    frame = Frame(
        include_top,
        weights,
        input_tensor,
        input_shape,
        pooling,
        classes,
        classifier_activation,
        default_shape=(256, 256, 3),
        smallest=least,
    )
    shape = tuple(frame.image.shape)
    size = shape[2:] if channel_axis() == 1 else shape[1:-1]
    if any(n is not None and n % least for n in size):
        raise ValueError(
            f"Height and width must be multiples of {least}. "
            f"Received: input_shape={shape[1:]}"
        )

    # "same" would pad 2 rows above and 3 below.
    x = layers.ZeroPadding2D(3, name="stem_conv_pad")(frame.image)
    x = _conv(x, layers, 64, 7, "stem_conv", strides=2, padding="valid")
    x = normalized(x, layers, "stem_conv", "relu")
    x = residual(x, layers, 128, "stem_residual1")
    x = layers.MaxPooling2D(2, name="stem_pool")(x)
    x = residual(x, layers, 128, "stem_residual2")
    x = residual(x, layers, channels, "stem_residual3")

    outputs = []
    for i in range(1, stacks + 1):
        prefix = f"stack{i}"
        y = hourglass(x, layers, channels, blocks, order, f"{prefix}_hourglass")
        y = _residuals(y, layers, channels, blocks, f"{prefix}_residual")
        y = _conv(y, layers, channels, 1, f"{prefix}_features")
        y = normalized(y, layers, f"{prefix}_features", "relu")
        if i == stacks and not include_top:
            return frame.model(pooled(y, layers, pooling), name)
        maps = layers.Conv2D(classes, 1, name=f"{prefix}_maps")(y)
        if classifier_activation is None:
            outputs.append(maps)
        else:
            outputs.append(
                layers.Activation(classifier_activation, name=f"{prefix}_predictions")(
                    maps
                )
            )
        if i < stacks:
            again = [
                layers.Conv2D(channels, 1, name=f"{prefix}_{part}_again")(value)
                for part, value in (("features", y), ("maps", maps))
            ]
            x = layers.Add(name=f"{prefix}_add")([x, *again])
    return frame.model(outputs, name)


def hourglass(x, layers, channels, blocks, order, name):
    """Adds an hourglass: down to small maps and up again, with a branch at each size.

    Args:
        x: KerasTensor of `channels` channels, of height and width that are multiples of
            `2 ** order`.
        layers: Module, `kconv.layers` or `keras.layers`.
        channels: Int, the number of channels.
        blocks: Int, the number of residual blocks in a row.
        order: Int, how often height and width are halved.
        name: String, the prefix of the names of the layers.

    Returns:
        A KerasTensor of the shape of `x`.

    Source: Newell, Yang, Deng, "Stacked hourglass networks for human pose estimation",
    ECCV 2016, figure 3.
    """
    prefix = f"{name}_{order}"
    beside = _residuals(x, layers, channels, blocks, f"{prefix}_beside")
    low = layers.MaxPooling2D(2, name=f"{prefix}_pool")(x)
    low = _residuals(low, layers, channels, blocks, f"{prefix}_down")
    if order > 1:
        low = hourglass(low, layers, channels, blocks, order - 1, name)
    else:
        low = _residuals(low, layers, channels, blocks, f"{prefix}_middle")
    low = _residuals(low, layers, channels, blocks, f"{prefix}_up")
    low = layers.UpSampling2D(2, interpolation="nearest", name=f"{prefix}_upsample")(
        low
    )
    return layers.Add(name=f"{prefix}_add")([beside, low])


def residual(x, layers, filters, name):
    """Adds a residual bottleneck that is normalized and rectified before convolutions.

    Args:
        x: KerasTensor.
        layers: Module, `kconv.layers` or `keras.layers`.
        filters: Int, even, the number of channels of the result; the 3x3 convolution
            has half as many.
        name: String, the prefix of the names of the layers.

    Returns:
        A KerasTensor.

    Source: He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", ECCV
    2016, with the widths of Newell, Yang, Deng, figure 4.
    """
    y = x
    for i, (width, size) in enumerate(
        ((filters // 2, 1), (filters // 2, 3), (filters, 1)), start=1
    ):
        y = normalized(y, layers, f"{name}_{i}", "relu")
        y = _conv(y, layers, width, size, f"{name}_{i}_conv")
    if x.shape[channel_axis()] != filters:
        x = _conv(x, layers, filters, 1, f"{name}_skip_conv")
    return layers.Add(name=f"{name}_add")([x, y])


def _residuals(x, layers, filters, blocks, name):
    for i in range(1, blocks + 1):
        x = residual(x, layers, filters, f"{name}{i}")
    return x


def _conv(x, layers, filters, size, name, padding="same", **options):
    return layers.Conv2D(
        filters,
        size,
        padding=padding,
        kernel_initializer="he_normal",
        name=name,
        **options,
    )(x)
