"""Which candidate takes a pass, and that it is the one that runs."""

import functools
import itertools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kconv
from kconv import builtin, dispatch, native, runtime
from kconv.dispatch import PASSES, Stock, Terms
from kconv.operands import Operands
from kconv.spec import ConvSpec, conv_spec

FIRST = "channels_first"
SPEC = conv_spec((2, 8, 8, 4), (3, 3, 4, 4))
NATIVE_OPS = {"Kconv>Conv", "Kconv>ConvBackpropInput", "Kconv>ConvBackpropFilter"}
STOCK_OPS = {"Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter"}


def ours(batch):
    return 1, 2


def stock(batch):
    return 2, 1


def stock_below_10(batch):
    return 5 + batch / 2, batch  # equal at 10, and the first one wins there


def stock_but_for_few(batch):
    return 5, 9 if 1 < batch < 8 else 1  # as without a buffer (csrc/stock.cc)


def ops_of(function, *arguments):
    """Types of all ops in the graph of a function and the functions it calls."""
    graph = tf.function(function).get_concrete_function(*arguments).graph.as_graph_def()
    nodes = itertools.chain(graph.node, *(f.node_def for f in graph.library.function))
    return {node.op for node in nodes}


def stock_takes(batch):
    shapes = (batch, 8, 8, 4), (3, 3, 4, 4)
    return dispatch.stock_takes("forward", SPEC, *shapes, "float32", Terms())


@pytest.fixture
def measured():
    """Sets measured choices, and forgets them."""
    before = dict(native.choices())

    def choose(table):
        threads = runtime.threads()
        native.set_choices({(threads, key): name for key, name in table.items()})

    yield choose
    native.set_choices(before)


def key_of(pass_, shape, kernel_shape, **options):
    spec = conv_spec(shape, kernel_shape, **options)
    return dispatch.problem(pass_, spec, shape, kernel_shape, "float32").key


# Where kconv's own algorithms are estimated to be the fastest, whatever the batch.
SHAPE, KERNEL_SHAPE = (2, 16, 16, 64), (3, 3, 64, 64)


def test_measured_choices_come_before_estimates(measured):
    for pass_ in PASSES:
        for name in ("direct", "builtin", "winograd:f2"):
            measured({key_of(pass_, SHAPE, KERNEL_SHAPE): name})
            told = kconv.ops.explain(SHAPE, KERNEL_SHAPE, pass_=pass_)
            assert (told.chosen, told.reason) == (
                name,
                "Measured by kconv.tune to be the fastest.",
            )
            assert kconv.ops.explain((1, *SHAPE[1:]), KERNEL_SHAPE).chosen != "direct"
        measured({})
        told = kconv.ops.explain(SHAPE, KERNEL_SHAPE, pass_=pass_)
        assert told.reason == "The lowest estimate."


def test_what_was_measured_is_what_runs(measured):
    x, w = tf.random.normal(SHAPE), tf.random.normal(KERNEL_SHAPE)
    forced = {n: kconv.ops.conv(x, w, algorithm=n) for n in ("direct", "winograd:f2")}
    for name, expected in forced.items():
        measured({key_of("forward", SHAPE, KERNEL_SHAPE): name})
        assert np.array_equal(kconv.ops.conv(x, w), expected)
    assert not np.array_equal(*forced.values())


def test_what_was_measured_must_keep_to_what_was_asked(measured, monkeypatch):
    measured({key_of("forward", SHAPE, KERNEL_SHAPE): "winograd:f2"})
    strict = kconv.ops.explain(SHAPE, KERNEL_SHAPE, algorithm="auto:strict")
    assert strict.chosen == "gemm"
    # One that refuses the problem, and one that is not known.
    for name in ("depthwise", "no such algorithm"):
        measured({key_of("forward", SHAPE, KERNEL_SHAPE): name})
        assert kconv.ops.explain(SHAPE, KERNEL_SHAPE).reason == "The lowest estimate."
    measured({key_of("forward", SHAPE, KERNEL_SHAPE): "direct"})
    monkeypatch.setattr(runtime, "is_deterministic", lambda: True)
    assert kconv.ops.explain(SHAPE, KERNEL_SHAPE).chosen != "direct"


def test_choices_of_other_threads_do_not_count(measured):
    key = key_of("forward", SHAPE, KERNEL_SHAPE)
    native.set_choices({(runtime.threads() + 1, key): "direct"})
    assert kconv.ops.explain(SHAPE, KERNEL_SHAPE).chosen != "direct"
    measured({})


