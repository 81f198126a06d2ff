"""kconv: Keras 3 convolution layers on convolution kernels of their own.

    import kconv

    model = kconv.convert(model)                 # a model that exists
    layer = kconv.layers.Conv2D(64, 3)           # a layer of a new one
    y = kconv.ops.conv(x, kernel, padding="same")

Importing kconv loads its TensorFlow ops, so that a SavedModel with kconv layers can be
loaded afterwards. Without them (see `kconv.native.why_missing`) everything here still
works, on TensorFlow's own kernels.
"""

__version__ = "0.1.0"

import importlib.util
import os

if importlib.util.find_spec("tensorflow") is None:
    raise ImportError(
        "kconv needs TensorFlow: pip install 'kconv[cpu]' or 'kconv[tensorflow]'."
    )

_backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
if _backend == "tensorflow":
    import keras

    _backend = keras.config.backend()
if _backend != "tensorflow":
    raise ImportError(
        "kconv runs on Keras's TensorFlow backend: set KERAS_BACKEND=tensorflow before "
        f"the first import of keras. Received: KERAS_BACKEND={_backend}"
    )

from kconv import layers, models, native, ops  # noqa: E402
from kconv.conversion import convert, revert  # noqa: E402
from kconv.inference import prepare, release  # noqa: E402
from kconv.profiler import profile  # noqa: E402
from kconv.settings import (  # noqa: E402
    accuracy,
    set_accuracy,
    set_workspace_limit,
    workspace_limit,
)
from kconv.tuner import tune  # noqa: E402

native.ops()

__all__ = [
    "__version__",
    "accuracy",
    "convert",
    "layers",
    "models",
    "ops",
    "prepare",
    "profile",
    "release",
    "revert",
    "set_accuracy",
    "set_workspace_limit",
    "tune",
    "workspace_limit",
]
