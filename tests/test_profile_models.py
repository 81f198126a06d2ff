"""`kconv.profile` of models of every make; none of them is changed by it."""

import re
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import kconv
from kconv.profiler import private

L = keras.layers


class Block(L.Layer):
    """A residual block of one's own."""

    def __init__(self, filters, **arguments):
        super().__init__(**arguments)
        self.first = L.Conv2D(filters, 3, padding="same")
        self.second = kconv.layers.Conv2D(filters, 3, padding="same")
        self.unused = L.Dense(3)

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], self.first.filters))
        self.unused.build(shape)
        self.scale = self.add_weight(name="scale", shape=())

    def call(self, x):
        return keras.ops.relu(self.second(self.first(x)) * self.scale + x)


class Classifier(keras.Model):
    def __init__(self):
        super().__init__()
        self.block = Block(4)
        self.norm = L.BatchNormalization()
        self.top = L.Dense(3)

    def call(self, x, training=None):
        x = self.norm(self.block(x), training=training)
        return self.top(keras.ops.mean(x, axis=(1, 2)))


class Raw(Classifier):
    """TensorFlow's operations between layers."""

    def call(self, x, training=None):
        x = tf.nn.relu(self.norm(self.block(x)) + x)
        x = tf.matmul(x, tf.ones((1, 8, 4, 6)))
        return self.top(tf.reduce_mean(x, axis=[1, 2]))


class Opaque(L.Layer):
    """A layer of which no trace tells what it computes."""

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(5, shape[-1]))

    def call(self, x):
        return tf.numpy_function(lambda a: a, [x], "float32")

    def compute_output_shape(self, shape):
        return shape


class Product(L.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(3, 3, shape[-1], 5))

    def call(self, x):
        return keras.ops.silu(keras.ops.conv(x, self.kernel, padding="same"))


class Scaled(L.Conv2D):
    """A subclass that computes something else."""

    def call(self, x):
        return super().call(x) @ np.ones((self.filters, 7), "float32")


def functional():
    first, second = keras.Input((8, 8, 4), name="a"), keras.Input((8, 8, 4), name="b")
    shared = L.Conv2D(6, 3, name="shared")
    inner = keras.Sequential(
        [keras.Input((6, 6, 6)), L.Conv2D(2, 1), L.BatchNormalization()], name="inner"
    )
    x = L.Concatenate()([inner(shared(first)), inner(shared(second)), shared(first)])
    x = Block(10)(x)
    x = keras.ops.relu(x + 1)
    pooled = L.GlobalAveragePooling2D()(x)
    return keras.Model({"a": first, "b": second}, [L.Dense(2)(pooled), x])


def state(model):
    """All that must stay: nodes, weights, what is compiled and built."""
    layers = list(private.layers_in(model))
    operations = getattr(model, "operations", [])
    return (
        [
            (id(one), [id(n) for n in one._inbound_nodes], len(one._outbound_nodes))
            for one in [*layers, *operations]
        ],
        [(one.built, one.trainable, len(one.losses)) for one in layers],
        [(id(one), one.numpy().tobytes()) for one in model.variables],
        (model.compiled, id(model.optimizer), id(getattr(model, "loss", None))),
    )


def built(model, shape):
    model(np.zeros((1, *shape), "float32"))
    return model


@pytest.mark.parametrize(
    "make",
    [
        functional,
        lambda: built(Classifier(), (8, 8, 4)),
        lambda: built(Raw(), (8, 8, 4)),
        lambda: keras.Sequential([keras.Input((8, 8, 4)), Scaled(3, 3), L.Flatten()]),
        lambda: keras.Sequential(
            [
                keras.Input((5, 6)),
                L.Bidirectional(L.GRU(3, return_sequences=True)),
                L.TimeDistributed(L.Dense(2)),
            ]
        ),
    ],
    ids=["functional", "subclass", "raw", "override", "wrappers"],
)
def test_model_is_not_changed(make):
    model = make()
    model.compile("adam", "mse")
    before = state(model)
    name = keras.layers.Dense(1).name
    first = kconv.profile(model)
    assert state(model) == before
    assert kconv.profile(model) == first
    number = int(name.rpartition("_")[2]) if "_" in name else 0
    assert keras.layers.Dense(1).name == f"dense_{number + 1}"
    assert first.total.parameters == model.count_params()
    for layer in private.layers_in(model):
        if len(layer._inbound_nodes) == 1:
            assert layer.output is layer._inbound_nodes[0].outputs[0]


def test_shared_layers_work_each_time():
    model = functional()
    profile = kconv.profile(model)
    shared = [row for row in profile.layers if row.name == "shared"]
    each = 36 * 9 * 4 * 6
    assert [row.macs for row in shared] == [each] * 3
    assert [row.parameters for row in shared] == [9 * 4 * 6 + 6, 0, 0]
    assert shared[1].note == "weights counted above"
    inner = [row for row in profile.layers if row.name.startswith("inner/")]
    assert [row.macs for row in inner] == [36 * 6 * 2, 0] * 2
    assert sum(row.parameters for row in profile.layers) == model.count_params()