@pytest.mark.parametrize("unknown", ((0,), (1, 2), (0, 1, 2)))
def test_what_was_measured_decides_when_the_graph_runs(unknown, measured, monkeypatch):
    small = (1, 8, 8, 64)
    measured({key_of("forward", SHAPE, KERNEL_SHAPE): "builtin"})
    monkeypatch.setattr(
        builtin,
        "run",
        lambda pass_, spec, operands: -dispatch._run_native(pass_, spec, operands),
    )
    shape = tuple(None if i in unknown else n for i, n in enumerate(SHAPE))
    signature = [tf.TensorSpec(shape), tf.TensorSpec(KERNEL_SHAPE)]
    traced = tf.function(kconv.ops.conv, input_signature=signature)
    w = tf.random.normal(KERNEL_SHAPE, stddev=0.1)
    for size, sign in ((SHAPE, -1), (small, 1), ((2, 9, 8, 64), 1)):
        fits = all(m in (None, n) for m, n in zip(shape, size, strict=True))
        if fits:
            x = tf.random.normal(size)
            expected = tf.nn.conv2d(x, w, 1, "VALID")
            np.testing.assert_allclose(sign * traced(x, w), expected, atol=2e-4)


def test_the_core_knows_what_stock_uses():
    assert native.core().stock_engine() == runtime.engine()


def test_the_op_prefers_stock_as_python_does():
    cases = [
        ((n, size, size, c), (k, k, c, f))
        for n in (1, 32)
        for size in (8, 60)
        for c, f, k in ((3, 16, 3), (64, 64, 1), (16, 8, 7))
    ]
    for shape, kernel_shape in cases:
        for pass_ in PASSES:
            told = kconv.ops.explain(shape, kernel_shape, pass_=pass_)
            spec = conv_spec(shape, kernel_shape)
            operands = Operands(tf.zeros(shape), tf.zeros(kernel_shape))
            prefers = dispatch._prefers_stock(pass_, spec, operands)
            assert bool(prefers) == (told.chosen == "builtin")


def test_an_unknown_batch_is_left_open_where_it_matters(estimates):
    for choice, expected in (
        (ours, Stock.NEVER),
        (stock, Stock.ALWAYS),
        (stock_below_10, Stock.DECIDED_AT_RUN_TIME),
        (stock_but_for_few, Stock.DECIDED_AT_RUN_TIME),
    ):
        estimates(dict.fromkeys(PASSES, choice))
        assert stock_takes(None) == expected


def test_known_batch_is_not_left_open(estimates):
    estimates(dict.fromkeys(PASSES, stock_below_10))
    for batch, expected in ((1, Stock.ALWAYS), (9, Stock.ALWAYS), (10, Stock.NEVER)):
        assert stock_takes(batch) == expected


def gradients_of_gradients(x, w, dy):
    """All three passes, each of them differentiated once more."""
    with tf.GradientTape() as outer:
        outer.watch([x, w, dy])
        with tf.GradientTape() as inner:
            inner.watch([x, w])
            y = kconv.ops.conv(x, w, strides=(2, 1), padding="same")
        dx, dw = inner.gradient(y, [x, w], output_gradients=dy)
        loss = tf.reduce_sum(dx**2) + tf.reduce_sum(dw**3) + tf.reduce_sum(y**2)
    return y, dx, dw, *outer.gradient(loss, [x, w, dy])


OPERANDS = [
    tf.constant(np.random.default_rng(seed).standard_normal(shape))
    for seed, shape in enumerate([(12, 7, 6, 4), (3, 2, 4, 5), (12, 4, 6, 5)])
]
UNKNOWN_BATCH = [
    tf.TensorSpec(shape, tf.float64)
    for shape in [(None, 7, 6, 4), (3, 2, 4, 5), (None, 4, 6, 5)]
]
MIXTURES = [
    *itertools.product((ours, stock), repeat=3),
    (stock_below_10, stock_below_10, stock_below_10),
    (stock_below_10, ours, stock),
    (stock, stock_below_10, ours),
    (ours, stock, stock_below_10),
]


def name_of(mixture):
    return "-".join(choice.__name__ for choice in mixture)


