"""What networks for images of 224x224 pixels share, padded as PyTorch pads."""

from kconv.models.frame import normalized


def conv(x, layers, filters, size, name, *, strides=1, groups=1, activation="relu"):
    """Convolves, normalizes and applies an activation.

    An image is padded by `size // 2` on each side, also with strides, where `"same"` of
    Keras would pad it less in front.

    Args:
        x: KerasTensor.
        layers: Module, `kconv.layers` or `keras.layers`.
        filters: Int, the channels that come out.
        size: Int, odd, the height and width of the kernel.
        name: String, the prefix of the names of the layers.
        strides: Int, along height and width.
        groups: Int.
        activation: String or None.

    Returns:
        A KerasTensor.
    """
    x, padding = _padded(x, layers, size, name, strides)
    x = layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding=padding,
        groups=groups,
        use_bias=False,
        name=f"{name}_conv",
    )(x)
    return normalized(x, layers, name, activation)


def depthwise(x, layers, name, *, strides=1):
    """Convolves each channel with a kernel of 3x3 of its own, and normalizes.

    Args:
        x: KerasTensor.
        layers: Module, `kconv.layers` or `keras.layers`.
        name: String, the prefix of the names of the layers.
        strides: Int, along height and width.

    Returns:
        A KerasTensor.
    """
    x, padding = _padded(x, layers, 3, name, strides)
    x = layers.DepthwiseConv2D(
        3, strides=strides, padding=padding, use_bias=False, name=f"{name}_conv"
    )(x)
    return normalized(x, layers, name)


def stem(x, layers, filters, size):
    """Begins a network: a convolution and a maximum, both of stride 2.

    Args:
        x: KerasTensor, the image.
        layers: Module, `kconv.layers` or `keras.layers`.
        filters: Int, the channels that come out.
        size: Int, odd, the height and width of the kernel.

    Returns:
        A KerasTensor, of a quarter of the height and width.
    """
    x = conv(x, layers, filters, size, "stem", strides=2)
    # Zeros do not change the maximum of what an activation left.
    x = layers.ZeroPadding2D(1, name="pool_pad")(x)
    return layers.MaxPooling2D(3, 2, name="pool")(x)


def classified(x, layers, classes, activation):
    """Ends a network: the mean of each feature map, and a dense layer.

    Args:
        x: KerasTensor.
        layers: Module, `kconv.layers` or `keras.layers`.
        classes: Int.
        activation: String, callable or None.

    Returns:
        A KerasTensor.
    """
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return layers.Dense(classes, activation=activation, name="predictions")(x)


def _padded(x, layers, size, name, strides):
    """Returns an image and the `padding` that is left to the layer after it."""
    if strides == 1 or size == 1:
        return x, "same"
    return layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x), "valid"
