"""kconv.revert on the operations in the graph of a Functional model."""

import keras
import numpy as np
import pytest
from tiling import tolerance

import kconv


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def test_conv_of_a_graph_is_reverted():
    inputs = keras.Input((8, 8, 4))
    kernel = images(3, 3, 4, 4)
    x = kconv.ops.conv(inputs, kernel, strides=(1, 1), padding="SAME", dilation_rate=2)
    x = kconv.ops.conv(x, kernel, padding=((1, 0), (0, 1)))
    x = kconv.ops.conv(x, kernel, strides=2, dilation_rate=2, algorithm="direct")
    same = {"padding": "same"}
    x = kconv.ops.conv(x, kernel, **same, activation="linear")
    x = kconv.ops.conv(x, kernel, **same, activation="relu6")
    x = kconv.ops.conv(x, kernel, **same, bias=images(4))
    model = keras.Model(inputs, x)
    reverted = kconv.revert(model)
    nodes = [
        [op for op in m.operations if "Conv" in str(type(op))]
        for m in (model, reverted)
    ]
    ours = [isinstance(op, kconv.ops.Conv) for op in nodes[1]]
    assert ours == [False, True, True, False, True, True]
    assert [op.name for op in nodes[1]] == [op.name for op in nodes[0]]
    assert nodes[1][2].algorithm == "direct"
    x = images(2, 8, 8, 4)
    y = model(x).numpy()
    error = tolerance("auto") * np.abs(y).max()
    np.testing.assert_allclose(reverted(x), y, rtol=0, atol=error)
    converted = kconv.convert(reverted)
    assert len(converted.operations) == len(model.operations)


def test_depthwise_operations_of_a_graph_are_reverted():
    inputs = keras.Input((8, 8, 4))
    kernel, pointwise = images(3, 3, 4, 2), images(1, 1, 8, 4)
    same = {"padding": "same"}
    x = kconv.ops.separable_conv(inputs, kernel, pointwise, **same, algorithm="gemm")
    x = kconv.ops.depthwise_conv(x, kernel[..., :1], dilation_rate=2, **same)
    x = kconv.ops.separable_conv(x, kernel, pointwise, **same, bias=images(4))
    x = kconv.ops.separable_conv(x, kernel, pointwise, **same, activation="relu")
    x = kconv.ops.depthwise_conv(x, kernel[..., :1], strides=(2, 1), **same)
    x = kconv.ops.depthwise_conv(x, kernel[..., :1], padding=((1, 1), (0, 1)))
    x = kconv.ops.depthwise_conv(x, kernel[..., :1], strides=2, padding="SAME")
    x = keras.ops.expand_dims(x, 1)
    x = kconv.ops.depthwise_conv(x, images(1, 2, 2, 4, 1))
    model = keras.Model(inputs, x)
    reverted = kconv.revert(model)
    kinds = kconv.ops.DepthwiseConv, kconv.ops.SeparableConv
    ours = [
        isinstance(op, kinds) for op in reverted.operations if "Conv" in str(type(op))
    ]
    assert ours == [False, False, True, True, True, True, False, True]
    x = images(2, 8, 8, 4)
    y = model(x).numpy()
    np.testing.assert_allclose(reverted(x), y, rtol=0, atol=1e-5 * np.abs(y).max())


KERNELS = {
    "Conv": {"kernel": (3, 3, 4, 4)},
    "DepthwiseConv": {"kernel": (3, 3, 4, 1)},
    "SeparableConv": {
        "depthwise_kernel": (3, 3, 4, 2),
        "pointwise_kernel": (1, 1, 8, 4),
    },
}


@pytest.mark.parametrize("name", KERNELS)
def test_operations_that_were_called_with_keywords(name):
    kernels = {key: images(*shape) for key, shape in KERNELS[name].items()}
    inputs = keras.Input((8, 8, 4))
    operation = getattr(kconv.ops, name)
    x = operation(padding="same")(inputs=inputs, **kernels)
    x = operation(padding="same")(x, **kernels)
    x = operation(padding="same")(x, *kernels.values(), bias=images(4))
    model = keras.Model(inputs, x)
    reverted = kconv.revert(model)
    nodes = [op for op in reverted.operations if "Conv" in str(type(op))]
    assert [isinstance(op, operation) for op in nodes] == [False, False, True]
    x = images(2, 8, 8, 4)
    y = model(x).numpy()
    np.testing.assert_allclose(reverted(x), y, rtol=0, atol=1e-5 * np.abs(y).max())


def test_channels_first_in_a_graph():
    inputs = keras.Input((4, 8, 8))
    first = {"data_format": "channels_first"}
    x = kconv.ops.conv(inputs, images(3, 3, 4, 4), **first)
    x = kconv.ops.depthwise_conv(x, images(3, 3, 4, 1), **first)
    model = keras.Model(inputs, x)
    reverted = kconv.revert(model)
    nodes = [op for op in reverted.operations if "Conv" in str(type(op))]
    ours = kconv.ops.Conv, kconv.ops.DepthwiseConv
    # Keras does not run the first one on a CPU.
    assert [isinstance(op, ours) for op in nodes] == [True, False]
    x = images(2, 4, 8, 8)
    y = model(x).numpy()
    np.testing.assert_allclose(reverted(x), y, rtol=0, atol=1e-5 * np.abs(y).max())


def test_groups_in_a_graph_stay():
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, kconv.ops.conv(inputs, images(3, 3, 2, 4)))
    reverted = kconv.revert(model)
    # Keras takes groups eagerly only.
    assert isinstance(reverted.operations[-1], kconv.ops.Conv)
    x = images(2, 8, 8, 4)
    np.testing.assert_allclose(reverted(x), model(x), rtol=1e-4, atol=1e-5)
