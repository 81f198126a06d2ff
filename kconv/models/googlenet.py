"""GoogLeNet, also known as Inception v1."""

from kconv import layers as kconv_layers
from kconv.models.frame import Frame, channel_axis, normalized, pooled

# Name -> filters: 1x1; 1x1 before 3x3, 3x3; 1x1 before 5x5, 5x5; 1x1 after pooling.
MODULES = {
    "3a": (64, (96, 128), (16, 32), 32),
    "3b": (128, (128, 192), (32, 96), 64),
    "4a": (192, (96, 208), (16, 48), 64),
    "4b": (160, (112, 224), (24, 64), 64),
    "4c": (128, (128, 256), (24, 64), 64),
    "4d": (112, (144, 288), (32, 64), 64),
    "4e": (256, (160, 320), (32, 128), 128),
    "5a": (256, (160, 320), (32, 128), 128),
    "5b": (384, (192, 384), (48, 128), 128),
}


def GoogLeNet(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name="googlenet",
    *,
    batch_normalization=False,
    auxiliary_heads=False,
    layers=kconv_layers,
):
    """Builds GoogLeNet, nine Inception modules in a row.

    As published it has biases and local response normalization; its 6,998,552
    parameters are those of Caffe's `bvlc_googlenet`, whose weights fit. With
    `batch_normalization=True` every convolution is normalized over the batch instead
    and has no bias, as in later descriptions; 7,005,832 parameters are trained then.
    The 5x5 convolutions are 5x5 (torchvision's are 3x3).

    Poolings between the modules are 3x3, with stride 2 and padding "same". The paper's
    table 1 halves 112, 56, 28 and 14 exactly, which takes a last window that reaches
    over the lower and right border; Caffe has it by rounding sizes up. Of images whose
    sizes are odd on the way the two do not make the same.

    Convolutions and hidden layers begin with weights drawn as by He et al. 2015, for
    rectifiers. The paper does not give the constants of the local response
    normalization, which are those of `bvlc_googlenet`.

    Args:
        include_top: Bool, whether the model ends with its classifier.
        weights: None, for random ones, or the path of a file to load them from.
        input_tensor: KerasTensor to begin with, such as `keras.Input` or a layer
            returns, or None.
        input_shape: Tuple of 3 ints, the shape of an image without the batch, in the
            order of `keras.config.image_data_format()`. At least 32x32 pixels, 65x65
            with auxiliary heads; by default `(224, 224, 3)`. Height and width may be
            None unless there are auxiliary heads; without the classifier they are by
            default.
        pooling: What follows where `include_top` is False: None for the feature maps as
            they are, `"avg"` or `"max"` for the mean or the maximum of each.
        classes: Int, the number of classes.
        classifier_activation: String or callable, the activation of the classifiers;
            None for logits.
        name: String, the name of the model.
        batch_normalization: Bool, whether convolutions are normalized over the batch.
        auxiliary_heads: Bool, whether to have two more classifiers, on modules 4a and
            4d. The model's outputs are a list then: the classifier, 4a's and 4d's. The
            paper weighs their losses 1, 0.3 and 0.3, and leaves the heads out when the
            network is trained.
        layers: Module that layers are taken from. `keras.layers` makes the same model
            of stock layers, but for the local response normalization, which Keras
            lacks.

    Returns:
        A Keras model.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> model = kconv.models.GoogLeNet(auxiliary_heads=True)
    >>> model.compile("sgd", ["categorical_crossentropy"] * 3, [1.0, 0.3, 0.3])

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015; Ioffe, Szegedy,
    "Batch normalization", ICML 2015, for `batch_normalization=True`.
    """
    if auxiliary_heads and not include_top:
        raise ValueError(
            "`auxiliary_heads=True` needs `include_top=True`: the heads are "
            f"classifiers. Received: include_top={include_top!r}"
        )
    frame = Frame(
        include_top,
        weights,
        input_tensor,
        input_shape,
        pooling,
        classes,
        classifier_activation,
        default_shape=(224, 224, 3),
        smallest=65 if auxiliary_heads else 32,
        is_fixed=bool(auxiliary_heads),
    )

    def convolution(x, filters, size, name, **options):
        return _convolution(
            x, layers, batch_normalization, filters, size, name, **options
        )

    def pool(x, name):
        return layers.MaxPooling2D(3, strides=2, padding="same", name=name)(x)

    def response_normalized(x, name):
        if batch_normalization:
            return x
        # Caffe divides alpha, 1e-4, by the 5 channels of a window.
        return kconv_layers.LocalResponseNormalization(
            depth_radius=2, bias=1.0, alpha=2e-5, beta=0.75, name=name
        )(x)

    # "same" would pad 2 rows above and 3 below.
    x = layers.ZeroPadding2D(3, name="conv1_pad")(frame.image)
    x = convolution(x, 64, 7, "conv1", strides=2, padding="valid")
    x = response_normalized(pool(x, "pool1"), "lrn1")
    x = convolution(x, 64, 1, "conv2_reduce")
    x = convolution(x, 192, 3, "conv2")
    x = pool(response_normalized(x, "lrn2"), "pool2")
    heads = []
    for module, filters in MODULES.items():
        if module in ("4a", "5a"):
            x = pool(x, f"pool{int(module[0]) - 1}")
        x = inception(x, layers, filters, f"inception_{module}", batch_normalization)
        if auxiliary_heads and module in ("4a", "4d"):
            heads.append((module, x))

    if not include_top:
        return frame.model(pooled(x, layers, pooling), name)
    x = pooled(x, layers, "avg")
    x = layers.Dropout(0.4, name="dropout")(x)
    outputs = [
        layers.Dense(classes, activation=classifier_activation, name="predictions")(x)
    ]
    for module, y in heads:
        prefix = f"auxiliary_{module}"
        y = layers.AveragePooling2D(5, strides=3, name=f"{prefix}_pool")(y)
        y = convolution(y, 128, 1, f"{prefix}_conv")
        y = layers.Flatten(name=f"{prefix}_flatten")(y)
        y = layers.Dense(
            1024,
            activation="relu",
            kernel_initializer="he_normal",
            name=f"{prefix}_fc",
        )(y)
        y = layers.Dropout(0.7, name=f"{prefix}_dropout")(y)
        y = layers.Dense(
            classes, activation=classifier_activation, name=f"{prefix}_predictions"
        )(y)
        outputs.append(y)
    return frame.model(outputs if auxiliary_heads else outputs[0], name)


