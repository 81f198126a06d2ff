"""Tuning of models: what is measured, what is kept of it, and what it changes."""

import json
import os
import subprocess
import sys
import time
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import kconv
from kconv import choices, cli, dispatch, native, runtime, settings, tuner
from kconv.tuner import problems, race, timing

PASSES = dispatch.PASSES


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    """A file of its own for each test, and no choices before and after."""
    path = tmp_path / "choices.json"
    monkeypatch.setenv("KCONV_CHOICES", str(path))
    monkeypatch.setattr(settings, "_accuracy", "fast")
    native.set_choices({})
    yield path
    native.set_choices({})


def small_model(**arguments):
    """Three convolutions, of which two are the same."""
    image = keras.Input((12, 12, 8))
    x = kconv.layers.Conv2D(8, 3, padding="same", name="a", **arguments)(image)
    x = kconv.layers.Conv2D(8, 3, padding="same", name="b", **arguments)(x)
    x = kconv.layers.Conv2D(16, 1, name="c", **arguments)(x)
    return keras.Model(image, x)


def name_of_last(problem):
    *_, last = problem.candidates
    return last


def chosen(batch=1):
    """What runs for the first layer of the model, and what the tests make of it."""
    shapes = (batch, 12, 12, 8), (3, 3, 8, 8)
    return kconv.ops.explain(*shapes, padding="same").chosen


@pytest.fixture
def measured(monkeypatch):
    """Replaces measurements: one second, and some for what is estimated to be last."""

    def replace(last=0.25, before=lambda problem: None):
        seen = []

        def measure(problem, deadline, clock=None):
            before(problem)
            seen.append(problem)
            times = {name: [1.0] * 9 for name in problem.candidates}
            times[name_of_last(problem)] = [last] * 9
            return times, {name: seconds[0] for name, seconds in times.items()}

        monkeypatch.setattr(timing, "measure", measure)
        return seen

    return replace


# The problems of a model.


def collect(model, passes=("forward",), batch_sizes=(1,), **more):
    return problems.collect(model, None, batch_sizes, passes, **more)


def test_equal_convolutions_are_one_problem():
    found, omitted = collect(small_model(), PASSES)
    assert omitted == []
    assert len(found) == 2 * 3
    for pass_ in PASSES:
        twice, once = (one for one in found if one.pass_ == pass_)
        assert (twice.layers, twice.uses) == (["a", "b"], 2)
        assert (once.layers, once.uses) == (["c"], 1)
        assert twice.input_shape == twice.output_shape == (1, 12, 12, 8)
        assert once.filter_shape == (1, 1, 8, 16)
    estimates = [one.estimate for one in found]
    assert estimates == sorted(estimates, reverse=True)
    assert estimates[-1] > 0


def test_each_batch_is_a_problem():
    found, _ = collect(small_model(), batch_sizes=(1, 4))
    assert sorted(one.input_shape[0] for one in found) == [1, 1, 4, 4]
    assert len({one.key for one in found}) == 4


def test_stock_layers_are_taken_as_converted():
    layers = [keras.Input((12, 12, 8)), keras.layers.Conv2D(16, 1, name="c")]
    (stock,), _ = collect(keras.Sequential(layers))
    _, ours = collect(small_model())[0]
    assert stock.key == ours.key
    assert stock.layers == ["c"]


def test_candidates_are_what_auto_may_take():
    (one, _), _ = collect(small_model())
    told = kconv.ops.explain((1, 12, 12, 8), (3, 3, 8, 8), padding="same")
    accepted = {r.algorithm: r.seconds for r in told.candidates if r.refusal is None}
    assert one.candidates == accepted
    assert list(one.candidates.values()) == sorted(accepted.values())
    assert one.before == told.chosen
    assert {"gemm", "builtin", "winograd:f4"} <= set(one.candidates)


