"""The file of measured choices: what `kconv.tune` found fastest, for `auto` to take.

It has a section for each processor, versions, number of threads and settings that were
measured, and holds only what measuring again would bring back. So whatever is wrong
with it costs a warning, never more: see `docs/tuning.md`.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import math
import os
import pathlib
import time
import warnings

# What the file says of itself.
FORMAT = {"format": "kconv choices", "version": 1}

# Entries in all sections together; the oldest make room.
MOST_CHOICES = 5000

# Another writer holds the lock for milliseconds; one that hangs is not waited for.
_LOCK_SECONDS = 10.0

_VARIABLE = "KCONV_CHOICES"
_AGAIN = "Run `kconv tune` to measure again, or set KCONV_CHOICES=off to do without."


def location():
    """Returns the path of the file, or None where there is to be none.

    It is what the environment variable `KCONV_CHOICES` says, where "off" stands for
    none; else `kconv/choices.json` in the user's folder for caches.
    """
    wish = os.environ.get(_VARIABLE, "")
    if wish.lower() == "off":
        return None
    if wish:
        return pathlib.Path(os.path.expanduser(wish)).absolute()
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # as the standard of that variable wants it
        try:
            cache = pathlib.Path.home() / ".cache"
        except RuntimeError:
            return None
    return cache / "kconv" / "choices.json"


def machine():
    """Describes the processor, and the GPU where kconv uses one.

    Returns:
        A dictionary of strings and ints, that a section is known by.
    """
    from kconv import gpu, native, runtime, system

    cpu = native.core().cpu_info()
    caches = {name: cpu[name] for name in ("l1d", "l2", "l3")}
    found = {"processor": system.processor_name(), "isa": cpu["isa"], **caches}
    return found | ({"gpu": runtime.gpu_name()} if gpu.is_used() else {})


def versions():
    """Describes the software, as far as it decides what is fastest.

    Returns:
        A dictionary of strings, that a section is known by.
    """
    import tensorflow as tf

    from kconv import __version__, runtime

    stock = runtime.engine()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").lower()
    if limit and stock == "oneDNN":
        stock += f" {limit}"
    return {"kconv": __version__, "TensorFlow": tf.__version__, "stock": stock}


def load():
    """Reads what holds on this machine. Never raises: what is wrong is a warning.

    Returns:
        A dictionary from pairs of an int, the threads within an operation, and a
        string, the key of a problem, to the name of an algorithm.
    """
    try:
        sections, wrong = read()
        held, why_none = _here(sections)
        complaints = [*wrong, *why_none]
        if complaints:
            _warn(f"{location()}: {' '.join(complaints)} {_AGAIN}")
    except Exception as error:  # a cache must not keep anything from running
        _warn(f"The tuned choices are ignored, for {_words(error)}. {_AGAIN}")
        held = {}
    return held


def entry(algorithm, seconds):
    """Returns what a section says of a problem.

    Args:
        algorithm: String, the choice.
        seconds: Dictionary from names of algorithms to medians.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "algorithm": algorithm,
        "seconds": {name: float(f"{value:.4g}") for name, value in seconds.items()},
        "when": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def save(found, threads):
    """Adds to the file, and keeps all that others write to it meanwhile.

    Args:
        found: A dictionary from keys of problems to what `entry` returns.
        threads: Int, 0 on a GPU.

    Returns:
        The path of the file, or None where it cannot be written, which is a warning, or
        is not to be.
    """
    from kconv import settings

    mine = {
        "machine": machine(),
        "versions": versions(),
        "threads": threads,
        "accuracy": settings.accuracy(),
        "workspace_limit": settings.workspace_limit(),
        "choices": found,
    }
    return _rewrite(lambda sections: merged([*sections, mine]))


def clear():
    """Forgets what was measured on this processor, with whatever versions.

    Returns:
        How many choices those were.
    """
    gone = []

    def others(sections):
        here = machine()
        gone.extend(one for one in sections if one["machine"] == here)
        return [one for one in sections if one["machine"] != here]

    path = location()
    if path is not None and path.exists():
        _rewrite(others)
    return sum(len(one["choices"]) for one in gone)


def merged(sections):
    """Returns sections with those of the same setting as one, and not too much.

    Of two choices for a problem the later one in the list counts.
    """
    found = {}
    for section in sections:
        name = json.dumps([section[part] for part in _SETTING], sort_keys=True)
        if name not in found:
            found[name] = {**section, "choices": {}}
        found[name]["choices"] |= section["choices"]
    # The times are written so that their order is that of the alphabet.
    ages = [
        (one["when"], name, key)
        for name, section in found.items()
        for key, one in section["choices"].items()
    ]
    for _, name, key in sorted(ages)[: max(0, len(ages) - MOST_CHOICES)]:
        del found[name]["choices"][key]
    return [one for one in found.values() if one["choices"]]


def read():
    """Reads the file.

    Returns:
        A list of sections, those that can be understood; and a list of sentences, what
        is wrong with the file. Both are empty where there is no file.

    Raises:
        OSError: If the file cannot be read.
    """
    path = location()
    if path is None:
        return [], []
    try:
        words = path.read_bytes()
    except FileNotFoundError:
        return [], []
    if not words:
        return [], []
    try:
        data = json.loads(words)
    except (ValueError, RecursionError):
        return [], ["the file is damaged: it is no JSON, and is ignored."]
    if not isinstance(data, dict) or data.get("format") != FORMAT["format"]:
        return [], ["the file holds no tuned choices of kconv, and is ignored."]
    if data.get("version") != FORMAT["version"]:
        return [], ["the file is of another format of kconv, and is ignored."]
    listed = data.get("sections")
    if not isinstance(listed, list):
        return [], ["the file is damaged: it has no sections, and is ignored."]
    sections, damaged = [], 0
    for one in listed:
        kept = _checked(one)
        damaged += kept is None or len(kept["choices"]) != len(one["choices"])
        if kept is not None:
            sections.append(kept)
    if damaged:
        return sections, ["the file is damaged, and part of it is ignored."]
    return sections, []


