"""Makes rows of calls, and the total of rows."""

from kconv.profiler import algorithms, memory
from kconv.profiler.calls import bytes_of_weight
from kconv.profiler.receptive_field import Fields
from kconv.profiler.report import LayerProfile, ReceptiveField, Total


def make(calls, names, passes):
    """Makes rows.

    Args:
        calls: List of `Call`.
        names: List of strings, of the inputs.
        passes: Tuple of strings.

    Returns:
        A tuple of `LayerProfile`, and a list of `Refusal`.
    """
    found, refusals, fields = [], {}, {}
    for call in calls:
        chosen, multiplications = {}, {}
        for pass_ in passes:
            name, done, refused = algorithms.choose(call, pass_)
            multiplications[pass_] = done
            if name is not None:
                chosen[pass_] = name
            refusals.update(dict.fromkeys(refused))
        if call.fields not in fields:
            fields[call.fields] = _fields(call.fields, names)
        found.append(_row(call, chosen, multiplications, fields[call.fields]))
    return tuple(found), list(refusals)


def _row(call, chosen, multiplications, fields):
    shapes = tuple(call.output_shapes)
    outputs = memory.of_outputs(call)
    moved = call.input_bytes + outputs
    if call.used_bytes and call.operation is not None:
        moved += call.used_bytes
    intensity = None
    if call.macs is not None:
        intensity = 2 * call.macs / moved if moved else 0.0
    return LayerProfile(
        name=call.name,
        kind=type(call.operation).__name__,
        output_shape=shapes[0] if len(shapes) == 1 else shapes,
        parameters=sum(map(_size, call.weights)),
        trainable_parameters=sum(_size(one) for one in call.weights if one.trainable),
        macs=call.macs,
        activation_bytes=outputs,
        weight_bytes=sum(map(bytes_of_weight, call.weights)),
        intensity=intensity,
        receptive_fields=fields,
        merged_fields=call.fields.merged,
        algorithms=chosen,
        multiplications=multiplications,
        note=call.note,
    )


def _size(weight):
    size = 1
    for n in weight.shape:
        size *= n
    return size


def _fields(fields: Fields, names):
    """Tuple of distinct `ReceptiveField`, smallest first; None if one is unknown."""
    if any(path.moved for path in fields.paths):
        return None
    found = {
        ReceptiveField(
            names[path.source],
            tuple(axis.size for axis in path.axes),
            tuple(_plain(axis.stride) for axis in path.axes),
            tuple(_plain(axis.centre) for axis in path.axes),
        )
        for path in fields.paths
    }
    return tuple(sorted(found, key=_order))


def _order(field):
    centre = tuple(0 if one is None else one for one in field.centre)
    return field.size, field.input, field.stride, centre


def _plain(number):
    if number is None or number.denominator > 1:
        return number
    return int(number)


def total(rows, tracer, results, passes):
    """Adds rows up.

    Args:
        rows: Tuple of `LayerProfile`.
        tracer: The `Tracer` that made them.
        results: List of the keys of the model's outputs.
        passes: Tuple of strings.

    Returns:
        A `Total`.
    """
    counted = [row for row in rows if row.macs is not None]
    return Total(
        parameters=sum(row.parameters for row in rows),
        trainable_parameters=sum(row.trainable_parameters for row in rows),
        macs=sum(row.macs for row in counted),
        uncounted=len(rows) - len(counted),
        activation_bytes=sum(row.activation_bytes for row in rows),
        peak_bytes=memory.peak(tracer.calls, tracer.inputs, results),
        weight_bytes=sum(row.weight_bytes for row in rows),
        multiplications={
            pass_: sum(row.multiplications[pass_] for row in counted)
            for pass_ in passes
        },
    )
