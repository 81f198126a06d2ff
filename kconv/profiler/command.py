"""`kconv profile`: a model by its name or file, and where its profile goes."""

import pathlib

import keras

from kconv.profiler import profile


def run(
    name,
    input_shape=None,
    batch_size=1,
    passes=("forward",),
    refusals=False,
    json=None,
    csv=None,
    plot=None,
):
    """Prints the profile of a model, and writes it to files.

    Args:
        name: String, a file that Keras saved, or a name of `kconv.models`.
        input_shape: As in `kconv.profile`; None for what the model knows.
        batch_size: As in `kconv.profile`.
        passes: As in `kconv.profile`.
        refusals: As in `kconv.profile`.
        json: String, a file for `Profile.to_json`, or None.
        csv: String, a file for `Profile.to_csv`, or None.
        plot: String, a file for `Profile.plot`, or None.

    Returns:
        The `Profile`.

    Raises:
        ValueError: If there is no such model, or it does not take the shape.
    """
    shape = None if input_shape is None else tuple(input_shape)
    model = load(name, shape)
    found = profile(model, shape, batch_size, passes, refusals)
    found.show()
    if json:
        found.to_json(json)
    if csv:
        found.to_csv(csv)
    if plot:
        found.plot(plot)
    return found


def load(name, input_shape=None):
    """Returns the model of a file or of a name of `kconv.models`.

    Args:
        name: String.
        input_shape: Tuple of ints or None, for a model that is made by its name.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: If there is none.
    """
    path = pathlib.Path(name)
    if path.suffix in (".keras", ".h5") or path.is_file():
        if not path.is_file():
            raise ValueError(f"There is no such file. Received: {name}")
        try:
            return keras.saving.load_model(path, compile=False)
        except TypeError as error:  # a class that is not known here
            words = str(error).strip().splitlines() or ["it cannot be read."]
            raise ValueError(f"{words[-1]} Received: {name}") from error
    from kconv import models

    arguments = {} if input_shape is None else {"input_shape": input_shape}
    return models.build(name, weights=None, **arguments)