@pytest.fixture(scope="module")
def stock_results():
    operands = [tf.Variable(operand) for operand in OPERANDS]
    x, w, dy = operands
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            y = tf.nn.conv2d(x, w, (2, 1), "SAME")
        dx, dw = inner.gradient(y, [x, w], output_gradients=dy)
        loss = tf.reduce_sum(dx**2) + tf.reduce_sum(dw**3) + tf.reduce_sum(y**2)
    return [y, dx, dw, *outer.gradient(loss, operands)]


@pytest.mark.parametrize("mixture", MIXTURES, ids=name_of)
@pytest.mark.parametrize("kind", ("eager", "graph", "unknown_batch"))
def test_passes_mix_to_all_orders(kind, mixture, estimates, stock_results):
    estimates(dict(zip(PASSES, mixture, strict=True)))
    function = gradients_of_gradients
    if kind != "eager":
        signature = UNKNOWN_BATCH if kind == "unknown_batch" else None
        function = tf.function(function, input_signature=signature)
    results = function(*OPERANDS)
    for result, expected in zip(results, stock_results, strict=True):
        error = tf.reduce_max(tf.abs(result - expected))
        assert error <= 1e-13 * tf.reduce_max(tf.abs(expected))


@pytest.mark.parametrize("mixture", MIXTURES[:8], ids=name_of)
def test_the_choice_is_what_runs(mixture, estimates):
    estimates(dict(zip(PASSES, mixture, strict=True)))

    def gradients(x, w):
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = kconv.ops.conv(x, w)
        return y, tape.gradient(y, [x, w])

    expected = {
        (f"Kconv>Conv{suffix}" if choice is ours else f"Conv2D{suffix}")
        for choice, suffix in zip(
            mixture, ("", "BackpropInput", "BackpropFilter"), strict=True
        )
    }
    found = ops_of(gradients, *OPERANDS[:2])
    assert found & (NATIVE_OPS | STOCK_OPS) == expected
    # Where stock takes all, nothing stands between its ops and TensorFlow's graph
    # optimizer, which fuses them with what follows.
    assert ("IdentityN" in found) == (0 < mixture.count(stock) < 3)


def test_the_batch_decides_when_the_graph_runs(estimates, monkeypatch):
    estimates(dict.fromkeys(PASSES, stock_below_10))
    monkeypatch.setattr(
        builtin,
        "run",
        lambda pass_, spec, operands: -dispatch._run_native(pass_, spec, operands),
    )

    @tf.function(input_signature=UNKNOWN_BATCH[:2])
    def conv(x, w):
        return kconv.ops.conv(x, w)

    x, w = OPERANDS[:2]
    for batch in (0, 1, 9, 10, 12):
        expected = tf.nn.conv2d(x[:batch], w, 1, "VALID")
        sign = -1 if 1 <= batch < 10 else 1
        np.testing.assert_allclose(sign * conv(x[:batch], w), expected, atol=1e-12)


@pytest.mark.parametrize("algorithm", ("gemm", "direct", "builtin"))
def test_a_forced_algorithm_is_forced_in_all_orders(algorithm):
    def function(x, w):
        with tf.GradientTape() as outer:
            outer.watch([x, w])
            with tf.GradientTape() as inner:
                inner.watch([x, w])
                y = kconv.ops.conv(x, w, algorithm=algorithm)
            dx, dw = inner.gradient(y, [x, w])
            loss = tf.reduce_sum(dx**2) + tf.reduce_sum(dw**2)
        return outer.gradient(loss, [x, w])

    concrete = tf.function(function).get_concrete_function(*OPERANDS[:2])
    operations = concrete.graph.get_operations()
    ran = {op.type for op in operations} & (NATIVE_OPS | STOCK_OPS)
    if algorithm == "builtin":
        assert ran == STOCK_OPS
    else:
        assert ran == NATIVE_OPS
        names = [op.get_attr("algorithm") for op in operations if op.type in ran]
        assert set(names) == {algorithm.encode()}


def test_estimates_are_asked_for_once():
    x, w = OPERANDS[:2]
    with tf.GradientTape() as tape:
        tape.watch([x, w])
        y = kconv.ops.conv(x, w)
    tape.gradient(y, [x, w])
    before = dispatch.candidates.cache_info().misses
    for _ in range(3):
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = kconv.ops.conv(x, w)
        tape.gradient(y, [x, w])
    assert dispatch.candidates.cache_info().misses == before


