"""Deformable convolution: the kernels, and the TensorFlow ops as they are."""

import dataclasses
import functools

import numpy as np
import pytest
import reference
import tensorflow as tf
from deform_cases import CASES, PLAIN, SAME, Case, assert_case
from deform_reference import Options, forward, gradients
from problems import DTYPES

from kconv import native

core, ops = native.core(), native.ops()
assert core is not None and ops is not None, native.why_missing()

PASSES = ("forward", "input_gradient", "filter_gradient")
every_isa = pytest.mark.parametrize("isa", core.isas())
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
every_pass = pytest.mark.parametrize("pass_", PASSES)


def run(pass_, operands, options, **more):
    """Runs the kernels and returns the tuple of results."""
    x, w, offsets, mask, dy = operands
    report = core.deform_conv(
        pass_,
        x,
        w,
        offsets,
        mask=mask,
        output=None if pass_ == "forward" else dy,
        guard=256,
        **dataclasses.asdict(options),
        **more,
    )
    assert report["guards_intact"]
    assert report["isa"] == more.get("isa", core.cpu_info()["isa"])
    return report["results"]


def run_all(operands, options, **more):
    """Every result by name."""
    results = {}
    (results["output"],) = run("forward", operands, options, **more)
    by_image = run("input_gradient", operands, options, **more)
    results.update(zip(("input", "offsets", "mask"), by_image, strict=False))
    (results["filter"],) = run("filter_gradient", operands, options, **more)
    assert ("mask" in results) == (operands[3] is not None)
    return results


@every_dtype
@every_isa
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_results_are_accurate(case, isa, dtype):
    operands, _ = case.judged(dtype)
    assert_case(case, dtype, run_all(operands, case.options, isa=isa))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_same_bits_for_any_number_of_threads(case, dtype):
    operands, _ = case.judged(dtype)
    for isa in core.isas():
        one, *others = (
            run_all(operands, case.options, isa=isa, threads=threads)
            for threads in (1, 2, 7)
        )
        for other in others:
            for name, result in one.items():
                assert result.tobytes() == other[name].tobytes()


@every_isa
@every_dtype
@pytest.mark.parametrize("name", ["plain", "strides", "groups", "many_channels"])
def test_zero_offsets_make_the_plain_convolution(name, dtype, isa):
    case = CASES[name]
    x, w, offsets, _, dy = case.operands(dtype)
    operands = x, w, np.zeros_like(offsets), None, dy
    results = run_all(operands, case.options, isa=isa)
    plain = dataclasses.asdict(case.options)
    plain.pop("offset_groups")
    plain["layout"] = "channels_last"
    x, w, dy = (np.asarray(v, np.float64) for v in (x, w, dy))
    for of, absolute in ((np.asarray, False), (np.abs, True)):
        x, w, dy = of(x), of(w), of(dy)
        found = {
            "output": reference.conv(x, w, **plain),
            "input": reference.input_gradient(x.shape, w, dy, **plain),
            "filter": reference.filter_gradient(x, w.shape, dy, **plain),
        }
        if not absolute:
            exact = found
    # The bound that every plain kernel is held to.
    for name, magnitude in found.items():
        reference.assert_accurate(results[name], exact[name], magnitude)


@pytest.mark.parametrize("case", ["plain", "both_groups", "strides", "far"])
def test_gradients_are_finite_differences(case):
    case = CASES[case]
    x, w, offsets, mask, dy = case.operands("float64")
    # Off the kinks, which lie at the integers.
    fraction = np.mod(offsets, 1)
    offsets = np.floor(offsets) + np.clip(fraction, 0.05, 0.95)
    start = {"input": x, "filter": w, "offsets": offsets, "mask": mask}
    found = run_all((*start.values(), dy), case.options)

    def loss(values):
        (y,) = run("forward", (*values.values(), dy), case.options)
        return (y * dy).sum()

    rng = np.random.default_rng(1)
    step = 1e-5
    for name, value in start.items():
        for _ in range(3):
            way = rng.choice([-1.0, 1.0], value.shape)
            ahead = loss({**start, name: value + step * way})
            behind = loss({**start, name: value - step * way})
            slope = (found[name] * way).sum()
            scale = np.abs(found[name]).sum()
            assert abs((ahead - behind) / (2 * step) - slope) < 1e-6 * scale


