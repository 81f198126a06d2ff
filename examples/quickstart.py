"""Takes a stock Keras model, swaps its convolutions for kconv's and trains it.

The data are the 1797 real handwritten digits that scikit-learn ships.

    pip install '.[cpu]' scikit-learn
    python examples/quickstart.py
"""

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import kconv


def main():
    """Trains for five epochs and prints the accuracy on digits never seen."""
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images = digits.images[..., np.newaxis].astype("float32") / 16
    x_train, x_test, y_train, y_test = train_test_split(images, digits.target)

    # A model as anyone would write it ...
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
            keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
            keras.layers.GlobalMaxPooling2D(),
            keras.layers.Dense(10),
        ]
    )
    # ... and the same weights on kconv's kernels.
    model = kconv.convert(model)

    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x_train, y_train, epochs=5, verbose=2)
    accuracy = model.evaluate(x_test, y_test, return_dict=True, verbose=0)["accuracy"]
    print(f"Accuracy on {len(x_test)} new digits: {accuracy:.1%}")

    # A trained model goes back to stock Keras the same way.
    stock = kconv.revert(model)
    difference = np.abs(
        stock.predict(x_test, verbose=0) - model.predict(x_test, verbose=0)
    )
    print(f"Largest difference to stock Keras: {difference.max():.1e}")


if __name__ == "__main__":
    main()