def test_transposed_convolution_is_the_gradient_of_what_it_undoes():
    layers = [keras.Input((6, 6, 8)), kconv.layers.Conv2DTranspose(4, 3, 2)]
    model = keras.Sequential(layers)
    passes = ("forward", "input_gradient")
    found = {one.pass_: one for one in collect(model, passes)[0]}
    assert set(found) == set(passes)
    for one in found.values():
        assert one.input_shape == (1, 13, 13, 4)
        assert one.output_shape == (1, 6, 6, 8)
    (forward,), _ = collect(model)
    assert forward.pass_ == "input_gradient"


def test_dtype_is_that_of_the_model_or_another():
    keras_policy = {"dtype": "bfloat16"}
    found, _ = collect(small_model(**keras_policy))
    assert {one.dtype for one in found} == {"bfloat16"}
    found, _ = collect(small_model(), dtype="float64")
    assert {one.dtype for one in found} == {"float64"}


def test_forced_and_strict_layers_are_omitted():
    found, omitted = collect(small_model(algorithm="gemm"))
    assert found == []
    assert {one.layer for one in omitted} == {"a", "b", "c"}
    assert "'gemm' leaves nothing" in omitted[0].sentence
    found, omitted = collect(small_model(algorithm="auto:strict"))
    assert found == []
    assert "set_accuracy('strict')" in omitted[0].sentence


def test_under_strict_accuracy_strict_algorithms_are_measured(measured, path):
    kconv.set_accuracy("strict")
    for algorithm in ("auto", "auto:strict"):
        found, _ = collect(small_model(algorithm=algorithm))
        names = {name for one in found for name in one.candidates}
        assert "gemm" in names
        assert not any(name.startswith("winograd") for name in names)
    measured()
    kconv.tune(small_model(), passes="forward", progress=False)
    (section,) = json.loads(path.read_text())["sections"]
    assert section["accuracy"] == "strict"


# Measuring.


