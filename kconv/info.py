"""`kconv info`: what a bug report needs."""

import importlib.metadata
import os
import pathlib
import platform

from rich.console import Console
from rich.table import Table

# Environment variables that change what runs, or how fast.
PREFIXES = ("KCONV_", "ONEDNN_", "TF_ENABLE_", "TF_NUM_", "TF_XLA_")
VARIABLES = ("KERAS_BACKEND", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "XLA_FLAGS")


def collect():
    """Describes this installation.

    Returns:
        A dictionary from strings to strings.
    """
    import keras
    import tensorflow as tf

    from kconv import __version__, native, settings

    facts = {
        "kconv": __version__,
        "folder": str(pathlib.Path(__file__).parent),
        "TensorFlow ops": native.why_missing() or "loaded",
        "accuracy": settings.accuracy(),
        "Python": platform.python_version(),
        "TensorFlow": f"{tf.__version__} ({_distribution()})",
        "Keras": f"{keras.__version__}, {keras.config.image_data_format()}",
        "system": platform.platform(),
        "processor": processor(),
        "TensorFlow threads": (
            f"{tf.config.threading.get_intra_op_parallelism_threads()} within,"
            f" {tf.config.threading.get_inter_op_parallelism_threads()} between"
            " operations (0: TensorFlow decides)"
        ),
    }
    core = native.core()
    if core:
        cpu = core.cpu_info()
        caches = (f"{name} {cpu[name] >> 10} KiB" for name in ("l1d", "l2", "l3"))
        facts["caches"] = ", ".join(caches)
        facts["frequency"] = f"{cpu['frequency'] / 1e9:.2f} GHz"
        facts["instruction sets"] = " ".join(core.isas())
        facts["algorithms"] = " ".join(core.algorithms())
    for name, value in sorted(os.environ.items()):
        if name.startswith(PREFIXES) or name in VARIABLES:
            facts[name] = value
    return facts


def processor():
    """The processors that this process may use, by the name that Linux gives them."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1] for line in lines if line.startswith("model name")]
        return f"{len(os.sched_getaffinity(0))} x {names[0].strip()}"
    except (OSError, IndexError):
        return f"{os.cpu_count()} x {platform.machine()}"


def show():
    """Prints what `collect` found."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in collect().items():
        table.add_row(name, value)
    Console().print(table)


def _distribution():
    names = importlib.metadata.packages_distributions().get("tensorflow", ())
    return ", ".join(names) or "not from a package"
