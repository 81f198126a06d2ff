"""Deformable convolution."""

import keras
import tensorflow as tf

from kconv import deformation
from kconv.deformation import deform_spec
from kconv.epilogue import LINEAR, Epilogue
from kconv.ops.checks import check_activation, check_bias, check_dtypes
from kconv.ops.operation import ConvOperation, read_operands
from kconv.spec import plain

_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


@keras.saving.register_keras_serializable(package="kconv")
class DeformConv(ConvOperation):
    """`kconv.ops.deform_conv` as a node of a Functional model.

    Args:
        strides: As in `kconv.ops.deform_conv`.
        padding: As in `kconv.ops.deform_conv`.
        data_format: As in `kconv.ops.deform_conv`.
        dilation_rate: As in `kconv.ops.deform_conv`.
        offset_groups: As in `kconv.ops.deform_conv`.
        activation: As in `kconv.ops.deform_conv`.
        name: String, the name of the node.

    Raises:
        ValueError: If `activation` is unknown; when called, as
            `kconv.ops.deform_conv`.

    Example:

    >>> x, offsets = keras.Input((10, 10, 32)), keras.Input((8, 8, 18))
    >>> kernel = np.random.rand(3, 3, 32, 64).astype("float32")
    >>> y = kconv.ops.DeformConv()(x, kernel, offsets)
    >>> y.shape
    (None, 8, 8, 64)
    """

    def __init__(
        self,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        offset_groups=1,
        activation=None,
        *,
        name=None,
    ):
        super().__init__(
            strides,
            padding,
            data_format,
            dilation_rate,
            activation=activation,
            name=name,
        )
        self.offset_groups = plain(offset_groups)

    @property
    def arguments(self):
        """What the function takes beside tensors and the activation, by name."""
        arguments = {**super().arguments, "offset_groups": self.offset_groups}
        del arguments["algorithm"]  # there is one only
        return arguments

    def call(self, inputs, kernel, offsets, mask=None, bias=None):
        """Computes the convolution of tensors, with mask and bias if there are any."""
        return deform_conv(
            inputs,
            kernel,
            offsets,
            mask,
            **self.arguments,
            bias=bias,
            activation=self.activation,
        )

    def compute_output_spec(self, inputs, kernel, offsets, mask=None, bias=None):
        """Returns a KerasTensor of the output's shape and dtype."""
        spec = _checked(inputs, kernel, offsets, mask, bias, self.arguments)
        shape = spec.conv.output_shape(tuple(inputs.shape), tuple(kernel.shape))
        return keras.KerasTensor(shape, dtype=inputs.dtype)


