"""Swaps the layers of a model: stock Keras to kconv, and back."""

import inspect
import tempfile
import types
import warnings

import keras

from kconv import layers, ops

# Stock layer -> kconv's layer of the same weights and, but for `algorithm`, arguments.
_COUNTERPARTS = {
    keras.layers.Conv2D: layers.Conv2D,
    keras.layers.DepthwiseConv1D: layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D: layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D: layers.SeparableConv1D,
    keras.layers.SeparableConv2D: layers.SeparableConv2D,
}

# Stock layers that raise an error when they are called, if their strides differ.
_EQUAL_STRIDES = keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D

# kconv's operation -> Keras's function of the same operands, and how many they are.
_FUNCTIONS = {
    ops.Conv: (keras.ops.conv, 2),
    ops.DepthwiseConv: (keras.ops.depthwise_conv, 2),
    ops.SeparableConv: (keras.ops.separable_conv, 3),
}


def convert(model, algorithm="auto"):
    """Returns a copy of a model with kconv layers in the place of stock ones.

    Each layer that is exactly a `keras.layers.Conv2D`, wherever it is in the model,
    becomes a `kconv.layers.Conv2D`, and so do `DepthwiseConv1D`, `DepthwiseConv2D`,
    `SeparableConv1D` and `SeparableConv2D`; kconv's own layers get the algorithm.
    Layers of other classes, subclasses of these too, are copied as they are. The copy
    has the same names, weights in the same order, states (such as vocabularies),
    trainable flags, dtype policies and shared layers, and shares no variable with
    `model`, which is left as it was. A compiled model is compiled again from its
    configuration, with the state of its optimizer; where that cannot be done, as for a
    loss function that is not registered with Keras, a warning tells so.

    Args:
        model: A Sequential or Functional model, built or not, of which other models may
            be layers. Models of a subclass, with a `call` or `train_step` of its own,
            are made again by its constructor, which must take what that of Sequential
            or Functional takes.
        algorithm: String, the argument of the new layers: `"auto"`, `"auto:strict"` or
            a name out of `kconv.ops.algorithms()`. Where a layer's shapes are refused
            by an algorithm that is forced, the layer raises an error when it is called:
            `"winograd"` refuses depthwise ones, `"depthwise"` all others, and
            `"grouped"` those in one group, so that a model fails at the first of these.

    Returns:
        A model.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it is neither Sequential nor Functional, if the constructor of
            its class takes other arguments, or if `algorithm` is unknown.

    Example:

    >>> model = kconv.convert(keras.applications.ResNet50(weights=None))
    """
    ops.check_algorithm(algorithm)
    own = (*_COUNTERPARTS.values(), layers.DepthwiseConv3D, layers.SeparableConv3D)
    counterparts = _COUNTERPARTS | {layer: layer for layer in own}
    return _swap(model, counterparts, {"algorithm": algorithm})


def revert(model):
    """Returns a copy of a model with stock layers in the place of kconv's.

    The inverse of `kconv.convert`, which tells what is kept. A `kconv.ops.conv`,
    `depthwise_conv` or `separable_conv` in the graph of a Functional model becomes that
    of `keras.ops`, where Keras can do it on a CPU: with padding `"valid"` or `"same"`,
    without bias and activation, and with strides or dilation, not both; a dense one
    in one group and with `data_format="channels_last"`; a depthwise one in one or two
    dimensions and with equal strides. `kconv.layers.DepthwiseConv3D` and
    `SeparableConv3D`, which Keras does not have, are copied as they are, and so are
    `DepthwiseConv2D` and `SeparableConv2D` with unequal strides, which TensorFlow's
    kernels do not take.

    Args:
        model: A Sequential or Functional model.

    Returns:
        A model, which needs kconv only for what Keras does not do, and for subclasses
        of kconv's layers.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it is neither Sequential nor Functional, or if the constructor of
            its class takes other arguments.

    Example:

    >>> stock = kconv.revert(kconv.convert(model))
    """
    counterparts = {ours: stock for stock, ours in _COUNTERPARTS.items()}
    return _swap(model, counterparts, {"algorithm": None})


def _swap(model, counterparts, arguments):
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"`model` must be a Keras model, to have its layers swapped. {_told(model)}"
        )
    if not _is_graph(model):
        raise ValueError(
            "`model` must be Sequential or Functional: what a subclassed model does "
            f"with its layers is not known; use kconv.layers in it. {_told(model)}"
        )
    with warnings.catch_warnings():
        # Functions stay the objects that they are and are not read from a config.
        warnings.filterwarnings("ignore", ".*includes a `lambda`", UserWarning)
        swapper = _Swapper(counterparts, arguments)
        copy = swapper.copy(model)
        swapper.copy_state(model)
        lost = _compile_alike(model, copy)
    if lost:
        warnings.warn(f"The copy of model {model.name!r} {lost}", stacklevel=3)
    return copy


