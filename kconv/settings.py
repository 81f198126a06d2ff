"""Settings of the whole process."""

import dataclasses
import functools
import operator
import os
import warnings

from kconv import native

AUTO, AUTO_STRICT = "auto", "auto:strict"
ACCURACIES = ("fast", "strict")


def _from_environment():
    name = os.environ.get("KCONV_ACCURACY") or "fast"
    if name not in ACCURACIES:
        warnings.warn(
            f"KCONV_ACCURACY must be one of {', '.join(ACCURACIES)}; it is ignored. "
            f"Received: KCONV_ACCURACY={name}",
            stacklevel=3,
        )
        name = "fast"
    return name


# One reference, which threads read and replace as a whole.
_accuracy = _from_environment()


def accuracy():
    """Returns how exact `algorithm="auto"` is: `"fast"` or `"strict"`.

    Returns:
        A string, what `kconv.set_accuracy` was given last; at first the environment
        variable `KCONV_ACCURACY`, or `"fast"`.

    Example:

    >>> kconv.accuracy()
    'fast'
    """
    return _accuracy


def set_accuracy(accuracy):
    """Says how exact `algorithm="auto"` has to be, for the whole process.

    It is read when a convolution is called or traced into a graph, and its gradients
    follow it. So a `tf.function` keeps the choice that it was traced with, and a
    compiled Keras model the one of its first `fit` or `predict`: call `compile` again
    to have it traced anew. An algorithm that is forced stays forced.

    Args:
        accuracy: `"fast"`, any algorithm may run; or `"strict"`, `"auto"` means
            `"auto:strict"`: only algorithms that round each result as a plain sum of
            its products does, and let no NaN or infinity out of the windows that hold
            it. Winograd's and `"fft"` are not.

    Raises:
        ValueError: If `accuracy` is something else.

    Example:

    >>> kconv.set_accuracy("strict")
    >>> kconv.ops.explain((1, 56, 56, 64), (3, 3, 64, 64)).chosen
    'gemm'
    """
    global _accuracy
    if not isinstance(accuracy, str) or accuracy not in ACCURACIES:
        raise ValueError(
            f"`accuracy` must be one of {list(ACCURACIES)}. Received: "
            f"accuracy={accuracy!r}"
        )
    _accuracy = accuracy


def workspace_limit():
    """Returns how much workspace `algorithm="auto"` may ask for.

    Returns:
        An int, bytes for one convolution, what `kconv.set_workspace_limit` was given
        last; at first the environment variable `KCONV_WORKSPACE_LIMIT`; or None where
        there is no limit.

    Example:

    >>> kconv.workspace_limit() is None
    True
    """
    return native.workspace_limit()


def set_workspace_limit(limit):
    """Says how much workspace `algorithm="auto"` may ask for, for the whole process.

    Workspace is what an algorithm needs beside its operands while it runs. Each
    convolution takes an algorithm that keeps to the limit, the algorithm `"direct"` if
    need be, which needs none. TensorFlow's own kernel, which does not tell what it
    needs, takes no part while there is a limit. An algorithm that is forced stays
    forced, whatever it needs.

    The limit is read when a convolution runs. A `tf.function` that was traced without
    one keeps TensorFlow's kernel where it chose that: call `compile` of a Keras model
    again to have it traced anew. Under op determinism the limit is kept to as if there
    were 64 threads at least, so that their number does not sway the choice.

    Args:
        limit: Int, bytes for one convolution; 0 for none at all; or None, no limit.

    Raises:
        ValueError: If `limit` is something else.

    Example:

    >>> kconv.set_workspace_limit(64 << 20)
    >>> kconv.ops.explain((8, 224, 224, 64), (3, 3, 64, 64)).chosen
    'winograd:f6'
    >>> kconv.set_workspace_limit(0)
    >>> kconv.ops.explain((8, 224, 224, 64), (3, 3, 64, 64)).chosen
    'direct'
    >>> kconv.set_workspace_limit(None)
    """
    if limit is not None:
        is_integer = not isinstance(limit, bool) and hasattr(limit, "__index__")
        if not is_integer or not 0 <= operator.index(limit) < 2**63:
            raise ValueError(
                "`limit` must be a number of bytes, not negative, or None. Received: "
                f"limit={limit!r}"
            )
        limit = operator.index(limit)
    native.set_workspace_limit(limit)


def heeded_name(algorithm):
    """Returns the name of an algorithm with the present accuracy as part of it."""
    return AUTO_STRICT if algorithm == AUTO and _accuracy == "strict" else algorithm


def heeded(spec):
    """Returns a `ConvSpec` with the present accuracy as part of its algorithm."""
    name = heeded_name(spec.algorithm)
    return spec if name == spec.algorithm else _with_algorithm(spec, name)


@functools.lru_cache(maxsize=4096)
def _with_algorithm(spec, name):
    return dataclasses.replace(spec, algorithm=name)
