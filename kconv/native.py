"""The one place that loads the compiled parts of kconv.

Where a part is missing or does not fit, its function returns None, `why_missing` says
why in one sentence, and a warning says it once; TensorFlow's own kernels take over.
"""

import ctypes
import dataclasses
import importlib
import os
import pathlib
import threading
import types
import warnings

import tensorflow as tf

from kconv import __version__, cuda
from kconv import choices as measured

_FOLDER = pathlib.Path(__file__).resolve().parent
_MAPS = pathlib.Path("/proc/self/maps")


@dataclasses.dataclass(frozen=True)
class _Parts:
    core: types.ModuleType | None = None
    ops: types.ModuleType | None = None
    library: ctypes.CDLL | None = None
    why_missing: str | None = None
    gpu: ctypes.CDLL | None = None


_lock = threading.Lock()
_parts = None

# Of the present process: the measured choices, and how often what a choice heeds was
# changed.
_choices = types.MappingProxyType({})
_generation = 0


def core():
    """Returns the module `kconv._core` (algorithms, estimates), or None."""
    return _load().core


def ops():
    """Returns the module of TensorFlow op wrappers, or None. Implies `core()`."""
    return _load().ops


def gpu():
    """Returns the GPU library that the ops use, or None. Implies `ops()`."""
    return _load().gpu


def why_missing():
    """Returns the sentence why a compiled part is not in use, or None."""
    return _load().why_missing


def built_for():
    """Returns the minor versions of TensorFlow that there are op libraries for."""
    return sorted(
        path.stem.removeprefix("_tfops_").replace("_", ".")
        for path in _FOLDER.glob("_tfops_*.so")
    )


def generation():
    """Returns a number that changes with what `set_...` here says."""
    return _generation


def choices():
    """Returns the measured choices, as `set_choices` was given them."""
    _load()
    return _choices


def set_choices(choices):
    """Replaces what was measured to be fastest, in both compiled parts.

    Args:
        choices: A mapping from (threads, `kconv._core.Problem.key`) to the name of an
            algorithm or "builtin".
    """
    parts = _load()
    if parts.core:
        with _lock:  # so that both parts are told the same
            _tell_choices(parts, dict(choices))


def _tell_choices(parts, choices):
    global _choices, _generation
    parts.core.set_choices(list(choices.items()))
    if parts.library:
        count = len(choices)
        threads, keys = zip(*choices, strict=True) if choices else ((), ())
        words = [
            (ctypes.c_char_p * count)(*(word.encode() for word in column))
            for column in (keys, choices.values())
        ]
        numbers = (ctypes.c_int * count)(*threads)
        if not parts.library.kconv_set_choices(count, numbers, *words):
            raise MemoryError("There is no memory for the measured choices.")
    _choices = types.MappingProxyType(choices)
    _generation += 1


def workspace_limit():
    """Returns the bytes that "auto" may ask for, or None if there is no limit."""
    return core().workspace_limit() if core() else None


def set_workspace_limit(limit):
    """Sets it, in both compiled parts."""
    global _generation
    parts = _load()
    with _lock:
        if parts.core:
            parts.core.set_workspace_limit(limit)
        if parts.library:
            parts.library.kconv_set_workspace_limit(-1 if limit is None else limit)
        _generation += 1


def workspace_peak():
    """Returns the most bytes of workspace that kconv's ops had at a time."""
    library = _load().library
    return library.kconv_workspace_peak() if library else 0


def reset_workspace_peak():
    """Lets `workspace_peak` begin anew."""
    library = _load().library
    if library:
        library.kconv_reset_workspace_peak()


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
                if parts.core:
                    _tell_choices(parts, measured.load())
    return _parts


def _warn_of_variables(core):
    # The core heeds them; what it does not understand changes nothing there.
    limit = os.environ.get("KCONV_WORKSPACE_LIMIT")
    if limit and not core.is_workspace_limit(limit):
        warnings.warn(
            "KCONV_WORKSPACE_LIMIT must be a number of bytes, or of K, M or G of them; "
            f"it is ignored. Received: KCONV_WORKSPACE_LIMIT={limit}",
            stacklevel=5,
        )
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
    _warn_of_variables(core)
    library, why = _op_library()
    if why:
        return _Parts(core=core, why_missing=why)
    try:
        ops, functions = tf.load_op_library(str(library)), _functions_of(library)
    except (tf.errors.OpError, OSError) as error:
        why = f"kconv's op library cannot be loaded: {error}."
        return _Parts(core=core, why_missing=why)
    return _Parts(core, ops, functions, gpu=_gpu_library(functions))


def _gpu_library(functions):
    """Has the ops run on GPUs as well, where that is asked for and possible."""
    if os.environ.get("KCONV_GPU", "0") in ("", "0"):
        return None
    status = cuda.find(__version__)
    why = status.why_missing
    if why is None:
        path = str(cuda.LIBRARY).encode()
        error = functions.kconv_use_cuda(path, b"GPU")
        why = error and f"{cuda.LIBRARY.name} cannot be used: {error.decode()}"
    if why is not None:
        warnings.warn(
            f"KCONV_GPU asks for kconv's kernels on GPUs. {why} They run on the CPU "
            "only.",
            stacklevel=6,
        )
        return None
    return status.library


def _functions_of(path):
    """The functions of the op library that are no ops."""
    library = ctypes.CDLL(str(path))
    library.kconv_set_choices.restype = ctypes.c_bool
    library.kconv_set_choices.argtypes = [
        ctypes.c_int64,
        ctypes.POINTER(ctypes.c_int),
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.POINTER(ctypes.c_char_p),
    ]
    library.kconv_set_workspace_limit.argtypes = [ctypes.c_int64]
    library.kconv_set_workspace_limit.restype = None
    library.kconv_use_cuda.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    library.kconv_use_cuda.restype = ctypes.c_char_p
    library.kconv_workspace_peak.restype = ctypes.c_int64
    library.kconv_reset_workspace_peak.restype = None
    return library


def _op_library():
    """Returns the path of the op library and None, or None and why there is none."""
    # An op library is bound to TensorFlow's minor version by the C++ names that it
    # links against; loading another one can end the process.
    version = tf.__version__.split(".")
    path = _FOLDER / f"_tfops_{version[0]}_{version[1]}.so"
    if not path.exists():
        built = built_for()
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
