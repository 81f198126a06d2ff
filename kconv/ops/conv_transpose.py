"""Transposed convolution."""

import keras
import tensorflow as tf

from kconv import dispatch
from kconv.dispatch import check_algorithm
from kconv.epilogue import LINEAR, Epilogue
from kconv.operands import Outline
from kconv.ops.checks import check_activation, check_bias, check_dtypes
from kconv.ops.operation import ConvOperation, read_operands
from kconv.spec import plain
from kconv.transposition import transpose_spec

_PLACES = "filter of `kernel`, its last axis but one times the groups"


@keras.saving.register_keras_serializable(package="kconv")
class ConvTranspose(ConvOperation):
    """`kconv.ops.conv_transpose` as a node of a Functional model.

    Args:
        strides: As in `kconv.ops.conv_transpose`.
        padding: As in `kconv.ops.conv_transpose`.
        output_padding: As in `kconv.ops.conv_transpose`.
        data_format: As in `kconv.ops.conv_transpose`.
        dilation_rate: As in `kconv.ops.conv_transpose`.
        groups: As in `kconv.ops.conv_transpose`.
        algorithm: As in `kconv.ops.conv_transpose`.
        activation: As in `kconv.ops.conv_transpose`.
        name: String, the name of the node.

    Raises:
        ValueError: If `algorithm` or `activation` is unknown; when called, as
            `kconv.ops.conv_transpose`.

    Example:

    >>> x = keras.Input((10, 10, 128))
    >>> kernel = np.random.rand(4, 4, 64, 128).astype("float32")
    >>> y = kconv.ops.ConvTranspose(strides=2, padding="same")(x, kernel)
    >>> y.shape
    (None, 20, 20, 64)
    """

    def __init__(
        self,
        strides=1,
        padding="valid",
        output_padding=None,
        data_format=None,
        dilation_rate=1,
        groups=1,
        algorithm="auto",
        activation=None,
        *,
        name=None,
    ):
        super().__init__(
            strides,
            padding,
            data_format,
            dilation_rate,
            algorithm,
            activation,
            name=name,
        )
        self.output_padding = plain(output_padding)
        self.groups = plain(groups)

    @property
    def arguments(self):
        """What the function takes beside tensors and the activation, by name."""
        return {
            **super().arguments,
            "output_padding": self.output_padding,
            "groups": self.groups,
        }

    def call(self, inputs, kernel, bias=None):
        """Computes the convolution of two tensors, with the bias if there is one."""
        return conv_transpose(
            inputs, kernel, **self.arguments, bias=bias, activation=self.activation
        )

    def compute_output_spec(self, inputs, kernel, bias=None):
        """Returns a KerasTensor of the output's shape and dtype."""
        shapes = tuple(inputs.shape), tuple(kernel.shape)
        spec, output_shape = transpose_spec(*shapes, **self.arguments)
        check_dtypes(inputs, kernel)
        shape = output_shape(shapes[0])
        if bias is not None:
            check_bias(bias, inputs, spec.channels(shape), _PLACES)
        return keras.KerasTensor(shape, dtype=inputs.dtype)


