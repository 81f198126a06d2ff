"""What the operations take for operands, and what they say of others."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kconv

IMAGE = (1, 8, 8, 4)
KERNELS = {
    "conv": {"kernel": (3, 3, 4, 5)},
    "depthwise_conv": {"kernel": (3, 3, 4, 2)},
    "separable_conv": {
        "depthwise_kernel": (3, 3, 4, 2),
        "pointwise_kernel": (1, 1, 8, 5),
    },
}
CHANNELS = {"conv": 5, "depthwise_conv": 8, "separable_conv": 5}
every = pytest.mark.parametrize("name", KERNELS)


def values(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype("float32")


def kernels(name):
    return {key: values(*shape) for key, shape in KERNELS[name].items()}


@every
def test_lists_eagerly_and_in_graphs(name):
    function = getattr(kconv.ops, name)
    x, arrays, bias = values(*IMAGE), kernels(name), values(CHANNELS[name])
    expected = function(x, **arrays, bias=bias)
    lists = {key: array.tolist() for key, array in arrays.items()}
    eager = function(x.tolist(), **lists, bias=bias.tolist())
    inputs = keras.Input(IMAGE[1:])
    symbolic = function(inputs, **lists, bias=bias.tolist())
    assert symbolic.shape == (None, *expected.shape[1:])
    for result in (eager, keras.Model(inputs, symbolic)(x)):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


@every
def test_a_node_follows_a_variable(name):
    function = getattr(kconv.ops, name)
    arrays = kernels(name)
    last = list(arrays)[-1]
    variable = keras.Variable(arrays[last])
    inputs = keras.Input(IMAGE[1:])
    model = keras.Model(inputs, function(inputs, **{**arrays, last: variable}))
    x = values(*IMAGE)
    before = model(x).numpy()
    variable.assign(2 * arrays[last])
    np.testing.assert_allclose(model(x), 2 * before, rtol=1e-5, atol=1e-5)


@every
@pytest.mark.parametrize("dtype", ("bool", "complex64", "uint8", "int32"))
def test_dtypes_that_are_no_floats(dtype, name):
    function = getattr(kconv.ops, name)
    arrays = {key: array.astype(dtype) for key, array in kernels(name).items()}
    x = np.ones(IMAGE, dtype)
    operands = [(x, kernels(name)), (values(*IMAGE), arrays)]
    if (name, dtype) != ("conv", "int32"):  # which TensorFlow takes
        operands.append((x, arrays))
        if dtype != "complex64":  # Keras has no symbolic tensors of it
            operands.append((keras.Input(IMAGE[1:], dtype=dtype), arrays))
    message = rf"must have .* dtype\. Received: inputs\.dtype=.*{dtype}"
    for inputs, others in operands:
        with pytest.raises(ValueError, match=message):
            function(inputs, **others)


@every
def test_operands_that_are_no_dense_tensors(name):
    function = getattr(kconv.ops, name)
    ragged = tf.ragged.constant([[1.0, 2.0], [3.0]])
    sparse = tf.sparse.from_dense(np.ones(IMAGE, "float32"))
    for bad in (None, ragged, sparse, [[1.0], [2.0, 3.0]]):
        told = f"dense tensor.*Received: inputs of type {type(bad).__name__}"
        with pytest.raises(ValueError, match=told):
            function(bad, **kernels(name))
        for key in KERNELS[name]:
            for inputs in (values(*IMAGE), keras.Input(IMAGE[1:])):
                told = f"Received: (.|\n)*{key}( of type|.dtype)"
                with pytest.raises(ValueError, match=told):
                    function(inputs, **{**kernels(name), key: bad})


@pytest.mark.parametrize("name", ("depthwise_conv", "separable_conv"))
def test_prepared_kernels_are_for_conv(name):
    prepared = kconv.ops.prepare_filter(values(3, 3, 4, 8))
    for key in KERNELS[name]:
        for inputs in (values(*IMAGE), keras.Input(IMAGE[1:])):
            with pytest.raises(
                ValueError, match=rf"`kconv\.ops\.conv`.*Received: {key}=<Prepared"
            ):
                getattr(kconv.ops, name)(inputs, **{**kernels(name), key: prepared})
