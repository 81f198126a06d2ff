"""Traces a model: each call of a layer or an operation, with shapes, work and fields.

The model is called with symbolic tensors, and what it calls is written down. Where a
`call` takes no symbolic tensors of Keras, for it uses TensorFlow's operations, it is
traced into a graph of TensorFlow instead.
"""

import dataclasses
import math

import keras
import tensorflow as tf

from kconv.profiler import graphs, kinds, macs, private, rules
from kconv.profiler import receptive_field as rf


@dataclasses.dataclass
class Call:
    """A call of a layer or an operation.

    Attributes:
        operation: A `keras.Operation`, such as a layer.
        name: String, its path through the layers that call it.
        arguments: Tuple, its positional arguments.
        operands: List of pairs of a shape and `Fields`, of all that has a shape among
            its arguments.
        inputs: List of keys of the tensors that it reads.
        outputs: List of keys of the tensors that it makes.
        output_shapes: List of tuples of ints.
        output_dtypes: List of strings.
        input_bytes: Int.
        weights: List of variables that no call before holds.
        used_bytes: Int, bytes of all its variables.
        macs: Int, or None where that is not known.
        fields: `Fields` of the outputs.
        convolutions: Tuple of `Convolution`.
        dtype: String, the dtype of the first input.
        note: String.
    """

    operation: object
    name: str
    arguments: tuple = ()
    operands: list = dataclasses.field(default_factory=list)
    inputs: list = dataclasses.field(default_factory=list)
    outputs: list = dataclasses.field(default_factory=list)
    output_shapes: list = dataclasses.field(default_factory=list)
    output_dtypes: list = dataclasses.field(default_factory=list)
    input_bytes: int = 0
    weights: list = dataclasses.field(default_factory=list)
    used_bytes: int = 0
    macs: int | None = 0
    fields: rf.Fields = dataclasses.field(default_factory=rf.Fields)
    convolutions: tuple = ()
    dtype: str = "float32"
    note: str = ""

    @property
    def shapes(self):
        """Shapes of the operands."""
        return [shape for shape, _ in self.operands]

    @property
    def output_shape(self):
        """Shape of the first output."""
        return self.output_shapes[0]


