"""Copies of models: the same but for their variables, which are their own."""

import inspect
import tempfile
import warnings

import keras

from kconv.conversion.configs import config_of, is_known
from kconv.conversion.counterparts import KCONV, STOCK
from kconv.conversion.swapping import become

# What Keras adds to the configs of all layers, whether or not the constructor takes it.
_OF_ALL_LAYERS = {"name", "trainable", "dtype", "activity_regularizer"}


class CannotCopyError(ValueError):
    """A layer, or a model, that cannot be made again."""

    def __init__(self, layer, reason):
        super().__init__(
            f"{reason} Without a copy, `in_place=True` swaps the layers of any model. "
            f"{told(layer)}"
        )


class Copier:
    """Copies layers, a shared one once."""

    def __init__(self):
        self.copies = {}  # id of a layer or an operation -> its copy
        self.originals = {}  # id of a copy -> id of what it is a copy of

    def copy_of(self, model):
        """Returns the copy of a model, not compiled.

        Args:
            model: A Keras model.

        Returns:
            A model.

        Raises:
            ValueError: If the model cannot be made again.
        """
        with keras.saving.custom_object_scope(_classes_in(model)):
            copy = self.copy(model)
            self.copy_state(model)
        return copy

    def copy(self, layer):
        """Returns the copy of a layer, an operation or a model, without its state."""
        if id(layer) not in self.copies:
            if isinstance(layer, keras.Sequential):
                copy = self._copy_sequential(layer)
            elif is_graph(layer):
                copy = self._copy_functional(layer)
            else:
                copy = self._copy_layer(layer)
            self.copies[id(layer)] = copy
        return self.copies[id(layer)]

    def copy_state(self, layer):
        """Gives the copy of a layer the layer's state and trainable flags."""
        copy = self.copies[id(layer)]
        self._pair(layer, copy)
        if is_graph(layer):
            _copy_policies(layer, copy)
            for part in layer._layers:
                if id(part) in self.copies:
                    self.copy_state(part)
                elif not isinstance(part, keras.layers.InputLayer):
                    raise CannotCopyError(
                        layer,
                        f"The model holds layer {part.name!r} beside those that its "
                        "constructor takes.",
                    )
            _copy_variables(layer, copy)
            if layer.built and not copy.built:  # a stack without a graph
                copy.built, copy._build_shapes_dict = True, layer._build_shapes_dict
            return
        _name(layer, copy)
        with warnings.catch_warnings():
            # Parts that are not built by the whole are built one by one.
            warnings.filterwarnings("ignore", ".*cannot be built automatically")
            warnings.filterwarnings("ignore", ".*looks like it has unbuilt state")
            _build(layer, copy)
        pairs = list(self._pairs(layer, copy))
        _check_variables(layer, copy)
        for part, own in pairs:
            _copy_policies(part, own)
            _copy_own_state(part, own)
            own.name, own._path = part.name, part.path
        # The rest: states of random generators, and LoRA, which was merged above.
        _copy_variables(layer, copy)
        for part, own in pairs:
            if not is_known(type(part)):  # somebody's code made the layers in it
                for inner in zip(part._layers, own._layers, strict=True):
                    _check_alike(*inner)

    # Not keras.models.clone_model for the whole: it compiles the models on the way, and
    # fails where that fails.

    def _copy_sequential(self, model):
        _check_constructor(model, "layers")
        parts = [self.copy(layer) for layer in model.layers]
        inputs = getattr(model, "inputs", None)  # a stack without a graph has none
        if model.built and inputs:
            parts.insert(0, _copy_input(inputs[0]))
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
        try:
            config = config_of(layer)
            if type(layer) is keras.layers.Lambda:
                return keras.layers.Lambda(**config)  # its from_config wants bytecode
            if _is_plain_wrapper(layer):  # around a layer that may be elsewhere too
                return type(layer)(**{**config, "layer": self.copy(layer.layer)})
            return type(layer).from_config(_accepted(type(layer), config))
        except CannotCopyError:
            raise
        except Exception as error:  # of a class that may do what it likes
            raise CannotCopyError(
                layer, f"It cannot be made again from its config: {_first_line(error)}"
            ) from error

    def _pair(self, part, copy):
        """Notes what the copy of a layer is, which must be one and of it alone."""
        one_copy = self.copies.setdefault(id(part), copy) is copy
        if not one_copy or self.originals.setdefault(id(copy), id(part)) != id(part):
            raise CannotCopyError(
                part, "It is shared by layers whose configs do not tell so."
            )

    def _pairs(self, layer, copy):
        """Yields all layers in a layer, from the outside in, each with its copy."""
        self._pair(layer, copy)
        yield layer, copy
        _swap_alike(layer, copy)
        kinds = [[type(part) for part in one._layers] for one in (layer, copy)]
        if kinds[0] != kinds[1]:
            raise CannotCopyError(
                layer,
                "When it is made again from its config, it does not hold the same "
                "layers.",
            )
        for part, own in zip(layer._layers, copy._layers, strict=True):
            yield from self._pairs(part, own)


def told(model):
    """Returns what an error message says of a layer or model that was given."""
    name = "model" if isinstance(model, keras.Model) else "layer"
    return f"Received: {name}={model!r} of type {type(model).__name__}"


def _first_line(error):
    return str(error).strip().partition("\n")[0]


