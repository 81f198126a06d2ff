"""The one place that loads the compiled parts of kconv.

Where a part is missing or does not fit, its function returns None, `why_missing` says
why in one sentence, and a warning says it once; TensorFlow's own kernels take over.
"""

import dataclasses
import importlib
import os
import pathlib
import threading
import types
import warnings

import tensorflow as tf

from kconv import __version__

_FOLDER = pathlib.Path(__file__).resolve().parent
_MAPS = pathlib.Path("/proc/self/maps")


@dataclasses.dataclass(frozen=True)
class _Parts:
    core: types.ModuleType | None = None
    ops: types.ModuleType | None = None
    why_missing: str | None = None


_lock = threading.Lock()
_parts = None


def core():
    """Returns the module `kconv._core` (algorithms, estimates), or None."""
    return _load().core


def ops():
    """Returns the module of TensorFlow op wrappers, or None. Implies `core()`."""
    return _load().ops


def why_missing():
    """Returns the sentence why a compiled part is not in use, or None."""
    return _load().why_missing


def _load():
    global _parts
    if _parts is None:
        with _lock:
            if _parts is None:
                parts = _find()
                if parts.why_missing:
                    warnings.warn(
                        f"{parts.why_missing} TensorFlow's own kernels run instead.",
                        stacklevel=4,
                    )
                _parts = parts
    return _parts


def _warn_of_unknown_isa():
    # The core heeds the variable; a name that it does not know changes nothing there.
    name, known = os.environ.get("KCONV_MAX_ISA"), ("sse2", "avx2", "avx512")
    if name and name not in (*known, "portable"):
        warnings.warn(
            "KCONV_MAX_ISA must be one of " + ", ".join(known) + "; it is ignored. "
            f"Received: KCONV_MAX_ISA={name}",
            stacklevel=5,
        )


def _find():
    if os.environ.get("KCONV_DISABLE_NATIVE", "0") not in ("", "0"):
        return _Parts(why_missing="KCONV_DISABLE_NATIVE switches kconv's kernels off.")
    try:
        core = importlib.import_module("kconv._core")
    except ImportError as error:
        return _Parts(why_missing=f"kconv._core cannot be imported: {error}.")
    if core.__version__ != __version__:
        return _Parts(
            why_missing=f"kconv._core was built for kconv {core.__version__}, but this "
            f"is kconv {__version__}: build it again."
        )
    _warn_of_unknown_isa()
    library, why = _op_library()
    if why:
        return _Parts(core=core, why_missing=why)
    try:
        return _Parts(core=core, ops=tf.load_op_library(str(library)))
    except (tf.errors.OpError, OSError) as error:
        why = f"kconv's op library cannot be loaded: {error}."
        return _Parts(core=core, why_missing=why)


def _op_library():
    """Returns the path of the op library and None, or None and why there is none."""
    # An op library is bound to TensorFlow's minor version by the C++ names that it
    # links against; loading another one can end the process.
    version = tf.__version__.split(".")
    path = _FOLDER / f"_tfops_{version[0]}_{version[1]}.so"
    if not path.exists():
        built = sorted(
            other.stem.removeprefix("_tfops_").replace("_", ".")
            for other in _FOLDER.glob("_tfops_*.so")
        )
        if not built:
            return None, f"kconv's op library is missing from {_FOLDER}."
        return None, (
            f"kconv's op library was built for TensorFlow {', '.join(built)}, but this "
            f"is TensorFlow {tf.__version__}."
        )
    other = _other_copy(path)
    if other:
        return None, f"another copy of kconv's op library is already loaded: {other}."
    return path, None


def _other_copy(path):
    """Returns the path of another op library of kconv in this process, or None.

    Two of them register every kernel twice, and then no op can choose one.
    """
    if not _MAPS.exists():
        return None
    for line in _MAPS.read_text().splitlines():
        # address, permissions, offset, device, inode, path
        mapped = line.split(maxsplit=5)[5:]
        if mapped and mapped[0] != str(path):
            name = pathlib.PurePath(mapped[0]).name
            if name.startswith("_tfops_") and name.endswith(".so"):
                return mapped[0]
    return None
