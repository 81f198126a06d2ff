"""What a model costs, layer by layer: `kconv.profile`."""

import contextlib
import re

import keras

from kconv import dispatch
from kconv.profiler import inputs, private, rows
from kconv.profiler.calls import Tracer
from kconv.profiler.report import (
    LayerProfile,
    Profile,
    ReceptiveField,
    Refusal,
    Total,
)
from kconv.spec import is_integer

__all__ = ["LayerProfile", "Profile", "ReceptiveField", "Refusal", "Total", "profile"]


def profile(
    model,
    input_shape=None,
    batch_size=1,
    passes=("forward",),
    refusals=False,
    input_dtype=None,
):
    """Tells what a model costs: work, memory, receptive fields, algorithms.

    The model may be any of Keras, with stock layers or kconv's. It is traced with
    symbolic tensors: nothing is computed, no memory is taken for activations, and the
    model stays as it is. One that has not been built is built for the shape.

    A layer that is called several times has a row for each call; its weights count in
    the first. A layer that holds others, or whose class is not known, is looked into.
    What cannot be counted has `macs=None` and a note, and the total says how many rows
    do.

    Args:
        model: A `keras.Model`, or another layer.
        input_shape: Tuple of ints, without the batch; a list or dictionary of them for
            several inputs. Needed where the model does not know its sizes.
        batch_size: Positive int, the images of a batch. MACs and bytes of activations
            are those of the batch.
        passes: Passes to name the algorithms of: `"forward"`, `"input_gradient"`,
            `"filter_gradient"`.
        refusals: Bool, whether to collect why algorithms do not take convolutions.
        input_dtype: String, the dtype of the inputs, where the model does not tell.

    Returns:
        A `Profile`. `str()` of it is a table, and `show()` prints one; `to_dict()`,
        `to_json(path)`, `to_csv(path)` and `plot(path)` pass it on.

    Raises:
        ValueError: If an argument is wrong, or the model does not take the shape.

    Example:

    >>> profile = kconv.profile(keras.applications.ResNet50(weights=None))
    >>> profile.total.macs
    3857973248
    >>> profile.layers[2].receptive_field
    '7'

    Source:
        Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural
        Networks", Distill, 2019.
    """
    passes = checked_passes(passes)
    tracer, results, shapes = trace(model, input_shape, batch_size, input_dtype)
    names = inputs.names(model, shapes)
    layers, refused = rows.make(tracer.calls, names, passes)
    given = inputs.flat_shapes(shapes)
    return Profile(
        model.name,
        {n: (int(batch_size), *s) for n, s in zip(names, given, strict=True)},
        passes,
        layers,
        rows.total(layers, tracer, results, passes),
        tuple(refused) if refusals else (),
    )


def checked_passes(passes):
    """Returns a tuple of distinct names of passes, of one name or a list of them.

    Raises ValueError if one is unknown.
    """
    asked = (passes,) if isinstance(passes, str) else passes
    if (
        not isinstance(asked, list | tuple)
        or not asked
        or not all(pass_ in dispatch.PASSES for pass_ in asked)
    ):
        raise ValueError(
            f"`passes` must be some of {list(dispatch.PASSES)}. Received: "
            f"passes={passes!r}"
        )
    return tuple(dict.fromkeys(asked))


def trace(model, input_shape=None, batch_size=1, input_dtype=None):
    """Writes down what a model calls; the arguments are those of `profile`.

    Returns:
        A `Tracer`, which has the calls; the keys of the model's outputs; and the
        structure of the shapes of its inputs, without the batch.

    Raises:
        ValueError: As `profile`.
    """
    if not isinstance(model, keras.Layer):
        raise ValueError(f"`model` must be a Keras model or layer. Received: {model!r}")
    if not is_integer(batch_size) or batch_size < 1:
        raise ValueError(
            "`batch_size` must be a positive integer. Received: "
            f"batch_size={batch_size!r}"
        )
    batch_size = int(batch_size)
    shapes = inputs.shapes_of(model, input_shape)
    _build(model, shapes, input_dtype)
    tensors = inputs.tensors(model, shapes, batch_size, input_dtype)
    tracer = Tracer()
    try:
        results = tracer.trace(model, tensors, inputs.fields(model, shapes))
    except Exception as error:
        # Keras colours what it says.
        words = re.sub(r"\x1b\[\d*m", "", str(error))
        raise ValueError(
            f"The model cannot be called with such inputs: {words} Received: "
            f"input_shape={input_shape}, batch_size={batch_size}"
        ) from error
    return tracer, results, shapes


def _build(model, shapes, dtype):
    """Builds a model for any batch."""
    if model.built:
        return
    if isinstance(model, keras.Sequential):
        model.build((None, *shapes))
        return
    # The batch may be needed; if it is something else, tracing tells.
    with private.no_nodes(), contextlib.suppress(Exception):
        model(*inputs.tensors(model, shapes, None, dtype))
