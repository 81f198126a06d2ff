"""Normalization that Keras lacks."""

import math
import numbers

import keras
from keras import ops

from kconv.spec import is_integer, standard_format

_HALF_TYPES = ("float16", "bfloat16")


@keras.saving.register_keras_serializable(package="kconv")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each value by what its neighbours among the channels amount to.

    Computes `x / (bias + alpha * total) ** beta`, where `total` is the sum of `x ** 2`
    over the channel itself and `depth_radius` channels on either side, as far as there
    are any. There are no weights. The arguments are those of
    `tf.nn.local_response_normalization`, which has gradients of the first order and no
    float64; here gradients are of any order and all floating types are taken. The
    defaults are those of Krizhevsky et al.

    Sums of float16 and bfloat16 are taken in float32.

    Args:
        depth_radius: Int, the number of channels on each side that are summed over: 2
            for the window of 5 channels that papers write as `n = 5`.
        bias: Float, positive: `k` in the papers.
        alpha: Float, not negative, what the sum is multiplied by. Caffe and PyTorch
            divide theirs by the size of the window, `2 * depth_radius + 1`.
        beta: Float, the exponent.
        data_format: String, `"channels_last"` or `"channels_first"`; by default
            `keras.config.image_data_format()`.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Call arguments:
        inputs: Tensor of shape `(batch, ..., channels)`, or `(batch, channels, ...)`
            with `data_format="channels_first"`.

    Returns:
        A tensor of the same shape.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> layer = kconv.layers.LocalResponseNormalization()
    >>> layer(np.ones((1, 4, 4, 8), "float32")).shape
    TensorShape([1, 4, 4, 8])

    Source: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep
    convolutional neural networks", NIPS 2012, section 3.3.
    """

    def __init__(
        self,
        depth_radius=2,
        bias=2.0,
        alpha=1e-4,
        beta=0.75,
        data_format=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not is_integer(depth_radius) or depth_radius < 0:
            raise ValueError(
                "`depth_radius` must be an integer that is not negative. "
                f"Received: depth_radius={depth_radius!r}"
            )
        for name, value in (("bias", bias), ("alpha", alpha), ("beta", beta)):
            if (
                not isinstance(value, numbers.Real)
                or isinstance(value, bool)
                or not math.isfinite(value)
            ):
                raise ValueError(
                    f"`{name}` must be a finite number. Received: {name}={value!r}"
                )
        # The sum that is raised to a power is positive then.
        if bias <= 0 or alpha < 0:
            raise ValueError(
                "`bias` must be positive, and `alpha` must not be negative. "
                f"Received: bias={bias!r}, alpha={alpha!r}"
            )
        self.depth_radius = int(depth_radius)
        self.bias = float(bias)
        self.alpha = float(alpha)
        self.beta = float(beta)
        self.data_format = standard_format(data_format)
        self.supports_masking = True

    def call(self, inputs):
        """Normalizes `inputs`."""
        inputs = ops.cast(inputs, self.compute_dtype)
        x = inputs
        if self.compute_dtype in _HALF_TYPES:
            x = ops.cast(x, "float32")
        total = self.bias + self.alpha * self._sums(ops.square(x))
        outputs = x * ops.exp(-self.beta * ops.log(total))
        return ops.cast(outputs, self.compute_dtype)

    def _sums(self, x):
        """Sums over the window around each channel."""
        shape = ops.shape(x)
        first = self.data_format == "channels_first"
        channel = ops.arange(shape[1 if first else -1])
        distance = ops.abs(channel[:, None] - channel[None, :])
        # A product with a band of ones, and so is the backward pass: shifted slices
        # would be as many passes through memory, and more on the way back.
        band = ops.cast(distance <= self.depth_radius, x.dtype)
        if first:
            flat = ops.reshape(x, (*shape[:2], math.prod(shape[2:])))
            return ops.reshape(ops.matmul(band, flat), shape)
        flat = ops.reshape(x, (math.prod(shape[:-1]), shape[-1]))
        return ops.reshape(ops.matmul(flat, band), shape)

    def compute_output_shape(self, input_shape):
        """Returns the shape of the output, which is that of the input."""
        return tuple(input_shape)

    def get_config(self):
        """Returns the arguments that make this layer again."""
        return {
            **super().get_config(),
            "depth_radius": self.depth_radius,
            "bias": self.bias,
            "alpha": self.alpha,
            "beta": self.beta,
            "data_format": self.data_format,
        }
