"""Convolution."""

import keras
import tensorflow as tf

from kconv import dispatch
from kconv.dispatch import check_algorithm
from kconv.epilogue import LINEAR, Epilogue
from kconv.ops.checks import (
    INTEGERS,
    check_activation,
    check_bias,
    check_dtypes,
    check_groups,
)
from kconv.ops.operation import ConvOperation, read_operands
from kconv.prepared import Prepared, PreparedFilter
from kconv.spec import conv_spec


@keras.saving.register_keras_serializable(package="kconv")
class Conv(ConvOperation):
    """`kconv.ops.conv` as a node of a Functional model.

    Args:
        strides: As in `kconv.ops.conv`.
        padding: As in `kconv.ops.conv`.
        data_format: As in `kconv.ops.conv`.
        dilation_rate: As in `kconv.ops.conv`.
        algorithm: As in `kconv.ops.conv`.
        activation: As in `kconv.ops.conv`.
        name: String, the name of the node.

    Raises:
        ValueError: If `algorithm` or `activation` is unknown; when called, as
            `kconv.ops.conv`.

    Example:

    >>> x = keras.Input((10, 10, 128))
    >>> kernel = np.random.rand(3, 3, 128, 64).astype("float32")
    >>> y = kconv.ops.Conv(strides=2, padding="same")(x, kernel)
    >>> y.shape
    (None, 5, 5, 64)
    """

    def call(self, inputs, kernel, bias=None):
        """Computes the convolution of two tensors, with the bias if there is one."""
        return conv(
            inputs, kernel, **self.arguments, bias=bias, activation=self.activation
        )

    def compute_output_spec(self, inputs, kernel, bias=None):
        """Returns a KerasTensor of the output's shape and dtype."""
        shapes = tuple(inputs.shape), tuple(kernel.shape)
        spec = conv_spec(*shapes, **self.arguments)
        check_dtypes(inputs, kernel, also=INTEGERS)
        if bias is not None:
            check_bias(bias, inputs, shapes[1][-1])
        return keras.KerasTensor(spec.output_shape(*shapes), dtype=inputs.dtype)