@tf.autograph.experimental.do_not_convert
def conv_transpose(
    inputs,
    kernel,
    strides=1,
    padding="valid",
    output_padding=None,
    data_format=None,
    dilation_rate=1,
    groups=1,
    algorithm="auto",
    bias=None,
    activation=None,
):
    """Convolves the other way round, in one, two or three spatial dimensions.

    The counterpart of `keras.ops.conv_transpose`, on the kernel that is fastest for the
    problem. It leads from the output of a convolution back to the shape of its input:
    it is the gradient of `kconv.ops.conv` with respect to the input, with the same
    kernel. So the algorithms are those of the pass `"input_gradient"`, of which
    `kconv.ops.explain` tells when it is given the shape of the result here for its
    `inputs`. None of them multiplies the zeros that strides put between pixels. All
    that `kconv.ops.conv` tells of the choice of a kernel, of devices and of accuracy
    holds here.

    Args:
        inputs: Tensor of a floating dtype, of shape `(batch, *size, channels)` with
            `data_format="channels_last"`, or `(batch, channels, *size)` with
            `data_format="channels_first"`.
        kernel: Tensor of the dtype of `inputs`, of shape
            `(*kernel_size, filters // groups, channels)` in both data formats.
        strides: Positive int, or one for each spatial dimension.
        padding: `"valid"`, all that the kernel reaches; `"same"`, `size * strides`
            outputs; or a pair of ints (before, after) for each spatial dimension, which
            are taken away from all that the kernel reaches, as PyTorch does.
        output_padding: None, or a non-negative int less than the stride, or one for
            each spatial dimension: outputs to add after the last. None gives, for
            `"valid"`, those of the last stride that no tap reaches, and for `"same"` as
            many as make `size * strides`.
        data_format: `"channels_last"`, `"channels_first"` or None, which takes
            `keras.config.image_data_format()`.
        dilation_rate: Positive int, or one for each spatial dimension; may be combined
            with strides.
        groups: Positive int, the groups of channels. Both the channels of `inputs` and
            the filters are split in so many parts, and each part of the filters is made
            of one part of the channels.
        algorithm: As in `kconv.ops.conv`.
        bias: Tensor of the dtype of `inputs`, of shape `(filters,)`, to be added to
            the channels of the output; or None.
        activation: `"relu"` or `"relu6"`, to be applied last; `"linear"` or None for
            none.

    Returns:
        A tensor of the dtype of `inputs`, with `filters` channels. With
        `dilated = (kernel_size - 1) * dilation_rate + 1`, each of its spatial sizes is
        `(size - 1) * strides + dilated + output_padding - (before + after)`. With
        `padding="same"` and an `output_padding` it is, as in Keras,
        `(size - 1) * strides + dilated % 2 + output_padding`. An empty axis gives an
        empty axis.

    Raises:
        ValueError: If an argument is wrong, if shapes do not fit, or if a forced
            algorithm does not take the problem.

    Example:

    >>> x = np.random.rand(4, 10, 10, 128).astype("float32")
    >>> kernel = np.random.rand(4, 4, 64, 128).astype("float32")
    >>> y = kconv.ops.conv_transpose(x, kernel, strides=2, padding="same")
    >>> y.shape
    TensorShape([4, 20, 20, 64])
    >>> told = kconv.ops.explain(y, kernel, 2, "same", pass_="input_gradient")

    Source:
        Dumoulin and Visin, "A guide to convolution arithmetic for deep learning",
        2016, chapter 4.
    """
    arguments = (
        strides,
        padding,
        output_padding,
        data_format,
        dilation_rate,
        groups,
        algorithm,
    )
    inputs, kernel, bias, output = read_operands(
        ConvTranspose,
        (*arguments, activation),
        {"bias": bias},
        inputs=inputs,
        kernel=kernel,
    )
    if output is not None:
        return output
    check_algorithm(algorithm)
    check_activation(activation)
    check_dtypes(inputs, kernel)
    shapes = tuple(inputs.shape), tuple(kernel.shape)
    spec, output_shape = transpose_spec(*shapes, *arguments)
    shape = output_shape(shapes[0])
    if bias is not None:
        check_bias(bias, inputs, spec.channels(shape), _PLACES)
    sizes = None
    if None in shape:
        sizes = tf.stack(output_shape(tf.unstack(tf.shape(inputs, tf.int64))))
    image = Outline(tf.TensorShape(shape), inputs.dtype, sizes)
    epilogue = Epilogue(bias, activation or LINEAR)
    told = f"inputs.shape={shapes[0]}, kernel.shape={shapes[1]}"
    return dispatch.conv_transpose(spec, image, inputs, kernel, epilogue, told)
