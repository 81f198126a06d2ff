"""kconv.ops.deform_conv, by kconv's op and by TensorFlow's, against a slow twin."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from deforming import twin

import kconv
from kconv import deformation

NAN, INF = np.nan, np.inf


@pytest.fixture(params=["kconv", "stock"])
def way(request, monkeypatch):
    """Has kconv's op compute, or TensorFlow's."""
    if request.param == "stock":
        monkeypatch.setattr(deformation, "why_stock", lambda *_: "The test says so.")
    return request.param


def random(*shape, seed=0, scale=1.0):
    generator = np.random.default_rng((seed, *shape))
    return scale * generator.standard_normal(shape)


def case(name, size=(7, 8), kernel=(3, 3), channels=6, filters=4, **options):
    """Operands in float64 and the arguments of a problem, ready for pytest."""
    groups, masked = options.pop("groups", 1), options.pop("masked", True)
    batch, reach = options.pop("batch", 2), options.pop("reach", 2.0)
    x = random(batch, *size, channels)
    weights = random(*kernel, channels // groups, filters)
    shape = kconv.spec.conv_spec(
        x.shape,
        weights.shape,
        **{k: v for k, v in options.items() if k != "offset_groups"},
    ).output_shape(x.shape, weights.shape)
    count = options.get("offset_groups", 1) * kernel[0] * kernel[1]
    operands = [x, weights, random(*shape[:3], 2 * count, scale=reach)]
    if masked:
        operands.append(random(*shape[:3], count))
    return pytest.param(operands, options, id=name)


CASES = [
    case("v1", masked=False),
    case("v2", padding="same"),
    case("strides", strides=(2, 3), padding="same"),
    case("dilation", dilation_rate=(2, 1), padding=((3, 0), (0, 2)), strides=2),
    case("offset_groups", offset_groups=3, padding="same"),
    case("groups", groups=2, padding="same", masked=False),
    case("groups_of_both", groups=2, offset_groups=3, filters=8),
    case("depthwise", groups=6, filters=6, offset_groups=2, padding="same"),
    case("one_tap", kernel=(1, 1), channels=5, filters=3),
    case("uneven", size=(5, 9), kernel=(2, 5), padding=((1, 2), (0, 4))),
    case("one_pixel", size=(1, 1), padding="same", reach=0.7, batch=3),
    case("far", padding="same", reach=30.0),
]


def expected(operands, options):
    """What the twin says."""
    x, kernel, offsets, *mask = operands
    spec = kconv.spec.conv_spec(
        tuple(x.shape),
        tuple(kernel.shape),
        **{k: v for k, v in options.items() if k != "offset_groups"},
    )
    return twin(
        *(tf.convert_to_tensor(one) for one in (x, kernel, offsets)),
        tf.convert_to_tensor(mask[0]) if mask else None,
        strides=spec.strides,
        pads=spec.pads(spec.size(x.shape), kernel.shape[:2]),
        dilation_rate=spec.dilation_rate,
        offset_groups=options.get("offset_groups", 1),
    )


def with_gradients(function, operands):
    operands = [tf.convert_to_tensor(one) for one in operands]
    with tf.GradientTape() as tape:
        tape.watch(operands)
        y = function(*operands)
    upstream = tf.constant(random(*y.shape, seed=9), y.dtype)
    return [y, *tape.gradient(y, operands, upstream)]


def deform(**options):
    """`deform_conv` as a function of the operands alone."""

    def function(x, kernel, offsets, mask=None):
        return kconv.ops.deform_conv(x, kernel, offsets, mask, **options)

    return function


@pytest.mark.parametrize(("operands", "options"), CASES)
def test_values_and_gradients_are_those_of_the_twin(way, operands, options):
    found = with_gradients(deform(**options), operands)
    wanted = with_gradients(lambda *ops: expected(ops, options), operands)
    for value, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(value, other, atol=1e-12 * np.abs(other).max())


@pytest.mark.parametrize(
    ("dtype", "unit"), [("float32", 2e-6), ("float16", 2e-3), ("bfloat16", 1.6e-2)]
)
def test_dtypes(way, dtype, unit):
    (operands, options), *_ = (
        one.values for one in CASES if one.id == "groups_of_both"
    )
    rounded = [tf.cast(one, dtype) for one in operands]
    found = with_gradients(deform(**options), rounded)
    exact = [tf.cast(one, "float64") for one in rounded]
    wanted = with_gradients(lambda *ops: expected(ops, options), exact)
    for value, other in zip(found, wanted, strict=True):
        assert value.dtype == dtype
        error = np.abs(tf.cast(value, "float64") - other).max()
        assert error <= unit * np.abs(other).max()


@pytest.mark.parametrize("options", [{}, {"strides": 2, "padding": "same"}], ids=str)
def test_without_offsets_it_is_the_plain_convolution(way, options):
    x, kernel = random(2, 9, 8, 6), random(3, 3, 3, 4)
    y = kconv.ops.conv(x, kernel, **options)
    zeros, ones = (
        n * np.ones((*y.shape[:3], c)) for n, c in ((0.0, 2 * 2 * 9), (1.0, 2 * 9))
    )
    z = kconv.ops.deform_conv(x, kernel, zeros, ones, offset_groups=2, **options)
    np.testing.assert_allclose(z, y, atol=1e-13 * np.abs(y).max())


def test_gradients_of_all_operands_by_differences(way):
    (operands, options), *_ = (one.values for one in CASES if one.id == "v2")
    # Away from whole numbers, where the slope steps.
    operands[2] = np.round(operands[2]) + 0.1 + 0.8 * np.abs(np.sin(operands[2]))
    operands = [*operands, random(4)]

    def value(*operands):
        *others, bias = operands
        y = kconv.ops.deform_conv(*others, bias=bias, activation="relu", **options)
        return tf.reduce_sum(tf.sin(y))

    tensors = [tf.constant(one) for one in operands]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = value(*tensors)
    for i, slope in enumerate(tape.gradient(total, tensors)):
        direction = random(*slope.shape, seed=7)
        ends = [
            value(*operands[:i], operands[i] + h * direction, *operands[i + 1 :])
            for h in (1e-6, -1e-6)
        ]
        found = np.sum(slope * direction)
        np.testing.assert_allclose(found, (ends[0] - ends[1]) / 2e-6, rtol=1e-5)


def test_channels_first(way):
    (operands, options), *_ = (one.values for one in CASES if one.id == "strides")
    wanted = with_gradients(deform(**options, data_format="channels_last"), operands)
    x, kernel, offsets, mask = operands
    moved = [np.moveaxis(x, -1, 1), kernel]
    moved += [np.moveaxis(one, -1, 1) for one in (offsets, mask)]
    first = deform(**options, data_format="channels_first")
    y = first(*moved)
    np.testing.assert_allclose(np.moveaxis(y, 1, -1), wanted[0], rtol=1e-12)
    with tf.GradientTape() as tape:
        tensors = [tf.constant(one) for one in moved]
        tape.watch(tensors)
        y = first(*tensors)
    upstream = np.moveaxis(random(*wanted[0].shape, seed=9), -1, 1)
    for i, slope in enumerate(tape.gradient(y, tensors, tf.constant(upstream))):
        slope = slope if i == 1 else np.moveaxis(slope, 1, -1)
        np.testing.assert_allclose(slope, wanted[1 + i], atol=1e-11)


def test_bias_and_activation(way):
    (operands, options), *_ = (one.values for one in CASES if one.id == "v2")
    bias = random(4)
    y = kconv.ops.deform_conv(*operands, bias=bias, activation="relu6", **options)
    plain = expected(operands, options) + bias
    assert plain.numpy().min() < 0 < 6 < plain.numpy().max()
    np.testing.assert_allclose(y, np.clip(plain, 0, 6), atol=1e-12)


def test_in_xla():
    # To compile all taps of a large kernel takes long.
    operands, options = case("", kernel=(1, 2), offset_groups=3, groups=2).values
    function = deform(**options)
    compiled = tf.function(lambda *o: with_gradients(function, o), jit_compile=True)
    wanted = with_gradients(lambda *ops: expected(ops, options), operands)
    found = compiled(*(tf.constant(one) for one in operands))
    for value, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(value, other, atol=1e-12 * np.abs(other).max())


@pytest.mark.parametrize("padding", ["valid", "same", ((2, 1), (0, 3))])
def test_unknown_sizes(way, padding):
    options = {"padding": padding, "strides": 2, "offset_groups": 3}
    operands, options = case("", kernel=(2, 1), masked=False, **options).values
    kernel = operands[1]
    shapes = [(None, None, None, 6), (None, None, None, 12)]
    signature = [tf.TensorSpec(shape, "float64") for shape in shapes]
    function = tf.function(
        lambda x, offsets: kconv.ops.deform_conv(x, kernel, offsets, **options),
        input_signature=signature,
    )
    concrete = function.get_concrete_function()
    assert concrete.outputs[0].shape.as_list() == [None, None, None, 4]
    y = function(operands[0], operands[2])
    np.testing.assert_allclose(y, expected(operands, options), atol=1e-12)


# The centre of a 3x3 image of ones, by a kernel of one tap of 1.
def read(offset, x=None, mask=None):
    x = np.ones((1, 3, 3, 1)) if x is None else x
    offsets = np.zeros((1, 3, 3, 2))
    offsets[0, 1, 1] = offset
    masks = np.ones((1, 3, 3, 1))
    masks[0, 1, 1] = 1 if mask is None else mask
    kernel = np.ones((1, 1, 1, 1))
    y, by_x, by_kernel, by_offsets, by_mask = with_gradients(
        deform(), [x, kernel, offsets, masks]
    )
    others = np.delete(np.ravel(y), 4)
    expected = np.delete(np.ravel(x), 4)
    np.testing.assert_array_equal(others, expected)
    assert np.isfinite(by_x).all()
    return (
        np.ravel(y)[4],
        np.squeeze(by_x),
        np.ravel(by_kernel)[0],
        by_offsets[0, 1, 1].numpy(),
        np.ravel(by_mask)[4],
    )


FAR = [(INF, 0), (0, -INF), (-INF, INF), (1e300, 0), (0, -1e30), (2, 0), (0, -2)]


@pytest.mark.parametrize("offset", FAR, ids=str)
def test_far_and_infinite_places_read_zero(way, offset):
    y, by_x, by_kernel, by_offset, by_mask = read(offset)
    assert y == by_x[1, 1] == by_mask == 0
    np.testing.assert_array_equal(by_offset, 0)
    assert np.isfinite(by_kernel)


@pytest.mark.parametrize("offset", [(NAN, 0), (0, NAN), (NAN, NAN)], ids=str)
def test_places_that_are_nan(way, offset):
    y, by_x, by_kernel, by_offset, by_mask = read(offset)
    assert np.isnan([y, by_kernel, by_mask, *by_offset]).all()
    assert by_x[1, 1] == 0


def test_a_place_near_the_border_reads_a_part(way):
    y, by_x, _, by_offset, by_mask = read((1.25, -0.5))
    upstream = random(1, 3, 3, 1, seed=9)[0, ..., 0]
    assert y == 0.75
    np.testing.assert_allclose(by_mask, 0.75 * upstream[1, 1])
    np.testing.assert_allclose(by_x[2, :2], upstream[2, :2] + 0.375 * upstream[1, 1])
    np.testing.assert_allclose(by_offset, [-upstream[1, 1], 0], atol=1e-15)


@pytest.mark.parametrize("value", [NAN, INF], ids=str)
def test_what_spoils_an_input_spoils_what_reads_it(way, value):
    x, kernel = random(1, 6, 6, 4), random(3, 3, 4, 2)
    offsets, mask = np.zeros((1, 6, 6, 18)), np.ones((1, 6, 6, 9))
    options = {"padding": "same"}
    x[0, 2, 3, 1] = value
    plain = kconv.ops.conv(x, kernel, **options, algorithm="direct").numpy()
    y = kconv.ops.deform_conv(x, kernel, offsets, mask, **options).numpy()
    np.testing.assert_array_equal(np.isfinite(y), np.isfinite(plain))
    assert not np.isfinite(y).all()
    # Half a pixel lower more of it is read.
    offsets[..., ::2] = 0.5
    y = kconv.ops.deform_conv(x, kernel, offsets, mask, **options).numpy()
    assert np.isfinite(y).all(-1).sum() == 36 - 4 * 3


def test_slope_at_whole_numbers_is_that_of_the_cell_after(way):
    x = np.zeros((1, 3, 3, 1))
    x[0, :, :, 0] = [[0, 0, 0], [10, 1, 3], [0, 8, 0]]
    _, _, _, by_offset, _ = read((0, 0), x)
    upstream = random(1, 3, 3, 1, seed=9)[0, 1, 1, 0]
    np.testing.assert_allclose(by_offset, [7 * upstream, 2 * upstream])


@pytest.mark.parametrize("empty", ["batch", "outputs", "image"])
def test_empty(way, empty):
    shapes = {
        "batch": ((0, 5, 5, 4), (0, 3, 3), "valid"),
        "outputs": ((2, 0, 5, 4), (2, 0, 5), "same"),
        "image": ((2, 0, 3, 4), (2, 2, 3), ((2, 2), (1, 1))),
    }
    shape, grid, padding = shapes[empty]
    operands = [np.zeros(shape), random(3, 3, 4, 2), random(*grid, 18)]
    y, *slopes = with_gradients(deform(padding=padding), operands)
    assert y.shape == (*grid, 2)
    np.testing.assert_array_equal(y, 0)
    for slope, operand in zip(slopes, operands, strict=True):
        np.testing.assert_array_equal(slope, np.zeros(operand.shape))


def test_second_derivatives(way):
    (operands, options), *_ = (one.values for one in CASES if one.id == "one_tap")
    operands = [tf.constant(one) for one in operands]

    def second(function):
        with tf.GradientTape() as outer:
            outer.watch(operands)
            with tf.GradientTape() as inner:
                inner.watch(operands)
                y = tf.reduce_sum(function(*operands) ** 2)
            slopes = inner.gradient(y, operands)
            total = tf.add_n([tf.reduce_sum(tf.sin(slope)) for slope in slopes])
        return outer.gradient(total, operands)

    if way == "kconv":
        with pytest.raises(NotImplementedError, match=r"^Second-order .* deformable"):
            second(deform(**options))
        return
    wanted = second(lambda *ops: expected(ops, options))
    for value, other in zip(second(deform(**options)), wanted, strict=True):
        np.testing.assert_allclose(value, other, atol=1e-11 * np.abs(other).max())


def test_forward_mode(way):
    (operands, options), *_ = (one.values for one in CASES if one.id == "one_tap")
    operands = [tf.constant(one) for one in operands]
    direction = tf.constant(random(*operands[2].shape, seed=3))

    def push(function):
        with tf.autodiff.ForwardAccumulator(operands[2], direction) as accumulator:
            y = function(*operands)
        return accumulator.jvp(y)

    if way == "kconv":
        with pytest.raises(NotImplementedError, match=r"^Second-order .* deformable"):
            push(deform(**options))
        return
    wanted = push(lambda *ops: expected(ops, options))
    np.testing.assert_allclose(push(deform(**options)), wanted, atol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
def test_in_a_functional_model(masked, tmp_path):
    (operands, options), *_ = (one.values for one in CASES if one.id == "v2")
    operands = [one.astype("float32") for one in operands]
    x, kernel, offsets, mask = operands
    given = [x, offsets, mask] if masked else [x, offsets]
    inputs = [keras.Input(one.shape[1:]) for one in given]
    y = kconv.ops.deform_conv(
        inputs[0],
        kernel,
        *inputs[1:],
        bias=np.ones(4, "float32"),
        activation="relu",
        **options,
    )
    assert y.shape == (None, 7, 8, 4)
    keras.Model(inputs, y).save(tmp_path / "model.keras")
    model = keras.saving.load_model(tmp_path / "model.keras")
    node = next(o for o in model.operations if isinstance(o, kconv.ops.DeformConv))
    assert node.get_config()["padding"] == "same"
    wanted = np.maximum(
        1 + expected([x, kernel, offsets, *([mask] if masked else [])], options), 0
    )
    np.testing.assert_allclose(model(given), wanted, atol=2e-5)
    _, report = kconv.revert(model, return_report=True)
    reasons = [row.reason for row in report]
    assert reasons == ["Keras cannot run DeformConv in a graph."]


def test_in_keras_fit_and_graphs():
    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.kernel = self.add_weight(shape=(3, 3, 3, 2))
            self.moves = self.add_weight(shape=(6, 6, 18), initializer="zeros")

        def call(self, x):
            shape = (tf.shape(x)[0], 6, 6, 18)
            offsets = tf.broadcast_to(self.moves.value, shape)
            return kconv.ops.deform_conv(x, self.kernel, offsets)

    model = Model()
    model.compile("sgd", "mse")
    x = random(8, 8, 8, 3).astype("float32")
    y = random(8, 6, 6, 2).astype("float32")
    losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert np.abs(model.moves).max() > 0


WRONG = [
    ({"x": (5, 5, 4)}, r"rank 4.*Received: inputs\.shape=\(5, 5, 4\)"),
    ({"kernel": (3, 4, 2)}, r"rank 4.*kernel\.shape=\(3, 4, 2\)"),
    ({"x": (2, 5, 5, 5)}, r"multiple of the channels.*inputs\.shape="),
    ({"kernel": (3, 3, 0, 2)}, "must not be empty"),
    ({"kernel": (6, 3, 4, 2)}, "larger than the padded input"),
    ({"offsets": (2, 3, 3, 9)}, r"`offsets` .*18 channels.*\(2, 3, 3, 9\)"),
    ({"offsets": (2, 3, 4, 18)}, r"\(2, 3, 3, 18\). Received: offsets\.shape="),
    ({"offsets": (1, 3, 3, 18)}, r"Received: offsets\.shape=\(1, 3, 3, 18\)"),
    ({"offsets": (3, 3, 18)}, r"Received: offsets\.shape=\(3, 3, 18\)"),
    ({"mask": (2, 3, 3, 18)}, r"`mask` .*9 channels.*Received: mask\.shape="),
    ({"mask": (2, 9)}, r"Received: mask\.shape=\(2, 9\)"),
    ({"offset_groups": 3}, r"divides the channels.*Received: offset_groups=3"),
    ({"offset_groups": 0}, "Received: offset_groups=0"),
    ({"offset_groups": True}, "Received: offset_groups=True"),
    ({"offset_groups": 2}, "`offsets` .*36 channels"),
    ({"padding": "causal"}, "`padding` must be 'valid' or 'same'"),
    ({"padding": ((1, 1),)}, "Received: padding="),
    ({"strides": 0}, "Received: strides=0"),
    ({"dilation_rate": (1, 2, 3)}, "Received: dilation_rate="),
    ({"data_format": "NHWC"}, "Received: data_format='NHWC'"),
    ({"activation": "tanh"}, "Received: activation='tanh'"),
    ({"bias": np.zeros(3, "float32")}, "`bias` must have one value for each filter"),
]


@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize(("changed", "sentence"), WRONG, ids=str)
def test_wrong_arguments(changed, sentence, symbolic):
    shapes = {"x": (2, 5, 5, 4), "kernel": (3, 3, 4, 2), "offsets": (2, 3, 3, 18)}
    shapes |= {"mask": (2, 3, 3, 9)}
    options = {k: v for k, v in changed.items() if k not in shapes}
    shapes |= {k: v for k, v in changed.items() if k in shapes}
    make = keras.KerasTensor if symbolic else np.zeros
    x, *others = (make(shape, dtype="float32") for shape in shapes.values())
    with pytest.raises(ValueError, match=f"(?s){sentence}"):
        kconv.ops.deform_conv(x, *others, **options)


@pytest.mark.parametrize(
    ("dtypes", "sentence"),
    [
        (("int32",) * 3, "must have a floating dtype. Received: inputs.dtype=int32"),
        (("float32", "float64", "float32"), "kernel.dtype=float64"),
        (("float32", "float32", "float16"), "offsets.dtype=float16"),
    ],
    ids=str,
)
def test_wrong_dtypes(dtypes, sentence):
    shapes = (2, 5, 5, 4), (3, 3, 4, 2), (2, 3, 3, 18)
    operands = [np.zeros(*pair) for pair in zip(shapes, dtypes, strict=True)]
    with pytest.raises(ValueError, match=sentence):
        kconv.ops.deform_conv(*operands)
    mask = np.zeros((2, 3, 3, 9), "float64")
    operands = [one.astype("float32") for one in operands]
    with pytest.raises(ValueError, match=r"mask\.dtype=float64"):
        kconv.ops.deform_conv(*operands, mask)
