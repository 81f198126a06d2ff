"""`kconv.profile`: work, weights and memory, against arithmetic done by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kconv
from kconv.profiler import kinds

L = keras.layers


def chain(shape, *layers):
    return keras.Sequential([keras.Input(shape), *layers])


def conv(filters, kernel, **arguments):
    arguments = {"padding": "same", "use_bias": False, **arguments}
    return L.Conv2D(filters, kernel, **arguments)


def totals(model, *arguments, **keywords):
    total = kconv.profile(model, *arguments, **keywords).total
    return total.parameters, total.macs


def weights(shape, *layers):
    return totals(chain(shape, *layers))[0]


def inception(filters, before3=None, before5=None, after=None):
    """An Inception module on 28x28x192: 1x1, 3x3, 5x5 and pooling side by side."""
    image = keras.Input((28, 28, 192))
    one, three, five = filters
    left = conv(one, 1)(image)
    middle = conv(three, 3)(conv(before3, 1)(image) if before3 else image)
    right = conv(five, 5)(conv(before5, 1)(image) if before5 else image)
    pooled = L.MaxPooling2D(3, strides=1, padding="same")(image)
    pooled = conv(after, 1)(pooled) if after else pooled
    return keras.Model(image, L.Concatenate()([left, middle, right, pooled]))


def test_bottleneck_before_a_large_kernel():
    assert totals(chain((28, 28, 192), conv(32, 5)))[1] == 120_422_400
    profile = kconv.profile(chain((28, 28, 192), conv(16, 1), conv(32, 5)))
    assert [row.macs for row in profile.layers] == [2_408_448, 10_035_200]
    assert profile.total.macs == 12_443_648


def test_inception():
    profile = kconv.profile(inception((64, 128, 32)))
    assert profile.total.parameters == 387_072
    assert profile.total.macs == 28 * 28 * 387_072
    assert profile.layers[-1].output_shape == (1, 28, 28, 416)
    reduced = kconv.profile(inception((64, 128, 32), 96, 16, 32))
    assert reduced.total.parameters == 163_328
    assert reduced.layers[-1].output_shape == (1, 28, 28, 256)
    assert reduced.layers[-1].receptive_field == "1-5"


def test_weights_of_known_blocks():
    image = 14, 14, 192
    assert weights(image, conv(32, 1), conv(256, 3)) == 79_872
    assert weights(image, conv(256, 3)) == 442_368
    image = 14, 14, 256
    assert weights(image, conv(256, 3)) == 589_824
    assert weights(image, conv(256, 3, groups=8)) == 73_728
    assert weights(image, conv(64, 1), conv(64, 3), conv(256, 1)) == 69_632
    pair = 14, 14, 1
    assert weights(pair, conv(1, 3), conv(1, 3)) == 18
    assert weights(pair, conv(1, 5)) == 25


def test_depthwise_and_separable():
    image = 14, 14, 3
    depthwise = L.DepthwiseConv2D(3, use_bias=False)
    assert totals(chain(image, depthwise)) == (27, 12 * 12 * 27)
    separable = L.SeparableConv2D(4, 3, use_bias=False)
    assert totals(chain(image, separable)) == (27 + 12, 12 * 12 * (27 + 12))


def test_regrouped_inception():
    """Three of 1x1 are one, and what follows each of them a convolution in groups."""
    image = keras.Input((28, 28, 192))
    branches = [conv(32, 3)(conv(32, 1)(image)) for _ in range(3)]
    apart = keras.Model(image, L.Concatenate()(branches))
    together = chain((28, 28, 192), conv(96, 1), conv(96, 3, groups=3))
    assert totals(apart) == totals(together)
    # The extreme: a group for each channel.
    image = keras.Input((28, 28, 192))
    wide = conv(96, 1)(image)
    extreme = chain(
        (28, 28, 192),
        conv(96, 1),
        L.DepthwiseConv2D(3, padding="same", use_bias=False),
    )
    channels = [conv(1, 3)(wide[..., n : n + 1]) for n in range(96)]
    apart = keras.Model(image, L.Concatenate()(channels))
    assert totals(apart) == totals(extreme)


def test_vgg16():
    convolutions = [
        *((224, 3, 64), (224, 64, 64), (112, 64, 128), (112, 128, 128)),
        *((56, 128, 256), (56, 256, 256), (56, 256, 256), (28, 256, 512)),
        *((28, 512, 512), (28, 512, 512), (14, 512, 512), (14, 512, 512)),
        (14, 512, 512),
    ]
    macs = sum(size**2 * 9 * a * b for size, a, b in convolutions)
    dense = 7 * 7 * 512 * 4096 + 4096 * 4096 + 4096 * 1000
    assert macs + dense == 15_470_264_320
    # The layers before the dense ones, whose weights would take half a gigabyte.
    model = keras.applications.VGG16(
        weights=None, include_top=False, input_shape=(224, 224, 3)
    )
    assert totals(model) == (14_714_688, macs)


@pytest.mark.slow
def test_whole_vgg16():
    model = keras.applications.VGG16(weights=None)
    assert totals(model) == (138_357_544, 15_470_264_320)


def test_resnet50():
    model = keras.applications.ResNet50(weights=None)
    profile = kconv.profile(model)
    assert profile.total.parameters == model.count_params() == 25_636_712
    trainable = sum(int(np.prod(one.shape)) for one in model.trainable_weights)
    assert profile.total.trainable_parameters == trainable
    assert profile.total.macs == 3_857_973_248
    assert profile.total.uncounted == 0
    for name in ("parameters", "macs", "activation_bytes", "weight_bytes"):
        found = sum(getattr(row, name) for row in profile.layers)
        assert found == getattr(profile.total, name)
    assert profile.total.weight_bytes == 4 * 25_636_712
    assert profile.total.peak_bytes < profile.total.activation_bytes / 10
    # The longest path is that of Araujo, Norris and Sim.
    *_, last, pooled, _ = (row.receptive_field for row in profile.layers)
    assert (last, pooled) == ("11-483", f"{11 + 6 * 32}-{483 + 6 * 32}")


# A layer, the shape of its input, its multiply-accumulates.
KINDS = {
    "Conv1D": (L.Conv1D(4, 3), (10, 2), 8 * 3 * 2 * 4),
    "causal": (L.Conv1D(4, 3, padding="causal"), (10, 2), 10 * 3 * 2 * 4),
    "Conv3D": (L.Conv3D(2, 3), (5, 6, 7, 2), 3 * 4 * 5 * 27 * 2 * 2),
    "strided": (L.Conv2D(4, 3, strides=2, padding="same"), (9, 9, 2), 25 * 9 * 8),
    "groups": (L.Conv2D(4, 3, groups=2), (5, 5, 4), 9 * 9 * 2 * 4),
    "first": (L.Conv2D(4, 3, data_format="channels_first"), (2, 5, 6), 12 * 9 * 8),
    "Conv1DTranspose": (L.Conv1DTranspose(4, 3, strides=2), (5, 2), 5 * 3 * 8),
    "Conv2DTranspose": (L.Conv2DTranspose(4, 3, strides=2), (5, 6, 2), 30 * 9 * 8),
    "grouped transpose": (
        kconv.layers.Conv2DTranspose(4, 3, strides=2, groups=2),
        (5, 6, 2),
        30 * 9 * 2 * 2,
    ),
    "DepthwiseConv1D": (L.DepthwiseConv1D(3, depth_multiplier=2), (6, 4), 4 * 3 * 8),
    "DepthwiseConv3D": (kconv.layers.DepthwiseConv3D(3), (5, 5, 5, 2), 27 * 27 * 2),
    "SeparableConv1D": (L.SeparableConv1D(5, 3), (6, 4), 4 * (3 * 4 + 4 * 5)),
    "Dense": (L.Dense(5), (3, 7), 3 * 7 * 5),
    "EinsumDense": (L.EinsumDense("abc,cde->abde", (None, 2, 3)), (5, 7), 5 * 7 * 6),
    "Embedding": (L.Embedding(100, 8), (7,), 0),
    "SimpleRNN": (L.SimpleRNN(4), (6, 3), 6 * (3 * 4 + 4 * 4)),
    "LSTM": (L.LSTM(4), (6, 3), 6 * 4 * (3 * 4 + 4 * 4)),
    "GRU": (L.GRU(4), (6, 3), 6 * 3 * (3 * 4 + 4 * 4)),
    "stacked": (
        L.RNN(L.StackedRNNCells([L.LSTMCell(4), L.GRUCell(5)])),
        (6, 3),
        6 * (4 * (3 * 4 + 4 * 4) + 3 * (4 * 5 + 5 * 5)),
    ),
    "Bidirectional": (L.Bidirectional(L.LSTM(4)), (6, 3), 2 * 6 * 4 * 28),
    "TimeDistributed": (L.TimeDistributed(L.Conv2D(4, 3)), (5, 6, 6, 2), 5 * 16 * 72),
    "ConvLSTM1D": (L.ConvLSTM1D(4, 3), (5, 8, 2), 5 * 6 * 3 * (2 + 4) * 16),
    "ConvLSTM2D": (
        L.ConvLSTM2D(4, 3, padding="same", strides=2),
        (5, 8, 8, 2),
        5 * 16 * 9 * (2 + 4) * 16,
    ),
    "MaxPooling2D": (L.MaxPooling2D(2), (8, 8, 3), 0),
    "BatchNormalization": (L.BatchNormalization(), (8, 8, 3), 0),
}


@pytest.mark.parametrize("name", KINDS)
def test_macs(name):
    layer, shape, macs = KINDS[name]
    profile = kconv.profile(chain(shape, layer), batch_size=3)
    assert profile.total.macs == 3 * macs
    assert profile.total.uncounted == 0
    assert profile.total.parameters == layer.count_params()


def attention(query, key, heads, size, depth):
    projections = depth * heads * size * (2 * query + 2 * key)
    return projections + 2 * query * key * heads * size


def test_macs_of_attention():
    query, key = keras.Input((5, 8)), keras.Input((7, 8))
    outputs = L.MultiHeadAttention(2, 3)(query, key)
    profile = kconv.profile(keras.Model([query, key], outputs))
    assert profile.total.macs == attention(5, 7, 2, 3, 8)
    outputs = L.GroupQueryAttention(3, 4, 2)(query, key)
    profile = kconv.profile(keras.Model([query, key], outputs))
    products = 2 * 5 * 7 * 4 * 3
    assert profile.total.macs == 8 * 3 * (2 * 5 * 4 + 2 * 7 * 2) + products
    outputs = L.Attention()([query, key])
    profile = kconv.profile(keras.Model([query, key], outputs))
    assert profile.total.macs == 2 * 5 * 7 * 8


def operations(x):
    ops, ones = keras.ops, lambda *shape: np.ones(shape, "float32")
    yield ops.matmul(x, ones(4, 5)), 64 * 4 * 5
    yield ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))), 64 * 8 * 4
    yield ops.dot(x, ones(4, 5)), 64 * 4 * 5
    yield ops.tensordot(x, ones(8, 4, 3), axes=[[2, 3], [0, 1]]), 8 * 32 * 3
    yield ops.einsum("bhwc,bhvc->bhwv", x, x), 64 * 8 * 4
    yield ops.einsum("...c,cd->...d", x, ones(4, 6)), 64 * 4 * 6
    yield ops.einsum("bhwc->bch", x), 0
    yield ops.conv(x, ones(3, 3, 4, 6)), 36 * 9 * 4 * 6
    yield ops.depthwise_conv(x, ones(3, 3, 4, 2)), 36 * 9 * 8
    yield ops.separable_conv(x, ones(3, 3, 4, 2), ones(1, 1, 8, 5)), 36 * (72 + 40)
    yield ops.conv_transpose(x, ones(3, 3, 5, 4), 2), 64 * 9 * 20
    yield kconv.ops.conv(x, ones(3, 3, 2, 6), padding="same"), 64 * 9 * 2 * 6
    yield kconv.ops.depthwise_conv(x, ones(3, 3, 4, 2)), 36 * 9 * 8
    yield kconv.ops.separable_conv(x, ones(3, 3, 4, 1), ones(1, 1, 4, 5)), 36 * 56
    yield kconv.ops.conv_transpose(x, ones(2, 2, 5, 4), 2, groups=2), 64 * 4 * 5 * 4
    yield ops.relu(x) + 1, 0
    yield L.Dot((2, 1))([x[:, 0], x[:, 1, :4]]), 8 * 4 * 4


def test_macs_of_operations():
    image = keras.Input((8, 8, 4))
    found, expected = [], []
    for output, macs in operations(image):
        total = kconv.profile(keras.Model(image, output)).total
        found.append((total.macs, total.uncounted))
        expected.append((macs, 0))
    assert found == expected


def test_bytes_and_intensity():
    model = chain((8, 8, 4), L.Conv2D(6, 3), L.ReLU(), L.Flatten())
    first, second, _ = kconv.profile(model, batch_size=2).layers
    image, output, kernel = 2 * 8 * 8 * 4 * 4, 2 * 6 * 6 * 6 * 4, 4 * (9 * 4 * 6 + 6)
    assert first.activation_bytes == output
    assert first.weight_bytes == kernel
    macs = 2 * 36 * 9 * 4 * 6
    assert first.intensity == pytest.approx(2 * macs / (image + output + kernel))
    assert second.intensity == 0


def test_peak_frees_what_nobody_reads_again():
    image = keras.Input((10,))  # 40 bytes
    first = L.Dense(100)(image)  # 400
    second = L.Dense(20)(first)  # 80
    third = L.Dense(30)(second)  # 120
    chained = keras.Model(image, third)
    assert kconv.profile(chained).total.peak_bytes == 400 + 80
    # The first output is needed until the end.
    kept = keras.Model(image, [third, first])
    assert kconv.profile(kept).total.peak_bytes == 400 + 80 + 120
    assert kconv.profile(kept).total.activation_bytes == 400 + 80 + 120


def test_mixed_precision():
    model = chain((8, 8, 4), L.Conv2D(6, 3, dtype="mixed_float16"))
    (row,) = kconv.profile(model).layers
    assert row.activation_bytes == 2 * 6 * 6 * 6
    assert row.weight_bytes == 4 * (9 * 4 * 6 + 6)


def test_macs_are_those_of_the_graph():
    """What TensorFlow would compute, out of the shapes of its operations."""
    shape = (1, 96, 96, 3)
    model = keras.applications.MobileNet(weights=None, input_shape=shape[1:])
    graph = tf.function(model).get_concrete_function(tf.TensorSpec(shape)).graph
    sums = {"Conv2D": slice(3), "DepthwiseConv2dNative": slice(2)}
    macs = [
        np.prod(one.outputs[0].shape) * np.prod(one.inputs[1].shape[sums[one.type]])
        for one in graph.get_operations()
        if one.type in sums
    ]
    assert len(macs) == 1 + 13 + 13 + 1
    assert totals(model)[1] == sum(macs)


def test_both_libraries_layers_are_known():
    table = kinds._by_layer()
    names = [
        name for name in kconv.layers.__all__ if hasattr(L, name) and "Conv" in name
    ]
    assert len(names) >= 10
    for name in names:
        ours, stock = getattr(kconv.layers, name), getattr(L, name)
        assert table[ours] is table[stock]
        assert table[ours].convolutions is not None