@every_dtype
@every_isa
def test_empty_tensors(dtype, isa):
    for shape, padding in (((0, 5, 6, 4), 1), ((2, 0, 6, 4), 0), ((1, 0, 3, 4), 2)):
        options = Options(padding=((padding, padding),) * 2, offset_groups=2)
        case = Case(shape[1:3], (3, 3), 4, 3, shape[0], options=options)
        operands = case.operands(dtype)
        results = run_all(operands, options, isa=isa)
        sizes = dict(
            zip(("input", "filter", "offsets", "mask"), operands, strict=False)
        )
        for name, result in results.items():
            expected = operands[4] if name == "output" else sizes[name]
            assert result.shape == expected.shape
            assert not np.asarray(result, np.float64).any()


STRANGE = [np.inf, -np.inf, 1e30, -1e30, 3e9, -3e9, 2.0**62, 1e5]


@every_dtype
@every_isa
def test_huge_offsets_read_nothing(dtype, isa):
    case = CASES["offset_groups"]
    x, w, offsets, mask, dy = case.operands(dtype)
    rng = np.random.default_rng(2)
    with np.errstate(over="ignore"):
        strange = rng.choice(STRANGE, offsets.shape).astype(offsets.dtype)
    chosen = rng.random(offsets.shape) < 0.2
    offsets = np.where(chosen, strange, offsets)
    results = run_all((x, w, offsets, mask, dy), case.options, isa=isa)
    exact = gradients(x, w, offsets, mask, dy, case.options)
    largest = gradients(x, w, offsets, mask, dy, case.options, absolute=True)
    for i, name in enumerate(("input", "filter", "offsets", "mask")):
        reference.assert_accurate(results[name], exact[i], largest[i])
    shape = (*chosen.shape[:3], -1, 2)
    moved = chosen.reshape(shape).any(-1)
    assert moved.any()
    assert not np.asarray(results["mask"][moved], np.float64).any()
    assert not np.asarray(results["offsets"].reshape(shape)[moved], np.float64).any()


@every_dtype
@every_isa
def test_nan_offsets_spoil_what_reads_them(dtype, isa):
    case = CASES["offset_groups"]
    x, w, offsets, mask, dy = case.operands(dtype)
    offsets = offsets.copy()
    taps, group, tap = 9, 1, 4
    point = group * taps + tap
    offsets[0, 2, 3, 2 * point + 1] = np.nan
    offsets[0, 2, 3, 2 * point] = -np.inf
    operands = x, w, offsets, mask, dy
    results = run_all(operands, case.options, isa=isa)
    expected = {
        "output": np.isnan(forward(x, w, offsets, mask, case.options)),
        "input": np.zeros(x.shape, bool),
        "filter": np.zeros(w.shape, bool),
        "offsets": np.zeros(offsets.shape, bool),
        "mask": np.zeros(mask.shape, bool),
    }
    assert expected["output"][0, 2, 3].all() and expected["output"].sum() == 8
    expected["filter"][1, 1, 4:8] = True
    expected["offsets"][0, 2, 3, 2 * point : 2 * point + 2] = True
    expected["mask"][0, 2, 3, point] = True
    for name, result in results.items():
        np.testing.assert_array_equal(np.isnan(result), expected[name], name)


@every_isa
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_strange_inputs_spoil_what_samples_them(value, isa):
    case = Case((6, 7), (3, 3), 20, 5, options=Options(padding=SAME))
    x, w, offsets, mask, dy = case.operands()
    mask = np.ones_like(mask)
    at = 0, 3, 4, 17
    for moved in (np.zeros_like(offsets), offsets):
        marked = np.zeros(x.shape)
        marked[at] = 1
        reads = forward(marked, np.ones(w.shape), moved, mask, case.options) > 0
        strange = x.copy()
        strange[at] = value
        (found,) = run("forward", (strange, w, moved, mask, dy), case.options, isa=isa)
        (usual,) = run("forward", (x, w, moved, mask, dy), case.options, isa=isa)
        np.testing.assert_array_equal(np.isfinite(found), ~reads)
        np.testing.assert_array_equal(found[~reads], usual[~reads])
    assert 0 < reads.sum() < reads.size


