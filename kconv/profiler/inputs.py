"""The symbolic inputs that a model is traced with."""

import inspect

import keras

from kconv.profiler import private
from kconv.profiler import receptive_field as rf
from kconv.spec import is_integer, plain


def shapes_of(model, input_shape):
    """Returns the structure of shapes, without batch, that a model is to be given.

    Args:
        model: A `keras.Layer`.
        input_shape: As of `kconv.profile`.

    Returns:
        A tuple of ints, or a list, tuple or dictionary of those.

    Raises:
        ValueError: If the shape is wrong or needed.
    """
    known = _known_shapes(model)
    if input_shape is None:
        known = _built_shapes(model) if known is None else known
        if known is None:
            raise ValueError(
                "`input_shape` is needed, for the model does not tell it. Received: "
                f"input_shape=None, model={model.name!r}"
            )
        if any(None in shape for shape in flat_shapes(known)):
            raise ValueError(
                "`input_shape` is needed, for the model does not know all sizes of its "
                f"inputs. Received: input_shape=None, and the model has {known}"
            )
        return known
    shapes = _standard(input_shape)
    if known is None:
        return shapes
    if isinstance(known, dict) and not isinstance(shapes, dict):
        listed = shapes if isinstance(shapes, list) else [shapes]
        if len(listed) == len(known):
            shapes = dict(zip(known, listed, strict=True))
    same = not isinstance(known, dict) or known.keys() == shapes.keys()
    given, wanted = flat_shapes(shapes), flat_shapes(known)
    fits = (
        same
        and len(given) == len(wanted)
        and all(
            len(a) == len(b) and all(m in (None, n) for n, m in zip(a, b, strict=True))
            for a, b in zip(given, wanted, strict=True)
        )
    )
    if not fits:
        raise ValueError(
            f"`input_shape` must fit to the inputs of the model, {known}, without the "
            f"batch. Received: input_shape={input_shape}"
        )
    return _packed(known, given)


def _known_shapes(model):
    """Shapes of the inputs without batch, or None if the model is no graph."""
    try:
        struct = model.input
    except (AttributeError, ValueError):
        struct = None
    if struct is None or isinstance(model, keras.Sequential):
        try:
            struct = model.inputs
        except AttributeError:
            struct = None
    if struct is None or (isinstance(struct, list) and not struct):
        return None
    if isinstance(struct, list | tuple) and len(struct) == 1:
        struct = struct[0]
    if isinstance(struct, keras.KerasTensor):
        return tuple(struct.shape[1:])
    if isinstance(struct, dict):
        if any(map(keras.tree.is_nested, struct.values())):
            return [tuple(one.shape[1:]) for one in model.inputs]
        return {name: tuple(one.shape[1:]) for name, one in struct.items()}
    return [tuple(one.shape[1:]) for one in keras.tree.flatten(struct)]


def _built_shapes(model):
    """The shape that a subclassed model was built for, without batch, or None."""
    shape = (model.get_build_config() or {}).get("input_shape") if model.built else None
    if not isinstance(shape, list | tuple) or not shape:
        return None
    if isinstance(shape[0], list | tuple):
        return [tuple(one[1:]) for one in shape]
    return tuple(shape[1:])


def _standard(shape):
    """The shape or shapes that a user gave, checked."""
    shape = plain(shape)
    if isinstance(shape, dict):
        return {name: _one(one, shape) for name, one in shape.items()}
    nested = isinstance(shape, tuple) and shape and isinstance(shape[0], tuple)
    return [_one(one, shape) for one in shape] if nested else _one(shape, shape)


def _one(shape, received):
    shape = plain(shape)
    shape = (shape,) if is_integer(shape) else shape
    if not isinstance(shape, tuple) or not all(is_integer(n) and n > 0 for n in shape):
        raise ValueError(
            "`input_shape` must be a tuple of positive integers without the batch, or "
            "a list or dictionary of such tuples for several inputs. Received: "
            f"input_shape={received!r}"
        )
    return shape


def flat_shapes(shapes):
    """List of the shapes in a structure, in Keras's order: keys are sorted."""
    if isinstance(shapes, dict):
        return [shapes[name] for name in sorted(shapes)]
    return shapes if isinstance(shapes, list) else [shapes]


def _packed(like, shapes):
    if isinstance(like, dict):
        return dict(zip(sorted(like), shapes, strict=True))
    return list(shapes) if isinstance(like, list) else shapes[0]


def tensors(model, shapes, batch_size, dtype=None):
    """Makes symbolic tensors.

    Args:
        model: A `keras.Layer`.
        shapes: What `shapes_of` returned.
        batch_size: Int or None.
        dtype: String, or None for that of the model.

    Returns:
        A list of the positional arguments of the model.
    """
    dtypes = _dtypes(model, len(flat_shapes(shapes)), dtype)
    found = [
        keras.KerasTensor((batch_size, *shape), dtype=one, name=name)
        for shape, one, name in zip(
            flat_shapes(shapes), dtypes, names(model, shapes), strict=True
        )
    ]
    packed = _packed(shapes, found)
    if isinstance(model, keras.Function) or not isinstance(packed, list):
        return [packed]
    # `call(self, first, second)` or `call(self, inputs)`.
    needed = [
        one
        for one in inspect.signature(model.call).parameters.values()
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
        and one.default is one.empty
    ]
    return packed if len(needed) == len(packed) > 1 else [packed]


def names(model, shapes):
    """Names of the inputs, in order."""
    if isinstance(shapes, dict):
        return sorted(shapes)
    if isinstance(model, keras.Function):
        layers = private.layers_in(model)
        layers = [one for one in layers if isinstance(one, keras.layers.InputLayer)]
        named = {id(layer.output): layer.name for layer in layers}
        return [named.get(id(one), one.name) for one in model.inputs]
    count = len(flat_shapes(shapes))
    return ["input"] if count == 1 else [f"input_{n}" for n in range(count)]


def _dtypes(model, count, dtype):
    if dtype is not None:
        return [dtype] * count
    try:
        return [one.dtype for one in model.inputs]
    except (AttributeError, TypeError):
        return [model.input_dtype] * count


def fields(model, shapes):
    """`Fields` of the inputs: which of their axes are spatial.

    All are but the batch and the channels, which the first layer with a data format
    says where to find.
    """
    formats = (getattr(one, "data_format", None) for one in private.layers_in(model))
    told = next((one for one in formats if one), None)
    made = []
    for n, shape in enumerate(flat_shapes(shapes)):
        rank = len(shape) + 1
        # Keras's default is that of images, not of sequences.
        found = told or (keras.config.image_data_format() if rank > 3 else "")
        first = 2 if found == "channels_first" and rank > 2 else 1
        # Of two axes the second is that of features, or of tokens.
        axes = (1,) if rank == 2 else range(first, first + rank - 2)
        made.append(rf.source(n, axes))
    return made
