"""Swaps the layers of a model: stock Keras to kconv, and back."""

import contextlib
import types
import warnings

import keras
from keras.src.models.functional import Functional, functional_like_constructor

from kconv import dispatch, layers

# Stock layer -> kconv's layer of the same weights and, but for `algorithm`, arguments.
_COUNTERPARTS = {keras.layers.Conv2D: layers.Conv2D}


def convert(model, algorithm="auto"):
    """Returns a copy of a model with kconv layers in the place of stock ones.

    Each layer that is exactly a `keras.layers.Conv2D`, wherever it is in the model,
    becomes a `kconv.layers.Conv2D`; layers of other classes, subclasses of `Conv2D`
    too, are copied as they are. The copy has the same names, weights in the same order,
    trainable flags, dtype policies and shared layers, and shares no variable with
    `model`, which is left as it was. A compiled model is compiled again from its
    configuration, with the state of its optimizer; where that cannot be done, as for a
    loss function that is not registered with Keras, the copy is not compiled.

    Args:
        model: A Sequential or Functional model, built or not, of which other models may
            be layers. A subclass of Functional whose constructor does not take inputs
            and outputs becomes a plain Functional.
        algorithm: String, the argument of the new layers: `"auto"` or a name out of
            `kconv.ops.algorithms()`.

    Returns:
        A model.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it is neither Sequential nor Functional, or `algorithm` unknown.

    Example:

    >>> model = kconv.convert(keras.applications.ResNet50(weights=None))
    """
    dispatch.check_algorithm(algorithm)
    return _swap(model, _COUNTERPARTS, {"algorithm": algorithm})


def revert(model):
    """Returns a copy of a model with stock layers in the place of kconv's.

    The inverse of `kconv.convert`, which tells what is kept.

    Args:
        model: A Sequential or Functional model.

    Returns:
        A model that needs kconv no more.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If it is neither Sequential nor Functional.

    Example:

    >>> stock = kconv.revert(kconv.convert(model))
    """
    counterparts = {ours: stock for stock, ours in _COUNTERPARTS.items()}
    return _swap(model, counterparts, {"algorithm": None})


def _swap(model, counterparts, arguments):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "`model` must be a Keras model, to have its layers swapped. Received: "
            f"model={model!r} of type {type(model).__name__}"
        )
    if not isinstance(model, keras.Sequential | Functional):
        raise ValueError(
            "`model` must be Sequential or Functional: what a subclassed model does "
            "with its layers is not known; use kconv.layers in it. Received: "
            f"model={model!r} of type {type(model).__name__}"
        )
    with warnings.catch_warnings():
        # Functions stay the objects that they are and are not read from a config.
        warnings.filterwarnings("ignore", ".*includes a `lambda`", UserWarning)
        swapper = _Swapper(counterparts, arguments)
        copy = swapper.copy(model)
        swapper.copy_state(model)
        _compile_alike(model, copy)
    return copy


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
            elif isinstance(layer, Functional):
                copy = self._copy_functional(layer)
            else:
                copy = self._copy_layer(layer)
            self.copies[id(layer)] = copy
        return self.copies[id(layer)]

    def copy_state(self, layer):
        """Gives the copy of a layer the layer's weights and trainable flags."""
        copy = self.copies.get(id(layer))
        if copy is None:  # an InputLayer
            return
        # From the outside in: setting the flag of a model sets those of its layers.
        if copy.trainable != layer.trainable:
            copy.trainable = layer.trainable
        if isinstance(layer, keras.Sequential | Functional):
            for part in layer.layers:
                self.copy_state(part)
            return
        if layer.variables and not copy.built:
            copy.build_from_config(layer.get_build_config())
        for variable, own in zip(layer.variables, copy.variables, strict=True):
            own.assign(variable)

    # Not keras.models.clone_model for the whole: it compiles the models on the way, and
    # fails where that fails.

    def _copy_sequential(self, model):
        parts = [self.copy(layer) for layer in model.layers]
        if model.built and model.inputs:
            parts.insert(0, _copy_input(model.inputs[0]))
        return keras.Sequential(parts, name=model.name, trainable=model.trainable)

    def _copy_functional(self, model):
        # The same graph, not compiled.
        view = keras.Model(model.input, model.output, name=model.name)
        copy = keras.models.clone_model(
            view,
            input_tensors=keras.tree.map_structure(_copy_input, model.input),
            clone_function=self.copy,
        )
        if type(model) is not Functional and functional_like_constructor(type(model)):
            copy = type(model)(copy.input, copy.output, name=model.name)
        return copy

    def _copy_layer(self, layer):
        config = layer.get_config()
        if type(layer).__module__.startswith(("keras.", "kconv.")):
            # An activation or the body of a Lambda need not be known to Keras by name.
            for key in config:
                value = getattr(layer, key, None)
                if isinstance(value, types.FunctionType):
                    config[key] = value
        if type(layer) in self.counterparts:
            config = self._changed(config)
        else:
            config = self._swapped_inside(config)
        if type(layer) is keras.layers.Lambda:
            return keras.layers.Lambda(**config)  # its from_config wants bytecode
        return self.counterparts.get(type(layer), type(layer)).from_config(config)

    def _changed(self, config):
        config = {**config, **self.arguments}
        return {k: v for k, v in config.items() if k not in self.arguments or v}

    def _swapped_inside(self, config):
        """Returns a config with the layers swapped that it holds, as of a wrapper."""
        if isinstance(config, list | tuple):
            return type(config)(self._swapped_inside(one) for one in config)
        if not isinstance(config, dict):
            return config
        for source, target in self.counterparts.items():
            if _is_serialized(config, source):
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


def _compile_alike(model, copy):
    if not model.compiled:
        return
    with contextlib.suppress(TypeError, ValueError):
        copy.compile_from_config(model.get_compile_config())
        if model.optimizer is None:
            return
        state, own = model.optimizer.variables, copy.optimizer.variables
        if [v.shape for v in state] == [v.shape for v in own]:
            for source, target in zip(state, own, strict=True):
                target.assign(source)