@every_isa
def test_at_integers_the_derivative_is_to_the_right(isa):
    x = np.array([1.0, 4.0, 9.0, 2.0]).reshape(1, 1, 4, 1)
    w = np.ones((1, 1, 1, 1))
    for column, dy in ((0, 3.0), (1, 5.0), (2, -7.0), (3, -2.0), (-1, 0.0), (4, 0.0)):
        offsets = np.zeros((1, 1, 4, 2))
        offsets[0, 0, 0, 1] = column
        operands = x, w, offsets, None, np.array([1.0, 0, 0, 0]).reshape(1, 1, 4, 1)
        _, found = run("input_gradient", operands, PLAIN, isa=isa)
        inside = 0 <= column < 4
        below = -x[0, 0, column, 0] if inside else 0.0
        assert found[0, 0, 0].tolist() == [below, dy]


def test_epilogue():
    case = CASES["both_groups"]
    x, w, offsets, mask, dy = case.operands("float16")
    bias = np.random.default_rng(3).standard_normal(8).astype(np.float16)
    exact, magnitude = case.judged("float16")[1]["output"]
    for isa in core.isas():
        for given in (None, bias):
            for activation in ("linear", "relu", "relu6"):
                (found,) = run(
                    "forward",
                    (x, w, offsets, mask, dy),
                    case.options,
                    isa=isa,
                    bias=given,
                    activation=activation,
                )
                size = 0 if given is None else np.abs(given.astype(np.float64))
                reference.assert_accurate(
                    found,
                    reference.finish(exact, given, activation, "channels_last"),
                    magnitude + size,
                )


def test_memory_is_bounded():
    # Nine taps of the input would be 9 x 4 x 128 x 128 x 64 bytes.
    x = np.zeros((1, 128, 128, 64), np.float32)
    w = np.zeros((3, 3, 64, 64), np.float32)
    offsets = np.zeros((1, 126, 126, 18), np.float32)
    dy = np.zeros((1, 126, 126, 64), np.float32)
    for pass_ in PASSES:
        output = None if pass_ == "forward" else dy
        found = core.deform_conv(pass_, x, w, offsets, output=output, threads=2)
        assert found["workspace"] < x.nbytes


def test_threads_without_work_need_no_memory():
    # The gradient of half types keeps a float32 plane for each image it works on.
    shapes = (1, 9, 9, 64), (1, 1, 64, 8), (1, 9, 9, 2), (1, 9, 9, 8)
    *operands, dy = (np.zeros(shape, np.float16) for shape in shapes)
    run = functools.partial(core.deform_conv, "input_gradient", *operands, output=dy)
    assert run(threads=16)["workspace"] == run(threads=256)["workspace"]


# The ops.


def attributes(options, **changes):
    given = {
        "strides": options.strides,
        "dilations": options.dilation_rate,
        "padding": "EXPLICIT",
        "explicit_paddings": [n for pads in options.padding for n in pads],
        "groups": options.groups,
        "offset_groups": options.offset_groups,
    }
    return {**given, **changes}


def run_op(pass_, operands, options, sizes_dtype=tf.int32, **changes):
    x, w, offsets, mask, dy = operands
    given = attributes(options, **changes)
    given["mask"] = [] if mask is None else [mask]
    if pass_ == "forward":
        given = {"bias": [], **given}
        return [ops.kconv_deform_conv(x, w, offsets, **given)]
    if pass_ == "input_gradient":
        dx, doffsets, dmask = ops.kconv_deform_conv_backprop_input(
            x, w, offsets, out_backprop=dy, **given
        )
        return [dx, doffsets, *dmask]
    sizes = tf.shape(w, sizes_dtype)
    return [
        ops.kconv_deform_conv_backprop_filter(
            x, sizes, offsets, out_backprop=dy, **given
        )
    ]