# What a section is known by, and the types of it.
_SETTING = ("machine", "versions", "threads", "accuracy", "workspace_limit")


def _checked(section):
    """Returns a section with those entries that can be understood, or None."""
    try:
        flat = [section["machine"], section["versions"]]
        plain = all(type(v) in (str, int) for one in flat for v in one.values())
        named = section["accuracy"] in ("fast", "strict")
        threads = section["threads"]
        counted = type(threads) is int and 0 <= threads < 2**31
        limit = section["workspace_limit"]
        limited = limit is None or (type(limit) is int and limit >= 0)
        if not (plain and named and counted and limited):
            return None
        choices = {
            k: v for k, v in section["choices"].items() if _is_text(k) and _is_entry(v)
        }
        return {part: section[part] for part in _SETTING} | {"choices": choices}
    except (TypeError, KeyError, AttributeError):
        return None


def _is_text(key):
    """Whether a key can be told to the core: JSON has halves of characters as well."""
    try:
        return "\0" not in key and bool(key.encode())
    except UnicodeEncodeError:
        return False


def _is_entry(one):
    try:
        seconds = one["seconds"].values()
        texts = isinstance(one["algorithm"], str) and isinstance(one["when"], str)
        return texts and all(math.isfinite(s) and s > 0 for s in seconds)
    except (TypeError, KeyError, AttributeError, OverflowError):
        return False


def _here(sections):
    """Returns what of sections holds here, as `load` does, and why if nothing does."""
    from kconv import native

    if not sections:
        return {}, []
    cpu, software = machine(), versions()
    mine = [one for one in sections if one["machine"] == cpu]
    if not mine:
        others = sorted({str(one["machine"].get("processor")) for one in sections})
        return {}, [
            f"its choices were measured on other processors ({', '.join(others)}, or"
            " other caches, instruction sets or GPUs), and are ignored."
        ]
    current = [one for one in mine if one["versions"] == software]
    if not current:
        names = ", ".join(f"{name} {value}" for name, value in software.items())
        return {}, [
            f"its choices were measured with other versions than these ({names}), and"
            " are ignored."
        ]
    known, found, gone = {*native.core().algorithms(), "builtin"}, {}, set()
    for section in sorted(filter(_suits, current), key=_restrictions):
        for key, one in section["choices"].items():
            if one["algorithm"] in known:
                found[section["threads"], key] = one["algorithm"]
            else:
                gone.add(one["algorithm"])
    if gone:
        names = ", ".join(sorted(gone))
        return found, [f"some of its choices are algorithms that are gone: {names}."]
    return found, []


def _suits(section):
    """Whether a section answers what is asked under the present settings.

    What was measured of some candidates is no answer for all. The other way round it
    is: `auto` takes no choice that a setting forbids.
    """
    from kconv import settings

    return section["accuracy"] in ("fast", settings.accuracy()) and section[
        "workspace_limit"
    ] in (None, settings.workspace_limit())


def _restrictions(section):
    return (section["accuracy"] != "fast") + (section["workspace_limit"] is not None)


# Writing.


def _rewrite(change):
    """Replaces the sections of the file; returns its path, or None with a warning."""
    path = location()
    if path is None:
        if os.environ.get(_VARIABLE, "").lower() != "off":
            _warn(
                "There is no folder for the tuned choices, which hold for this process"
                " only: set KCONV_CHOICES to the path of a file."
            )
        return None
    try:
        path = path.resolve()  # a link stays one
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            sections, wrong = read()
            if wrong:
                _move_aside(path, wrong)
            _write(path, change(sections))
    except OSError as error:
        _warn(
            f"The tuned choices cannot be written, and hold for this process only:"
            f" {_words(error)}. Set KCONV_CHOICES to the path of another file."
        )
        return None
    return path


@contextlib.contextmanager
def _locked(path):
    """Keeps other writers away, for the system frees the lock of one that dies."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    words = "another process keeps it locked"
                    raise OSError(errno.EAGAIN, words, str(path)) from None
                time.sleep(0.005)
        yield
    finally:
        os.close(lock)


def _write(path, sections):
    """Puts a whole new file in the place of the old one, under the lock."""
    for left in path.parent.glob(f"{path.name}.*.new"):  # of a writer that was killed
        left.unlink()
    new = pathlib.Path(f"{path}.{os.getpid()}.new")
    try:
        with open(new, "x", encoding="utf-8") as file:
            json.dump({**FORMAT, "sections": sections}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _move_aside(path, wrong):
    """Makes room for a new file without destroying what it may be."""
    aside = pathlib.Path(f"{path}.bad")
    os.replace(path, aside)
    _warn(f"{path}: {' '.join(wrong)} It was moved to {aside}, and a new one begun.")


def _words(error):
    text = error.strerror if isinstance(error, OSError) and error.strerror else error
    where = getattr(error, "filename", None)
    return f"{text} ({where})" if where else f"{text}"


def _warn(words):
    warnings.warn(words, stacklevel=2)
