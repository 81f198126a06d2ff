"""Trains a kconv model on two devices of one machine, mirrored, and on one.

TensorFlow's MirroredStrategy keeps a copy of the model on each device, gives each a
share of every batch and adds the gradients up. The devices here are two halves of the
CPU, so that any machine can run this; kconv has no part in it but to compute.

    pip install '.[cpu]' scikit-learn
    python examples/mirrored_training.py
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import kconv

BATCH = 128  # of all devices together
EPOCHS = 3


def make_model():
    """Returns a compiled model; the same weights every time."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            kconv.layers.Conv2D(16, 3, padding="same", activation="relu"),
            kconv.layers.SeparableConv2D(32, 3, padding="same", activation="relu"),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


def make_dataset():
    """Returns scikit-learn's 1797 digits in batches, without the few that are left."""
    digits = load_digits()
    images = digits.images[..., np.newaxis].astype("float32") / 16
    dataset = tf.data.Dataset.from_tensor_slices((images, digits.target))
    # Keras averages the devices' means: of unequal shares that is another mean.
    return dataset.batch(BATCH, drop_remainder=True).prefetch(1)


def main():
    """Trains twice and compares the losses; ends with an error if they differ."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)

    print("One device:", flush=True)
    one = make_model().fit(make_dataset(), epochs=EPOCHS, shuffle=False, verbose=2)

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    print(f"{strategy.num_replicas_in_sync} devices:", flush=True)
    with strategy.scope():
        model = make_model()
    two = model.fit(make_dataset(), epochs=EPOCHS, shuffle=False, verbose=2)

    np.testing.assert_allclose(two.history["loss"], one.history["loss"], rtol=1e-4)
    print("The loss on two devices equals that on one.")


if __name__ == "__main__":
    main()