class Tracer:
    """Writes down the calls that a model makes.

    Attributes:
        calls: List of `Call`, in the order in which they are made.
        inputs: List of pairs of a key and the bytes of the tensor.
    """

    def __init__(self):
        self.calls = []
        self.inputs = []
        self._fields = {}
        self._aliases = {}
        self._alive = []  # else another tensor might get the same id
        self._counted = set()
        self._path = []
        self._waiting = []  # layers whose `call` comes next
        self._is_recording = False
        self._graph = None

    def trace(self, model, inputs, fields):
        """Calls the model.

        Args:
            model: A `keras.Layer`.
            inputs: List of the positional arguments: structures of `keras.KerasTensor`.
            fields: List of `Fields` of the tensors in them.

        Returns:
            List of the keys of its outputs.
        """
        for tensor, found in zip(keras.tree.flatten(inputs), fields, strict=True):
            key = self._key(tensor)
            self._fields[key] = found
            self.inputs.append((key, size_in_bytes(tensor.shape, tensor.dtype)))
        hooks = private.hooks(
            self._layer_call,
            self._layer_symbolic_call,
            self._operation_call,
            self._operation_symbolic_call,
        )
        with private.names_kept(), private.no_nodes(), hooks:
            try:
                self._is_recording = True
                results = model(*inputs)
            finally:
                self._is_recording = False
        flat = keras.tree.flatten(results)
        return [self._known(self._key(one)) for one in flat]

    # What Keras calls.

    def _layer_call(self, layer, original, args, kwargs):
        if not self._is_recording:
            return original(layer, *args, **kwargs)
        self._path.append(layer.name)
        try:
            if _is_symbolic((args, kwargs)):
                self._waiting.append(layer)
                # Until it comes to `call`, Keras casts, builds and masks.
                with self._silence():
                    return original(layer, *args, **kwargs)
            return self._in_graph_call(layer, original, args, kwargs)
        finally:
            self._path.pop()

    def _layer_symbolic_call(self, layer, original, args, kwargs):
        if not self._waiting or self._waiting[-1] is not layer:
            return original(layer, *args, **kwargs)
        self._waiting.pop()
        kind = kinds.find(layer)
        if kind is not None:
            outputs = original(layer, *args, **kwargs)
            if isinstance(layer, keras.layers.EinsumDense):
                outputs = _of_this_size(layer, args[0], outputs)
            self._record(layer, kind, args, kwargs, outputs)
            return outputs
        if isinstance(layer, keras.layers.TimeDistributed):
            return self._time_distributed(layer, original, args, kwargs)
        if isinstance(layer, keras.layers.Bidirectional):
            return self._bidirectional(layer, original, args, kwargs)
        return self._look_into(layer, original, args, kwargs)

    def _operation_call(self, operation, original, args, kwargs):
        is_node = self._is_recording and not isinstance(operation, keras.Layer)
        if not is_node or _is_symbolic((args, kwargs)):
            return original(operation, *args, **kwargs)
        start = self._graph.position()
        with self._silence():
            outputs = original(operation, *args, **kwargs)
        self._graph.explained(start)
        self._record_operation(operation, args, kwargs, outputs)
        return outputs

    def _operation_symbolic_call(self, operation, original, args, kwargs):
        with self._silence():
            outputs = original(operation, *args, **kwargs)
        name = type(operation).__name__
        plain = name == "ConvertToTensor" or (name == "Cast" and not self._is_recording)
        if plain and args and _is_symbolic((args[0],)):
            # What Keras does on the way; not an operation of the model.
            self._alias(outputs, args[0])
        elif self._is_recording:
            self._record_operation(operation, args, kwargs, outputs)
        return outputs

    def _record_operation(self, operation, args, kwargs, outputs):
        kind = kinds.find(operation) or kinds.UNKNOWN
        self._path.append(operation.name)
        try:
            self._record(operation, kind, args, kwargs, outputs)
        finally:
            self._path.pop()

    # Layers that hold others, or whose class is not known.

    def _look_into(self, layer, original, args, kwargs):
        start, counted = len(self.calls), set(self._counted)
        try:
            with self._recording():
                outputs = layer.call(*args, **kwargs)
            if not all(map(_is_tensor, keras.tree.flatten(outputs))):
                raise TypeError("not symbolic")
        except Exception:  # whatever a `call` may raise that gets no values
            del self.calls[start:]
            self._counted = set(counted)
            if isinstance(layer, keras.Function | keras.Sequential):
                raise  # it only calls layers, and one of them takes no such input
            try:
                outputs = self._in_graph(layer, args, kwargs)
            except Exception:
                del self.calls[start:]
                self._counted = counted
                return self._not_traced(layer, original, args, kwargs)
        self._close(layer, start, args, kwargs, outputs)
        return outputs

    def _not_traced(self, layer, original, args, kwargs):
        """A row of a layer that tells its shape, but not what it computes."""
        with self._silence():
            outputs = original(layer, *args, **kwargs)
        self._record(layer, kinds.UNKNOWN, args, kwargs, outputs)
        self.calls[-1].note = "not counted: its call cannot be traced"
        return outputs

    def _close(self, layer, start, args, kwargs, outputs):
        """Makes one row of a layer that calls operations only; tells of its weights."""
        inside = self.calls[start:]
        if [call.operation for call in inside] == [layer]:
            # Only what its TensorFlow operations do: the weights are theirs.
            (call,) = inside
            call.name, call.weights = self._name(), self._take_weights(layer)
            call.used_bytes = sum(map(bytes_of_weight, layer.weights))
            return
        holds = isinstance(layer, keras.Model) or any(
            isinstance(call.operation, keras.Layer) for call in inside
        )
        if not holds:
            fields = [self._fields_of(one) for one in keras.tree.flatten(outputs)]
            del self.calls[start:]
            self._record(layer, kinds.UNKNOWN, args, kwargs, outputs, fields)
            missing = [call.macs is None for call in inside]
            call = self.calls[-1]
            call.macs = None if any(missing) else sum(one.macs for one in inside)
            call.convolutions = sum((one.convolutions for one in inside), ())
            call.note = "; ".join(dict.fromkeys(c.note for c in inside if c.note))
            return
        self._record_own(layer, start)

    def _record_own(self, layer, start):
        """A row for weights that a layer holds itself."""
        own = self._take_weights(layer)
        if own:
            call = Call(layer, self._name(), weights=own)
            call.used_bytes = sum(map(bytes_of_weight, own))
            call.note = "weights that no layer called inside holds"
            self.calls.insert(start, call)

    def _time_distributed(self, layer, original, args, kwargs):
        """Its layer, with the steps as so many more images."""
        inputs = args[0]
        batch, steps, *rest = inputs.shape
        step = keras.KerasTensor((batch * steps, *rest), dtype=inputs.dtype)
        fields = self._fields_of(inputs).collapse((batch,), [0])
        merged = [0, 0, *range(1, len(rest) + 1)]
        self._alias(step, inputs, fields.place(merged))
        start = len(self.calls)
        with self._recording():
            inner = layer.layer(step)
        with self._silence():
            outputs = original(layer, *args, **kwargs)
        found = self._fields_of(inner)
        back = {0: 1, **{n: n + 1 for n in range(1, len(inner.shape))}}
        self._alias(outputs, inner, found.place(back))
        self._close(layer, start, args, kwargs, outputs)
        return outputs

    def _bidirectional(self, layer, original, args, kwargs):
        start = len(self.calls)
        states = kwargs.get("initial_state")
        half = None if states is None else len(states) // 2
        halves = (None, None) if states is None else (states[:half], states[half:])
        with self._recording():
            for one, state in zip(
                (layer.forward_layer, layer.backward_layer), halves, strict=True
            ):
                one(args[0], initial_state=state)
        made = [key for call in self.calls[start:] for key in call.outputs[:1]]
        with self._silence():
            outputs = original(layer, *args, **kwargs)
        halves = rf.union(call.fields for call in self.calls[start:])
        kind = kinds.Kind(lambda call: 0, lambda call: halves)
        self._record(layer, kind, args, {}, outputs)
        self.calls[-1].inputs = made
        self.calls[-1].note = ""
        return outputs

    # In a graph of TensorFlow.

    def _in_graph(self, layer, args, kwargs):
        """Traces a `call` into a graph; returns symbolic tensors of Keras."""
        args, kwargs = keras.tree.map_structure(self._dense, (args, kwargs))
        given = [one for one in keras.tree.flatten((args, kwargs)) if _is_tensor(one)]
        tracer, outer, made = self, self._graph, []

        class InGraph(keras.Operation):
            def call(self, *args, **kwargs):
                flat = keras.tree.flatten((args, kwargs))
                tensors = [one for one in flat if _is_tensor(one)]
                for symbolic, tensor in zip(given, tensors, strict=True):
                    key = tracer._known(tracer._key(symbolic))
                    if key in tracer._fields:
                        tracer._aliases[tracer._key(tensor)] = key
                tracer._graph = graphs.Graph(tensors)
                outputs = layer.call(*args, **kwargs)
                flat = keras.tree.flatten(outputs)
                for one in flat:
                    tracer._graph.read.extend(tracer._sources(one))
                made.extend((tracer._key(one), tracer._fields_of(one)) for one in flat)
                return outputs

        try:
            with self._recording():
                outputs = InGraph().compute_output_spec(*args, **kwargs)
            graph = self._graph
        finally:
            self._graph = outer
        flat = keras.tree.flatten(outputs)
        for tensor, (key, fields) in zip(flat, made, strict=True):
            self._aliases[self._key(tensor)] = self._known(key)
            self._fields[self._key(tensor)] = fields
        self._rest_of_graph(layer, graph, flat)
        return outputs

    def _dense(self, value):
        """A tensor that no operation takes for sparse, as Keras does `x * 2`."""
        if not isinstance(value, keras.KerasTensor) or not value.sparse:
            return value
        dense = keras.KerasTensor(value.shape, dtype=value.dtype)
        self._alias(dense, value)
        return dense

    def _rest_of_graph(self, layer, graph, outputs):
        """A row for the operations of TensorFlow that no layer of it explains."""
        found, left = graph.macs()
        made = {key for call in self.calls for key in call.outputs}
        own = [one for one in outputs if self._known(self._key(one)) not in made]
        if not (found or left or own):
            return
        call = Call(layer, f"{self._name()}/tensorflow", macs=None if left else found)
        call.note = "TensorFlow operations in its call"
        if left:
            call.note += ", not counted: " + ", ".join(left)
        call.fields = rf.union([rf.Fields(), *map(self._fields_of, outputs)])
        call.outputs = [self._known(self._key(one)) for one in own]
        call.output_shapes = [tuple(one.shape) for one in own]
        call.output_dtypes = [keras.backend.standardize_dtype(o.dtype) for o in own]
        call.inputs = graph.read
        sizes = dict(self.inputs)
        for one in self.calls:
            shapes = zip(one.output_shapes, one.output_dtypes, strict=True)
            sizes |= zip(one.outputs, (size_in_bytes(*s) for s in shapes), strict=True)
        call.input_bytes = sum(sizes.get(key, 0) for key in set(graph.read))
        self.calls.append(call)

    def _in_graph_call(self, layer, original, args, kwargs):
        kind = kinds.find(layer)
        start, position = len(self.calls), self._graph.position()
        if kind is not None:
            with self._silence():
                outputs = original(layer, *args, **kwargs)
            self._graph.explained(position)
            self._record(layer, kind, args, kwargs, outputs)
            return outputs
        outputs = original(layer, *args, **kwargs)
        self._record_own(layer, start)
        return outputs

    # Rows.

    def _record(self, operation, kind, args, kwargs, outputs, fields=None):
        call = Call(operation, self._name(), arguments=args)
        is_layer = isinstance(operation, keras.Layer)
        if is_layer:
            kwargs = {k: v for k, v in kwargs.items() if not k.endswith("mask")}
        for one in keras.tree.flatten((args, kwargs)):
            if not hasattr(one, "shape") or not hasattr(one, "dtype"):
                continue
            shape = tuple(one.shape)
            known = _is_tensor(one)
            call.operands.append(
                (shape, self._fields_of(one) if known else rf.Fields())
            )
            if known:
                if not call.inputs:
                    call.dtype = keras.backend.standardize_dtype(one.dtype)
                call.inputs.extend(self._sources(one))
            call.input_bytes += size_in_bytes(shape, one.dtype)
        flat = [one for one in keras.tree.flatten(outputs) if _is_tensor(one)]
        call.output_shapes = [tuple(one.shape) for one in flat]
        call.output_dtypes = [keras.backend.standardize_dtype(o.dtype) for o in flat]
        call.outputs = [self._key(one) for one in flat]
        if is_layer:
            call.used_bytes = sum(map(bytes_of_weight, operation.weights))
            call.weights = self._take_weights(operation)
            if operation.weights and not call.weights:
                call.note = "weights counted above"
        try:
            call.macs = kind.macs(call)
            call.convolutions = kind.convolutions(call) if kind.convolutions else ()
        except (AttributeError, TypeError, ValueError, IndexError):
            call.macs = None
        if call.macs is None and fields is None:
            call.note = "not counted"
        if fields is None:
            seen = self._seen(kind, call)
            fields = seen if isinstance(seen, list) else [seen] * len(flat)
        call.fields = rf.union(fields)
        for one, found in zip(flat, fields, strict=True):
            self._fields[self._key(one)] = found
            self._aliases.pop(self._key(one), None)
        self.calls.append(call)

    def _seen(self, kind, call):
        try:
            return kind.fields(call)
        except (AttributeError, TypeError, ValueError, LookupError):
            return rules.unknown(call)

    def _take_weights(self, layer):
        """The weights of a layer that were not counted yet; now they are."""
        found = [one for one in layer.weights if id(one) not in self._counted]
        self._counted.update(map(id, found))
        return found

    def _name(self):
        return "/".join(self._path[1:]) or self._path[0]

    # Tensors.

    def _key(self, tensor):
        self._alive.append(tensor)
        if isinstance(tensor, keras.KerasTensor):
            return id(tensor)
        return graphs.key(tensor)

    def _known(self, key):
        while key in self._aliases:
            key = self._aliases[key]
        return key

    def _alias(self, tensor, same, fields=None):
        """Says that a tensor is another one, for all that rows tell."""
        fields = self._fields_of(same) if fields is None else fields
        self._aliases[self._key(tensor)] = self._known(self._key(same))
        self._fields[self._key(tensor)] = fields

    def _fields_of(self, tensor):
        key = self._key(tensor)
        if key in self._fields:
            return self._fields[key]
        if self._known(key) in self._fields:
            return self._fields[self._known(key)]
        if isinstance(tensor, keras.KerasTensor):
            return rf.Fields()
        return self._graph.fields(tensor, self._fields_of_known)

    def _fields_of_known(self, tensor):
        key = self._known(self._key(tensor))
        return self._fields.get(key)

    def _sources(self, tensor):
        """Keys of the tensors with a row that this one is, or is made of."""
        key = self._known(self._key(tensor))
        if key in self._fields or isinstance(tensor, keras.KerasTensor):
            return [key] if key in self._fields else []
        tensors = self._graph.sources(tensor, self._fields_of_known)
        return [self._known(self._key(one)) for one in tensors]

    # Modes.

    def _silence(self):
        return _Mode(self, False)

    def _recording(self):
        return _Mode(self, True)


