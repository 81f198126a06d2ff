"""What would run, and why."""

import keras

from kconv import dispatch, explanation
from kconv.dispatch import check_algorithm
from kconv.spec import conv_spec, is_integer, plain


def algorithms():
    """Returns the names that `algorithm` takes beside `"auto"` and `"auto:strict"`.

    Returns:
        A list of strings, kconv's own first; the last one is `"builtin"`, TensorFlow's
        kernel. The name of a family, such as `"winograd"`, stands ahead of those of its
        variants, `"winograd:f4"` and others, and takes the fastest of them.

    Example:

    >>> kconv.ops.algorithms()
    ['depthwise', 'winograd', 'winograd:f4', 'winograd:f6', 'winograd:f2', 'grouped',
     'fft', 'gemm', 'direct', 'builtin']
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
    instead of tensors. For `kconv.ops.depthwise_conv` give the kernel the shape
    `(*kernel_size, 1, channels * multiplier)`.

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
        core), `workspace` (bytes, on TensorFlow's threads), `multiplications` (of its
        products), `is_strict` and `is_measured`; `chosen`, the name of the algorithm
        that runs, not of a family or mode; `reason`, the sentence why; and `pass_`,
        `input_shape`, `kernel_shape`, `dtype`. `str()` of it is a table.

    Raises:
        ValueError: As `kconv.ops.conv`, or if `pass_` is unknown.

    Example:

    >>> print(kconv.ops.explain((1, 7, 7, 512), (1, 1, 512, 2048)))
    forward of (1, 7, 7, 512) * (1, 1, 512, 2048), float32
      depthwise    depthwise takes one input channel a group only.
      winograd:f4  winograd takes kernels with an axis of 2, 3 or 5 taps a stride only.
      winograd:f6  winograd takes kernels with an axis of 2, 3 or 5 taps a stride only.
      winograd:f2  winograd takes kernels with an axis of 2, 3 or 5 taps a stride only.
      grouped      grouped takes more than one group only.
      fft          fft does not pay for kernels of fewer than 7 taps along each axis.
    > gemm              1.647 ms on one core, workspace 1312 KiB
      direct            4.336 ms on one core, workspace 0 KiB
      builtin           9.087 ms on one core
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