def test_determinism_excludes_stock(monkeypatch):
    monkeypatch.setattr(runtime, "is_deterministic", lambda: True)
    told = kconv.ops.explain((2, 8, 8, 4), (3, 3, 4, 4))
    assert told.chosen != "builtin"
    assert "same bits" in told.candidates[-1].refusal
    operands = tf.zeros((2, 8, 8, 4)), tf.zeros((3, 3, 4, 4))
    assert not STOCK_OPS & ops_of(kconv.ops.conv, *operands)


# Prints the bits of all three passes, of problems large enough to be shared by threads.
BITS = """
import hashlib, sys
import numpy as np, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
tf.config.experimental.enable_op_determinism()
import kconv
rng = np.random.default_rng(0)
for shapes in [
    ((4, 28, 28, 64), (3, 3, 64, 48)),
    ((3, 14, 14, 96), (1, 1, 96, 32)),
    ((2, 30, 30, 24), (5, 5, 6, 24)),
]:
    x, w = (tf.constant(rng.standard_normal(shape), "float32") for shape in shapes)
    with tf.GradientTape() as tape:
        tape.watch([x, w])
        y = kconv.ops.conv(x, w, padding="same")
        loss = tf.reduce_sum(y**2)
    for tensor in (y, *tape.gradient(loss, [x, w])):
        print(hashlib.sha256(tensor.numpy().tobytes()).hexdigest())
"""


def test_determinism_means_the_same_bits_for_every_number_of_threads():
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BITS, str(threads)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for threads in (1, 3)
    ]
    one, several = [process.communicate(timeout=300)[0] for process in processes]
    assert len(one.split()) == 9
    assert one == several


def test_a_visible_gpu_gets_stock_ops(monkeypatch):
    monkeypatch.setattr(runtime, "has_gpu", lambda: True)
    told = kconv.ops.explain((2, 8, 8, 4), (3, 3, 4, 4))
    assert told.chosen == "builtin"
    assert "GPU" in told.reason
    operands = tf.zeros((2, 8, 8, 4)), tf.zeros((3, 3, 4, 4))
    assert not NATIVE_OPS & ops_of(kconv.ops.conv, *operands)
    forced = ops_of(lambda *args: kconv.ops.conv(*args, algorithm="gemm"), *operands)
    assert "Kconv>Conv" in forced


def test_dtypes_without_kernels_get_stock_ops():
    told = kconv.ops.explain((2, 8, 8, 4), (3, 3, 4, 4), dtype="int32")
    assert (told.chosen, told.reason) == (
        "builtin",
        "kconv's kernels do not take int32.",
    )
    x, w = np.arange(32).reshape(1, 4, 4, 2), np.arange(16).reshape(2, 2, 2, 2)
    y = kconv.ops.conv(x.astype("int32"), w.astype("int32"))
    expected = kconv.ops.conv(x.astype("float64"), w.astype("float64"))
    assert y.dtype == tf.int32
    assert np.array_equal(y, expected)


@pytest.mark.parametrize(
    ("shape", "kernel_shape", "options", "passes", "refusal"),
    [
        ((2, 8, 8, 4), (3, 3, 2, 4), {}, PASSES, "groups"),
        ((2, 8, 8, 4), (3, 3, 4, 4), {"dilation_rate": 2}, PASSES[1:], "dilation"),
        ((2, 8, 8, 8, 4), (2, 2, 2, 4, 4), {"dilation_rate": 2}, PASSES, "dilation"),
        ((2, 8, 8, 8, 4), (2,) * 5, {"padding": ((1, 0),) * 3}, PASSES, "groups"),
        ((2, 8, 8, 8, 2), (2,) * 5, {"padding": ((1, 0),) * 3}, PASSES, "explicit"),
        (
            (2, 6, 8, 8, 4),
            (1, 2, 2, 4, 4),
            {"strides": 3, "padding": "same"},
            PASSES[:1],
            "strides beyond",
        ),
        ((0, 8, 8, 4), (3, 3, 4, 4), {}, PASSES, "empty"),
        ((2**20, 64, 64, 4), (3, 3, 4, 4), {}, PASSES, "32 bits"),
    ],
)
def test_stock_refuses_what_its_kernels_cannot_do(
    shape, kernel_shape, options, passes, refusal
):
    for pass_ in PASSES:
        told = kconv.ops.explain(shape, kernel_shape, **options, pass_=pass_)
        if pass_ in passes:
            assert refusal in told.candidates[-1].refusal
            assert told.chosen != "builtin"
        else:
            assert told.candidates[-1].refusal is None