def inception(x, layers, filters, name, batch_normalization=False):
    """Adds an Inception module: convolutions of three sizes and a pooling, abreast.

    Args:
        x: KerasTensor.
        layers: Module, `kconv.layers` or `keras.layers`.
        filters: Tuple `(n1, (r3, n3), (r5, n5), p)` of ints: the filters of the 1x1
            branch, of the 1x1 convolution and the 3x3 after it, of the 1x1 and the 5x5
            after it, and of the 1x1 after the pooling.
        name: String, the prefix of the names of the layers.
        batch_normalization: Bool, whether convolutions are normalized over the batch.

    Returns:
        A KerasTensor, of `n1 + n3 + n5 + p` channels.

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015, figure 2b.
    """

    def convolution(x, filters, size, part):
        return _convolution(
            x, layers, batch_normalization, filters, size, f"{name}_{part}"
        )

    n1, (r3, n3), (r5, n5), p = filters
    pool = layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_pool")(x)
    branches = [
        convolution(x, n1, 1, "1x1"),
        convolution(convolution(x, r3, 1, "3x3_reduce"), n3, 3, "3x3"),
        convolution(convolution(x, r5, 1, "5x5_reduce"), n5, 5, "5x5"),
        convolution(pool, p, 1, "pool_proj"),
    ]
    return layers.Concatenate(axis=channel_axis(), name=name)(branches)


def _convolution(
    x, layers, batch_normalization, filters, size, name, strides=1, padding="same"
):
    """Convolves and rectifies, with a bias or normalized over the batch."""
    x = layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding=padding,
        use_bias=not batch_normalization,
        activation=None if batch_normalization else "relu",
        kernel_initializer="he_normal",
        name=name,
    )(x)
    return normalized(x, layers, name, "relu") if batch_normalization else x