@every_dtype
@every_pass
@pytest.mark.parametrize("name", ["plain", "no_mask", "both_groups", "strides"])
def test_ops_have_the_bits_of_the_core(name, pass_, dtype):
    case = CASES[name]
    operands, _ = case.judged(dtype)
    found = run_op(pass_, operands, case.options, tf.int64)
    expected = run(pass_, operands, case.options)
    assert len(found) == len(expected)
    for result, alone in zip(found, expected, strict=True):
        assert result.numpy().tobytes() == alone.tobytes()


@every_pass
def test_ops_of_empty_tensors(pass_):
    for batch, height in ((0, 4), (2, 0)):
        case = Case((height, 5), (3, 3), 4, 6, batch)
        operands = case.operands()
        for found, expected in zip(
            run_op(pass_, operands, PLAIN), run(pass_, operands, PLAIN), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
            assert not np.any(found)


@every_pass
def test_shapes_known_only_at_run_time(pass_):
    case = CASES["strides"]
    operands, _ = case.judged("float32")
    expected = run(pass_, operands, case.options)
    function = tf.function(
        lambda *operands: run_op(pass_, operands, case.options),
        input_signature=[tf.TensorSpec(None, tf.float32)] * 5,
    )
    for result, alone in zip(function(*operands), expected, strict=True):
        assert result.numpy().tobytes() == alone.tobytes()


def shapes_of(pass_, x, w, offsets, mask, dy, **changes):
    """The static shapes that an op infers."""
    found = []

    def build(*operands):
        found.extend(
            result.shape.as_list()
            for result in run_op(pass_, operands, Options(padding=SAME), **changes)
        )

    given = [tf.TensorSpec(shape, tf.float32) for shape in (x, w, offsets, mask, dy)]
    tf.function(build).get_concrete_function(*given)
    return found


def test_shapes_are_inferred_from_what_is_known():
    n = None
    x, w = [2, 7, 9, 4], [3, 3, 4, 6]
    offsets, mask, dy = [2, 7, 9, 18], [2, 7, 9, 9], [2, 7, 9, 6]
    # The batch from the offsets, the size from the mask, the channels from the filter.
    assert shapes_of(
        "forward", [n, n, n, n], w, [2, n, n, n], [n, 7, 9, n], [n] * 4
    ) == [dy]
    assert shapes_of("forward", x, [n, n, 4, 6], [n] * 4, [n] * 4, [n] * 4) == [
        [2, n, n, 6]
    ]
    assert shapes_of("input_gradient", [n, 7, 9, n], w, [n] * 4, [n] * 4, dy) == [
        x,
        offsets,
        mask,
    ]


@every_pass
def test_same_padding_is_that_of_the_convolution(pass_):
    padding = ((1, 1), (0, 1))
    options = Options((1, 2), padding=padding)
    case = Case((6, 8), (3, 3), 4, 5, options=options)
    operands, _ = case.judged("float32")
    same = run_op(pass_, operands, options, padding="SAME", explicit_paddings=[])
    for found, expected in zip(same, run(pass_, operands, options), strict=True):
        assert found.numpy().tobytes() == expected.tobytes()


def wrong(**changes):
    """Operands and attributes of a small problem, some replaced."""
    case = Case((5, 5), (3, 3), 4, 6)
    names = ("x", "w", "offsets", "mask", "dy")
    operands = dict(zip(names, case.operands(), strict=True))
    operands.update({k: v for k, v in changes.items() if k in names})
    return tuple(operands.values()), {
        k: v for k, v in changes.items() if k not in names
    }


zeros = functools.partial(np.zeros, dtype=np.float32)
ERRORS = [
    ({"offsets": zeros((1, 3, 3, 17))}, PASSES, "offsets must have shape"),
    ({"offsets": zeros((1, 3, 2, 18))}, PASSES, "offsets must have shape"),
    ({"offsets": zeros((2, 3, 3, 18))}, PASSES, "offsets must have shape"),
    ({"mask": zeros((1, 3, 3, 18))}, PASSES, "mask must have shape"),
    ({"dy": zeros((1, 3, 3, 5))}, PASSES[1:2], "out_backprop must have shape"),
    ({"dy": zeros((1, 3, 4, 6))}, PASSES[1:], "out_backprop must have shape"),
    ({"x": zeros((5, 5, 4))}, PASSES, "must have 4 dimensions"),
    ({"x": zeros((1, 5, 5, 5))}, PASSES, "groups times"),
    ({"x": zeros((1, 2, 5, 4))}, PASSES, "larger than the padded input"),
    ({"w": zeros((3, 3, 4, 0))}, PASSES, "must have filters"),
    ({"groups": 0}, PASSES, "groups must be positive"),
    ({"groups": 3}, PASSES, "divisible by groups"),
    ({"offset_groups": 0}, PASSES, "offset_groups must be positive"),
    ({"offset_groups": 3}, PASSES, "divisible by offset_groups"),
    ({"strides": [1, 1, 1]}, PASSES, "Received: "),
    ({"strides": [1], "dilations": [1], "explicit_paddings": [0] * 2}, PASSES, "two"),
    ({"strides": [0, 1]}, PASSES, "strides must be positive"),
    ({"dilations": [1, 0]}, PASSES, "dilation_rate must be positive"),
    ({"explicit_paddings": [0, 0, -1, 0]}, PASSES, "padding must not be negative"),
    ({"explicit_paddings": [0, 0]}, PASSES, "explicit_paddings must have two"),
]


@pytest.mark.parametrize(("changes", "passes", "sentence"), ERRORS)
def test_errors_say_what_was_received(changes, passes, sentence):
    for pass_ in passes:
        operands, given = wrong(**changes)
        with pytest.raises(tf.errors.InvalidArgumentError) as error:
            run_op(pass_, operands, PLAIN, **given)
        assert sentence in str(error.value)
        assert "Received: " in str(error.value)


def test_errors_of_lists():
    x, w, offsets, mask, _ = wrong()[0]
    given = attributes(PLAIN)
    with pytest.raises(tf.errors.InvalidArgumentError, match="one mask or none"):
        ops.kconv_deform_conv(x, w, offsets, [mask, mask], [], **given)
    with pytest.raises(tf.errors.InvalidArgumentError, match="one bias or none"):
        bias = [zeros(6), zeros(6)]
        ops.kconv_deform_conv(x, w, offsets, [mask], bias, **given)
    with pytest.raises(tf.errors.InvalidArgumentError, match="bias must be a vector"):
        ops.kconv_deform_conv(x, w, offsets, [mask], [zeros(5)], **given)


# Gradients, as they are registered.


@pytest.mark.parametrize("activation", ["linear", "relu6"])
@pytest.mark.parametrize("compiled", [False, True])
def test_registered_gradients(activation, compiled):
    case = CASES["both_groups"]
    (x, w, offsets, mask, dy), _ = case.judged("float64")
    bias = np.random.default_rng(4).standard_normal(8)
    start = [tf.constant(v) for v in (x, w, offsets, mask, bias)]

    def step(*values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            x, w, offsets, mask, bias = values
            y = ops.kconv_deform_conv(
                x,
                w,
                offsets,
                [mask],
                [bias],
                activation=activation,
                **attributes(case.options),
            )
            loss = tf.reduce_sum(y * dy)
        return y, tape.gradient(loss, values)

    y, found = (tf.function(step) if compiled else step)(*start)
    passed = np.ones(dy.shape)
    if activation == "relu6":
        passed = (y.numpy() > 0) & (y.numpy() < 6)
    assert passed.any()
    upstream = dy * passed
    exact = gradients(x, w, offsets, mask, upstream, case.options)
    for result, expected in zip(found, (*exact, upstream.sum((0, 1, 2))), strict=True):
        np.testing.assert_allclose(result, expected, 1e-9, 1e-9)


@pytest.mark.parametrize("of", range(4))
def test_second_order_is_refused(of):
    case = CASES["plain"]
    (x, w, offsets, mask, _), _ = case.judged("float32")
    values = [tf.constant(v) for v in (x, w, offsets, mask)]
    with tf.GradientTape() as outer:
        outer.watch(values)
        with tf.GradientTape() as inner:
            inner.watch(values)
            x, w, offsets, mask = values
            y = ops.kconv_deform_conv(
                x, w, offsets, [mask], [], **attributes(case.options)
            )
        first = inner.gradient(y, values[of])
    with pytest.raises(NotImplementedError, match="Second-order derivatives"):
        outer.gradient(first, values)
