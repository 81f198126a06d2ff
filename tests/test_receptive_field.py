"""Receptive fields, against what gradients see.

The judge is a gradient in float64: with positive weights and no activation an output
has a gradient by exactly those pixels that it sees. Shapes are such that the window of
a pixel in the middle lies inside of the image.
"""

from fractions import Fraction

import keras
import numpy as np
import pytest
import tensorflow as tf

import kconv
from kconv.profiler import receptive_field as rf
from kconv.profiler.calls import Tracer

L = keras.layers
DOUBLE = {"dtype": "float64"}


def conv(kernel, filters=2, **arguments):
    return L.Conv2D(filters, kernel, kernel_initializer="ones", **DOUBLE, **arguments)


def transposed(kernel, **arguments):
    return L.Conv2DTranspose(
        2, kernel, kernel_initializer="ones", **DOUBLE, **arguments
    )


def pool(size, **arguments):
    return L.AveragePooling2D(size, **DOUBLE, **arguments)


def chain(*layers):
    def network(x):
        for layer in layers:
            x = layer(x)
        return x

    return network


def branches(x):
    x = conv(3, padding="same")(x)
    wide = conv(5, padding="same")(x)
    dilated = conv(3, padding="same", dilation_rate=3)(x)
    x = L.Concatenate(**DOUBLE)([wide, dilated])
    return conv(2, strides=2)(L.Add(**DOUBLE)([x, conv(1, 4)(x)]))


def halves(x):
    """Two halves of the channels, and two of the rows side by side."""
    left, right = keras.ops.split(conv(3, 4)(x), 2, axis=-1)
    x = L.Add(**DOUBLE)([left, conv(5, padding="same")(right)])
    _, below = keras.ops.split(x, [13], axis=1)
    return conv(3)(below)


def grouped(x):
    x = kconv.layers.Conv2D(
        4, (3, 5), padding=((2, 0), (1, 3)), kernel_initializer="ones", **DOUBLE
    )(x)
    return kconv.layers.DepthwiseConv2D(
        3, strides=(2, 1), depthwise_initializer="ones", **DOUBLE
    )(x)


NETWORKS = {
    "one": chain(conv(3)),
    "same": chain(conv(4, padding="same"), conv((3, 2), padding="same")),
    "dilated": chain(conv(3, dilation_rate=2), conv((2, 3), dilation_rate=(3, 1))),
    "strided": chain(conv(5, strides=2, padding="same"), conv(3, strides=(2, 3))),
    "pooled": chain(conv(3), pool(2), conv(3), pool(3, strides=2, padding="same")),
    "padded": chain(L.ZeroPadding2D(((3, 1), (0, 2)), **DOUBLE), conv(3)),
    "cropped": chain(conv(3), L.Cropping2D(((2, 1), (0, 3)), **DOUBLE), pool(2)),
    "transposed": chain(transposed(5, strides=2)),
    "transposed same": chain(transposed(4, strides=3, padding="same"), conv(3)),
    "transposed few": chain(transposed(2, strides=3)),
    "transposed dilated": chain(
        kconv.layers.Conv2DTranspose(
            2, 3, dilation_rate=2, kernel_initializer="ones", **DOUBLE
        ),
        conv(2),
    ),
    "transposed between": chain(conv(3, strides=2), transposed(3, strides=2), conv(3)),
    "both": chain(
        kconv.layers.Conv2DTranspose(
            2, 3, strides=2, dilation_rate=3, kernel_initializer="ones", **DOUBLE
        )
    ),
    "nearest": chain(L.UpSampling2D((2, 3), **DOUBLE), conv(2), pool(3)),
    "bilinear": chain(L.UpSampling2D(2, interpolation="bilinear", **DOUBLE), conv(3)),
    "separable": chain(
        L.SeparableConv2D(
            3,
            3,
            2,
            depthwise_initializer="ones",
            pointwise_initializer="ones",
            **DOUBLE,
        )
    ),
    "branches": branches,
    "explicit": grouped,
    "split": halves,
}
SIZE = 40


