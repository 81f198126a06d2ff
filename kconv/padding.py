"""Padding in operations of its own, where a convolution does not pad by itself."""

import tensorflow as tf

ZEROS = "zeros"
MODES = (ZEROS, "reflect", "circular", "replicate")


def check_mode(padding_mode):
    """Raises ValueError unless this is one of `MODES`."""
    if padding_mode not in MODES:
        raise ValueError(
            f"`padding_mode` must be one of {list(MODES)}. Received: padding_mode="
            f"{padding_mode!r}"
        )


def pad(spec, inputs, kernel_size, mode=ZEROS):
    """Pads an image as a convolution would, so that one without padding can follow.

    Args:
        spec: A `ConvSpec`.
        inputs: A tensor.
        kernel_size: Tuple of ints.
        mode: `"zeros"`; `"reflect"`, the image mirrored at its first and last pixels,
            which are not repeated; `"circular"`, the image again from its other end; or
            `"replicate"`, its first and last pixels.

    Returns:
        A tensor.

    Raises:
        ValueError: If the image has too few pixels: there must be more of them than a
            side is padded by with `"reflect"`, and as many with `"circular"`.
    """
    known, dynamic = tuple(inputs.shape), tf.unstack(tf.shape(inputs))
    shape = [n if m is None else m for n, m in zip(dynamic, known, strict=True)]
    pads = spec.pads(spec.size(shape), kernel_size)
    if mode == ZEROS:
        padded = tf.pad(inputs, spec.tensor_shape((0, 0), pads, (0, 0)))
    else:
        padded = inputs
        first = 1 if spec.data_format == "channels_last" else 2
        for i, pair in enumerate(pads):
            if any(not isinstance(n, int) or n > 0 for n in pair):
                _check_size(mode, known, first + i, pair)
                padded = _extend(padded, first + i, pair, mode)
    # TensorFlow forgets the channels where it cannot tell the pads.
    sizes = (
        n + sum(pair)
        if isinstance(n, int) and all(_known(one) for one in pair)
        else None
        for n, pair in zip(spec.size(known), pads, strict=True)
    )
    # No tf.ensure_shape: called eagerly, TensorFlow keeps one for each shape for ever.
    padded.set_shape(spec.tensor_shape(known[0], tuple(sizes), spec.channels(known)))
    return padded


def _known(size):
    return isinstance(size, int)


def _check_size(mode, shape, axis, pair):
    if shape[axis] is None or not all(_known(n) for n in pair):
        return  # TensorFlow tells when it runs
    needed = {"reflect": max(pair) + 1, "circular": max(pair), "replicate": 1}[mode]
    if shape[axis] < needed:
        raise ValueError(
            f"Padding by {pair} in mode {mode!r} needs {needed} pixels along that "
            f"axis. Received: inputs.shape={shape}, axis={axis}"
        )


def _extend(inputs, axis, pair, mode):
    """Pads one axis."""
    before, after = pair
    size = tf.shape(inputs)[axis]
    if mode == "reflect":  # not tf.pad's, which takes no empty batch
        ends = (
            tf.reverse(_part(inputs, axis, 1, before), [axis]),
            tf.reverse(_part(inputs, axis, size - 1 - after, after), [axis]),
        )
    elif mode == "circular":
        enough = tf.debugging.assert_greater_equal(
            size,
            tf.maximum(before, after),
            "Circular padding takes each pixel of an image once to a side at most.",
        )
        with tf.control_dependencies([] if enough is None else [enough]):
            ends = (
                _part(inputs, axis, size - before, before),
                _part(inputs, axis, 0, after),
            )
    else:
        ends = (
            tf.repeat(_part(inputs, axis, 0, 1), before, axis=axis),
            tf.repeat(_part(inputs, axis, size - 1, 1), after, axis=axis),
        )
    return tf.concat([ends[0], inputs, ends[1]], axis)


def _part(inputs, axis, begin, size):
    """Returns `size` pixels along an axis."""
    begins, sizes = [0] * inputs.shape.rank, [-1] * inputs.shape.rank
    begins[axis], sizes[axis] = begin, size
    return tf.slice(inputs, begins, sizes)
