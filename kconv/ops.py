"""The functional face of kconv: operations on tensors."""

import keras
import tensorflow as tf

from kconv import dispatch, explanation
from kconv import gradients as gradients  # registers those of kconv's ops
from kconv.dispatch import check_algorithm
from kconv.epilogue import ACTIVATIONS, LINEAR, Epilogue
from kconv.prepared import Prepared, PreparedFilter
from kconv.settings import heeded_name
from kconv.spec import conv_spec, is_integer, plain


@keras.saving.register_keras_serializable(package="kconv")
class Conv(keras.Operation):
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

    def __init__(
        self,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        algorithm="auto",
        activation=None,
        *,
        name=None,
    ):
        super().__init__(name=name)
        check_algorithm(algorithm)
        _check_activation(activation)
        self.strides = plain(strides)
        self.padding = plain(padding)
        self.data_format = data_format or keras.config.image_data_format()
        self.dilation_rate = plain(dilation_rate)
        self.algorithm = algorithm
        self.activation = activation

    def _arguments(self):
        return {
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "algorithm": self.algorithm,
        }

    def call(self, inputs, kernel, bias=None):
        """Computes the convolution of two tensors, with the bias if there is one."""
        return conv(
            inputs, kernel, **self._arguments(), bias=bias, activation=self.activation
        )

    def compute_output_spec(self, inputs, kernel, bias=None):
        """Returns a KerasTensor of the output's shape and dtype."""
        shapes = tuple(inputs.shape), tuple(kernel.shape)
        spec = conv_spec(*shapes, **self._arguments())
        _check_dtypes(inputs, kernel)
        if bias is not None:
            _check_bias(bias, inputs, shapes[1][-1])
        return keras.KerasTensor(spec.output_shape(*shapes), dtype=inputs.dtype)

    def get_config(self):
        """Returns the arguments that make this operation again."""
        return {**self._arguments(), "activation": self.activation, "name": self.name}


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
    In a function that XLA compiles, where a GPU is visible, and where kconv's op
    library is missing, TensorFlow's ops do all the work. A `tf.function` that was
    traced outside of XLA must not be called inside: XLA does not know kconv's ops.

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
    it. Where that matters ask for `algorithm="auto:strict"`, or for one that is strict,
    such as `"gemm"`, or for all calls of the process by `kconv.set_accuracy("strict")`.

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
    if bias is not None and not isinstance(bias, keras.KerasTensor):
        bias = tf.convert_to_tensor(bias)
    if any(isinstance(t, keras.KerasTensor) for t in (inputs, kernel, bias)):
        operation = Conv(
            strides, padding, data_format, dilation_rate, algorithm, activation
        )
        operands = (inputs, kernel) if bias is None else (inputs, kernel, bias)
        outputs = operation.symbolic_call(*operands)
        if groups is not None:
            shapes = tuple(inputs.shape), tuple(kernel.shape)
            spec = conv_spec(*shapes, **operation._arguments())
            _check_groups(groups, spec, inputs, kernel)
        return outputs
    check_algorithm(algorithm)
    _check_activation(activation)
    # Not keras.ops.convert_to_tensor, which leaves Keras variables what they are.
    inputs, kernel = tf.convert_to_tensor(inputs), tf.convert_to_tensor(kernel)
    if None in (inputs.shape.rank, kernel.shape.rank):
        raise ValueError(
            "The ranks of `inputs` and `kernel` must be known. Received: inputs.shape="
            f"{inputs.shape}, kernel.shape={kernel.shape}"
        )
    _check_dtypes(inputs, kernel)
    spec = conv_spec(
        tuple(inputs.shape),
        tuple(kernel.shape),
        strides,
        padding,
        data_format,
        dilation_rate,
        algorithm,
    )
    if bias is not None:
        _check_bias(bias, inputs, kernel.shape[-1])
    if groups is not None:
        _check_groups(groups, spec, inputs, kernel)
    epilogue = Epilogue(bias, activation or LINEAR)
    return dispatch.conv(spec, inputs, kernel, epilogue, prepared)


