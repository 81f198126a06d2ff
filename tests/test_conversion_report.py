"""What kconv.convert and kconv.revert tell of what they did."""

import keras
import numpy as np
import pytest
from keras import layers

import kconv
from kconv.conversion import counterparts

SUBCLASS = "A subclass of {}: what it changes is not known."


class Mine(layers.Conv2D):
    pass


class Ours(kconv.layers.Conv2D):
    pass


class Lstm(layers.ConvLSTM1D):
    pass


def rows(report):
    return {row.path: tuple(row)[1:] for row in report}


def model_of_all_kinds():
    inputs = keras.Input((4, 9, 9, 2))
    x = layers.TimeDistributed(layers.Conv2D(2, 3, name="plain"), name="times")(inputs)
    x = layers.ConvLSTM2D(3, 3, name="lstm")(x)
    inside = keras.Sequential([Mine(3, 1, name="mine")], name="in")
    x = layers.BatchNormalization()(inside(x))
    x = layers.DepthwiseConv2D(2, name="depthwise")(inside(x))
    x = Ours(3, 1, name="ours")(kconv.layers.Conv2D(3, 1, name="kconv")(x))
    x = keras.ops.conv(x, np.ones((1, 1, 3, 3), "float32"))
    x = kconv.ops.conv(x, np.ones((1, 1, 3, 3), "float32"))
    x = layers.Dense(2)(keras.ops.relu(x))
    return keras.Model(inputs, Lstm(2, 3, name="other")(x), name="model")


def test_convert():
    model = model_of_all_kinds()
    converted, report = kconv.convert(model, return_report=True)
    assert isinstance(report, kconv.conversion.Report)
    here, stock, ours = __name__, "keras.layers", "kconv.layers"
    none = "kconv has no counterpart of {}."
    nodes = [op.name for op in model.operations if type(op).__name__ == "Conv"]
    assert rows(report) == {
        "times/plain": (f"{stock}.Conv2D", f"{ours}.Conv2D", None),
        "lstm": (f"{stock}.ConvLSTM2D", None, none.format("ConvLSTM2D")),
        "lstm/" + model.get_layer("lstm").cell.name: (
            *(f"{stock}.ConvLSTMCell", None, none.format("ConvLSTMCell")),
        ),
        "in/mine": (f"{here}.Mine", None, SUBCLASS.format(f"{stock}.Conv2D")),
        "depthwise": (f"{stock}.DepthwiseConv2D", f"{ours}.DepthwiseConv2D", None),
        "kconv": (f"{ours}.Conv2D", None, "Already a kconv layer."),
        "ours": (f"{here}.Ours", None, SUBCLASS.format(f"{ours}.Conv2D")),
        nodes[0]: (
            *("keras.ops.Conv", None),
            "An operation of the graph: only layers are swapped.",
        ),
        nodes[1]: ("kconv.ops.Conv", None, "Already an operation of kconv."),
        "other": (f"{here}.Lstm", None, none.format("ConvLSTM1D")),
        "other/" + model.get_layer("other").cell.name: (
            *(f"{stock}.ConvLSTMCell", None, none.format("ConvLSTMCell")),
        ),
    }
    assert [row.path for row in report.swapped] == ["times/plain", "depthwise"]
    assert {*report.swapped, *report.left} == set(report)
    # In place it is the same.
    assert kconv.convert(model, in_place=True, return_report=True) == (model, report)
    assert type(converted.get_layer("ours")) is Ours
    _, again = kconv.convert(model, algorithm="gemm", return_report=True)
    assert rows(again)["times/plain"] == (
        *(f"{ours}.Conv2D", None),
        "Already a kconv layer: only its algorithm is now 'gemm'.",
    )


