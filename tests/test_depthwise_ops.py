"""kconv.ops.depthwise_conv and separable_conv: what they compute and refuse."""

import itertools
import re

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from tiling import tolerance

import kconv
from kconv import dispatch

# Names that take depthwise problems of every kind; stock's with the others in turns.
UNIVERSAL = ("auto", "auto:strict", "depthwise", "gemm", "direct", "builtin")
ALGORITHMS = ("auto", "auto:strict", *kconv.ops.algorithms())


def random(*shape, dtype="float32", seed=0):
    values = np.random.default_rng((seed, len(shape))).standard_normal(shape)
    return tf.cast(values, dtype)


def definition(x, kernel, strides, padding, dilation_rate, layout="channels_last"):
    """Depthwise convolution in float64, a channel at a time: no groups in it."""
    x = np.asarray(x, np.float64)
    kernel = np.asarray(kernel, np.float64)
    axis = 1 if layout == "channels_first" else -1
    planes = []
    for c, j in np.ndindex(kernel.shape[-2:]):
        planes.append(
            reference.conv(
                np.take(x, [c], axis),
                kernel[..., [c], :][..., [j]],
                strides=strides,
                dilation_rate=dilation_rate,
                padding=padding,
                groups=1,
                layout=layout,
            )
        )
    return np.concatenate(planes, axis)


def taken(algorithm, x, kernel, **options):
    """Whether an algorithm takes a depthwise convolution, by what explain tells."""
    grouped = (*kernel.shape[:-2], 1, kernel.shape[-2] * kernel.shape[-1])
    try:
        kconv.ops.explain(x.shape, grouped, **options, algorithm=algorithm)
    except ValueError:
        return False
    return True