def extents(model, position):
    """First and last pixel with a gradient, along each axis."""
    x = tf.Variable(np.random.default_rng(0).uniform(1, 2, (1, SIZE, SIZE, 2)))
    with tf.GradientTape() as tape:
        output = tf.reduce_sum(model(x)[0, position[0], position[1]])
    seen = np.abs(tape.gradient(output, x).numpy()[0]).sum(-1) > 0
    rows, columns = np.nonzero(seen.any(1))[0], np.nonzero(seen.any(0))[0]
    return [(axis[0], axis[-1]) if len(axis) else None for axis in (rows, columns)]


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_sees_the_field(name):
    image = keras.Input((SIZE, SIZE, 2), dtype="float64")
    model = keras.Model(image, NETWORKS[name](image))
    fields = kconv.profile(model).layers[-1].receptive_fields
    _, height, width, _ = model.output_shape
    # Several in the middle: after upsampling they see different numbers of pixels.
    places = [(height // 2 + n, width // 2 + n) for n in range(-2, 3)]
    found = [extents(model, place) for place in places]
    for axis in range(2):
        pairs = [(p[axis], e[axis]) for p, e in zip(places, found, strict=True)]
        pairs = [(place, extent) for place, extent in pairs if extent is not None]
        size = max(field.size[axis] for field in fields)
        assert max(high - low + 1 for _, (low, high) in pairs) == size
        if len({field.centre[axis] for field in fields}) > 1:
            continue
        stride, centre = fields[0].stride[axis], fields[0].centre[axis]
        if Fraction(stride).denominator > 1 or centre is None:
            continue
        for place, (low, high) in pairs:
            assert Fraction(int(low + high), 2) == centre + stride * place


def test_centres_of_outputs_between_pixels():
    image = keras.Input((SIZE, SIZE, 2), dtype="float64")
    x = transposed(4, strides=2, padding="same")(image)
    model = keras.Model(image, x)
    (field,) = kconv.profile(model).layers[-1].receptive_fields
    assert field.stride == (Fraction(1, 2),) * 2
    # The same phase as output 0, which sees the padding.
    (low, high), _ = extents(model, (20, 20))
    assert field.centre[0] == Fraction(int(low + high), 2) - 10


def test_formula():
    """R_i = R_(i-1) + (k_i - 1) d_i times the strides before i."""
    layers = [(7, 2, 1), (3, 2, 1), (3, 1, 2), (1, 1, 1), (3, 2, 1), (2, 1, 3)]
    x = image = keras.Input((224, 224, 3))
    expected, size, stride = [], 1, 1
    for taps, step, dilation in layers:
        x = L.Conv2D(2, taps, strides=step, dilation_rate=dilation)(x)
        size += (taps - 1) * dilation * stride
        stride *= step
        expected.append((size, stride))
    rows = kconv.profile(keras.Model(image, x)).layers
    found = [(f.size, f.stride) for row in rows for f in row.receptive_fields]
    assert found == [((size, size), (stride, stride)) for size, stride in expected]


def test_known_network():
    """The size that the article of Araujo, Norris and Sim tells of VGG-16."""
    model = keras.applications.VGG16(
        weights=None, include_top=False, input_shape=(224, 224, 3)
    )
    (field,) = kconv.profile(model).layers[-1].receptive_fields
    assert (field.size, field.stride) == ((212, 212), (32, 32))


def test_two_of_three_see_as_one_of_five():
    image = keras.Input((28, 28, 1))
    two = keras.Model(image, chain(L.Conv2D(1, 3), L.Conv2D(1, 3))(image))
    one = keras.Model(image, L.Conv2D(1, 5)(image))
    assert [kconv.profile(m).layers[-1].receptive_field for m in (two, one)] == [
        "5"
    ] * 2


def test_every_path_is_told():
    x = image = keras.Input((32, 32, 4))
    for _ in range(3):
        x = L.Add()([x, L.Conv2D(4, 3, padding="same")(x)])
    (*_, row) = kconv.profile(keras.Model(image, x)).layers
    assert [field.size for field in row.receptive_fields] == [
        (n, n) for n in (1, 3, 5, 7)
    ]
    assert {field.centre for field in row.receptive_fields} == {(0, 0)}


def test_too_many_paths_keep_the_extremes():
    x = image = keras.Input((64, 64, 1))
    sizes = [2**n + 1 for n in range(9)]
    for size in sizes:
        wide = L.DepthwiseConv2D((size, 1), padding="same")(x)
        x = L.Add()([x, wide])
    (*_, row) = kconv.profile(keras.Model(image, x)).layers
    found = [field.size[0] for field in row.receptive_fields]
    assert min(found) == 1
    assert max(found) == 1 + sum(size - 1 for size in sizes)
    assert len(found) <= rf.MOST_PATHS
    assert row.merged_fields > 0


def test_each_input_has_its_fields():
    first, second = (
        keras.Input((16, 16, 2), name="a"),
        keras.Input((16, 16, 2), name="b"),
    )
    left = L.Conv2D(3, 3, padding="same")(first)
    right = L.Conv2D(3, (5, 1), padding="same")(second)
    model = keras.Model([first, second], L.Concatenate()([left, right]))
    fields = kconv.profile(model).layers[-1].receptive_fields
    assert {field.input: field.size for field in fields} == {"a": (3, 3), "b": (5, 1)}


def test_an_input_has_the_name_of_its_layer():
    model = kconv.models.LeNet5()
    (field,) = kconv.profile(model).layers[0].receptive_fields
    assert field.input == model.layers[0].name


def test_halves_of_channels_keep_their_places():
    model = kconv.models.build("shufflenet_v2", classes=5)
    rows = {row.name: row for row in kconv.profile(model).layers}
    fields = rows["last_conv"].receptive_fields
    assert all(None not in field.size for field in fields)
    # Stem, pool, and per stage a unit of stride 2 and others, by the formula.
    size, stride = 1, 1
    for taps, s in [(3, 2), (3, 2)]:
        size, stride = size + (taps - 1) * stride, stride * s
    for units in (4, 8, 4):
        size, stride = size + 2 * stride, stride * 2
        size += 2 * stride * (units - 1)
    assert max(field.size[0] for field in fields) == size


def test_augmentation_does_nothing_in_inference():
    layers = L.RandomFlip(), L.RandomRotation(0.1), L.RandomZoom(0.1), L.Conv2D(4, 3)
    model = keras.Sequential([keras.Input((16, 16, 3)), *layers])
    fields = [row.receptive_field for row in kconv.profile(model).layers]
    assert fields == ["1", "1", "1", "3"]


def test_gates_see_everything():
    image = keras.Input((16, 16, 4))
    x = L.Conv2D(8, 3)(image)
    gate = L.GlobalAveragePooling2D(keepdims=True)(x)
    gate = L.Dense(8, activation="sigmoid")(gate)
    model = keras.Model(image, L.Multiply()([x, gate]))
    row = kconv.profile(model).layers[-1]
    assert [field.size for field in row.receptive_fields] == [(3, 3), (16, 16)]
    assert [field.stride for field in row.receptive_fields] == [(1, 1), (0, 0)]


def test_places_are_followed_through_reshapes():
    image = keras.Input((8, 10, 6))
    x = L.Conv2D(6, 3)(image)
    x = L.Reshape((6, 8, 2, 3))(x)
    x = L.Permute((2, 1, 4, 3))(x)
    x = L.Reshape((8, 6, 6))(x)
    x = L.Conv2D(2, (1, 5))(x)
    rows = kconv.profile(keras.Model(image, x)).layers
    # The second axis is now the first.
    assert rows[-1].receptive_fields[0].size == (7, 3)


def test_shuffled_pixels_are_unknown_until_all_are_seen():
    image = keras.Input((8, 8, 4))
    x = L.Conv2D(4, 3)(image)
    x = L.Reshape((9, 16))(x)
    tokens = L.Dense(5)(x)
    x = L.GlobalAveragePooling1D()(tokens)
    rows = kconv.profile(keras.Model(image, x)).layers
    assert [row.receptive_field for row in rows[:3]] == ["3", "unknown", "unknown"]
    x = L.Reshape((36, 4))(L.Conv2D(4, 3)(image))
    model = keras.Model(image, L.GlobalAveragePooling1D()(x))
    assert [row.receptive_field for row in kconv.profile(model).layers] == [
        *("3", "unknown", "8")
    ]


def test_attention_sees_itself_and_all():
    steps = keras.Input((7, 8))
    x = L.MultiHeadAttention(2, 4)(steps, steps)
    (*_, row) = kconv.profile(keras.Model(steps, x)).layers
    assert row.receptive_field == "1-7"


def test_axes():
    twice = rf.enlarged(rf.IDENTITY, 2)
    assert twice == rf.Axis(1, (0, 0), (0, 0))
    assert rf.window(twice, 2).size == 2
    assert rf.window(twice, 2, stride=2) == rf.IDENTITY
    assert rf.window(rf.transposed(rf.IDENTITY, 4, 2), 1, 2).stride == 1
    nothing = rf.transposed(rf.IDENTITY, 1, 2)
    assert nothing.lows == (0, None)
    assert rf.everything(nothing, 5) == rf.Axis(0, (0,), (2,))


def random_layer(random):
    """A layer in one dimension with positive weights."""
    one, none = {"kernel_initializer": "ones", **DOUBLE}, DOUBLE
    taps, stride, rate = (int(n) for n in random.integers((1, 1, 1), (6, 4, 4)))
    padding = str(random.choice(["valid", "same"]))
    kinds = [
        lambda: kconv.layers.Conv1D(
            1, taps, strides=stride, dilation_rate=rate, padding=padding, **one
        ),
        lambda: L.Conv1D(1, taps, padding="causal", dilation_rate=rate, **one),
        lambda: kconv.layers.Conv1DTranspose(
            1, taps, strides=stride, dilation_rate=rate, **one
        ),
        lambda: L.Conv1DTranspose(1, taps, strides=stride, padding="same", **one),
        lambda: L.AveragePooling1D(taps, strides=stride, padding=padding, **none),
        lambda: L.UpSampling1D(stride, **none),
        lambda: L.ZeroPadding1D((taps, rate), **none),
        lambda: L.Cropping1D((rate, stride), **none),
    ]
    return kinds[random.integers(len(kinds))]()


@pytest.mark.parametrize("seed", range(16))
def test_each_output_of_random_layers(seed):
    random = np.random.default_rng(seed)
    size = 120
    x = image = keras.Input((size, 1), dtype="float64")
    for _ in range(4):
        x = random_layer(random)(x)
    model = keras.Model(image, x)
    tracer = Tracer()
    tensor = keras.KerasTensor((1, size, 1), dtype="float64")
    tracer.trace(model, [tensor], [rf.source(0, (1,))])
    (path,) = tracer.calls[-1].fields.paths

    values = tf.Variable(random.uniform(1, 2, (1, size, 1)))
    with tf.GradientTape() as tape:
        outputs = tf.reshape(model(values), (-1,))
    seen = tf.reshape(tape.jacobian(outputs, values), (-1, size)).numpy() != 0
    checked = 0
    for index, row in enumerate(seen):
        low, high = path.axes[0].bounds(index)
        pixels = np.flatnonzero(row)
        if low is None:
            assert not pixels.size
            continue
        assert all((low <= pixels) & (pixels <= high))
        # Far from the ends no layer between reads its padding.
        if low >= size // 4 and high < size - size // 4:
            assert (pixels[0], pixels[-1]) == (low, high)
            checked += 1
    assert checked