def prepare_filter(kernel, groups=1, strides=1, algorithm="auto"):
    """Prepares a kernel for many calls of `kconv.ops.conv`, as in inference.

    Where images are small and channels many, a good part of the time goes by while
    the algorithms of the family `"winograd"` gather the taps of the kernel. Here that
    is done once. The result changes no bit of what `kconv.ops.conv` computes, nor which
    algorithm does; it serves the forward pass, and derivatives take the kernel itself.
    It holds the kernel and a copy in float32 (filters rounded up to whole vectors). Of
    a variable it holds the value, not the variable.

    Args:
        kernel: Tensor of a floating dtype, of shape
            `(*kernel_size, channels // groups, filters)`.
        groups: Positive int, the groups of channels of the convolutions.
        strides: Positive int, or one for each spatial dimension, of the convolutions:
            nothing has a use for it where there are any.
        algorithm: As in `kconv.ops.conv`: nothing is made that it has no use for.

    Returns:
        A `kconv.ops.PreparedFilter`, which `kconv.ops.conv` takes for a kernel. Where
        nothing has a use for it, it holds the kernel only.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> kernel = np.random.rand(3, 3, 512, 512).astype("float32")
    >>> prepared = kconv.ops.prepare_filter(kernel)
    >>> x = np.random.rand(1, 14, 14, 512).astype("float32")
    >>> y = kconv.ops.conv(x, prepared, padding="same")
    """
    check_algorithm(algorithm)
    kernel = tf.convert_to_tensor(kernel)
    dims = (kernel.shape.rank or 0) - 2
    if dims not in (1, 2, 3):
        raise ValueError(
            "`kernel` must have three to five dimensions. Received: kernel.shape="
            f"{kernel.shape}"
        )
    filters = kernel.shape[-1]
    if (
        not is_integer(groups)
        or groups < 1
        or (filters is not None and filters % groups)
    ):
        raise ValueError(
            "`groups` must be a positive integer that divides the filters. Received: "
            f"groups={groups!r}, kernel.shape={kernel.shape}"
        )
    given, strides = strides, plain(strides)
    strides = (strides,) * dims if is_integer(strides) else strides
    if (
        not isinstance(strides, tuple)
        or len(strides) != dims
        or not all(is_integer(n) and n > 0 for n in strides)
    ):
        raise ValueError(
            "`strides` must be a positive integer, or one for each spatial dimension. "
            f"Received: strides={given!r}"
        )
    if kernel.shape.num_elements() == 0:
        raise ValueError(
            f"The kernel must not be empty. Received: kernel.shape={kernel.shape}"
        )
    prepared = dispatch.prepare_filter(kernel, strides, groups, heeded_name(algorithm))
    return PreparedFilter(kernel, prepared, groups)


def _check_groups(groups, spec, inputs, kernel):
    if groups != spec.groups:
        raise ValueError(
            "`kernel` was prepared for another number of groups than that of `inputs`. "
            f"Received: groups={groups}, inputs.shape={tuple(inputs.shape)}, "
            f"kernel.shape={tuple(kernel.shape)}"
        )


def _check_dtypes(inputs, other, name="kernel"):
    if inputs.dtype != other.dtype:
        names = [keras.backend.standardize_dtype(t.dtype) for t in (inputs, other)]
        raise ValueError(
            f"`inputs` and `{name}` must have the same dtype. Received: inputs.dtype="
            f"{names[0]}, {name}.dtype={names[1]}"
        )


def _check_activation(activation):
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(
            f"`activation` must be None or one of {list(ACTIVATIONS)}. Received: "
            f"activation={activation!r}"
        )


