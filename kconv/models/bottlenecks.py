"""Residual networks of bottlenecks, which ResNeXt and SE-ResNet differ from little."""

from kconv.models.parts import conv, stem

# Channels that come out of the first stage; each stage after it has twice as many.
_FILTERS = 256


def trunk(x, layers, blocks, width, groups=1, refined=None, inner_of=None):
    """Builds the stem and the stages of a residual network.

    A bottleneck is a pointwise convolution, one of 3x3, which has the strides, and
    another pointwise one; its input, through a pointwise convolution where the shape
    differs, is added.

    Args:
        x: KerasTensor, the image.
        layers: Module, `kconv.layers` or `keras.layers`.
        blocks: Tuple of ints, the bottlenecks of each stage.
        width: Int, the channels of the 3x3 convolutions of the first stage; in each
            stage after it they are twice as many.
        groups: Int, the groups of the 3x3 convolutions.
        refined: None, or a function of a KerasTensor, what is about to be added, and a
            string, the prefix of names. It returns what is added in its place.
        inner_of: None, or a function of a stage, an int from 2 on. It returns what
            makes its 3x3 convolutions: a function of the arguments of `parts.conv`.

    Returns:
        A KerasTensor.
    """
    x = stem(x, layers, 64, 7)
    for stage, units in enumerate(blocks):
        for i in range(units):
            name = f"stage{stage + 2}_block{i + 1}"
            strides = 2 if i == 0 and stage > 0 else 1
            filters, inner = _FILTERS << stage, width << stage
            shortcut = x
            if i == 0:
                shortcut = conv(
                    x,
                    layers,
                    filters,
                    1,
                    f"{name}_shortcut",
                    strides=strides,
                    activation=None,
                )
            x = conv(x, layers, inner, 1, f"{name}_reduce")
            convolve = conv if inner_of is None else inner_of(stage + 2)
            x = convolve(
                x, layers, inner, 3, f"{name}_inner", strides=strides, groups=groups
            )
            x = conv(x, layers, filters, 1, f"{name}_expand", activation=None)
            if refined is not None:
                x = refined(x, name)
            x = layers.Add(name=f"{name}_add")([shortcut, x])
            x = layers.Activation("relu", name=f"{name}_relu")(x)
    return x
