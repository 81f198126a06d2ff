"""Settings of the whole process."""

import dataclasses
import functools
import os
import warnings

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
            it. Winograd's are not.

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