def _told(model):
    return f"Received: model={model!r} of type {type(model).__name__}"


def _is_graph(layer):
    """Whether a layer is Sequential or, which has no public name, Functional."""
    functional = isinstance(layer, keras.Model) and isinstance(layer, keras.Function)
    return functional or isinstance(layer, keras.Sequential)


class _Swapper:
    """Copies layers, a shared one once, with another class for some.

    Args:
        counterparts: Dictionary, class -> class to take instead.
        arguments: Dictionary of what to change in the config; None takes a key away.
    """

    def __init__(self, counterparts, arguments):
        self.counterparts = counterparts
        self.arguments = arguments
        self.copies = {}  # id of a layer -> its copy

    def copy(self, layer):
        """Returns the copy of a layer, an operation or a model, without its state."""
        if id(layer) not in self.copies:
            if isinstance(layer, keras.Sequential):
                copy = self._copy_sequential(layer)
            elif _is_graph(layer):
                copy = self._copy_functional(layer)
            else:
                copy = self._copy_layer(layer)
            self.copies[id(layer)] = copy
        return self.copies[id(layer)]

    def copy_state(self, layer):
        """Gives the copy of a layer the layer's state and trainable flags."""
        copy = self.copies.get(id(layer))
        if copy is None:  # an InputLayer
            return
        if _is_graph(layer):
            _copy_policies(layer, copy)
            for part in layer.layers:
                self.copy_state(part)
            return
        if layer.built and not copy.built:
            copy.build_from_config(layer.get_build_config())
        parts = layer._flatten_layers(), copy._flatten_layers()
        for part, own in zip(*parts, strict=True):
            _copy_policies(part, own)
            _copy_own_state(part, own)
        # The rest: states of random generators, and LoRA, which was merged above.
        for variable, own in zip(layer.variables, copy.variables, strict=True):
            own.assign(variable)
            if own.trainable != variable.trainable:
                own.trainable = variable.trainable

    # Not keras.models.clone_model for the whole: it compiles the models on the way, and
    # fails where that fails.

    def _copy_sequential(self, model):
        _check_constructor(model, "layers")
        parts = [self.copy(layer) for layer in model.layers]
        if model.built and model.inputs:
            parts.insert(0, _copy_input(model.inputs[0]))
        return type(model)(parts, name=model.name)

    def _copy_functional(self, model):
        _check_constructor(model, "inputs", "outputs")
        # The same graph, not compiled.
        view = keras.Model(model.input, model.output, name=model.name)
        copy = keras.models.clone_model(
            view,
            input_tensors=keras.tree.map_structure(_copy_input, model.input),
            clone_function=self.copy,
        )
        if type(model) is not type(copy):
            copy = type(model)(copy.input, copy.output, name=model.name)
        return copy

    def _copy_layer(self, layer):
        if type(layer) in _FUNCTIONS and self.arguments["algorithm"] is None:
            return _stock_operation(layer)
        config = layer.get_config()
        if type(layer).__module__.startswith(("keras.", "kconv.")):
            for key in config:
                value = getattr(layer, key, None)
                if _may_be_unknown(value):
                    config[key] = value
        counterpart = self._counterpart(type(layer), config)
        config = self._changed(config) if counterpart else self._swapped_inside(config)
        if type(layer) is keras.layers.Lambda:
            return keras.layers.Lambda(**config)  # its from_config wants bytecode
        if _is_plain_wrapper(layer):  # around a layer that may be elsewhere too
            return type(layer)(**{**config, "layer": self.copy(layer.layer)})
        return (counterpart or type(layer)).from_config(config)

    def _counterpart(self, layer_class, config):
        """Returns the class to take instead of one; None if there is no such class."""
        target = self.counterparts.get(layer_class)
        equal = len(set(keras.tree.flatten(config.get("strides", 1)))) == 1
        return target if equal or target not in _EQUAL_STRIDES else None

    def _changed(self, config):
        config = {**config, **self.arguments}
        return {k: v for k, v in config.items() if k not in self.arguments or v}

    def _swapped_inside(self, config):
        """Returns a config with the layers swapped that it holds, as of a wrapper."""
        if isinstance(config, list | tuple):
            return type(config)(self._swapped_inside(one) for one in config)
        if not isinstance(config, dict):
            return config
        for source in self.counterparts:
            if not _is_serialized(config, source):
                continue
            target = self._counterpart(source, config["config"])
            if target:
                name = keras.saving.get_registered_name(target)
                return {
                    **config,
                    "module": _module(target),
                    "registered_name": name if ">" in name else None,
                    "config": self._changed(config["config"]),
                }
        return {key: self._swapped_inside(value) for key, value in config.items()}


