"""The largest workspace that kconv's algorithms ask for in a model."""

from kconv import dispatch
from kconv.benchmark.model_calls import shapes_of
from kconv.benchmark.subjects import PREDICT
from kconv.profiler import inputs
from kconv.profiler.algorithms import explain
from kconv.profiler.calls import Tracer


def peak(model, subject):
    """Bytes of the largest workspace of any convolution of a model.

    As the algorithms that are chosen tell it, for one thread each.

    Args:
        model: A Keras model of kconv's layers.
        subject: A `Subject`.

    Returns:
        Int.
    """
    passes = dispatch.PASSES[:1] if subject.pass_ == PREDICT else dispatch.PASSES
    shapes = shapes_of(model, subject)
    tensors = inputs.tensors(model, shapes, subject.batch, None)
    tracer = Tracer()
    tracer.trace(model, tensors, inputs.fields(model, shapes))
    return max(
        (
            _workspace(explain(one, pass_, call.dtype))
            for call in tracer.calls
            for one in call.convolutions
            for pass_ in passes
        ),
        default=0,
    )


def _workspace(told):
    rows = {row.algorithm: row.workspace or 0 for row in told.candidates}
    return rows.get(told.chosen, 0)