@tf.autograph.experimental.do_not_convert
def conv(
    inputs,
    kernel,
    strides=1,
    padding="valid",
    data_format=None,
    dilation_rate=1,
    algorithm="auto",
    bias=None,
    activation=None,
):
    """Convolves in one, two or three spatial dimensions.

    The counterpart of `keras.ops.conv`, on the kernel that is fastest for the problem:
    one of kconv's own, or TensorFlow's. Each derivative chooses for itself. The
    channels may come in groups: there are as many as the channels of `inputs` are a
    multiple of those of `kernel`.

    When a graph is built for an unknown batch and the best kernel depends on it, the
    graph decides each time it runs; an unknown spatial size counts as 56 in estimates.
    In a function that XLA compiles, where a GPU is visible (unless `KCONV_GPU=1`), and
    where kconv's op library is missing, TensorFlow's ops do all the work. A
    `tf.function` that was traced outside of XLA must not be called inside: XLA does not
    know kconv's ops.

    Most algorithms round a result as a plain sum of its products does. Those of the
    family `"winograd"` multiply less and round more: in float32 their largest error was
    within these parts of the largest value, for kernels of 3x3 taps, normally
    distributed operands and 64 or 512 channels.

    | algorithm | largest error |
    |---|---|
    | `winograd:f2` | 1e-6 |
    | `winograd:f4` | 4e-6 |
    | `winograd:f6` | 3e-5 |

    They compute outputs in tiles of 2x2, 4x4 or 6x6, and so a NaN or infinity spoils
    all outputs of every tile that reads it, also those whose own windows do not hold
    it. So does `"fft"`, for kernels of 7 taps and more, whose tiles are up to 128 wide;
    its largest error was within 1e-6. Where that matters ask for
    `algorithm="auto:strict"`, or for one that is strict, such as `"gemm"`, or for all
    calls of the process by `kconv.set_accuracy("strict")`.

    Args:
        inputs: Tensor of a floating dtype, of shape `(batch, *size, channels)` with
            `data_format="channels_last"`, or `(batch, channels, *size)` with
            `data_format="channels_first"`.
        kernel: Tensor of the dtype of `inputs`, of shape
            `(*kernel_size, channels // groups, filters)` in both data formats.
            `filters` must be a multiple of `groups`. Or a
            `kconv.ops.PreparedFilter` of such a tensor.
        strides: Positive int, or one for each spatial dimension.
        padding: `"valid"`, no padding; `"same"`, as much as gives
            `ceil(size / strides)` outputs, the odd pixel after; `"causal"` for one
            spatial dimension; or a pair of ints (before, after) for each spatial
            dimension, such as `((top, bottom), (left, right))`.
        data_format: `"channels_last"`, `"channels_first"` or None, which takes
            `keras.config.image_data_format()`.
        dilation_rate: Positive int, or one for each spatial dimension; may be combined
            with strides.
        algorithm: `"auto"`, the fastest; `"auto:strict"`, the fastest of those that
            are as exact as a plain sum; or a name out of `kconv.ops.algorithms()` to
            force an algorithm, or the fastest of a family, in this operation and in
            all of its derivatives.
        bias: Tensor of the dtype of `inputs`, of shape `(filters,)`, to be added to
            the channels of the output; or None.
        activation: `"relu"` or `"relu6"`, to be applied last; `"linear"` or None for
            none. kconv's kernels add the bias and apply the activation to results that
            are in the cache, and round these once: half types may come out closer to
            the exact value than from separate operations.

    Returns:
        A tensor of the dtype of `inputs`. With padding (before, after), each of its
        spatial sizes is `(before + size + after - dilated) // strides + 1`, where
        `dilated = (kernel_size - 1) * dilation_rate + 1`; an empty axis in which the
        dilated kernel does not fit gives an empty axis.

    Raises:
        ValueError: If an argument is wrong, if shapes do not fit, or if a forced
            algorithm does not take the problem.

    Example:

    >>> x = np.random.rand(4, 10, 10, 128).astype("float32")
    >>> kernel = np.random.rand(3, 3, 32, 64).astype("float32")
    >>> y = kconv.ops.conv(x, kernel, strides=2, padding=((1, 0), (1, 0)))  # 4 groups
    >>> y.shape
    TensorShape([4, 5, 5, 64])
    >>> y = kconv.ops.conv(x, kernel, bias=np.ones(64, "float32"), activation="relu")

    Source:
        Dumoulin and Visin, "A guide to convolution arithmetic for deep learning",
        2016, for the sizes. Lavin and Gray, "Fast algorithms for convolutional neural
        networks", 2015, for Winograd's.
    """
    prepared = groups = None
    if isinstance(kernel, PreparedFilter):
        if kernel.prepared is not None:
            prepared, groups = Prepared(kernel.prepared, kernel.source), kernel.groups
        kernel = kernel.kernel
    arguments = strides, padding, data_format, dilation_rate, algorithm
    inputs, kernel, bias, output = read_operands(
        Conv, (*arguments, activation), {"bias": bias}, inputs=inputs, kernel=kernel
    )
    if output is not None:
        if groups is not None:
            spec = conv_spec(tuple(inputs.shape), tuple(kernel.shape), *arguments)
            check_groups(groups, spec, inputs, kernel)
        return output
    check_algorithm(algorithm)
    check_activation(activation)
    check_dtypes(inputs, kernel, also=INTEGERS)
    spec = conv_spec(tuple(inputs.shape), tuple(kernel.shape), *arguments)
    if bias is not None:
        check_bias(bias, inputs, kernel.shape[-1])
    if groups is not None:
        check_groups(groups, spec, inputs, kernel)
    epilogue = Epilogue(bias, activation or LINEAR)
    return dispatch.conv(spec, inputs, kernel, epilogue, prepared)
