"""What the models check of their arguments."""

import numbers

import keras

from kconv.spec import is_integer

POOLINGS = (None, "avg", "max")


def checked_positive(name, value):
    """Returns an int. Raises ValueError if it is no positive integer."""
    if not is_integer(value) or value < 1:
        raise ValueError(
            f"`{name}` must be a positive integer. Received: {name}={value!r}"
        )
    return int(value)


def checked_one_of(name, value, choices):
    """Returns one of some numbers. Raises ValueError if a value is none of them."""
    # An array is never equal to one, and True is no number here.
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        for choice in choices:
            if value == choice:
                return choice
    raise ValueError(
        f"`{name}` must be one of {list(choices)}. Received: {name}={value!r}"
    )


def checked_blocks(blocks, most):
    """Returns a tuple of ints. Raises ValueError if it is not one for each stage."""
    if (
        not isinstance(blocks, tuple | list)
        or not 1 <= len(blocks) <= most
        or not all(is_integer(n) and n > 0 for n in blocks)
    ):
        raise ValueError(
            f"`blocks` must be up to {most} positive integers, one for each stage. "
            f"Received: blocks={blocks!r}"
        )
    return tuple(map(int, blocks))


def check_pooling(pooling):
    """Raises ValueError if it is none of `POOLINGS`."""
    if not isinstance(pooling, str | None) or pooling not in POOLINGS:
        raise ValueError(
            f"`pooling` must be one of {list(POOLINGS)}. Received: pooling={pooling!r}"
        )


def check_activation(name, activation):
    """Raises ValueError if Keras knows no such activation."""
    try:
        keras.activations.get(activation)
    except (TypeError, ValueError):
        raise ValueError(
            f"`{name}` must be the name of an activation, callable or None. "
            f"Received: {name}={activation!r}"
        ) from None