# Size, kernel, channels, multiplier, strides, dilation, padding.
PROBLEMS = {
    "1d": ((17,), (3,), 5, 1, (1,), (1,), ((1, 1),)),
    "1d_all": ((19,), (4,), 3, 2, (2,), (3,), ((5, 0),)),
    "2d": ((9, 8), (3, 3), 19, 1, (1, 1), (1, 1), ((1, 1), (1, 1))),
    "2d_strides": ((9, 12), (3, 5), 8, 2, (2, 2), (1, 1), ((0, 1), (2, 2))),
    "2d_unequal_strides": ((9, 12), (3, 2), 7, 3, (2, 1), (1, 1), ((0, 0), (1, 0))),
    "2d_dilation": ((11, 12), (3, 3), 16, 1, (1, 1), (2, 3), ((2, 2), (3, 3))),
    "2d_all": ((13, 12), (3, 2), 6, 3, (2, 3), (3, 2), ((3, 4), (0, 5))),
    "2d_wide": ((12, 11), (7, 9), 9, 1, (1, 1), (1, 1), ((3, 3), (4, 4))),
    "2d_one_channel": ((6, 7), (3, 3), 1, 4, (1, 1), (1, 1), ((0, 0), (0, 0))),
    "3d": ((5, 6, 7), (3, 2, 3), 4, 1, (1, 1, 1), (1, 1, 1), ((0, 0),) * 3),
    "3d_all": ((7, 6, 8), (2, 3, 2), 3, 2, (2, 1, 3), (1, 2, 2), ((1, 0),) * 3),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layout", ("channels_last", "channels_first"))
@pytest.mark.parametrize("name", PROBLEMS)
def test_definition(name, layout, algorithm):
    size, taps, channels, multiplier, strides, dilation_rate, padding = PROBLEMS[name]
    first = layout == "channels_first"
    x = random(2, *((channels, *size) if first else (*size, channels)))
    kernel = random(*taps, channels, multiplier)
    options = {
        "strides": strides,
        "padding": padding,
        "data_format": layout,
        "dilation_rate": dilation_rate,
    }
    if not taken(algorithm, x, kernel, **options):
        assert algorithm not in UNIVERSAL or algorithm == "builtin"
        message = rf"Received: .*kernel\.shape=\(.*{channels}, {multiplier}\)"
        with pytest.raises(ValueError, match=message):
            kconv.ops.depthwise_conv(x, kernel, **options, algorithm=algorithm)
        return
    y = kconv.ops.depthwise_conv(x, kernel, **options, algorithm=algorithm)
    expected = definition(x, kernel, strides, padding, dilation_rate, layout)
    assert y.shape == expected.shape
    error = np.abs(y - expected).max()
    assert error <= tolerance(algorithm) * np.abs(expected).max()


@pytest.mark.parametrize("dtype", ("float16", "bfloat16", "float64"))
def test_dtypes_are_kept_and_rounded_once(dtype):
    x, kernel = random(2, 9, 9, 6, dtype=dtype), random(7, 7, 6, 2, dtype=dtype)
    y = kconv.ops.depthwise_conv(x, kernel)
    expected = definition(x, kernel, (1, 1), ((0, 0), (0, 0)), (1, 1))
    assert y.dtype.name == dtype
    unit = {"float16": 1e-3, "bfloat16": 8e-3, "float64": 1e-14}[dtype]
    assert (
        np.abs(tf.cast(y, "float64") - expected) <= unit * 2 + unit * np.abs(expected)
    ).all()


@pytest.mark.parametrize("algorithm", ("auto", "depthwise", "gemm", "builtin"))
@pytest.mark.parametrize("padding", ("valid", "SAME"))
@pytest.mark.parametrize("multiplier", (1, 3))
@pytest.mark.parametrize("dims", (1, 2))
def test_same_as_keras(dims, multiplier, padding, algorithm):
    x = random(2, *(9, 8)[:dims], 5)
    for strides, rate, taps in itertools.product((1, 2), (1, 2), (2, 3)):
        if strides > 1 and rate > 1:
            continue
        kernel = random(*(taps, 3)[:dims], 5, multiplier)
        pointwise = random(*(1, 1)[:dims], 5 * multiplier, 7)
        options = {"strides": strides, "padding": padding, "dilation_rate": rate}
        for name, kernels in (
            ("depthwise_conv", (kernel,)),
            ("separable_conv", (kernel, pointwise)),
        ):
            ours = getattr(kconv.ops, name)(x, *kernels, **options, algorithm=algorithm)
            stock = getattr(keras.ops, name)(x, *kernels, **options)
            assert ours.shape == stock.shape
            assert np.abs(ours - stock).max() <= 2e-6 * np.abs(stock).max()


def test_causal_padding_sees_the_past_only():
    x, kernel = random(2, 12, 3).numpy(), random(3, 3, 2)
    options = {"padding": "causal", "dilation_rate": 2}
    y = kconv.ops.depthwise_conv(x, kernel, **options).numpy()
    assert y.shape == (2, 12, 6)
    x[:, 7:] += 1
    same = kconv.ops.depthwise_conv(x, kernel, **options).numpy() == y
    assert same[:, :7].all()
    assert not same[:, 7:].any()


@pytest.mark.parametrize("layout", ("channels_last", "channels_first"))
@pytest.mark.parametrize("algorithm", UNIVERSAL)
@pytest.mark.parametrize("activation", (None, "relu", "relu6"))
def test_bias_and_activation(activation, algorithm, layout):
    first = layout == "channels_first"
    x = random(2, 4, 9, 8) if first else random(2, 9, 8, 4)
    kernel, bias = random(3, 3, 4, 2), 3 * random(8)
    pointwise, filters_bias = random(1, 1, 8, 5), 3 * random(5)
    options = {"data_format": layout, "algorithm": algorithm}
    epilogue = {"bias": bias, "activation": activation}
    y = kconv.ops.depthwise_conv(x, kernel, **options, **epilogue)
    plain = definition(x, kernel, (1, 1), ((0, 0), (0, 0)), (1, 1), layout)
    expected = reference.finish(plain, bias, activation, layout)
    assert np.abs(y - expected).max() <= 2e-6 * np.abs(plain).max()

    epilogue = {"bias": filters_bias, "activation": activation}
    z = kconv.ops.separable_conv(x, kernel, pointwise, **options, **epilogue)
    axis = 1 if first else -1
    mixed = np.moveaxis(np.tensordot(plain, pointwise[0, 0], (axis, 0)), -1, axis)
    expected = reference.finish(mixed, filters_bias, activation, layout)
    assert np.abs(z - expected).max() <= 2e-6 * np.abs(mixed).max()


def gradients(function, *operands):
    """First derivatives, and those of a function of them."""
    with tf.GradientTape() as outer:
        outer.watch(operands)
        with tf.GradientTape() as inner:
            inner.watch(operands)
            y = function(*operands)
            loss = tf.reduce_sum(y**3)
        first = inner.gradient(loss, operands)
        loss = sum(tf.reduce_sum(g**2) for g in first)
    return y, *first, *outer.gradient(loss, operands)


@pytest.mark.parametrize("algorithm", UNIVERSAL)
@pytest.mark.parametrize("kind", ("eager", "graph"))
@pytest.mark.parametrize("dims", (1, 2))
def test_gradients_of_gradients_are_those_of_keras(dims, kind, algorithm):
    x, kernel = (
        random(2, *(7, 6)[:dims], 4, dtype="float64"),
        random(*(3, 2)[:dims], 4, 2, dtype="float64"),
    )
    pointwise = random(*(1, 1)[:dims], 8, 3, dtype="float64")

    def wrap(function):
        return tf.function(function, autograph=False) if kind == "graph" else function

    options = {"strides": 2, "padding": "same"}

    def ours(*operands):
        name = "depthwise_conv" if len(operands) == 2 else "separable_conv"
        function = getattr(kconv.ops, name)
        return function(*operands, **options, algorithm=algorithm)

    def stock(*operands):
        name = "depthwise_conv" if len(operands) == 2 else "separable_conv"
        return getattr(keras.ops, name)(*operands, **options)

    for operands in ((x, kernel), (x, kernel, pointwise)):
        results = wrap(lambda *given: gradients(ours, *given))(*operands)
        for result, expected in zip(results, gradients(stock, *operands), strict=True):
            error = tf.reduce_max(tf.abs(result - expected))
            assert error <= 1e-12 * tf.reduce_max(tf.abs(expected))


@pytest.mark.parametrize("use_pfor", (False, True), ids=("loop", "pfor"))
@pytest.mark.parametrize("algorithm", ("auto", "depthwise", "builtin"))
def test_jacobian(algorithm, use_pfor):
    x, w = random(2, 5, 4, 3, dtype="float64"), random(3, 2, 3, 2, dtype="float64")

    @tf.function(autograph=False)
    def jacobians(x, w):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x, w])
            y = kconv.ops.depthwise_conv(x, w, padding="same", algorithm=algorithm)
        return y, *tape.jacobian(y, [x, w], experimental_use_pfor=use_pfor)

    y, dx, dw = jacobians(x, w)
    assert np.abs(y).max() > 1
    # The output is linear in each operand, so the jacobian gives it back.
    for back in (tf.tensordot(dx, x, 4), tf.tensordot(dw, w, 4)):
        np.testing.assert_allclose(back, y, atol=1e-12)


