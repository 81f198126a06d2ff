"""Configs that hold, as they are, the functions and objects that Keras may not find."""

import types

import keras


def config_of(layer):
    """Returns what makes a layer again, by `from_config` of its class.

    Args:
        layer: An operation, such as a layer.

    Returns:
        Dictionary. Of a layer of Keras or kconv, an activation, a regularizer ... that
        cannot be found by its name is the very object.
    """
    config = layer.get_config()
    if is_known(type(layer)):
        for key in config:
            value = getattr(layer, key, None)
            if _may_be_unknown(value):
                config[key] = value
    return config


def is_known(layer_class):
    """Whether a class is Keras's or kconv's, and not somebody else's."""
    return layer_class.__module__.partition(".")[0] in ("keras", "kconv")


def _may_be_unknown(value):
    if isinstance(value, types.FunctionType):
        return True
    known = type(value).__module__.startswith(("keras.", "builtins"))
    return callable(value) and not known and not isinstance(value, keras.Operation)
