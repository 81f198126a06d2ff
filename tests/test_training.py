"""Training, by each way that Keras and TensorFlow know, against stock layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kconv

EPOCHS, BATCH = 2, 4
RNG = np.random.default_rng(0)
X = RNG.standard_normal((8, 10, 10, 4)).astype("float32")
Y = RNG.standard_normal((8, 3)).astype("float32")


class OwnStep(keras.Model):
    """A Functional model that trains by a step of its own."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {"loss": loss}


def make_model(layers=kconv.layers, model_class=keras.Model, dtype=None, **options):
    """A compiled model of small layers; the same weights every time."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input(X.shape[1:])
    x = layers.Conv2D(8, 3, activation="relu", dtype=dtype)(x)
    x = layers.DepthwiseConv2D(3, padding="same", dtype=dtype)(x)
    x = layers.SeparableConv2D(6, 3, activation="relu", dtype=dtype)(x)
    x = keras.layers.GlobalAveragePooling2D(dtype=dtype)(x)
    model = model_class(inputs, keras.layers.Dense(3, dtype=dtype)(x))
    optimizer = options.pop("optimizer", None) or keras.optimizers.Adam(0.01)
    model.compile(optimizer, "mse", **options)
    return model


def fit(model, x=X, y=Y, **options):
    options = {"epochs": EPOCHS, "batch_size": BATCH, "shuffle": False, **options}
    return model.fit(x, y, verbose=0, **options).history["loss"]


def batches():
    return [(X[i : i + BATCH], Y[i : i + BATCH]) for i in range(0, len(X), BATCH)]


def assert_same_weights(model, expected, rtol=1e-4, atol=1e-5):
    for found, weights in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, weights, rtol=rtol, atol=atol)


@pytest.fixture(scope="module")
def stock():
    """A model with stock layers that was trained, and its losses."""
    model = make_model(keras.layers)
    losses = fit(model)
    assert losses[-1] < losses[0]
    return model, losses


@pytest.mark.filterwarnings("ignore:Model doesn't support `jit_compile=True`")
@pytest.mark.parametrize("jit_compile", ("auto", True, False))
def test_fit_evaluate_predict(jit_compile, stock):
    expected, losses = stock
    model = make_model(jit_compile=jit_compile)
    np.testing.assert_allclose(fit(model), losses, rtol=1e-5)
    assert not model.jit_compile
    assert_same_weights(model, expected.get_weights())
    np.testing.assert_allclose(
        model.evaluate(X, Y, batch_size=3, verbose=0),
        expected.evaluate(X, Y, batch_size=3, verbose=0),
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        model.predict(X, batch_size=3, verbose=0),
        expected.predict(X, batch_size=3, verbose=0),
        atol=1e-4,
    )


# Ways to train. Each takes the same steps as `fit` of the stock model.


def by_batches(model):
    for _ in range(EPOCHS):
        for x, y in batches():
            model.train_on_batch(x, y)


def by_tape(model):
    loss_of, optimizer = keras.losses.MeanSquaredError(), keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )

    for _ in range(EPOCHS):
        for x, y in batches():
            step(tf.constant(x), tf.constant(y))


WAYS = {
    "own_step": (fit, {"model_class": OwnStep}),
    "eagerly": (fit, {"run_eagerly": True}),
    "steps_per_execution": (fit, {"steps_per_execution": 3}),
    "train_on_batch": (by_batches, {}),
    "tape": (by_tape, {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_train(way, stock):
    train, options = WAYS[way]
    model = make_model(**options)
    train(model)
    assert_same_weights(model, stock[0].get_weights())


# Data.


@pytest.mark.parametrize("drop_remainder", (False, True))
def test_convolution_inside_a_dataset(drop_remainder):
    kernel = RNG.standard_normal((3, 3, 4, 4)).astype("float32")

    def blurred(convolve):
        """A pipeline that convolves each image, in several threads."""
        dataset = tf.data.Dataset.from_tensor_slices((X[:7], Y[:7])).map(
            lambda x, y: (convolve(x[None])[0], y), num_parallel_calls=2
        )
        dataset = dataset.batch(BATCH, drop_remainder=drop_remainder)
        return dataset.prefetch(tf.data.AUTOTUNE)

    ours = blurred(lambda x: kconv.ops.conv(x, kernel, padding="same"))
    stock = blurred(lambda x: tf.nn.conv2d(x, kernel, 1, "SAME"))
    sizes = [len(y) for _, y in ours]
    assert sizes == ([4] if drop_remainder else [4, 3])
    losses = [
        fit(make_model(layers, run_eagerly=True), dataset, None, batch_size=None)
        for layers, dataset in ((kconv.layers, ours), (keras.layers, stock))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)


# Callbacks and checkpoints.


class StopAfter(keras.callbacks.Callback):
    """Ends the training as a crash would."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def resume_by_backup(folder):
    backup = keras.callbacks.BackupAndRestore(folder / "backup")
    with pytest.raises(KeyboardInterrupt):
        fit(make_model(), callbacks=[backup, StopAfter(1)])
    model = make_model()
    fit(model, callbacks=[backup])
    return model