STOCK_DEPTHWISE = {
    "DepthwiseConv2dNative",
    "DepthwiseConv2dNativeBackpropInput",
    "DepthwiseConv2dNativeBackpropFilter",
}
NATIVE = {"Kconv>Conv", "Kconv>ConvBackpropInput", "Kconv>ConvBackpropFilter"}


@pytest.mark.parametrize("choices", [*itertools.product((True, False), repeat=3)])
@pytest.mark.parametrize("batch", (2, None))
def test_passes_mix_with_those_of_stock(batch, choices, estimates):
    def choose(stock):
        return lambda batch: (2, 1) if stock else (1, 2)

    estimates(dict(zip(dispatch.PASSES, map(choose, choices), strict=True)))
    signature = [tf.TensorSpec((batch, 7, 6, 4)), tf.TensorSpec((3, 3, 4, 2))]

    def function(x, w):
        return gradients(
            lambda *given: kconv.ops.depthwise_conv(*given, strides=2), x, w
        )[:3]

    function = tf.function(function, input_signature=signature, autograph=False)
    graph = function.get_concrete_function()
    found = {op.type for op in graph.graph.get_operations()}
    expected = {
        f"DepthwiseConv2dNative{suffix}" if stock else f"Kconv>Conv{suffix}"
        for stock, suffix in zip(
            choices, ("", "BackpropInput", "BackpropFilter"), strict=True
        )
    }
    assert found & (STOCK_DEPTHWISE | NATIVE) >= expected
    x, w = random(2, 7, 6, 4), random(3, 3, 4, 2)
    stock = gradients(lambda *given: keras.ops.depthwise_conv(*given, strides=2), x, w)
    for result, exact in zip(graph(x, w), stock, strict=False):
        assert np.abs(result - exact).max() <= 2e-6 * np.abs(exact).max()