@pytest.mark.parametrize("pass_", PASSES)
@pytest.mark.parametrize("dims", [1, 2])
def test_all_candidates_compute_the_same(pass_, dims):
    image = keras.Input((*(9,) * dims, 4))
    layer = [kconv.layers.Conv1D, kconv.layers.Conv2D][dims - 1]
    model = keras.Model(image, layer(4, 3, strides=2, padding="same")(image))
    (problem,), _ = collect(model, (pass_,), (2,))
    arguments = timing.operands(problem)
    assert len(problem.candidates) >= 3
    results = [timing.caller(problem, n)(*arguments) for n in problem.candidates]
    computed = {"input_gradient": problem.input_shape}.get(pass_, problem.output_shape)
    if pass_ == "filter_gradient":
        computed = problem.filter_shape
    for result in results:
        assert result.shape == computed
        np.testing.assert_allclose(result, results[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["gemm", "builtin"])
def test_calls_run_the_candidate_itself(name):
    (problem, _), _ = collect(small_model())
    call = tf.function(timing.caller(problem, name))
    graph = call.get_concrete_function(*timing.operands(problem)).graph
    kinds = {op.type: op for op in graph.get_operations() if "Conv" in op.type}
    if name == "builtin":
        assert set(kinds) == {"Conv2D"}
    else:
        assert set(kinds) == {"Kconv>Conv"}
        assert kinds["Kconv>Conv"].get_attr("algorithm") == b"gemm"


class Watch:
    """A stopwatch that knows the seconds of each, and moves a clock."""

    def __init__(self, table):
        self.table, self.now, self.turns = table, 0.0, []

    def prepare(self, key, call, arguments, limit=None, sequence=None):
        seconds = self.table[key]
        if isinstance(seconds, Exception):
            raise seconds
        self.now += seconds
        graph, _ = sequence(seconds)
        assert (graph is call) == (key in self.hopeless)
        return {"refusal": None, "seconds": seconds}

    def measure(self, key, seconds):
        self.turns.append(key)
        self.now += self.table[key]
        return [self.table[key]]


@pytest.fixture
def watch(monkeypatch):
    """Measures a problem by a table of seconds of candidates, until a deadline."""
    (problem, _), _ = collect(small_model())

    def measure(table, deadline=1e9, estimates=None, before="gemm", hopeless=()):
        watch = Watch(table)
        watch.hopeless = hopeless
        problem.candidates = estimates or dict.fromkeys(table, 1e-3)
        problem.before = before
        monkeypatch.setattr(timing, "Stopwatch", lambda: watch)
        found = timing.measure(problem, deadline, lambda: watch.now)
        return *found, watch

    return measure


def test_what_one_call_shows_to_be_far_behind_has_no_turn(watch):
    table = {"builtin": 1.0, "direct": 2.6, "gemm": 1.5}
    times, seconds, done = watch(table, hopeless=["direct"], before="builtin")
    assert set(times) == set(done.turns) == {"builtin", "gemm"}
    assert seconds == table


def test_what_runs_now_has_its_turn(watch):
    times, seconds, _ = watch({"gemm": 9.0, "direct": 1.0})
    assert times["gemm"] == [9.0]
    assert seconds["gemm"] == 9.0


def test_failing_candidates_are_left_out(watch):
    full = tf.errors.ResourceExhaustedError(None, None, "OOM")
    times, seconds, _ = watch({"gemm": full, "direct": 1.0, "builtin": MemoryError()})
    assert set(times) == set(seconds) == {"direct"}
    assert watch({"gemm": full}, before="gemm")[:2] == ({}, {})


def test_operands_that_do_not_fit_into_memory_are_no_error(watch, monkeypatch):
    def operands(problem):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    monkeypatch.setattr(timing, "operands", operands)
    assert watch({"gemm": 1.0})[:2] == ({}, {})


def test_candidates_that_would_take_all_that_is_left_are_left_out(watch):
    estimates = {"gemm": 1.0, "winograd:f4": 1.0, "direct": 100.0}
    table = dict.fromkeys(estimates, 1.0)
    times, *_ = watch(table, deadline=50.0, estimates=estimates)
    assert set(times) == {"gemm", "winograd:f4"}
    times, *_ = watch(table, deadline=200.0, estimates=estimates)
    assert "direct" in times


def test_a_problem_that_time_runs_out_for_is_finished(watch):
    three = {"gemm": 2.0, "direct": 2.0, "builtin": 2.0}
    assert watch(three, deadline=1.0)[:2] == ({}, {})
    times, *_ = watch(three, deadline=3.0)
    assert {n: len(one) for n, one in times.items()} == {"gemm": 3, "direct": 3}
    assert set(watch({"gemm": 2.0}, deadline=1.0)[0]) == {"gemm"}
    times, *_ = watch({"gemm": 1.0, "direct": 1.01}, deadline=2.5)
    assert [len(one) for one in times.values()] == [race.FEWEST_TURNS] * 2


# The whole.


def test_winners_are_kept_and_used(measured, path):
    seen = measured()
    model = small_model()
    x = np.ones((1, 12, 12, 8), "float32")
    before = model(x)
    report = kconv.tune(model, passes="forward", progress=False)
    assert [row.now for row in report.rows] == [name_of_last(one) for one in seen]
    assert report.rows[0].layers == ("a", "b")
    assert report.changed == 2
    assert report.gain == pytest.approx(4.0)
    assert (report.left, report.interrupted) == (0, False)
    assert report.path == str(path)
    assert chosen() == name_of_last(seen[0]) == report.rows[0].now
    assert chosen(batch=2) != name_of_last(seen[0])
    np.testing.assert_allclose(model(x), before, rtol=1e-4, atol=1e-4)
    assert choices.load() == native.choices()
    assert set(choices.load().values()) == {row.now for row in report.rows}
    again = kconv.tune(model, passes="forward", progress=False)
    assert (again.changed, again.gain) == (0, 1.0)


def test_later_processes_use_the_file(measured, path):
    measured()
    before = chosen()
    kconv.tune(small_model(), passes="forward", progress=False)
    assert chosen() != before
    words = (
        "import kconv, tensorflow as tf;"
        f"tf.config.threading.set_intra_op_parallelism_threads({runtime.threads()});"
        "print(kconv.ops.explain((1, 12, 12, 8), (3, 3, 8, 8), padding='same').chosen)"
    )
    command = [sys.executable, "-c", words]
    environment = {**os.environ, "KCONV_CHOICES": str(path)}
    told = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout.strip() == chosen()


def test_other_choices_stay(measured):
    native.set_choices({(99, "another problem"): "gemm"})
    measured()
    kconv.tune(small_model(), passes="forward", progress=False)
    assert native.choices()[99, "another problem"] == "gemm"
    assert len(native.choices()) == 3


def test_equal_candidates_change_nothing(measured):
    measured(last=1.0)
    report = kconv.tune(small_model(), progress=False)
    assert report.changed == 0
    assert all(row.now == row.before for row in report.rows)
    assert len(native.choices()) == len(report.rows) == 6


def test_without_saving_choices_hold_for_the_process(measured, path):
    measured()
    before = chosen()
    report = kconv.tune(small_model(), passes="forward", save=False, progress=False)
    assert report.path is None
    assert not path.exists()
    assert chosen() == report.rows[0].now != before
    assert "hold for this process only" in str(report)


def test_ctrl_c_keeps_what_there_is(measured, path):
    def interrupt(problem):
        if problem.layers == ["c"]:
            raise KeyboardInterrupt

    measured(before=interrupt)
    report = kconv.tune(small_model(), passes="forward", progress=False)
    assert report.interrupted
    assert (len(report.rows), report.left) == (1, 1)
    assert len(json.loads(path.read_text())["sections"][0]["choices"]) == 1
    assert "1 problems were not measured, for Ctrl-C came" in str(report)


def test_time_that_is_up_keeps_what_there_is(monkeypatch, path):
    def measure(problem, deadline):
        while time.perf_counter() < deadline:
            pass
        return {}, {}

    monkeypatch.setattr(timing, "measure", measure)
    report = kconv.tune(small_model(), seconds=0.01, progress=False)
    assert (report.rows, report.left, report.path) == ((), 6, None)
    assert (report.gain, report.changed) == (None, 0)
    assert not path.exists()
    assert "6 problems were not measured, for the time was up" in str(report)


def test_a_busy_machine_is_told(monkeypatch):
    def measure(problem, deadline):
        calls = [1.0, 1.0, 2.0, 3.0, 3.0] if problem.uses == 2 else [1.0] * 5
        return {problem.before: calls}, {problem.before: sorted(calls)[2]}

    monkeypatch.setattr(timing, "measure", measure)
    report = kconv.tune(small_model(), passes="forward", progress=False)
    assert [row.spread for row in report.rows] == [0.5, 0.0]
    assert report.spread == 0.25
    assert "The machine is busy: calls of the same algorithm differ by 25 %" in str(
        report
    )
    monkeypatch.setattr(tuner.report, "NOISY", 0.3)
    assert "machine is busy" not in str(report)


def test_problems_that_nothing_can_compute_are_told(monkeypatch):
    monkeypatch.setattr(timing, "measure", lambda *_: ({}, {}))
    report = kconv.tune(small_model(), passes="forward", progress=False)
    assert (report.rows, report.left, report.path) == ((), 0, None)
    assert [one.layer for one in report.omitted] == ["a", "b", "c"]
    assert "Not measured: a, b, c. Nothing could compute it" in str(report)


def test_expensive_problems_come_first(measured):
    seen = measured(last=1.0)
    kconv.tune(small_model(), batch_size=[1, 8], progress=False)
    assert seen == sorted(seen, key=lambda one: -one.estimate)
    assert seen[0].input_shape[0] == 8


def test_real_measurements(monkeypatch, capfd):
    monkeypatch.setattr(timing, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(race, "MOST_TURNS", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = kconv.tune(small_model())
    assert report.left == 0
    for row in report.rows:
        assert row.now in row.seconds
        assert {"gemm", "builtin"} <= set(row.seconds)
        assert all(0 < seconds < 5 for seconds in row.seconds.values())
    words = str(report)
    assert "a +1" in words
    assert "12x12x8 3x3 -> 8, batch 1" in words
    assert "filter gradient" in words
    assert "retracing" not in capfd.readouterr().err


# Wrong arguments.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": 7}, "must be a Keras model.*Received: 7"),
        ({"passes": "sideways"}, "Received: passes='sideways'"),
        ({"passes": ()}, r"Received: passes=\(\)"),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"batch_size": []}, r"Received: batch_size=\[\]"),
        ({"batch_size": [1, True]}, r"Received: batch_size=\[1, True\]"),
        ({"seconds": 0}, "Received: seconds=0"),
        ({"seconds": float("nan")}, "Received: seconds=nan"),
        ({"seconds": "long"}, "Received: seconds='long'"),
        ({"dtype": "int8"}, "Received: dtype='int8'"),
        ({"dtype": 7}, "Received: dtype=7"),
        ({"input_shape": (3, 3)}, "must fit to the inputs"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        kconv.tune(**{"model": small_model(), "progress": False, **arguments})


def test_models_without_a_choice_are_an_error():
    with pytest.raises(ValueError, match=r"no convolution that.*'gemm' leaves nothing"):
        kconv.tune(small_model(algorithm="gemm"), progress=False)
    dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="no convolution that"):
        kconv.tune(dense, progress=False)


def test_what_auto_would_not_use_is_not_measured(monkeypatch):
    monkeypatch.setattr(runtime, "is_deterministic", lambda: True)
    with pytest.raises(RuntimeError, match="Op determinism is on"):
        kconv.tune(small_model())
    monkeypatch.setattr(runtime, "is_deterministic", lambda: False)
    monkeypatch.setattr(runtime, "has_gpu", lambda: True)
    with pytest.raises(RuntimeError, match="A GPU is visible"):
        kconv.tune(small_model())
    monkeypatch.setattr(native, "ops", lambda: None)
    monkeypatch.setattr(native, "why_missing", lambda: "It is not there.")
    with pytest.raises(RuntimeError, match="It is not there"):
        kconv.tune(small_model())


# The command.


def test_command_tunes_a_file(measured, tmp_path, capsys, path):
    measured()
    small_model().save(tmp_path / "model.keras")
    command = ["tune", str(tmp_path / "model.keras"), "--passes", "forward"]
    assert cli.main([*command, "--batch", "1", "2", "--seconds", "5", "--show"]) == 0
    words = capsys.readouterr().out
    assert "4 of 4 choices changed" in words
    assert f"4 choices hold here, from {path}" in words
    assert words.count(" threads  ") == 4
    assert cli.main(["tune", "--clear", "--show"]) == 0
    words = capsys.readouterr().out
    assert "4 choices of this processor are forgotten" in words
    assert "0 choices hold here" in words
    assert choices.load() == {}


def test_command_passes_on_what_it_is_told(monkeypatch):
    told = {}

    def tune(model, *arguments):
        told["model"], told["arguments"] = model, arguments
        return tuner.TuningReport((), (), 0, 1, 0.0, False, None)

    monkeypatch.setattr(tuner, "tune", tune)
    monkeypatch.setattr(
        tf.config.threading,
        "set_intra_op_parallelism_threads",
        lambda n: told.update(threads=n),
    )
    command = "tune lenet5 --input-shape 40 40 1 --dtype float64 --threads 3"
    assert cli.main(command.split()) == 0
    assert told["model"].input_shape == (None, 40, 40, 1)
    assert told["arguments"] == ((40, 40, 1), list(PASSES), [1], 60.0, "float64")
    assert told["threads"] == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Which model"),
        (["no_such_model"], "no_such_model"),
        (["lenet5", "--seconds", "-1"], "Received: seconds=-1"),
    ],
)
def test_command_says_what_is_wrong(arguments, words, capsys):
    assert cli.main(["tune", *arguments]) == 1
    assert words in capsys.readouterr().err
