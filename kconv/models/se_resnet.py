"""SE-ResNet."""

from kconv import layers as kconv_layers
from kconv.models.bottlenecks import trunk
from kconv.models.checks import checked_blocks, checked_positive
from kconv.models.frame import Frame, pooled
from kconv.models.parts import classified


def SEResNet50(
    include_top=True,
    weights=None,
    input_tensor=None,
    input_shape=None,
    pooling=None,
    classes=1000,
    classifier_activation="softmax",
    name="se_resnet50",
    *,
    blocks=(3, 4, 6, 3),
    ratio=16,
    layers=kconv_layers,
):
    """Builds SE-ResNet-50, a residual network that weighs its channels.

    What each bottleneck adds goes through `kconv.layers.SqueezeExcite`. Strides are
    those of the 3x3 convolutions, as in torchvision's ResNet-50, where the authors, as
    those of ResNet, put them in the pointwise convolutions before; they pad an image on
    both sides, as in PyTorch. Of 28,088,024 trainable parameters 26,039,024 are left
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
            stages, `(3, 4, 23, 3)` makes SE-ResNet-101.
        ratio: Int, that of `kconv.layers.SqueezeExcite`.
        layers: Module that layers are taken from. `keras.layers` makes the same model
            of stock layers, but for `kconv.layers.SqueezeExcite`, which is made of
            stock layers itself.

    Returns:
        A Keras model.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> model = kconv.models.SEResNet50(input_shape=(64, 64, 3), classes=10)
    >>> model.output_shape
    (None, 10)

    Source: Hu, Shen, Albanie, Sun, Wu, "Squeeze-and-excitation networks", CVPR 2018
    (arXiv:1709.01507).
    """
    blocks = checked_blocks(blocks, 4)
    ratio = checked_positive("ratio", ratio)
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

    def excited(x, name):
        return kconv_layers.SqueezeExcite(ratio, name=f"{name}_se")(x)

    x = trunk(frame.image, layers, blocks, 64, refined=excited)
    if include_top:
        x = classified(x, layers, classes, classifier_activation)
    else:
        x = pooled(x, layers, pooling)
    return frame.model(x, name)
