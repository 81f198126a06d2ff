"""kconv.ops.conv_transpose: what it computes and refuses."""

import itertools

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
from tiling import tolerance

import kconv
from kconv.spec import same_pads

UNIVERSAL = ("auto", "auto:strict", "gemm", "direct", "builtin")

# Size, kernel, channels, filters, strides, dilation, padding, output_padding, groups.
PROBLEMS = {
    "1d": ((7,), (4,), 3, 2, (2,), (1,), "same", None, 1),
    "1d_gaps": ((5,), (2,), 2, 3, (3,), (1,), "valid", None, 1),
    "1d_wide": ((6,), (3,), 4, 6, (2,), (3,), ((2, 1),), (1,), 2),
    "dcgan": ((4, 5), (4, 4), 6, 5, (2, 2), (1, 1), "same", None, 1),
    "unet": ((4, 3), (3, 3), 8, 4, (2, 2), (1, 1), "same", (1, 0), 1),
    "even": ((4, 3), (2, 2), 3, 4, (2, 2), (1, 1), "same", (1, 1), 1),
    "unequal": ((3, 6), (3, 5), 4, 4, (3, 1), (1, 2), "valid", (2, 0), 4),
    "pytorch": ((5, 4), (4, 3), 3, 4, (2, 2), (1, 1), ((1, 1), (1, 1)), (0, 1), 1),
    "more_pads_than_taps": (
        (9, 4),
        (2, 3),
        2,
        2,
        (1, 2),
        (1, 1),
        ((3, 2), (0, 4)),
        0,
        1,
    ),
    "stride_1": ((6, 6), (3, 3), 8, 8, (1, 1), (1, 1), "same", None, 1),
    "3d": ((3, 2, 4), (3, 2, 4), 4, 6, (2, 1, 2), (1, 2, 1), "same", None, 2),
    "3d_pads": ((2, 3, 3), (3, 3, 3), 2, 3, (2,) * 3, (1,) * 3, ((1, 1),) * 3, 1, 1),
}


def random(*shape, dtype="float32", seed=0):
    values = np.random.default_rng((seed, len(shape))).standard_normal(shape)
    return tf.cast(values, dtype)