# One call with the first of these ended the process (oneDNN, AVX-512, few channels).
@pytest.mark.parametrize(
    ("kernel_shape", "options", "engine", "dtype", "is_unsafe"),
    [
        ((1, 1, 8, 64), {"strides": 2}, "oneDNN", "float32", True),
        ((1, 1, 15, 4), {"strides": (1, 3)}, "oneDNN", "bfloat16", True),
        ((1, 3, 4), {"strides": 2}, "oneDNN", "float32", True),
        ((1, 1, 1, 4), {"strides": 2}, "unknown", "float32", True),
        ((1, 1, 16, 64), {"strides": 2}, "oneDNN", "float32", False),
        ((1, 1, 8, 64), {}, "oneDNN", "float32", False),
        ((2, 1, 8, 64), {"strides": 2}, "oneDNN", "float32", False),
        ((1, 1, 8, 64), {"strides": 2}, "oneDNN", "float64", False),
        ((1, 1, 8, 64), {"strides": 2}, "Eigen", "float32", False),
    ],
)
def test_stock_kernel_that_breaks_the_process_is_refused(
    kernel_shape, options, engine, dtype, is_unsafe, monkeypatch
):
    monkeypatch.setattr(runtime, "engine", lambda: engine)
    shape = (2, *[9] * (len(kernel_shape) - 2), kernel_shape[-2])
    spec = conv_spec(shape, kernel_shape, **options)
    for pass_ in PASSES:
        expected = is_unsafe and pass_ == "filter_gradient"
        assert builtin.is_unsafe(pass_, spec, kernel_shape, dtype) == expected
        sentence = builtin.refusal(pass_, spec, kernel_shape, dtype)
        assert (sentence is not None and "beyond its memory" in sentence) == expected


@pytest.mark.parametrize("dtype", dispatch.DTYPES)
@pytest.mark.parametrize(
    ("shape", "kernel_shape", "options"),
    [
        ((2, 9, 4), (3, 4, 6), {"strides": 2, "padding": "same"}),
        ((2, 9, 4), (3, 4, 6), {"padding": ((4, 1),)}),
        ((2, 9, 8, 4), (3, 2, 4, 6), {"strides": (2, 3), "padding": "same"}),
        ((2, 9, 8, 4), (3, 2, 4, 6), {"padding": ((4, 0), (1, 5))}),
        ((2, 9, 8, 7, 4), (3, 2, 2, 4, 6), {"strides": (2, 1, 3)}),
        ((2, 4, 9), (3, 4, 6), {"padding": ((4, 1),), "data_format": FIRST}),
        ((2, 4, 9, 8), (3, 2, 4, 6), {"padding": "same", "data_format": FIRST}),
        ((2, 4, 9, 8), (3, 3, 1, 8), {"strides": 2, "data_format": FIRST}),
        ((2, 4, 9, 8, 7), (3, 2, 2, 4, 6), {"strides": 2, "data_format": FIRST}),
    ],
)
def test_stock_does_what_it_does_not_refuse(shape, kernel_shape, options, dtype):
    # Of the strict ones, which are exact here.
    spec = conv_spec(shape, kernel_shape, **options, algorithm="auto:strict")
    rng = np.random.default_rng(0)
    operands = Operands(
        *(
            tf.cast(rng.integers(-3, 4, size), dtype)
            for size in (shape, kernel_shape, spec.output_shape(shape, kernel_shape))
        )
    )
    for pass_ in PASSES:
        refusal = builtin.refusal(pass_, spec, kernel_shape, dtype)
        if refusal is not None:
            assert "half types" in refusal and dtype in ("bfloat16", "float16")
            simple = pass_ == "forward" and kernel_shape[-2] > 1 and spec.dims < 3
            assert not simple
            continue
        theirs = builtin.run(pass_, spec, operands)
        ours = dispatch._run_native(pass_, spec, operands)
        # Sums of small integers are exact, even in bfloat16 up to 256.
        if dtype == "bfloat16":
            ours, theirs = (
                tf.clip_by_value(ours, -99, 99),
                tf.clip_by_value(theirs, -99, 99),
            )
        assert np.array_equal(ours, theirs)


