"""Bytes of activations while a model runs."""

from kconv.profiler.calls import size_in_bytes


def of_outputs(call):
    """Bytes of all outputs of a call."""
    pairs = zip(call.output_shapes, call.output_dtypes, strict=True)
    return sum(size_in_bytes(*pair) for pair in pairs)


def peak(calls, inputs, results):
    """The most bytes alive at once, each tensor freed after what reads it last.

    Args:
        calls: List of `Call` in the order in which they run.
        inputs: List of pairs of a key and bytes, of the tensors that the model reads.
        results: Iterable of keys of the tensors that it returns.

    Returns:
        Int. What is computed while a layer runs, and in place, is left out.
    """
    last = {}
    for n, call in enumerate(calls):
        last.update(dict.fromkeys([*call.outputs, *call.inputs], n))
    last.update(dict.fromkeys(results, len(calls)))
    alive = dict(inputs)
    most = sum(alive.values())
    for n, call in enumerate(calls):
        shapes = zip(call.outputs, call.output_shapes, call.output_dtypes, strict=True)
        for key, shape, dtype in shapes:
            alive[key] = size_in_bytes(shape, dtype)
        most = max(most, sum(alive.values()))
        for key in {*call.inputs, *call.outputs}:
            if last[key] == n:
                alive.pop(key, None)
    return most
