"""ResNeXt."""

from kconv import layers as kconv_layers
from kconv.models.bottlenecks import trunk
from kconv.models.checks import checked_blocks, checked_positive
from kconv.models.frame import Frame, pooled
from kconv.models.parts import classified


def ResNeXt50(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name="resnext50",
    *,
    blocks=(3, 4, 6, 3),
    cardinality=32,
    width=4,
    layers=kconv_layers,
):
    """Builds ResNeXt-50 (32x4d), a residual network of convolutions in groups.

    The 3x3 convolution of a bottleneck is in `cardinality` groups, each of `width`
    channels in the first stage and of twice as many in each stage after it. Strides are
    those of the 3x3 convolutions, where the authors put them too, and pad an image on
    both sides, as in PyTorch. Of 25,028,904 trainable parameters 22,979,904 are left
    without the classifier.

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
            stages, `(3, 4, 23, 3)` makes ResNeXt-101.
        cardinality: Int, the groups of a 3x3 convolution.
        width: Int, the channels of a group in the first stage.
        layers: Module that layers are taken from. `keras.layers` makes the same model
            of stock layers.

    Returns:
        A Keras model.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> model = kconv.models.ResNeXt50(input_shape=(64, 64, 3), classes=10)
    >>> model.output_shape
    (None, 10)

    Source: Xie, Girshick, Dollár, Tu, He, "Aggregated residual transformations for deep
    neural networks", CVPR 2017 (arXiv:1611.05431).
    """
    blocks = checked_blocks(blocks, 4)
    cardinality = checked_positive("cardinality", cardinality)
    width = checked_positive("width", width)
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
    x = trunk(frame.image, layers, blocks, cardinality * width, cardinality)
    if include_top:
        x = classified(x, layers, classes, classifier_activation)
    else:
        x = pooled(x, layers, pooling)
    return frame.model(x, name)
