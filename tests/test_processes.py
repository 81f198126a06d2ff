"""Models copied, called from threads, in other processes, and built again and again."""

import copy
import functools
import gc
import os
import pathlib
import pickle
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
from tensorflow.python.framework.func_graph import FuncGraph

import kconv

ROOT = pathlib.Path(kconv.__file__).parent.parent
X = np.random.default_rng(0).standard_normal((12, 10, 10, 4)).astype("float32")


def make_model(layers=kconv.layers, seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input(X.shape[1:]),
            layers.Conv2D(16, 3, activation="relu", name="conv"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.SeparableConv2D(6, 3, name="separable"),
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dense(3, name="dense"),
        ]
    )


def predict(model, x=X):
    return model.predict(x, batch_size=5, verbose=0)


# Copies.


def by_clone(model):
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    return cloned


@pytest.mark.parametrize(
    "make_copy",
    (lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy, by_clone),
    ids=("pickle", "deepcopy", "clone_model"),
)
def test_copies_of_a_model(make_copy):
    model = make_model()
    model.get_layer("conv").algorithm = "winograd"
    kconv.prepare(model)
    before, weights = predict(model), model.get_weights()
    other = make_copy(model)
    assert [type(layer) for layer in other.layers] == [type(x) for x in model.layers]
    assert other.get_layer("conv").algorithm == "winograd"
    assert not other.get_layer("conv").is_prepared
    np.testing.assert_allclose(predict(other), before, atol=1e-5)
    other.compile(keras.optimizers.SGD(0.1), "mse")
    other.fit(X, np.ones((12, 3)), verbose=0)
    assert np.abs(predict(other) - before).max() > 1e-3
    for own, kept in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(own, kept)
    np.testing.assert_array_equal(predict(model), before)


def test_copies_of_a_layer():
    model = make_model()
    for name in ("conv", "depthwise", "separable"):
        layer = model.get_layer(name)
        for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert type(other) is type(layer)
            assert other.get_config() == layer.get_config()


def test_summary_is_that_of_stock_layers():
    printed = []
    for layers in (kconv.layers, keras.layers):
        lines = []
        make_model(layers).summary(print_fn=lines.append)
        # But for the name of the model, which is numbered.
        printed.append("\n".join(lines).split("\n", 1)[1])
    assert "conv (Conv2D)" in printed[0]
    assert printed[0] == printed[1]


# Threads.


def in_threads(functions):
    """Calls functions at the same time; returns what they return."""
    results, errors = [None] * len(functions), []
    start = threading.Barrier(len(functions))

    def call(index):
        try:
            start.wait(60)
            results[index] = functions[index]()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    assert not any(thread.is_alive() for thread in threads)
    return results


def test_threads_predict_with_one_model():
    model = make_model()
    shares = [X[i : i + 3] for i in range(0, 12, 3)]
    calls = [functools.partial(predict, model, x) for x in shares]
    results = in_threads(3 * calls)
    for result, expected in zip(results, 3 * [call() for call in calls], strict=True):
        np.testing.assert_array_equal(result, expected)


def test_threads_with_a_model_each():
    models = [make_model(seed=seed) for seed in range(3)]
    results = in_threads([functools.partial(predict, model) for model in models])
    for model, result in zip(models, results, strict=True):
        stock = kconv.revert(model)
        np.testing.assert_allclose(result, predict(stock), atol=1e-5)


# Processes.

PROCESSES = """
import multiprocessing
import sys

import keras, numpy as np, tensorflow as tf

import kconv

X = np.random.default_rng(0).standard_normal((4, 16, 16, 8)).astype("float32")
W = np.random.default_rng(1).standard_normal((1, 1, 8, 16)).astype("float32")


def conv(x):
    return kconv.ops.conv(x, W, algorithm="gemm")


def check(function):
    np.testing.assert_allclose(function(X), X @ W[0, 0], atol=1e-4)


def check_model(model, expected):
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, atol=1e-5)


def run(method, *arguments):
    process = multiprocessing.get_context(method).Process(target=arguments[0],
                                                          args=arguments[1:])
    process.start()
    process.join(120)
    if process.is_alive():
        process.kill()
        raise AssertionError(f"{method}: the process hangs")
    assert process.exitcode == 0, f"{method}: {process.exitcode}"


if __name__ == "__main__":
    # Importing kconv has started no threads that a child would miss.
    run("fork", check, conv)
    run("fork", check, tf.function(conv))
    check(conv)
    # TensorFlow's threads are missing now, and stock's ops would wait for them.
    run("fork", check, conv)
    model = keras.Sequential([keras.Input(X.shape[1:]), kconv.layers.Conv2D(8, 3)])
    run("spawn", check_model, model, model(X).numpy())
    print("done")
"""


def test_forked_and_spawned_processes(tmp_path):
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    result = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout
    assert result.stdout.splitlines()[-1] == "done"


# Building again and again, as a search for hyperparameters does.


def resident():
    """Memory of this process in MiB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def graphs():
    """Number of traced functions that are alive."""
    gc.collect()
    return sum(isinstance(one, FuncGraph) for one in gc.get_objects())


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux only")
def test_building_again_and_again_keeps_no_memory():
    def build(index):
        size = 10 + index % 17
        x = np.ones((1 + index % 3, size, size, 4), "float32")
        layers = [
            keras.Input((size, size, 4)),
            kconv.layers.Conv2D(4 + index % 5, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
        ]
        predict(keras.Sequential(layers), x)
        keras.backend.clear_session()

    for index in range(10):
        build(index)
    before, alive = resident(), graphs()
    for index in range(10, 50):
        build(index)
    assert graphs() <= alive
    assert resident() - before < 16


def test_caches_are_bounded():
    found = []
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] != "kconv" or module is None:
            continue
        for function in vars(module).values():
            if hasattr(function, "cache_parameters"):
                found.append(function.__name__)
                once = function.__wrapped__.__code__.co_argcount == 0
                assert once or function.cache_parameters()["maxsize"], function
    assert "candidates" in found
