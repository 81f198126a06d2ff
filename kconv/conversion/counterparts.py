"""Which layers of Keras and of kconv stand for each other, and where they do not."""

import inspect

import keras

from kconv import layers
from kconv.conversion.configs import config_of, is_known
from kconv.layers.fused import FusedConv

_NAMES = (
    *("Conv1D", "Conv2D", "Conv3D"),
    *("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    *("DepthwiseConv1D", "DepthwiseConv2D"),
    *("SeparableConv1D", "SeparableConv2D"),
)

# Stock layer -> kconv's layer of the same weights and, but for what it takes besides,
# arguments.
KCONV = {getattr(keras.layers, name): getattr(layers, name) for name in _NAMES}
STOCK = {ours: stock for stock, ours in KCONV.items()}

_OURS = {
    layer
    for layer in (getattr(layers, name) for name in layers.__all__)
    if issubclass(layer, FusedConv)
}

# kconv's convolutions that have no algorithm to set.
_OF_ONE_WAY = {layers.DeformableConv2D}

# Stock layers that raise an error when they are called, if their strides differ.
_EQUAL_STRIDES = keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D


def kconv_for(layer, algorithm):
    """Finds the kconv layer to take for a layer.

    Args:
        layer: A layer.
        algorithm: String, the argument of kconv's layers.

    Returns:
        A tuple: a new layer of the class to take, not built, or None; and the sentence
        why it is of no other class than it was, or None. Both are None for a layer that
        is no convolution.
    """
    kind = type(layer)
    if kind in KCONV:
        return _of_algorithm(KCONV[kind], layer, algorithm), None
    if kind in _OURS:
        if layer.algorithm == algorithm:
            return None, "Already a kconv layer."
        reason = f"Already a kconv layer: only its algorithm is now {algorithm!r}."
        return _of_algorithm(kind, layer, algorithm), reason
    if kind in _OF_ONE_WAY:
        return None, "Already a kconv layer."
    if not is_convolution(layer):
        return None, None
    base = _nearest(kind, (*KCONV, *_OURS, *_OF_ONE_WAY))
    if base:
        return None, _changes(base)
    known = next(one for one in kind.__mro__ if is_known(one))
    return None, f"kconv has no counterpart of {known.__name__}."


def stock_for(layer):
    """Finds the layer of Keras to take for a layer.

    Args:
        layer: A layer.

    Returns:
        As `kconv_for`.
    """
    kind = type(layer)
    if kind in STOCK:
        return _stock_of(layer, STOCK[kind])
    if kind in _OURS or kind in _OF_ONE_WAY:
        return None, f"Keras has no {kind.__name__}."
    if not is_convolution(layer):
        return None, None
    base = _nearest(kind, (*_OURS, *_OF_ONE_WAY))
    return None, _changes(base) if base else "Not a layer of kconv."


def is_convolution(something):
    """Whether something is what `Report` tells of, swapped or not.

    It is if its class, or one that it is a subclass of, is Keras's or kconv's and has
    "Conv" in its name.
    """
    return any(
        "Conv" in one.__name__ for one in type(something).__mro__ if is_known(one)
    )


def _nearest(kind, bases):
    return next((one for one in kind.__mro__ if one in bases), None)


def _changes(base):
    package = base.__module__.partition(".")[0]
    return (
        f"A subclass of {package}.layers.{base.__name__}: what it changes is not known."
    )


def _of_algorithm(kind, layer, algorithm):
    return kind.from_config({**config_of(layer), "algorithm": algorithm})


def _stock_of(layer, stock):
    def refusal(what):
        return None, f"Keras's {stock.__name__} does not take {what}."

    config = config_of(layer)
    del config["algorithm"]
    taken = inspect.signature(stock.__init__).parameters
    for name, parameter in inspect.signature(type(layer).__init__).parameters.items():
        if name not in taken and name in config:
            value = config.pop(name)
            if value != parameter.default:
                return refusal(f"{name}={value!r}")
    if not isinstance(config["padding"], str):
        return refusal(f"padding={config['padding']!r}")
    strides = config["strides"]
    if stock in _EQUAL_STRIDES and len(set(strides)) > 1:
        return refusal("unequal strides")
    try:
        return stock.from_config(config), None
    except TypeError as error:  # of whatever the constructor raises
        dilation = config["dilation_rate"]
        if max(strides) > 1 and max(dilation) > 1:
            return refusal(f"strides={strides} with dilation_rate={dilation}")
        told = str(error).rpartition("Exception encountered: ")[2]
        return refusal(f"these arguments: {told}".rstrip("."))