def _module(layer_class):
    stock = layer_class.__module__.startswith("keras.")
    return "keras.layers" if stock else layer_class.__module__


def _is_serialized(config, layer_class):
    return (
        config.get("class_name") == layer_class.__name__
        and config.get("module") == _module(layer_class)
        and isinstance(config.get("config"), dict)
    )


def _copy_input(tensor):
    layer = tensor._keras_history.operation
    return type(layer).from_config(layer.get_config()).output


def _check_constructor(model, *names):
    """Raises ValueError unless a model's class is constructed from these arguments."""
    signature = inspect.signature(type(model).__init__)
    try:
        given = signature.bind(model, *names, name=model.name).arguments
    except TypeError:
        given = {}
    # By these names, or by *args.
    if names not in given.values() and any(given.get(name) != name for name in names):
        raise ValueError(
            f"The constructor of a model's class must take {' and '.join(names)} and "
            f"a name, for the model to be made again. {_told(model)}"
        )


def _may_be_unknown(value):
    """Whether this is an activation, a regularizer ... that Keras may not find."""
    if isinstance(value, types.FunctionType):
        return True
    known = type(value).__module__.startswith(("keras.", "builtins"))
    return callable(value) and not known and not isinstance(value, keras.Operation)


def _is_plain_wrapper(layer):
    wrapper = keras.layers.Wrapper
    return isinstance(layer, wrapper) and (
        type(layer).from_config.__func__ is wrapper.from_config.__func__
    )


def _stock_operation(node):
    """Returns a copy of a node of `kconv.ops`, by Keras if it can express that."""
    config = node.get_config()
    if not _keras_can(node, config):
        return type(node).from_config(config)
    del config["algorithm"], config["activation"]
    # The classes of Keras's nodes have no public names.
    function, count = _FUNCTIONS[type(node)]
    tensors = [keras.KerasTensor((1, 1, 1))] * count
    return type(function(*tensors)._keras_history.operation)(**config)


def _keras_can(node, config):
    """Whether Keras's function does the same on a CPU."""
    signature = inspect.signature(node.call)
    operands = [
        signature.bind(*call.arguments.args, **call.arguments.kwargs).arguments
        for call in node._inbound_nodes
    ]
    more = any("bias" in given for given in operands)
    if more or config["activation"] not in (None, "linear"):
        return False
    strides = keras.tree.flatten(config["strides"])
    dilated = max(keras.tree.flatten(config["dilation_rate"])) > 1
    if type(node) is ops.Conv:
        if config["data_format"].lower() == "channels_first":
            return False
        if any(g["inputs"].shape[-1] != g["kernel"].shape[-2] for g in operands):
            return False
    elif len(set(strides)) > 1 or any(
        len(given["inputs"].shape) > 4 for given in operands
    ):
        return False
    named = str(config["padding"]).lower() in ("valid", "same")
    return named and not (dilated and max(strides) > 1)


def _copy_policies(layer, copy):
    # From the outside in: setting the flag of a layer sets those of its parts.
    for name in ("trainable", "dtype_policy"):
        if getattr(copy, name) != getattr(layer, name):
            setattr(copy, name, getattr(layer, name))


def _copy_own_state(layer, copy):
    """Copies what a layer saves of its own, as into a file."""
    if hasattr(layer, "get_vocabulary") and not layer.get_vocabulary(False):
        return  # of a layer that is not adapted yet, which cannot be saved
    store = {}
    layer.save_own_variables(store)
    copy.load_own_variables(store)
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            copy.load_assets(folder)


def _compile_alike(model, copy):
    """Compiles the copy of a compiled model; returns what is lost, or None."""
    if not model.compiled:
        return None
    try:
        copy.compile_from_config(model.get_compile_config())
    except (TypeError, ValueError) as error:
        return f"is not compiled: {error}"
    if not copy.compiled:
        return "is not compiled: its class has a `compile` of its own."
    if not model.optimizer or not model.optimizer.built:
        return None
    state, own = model.optimizer.variables, copy.optimizer.variables
    if [v.shape for v in state] != [v.shape for v in own]:
        return "starts with a new state of the optimizer."
    for source, target in zip(state, own, strict=True):
        target.assign(source)
    return None
