"""kconv.convert and kconv.revert."""

import functools
import warnings

import keras

from kconv import ops
from kconv.conversion import counterparts, operations
from kconv.conversion.copying import Copier, compile_alike
from kconv.conversion.swapping import swap, trace_again


def convert(model, algorithm="auto", in_place=False, return_report=False):
    """Swaps the stock layers of a model for kconv's, in a copy of it or in place.

    Each layer that is exactly a `keras.layers.Conv2D`, wherever it is in the model,
    becomes a `kconv.layers.Conv2D`, and so do the other convolution layers that both
    have; kconv's own layers get the algorithm. Layers of other classes, subclasses of
    these too, are left as they are, and the layers in them are swapped.

    The copy has the same names, weights in the same order, states (such as
    vocabularies), trainable flags, dtype policies and shared layers, and shares no
    variable with `model`, which is left as it was. A compiled model is compiled again
    from its configuration, with the state of its optimizer; where that cannot be done,
    as for a loss function that is not registered with Keras, a warning tells so.

    Args:
        model: A Keras model, built or not. A copy is made of Sequential and Functional
            models and of those of a subclass whose constructor takes the same as
            theirs; of other classes, of layers too, if `from_config(get_config())`
            makes the same again.
        algorithm: String, the argument of the new layers: `"auto"`, `"auto:strict"` or
            a name out of `kconv.ops.algorithms()`. Where a layer's shapes are refused
            by an algorithm that is forced, the layer raises an error when it is called:
            `"winograd"` refuses depthwise ones, `"depthwise"` all others, `"fft"`
            strides and kernels of fewer than 7 taps, and `"grouped"` those in one
            group, so that a model fails at the first of these.
        in_place: Bool, whether to swap the layers of `model` itself, of whatever class
            it is. All that holds its layers, variables and optimizer is still right.
            What `fit`, `evaluate` and `predict` have traced is traced again; what a
            `tf.function` of your own has traced is not, and computes what it did. A
            model that was compiled for XLA is left out of it, until it is reverted.
        return_report: Bool, whether to return a report as well.

    Returns:
        A model, or a tuple: a model and a `kconv.conversion.Report`, which tells each
        convolution that was swapped or left, and why it was left.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If a copy cannot be made, or if `algorithm` is unknown.

    Example:

    >>> model = kconv.convert(keras.applications.ResNet50(weights=None))
    >>> model, report = kconv.convert(model, algorithm="gemm", return_report=True)
    >>> print(report)
    """
    ops.check_algorithm(algorithm)
    layer_for = functools.partial(counterparts.kconv_for, algorithm=algorithm)
    finders = layer_for, operations.kconv_for
    return _swapped(model, finders, in_place, return_report)


def revert(model, in_place=False, return_report=False):
    """Swaps kconv's layers in a model for stock ones, in a copy of it or in place.

    The inverse of `kconv.convert`, which tells what is kept. Layers that Keras does not
    have, such as `kconv.layers.DepthwiseConv3D`, and those with arguments that Keras's
    do not take, stay kconv's; so do `DepthwiseConv2D` and `SeparableConv2D` with
    unequal strides, which TensorFlow's kernels do not take.

    A `kconv.ops.conv`, `depthwise_conv` or `separable_conv` in the graph of a
    Functional model becomes that of `keras.ops`, where Keras can do it on a CPU: with
    padding `"valid"` or `"same"`, without bias and activation, and with strides or
    dilation, not both; a dense one in one group and with
    `data_format="channels_last"`; a depthwise one in one or two dimensions and with
    equal strides.

    Args:
        model: A Keras model, as in `kconv.convert`.
        in_place: Bool, as in `kconv.convert`.
        return_report: Bool, whether to return a report as well.

    Returns:
        A model, which needs kconv only for what Keras does not do, and for subclasses
        of kconv's layers; or a tuple: a model and a `kconv.conversion.Report`.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If a copy cannot be made.

    Example:

    >>> stock = kconv.revert(kconv.convert(model))
    """
    finders = counterparts.stock_for, operations.stock_for
    return _swapped(model, finders, in_place, return_report)


def _swapped(model, finders, in_place, return_report):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a Keras model, to have its layers swapped. "
            f"Received: model={model!r} of type {type(model).__name__}"
        )
    with warnings.catch_warnings():
        # Functions stay the objects that they are and are not read from a config.
        warnings.filterwarnings("ignore", ".*includes a `lambda`", UserWarning)
        if in_place:
            result, lost = model, None
            report = swap(model, *finders)
            trace_again(model)
        else:
            result = Copier().copy_of(model)
            report = swap(result, *finders)
            lost = compile_alike(model, result)
    if lost:
        warnings.warn(f"The copy of model {model.name!r} {lost}", stacklevel=3)
    return (result, report) if return_report else result
