"""The accuracy of the whole process."""

import os
import subprocess
import sys
import threading
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import kconv
from kconv import dispatch, info, native, settings
from kconv.dispatch import Candidate

SHAPES = (1, 8, 8, 4), (3, 3, 4, 4)
ROWS = (
    Candidate("winograd:f4", None, 1.0, 0, is_strict=False),
    Candidate("gemm", None, 2.0, 0),
    Candidate("builtin", None, 3.0),
)


@pytest.fixture(autouse=True)
def estimates(monkeypatch):
    """Lets Winograd's algorithm have the lowest estimate, and tidies up."""
    monkeypatch.setattr(dispatch, "candidates", lambda *arguments: ROWS)
    dispatch.stock_takes.cache_clear()
    before = kconv.accuracy()
    kconv.set_accuracy("fast")
    yield
    kconv.set_accuracy(before)
    dispatch.stock_takes.cache_clear()


def names_in(function, *arguments):
    """The attribute `algorithm` of kconv's ops in the graph of a function."""
    concrete = tf.function(function).get_concrete_function(*arguments)
    operations = concrete.graph.get_operations()
    return {op.get_attr("algorithm") for op in operations if "Kconv" in op.type}


def gradients(x, w, algorithm="auto"):
    with tf.GradientTape() as tape:
        tape.watch([x, w])
        y = kconv.ops.conv(x, w, algorithm=algorithm)
    return y, *tape.gradient(y, [x, w])


OPERANDS = [tf.ones(shape) for shape in SHAPES]


def test_fast_is_the_default():
    assert kconv.accuracy() == "fast"
    told = kconv.ops.explain(*SHAPES)
    assert (told.chosen, told.reason) == ("winograd:f4", "The lowest estimate.")
    assert names_in(gradients, *OPERANDS) == {b"auto"}


def test_strict_makes_auto_strict_in_all_passes():
    kconv.set_accuracy("strict")
    assert kconv.accuracy() == "strict"
    for pass_ in dispatch.PASSES:
        told = kconv.ops.explain(*SHAPES, pass_=pass_)
        assert told.chosen == "gemm"
        assert told.reason == (
            "The lowest estimate of the strict ones, for which "
            "kconv.set_accuracy('strict') asks."
        )
    assert names_in(gradients, *OPERANDS) == {b"auto:strict"}
    assert kconv.ops.explain(*SHAPES, algorithm="auto:strict").chosen == "gemm"


@pytest.mark.parametrize("algorithm", ("winograd", "winograd:f4", "gemm"))
def test_forced_stays_forced(algorithm):
    kconv.set_accuracy("strict")
    told = kconv.ops.explain(*SHAPES, algorithm=algorithm)
    assert told.chosen in (algorithm, "winograd:f4")
    names = names_in(lambda x, w: gradients(x, w, algorithm), *OPERANDS)
    assert names == {algorithm.encode()}


def test_strict_may_leave_stock_the_best(monkeypatch):
    rows = (ROWS[0], Candidate("builtin", None, 1.5), ROWS[1])
    monkeypatch.setattr(dispatch, "candidates", lambda *arguments: rows)
    assert names_in(gradients, *OPERANDS) == {b"auto"}
    kconv.set_accuracy("strict")
    assert kconv.ops.explain(*SHAPES).chosen == "builtin"
    assert names_in(gradients, *OPERANDS) == set()


def test_a_traced_function_keeps_its_choice():
    traced = tf.function(kconv.ops.conv)
    # Of these the op itself thinks that Winograd's is the fastest.
    shapes = (1, 32, 32, 128), (3, 3, 128, 128)
    x, w = (tf.constant(np.random.default_rng(0).random(s), "float32") for s in shapes)
    fast = traced(x, w)
    kconv.set_accuracy("strict")
    assert np.array_equal(traced(x, w), fast)
    assert names_in(kconv.ops.conv, x, w) == {b"auto:strict"}
    strict = kconv.ops.conv(x, w, algorithm="auto:strict")
    assert not np.array_equal(strict, fast)
    assert np.array_equal(kconv.ops.conv(x, w), strict)


def test_gradients_follow_the_call():
    kconv.set_accuracy("strict")
    x, w = OPERANDS

    def function(x, w):
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = kconv.ops.conv(x, w)
        kconv.set_accuracy("fast")
        return tape.gradient(y, [x, w])

    assert names_in(function, x, w) == {b"auto:strict"}


def test_a_model_is_traced_anew_by_compile():
    model = keras.Sequential([kconv.layers.Conv2D(4, 3)])
    x = np.zeros(SHAPES[0], "float32")
    seen = []
    run_native = dispatch._run_native

    def spy(pass_, spec, *operands):
        seen.append(spec.algorithm)
        return run_native(pass_, spec, *operands)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "_run_native", spy)
        model.compile()
        model.predict(x, verbose=0)
        kconv.set_accuracy("strict")
        model.predict(x, verbose=0)
        assert "auto:strict" not in seen
        model.compile()
        model.predict(x, verbose=0)
    assert seen[-1] == "auto:strict"


