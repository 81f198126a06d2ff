"""Keras's layers of any number of spatial dimensions, which have no public names."""

import inspect

import keras


def of_any_rank(layer_class):
    """Returns the base of a Keras layer that takes the number of spatial dimensions.

    Args:
        layer_class: A layer of `keras.layers`.

    Returns:
        A class whose constructor takes `rank`. Where this Keras has none, one that
        cannot be constructed: all other layers can still be used then.
    """
    for base in layer_class.__mro__[1:]:
        if "rank" in inspect.signature(base.__init__).parameters:
            return base

    class Missing(keras.layers.Layer):
        def __init__(self, *args, **kwargs):
            raise RuntimeError(
                f"This layer needs a base of keras.layers.{layer_class.__name__} for "
                "any number of spatial dimensions, which this version of Keras lacks. "
                f"Received: keras.__version__={keras.__version__}"
            )

    return Missing
