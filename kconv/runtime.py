"""What TensorFlow is doing right now, and may use.

Five of these facts are private in TensorFlow. Where one is gone from a later version,
the answer that keeps plain use working is given; kconv's op library loads only on the
versions that the tests have seen, so a change comes to light there.
"""

import functools
import os

import tensorflow as tf

from kconv import system

try:
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext
except ImportError:
    GraphOrParentsInXlaContext = None
try:
    from tensorflow.python.framework.config import is_op_determinism_enabled
except ImportError:
    is_op_determinism_enabled = None
try:
    from tensorflow.python.eager.record import could_possibly_record
except ImportError:
    could_possibly_record = None
try:
    from tensorflow.python.eager.forwardprop_util import pack_tangents
except ImportError:
    pack_tangents = None
try:
    from tensorflow.python.util._pywrap_util_port import IsMklEnabled
except ImportError:
    IsMklEnabled = None


def in_xla():
    """Whether a function is being traced that XLA will compile."""
    if tf.executing_eagerly() or GraphOrParentsInXlaContext is None:
        return False
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def is_deterministic():
    """Whether `tf.config.experimental.enable_op_determinism` is on."""
    return is_op_determinism_enabled is not None and is_op_determinism_enabled()


def may_differentiate():
    """Whether a gradient may be asked for of what is computed now."""
    if not tf.executing_eagerly() or could_possibly_record is None:
        return True
    return could_possibly_record()


def has_tangents(tensors):
    """Whether a `tf.autodiff.ForwardAccumulator` follows any of a list of tensors."""
    return pack_tangents is not None and bool(pack_tangents(tensors).tangents)


def has_gpu():
    """Whether TensorFlow may place ops on a GPU."""
    return bool(tf.config.get_visible_devices("GPU"))


def gpu_name():
    """Returns what the first GPU is called."""
    (first, *_) = tf.config.get_visible_devices("GPU")
    return tf.config.experimental.get_device_details(first).get("device_name", "")


def synchronise():
    """Waits until all that was put on a GPU is computed."""
    if has_gpu():
        tf.test.experimental.sync_devices()


def threads():
    """How many threads TensorFlow has within an operation."""
    return tf.config.threading.get_intra_op_parallelism_threads() or _default_threads()


@functools.cache
def _default_threads():
    # As TensorFlow counts them: the variable, else the processors it may use.
    wish = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    if wish.isdecimal() and int(wish) > 0:
        return int(wish)
    return system.processors()


def engine():
    """Returns what TensorFlow's own kernels use: "oneDNN", "Eigen" or "unknown"."""
    if IsMklEnabled is None:
        return "unknown"
    return "oneDNN" if IsMklEnabled() else "Eigen"
