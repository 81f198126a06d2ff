"""Calls convolutions of ever other shapes and prints the resident memory meanwhile.

    python growth.py graph|eager kconv|stock CALLS WARM_UP SHAPES [LEAK]

In a process of its own, where nothing else leaves anything behind. With LEAK a third
of it is done once more, and so many floats of each call are kept: what a test has to
notice.
"""

import ctypes
import gc
import json
import sys

import keras
import numpy as np
import tensorflow as tf

import kconv
from kconv.benchmark import resident

FILTERS, MOST_PIXELS, MOST_IMAGES = 8, 16, 4


def make_model(layers):
    """A model for images of any size, with a convolution of each kind."""
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            layers.Conv2D(FILTERS, 3, padding="same", activation="relu"),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.Conv2DTranspose(FILTERS, 2, strides=2),
        ]
    )


def make_step(model, is_graph):
    """A function of images: the model's gradients by its weights and by the images."""

    def step(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_mean(tf.square(model(images, training=True)))
        return tape.gradient(loss, [images, *model.trainable_variables])

    if not is_graph:
        return step
    signature = [tf.TensorSpec((None, None, None, 3))]
    return tf.function(step, input_signature=signature)


def settled():
    """Resident bytes, once garbage is collected and freed memory given back."""
    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return resident.now()


def grow(step, calls, warm_up, shapes, leak=0):
    """Returns the bytes after the warm-up, after half of the rest, and after all."""
    generator = np.random.default_rng(0)
    known = [
        (generator.integers(1, MOST_IMAGES + 1), *generator.integers(4, MOST_PIXELS, 2))
        for _ in range(shapes)
    ]
    kept, found = [], []
    for call in range(calls + 1):
        if call in (warm_up, (warm_up + calls) // 2, calls):
            found.append(settled())
        step(tf.ones((*known[call % shapes], 3)))
        if leak:
            kept.append(np.ones(leak, "float32"))
    return found


def main(way, library, calls, warm_up, shapes, leak=0):
    """Prints what `grow` finds, and in a second line what it finds with a leak."""
    keras.utils.set_random_seed(0)
    model = make_model(kconv.layers if library == "kconv" else keras.layers)
    step = make_step(model, way == "graph")
    print(json.dumps(grow(step, calls, warm_up, shapes)))
    if leak:
        print(json.dumps(grow(step, calls // 3, warm_up // 3, shapes, leak)))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
