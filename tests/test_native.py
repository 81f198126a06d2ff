"""Loading of the compiled parts, and life without them."""

import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
import tensorflow as tf

import kconv
from kconv import native

PACKAGE = pathlib.Path(kconv.__file__).parent


def run(script, **environment):
    """Starts a script in a new process."""
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def test_everything_is_loaded():
    assert native.why_missing() is None
    assert native.core().__version__ == kconv.__version__
    assert callable(native.ops().kconv_conv)
    assert native.core() is native.core()
    assert native.ops() is native.ops()


# What every fallback has to compute, against sums written out.
WITHOUT_OPS = """
import warnings

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import kconv
    from kconv import native
    import keras, numpy as np, tensorflow as tf

    x = np.random.default_rng(0).standard_normal((2, 9, 8, 4)).astype("float32")
    w = np.random.default_rng(1).standard_normal((3, 2, 2, 6)).astype("float32")
    options = dict(strides=2, dilation_rate=(2, 1), padding=((1, 2), (0, 3)))
    y = kconv.ops.conv(x, w, **options, algorithm="gemm")
    padded = np.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)))
    expected = np.zeros((2, 4, 5, 6))
    for i, j, g in np.ndindex(3, 2, 2):
        seen = padded[:, 2 * i :: 2, j::2, 2 * g : 2 * g + 2][:, :4, :5]
        expected[..., 3 * g : 3 * g + 3] += seen @ w[i, j, :, 3 * g : 3 * g + 3]
    assert np.abs(y - expected).max() < 2e-6 * np.abs(expected).max()

    model = keras.Sequential([kconv.layers.Conv2D(3, 3), keras.layers.Flatten()])
    model.compile("sgd", "mse")
    model.fit(x, np.zeros((2, 126)), verbose=0)
    told = kconv.ops.explain(x, w)
    assert (told.chosen, told.reason) == ("builtin", native.why_missing())
    assert kconv.ops.algorithms() == ["builtin"]
    assert native.ops() is None
    kconv.ops.conv(x, w, algorithm="any name")
    stock = kconv.revert(kconv.convert(keras.Sequential([keras.layers.Conv2D(2, 1)])))
    assert type(stock.layers[0]) is keras.layers.Conv2D

sentences = [str(w.message) for w in caught if "TensorFlow's own" in str(w.message)]
assert len(sentences) == 1, sentences
print(sentences[0])
"""


@pytest.fixture(scope="module")
def without_ops(tmp_path_factory):
    """What processes say in which parts of kconv are missing: by name of the case."""
    folder = tmp_path_factory.mktemp("copies")

    def copy(name, *patterns):
        ignore = shutil.ignore_patterns("__pycache__", *patterns)
        shutil.copytree(PACKAGE, folder / name / "kconv", ignore=ignore)
        # Ahead of an installed kconv, editable or not.
        path = str(folder / name)
        return f"import sys; sys.path.insert(0, {path!r})\n{WITHOUT_OPS}"

    other = copy("other_tensorflow")
    (library,) = (folder / "other_tensorflow" / "kconv").glob("_tfops_*.so")
    library.rename(library.with_name("_tfops_1_15.so"))
    processes = {
        "disabled": run(WITHOUT_OPS, KCONV_DISABLE_NATIVE="1"),
        "no_files": run(copy("no_files", "*.so")),
        "no_library": run(copy("no_library", "_tfops_*.so")),
        "other_tensorflow": run(other),
    }
    return {name: output_of(process) for name, process in processes.items()}


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("disabled", "KCONV_DISABLE_NATIVE switches kconv's kernels off."),
        ("no_files", "kconv._core cannot be imported: No module named 'kconv._core'."),
        ("no_library", "kconv's op library is missing from "),
        ("other_tensorflow", "kconv's op library was built for TensorFlow 1.15, but"),
    ],
)
def test_stock_ops_take_over_with_one_sentence(without_ops, case, sentence):
    (line,) = without_ops[case].splitlines()
    assert line.startswith(sentence)
    assert line.endswith("TensorFlow's own kernels run instead.")


def test_an_unknown_instruction_set_is_told(monkeypatch):
    monkeypatch.setenv("KCONV_MAX_ISA", "avx1024")
    with pytest.warns(UserWarning, match="sse2, avx2, avx512.*Received: .*=avx1024"):
        native._warn_of_variables(native.core())


def test_an_installed_extension_of_another_version_is_not_used(monkeypatch):
    old = types.SimpleNamespace(__version__="0.0.1")
    monkeypatch.setattr(native.importlib, "import_module", lambda name: old)
    parts = native._find()
    assert parts.core is parts.ops is None
    assert "built for kconv 0.0.1" in parts.why_missing


def test_a_library_that_cannot_be_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "_FOLDER", tmp_path)
    major, minor = tf.__version__.split(".")[:2]
    (tmp_path / f"_tfops_{major}_{minor}.so").write_text("not a library")
    monkeypatch.setattr(native, "_other_copy", lambda path: None)
    parts = native._find()
    assert parts.ops is None
    assert parts.core is native.core()
    assert "cannot be loaded" in parts.why_missing


def test_a_second_copy_of_the_library_is_not_loaded(monkeypatch, tmp_path):
    (library,) = PACKAGE.glob("_tfops_*.so")
    shutil.copy(library, tmp_path)
    monkeypatch.setattr(native, "_FOLDER", tmp_path)
    monkeypatch.setattr(tf, "load_op_library", lambda path: pytest.fail("was loaded"))
    parts = native._find()
    assert parts.ops is None
    assert parts.why_missing.startswith("another copy of kconv's op library")
    assert str(library) in parts.why_missing


def test_threads_load_once(monkeypatch):
    found = []

    def find():
        found.append(threading.get_ident())
        time.sleep(0.2)  # the other threads come in the meantime
        return native._Parts(ops="ops")

    monkeypatch.setattr(native, "_parts", None)
    monkeypatch.setattr(native, "_find", find)
    threads = [threading.Thread(target=native.ops) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert native.ops() == "ops"


def test_threads_compute_at_once():
    rng = np.random.default_rng(0)
    xs = rng.standard_normal((8, 1, 12, 12, 4))
    w = rng.standard_normal((3, 3, 4, 5))
    results = [None] * 8

    def work(index):
        for size in (12, 11, 10):
            results[index] = kconv.ops.conv(xs[index, :, :size], w).numpy()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for x, result in zip(xs, results, strict=True):
        assert np.array_equal(result, kconv.ops.conv(x[:, :10], w))


def test_other_backends_get_one_sentence():
    script = """
try:
    import kconv
except ImportError as error:
    print(error)
"""
    # numpy is a backend of Keras that is always there; jax is one that is not here.
    processes = {name: run(script, KERAS_BACKEND=name) for name in ("numpy", "jax")}
    for name, process in processes.items():
        assert output_of(process).splitlines() == [
            "kconv runs on Keras's TensorFlow backend: set KERAS_BACKEND=tensorflow "
            f"before the first import of keras. Received: KERAS_BACKEND={name}"
        ]


def test_without_tensorflow_one_sentence_tells_how_to_get_it():
    script = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] != "tensorflow":
            return self.finder.find_spec(name, path, target)

sys.meta_path = [Hiding(finder) for finder in sys.meta_path]
try:
    import kconv
except ImportError as error:
    print(error)
"""
    assert output_of(run(script)).splitlines() == [
        "kconv needs TensorFlow: pip install 'kconv[cpu]' or 'kconv[tensorflow]'."
    ]