def is_graph(layer):
    """Whether a layer is Sequential or, which has no public name, Functional."""
    functional = isinstance(layer, keras.Model) and isinstance(layer, keras.Function)
    return functional or isinstance(layer, keras.Sequential)


def compile_alike(model, copy):
    """Compiles the copy of a compiled model, with the state of the optimizer.

    Args:
        model: A Keras model.
        copy: The copy of it.

    Returns:
        String, what is lost, or None.
    """
    if not model.compiled:
        return None
    with warnings.catch_warnings():
        # kconv's layers are never for XLA.
        warnings.filterwarnings("ignore", "Model doesn't support `jit_compile=True`")
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


def _classes_in(model):
    """The classes of layers in a model that Keras may not find, by their names."""
    classes = {}
    for kind in {type(layer) for layer in model._flatten_layers()}:
        if not is_known(kind):
            classes.setdefault(keras.saving.get_registered_name(kind), []).append(kind)
    return {name: kinds[0] for name, kinds in classes.items() if len(kinds) == 1}


def _copy_input(tensor):
    layer = tensor._keras_history.operation
    return type(layer).from_config(layer.get_config()).output


def _check_constructor(model, *names):
    """Raises an error unless a model's class is constructed from these arguments."""
    signature = inspect.signature(type(model).__init__)
    try:
        given = signature.bind(model, *names, name=model.name).arguments
    except TypeError:
        given = {}
    # By these names, or by *args.
    if names not in given.values() and any(given.get(name) != name for name in names):
        raise CannotCopyError(
            model,
            f"The constructor of a model's class must take {' and '.join(names)} and a "
            "name, for the model to be made again.",
        )


def _is_plain_wrapper(layer):
    wrapper = keras.layers.Wrapper
    return isinstance(layer, wrapper) and (
        type(layer).from_config.__func__ is wrapper.from_config.__func__
    )


def _accepted(kind, config):
    """Leaves out of a config what Keras adds and the constructor does not take."""
    made_by = keras.Operation.from_config.__func__, keras.Model.from_config.__func__
    parameters = inspect.signature(kind.__init__).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    if takes_all or kind.from_config.__func__ not in made_by:
        return config
    added = _OF_ALL_LAYERS - parameters.keys()
    return {name: value for name, value in config.items() if name not in added}


def _swap_alike(layer, copy):
    """Swaps in a layer what was swapped in another, and is not in its config."""
    for part, own in zip(layer._layers, copy._layers, strict=False):
        kind = type(own)
        if type(part) in (KCONV.get(kind), STOCK.get(kind)):
            config, made = config_of(part), config_of(own)
            config.update({key: made[key] for key in config.keys() & made.keys()})
            become(own, type(part).from_config(config))


def _name(layer, copy):
    """Gives the layers in a layer the names and policies that they are built with."""
    copy.name = layer.name
    _copy_policy("dtype_policy", layer, copy)
    _swap_alike(layer, copy)
    # There may be less in the copy: what is made when it is built comes later.
    for part, own in zip(layer._layers, copy._layers, strict=False):
        _name(part, own)


def _build(layer, copy):
    """Builds the layers in a layer that are built in another."""
    to_build = layer.built and not copy.built
    is_default = getattr(copy.build, "_is_default", False)
    if to_build and not is_default:
        try:
            copy.build_from_config(layer.get_build_config())
        except Exception as error:  # of a class that may do what it likes
            raise CannotCopyError(
                layer, f"It cannot be built again: {_first_line(error)}"
            ) from error
    for part, own in zip(layer._layers, copy._layers, strict=False):
        _build(part, own)
    if to_build and is_default:
        # Its parts were built when it was called, and are built now.
        copy.build(None)
        copy._build_shapes_dict = layer._build_shapes_dict


def _check_alike(layer, copy):
    """Raises an error if a layer of Keras or kconv has other arguments than another."""
    if not is_known(type(layer)) or layer._layers:
        return
    try:
        alike = layer.get_config() == copy.get_config()
    except (ValueError, TypeError, NotImplementedError):  # not known, or of arrays
        return
    if not alike:
        raise CannotCopyError(
            layer,
            "When what it is in is made again from its config, it does not have the "
            "same arguments.",
        )


def _copy_policies(layer, copy):
    # From the outside in: setting the flag of a layer sets those of its parts.
    for name in ("trainable", "dtype_policy"):
        _copy_policy(name, layer, copy)


def _copy_policy(name, layer, copy):
    if getattr(copy, name) != getattr(layer, name):
        setattr(copy, name, getattr(layer, name))


def _variables(layer):
    """All variables of a layer; of a graph those that are not of its layers."""
    parts = layer._layers if is_graph(layer) else ()
    inside = {id(variable) for part in parts for variable in part.variables}
    return [variable for variable in layer.variables if id(variable) not in inside]


def _check_variables(layer, copy):
    shapes = [[v.shape for v in _variables(one)] for one in (layer, copy)]
    if shapes[0] != shapes[1]:
        raise CannotCopyError(
            layer,
            "When it is made again and built, it does not have the same variables.",
        )


def _copy_variables(layer, copy):
    _check_variables(layer, copy)
    pairs = zip(_variables(layer), _variables(copy), strict=True)
    for variable, own in pairs:
        own.assign(variable)
        own._path = variable.path
        if own.trainable != variable.trainable:
            own.trainable = variable.trainable


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
