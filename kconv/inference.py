"""Models made ready for inference: filters prepared once instead of in each call."""

import keras

from kconv import layers


def prepare(model):
    """Prepares the filters of a model's kconv layers, for inference.

    Calls `prepare` of each `kconv.layers.Conv1D`, `Conv2D` and `Conv3D` in the model,
    models in it included, and has `predict` and `evaluate` traced again.
    `kconv.layers.Conv2D.prepare` tells what that means: results keep their bits, and
    the filters take their memory twice. Weights that change later are noticed at once,
    and used as they are until they are prepared again. Files hold nothing of it.

    Args:
        model: A Keras model or layer, built.

    Returns:
        Int, the number of layers that have a use for it.

    Raises:
        TypeError: If `model` is not a Keras layer.
        ValueError: If a kconv layer in it is not built.

    Example:

    >>> model = kconv.convert(keras.applications.ResNet50())
    >>> kconv.prepare(model)
    16
    """
    count = sum(layer.prepare() for layer in _conv_layers(model))
    _trace_again(model)
    return count


def release(model):
    """Undoes `kconv.prepare`, and gives the memory back.

    Args:
        model: A Keras model or layer.

    Returns:
        Int, the number of layers whose filters were prepared.

    Raises:
        TypeError: If `model` is not a Keras layer.

    Example:

    >>> kconv.release(model)
    16
    """
    count = 0
    for layer in _conv_layers(model):
        count += layer.is_prepared
        layer.release()
    _trace_again(model)
    return count


def _conv_layers(model):
    if not isinstance(model, keras.Layer):
        raise TypeError(
            "`model` must be a Keras model or layer. Received: "
            f"model={model!r} of type {type(model).__name__}"
        )
    kinds = layers.Conv1D, layers.Conv2D, layers.Conv3D
    return [layer for layer in model._flatten_layers() if isinstance(layer, kinds)]


def _trace_again(model):
    # What was traced is right in any case, but does not know what is prepared now.
    for layer in model._flatten_layers():
        if isinstance(layer, keras.Model):
            layer.predict_function = layer.test_function = None
