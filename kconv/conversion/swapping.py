"""Makes the layers of a model be of other classes, where they are.

kconv's layers are subclasses of Keras's, of the same weights. So an object can change
its class and stay what it is to all that holds it: attributes, lists, graphs, wrappers,
optimizers.
"""

import inspect

import keras

from kconv.conversion.configs import config_of
from kconv.conversion.report import Report, Row, public_name

# What `keras.Layer` makes for each object out of methods of its class.
_BOUND = "build", "quantize"


def swap(model, layer_for, operation_for):
    """Swaps the layers of a model, and the operations in the graphs in it.

    Args:
        model: A Keras model.
        layer_for: Function of a layer. It returns a new layer to take for it, of the
            same config, or None, and the sentence why not, or None.
        operation_for: The same of an operation that is no layer.

    Returns:
        A `Report`.
    """
    rows, changes = [], []
    # First all is found, then all is changed: an error leaves the model as it is.
    for path, part in _parts(model):
        is_layer = isinstance(part, keras.Layer)
        twin, reason = (layer_for if is_layer else operation_for)(part)
        if twin is not None:
            change_of = _changes if is_layer else _changes_of_operation
            changes.append(change_of(part, twin))
        if twin is not None or reason is not None:
            became = None if reason else public_name(twin)
            rows.append(Row(path, public_name(part), became, reason))
    for change in changes:
        change()
    return Report(rows)


def become(layer, twin):
    """Makes a layer one of its twin's class, with its own weights and arguments.

    Args:
        layer: A layer of Keras or kconv.
        twin: A layer of the counterpart's class or of the same, of the same config but
            for what only one class takes; not built, and of no use afterwards.
    """
    _changes(layer, twin)()


def trace_again(model):
    """Has the models in a model forget what they have traced, and leave XLA if need be.

    Args:
        model: A Keras model.
    """
    for part in model._flatten_layers():
        if not isinstance(part, keras.Model):
            continue
        part.train_function = part.test_function = part.predict_function = None
        supports_jit = all(layer.supports_jit for layer in part._flatten_layers())
        if not part.compiled or not hasattr(part, "_compile_config"):
            part._jit_compile = None  # found out when it is asked for
        elif not supports_jit:
            part._jit_compile = False
        elif part._compile_config.config["jit_compile"]:
            part.jit_compile = True  # as it was before it was converted


def _parts(model):
    """Yields each layer and operation in a model once, with its path."""
    seen, waiting = {id(model)}, [("", model)]
    while waiting:
        path, part = waiting.pop()
        if part is not model:
            yield path, part
        if not isinstance(part, keras.Layer):
            continue
        graph = part.operations if isinstance(part, keras.Function) else ()
        inside = []
        for one in (*graph, *part._layers):
            if id(one) not in seen:
                seen.add(id(one))
                inside.append((f"{path}/{one.name}" if path else one.name, one))
        waiting.extend(reversed(inside))


def _changes(layer, twin):
    """Returns a function that does what `become` does, with all that may fail done."""
    before, after = vars(type(layer).from_config(config_of(layer))), vars(twin)

    def change():
        if hasattr(layer, "release"):
            # What was prepared for another algorithm, or is of no use now.
            layer.release()
        object.__setattr__(layer, "__class__", type(twin))
        for name in before.keys() - after.keys():
            vars(layer).pop(name, None)
        for name, value in after.items():
            if name not in before or _differs(before[name], value):
                setattr(layer, name, value)
        _bind(layer)

    return change


def _differs(value, other):
    """Whether two classes make different things of the same arguments."""
    return _is_plain(other) and value != other


def _is_plain(value):
    # Objects, such as initializers and layers, are those of the layer.
    if isinstance(value, list | dict):
        return all(map(_is_plain, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bool | int | str | inspect.Signature)


def _bind(layer):
    """Has `keras.Layer` make again, of the layer's class, what it makes of methods."""

    class Existing:
        def __new__(cls):
            return layer

    kept = {name: value for name, value in vars(layer).items() if name not in _BOUND}
    for name in _BOUND:
        vars(layer).pop(name, None)
    # The last class before `object` gives the layer where a new one would be made.
    keras.Layer.__new__(type("Bound", (type(layer), Existing), {}))
    vars(layer).update(kept)


def _changes_of_operation(node, twin):
    """As `_changes`, of an operation: it is its twin, where it is in the graph."""
    place = {name: vars(node)[name] for name in ("_inbound_nodes", "_outbound_nodes")}

    def change():
        object.__setattr__(node, "__class__", type(twin))
        vars(node).clear()
        vars(node).update({**vars(twin), **place})

    return change