def test_revert():
    inputs = keras.Input((4, 8, 8, 8))
    x = kconv.layers.DepthwiseConv3D(1, name="deep")(inputs)
    x = layers.Reshape((8, 8, 32))(layers.Conv3D(8, 1, name="stock")(x))
    x = Ours(4, 1, name="ours")(x)
    x = kconv.layers.DepthwiseConv2D(1, strides=(1, 2), name="unequal")(x)
    x = kconv.layers.SeparableConv2D(4, 1, strides=2, name="equal")(x)
    kernel = np.ones((2, 2, 4, 4), "float32")
    x = kconv.ops.conv(x, kernel, padding=((1, 0), (1, 0)))
    x = kconv.ops.conv(x, kernel[:, :, :2])
    x = kconv.ops.conv(x, kernel, padding="same")
    model = keras.Model(inputs, x)
    nodes = [op.name for op in model.operations[-3:]]
    reverted, report = kconv.revert(model, return_report=True)
    ours = "kconv.layers"
    assert rows(report) == {
        "deep": (f"{ours}.DepthwiseConv3D", None, "Keras has no DepthwiseConv3D."),
        "stock": ("keras.layers.Conv3D", None, "Not a layer of kconv."),
        "ours": (f"{__name__}.Ours", None, SUBCLASS.format(f"{ours}.Conv2D")),
        "unequal": (
            *(f"{ours}.DepthwiseConv2D", None),
            "Keras's DepthwiseConv2D does not take unequal strides.",
        ),
        "equal": (f"{ours}.SeparableConv2D", "keras.layers.SeparableConv2D", None),
        nodes[0]: (
            *("kconv.ops.Conv", None),
            "Keras's conv does not take padding=((1, 0), (1, 0)).",
        ),
        nodes[1]: (
            *("kconv.ops.Conv", None),
            "Keras's conv does not take groups in a graph.",
        ),
        nodes[2]: ("kconv.ops.Conv", "keras.ops.Conv", None),
    }
    swapped = [type(reverted.get_layer(name)) for name in ("unequal", "equal")]
    assert swapped == [kconv.layers.DepthwiseConv2D, layers.SeparableConv2D]


class More(kconv.layers.Conv2D):
    """Takes what Keras's layer does not."""

    def __init__(self, *args, edge="zeros", padding="valid", strides=1, **kwargs):
        dilation = kwargs.pop("dilation_rate", 1)
        super().__init__(*args, **kwargs)
        self.edge, self.padding = edge, padding
        self.strides, self.dilation_rate = (strides,) * 2, (dilation,) * 2

    def get_config(self):
        return {**super().get_config(), "edge": self.edge}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"edge": "circular"}, "does not take edge='circular'."),
        ({"padding": ((1, 1), (0, 2))}, "does not take padding=((1, 1), (0, 2))."),
        (
            {"strides": 2, "dilation_rate": 3},
            "does not take strides=(2, 2) with dilation_rate=(3, 3).",
        ),
        ({"padding": "causal"}, "does not take these arguments: The `padding` argu"),
        ({}, None),
    ],
)
def test_arguments_that_keras_does_not_take(monkeypatch, arguments, reason):
    monkeypatch.setitem(counterparts.STOCK, More, layers.Conv2D)
    layer = More(4, 3, **arguments)
    model = keras.Sequential([layer])
    (row,) = kconv.revert(model, in_place=True, return_report=True)[1]
    if reason:
        assert row.reason.startswith(f"Keras's Conv2D {reason}")
        assert type(layer) is More
    else:
        assert row.became == "keras.layers.Conv2D"
        assert type(layer) is layers.Conv2D
        assert not hasattr(layer, "edge")


def test_table():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="a_long_name")(inputs)
    model = keras.Model(inputs, Mine(4, 3, name="mine")(x))
    table = str(kconv.convert(model, return_report=True)[1])
    was = f"{__name__}.Mine"  # the longest
    assert table.splitlines() == [
        f"path         {'was':{len(was)}}  became               why it was left",
        f"a_long_name  {'keras.layers.Conv2D':{len(was)}}  kconv.layers.Conv2D",
        f"mine         {was}  {'-':19}  {SUBCLASS.format('keras.layers.Conv2D')}",
        "1 swapped, 1 left.",
    ]
    empty = kconv.convert(keras.Sequential([layers.Dense(2)]), return_report=True)[1]
    assert str(empty).splitlines()[-1] == "0 swapped, 0 left."