@pytest.mark.parametrize("algorithm", ("auto", "depthwise", "builtin"))
@pytest.mark.parametrize("name", ("1d_all", "2d_all", "2d", "3d_all"))
def test_xla_functions_run_on_stock_ops(name, algorithm):
    size, taps, channels, multiplier, strides, dilation_rate, padding = PROBLEMS[name]
    x, w = random(2, *size, channels), random(*taps, channels, multiplier)
    options = {"strides": strides, "padding": padding, "dilation_rate": dilation_rate}

    @tf.function(jit_compile=True, autograph=False)
    def conv(x, w):
        with tf.GradientTape() as tape:
            tape.watch([x, w])
            y = kconv.ops.depthwise_conv(x, w, **options, algorithm=algorithm)
        return y, *tape.gradient(y, [x, w])

    y, dx, dw = conv(x, w)
    expected = definition(x, w, strides, padding, dilation_rate)
    assert np.abs(y - expected).max() <= 2e-6 * np.abs(expected).max()
    with tf.GradientTape() as tape:
        tape.watch([x, w])
        y = kconv.ops.depthwise_conv(x, w, **options, algorithm="direct")
    for result, exact in zip((dx, dw), tape.gradient(y, [x, w]), strict=True):
        assert np.abs(result - exact).max() <= 2e-6 * np.abs(exact).max()


@pytest.mark.parametrize("algorithm", UNIVERSAL)
@pytest.mark.parametrize(
    ("shape", "padding", "expected"),
    [
        ((0, 5, 6, 4), "same", (0, 5, 6)),
        ((2, 0, 6, 4), "valid", (2, 0, 4)),
        ((2, 0, 6, 4), ((2, 2), (0, 0)), (2, 2, 4)),
    ],
)
def test_empty_input(shape, padding, expected, algorithm):
    x, w, pointwise = tf.zeros(shape), random(3, 3, 4, 2), random(1, 1, 8, 5)
    options = {"padding": padding, "algorithm": algorithm}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, w, pointwise])
        y = kconv.ops.depthwise_conv(x, w, **options)
        z = kconv.ops.separable_conv(x, w, pointwise, **options)
    assert (y.shape, z.shape) == ((*expected, 8), (*expected, 5))
    for result, operands in ((y, (x, w)), (z, (x, w, pointwise))):
        for gradient, operand in zip(
            tape.gradient(result, operands), operands, strict=True
        ):
            assert np.array_equal(gradient, np.zeros(operand.shape))


@pytest.mark.parametrize("algorithm", ("auto", "gemm", "builtin"))
@pytest.mark.parametrize("stock", (True, False))
def test_a_batch_that_turns_out_empty(stock, algorithm, estimates):
    estimates(dict.fromkeys(dispatch.PASSES, lambda batch: (1 + stock, 2 - stock)))
    w = random(3, 3, 4, 2)

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 4))], autograph=False)
    def derivatives(x):
        def function(w):
            return kconv.ops.depthwise_conv(x, w, algorithm=algorithm)

        return gradients(function, w)[1:]

    tf.random.normal((512,))  # something for stock to leave lying about
    for gradient in derivatives(tf.zeros((0, 8, 8, 4))):
        assert np.array_equal(gradient, np.zeros(w.shape))
    assert all(
        np.abs(gradient).max() > 0 for gradient in derivatives(random(2, 8, 8, 4))
    )


def test_unknown_batch_and_size():
    w, pointwise = random(3, 3, 4, 2), random(1, 1, 8, 5)
    signature = [tf.TensorSpec((None, None, None, 4))]

    @tf.function(input_signature=signature, autograph=False)
    def conv(x):
        y = kconv.ops.depthwise_conv(x, w, strides=2, padding="same")
        z = kconv.ops.separable_conv(x, w, pointwise, strides=2, padding="same")
        assert (y.shape[-1], z.shape[-1]) == (8, 5)
        return y, z

    for batch, height, width in ((1, 7, 9), (3, 12, 8)):
        x = random(batch, height, width, 4)
        y, z = conv(x)
        np.testing.assert_allclose(
            y, keras.ops.depthwise_conv(x, w, 2, "same"), atol=1e-5
        )
        stock = keras.ops.separable_conv(x, w, pointwise, 2, "same")
        np.testing.assert_allclose(z, stock, atol=1e-4)


