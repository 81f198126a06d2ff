"""The layer that mixes the channels of groups."""

import math

import keras

from kconv.spec import is_integer, standard_format


@keras.saving.register_keras_serializable(package="kconv")
class ChannelShuffle(keras.layers.Layer):
    """Takes the channels of groups in turn: the first of each, the second of each ...

    Convolutions in groups keep to their groups; between two of them this layer has
    every group see all others. Of `c` channels, output channel `j * groups + i` is
    input channel `i * (c // groups) + j`. It has no weights. Its inverse is
    `ChannelShuffle(c // groups)`.

    Args:
        groups: int, the number of groups that the channels are in. It divides their
            number.
        data_format: string, either `"channels_last"` or `"channels_first"`, the
            ordering of the dimensions in the inputs. It defaults to the
            `image_data_format` value found in your Keras config file at
            `~/.keras/keras.json`. If you never set it, then it will be
            `"channels_last"`.
        **kwargs: The arguments of `keras.layers.Layer`.

    Input shape:
        A tensor of any dtype and any number of spatial dimensions, also of none:
        `(batch_size, ..., channels)` with `data_format="channels_last"`, or
        `(batch_size, channels, ...)` with `data_format="channels_first"`. All sizes but
        the channels may be unknown.

    Output shape:
        That of the inputs.

    Returns:
        A tensor, the inputs with their channels in another order.

    Raises:
        ValueError: If an argument is wrong, or if `groups` does not divide the number
            of channels.

    Example:

    >>> x = np.array([[1, 2, 3, 10, 20, 30]])
    >>> kconv.layers.ChannelShuffle(2)(x)
    <tf.Tensor: shape=(1, 6), dtype=int64, numpy=array([[ 1, 10,  2, 20,  3, 30]])>

    Source: Zhang, Zhou, Lin, Sun, "ShuffleNet: an extremely efficient convolutional
    neural network for mobile devices", CVPR 2018 (arXiv:1707.01083), section 3.1.
    """

    def __init__(self, groups, data_format=None, **kwargs):
        super().__init__(**kwargs)
        if not is_integer(groups) or groups < 1:
            raise ValueError(
                f"`groups` must be a positive integer. Received: groups={groups!r}"
            )
        self.groups = int(groups)
        self.data_format = standard_format(data_format)
        self.supports_masking = True

    def call(self, inputs):
        """Shuffles the channels.

        Args:
            inputs: A tensor.

        Returns:
            A tensor.
        """
        width = self._width(inputs.shape)
        shape = keras.ops.shape(inputs)
        # Folded into one, the other dimensions cost the transposition less.
        if self.data_format == "channels_last":
            folded, order = (-1, self.groups, width), (0, 2, 1)
        else:
            known = None not in inputs.shape[2:]
            sizes = (math.prod(inputs.shape[2:]),) if known else shape[2:]
            folded = (shape[0], self.groups, width, *sizes)
            order = (0, 2, 1, *range(3, len(folded)))
        shuffled = keras.ops.transpose(keras.ops.reshape(inputs, folded), order)
        return keras.ops.reshape(shuffled, shape)

    def compute_output_shape(self, input_shape):
        """Returns the shape of the output, a tuple of ints and None."""
        self._width(input_shape)
        return tuple(input_shape)

    def get_config(self):
        """Returns the arguments that make this layer again."""
        config = {"groups": self.groups, "data_format": self.data_format}
        return {**super().get_config(), **config}

    def _width(self, shape):
        """Returns the number of channels of a group."""
        shape = tuple(shape)
        axis = -1 if self.data_format == "channels_last" else 1
        channels = shape[axis] if len(shape) > 1 else None
        if channels is None or channels % self.groups:
            raise ValueError(
                "The number of channels must be known and a multiple of `groups`. "
                f"Received: inputs.shape={shape}, groups={self.groups}, "
                f"data_format={self.data_format!r}"
            )
        return channels // self.groups
