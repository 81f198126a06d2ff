"""Trains a kconv model by two processes that talk over the network, and by one.

TensorFlow's MultiWorkerMirroredStrategy keeps a copy of the model in each process,
gives each a share of every batch and adds the gradients up. Both processes run on this
machine here; on machines of your own start one process on each, with the addresses of
all in TF_CONFIG. kconv has no part in it but to compute.

The training loop is written out because `fit` of Keras 3 does not work under this
strategy (https://github.com/keras-team/keras/issues/20585), with stock layers either.

    pip install '.[cpu]' scikit-learn
    python examples/multi_worker_training.py
"""

import json
import os
import socket
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import kconv

WORKERS = 2
BATCH = 128  # of all processes together
EPOCHS = 3
PATIENCE = 300  # seconds


def make_model():
    """Returns a model; the same weights every time."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            kconv.layers.Conv2D(16, 3, padding="same", activation="relu"),
            kconv.layers.SeparableConv2D(32, 3, padding="same", activation="relu"),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(10),
        ]
    )


def make_dataset():
    """Returns scikit-learn's 1797 digits in batches, without the few that are left."""
    digits = load_digits()
    images = digits.images[..., np.newaxis].astype("float32") / 16
    dataset = tf.data.Dataset.from_tensor_slices((images, digits.target))
    dataset = dataset.batch(BATCH, drop_remainder=True).prefetch(1)
    # Every process reads all and takes its share of each batch: there are no files to
    # be shared out.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return dataset.with_options(options)


def train(strategy):
    """Trains a model and prints the progress.

    Args:
        strategy: A `tf.distribute.Strategy`; the default one trains in this process.

    Returns:
        A list of floats, the mean loss of each epoch.
    """
    with strategy.scope():
        model = make_model()
        optimizer = keras.optimizers.Adam(0.01)
        optimizer.build(model.trainable_variables)
    losses_of = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction=None
    )

    def replica_step(images, labels):
        with tf.GradientTape() as tape:
            losses = losses_of(labels, model(images, training=True))
            loss = tf.reduce_sum(losses) / BATCH  # the optimizer adds gradients up
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        return loss

    @tf.function
    def step(batch):
        return strategy.reduce("SUM", strategy.run(replica_step, args=batch), axis=None)

    dataset = strategy.experimental_distribute_dataset(make_dataset())
    means = []
    for epoch in range(EPOCHS):
        means.append(float(np.mean([step(batch).numpy() for batch in dataset])))
        print(f"Epoch {epoch + 1}/{EPOCHS} - loss: {means[-1]:.4f}", flush=True)
    return means


def free_ports(count):
    """Returns ports of this machine that nobody listens to."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start_workers(folder):
    """Starts this program once for each worker.

    Args:
        folder: String, where the workers write their losses.

    Returns:
        A list of `subprocess.Popen`.
    """
    addresses = [f"localhost:{port}" for port in free_ports(WORKERS)]
    processes = []
    for index in range(WORKERS):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": addresses}, "task": task}
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, f"{folder}/{index}.npy"],
                env={**os.environ, "TF_CONFIG": json.dumps(config)},
                # All train alike: one of them may tell how it goes.
                stdout=subprocess.DEVNULL if index else None,
            )
        )
    return processes


def work(path):
    """Trains as one of the workers and writes the losses to a file."""
    # Before anything else of TensorFlow: it starts a server.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    np.save(path, train(strategy))


def main():
    """Trains twice and compares the losses; ends with an error if they differ."""
    print(f"{WORKERS} processes:", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        processes = start_workers(folder)
        try:
            codes = [process.wait(PATIENCE) for process in processes]
        finally:
            for process in processes:
                process.kill()
        if any(codes):
            sys.exit("A worker failed.")
        losses = [np.load(f"{folder}/{index}.npy") for index in range(WORKERS)]

    print("One process:", flush=True)
    one = train(tf.distribute.get_strategy())

    np.testing.assert_allclose(losses, [one] * WORKERS, rtol=1e-4)
    print(f"The loss of {WORKERS} processes equals that of one.")


if __name__ == "__main__":
    work(sys.argv[1]) if "TF_CONFIG" in os.environ else main()