def test_subclassed_models_are_looked_into():
    model = Classifier()
    profile = kconv.profile(model, (8, 8, 4), batch_size=2)
    assert model.built
    names = [re.sub(r"_\d+\b", "", row.name) for row in profile.layers]
    assert list(zip(names, (row.kind for row in profile.layers), strict=True)) == [
        ("block", "Block"),
        ("block/conv2d", "Conv2D"),
        ("block/conv2d", "Conv2D"),
        ("block/multiply", "Multiply"),
        ("block/add", "Add"),
        ("block/relu", "Relu"),
        ("batch_normalization", "BatchNormalization"),
        ("mean", "Mean"),
        ("dense", "Dense"),
    ]
    own, first = profile.layers[:2]
    assert own.parameters == 1 + 4 * 3 + 3  # the scale, and a layer without a call
    assert own.note == "weights that no layer called inside holds"
    assert profile.total.parameters == model.count_params()
    assert first.macs == 2 * 64 * 9 * 4 * 4
    assert profile.layers[6].receptive_field == "1-5"
    assert model(np.zeros((3, 8, 8, 4))).shape == (3, 3)


def test_tensorflow_operations_are_told():
    profile = kconv.profile(built(Raw(), (8, 8, 4)))
    rows = {row.kind: row for row in profile.layers}
    product = rows["Raw"]
    assert product.macs == 64 * 4 * 6
    assert "TensorFlow operations in its call" in product.note
    assert rows["Conv2D"].receptive_field == "5"
    assert rows["BatchNormalization"].receptive_field == "1-5"
    assert rows["Dense"].receptive_field == "unknown"
    assert profile.total.macs == 2 * 64 * 9 * 16 + product.macs + 6 * 3


def test_what_cannot_be_counted_says_so():
    model = keras.Sequential([keras.Input((4, 4, 3)), Opaque(), L.Conv2D(2, 3)])
    profile = kconv.profile(model)
    assert profile.total.uncounted == 1
    assert profile.total.parameters == 15 + 56
    row = next(row for row in profile.layers if row.macs is None)
    assert "not counted" in row.note
    assert "1 row not counted" in str(profile)


def test_layers_of_ones_own_are_one_row():
    model = keras.Sequential([keras.Input((8, 8, 4)), Product(name="product")])
    (row,) = kconv.profile(model).layers
    assert (row.name, row.kind, row.macs) == ("product", "Product", 64 * 9 * 4 * 5)
    assert row.parameters == 9 * 4 * 5
    assert row.receptive_field == "3"
    assert row.algorithms["forward"] in kconv.ops.algorithms()