def _check_bias(bias, inputs, filters):
    shape = None if getattr(bias.shape, "rank", 1) is None else tuple(bias.shape)
    if shape not in (None, (None,), (filters,)):
        raise ValueError(
            "`bias` must have one value for each filter of `kernel`, its last axis. "
            f"Received: bias.shape={shape}, filters={filters}"
        )
    _check_dtypes(inputs, bias, "bias")


def algorithms():
    """Returns the names that `algorithm` takes beside `"auto"` and `"auto:strict"`.

    Returns:
        A list of strings, kconv's own first; the last one is `"builtin"`, TensorFlow's
        kernel. The name of a family, such as `"winograd"`, stands ahead of those of its
        variants, `"winograd:f4"` and others, and takes the fastest of them.

    Example:

    >>> kconv.ops.algorithms()
    ['winograd', 'winograd:f4', 'winograd:f6', 'winograd:f2', 'gemm', 'direct',
     'builtin']
    """
    return dispatch.algorithms()


def explain(
    inputs,
    kernel,
    strides=1,
    padding="valid",
    data_format=None,
    dilation_rate=1,
    algorithm="auto",
    dtype=None,
    pass_="forward",
):
    """Tells what each algorithm says about a convolution, and which one runs.

    The first arguments are those of `kconv.ops.conv`, except that shapes will do
    instead of tensors.

    Args:
        inputs: Tensor, KerasTensor or tuple of ints. An unknown batch is estimated as
            one image, an unknown spatial size as 56.
        kernel: Tensor, KerasTensor or tuple of ints.
        strides: As in `kconv.ops.conv`.
        padding: As in `kconv.ops.conv`.
        data_format: As in `kconv.ops.conv`.
        dilation_rate: As in `kconv.ops.conv`.
        algorithm: As in `kconv.ops.conv`.
        dtype: String; by default that of `inputs`, or `keras.config.floatx()`.
        pass_: `"forward"`, `"input_gradient"` or `"filter_gradient"`.

    Returns:
        An object with the attributes `candidates`, a tuple of objects with
        `algorithm`, `refusal` (a sentence, or None), `seconds` (estimated, on one
        core), `workspace` (bytes, on one thread) and `is_strict`; `chosen`, the name of
        the algorithm that runs, not of a family or mode; `reason`, the sentence why;
        and `pass_`, `input_shape`, `kernel_shape`, `dtype`. `str()` of it is a table.

    Raises:
        ValueError: As `kconv.ops.conv`, or if `pass_` is unknown.

    Example:

    >>> print(kconv.ops.explain((1, 7, 7, 512), (1, 1, 512, 2048)))
    forward of (1, 7, 7, 512) * (1, 1, 512, 2048), float32
      winograd:f4  winograd takes kernels with an axis of 3 or 5 taps only.
      winograd:f6  winograd takes kernels with an axis of 3 or 5 taps only.
      winograd:f2  winograd takes kernels with an axis of 3 or 5 taps only.
    > gemm               1.27 ms on one core, workspace 656 KiB
      direct            4.284 ms on one core, workspace 0 KiB
      builtin           2.095 ms on one core
    gemm: The lowest estimate.
    """
    if pass_ not in dispatch.PASSES:
        raise ValueError(
            f"`pass_` must be one of {list(dispatch.PASSES)}. Received: pass_={pass_!r}"
        )
    check_algorithm(algorithm)
    if dtype is None:
        dtype = getattr(inputs, "dtype", keras.config.floatx())
    shapes = [
        plain(tuple(getattr(given, "shape", given))) for given in (inputs, kernel)
    ]
    if not all(n is None or (is_integer(n) and n >= 0) for n in sum(shapes, ())):
        raise ValueError(
            "Shapes must consist of non-negative integers and None. Received: "
            f"inputs={shapes[0]}, kernel={shapes[1]}"
        )
    spec = conv_spec(*shapes, strides, padding, data_format, dilation_rate, algorithm)
    dtype = keras.backend.standardize_dtype(dtype)
    return explanation.explain(pass_, spec, *shapes, dtype)