def case(name, layout="channels_last", dtype="float32", batch=2):
    """The operands of a problem, and its options."""
    size, kernel, channels, filters, strides, dilation, padding, extra, groups = (
        PROBLEMS[name]
    )
    shape = (batch, *size, channels)
    if layout == "channels_first":
        shape = (batch, channels, *size)
    x = random(*shape, dtype=dtype)
    w = random(*kernel, filters // groups, channels, dtype=dtype, seed=1)
    options = {
        "strides": strides,
        "padding": padding,
        "output_padding": extra,
        "data_format": layout,
        "dilation_rate": dilation,
        "groups": groups,
    }
    return x, w, options


def definition(x, w, shape, options):
    """By the definition of the input gradient, for an output of this shape."""
    layout = options["data_format"]
    size = shape[1:-1] if layout == "channels_last" else shape[2:]
    padding = options["padding"]
    if padding == "valid":
        padding = ((0, 0),) * len(size)
    elif padding == "same":
        axes = zip(
            size,
            w.shape[:-2],
            options["strides"],
            options["dilation_rate"],
            strict=True,
        )
        padding = tuple(same_pads(*axis) for axis in axes)
    rest = {
        "strides": options["strides"],
        "dilation_rate": options["dilation_rate"],
        "padding": padding,
        "groups": options["groups"],
        "layout": layout,
    }
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    return reference.input_gradient(tuple(shape), w, x, **rest)


@pytest.mark.parametrize("algorithm", UNIVERSAL)
@pytest.mark.parametrize("layout", ("channels_last", "channels_first"))
@pytest.mark.parametrize("name", PROBLEMS)
def test_definition(name, layout, algorithm):
    x, w, options = case(name, layout)
    y = kconv.ops.conv_transpose(x, w, **options, algorithm=algorithm)
    expected = definition(x, w, y.shape, options)
    error = tolerance(algorithm) * np.abs(expected).max()
    np.testing.assert_allclose(y, expected, rtol=0, atol=error)


@pytest.mark.parametrize("dtype", ("float16", "bfloat16", "float64"))
@pytest.mark.parametrize("name", ("dcgan", "1d_wide"))
def test_dtypes_are_kept_and_rounded_once(name, dtype):
    x, w, options = case(name, dtype=dtype)
    y = kconv.ops.conv_transpose(x, w, **options, algorithm="auto:strict")
    assert y.dtype.name == dtype
    expected = definition(x, w, y.shape, options)
    magnitude = definition(np.abs(x), np.abs(w), y.shape, options)
    reference.assert_accurate(y.numpy(), expected, magnitude)


@pytest.mark.parametrize("padding", ("valid", "same"))
def test_sizes_are_those_of_keras(padding):
    every = itertools.product(range(1, 5), range(1, 5), (None, 0, 1, 2, 3), range(1, 4))
    seen = 0
    for kernel, stride, extra, size in every:
        if extra is not None and extra >= stride:
            continue
        x, w = random(1, size, 2), random(kernel, 3, 2)
        arguments = x, w, stride, padding, extra
        if padding == "same" and extra == 0 and kernel % 2 == 0:
            with pytest.raises(ValueError, match=r"must not be 0.*Received"):
                kconv.ops.conv_transpose(*arguments)
            continue
        y = kconv.ops.conv_transpose(*arguments)
        np.testing.assert_allclose(y, keras.ops.conv_transpose(*arguments), atol=1e-5)
        seen += 1
    assert seen > 60


def test_explicit_padding_is_that_of_pytorch():
    # torch.nn.functional.conv_transpose1d of these, by hand: with a stride of 2 and a
    # padding of 1 the first and the last of 1, 2, 3+2, 4, 6 are gone.
    x = tf.constant([1.0, 2.0], shape=(1, 2, 1))
    w = tf.constant([1.0, 2.0, 3.0], shape=(3, 1, 1))
    y = kconv.ops.conv_transpose(x, w, strides=2, padding=((1, 1),))
    np.testing.assert_array_equal(np.ravel(y), [2, 5, 4])
    y = kconv.ops.conv_transpose(x, w, strides=2, padding=((1, 1),), output_padding=1)
    np.testing.assert_array_equal(np.ravel(y), [2, 5, 4, 6])


@pytest.mark.parametrize("algorithm", ("auto", "gemm", "builtin"))
@pytest.mark.parametrize("name", ("dcgan", "unequal", "pytorch"))
def test_gradients_of_all_orders(name, algorithm):
    x, w, options = case(name, dtype="float64")

    def value(x, w):
        y = kconv.ops.conv_transpose(x, w, **options, algorithm=algorithm)
        return tf.reduce_sum(tf.sin(y)) / 3

    def slope(x, w):
        with tf.GradientTape() as tape:
            tape.watch((x, w))
            y = value(x, w)
        return sum(tf.reduce_sum(tf.cos(g)) for g in tape.gradient(y, (x, w)))

    for function in (value, slope):
        with tf.GradientTape() as tape:
            tape.watch((x, w))
            y = function(x, w)
        gradients = tape.gradient(y, (x, w))
        # By differences along a random direction, in float64.
        along = [random(*t.shape, dtype="float64", seed=7) for t in (x, w)]
        step = 1e-5
        ends = [
            function(*(t + sign * step * d for t, d in zip((x, w), along, strict=True)))
            for sign in (1, -1)
        ]
        expected = (ends[0] - ends[1]) / (2 * step)
        found = sum(tf.reduce_sum(g * d) for g, d in zip(gradients, along, strict=True))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("algorithm", ("auto", "builtin"))
@pytest.mark.parametrize("activation", (None, "relu", "relu6"))
def test_bias_and_activation(activation, algorithm):
    x, w, options = case("dcgan")
    bias = random(5, seed=3)
    y = kconv.ops.conv_transpose(
        x, w, **options, algorithm=algorithm, bias=bias, activation=activation
    )
    expected = definition(x, w, y.shape, options)
    expected = reference.finish(expected, bias, activation, "channels_last")
    np.testing.assert_allclose(y, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "jit_compile"),
    [("unequal", False), ("dcgan", True), ("more_pads_than_taps", True)],
)
def test_unknown_sizes_and_xla(name, jit_compile):
    x, w, options = case(name)
    # XLA wants to know them.
    shape = x.shape if jit_compile else [None] * (x.shape.rank - 1) + [x.shape[-1]]

    @tf.function(input_signature=[tf.TensorSpec(shape)], jit_compile=jit_compile)
    def function(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = kconv.ops.conv_transpose(x, w, **options)
            assert y.shape[-1] == options["groups"] * w.shape[-2]
        return y, tape.gradient(y, x)

    y, dx = function(x)
    expected = definition(x, w, y.shape, options)
    assert y.shape == kconv.ops.conv_transpose(x, w, **options).shape
    np.testing.assert_allclose(y, expected, atol=1e-4)
    assert dx.shape == x.shape


def test_batch_decides_between_kernels(estimates):
    # Stock takes large batches of this pass, kconv small ones, and the others always.
    estimates(
        {
            "forward": lambda batch: (1, 2),
            "input_gradient": lambda batch: (batch, 3.5),
            "filter_gradient": lambda batch: (1, 2),
        }
    )
    x, w, options = case("unet", batch=5)

    @tf.function(input_signature=[tf.TensorSpec((None, *x.shape[1:]))])
    def function(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = kconv.ops.conv_transpose(x, w, **options)
        return y, tape.gradient(y, x)

    kinds = {
        op.type
        for graph in (
            function.get_concrete_function().graph,
            *(
                f.graph
                for f in function.get_concrete_function().graph._functions.values()
                if hasattr(f, "graph")
            ),
        )
        for op in graph.get_operations()
    }
    assert "If" in kinds or "StatelessIf" in kinds
    for batch in (1, 5):
        y, dx = function(x[:batch])
        expected = definition(x[:batch], w, y.shape, options)
        np.testing.assert_allclose(y, expected, atol=1e-4)
        assert dx.shape == (batch, *x.shape[1:])


@pytest.mark.parametrize("algorithm", ("auto", "direct", "builtin"))
@pytest.mark.parametrize(
    ("shape", "padding", "expected"),
    [
        ((0, 4, 4, 2), "same", (0, 8, 8, 3)),
        ((2, 0, 4, 2), "valid", (2, 0, 9, 3)),
        ((2, 0, 4, 2), ((5, 5), (1, 1)), (2, 0, 7, 3)),
    ],
)
def test_empty_input(shape, padding, expected, algorithm):
    x, w = tf.zeros(shape), random(3, 3, 3, 2)
    with tf.GradientTape() as tape:
        tape.watch((x, w))
        y = kconv.ops.conv_transpose(x, w, 2, padding, algorithm=algorithm)
    assert y.shape == expected
    dx, dw = tape.gradient(y, (x, w))
    assert dx.shape == shape
    np.testing.assert_array_equal(dw, np.zeros(w.shape))


def test_nodes_of_a_functional_model():
    x = keras.Input((None, 4, 6))
    kernel = keras.Variable(random(4, 3, 5, 6))
    y = kconv.ops.conv_transpose(x, kernel, 2, "same", output_padding=1, groups=1)
    assert y.shape == (None, None, 8, 5)
    z = kconv.ops.ConvTranspose(3, groups=5, activation="relu", name="up")(
        y, random(2, 2, 1, 5), bias=random(5)
    )
    assert z.shape == (None, None, 24, 5)
    model = keras.Model(x, z)
    data = random(2, 3, 4, 6)
    expected = model(data)
    again = keras.Model.from_config(model.get_config())
    (node,) = (one for one in again.operations if one.name == "up")
    assert node.arguments["groups"] == 5
    assert type(kconv.ops.ConvTranspose(groups=np.int64(5)).groups) is int
    kernel.assign(kernel + 1)
    assert np.abs(model(data) - expected).max() > 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"strides": 0}, "`strides` must be"),
        ({"padding": "causal"}, "`padding` must be"),
        ({"padding": ((1, 1),)}, "`padding` must be"),
        ({"padding": ((9, 9), (9, 9))}, "The output would be empty"),
        ({"output_padding": 2}, "`output_padding` must be"),
        ({"output_padding": -1}, "`output_padding` must be"),
        ({"output_padding": (1, 1, 1)}, "`output_padding` must be"),
        ({"groups": 0}, "`groups` must be"),
        ({"groups": True}, "`groups` must be"),
        ({"groups": 4}, "must be a multiple of the groups"),
        ({"kernel": random(3, 3, 4, 5)}, "as many channels as `kernel`"),
        ({"kernel": random(3, 3, 0, 6)}, "`kernel` must not be empty"),
        ({"kernel": random(3, 4, 6)}, "must have the same rank"),
        ({"kernel": random(3, 3, 4, 6, dtype="float16")}, "the same dtype"),
        ({"bias": random(3)}, "`bias` must have one value"),
        ({"activation": "tanh"}, "`activation` must be"),
        ({"algorithm": "fastest"}, "`algorithm` must be"),
        ({"algorithm": "depthwise"}, "depthwise takes one input channel a group only"),
        ({"data_format": "NHWC"}, "`data_format` must be"),
        ({"strides": 2**47}, "at most 2\\*\\*48"),
    ],
    ids=str,
)
def test_bad_arguments_are_told(change, sentence):
    options = {"inputs": random(2, 5, 5, 6), "kernel": random(3, 3, 4, 6), "strides": 2}
    with pytest.raises(ValueError, match=f"{sentence}(.|\n)*Received: "):
        kconv.ops.conv_transpose(**{**options, **change})


def test_explain_tells_which_kernel_runs():
    x, w, options = case("dcgan")
    y = kconv.ops.conv_transpose(x, w, **options)
    told = kconv.ops.explain(y, w, 2, "same", pass_="input_gradient")
    assert told.chosen in kconv.ops.algorithms()
    forced = kconv.ops.conv_transpose(x, w, **options, algorithm=told.chosen)
    np.testing.assert_array_equal(forced, y)