def test_tensorflow_layers_of_ones_own_are_one_row():
    class Own(L.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(name="kernel", shape=(3, 3, shape[-1], 5))

        def call(self, x):
            return tf.nn.conv2d(x, self.kernel, 1, "SAME")

    # What Keras takes for sparse: a product with a number.
    double = L.Lambda(lambda x: x * 2)
    model = keras.Sequential([keras.Input((8, 8, 4)), double, Own(name="own")])
    row = kconv.profile(model).layers[-1]
    assert (row.name, row.parameters, row.macs) == ("own", 180, 64 * 9 * 4 * 5)
    moved = 4 * (64 * 4 + 180 + 64 * 5)
    assert row.intensity == pytest.approx(2 * row.macs / moved)


def test_both_directions_see_what_their_layers_do():
    both = L.Bidirectional(L.ConvLSTM2D(4, 3))
    model = keras.Sequential([keras.Input((5, 8, 8, 3)), both])
    fields = [row.receptive_field for row in kconv.profile(model).layers]
    assert fields == ["5 x 8 x 8"] * 3


def test_subclasses_that_compute_something_else():
    model = keras.Sequential([keras.Input((8, 8, 4)), Scaled(3, 3)])
    (row,) = kconv.profile(model).layers
    assert row.macs == 36 * 9 * 4 * 3 + 36 * 3 * 7
    assert row.output_shape == (1, 6, 6, 7)


def test_layers_may_tell_their_own():
    class Secret(Opaque):
        def profile_macs(self, call):
            return 7 * call.output_shape[1]

        def profile_fields(self, call):
            return call.operands[0][1]

    model = keras.Sequential([keras.Input((4, 4, 3)), L.Conv2D(2, 3), Secret()])
    row = kconv.profile(model).layers[-1]
    assert (row.macs, row.receptive_field) == (14, "3")


def test_models_in_time():
    inner = keras.Sequential(
        [keras.Input((8, 8, 3)), L.Conv2D(4, 3), L.GlobalAveragePooling2D()]
    )
    model = keras.Sequential(
        [keras.Input((5, 8, 8, 3)), L.TimeDistributed(inner), L.LSTM(4)]
    )
    rows = kconv.profile(model).layers
    assert [row.receptive_field for row in rows] == [
        *("1 x 3 x 3", "1 x 8 x 8", "5 x 8 x 8")
    ]
    assert rows[0].macs == 5 * 36 * 27 * 4


def test_channels_first():
    model = keras.Sequential(
        [
            L.Conv2D(4, 3, data_format="channels_first"),
            L.MaxPooling2D(2, data_format="channels_first"),
            L.GlobalAveragePooling2D(data_format="channels_first"),
        ]
    )
    rows = kconv.profile(model, (2, 10, 16)).layers
    assert rows[1].output_shape == (1, 4, 4, 7)
    assert [row.receptive_field for row in rows] == ["3", "4", "10 x 16"]


def test_converted_models_cost_the_same():
    model = functional()
    stock, ours = kconv.profile(model), kconv.profile(kconv.convert(model))
    assert stock.total.macs == ours.total.macs
    assert stock.total.parameters == ours.total.parameters
    assert [row.receptive_field for row in stock.layers] == [
        row.receptive_field for row in ours.layers
    ]


def test_unbuilt_models_take_other_batches_afterwards():
    model = keras.Sequential([L.Conv2D(4, 3), L.Flatten(), L.Dense(2)])
    kconv.profile(model, (8, 8, 3), batch_size=2)
    assert model.input_shape == (None, 8, 8, 3)
    assert model(np.zeros((5, 8, 8, 3))).shape == (5, 2)


def test_several_inputs():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(3)

        def call(self, first, second):
            return self.dense(first) + second

    profile = kconv.profile(Two(), [(4,), (3,)])
    assert profile.total.macs == 12
    assert profile.input_shapes == {"input_0": (1, 4), "input_1": (1, 3)}
    shapes = {"a": (8, 8, 4), "b": (8, 8, 4)}
    assert (
        kconv.profile(functional(), shapes).total == kconv.profile(functional()).total
    )


def test_dictionaries_of_inputs_in_any_order():
    image, row = keras.Input((8, 8, 3), name="z"), keras.Input((5,), name="a")
    seen = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, name="see")(image))
    model = keras.Model({"z": image, "a": row}, seen + L.Dense(4)(row))
    found = kconv.profile(model)
    (see,) = (one for one in found.layers if one.name == "see")
    (field,) = see.receptive_fields
    assert (field.input, field.size) == ("z", (3, 3))
    assert found.input_shapes == {"z": (1, 8, 8, 3), "a": (1, 5)}
    for shapes in ({"a": (5,), "z": (8, 8, 3)}, [(8, 8, 3), (5,)]):
        assert kconv.profile(model, shapes) == found
    with pytest.raises(ValueError, match="must fit"):
        kconv.profile(model, {"b": (5,), "z": (8, 8, 3)})
    nested = keras.Model({"x": [image], "y": row}, seen + L.Dense(4)(row))
    assert kconv.profile(nested).total.macs == found.total.macs


def test_other_threads_are_left_alone():
    model, found = keras.Sequential([L.Dense(3)]), []

    class Waiting(L.Layer):
        def call(self, x):
            thread = threading.Thread(
                target=lambda: found.append(model(np.ones((2, 2))))
            )
            thread.start()
            thread.join()
            return x * 2

    profile = kconv.profile(keras.Sequential([Waiting()]), (4,))
    assert len(profile.layers) == 1
    assert found[0].shape == (2, 3)


def test_nodes_that_other_threads_make_stay():
    """A model may be called on a `keras.Input` while another thread profiles it."""
    dense = L.Dense(4)
    dense.build((None, 4))
    made = []

    class Waiting(L.Layer):
        def call(self, x):
            image = keras.Input((4,))
            build = lambda: made.append(keras.Model(image, dense(image)))  # noqa: E731
            thread = threading.Thread(target=build)
            thread.start()
            thread.join()
            return x * 2

    model = keras.Sequential([keras.Input((4,)), dense, dense])
    model.add(Waiting())
    made.clear()
    before = len(dense._inbound_nodes)
    kconv.profile(model)
    assert len(made) == 1
    assert len(dense._inbound_nodes) == before + 1
    assert made[0].get_config()["layers"][1]["inbound_nodes"]
    assert keras.models.clone_model(made[0]).output_shape == (None, 4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "is needed.*Received: input_shape=None"),
        ({"input_shape": (8, 8)}, "must fit.*Received: input_shape=\\(8, 8\\)"),
        ({"input_shape": (8, -1, 3)}, "positive.*Received"),
        ({"input_shape": (8, 8, 4)}, "must fit.*Received"),
        ({"input_shape": (2, 2, 3)}, "cannot be called.*Received"),
        ({"input_shape": (8, 8, 3), "batch_size": 0}, "batch_size.*Received"),
        ({"input_shape": (8, 8, 3), "passes": ["back"]}, "passes.*Received"),
        ({"input_shape": (8, 8, 3), "passes": ()}, "passes.*Received: passes=\\(\\)"),
        ({"input_shape": (8, 8, 3), "passes": None}, "passes.*Received: passes=None"),
    ],
)
def test_wrong_arguments(arguments, words):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, L.Conv2D(4, 3)(image))
    with pytest.raises(ValueError, match=f"(?s){words}"):
        kconv.profile(model, **arguments)


def test_what_is_no_model():
    with pytest.raises(ValueError, match="Received: 3"):
        kconv.profile(3)