class _Mode:
    """Whether calls are written down, for as long as this lasts."""

    def __init__(self, tracer, is_recording):
        self._tracer, self._wanted = tracer, is_recording

    def __enter__(self):
        self._before = self._tracer._is_recording
        self._tracer._is_recording = self._wanted

    def __exit__(self, *_):
        self._tracer._is_recording = self._before


def size_in_bytes(shape, dtype):
    """Bytes of a tensor; strings count as none."""
    name = keras.backend.standardize_dtype(dtype)
    return math.prod(shape) * (0 if name == "string" else tf.as_dtype(name).size)


def bytes_of_weight(weight):
    """Bytes of a variable."""
    return size_in_bytes(weight.shape, weight.dtype)


def _of_this_size(layer, inputs, outputs):
    """The output of an `EinsumDense`, whose own shape is that it was built for."""
    shapes = tuple(inputs.shape), tuple(layer.kernel.shape)
    letters, result = macs.letters_of(layer.equation, shapes)
    sizes = {}
    for mine, shape in zip(letters, shapes, strict=True):
        sizes.update(zip(mine, shape, strict=True))
    return keras.KerasTensor([sizes[one] for one in result], dtype=outputs.dtype)


def _is_tensor(value):
    """Whether a value is symbolic, of Keras or of a graph: not a constant."""
    if isinstance(value, tf.Tensor):
        return not hasattr(value, "numpy")
    return isinstance(value, keras.KerasTensor)


def _is_symbolic(structure):
    return any(isinstance(v, keras.KerasTensor) for v in keras.tree.flatten(structure))
