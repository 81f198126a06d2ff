"""What of Keras the profiler needs and has no public name.

Keras has no hook that sees each call of a layer or an operation, so for as long as a
model is traced these stand in the place of its methods. A call with symbolic tensors
would leave nodes behind on layers, and each operation that is made counts up the names
of later ones: the first are not made, the second is put back.
"""

import contextlib
import inspect
import threading

import keras
from keras.src.backend.common import global_state
from keras.src.ops.node import Node

_lock = threading.RLock()
_NAMES = "object_name_uids"


@contextlib.contextmanager
def hooks(layer_call, layer_symbolic_call, operation_call, operation_symbolic_call):
    """Replaces four methods of Keras in this thread.

    Args:
        layer_call: In the place of `keras.Layer.__call__`. It is a function, as the
            others are, of the object, the original method, its positional arguments (a
            tuple) and the others (a dictionary).
        layer_symbolic_call: In the place of `keras.Layer.symbolic_call`.
        operation_call: In the place of `keras.Operation.__call__`.
        operation_symbolic_call: In the place of `keras.Operation.symbolic_call`.

    Yields:
        Nothing.
    """
    places = {
        (keras.Layer, "__call__"): layer_call,
        (keras.Layer, "symbolic_call"): layer_symbolic_call,
        (keras.Operation, "__call__"): operation_call,
        (keras.Operation, "symbolic_call"): operation_symbolic_call,
    }
    with _replaced(places):
        yield


@contextlib.contextmanager
def no_nodes():
    """Has calls with symbolic tensors leave no nodes on layers, in this thread.

    Those of graphs that are built meanwhile, from a `keras.Input` on, stay.
    """
    with _replaced({(Node, "__init__"): _node}):
        yield


def _node(node, original, args, kwargs):
    # Not made and taken away again: other threads may count nodes meanwhile.
    given = inspect.signature(original).bind(node, *args, **kwargs).arguments
    read = keras.tree.flatten((given.get("call_args"), given.get("call_kwargs")))
    read = [one for one in read if isinstance(one, keras.KerasTensor)]
    # That of a `keras.Input` reads nothing.
    if not read or any(hasattr(one, "_keras_history") for one in read):
        original(node, *args, **kwargs)


@contextlib.contextmanager
def _replaced(places):
    """Puts functions in the places of methods in this thread."""
    with _lock:
        originals = {place: vars(place[0])[place[1]] for place in places}
        try:
            for (owner, name), function in places.items():
                original = originals[owner, name]
                setattr(owner, name, _in_this_thread(function, original))
            yield
        finally:
            for (owner, name), original in originals.items():
                setattr(owner, name, original)


def _in_this_thread(function, original):
    thread = threading.get_ident()

    def method(self, *args, **kwargs):
        if threading.get_ident() != thread:
            return original(self, *args, **kwargs)
        return function(self, original, args, kwargs)

    return method


@contextlib.contextmanager
def names_kept():
    """Has operations that are made later get the names that they would have had."""
    before = global_state.get_global_attribute(_NAMES)
    kept = None if before is None else before.copy()
    try:
        yield
    finally:
        after = global_state.get_global_attribute(_NAMES)
        if after is not None:
            after.clear()
            after.update(kept or {})


def layers_in(layer):
    """Yields a layer and all that it holds, each once."""
    seen, waiting = set(), [layer]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, keras.Layer) and id(one) not in seen:
            seen.add(id(one))
            yield one
            # `layers` of a model leaves out those that it does not call.
            waiting = [*one._layers, *waiting]
