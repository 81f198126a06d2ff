"""ResNet with deformable convolutions."""

from kconv import layers as kconv_layers
from kconv.models.bottlenecks import trunk
from kconv.models.checks import checked_blocks
from kconv.models.frame import Frame, normalized, pooled
from kconv.models.parts import classified, conv


def DeformableResNet50(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name="deformable_resnet50",
    *,
    blocks=(3, 4, 6, 3),
    modulated=False,
    layers=kconv_layers,
):
    """Builds a ResNet-50 whose 3x3 convolutions are deformable, but for one stage.

    Those of stages 3 to 5, which are conv3_x to conv5_x of the paper, are
    `kconv.layers.DeformableConv2D`, each with an offset branch of its own. Strides are
    those of the 3x3 convolutions, as in torchvision's ResNet-50, and pad an image on
    both sides. Of 26,137,874 trainable parameters, with `modulated=True` 26,428,295,
    2,049,000 are the classifier's. To begin with trained weights of a ResNet-50, leave
    the offset branches as they are: they begin with zeros.

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
        blocks: Tuple of ints, the bottlenecks of stages 2 to 5. Fewer make fewer
            stages, `(3, 4, 23, 3)` makes a ResNet-101.
        modulated: Bool, whether taps are weighed besides, as in version 2.
        layers: Module that layers are taken from. `keras.layers` makes the same model
            of stock layers, but for `kconv.layers.DeformableConv2D`.

    Returns:
        A Keras model.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> model = kconv.models.DeformableResNet50(input_shape=(64, 64, 3), classes=10)
    >>> model.output_shape
    (None, 10)

    Source: Zhu, Hu, Lin, Dai, "Deformable ConvNets v2: more deformable, better
    results", CVPR 2019 (arXiv:1811.11168), section 3.1.
    """
    blocks = checked_blocks(blocks, 4)
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

    def deformed(x, layers, filters, size, name, *, strides, groups):
        x = kconv_layers.DeformableConv2D(
            filters,
            size,
            strides=strides,
            padding=((size // 2,) * 2,) * 2,
            groups=groups,
            modulated=modulated,
            use_bias=False,
            name=f"{name}_conv",
        )(x)
        return normalized(x, layers, name, "relu")

    def inner_of(stage):
        return conv if stage == 2 else deformed

    x = trunk(frame.image, layers, blocks, 64, inner_of=inner_of)
    if include_top:
        x = classified(x, layers, classes, classifier_activation)
    else:
        x = pooled(x, layers, pooling)
    return frame.model(x, name)