def resume_by_model(folder):
    path = folder / "{epoch}.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path)
    fit(make_model(), epochs=1, callbacks=[checkpoint])
    model = keras.saving.load_model(folder / "1.keras")
    fit(model, initial_epoch=1)
    return model


def resume_by_weights(folder):
    path = folder / "{epoch}.weights.h5"
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
    fit(make_model(run_eagerly=True), epochs=1, callbacks=[checkpoint])
    model = make_model(run_eagerly=True)
    # The file has the optimizer's state as well, for an optimizer that is built.
    model.optimizer.build(model.trainable_variables)
    model.load_weights(folder / "1.weights.h5")
    fit(model, initial_epoch=1)
    return model


def resume_by_tensorflow(folder):
    first = make_model(run_eagerly=True)
    fit(first, epochs=1)
    checkpoint = tf.train.Checkpoint(model=first, optimizer=first.optimizer)
    path = checkpoint.save(str(folder / "checkpoint"))
    model = make_model(run_eagerly=True)
    model.optimizer.build(model.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    checkpoint.restore(path).assert_consumed()
    fit(model, initial_epoch=1)
    return model


@pytest.mark.parametrize(
    "resume",
    (resume_by_backup, resume_by_model, resume_by_weights, resume_by_tensorflow),
    ids=lambda function: function.__name__,
)
def test_resumed_training_is_as_if_never_interrupted(resume, tmp_path, stock):
    model = resume(tmp_path)
    assert model.optimizer.iterations == EPOCHS * len(X) // BATCH
    assert {type(layer) for layer in model.layers} >= {
        kconv.layers.Conv2D,
        kconv.layers.DepthwiseConv2D,
        kconv.layers.SeparableConv2D,
    }
    assert_same_weights(model, stock[0].get_weights())


def test_early_stopping_brings_the_best_weights_back():
    sgd = keras.optimizers.SGD(0.1)
    model, seen = make_model(optimizer=sgd, run_eagerly=True), []

    def spoil(epoch, logs):
        seen.append(model.get_weights())
        if epoch == 1:  # so that no later epoch is better
            model.set_weights([w + 100 for w in model.get_weights()])

    stopping = keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True)
    own = keras.callbacks.LambdaCallback(on_epoch_end=spoil)
    fit(model, epochs=9, validation_data=(X, Y), callbacks=[stopping, own])
    assert len(seen) == 3
    assert_same_weights(model, seen[1], rtol=0, atol=0)


# Gradients of several batches.


def test_gradient_accumulation():
    sgd = keras.optimizers.SGD
    large = make_model(optimizer=sgd(0.1), run_eagerly=True)
    fit(large, batch_size=8)

    model = make_model(optimizer=sgd(0.1, gradient_accumulation_steps=2))
    fit(model)
    assert_same_weights(model, large.get_weights())

    by_hand = make_model(optimizer=sgd(0.1))
    for _ in range(EPOCHS):
        total = [0.0] * len(by_hand.trainable_variables)
        for x, y in batches():
            with tf.GradientTape() as tape:
                loss = by_hand.compute_loss(y=y, y_pred=by_hand(x)) / 2
            gradients = tape.gradient(loss, by_hand.trainable_variables)
            total = [a + b for a, b in zip(total, gradients, strict=True)]
        by_hand.optimizer.apply(total, by_hand.trainable_variables)
    assert_same_weights(by_hand, large.get_weights())


# Dtypes.


@pytest.mark.parametrize(
    ("policy", "tolerance"),
    (("mixed_float16", 5e-3), ("mixed_bfloat16", 2e-2), ("float64", 1e-9)),
)
def test_dtype_policies(policy, tolerance):
    losses = []
    for layers in (kconv.layers, keras.layers):
        model = make_model(layers, dtype=policy, run_eagerly=True)
        losses.append(fit(model))
        assert {v.dtype for v in model.weights} == {
            keras.DTypePolicy(policy).variable_dtype
        }
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(*losses, rtol=tolerance)


def test_loss_scale_shrinks_until_float16_can_hold_the_gradients():
    adam = keras.optimizers.Adam(0.01)
    optimizer = keras.optimizers.LossScaleOptimizer(adam, initial_scale=2.0**40)
    model = make_model(dtype="mixed_float16", optimizer=optimizer)
    before = model.get_weights()
    fit(model, epochs=1)
    assert_same_weights(model, before, rtol=0, atol=0)  # overflow: no step is taken
    scale = float(optimizer.dynamic_scale)
    assert scale < 2.0**40
    losses = fit(model, epochs=15)
    assert float(optimizer.dynamic_scale) < scale
    assert losses[-1] < losses[0]
    assert np.all(np.isfinite(model.predict(X, verbose=0)))