def test_unknown_size_is_assumed():
    unknown = kconv.ops.explain((1, None, None, 64), (3, 3, 64, 64))
    assert unknown == kconv.ops.explain((1, 56, 56, 64), (3, 3, 64, 64))
    large = kconv.ops.explain((1, None, 9, 64), (80, 3, 64, 64))
    assert large.input_shape == (1, 80, 9, 64)


def test_explain_tells_what_is_left_open(estimates):
    estimates(dict.fromkeys(PASSES, stock_below_10))
    told = kconv.ops.explain((None, 8, 8, 4), (3, 3, 4, 4))
    assert told.chosen == "builtin"
    assert "whether builtin runs is decided anew for each" in told.reason
    estimates(dict.fromkeys(PASSES, ours))
    told = kconv.ops.explain((None, 8, 8, 4), (3, 3, 4, 4))
    assert told.reason == "The lowest estimate."


def test_spec_survives_the_attributes_of_an_op():
    for padding, algorithm in (
        ("valid", "auto"),
        ("same", "gemm"),
        (((1, 2),), "auto"),
    ):
        spec = conv_spec((2, 9, 4), (3, 2, 6), 2, padding, None, 3, algorithm)

        @tf.function
        def conv(x, w, spec=spec):
            return native.ops().kconv_conv(x, w, [], [], [], **spec.attributes)

        graph = conv.get_concrete_function(
            tf.zeros((2, 9, 4)), tf.zeros((3, 2, 6))
        ).graph
        op = next(op for op in graph.get_operations() if op.type == "Kconv>Conv")
        assert ConvSpec.from_op(op) == spec


def test_runtime_sees_xla_through_inner_functions():
    seen = []

    @tf.function
    def inner(x):
        seen.append(runtime.in_xla())
        return x

    tf.function(lambda x: inner(x))(tf.zeros(1))
    tf.function(lambda x: inner(x), jit_compile=True)(tf.zeros(2))
    assert seen == [False, True]
    assert not runtime.in_xla()


def test_runtime_knows_tapes():
    assert not runtime.may_differentiate()
    with tf.GradientTape():
        assert runtime.may_differentiate()


def test_forward_mode_sees_the_gradients_of_a_mixture(estimates):
    estimates(dict(zip(PASSES, (stock, ours, ours), strict=True)))
    x, w = OPERANDS[:2]
    direction = tf.reverse(x, [1])
    with tf.autodiff.ForwardAccumulator(x, direction) as accumulator:
        y = kconv.ops.conv(x, w)
    expected = tf.nn.conv2d(direction, w, 1, "VALID")
    np.testing.assert_allclose(accumulator.jvp(y), expected, atol=1e-12)


@pytest.mark.parametrize("mixture", MIXTURES[8:], ids=name_of)
def test_forward_mode_where_the_batch_decides(mixture, estimates):
    estimates(dict(zip(PASSES, mixture, strict=True)))

    def derivatives(conv, x, w):
        with tf.autodiff.ForwardAccumulator([x, w], [x, w]) as accumulator:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = conv(x, w)
            dx = tape.gradient(y, x, output_gradients=y)
        return accumulator.jvp(y), accumulator.jvp(dx)

    function = functools.partial(derivatives, kconv.ops.conv)
    found = tf.function(function, input_signature=UNKNOWN_BATCH[:2])(*OPERANDS[:2])
    x, w = (tf.Variable(operand) for operand in OPERANDS[:2])
    expected = derivatives(lambda x, w: tf.nn.conv2d(x, w, 1, "VALID"), x, w)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-11)


def test_eager_inference_does_not_pay_for_gradients(estimates, monkeypatch):
    estimates(dict(zip(PASSES, (stock, ours, ours), strict=True)))
    monkeypatch.setattr(tf, "custom_gradient", None)
    x, w = OPERANDS[:2]
    y = kconv.ops.conv(x, w)
    np.testing.assert_allclose(y, keras.ops.conv(x, w), atol=1e-12)


def test_stock_is_known_to_be_slow_in_3d_filter_gradients_of_halves():
    """OneDNN's is a reference kernel; where it does not run, "builtin" refuses."""
    told = kconv.ops.explain(
        (8, 8, 8, 8, 96),
        (2, 2, 2, 96, 8),
        strides=2,
        dtype="float16",
        pass_="filter_gradient",
    )
    rows = {row.algorithm: row for row in told.candidates}
    stock = rows["builtin"]
    assert stock.refusal is not None or stock.seconds > 3 * rows["gemm"].seconds
    assert told.chosen != "builtin"