def test_a_layer_can_ask_for_it():
    layer = kconv.layers.Conv2D(4, 3, algorithm="auto:strict")
    assert names_in(layer, OPERANDS[0]) == {b"auto:strict"}
    again = kconv.layers.Conv2D.from_config(layer.get_config())
    assert again.algorithm == "auto:strict"


@pytest.mark.parametrize("wrong", ("Strict", "", "exact", None, 1, ["fast"]))
def test_wrong_accuracy(wrong):
    with pytest.raises(ValueError, match=r"must be one of \['fast', 'strict'\]. Rec"):
        kconv.set_accuracy(wrong)
    assert kconv.accuracy() == "fast"


def test_all_threads_see_it():
    kconv.set_accuracy("strict")
    seen = []
    thread = threading.Thread(target=lambda: seen.append(kconv.accuracy()))
    thread.start()
    thread.join()
    assert seen == ["strict"]


def test_info_shows_it():
    kconv.set_accuracy("strict")
    assert info.collect()["settings"]["accuracy"] == "strict"


def test_environment(monkeypatch):
    for given, expected in (("strict", "strict"), ("fast", "fast"), ("", "fast")):
        monkeypatch.setenv("KCONV_ACCURACY", given)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert settings._from_environment() == expected
    monkeypatch.setenv("KCONV_ACCURACY", "exact")
    with pytest.warns(UserWarning, match="fast, strict; it is ign.*ACCURACY=exact"):
        assert settings._from_environment() == "fast"


@pytest.fixture
def limited():
    """Forgets a limit."""
    yield kconv.set_workspace_limit
    kconv.set_workspace_limit(None)


# With these gemm asks for 1.3 MiB, on two threads.
POINTWISE = (1, 7, 7, 512), (1, 1, 512, 2048)


def test_a_limit_is_kept_to(limited, monkeypatch):
    monkeypatch.undo()  # the true candidates
    assert kconv.workspace_limit() is None
    x, w = (tf.random.normal(shape) for shape in POINTWISE)
    for limit in (None, 16 << 20, 100 << 10, 0):
        limited(limit)
        assert kconv.workspace_limit() == limit
        native.reset_workspace_peak()
        kconv.ops.conv(x, w, algorithm="auto")
        assert native.workspace_peak() <= (16 << 20 if limit is None else limit)
    told = kconv.ops.explain(*POINTWISE)
    assert told.chosen == "direct"
    assert "limit" in told.candidates[-1].refusal
    gemm = next(row for row in told.candidates if row.algorithm == "gemm")
    assert gemm.refusal == "It needs more workspace than the limit."
    native.reset_workspace_peak()
    kconv.ops.conv(x, w, algorithm="gemm")
    assert native.workspace_peak() > 1 << 20


def test_determinism_and_a_limit_do_not_depend_on_threads(limited):
    core = native.core()
    problem = core.Problem("forward", [7, 7], [1, 1], 512, 2048)
    for limit in (0, 1 << 20, 4 << 20, 64 << 20):
        limited(limit)
        chosen = {
            problem.choose(threads=n, deterministic=True, with_stock=True)
            for n in (1, 2, 8, 64)
        }
        assert len(chosen) == 1
    limited(64 << 10)
    assert problem.choose(threads=1) != problem.choose(algorithm="gemm")


@pytest.mark.parametrize("wrong", (-1, 1.5, "1M", True, 2**63, [1]))
def test_wrong_limit(wrong):
    with pytest.raises(ValueError, match=r"number of bytes.*Received: limit="):
        kconv.set_workspace_limit(wrong)
    assert kconv.workspace_limit() is None


def test_limit_from_the_environment():
    # Without TensorFlow, which takes its time.
    script = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("kconv._core", {native.core().__file__!r})
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
print(core.workspace_limit())
"""
    for text, expected in (
        *(("0", 0), ("123", 123), ("3K", 3 << 10), ("5M", 5 << 20), ("7G", 7 << 30)),
        *(("", None), ("M", None)),
    ):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "KCONV_WORKSPACE_LIMIT": text},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [str(expected)]


def test_a_limit_that_is_none_is_told(monkeypatch):
    for wrong in ("", "M", "1T", "-1", "1.5G", "9" * 19, "99999999999G"):
        assert not native.core().is_workspace_limit(wrong)
    monkeypatch.setenv("KCONV_WORKSPACE_LIMIT", "1 MB")
    with pytest.warns(UserWarning, match=r"ignored. Received: KCONV_WORKSPACE_LIMIT=1"):
        native._warn_of_variables(native.core())