@tf.autograph.experimental.do_not_convert
def deform_conv(
    inputs,
    kernel,
    offsets,
    mask=None,
    strides=1,
    padding="valid",
    data_format=None,
    dilation_rate=1,
    offset_groups=1,
    bias=None,
    activation=None,
):
    """Convolves in two dimensions, each tap reading where an offset moves it.

    For the output (i, j) the tap (p, q) of a kernel reads its channels at the place

        y = i * strides[0] - top + p * dilation_rate[0] + dy
        x = j * strides[1] - left + q * dilation_rate[1] + dx

    between four pixels by their distance (bilinearly), outside the image as zero, and
    multiplies what it reads by the value of the mask for that tap. With offsets of zero
    and no mask this is `kconv.ops.conv`. It is torchvision's `deform_conv2d` with the
    channels last; `kconv.conversion.deformable_weights` brings weights over. The
    channels may come in groups, as in `kconv.ops.conv`.

    A place that is an infinity or far outside reads zero, and all gradients through it
    are zero. One that is NaN makes NaN of the outputs that read it. A NaN or infinity
    of the input spoils the outputs that read it with a weight other than zero.
    Derivatives by the offsets are those of the cell between four pixels that a place
    lies in, at a whole number of the cell after it.

    There are first derivatives only: kconv's op raises NotImplementedError where a
    second one, or forward mode, is asked for. In a function that XLA compiles, where a
    GPU is visible (unless `KCONV_GPU=1`), and where kconv's op library is missing,
    TensorFlow's ops do the work, and have the others too.

    Args:
        inputs: Tensor of a floating dtype, of shape `(batch, height, width, channels)`
            with `data_format="channels_last"`, or `(batch, channels, height, width)`
            with `data_format="channels_first"`.
        kernel: Tensor of the dtype of `inputs`, of shape
            `(*kernel_size, channels // groups, filters)` in both data formats.
            `filters` must be a multiple of `groups`.
        offsets: Tensor of the dtype of `inputs`, of the shape of the output but with
            `2 * offset_groups * taps` channels, in pixels. Of `t = group * taps + tap`,
            taps counted row by row, channel `2 * t` holds dy and `2 * t + 1` dx.
        mask: Tensor of the dtype of `inputs`, of the shape of the output but with
            `offset_groups * taps` channels, of which channel t is that of offsets
            `2 * t` and `2 * t + 1`; or None for ones.
        strides: Positive int, or one for each spatial dimension.
        padding: `"valid"`, `"same"` or a pair of ints (before, after) for each spatial
            dimension, as in `kconv.ops.conv`: they say how many outputs there are and
            where the first one is. What is read outside the image is zero anyway.
        data_format: `"channels_last"`, `"channels_first"`, of all images alike, or
            None, which takes `keras.config.image_data_format()`.
        dilation_rate: Positive int, or one for each spatial dimension; may be combined
            with strides.
        offset_groups: Int, the parts that the channels of `inputs` fall into, one after
            the other, each with offsets and a mask of its own. It divides the channels.
        bias: Tensor of the dtype of `inputs`, of shape `(filters,)`, to be added to
            the channels of the output; or None.
        activation: `"relu"` or `"relu6"`, to be applied last; `"linear"` or None for
            none.

    Returns:
        A tensor of the dtype of `inputs`, of the shape that `kconv.ops.conv` returns.

    Raises:
        ValueError: If an argument is wrong, or if shapes or dtypes do not fit.

    Example:

    >>> x = np.random.rand(4, 10, 10, 32).astype("float32")
    >>> kernel = np.random.rand(3, 3, 32, 64).astype("float32")
    >>> offsets = np.random.randn(4, 10, 10, 18).astype("float32")
    >>> y = kconv.ops.deform_conv(x, kernel, offsets, padding="same")
    >>> y.shape
    TensorShape([4, 10, 10, 64])

    Source:
        Dai, Qi, Xiong, Li, Zhang, Hu, Wei, "Deformable convolutional networks", 2017;
        the mask: Zhu, Hu, Lin, Dai, "Deformable ConvNets v2: more deformable, better
        results", 2018.
    """
    arguments = {
        "strides": strides,
        "padding": padding,
        "data_format": data_format,
        "dilation_rate": dilation_rate,
        "offset_groups": offset_groups,
    }
    inputs, kernel, offsets, mask, bias, output = read_operands(
        DeformConv,
        (*arguments.values(), activation),
        {"mask": mask, "bias": bias},
        inputs=inputs,
        kernel=kernel,
        offsets=offsets,
    )
    if output is not None:
        return output
    check_activation(activation)
    spec = _checked(inputs, kernel, offsets, mask, bias, arguments)
    epilogue = Epilogue(bias, activation or LINEAR)
    operands = inputs, kernel, offsets, mask
    if spec.conv.data_format == "channels_last":
        return deformation.deform_conv(spec, *operands, epilogue)
    inputs, offsets, mask = (
        None if image is None else tf.transpose(image, _TO_LAST)
        for image in (inputs, offsets, mask)
    )
    outputs = deformation.deform_conv(spec, inputs, kernel, offsets, mask, epilogue)
    return tf.transpose(outputs, _TO_FIRST)


def _checked(inputs, kernel, offsets, mask, bias, arguments):
    """Checks operands; returns a `DeformSpec`."""
    check_dtypes(inputs, kernel)
    check_dtypes(inputs, offsets, "offsets")
    if mask is not None:
        check_dtypes(inputs, mask, "mask")
    shapes = (
        None if one is None else tuple(one.shape)
        for one in (inputs, kernel, offsets, mask)
    )
    spec = deform_spec(*shapes, **arguments)
    if bias is not None:
        check_bias(bias, inputs, kernel.shape[-1])
    return spec
