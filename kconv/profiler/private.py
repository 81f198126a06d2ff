"""What of Keras the profiler needs and has no public name.

Keras has no hook that sees each call of a layer or an operation, so for as long as a
model is traced these stand in the place of its methods. A call with symbolic tensors
leaves nodes behind on layers, and each operation that is made counts up the names
of later ones: both are put back.
"""

import contextlib
import threading

import keras
from keras.src.backend.common import global_state

_lock = threading.RLock()
_NODES = "_inbound_nodes", "_outbound_nodes"
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


class Nodes:
    """Takes the nodes away again that calls leave on operations."""

    def __init__(self):
        self._before = {}

    def remember(self, operation):
        """Keeps in mind which nodes an operation has, before it is called."""
        if id(operation) not in self._before:
            lengths = tuple(len(vars(operation)[name]) for name in _NODES)
            self._before[id(operation)] = operation, lengths

    def restore(self):
        """Takes away all that came since."""
        for operation, lengths in self._before.values():
            for name, length in zip(_NODES, lengths, strict=True):
                del vars(operation)[name][length:]


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
