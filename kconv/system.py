"""What the operating system tells of this machine; None where it does not."""

import os
import pathlib
import platform

_PROC = pathlib.Path("/proc")
_FREQUENCY = pathlib.Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")


def processor_name():
    """Returns the name of the processor, or that of its kind."""
    names = _values("cpuinfo", "model name")
    return names[0] if names else platform.processor() or platform.machine()


def processor_flags():
    """Returns the names of what the processor can do: a set of strings."""
    lines = _values("cpuinfo", "flags")
    return set(lines[0].split()) if lines else set()


def processors():
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def tells_frequency():
    """Whether it tells the highest frequency of the processor."""
    return _FREQUENCY.exists()


def memory():
    """Returns the bytes of memory in all and those that are available, or None."""
    found = [_values("meminfo", name) for name in ("MemTotal", "MemAvailable")]
    if not all(found):
        return None
    return tuple(int(values[0].split()[0]) << 10 for values in found)


def nvidia_driver():
    """Returns the line that NVIDIA's driver says of itself, or None."""
    text = _read("driver/nvidia/version")
    lines = text.splitlines() if text else []
    return lines[0].partition(":")[2].strip() if lines else None


def _values(name, field):
    """Values of a field in a file of lines `field: value`."""
    found = []
    for line in (_read(name) or "").splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == field:
            found.append(value.strip())
    return found


def _read(name):
    try:
        return (_PROC / name).read_text()
    except (OSError, UnicodeDecodeError):
        return None
