"""Which nodes of `kconv.ops` in a Functional model Keras can compute."""

import inspect

import keras

from kconv import ops
from kconv.conversion.counterparts import is_convolution

# kconv's operation -> Keras's function of the same operands, and how many they are.
_FUNCTIONS = {
    ops.Conv: (keras.ops.conv, 2),
    ops.DepthwiseConv: (keras.ops.depthwise_conv, 2),
    ops.SeparableConv: (keras.ops.separable_conv, 3),
}


def kconv_for(node):
    """Tells why `kconv.convert` leaves an operation of a graph.

    Args:
        node: An operation that is no layer.

    Returns:
        A tuple: None, and a sentence, or None if it is no convolution.
    """
    if not is_convolution(node):
        return None, None
    if type(node).__module__.startswith("kconv."):
        return None, "Already an operation of kconv."
    return None, "An operation of the graph: only layers are swapped."


def stock_for(node):
    """Finds the operation of Keras to take for one of kconv.

    Args:
        node: An operation that is no layer.

    Returns:
        A tuple: a new operation, or None; and the sentence why there is none, or None.
        Both are None if it is no convolution.
    """
    if not is_convolution(node):
        return None, None
    if type(node) not in _FUNCTIONS:
        ours = type(node).__module__.startswith("kconv.")
        # Keras's own node of a transposed convolution fails when it is run: it passes
        # `padding` and `output_padding` in each other's place.
        what = f"run {type(node).__name__} in a graph"
        return None, f"Keras cannot {what}." if ours else "Not an operation of kconv."
    config = node.get_config()
    refusal = _refusal(node, config)
    if refusal:
        return None, f"Keras's {_FUNCTIONS[type(node)][0].__name__} {refusal}."
    del config["algorithm"], config["activation"]
    # The classes of Keras's nodes have no public names.
    function, count = _FUNCTIONS[type(node)]
    tensors = [keras.KerasTensor((1, 1, 1))] * count
    return type(function(*tensors)._keras_history.operation)(**config), None


def _refusal(node, config):
    """What Keras's function does not do on a CPU, or None."""
    signature = inspect.signature(node.call)
    operands = [
        signature.bind(*call.arguments.args, **call.arguments.kwargs).arguments
        for call in node._inbound_nodes
    ]
    if any("bias" in given for given in operands):
        return "does not take a bias"
    if config["activation"] not in (None, "linear"):
        return "does not apply an activation"
    if str(config["padding"]).lower() not in ("valid", "same"):
        return f"does not take padding={config['padding']!r}"
    strides = keras.tree.flatten(config["strides"])
    if max(strides) > 1 and max(keras.tree.flatten(config["dilation_rate"])) > 1:
        return "does not take strides with dilation"
    if type(node) is ops.Conv:
        if config["data_format"].lower() == "channels_first":
            return "does not run channels_first on a CPU"
        if any(g["inputs"].shape[-1] != g["kernel"].shape[-2] for g in operands):
            return "does not take groups in a graph"
    elif len(set(strides)) > 1:
        return "does not take unequal strides"
    elif any(len(given["inputs"].shape) > 4 for given in operands):
        return "does not know three dimensions"
    return None