def test_symbolic_shapes():
    for dims, padding, first in itertools.product((1, 2, 3), ("same", "valid"), (0, 1)):
        size = (None, 9, 8)[:dims]
        shape = (None, 4, *size) if first else (None, *size, 4)
        options = {
            "strides": 2,
            "padding": padding,
            "data_format": "channels_first" if first else "channels_last",
        }
        x = keras.KerasTensor(shape, "float16")
        w = random(*(3, 2, 2)[:dims], 4, 2, dtype="float16")
        pointwise = random(*(1, 1, 1)[:dims], 8, 5, dtype="float16")
        y = kconv.ops.depthwise_conv(x, w, **options)
        z = kconv.ops.separable_conv(x, w, pointwise, **options)
        steps = [
            {"same": -(-n // 2), "valid": (n - k) // 2 + 1}[padding] if n else None
            for n, k in zip(size, w.shape[:-2], strict=True)
        ]
        for result, channels in ((y, 8), (z, 5)):
            expected = (None, channels, *steps) if first else (None, *steps, channels)
            assert (result.shape, result.dtype) == (expected, "float16")


def test_nodes_of_a_functional_model():
    x = keras.Input((8, 9, 4))
    w = keras.Input(batch_shape=(3, 3, 4, 2))
    bias = random(8)
    options = {"strides": [2, 1], "padding": [(1, 0), (0, 1)], "algorithm": "direct"}
    y = kconv.ops.depthwise_conv(x, w, **options, bias=bias, activation="relu")
    pointwise = random(*(1, 1, 16, 5))
    y = kconv.ops.separable_conv(y, random(3, 2, 8, 2), pointwise, padding="same")
    model = keras.Model([x, w], y)
    again = keras.Model.from_config(model.get_config())
    values = random(2, 8, 9, 4), random(3, 3, 4, 2)
    assert model.output_shape == again.output_shape == (None, 4, 8, 5)
    np.testing.assert_allclose(again(values), model(values), atol=1e-5)
    names = {keras.saving.get_registered_name(type(op)) for op in again.operations}
    assert {"kconv>DepthwiseConv", "kconv>SeparableConv"} <= names
    operation = next(
        op for op in again.operations if isinstance(op, kconv.ops.DepthwiseConv)
    )
    assert (operation.algorithm, operation.activation) == ("direct", "relu")


IMAGE, KERNEL = (2, 8, 8, 4), (3, 3, 4, 2)
BAD = [
    (IMAGE, KERNEL, {"strides": 0}, "`strides`"),
    (IMAGE, KERNEL, {"strides": (1, 1, 1)}, "`strides`"),
    (IMAGE, KERNEL, {"dilation_rate": -1}, "`dilation_rate`"),
    (IMAGE, KERNEL, {"dilation_rate": 4}, "must not be larger"),
    (IMAGE, KERNEL, {"padding": "causal"}, "`padding`"),
    (IMAGE, KERNEL, {"padding": 1}, "`padding`"),
    (IMAGE, KERNEL, {"data_format": "NHWC"}, "`data_format`"),
    (IMAGE, KERNEL, {"algorithm": "fastest"}, "'auto', 'auto:strict'"),
    (IMAGE, KERNEL, {"activation": "gelu"}, "`activation`"),
    (IMAGE, KERNEL, {"bias": np.zeros(4, "float32")}, "each channel of the output"),
    (IMAGE, KERNEL, {"bias": np.zeros(8, "float64")}, "same dtype"),
    (IMAGE, (9, 3, 4, 2), {}, "must not be larger"),
    (IMAGE, (3, 3, 1, 4), {}, "as many channels"),
    (IMAGE, (3, 3, 2, 4), {}, "as many channels"),
    ((2, 8, 9, 4), KERNEL, {"data_format": "channels_first"}, "as many channels"),
    (IMAGE, (3, 3, 4, 0), {}, "must not be empty"),
    (IMAGE, (3, 3, 0, 4), {}, "must not be empty"),
    (IMAGE, (3, 4, 2), {}, "same rank"),
    ((8, 4), (4, 2), {}, "same rank"),
    ((2,) * 6, (2,) * 6, {}, "same rank"),
    ((), (), {}, "same rank"),
]


@pytest.mark.parametrize(("shape", "kernel_shape", "options", "message"), BAD)
def test_bad_arguments_are_told_before_anything_runs(
    shape, kernel_shape, options, message, monkeypatch
):
    def forbidden(*args, **kwargs):
        pytest.fail("an op was run")

    monkeypatch.setattr(dispatch, "conv", forbidden)
    kernel = np.zeros(kernel_shape, "float32")
    for inputs in (np.zeros(shape, "float32"), keras.KerasTensor(shape)):
        with pytest.raises(ValueError, match=f"{message}(.|\n)*Received: ") as told:
            kconv.ops.depthwise_conv(inputs, kernel, **options)
        if "kernel.shape" in str(told.value):
            assert f"kernel.shape={kernel_shape}" in str(told.value)


WHOLE = r"Received: inputs\.shape=\(2, 8, 8, 4\), "
TOLD_DEPTHWISE = WHOLE + r"depthwise_kernel\.shape=\(%s\)"
TOLD_POINTWISE = WHOLE + (
    r"depthwise_kernel\.shape=\(3, 3, 4, 2\), pointwise_kernel\.shape=\(%s\)"
)


@pytest.mark.parametrize(
    ("depthwise", "pointwise", "options", "message"),
    [
        (KERNEL, (1, 1, 4, 5), {}, "must have the shape.*" + TOLD_POINTWISE),
        (KERNEL, (1, 8, 5), {}, "must have the shape.*" + TOLD_POINTWISE),
        (KERNEL, (3, 1, 8, 5), {}, "must have the shape.*" + TOLD_POINTWISE),
        (KERNEL, (), {}, "must have the shape.*" + TOLD_POINTWISE),
        (KERNEL, (1, 1, 8, 0), {}, "`pointwise_kernel` must not.*" + TOLD_POINTWISE),
        ((3, 3, 2, 2), (1, 1, 4, 5), {}, "`depthwise_kernel` has.*" + TOLD_DEPTHWISE),
        ((3, 4, 2), (1, 8, 5), {}, "`depthwise_kernel` must have.*" + TOLD_DEPTHWISE),
        ((3, 3, 4, 0), (1, 1, 0, 5), {}, "`depthwise_kernel` m.*" + TOLD_DEPTHWISE),
        ((9, 3, 4, 2), (1, 1, 8, 5), {}, "must not be larger.*" + TOLD_DEPTHWISE),
        (KERNEL, (1, 1, 8, 5), {"strides": 0}, "`strides`.*Received: "),
        (
            *(KERNEL, (1, 1, 8, 5), {"bias": np.zeros(8, "float32")}),
            "each filter of `pointwise_kernel`.*Received: ",
        ),
        (KERNEL, (1, 1, 8, 5), {"activation": "gelu"}, "`activation`.*Received: "),
        (KERNEL, (1, 1, 8, 5), {"algorithm": "fast"}, "'auto:strict'.*Received: "),
    ],
)
def test_bad_separable_arguments_are_told_before_anything_runs(
    depthwise, pointwise, options, message, monkeypatch
):
    def forbidden(*args, **kwargs):
        pytest.fail("an op was run")

    monkeypatch.setattr(dispatch, "conv", forbidden)
    kernels = np.zeros(depthwise, "float32"), np.zeros(pointwise, "float32")
    if "%s" in message:
        shape = pointwise if "pointwise" in message else depthwise
        message %= ", ".join(map(str, shape))
    for inputs in (np.zeros(IMAGE, "float32"), keras.KerasTensor(IMAGE)):
        with pytest.raises(ValueError, match=f"(?s){message}") as told:
            kconv.ops.separable_conv(inputs, *kernels, **options)
        # Of the arguments, not of what is between the halves.
        assert not re.search(r"[` ]kernel[`.]", str(told.value).split("\n\nArg")[0])


def test_separable_tells_which_kernel_an_algorithm_refuses():
    kernels = random(3, 3, 4, 2), random(1, 1, 8, 5)
    message = "algorithm='winograd', " + TOLD_DEPTHWISE[len("Received: ") :]
    with pytest.raises(ValueError, match=message % "3, 3, 4, 2"):
        kconv.ops.separable_conv(random(*IMAGE), *kernels, algorithm="winograd")


@pytest.mark.parametrize("name", ("channels_last", "channels_first"))
def test_data_format_in_any_case(name):
    x, w, pointwise = random(2, 8, 8, 8), random(3, 3, 8, 1), random(1, 1, 8, 5)
    for function, kernels in (
        (kconv.ops.depthwise_conv, (w,)),
        (kconv.ops.separable_conv, (w, pointwise)),
        (kconv.ops.conv, (pointwise,)),
    ):
        expected = function(x, *kernels, data_format=name)
        for other in (name.upper(), name.title()):
            assert np.array_equal(function(x, *kernels, data_format=other), expected)
            symbolic = function(keras.Input(x.shape[1:]), *kernels, data_format=other)
            assert symbolic.shape[1:] == expected.shape[1:]


def test_dtypes_must_agree():
    x, w, pointwise = random(1, 5, 5, 2), random(3, 3, 2, 2), random(1, 1, 4, 5)
    with pytest.raises(ValueError, match=r"same dtype.*float32, kernel\.dtype=float64"):
        kconv.ops.depthwise_conv(x, tf.cast(w, "float64"))
    with pytest.raises(ValueError, match=r"same dtype.*pointwise_kernel\.dtype=float1"):
        kconv.ops.separable_conv(x, w, tf.cast(pointwise, "float16"))


def algorithms_of(function, *operands):
    function = tf.function(function, autograph=False)
    graph = function.get_concrete_function(*operands).graph
    nodes = [op for op in graph.get_operations() if op.type == "Kconv>Conv"]
    return [op.get_attr("algorithm").decode() for op in nodes]


def test_which_half_a_forced_algorithm_forces():
    operands = random(2, 9, 9, 4), random(3, 3, 4, 2), random(1, 1, 8, 5)

    def conv(algorithm):
        return lambda *given: kconv.ops.separable_conv(*given, algorithm=algorithm)

    for name in ("direct", "gemm"):
        assert algorithms_of(conv(name), *operands) == [name, name]
    # One that takes depthwise convolutions only.
    ran = algorithms_of(conv("depthwise"), *operands)
    assert ran[0] == "depthwise"
    assert ran[1:] in ([], ["auto"])  # stock's kernel is no node of kconv's
    # Nothing of kconv's where stock is asked for.
    assert algorithms_of(conv("builtin"), *operands) == []


def test_explain_tells_of_depthwise_problems():
    told = kconv.ops.explain((8, 28, 28, 240), (5, 5, 1, 240), padding="same")
    assert told.candidates[-1].refusal is None
    assert told.candidates[-1].seconds > 0
    *ours, _ = (row for row in told.candidates if row.refusal is None)
    assert min(ours, key=lambda row: row.seconds).algorithm == "depthwise"
    dense = kconv.ops.explain((8, 28, 28, 240), (5, 5, 240, 240), padding="same")
    refusals = {row.algorithm: row.refusal for row in dense.candidates}
    assert dense.chosen != "depthwise"
    assert refusals["depthwise"] == "depthwise takes one input channel a group only."


@pytest.mark.parametrize(
    ("options", "dtype", "refusal"),
    [
        ({"strides": (2, 1)}, "float32", "equal strides"),
        ({"dilation_rate": 2}, "float32", "dilation"),
        ({}, "bfloat16", "round half types"),
        ({}, "float16", "round half types"),
    ],
)
@pytest.mark.parametrize("pass_", dispatch.PASSES)
def test_stock_refuses_what_its_depthwise_kernels_cannot_do(
    pass_, options, dtype, refusal
):
    shapes = (2, 8, 8, 4), (3, 3, 1, 8)
    told = kconv.ops.explain(*shapes, **options, dtype=dtype, pass_=pass_)
    assert refusal in told.candidates[-1].refusal
    assert told.chosen != "builtin"
    three = kconv.ops.explain((2, 8, 8, 8, 4), (3, 3, 3, 1, 8), pass_=pass_)
    assert "groups" in three.candidates[-1].refusal


@pytest.mark.parametrize("pass_", dispatch.PASSES)
def test_the_estimate_of_stock_grows_with_the_work(pass_):
    def seconds(channels=64, **options):
        shapes = (8, 112, 112, channels), (3, 3, 1, channels)
        told = kconv.ops.explain(*shapes, **options, padding="same", pass_=pass_)
        return told.candidates[-1].seconds

    assert seconds(128) > 1.5 * seconds()
    assert seconds(dtype="float64") > 1.5 * seconds()
    assert seconds(strides=2) <= seconds()
