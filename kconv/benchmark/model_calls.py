"""Models of TensorFlow that are timed: how they are made, and how they are called."""

import keras
import numpy as np
import tensorflow as tf

from kconv import conversion, inference, models
from kconv.benchmark.candidates import EAGER, FROZEN, GRAPH, XLA
from kconv.benchmark.subjects import PREDICT
from kconv.profiler import inputs

# kconv's own: a graph of a model whose filters `kconv.prepare` has prepared.
PREPARED = "prepared"

# So small that no number of steps on random images leads to infinities.
_LEARNING_RATE, _MOMENTUM = 1e-4, 0.9


def make(subject):
    """Builds a model twice, of stock layers and of kconv's, with the same weights.

    Args:
        subject: A `Subject`.

    Returns:
        A tuple: both models.

    Raises:
        ValueError: If there is no such model, or it cannot be built so.
    """
    keras.utils.set_random_seed(0)
    if subject.is_file:
        model = keras.saving.load_model(subject.model, compile=False)
        if subject.dtype:
            model = _with_policy(model, subject.dtype)
        return conversion.revert(model), conversion.convert(model)
    before = keras.config.dtype_policy(), keras.config.image_data_format()
    keras.config.set_dtype_policy(subject.dtype or "float32")
    keras.config.set_image_data_format(subject.layout)
    try:
        options = {}
        if subject.size:
            options["input_shape"] = _image_shape(subject)
        stock = models.build(subject.model, layers=keras.layers, **options)
        own = models.build(subject.model, **options)
    finally:
        keras.config.set_dtype_policy(before[0])
        keras.config.set_image_data_format(before[1])
    own.set_weights(stock.get_weights())
    return stock, own


def shapes_of(model, subject):
    """The structure of the shapes of a model's inputs, without the batch.

    Raises:
        ValueError: If the model does not know them and `subject` has no size.
    """
    try:
        return inputs.shapes_of(model, None)
    except ValueError:
        if not subject.size:
            raise ValueError(
                "--size is needed, for the model does not know its sizes. Received: "
                f"{subject.model}"
            ) from None
        return inputs.shapes_of(model, _image_shape(subject))


def arguments(model, subject):
    """Random inputs for a model.

    Args:
        model: A Keras model.
        subject: A `Subject`.

    Returns:
        A list of what it takes by position: structures of tensors.

    Raises:
        ValueError: As `shapes_of`.
    """
    generator = np.random.default_rng(0)

    def random(tensor):
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if "float" not in dtype:
            return tf.zeros(tensor.shape, dtype)
        return tf.cast(generator.standard_normal(tensor.shape, "float32"), dtype)

    shapes = shapes_of(model, subject)
    symbolic = inputs.tensors(model, shapes, subject.batch, None)
    return keras.tree.map_structure(random, symbolic)


def call(model, subject, mode):
    """A function without arguments that predicts, or makes a step of training.

    Args:
        model: A Keras model.
        subject: A `Subject`.
        mode: "eager"; "graph", a `tf.function`; "frozen", one whose weights are
            constants; "xla", one that XLA compiles; or `PREPARED`.

    Returns:
        A function, which returns the structure of results.
    """
    images = arguments(model, subject)
    if mode == PREPARED:
        inference.prepare(model)

    def predict(*images):
        return model(*images, training=False)

    if subject.pass_ != PREDICT:
        step = training_step(model, images)
        run = {
            EAGER: lambda: step,
            GRAPH: lambda: tf.function(step),
            XLA: lambda: tf.function(step, jit_compile=True),
        }[mode]()
        return lambda: _arrived(run())
    run = {
        EAGER: lambda: predict,
        GRAPH: lambda: tf.function(predict),
        PREPARED: lambda: tf.function(predict),
        FROZEN: lambda: frozen(predict, *images),
        XLA: lambda: tf.function(predict, jit_compile=True),
    }[mode]()
    return lambda: _arrived(run(*images))


def training_step(model, images):
    """Forward, loss, gradients and the update of the weights, by SGD with momentum.

    The loss is the cross-entropy of a classifier, else the mean of squares of all
    outputs.

    Args:
        model: A Keras model.
        images: List of what it takes.

    Returns:
        A function without arguments that returns the loss.
    """
    optimizer = keras.optimizers.SGD(_LEARNING_RATE, _MOMENTUM)
    if any(layer.dtype_policy.name == "mixed_float16" for layer in model.layers):
        # As `compile` does.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    batch = keras.tree.flatten(images)[0].shape[0]
    labels = tf.zeros((batch,), tf.int32)
    entropy = keras.losses.SparseCategoricalCrossentropy()

    def loss(outputs):
        outputs = keras.tree.flatten(outputs)
        if len(outputs) == 1 and outputs[0].shape.rank == 2:
            return entropy(labels, outputs[0])
        return sum(tf.reduce_mean(tf.square(tf.cast(y, "float32"))) for y in outputs)

    def step():
        with tf.GradientTape() as tape:
            value = loss(model(*images, training=True))
            scaled = optimizer.scale_loss(value)
        gradients = tape.gradient(scaled, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return value

    return step


def frozen(function, *images):
    """A function of such inputs, with the weights as constants of its graph.

    Its attribute `graph` is the `ConcreteFunction`.
    """
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    graph = convert_variables_to_constants_v2(
        tf.function(function).get_concrete_function(*images)
    )

    def run(*images):
        return graph(*keras.tree.flatten(images))

    run.graph = graph
    return run


def _arrived(results):
    """What was computed, once it has been."""
    for tensor in keras.tree.flatten(results):
        tensor.numpy()
    return results


def _image_shape(subject):
    size = subject.size, subject.size
    return (*size, 3) if subject.layout == "channels_last" else (3, *size)


def _with_policy(model, policy):
    def again(layer):
        return type(layer).from_config({**layer.get_config(), "dtype": policy})

    copy = keras.models.clone_model(model, clone_function=again)
    copy.set_weights(model.get_weights())
    return copy
