"""`kconv info`: what a bug report needs.

Each fact is found on its own: it is asked for where something does not work, and what
is missing must not hide the rest.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import warnings

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kconv import system
from kconv.profiler.wording import binary

# Environment variables that change what runs, or how fast.
PREFIXES = ("KCONV_", "ONEDNN_", "TF_ENABLE_", "TF_NUM_", "TF_XLA_")
VARIABLES = (
    *("KERAS_BACKEND", "KERAS_HOME", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
    *("XLA_FLAGS", "XDG_CACHE_HOME"),
)

# Those of kconv that are told as "not set" too, for a bug report to rule them out.
OURS = (
    *("KCONV_ACCURACY", "KCONV_CHOICES", "KCONV_DISABLE_NATIVE", "KCONV_GPU"),
    *("KCONV_MAX_ISA", "KCONV_REFERENCES_PYTHON", "KCONV_TORCH_PYTHON"),
    "KCONV_WORKSPACE_LIMIT",
)

# What `kconv bench` and `kconv demo` use where they are installed.
PACKAGES = (
    *("torch", "onnxruntime", "openvino", "matplotlib", "pillow", "scikit-learn"),
    *("ml-dtypes", "rich"),
)


def collect():
    """Describes this installation and this machine.

    Returns:
        A dictionary from headings to dictionaries from names to values: strings, ints,
        floats, bools, None where something is missing, and lists of strings.
    """
    sections = {
        "versions": _versions,
        "build": _build,
        "processor": _processor,
        "devices": _devices,
        "settings": _settings,
        "tuned choices": _choices,
        "packages": _packages,
        "environment": _environment,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they say is among the facts
        return {name: _guarded(find) for name, find in sections.items()}


def processor():
    """The processors that this process may use, by the name that Linux gives them."""
    return f"{system.processors()} x {system.processor_name()}"


def show(as_json=False):
    """Prints what `collect` found.

    Args:
        as_json: Bool, whether as JSON.
    """
    facts = collect()
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for heading, section in facts.items():
        table.add_row(Text(heading, style="bold"), "")
        for name, value in section.items():
            table.add_row(Text(f"  {name}"), Text(_text(heading, value)))
    Console().print(table)


_MISSING = {"packages": "not installed", "environment": "not set"}


def _text(heading, value):
    if value is None:
        return _MISSING.get(heading, "none")
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _guarded(find):
    """Calls a function that fills a dictionary, and adds the error that it raises."""
    found = {}
    try:
        find(found)
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"
    return found


def _versions(found):
    from kconv import __version__

    found["kconv"] = __version__
    found["folder"] = str(pathlib.Path(__file__).parent)
    found["Python"] = f"{platform.python_implementation()} {platform.python_version()}"
    found["system"] = platform.platform()
    import tensorflow as tf

    found["TensorFlow"] = f"{tf.__version__} ({_distribution()})"
    import keras

    found["Keras"] = f"{keras.__version__}, {keras.config.image_data_format()}"
    import numpy

    found["NumPy"] = numpy.__version__


def _build(found):
    from kconv import dispatch, native

    found["TensorFlow ops"] = native.why_missing() or "loaded"
    found["built for TensorFlow"] = native.built_for()
    core = native.core()
    if core is not None:
        build = core.build_info()
        found["compiler"] = build["compiler"]
        found["instruction sets built"] = list(build["isas"])
    found["algorithms"] = dispatch.algorithms()


def _processor(found):
    found["name"] = system.processor_name()
    found["processors"] = system.processors()
    memory = system.memory()
    if memory is not None:
        words = (binary(size) for size in memory)
        found["memory"] = "{}, {} available".format(*words)
    from kconv import native

    core = native.core()
    if core is not None:
        cpu = core.cpu_info()
        found["instruction sets"] = list(core.isas())
        for name in ("l1d", "l2", "l3"):
            found[f"cache {name}"] = binary(cpu[name])
        assumed = "" if system.tells_frequency() else ", assumed"
        found["frequency"] = f"{cpu['frequency'] / 1e9:.2f} GHz{assumed}"


def _devices(found):
    found["NVIDIA driver"] = system.nvidia_driver()
    found["kconv's GPU library"] = _gpu_library()
    import tensorflow as tf

    from kconv import runtime

    found["stock kernels"] = runtime.engine()
    build = tf.sysconfig.get_build_info()
    found["CUDA build"] = build.get("cuda_version") or bool(build.get("is_cuda_build"))
    found["GPUs"] = [
        tf.config.experimental.get_device_details(one).get("device_name", one.name)
        for one in tf.config.list_physical_devices("GPU")
    ]
    found["threads within operations"] = runtime.threads()
    between = tf.config.threading.get_inter_op_parallelism_threads()
    found["threads between operations"] = between or "TensorFlow decides"
    found["op determinism"] = runtime.is_deterministic()


def _gpu_library():
    from kconv import __version__, cuda

    status = cuda.find(__version__)
    if status.library is None:
        return status.why_missing
    major, minor = divmod(status.built_with, 1000)
    return f"loaded, of CUDA {major}.{minor // 10}, for {status.devices} GPUs"


def _settings(found):
    from kconv import settings

    found["accuracy"] = settings.accuracy()
    limit = settings.workspace_limit()
    found["workspace limit"] = "none" if limit is None else binary(limit)


def _choices(found):
    from kconv import choices, native

    path = choices.location()
    found["file"] = "switched off" if path is None else str(path)
    if native.core() is None:
        return
    sections, wrong = choices.read()
    found["in the file"] = sum(len(one["choices"]) for one in sections)
    counts = {}
    for threads, _ in native.choices():
        counts[threads] = counts.get(threads, 0) + 1
    found["in use"] = [f"{n} for {t} threads" for t, n in sorted(counts.items())]
    if wrong:
        found["damage"] = " ".join(wrong)


def _packages(found):
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None


def _environment(found):
    found.update(dict.fromkeys(OURS))
    for name, value in sorted(os.environ.items()):
        if name.startswith(PREFIXES) or name in VARIABLES:
            found[name] = value


def _distribution():
    names = importlib.metadata.packages_distributions().get("tensorflow", ())
    return ", ".join(names) or "not from a package"
