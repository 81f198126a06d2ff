"""Convolution layers."""

import keras
import tensorflow as tf

from kconv import ops
from kconv.layers.fused import PaddedConv
from kconv.prepared import Slot


class _Conv(PaddedConv):
    """What these layers do in the place of Keras's."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._prepared = Slot()

    def call(self, inputs, training=None):
        """Computes `activation(conv(inputs, kernel) + bias)`.

        Args:
            inputs: A tensor.
            training: Bool or None. It matters to a prepared layer only, which trains
                with its kernel as it is.

        Returns:
            A tensor.
        """
        kernel = self.kernel
        if not self._convolves_by_ops():
            return self._in_turn(self.convolution_op(inputs, kernel))
        if training is None or training is False or not self.trainable:
            kernel = self._prepared.around(kernel, self.groups)

        def function(**epilogue):
            return self._conv(inputs, kernel, **epilogue)

        return self._finish(function, inputs)

    def prepare(self):
        """Prepares the kernel for inference: see `kconv.ops.prepare_filter`.

        To be called when the weights are loaded. From then on calls without
        `training=True`, and all calls where `trainable` is False, use the prepared
        kernel, in functions that are traced afterwards too. Results keep their bits,
        and gradients are right.

        A change of the kernel, in whatever way and of however few elements, is noticed
        at once: from then on calls use the kernel itself, until this is called again.
        The prepared form takes as much memory as the kernel (in float32). After a
        change the kernel that it was made of is kept as well, until `release`, or until
        this is called again; `set_weights`, `load_weights` and `enable_lora` release of
        themselves.

        What is prepared is for this process, and no file holds it: a model that is
        saved or exported is as if it were not prepared. (Only a `tf.Module` that holds
        a traced function, but not the layer, cannot be saved: TensorFlow misses a
        variable then.)

        Returns:
            Whether an algorithm has a use for it, and calls read the kernel's variable:
            not with a mixed dtype policy or LoRA. If not, nothing is kept.

        Raises:
            ValueError: If the layer is not built, or within a `tf.function`.
        """
        if not self.built or not tf.executing_eagerly():
            raise ValueError(
                "A layer is prepared when it is built, outside of any tf.function. "
                f"Received: layer={self.name}, built={self.built}, "
                f"executing_eagerly={tf.executing_eagerly()}"
            )
        if self._convolves_by_ops() and self._reads_its_variable():
            arguments = self.groups, self.strides, self.algorithm
            self._prepared.fill(ops.prepare_filter(self.kernel, *arguments))
        else:
            self._prepared.clear()
        return self.is_prepared

    def release(self):
        """Undoes `prepare`; functions that were traced with it see it as well."""
        self._prepared.clear()

    @property
    def is_prepared(self):
        """Whether a prepared kernel is held: calls use it until the kernel changes."""
        return bool(self._prepared)

    def set_weights(self, weights):
        """Sets the weights from NumPy arrays, and releases a prepared kernel."""
        self.release()
        super().set_weights(weights)

    def load_own_variables(self, store):
        """Loads the weights, and releases a prepared kernel."""
        self.release()
        super().load_own_variables(store)

    def enable_lora(self, *args, **kwargs):
        """Enables LoRA, and releases a prepared kernel."""
        self.release()
        super().enable_lora(*args, **kwargs)

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        children = super()._trackable_children(save_type, **kwargs)
        if save_type == "savedmodel":
            children.update(self._prepared.trackables)
        return children

    def convolution_op(self, inputs, kernel):
        """Convolves `inputs` with `kernel`, without bias or activation."""
        return self._conv(inputs, kernel)

    def _conv(self, inputs, kernel, **epilogue):
        inputs, arguments = self._padded(inputs)
        return ops.conv(inputs, kernel, **arguments, **epilogue)

    def _convolves_by_ops(self):
        """Whether no subclass says otherwise."""
        function = getattr(self.convolution_op, "__func__", None)
        return function is _Conv.convolution_op

    def _reads_its_variable(self):
        """Whether what convolves is the kernel's variable itself."""
        kernel = self.kernel
        return (
            isinstance(kernel, keras.Variable)
            and getattr(self, "quantization_mode", None) is None
            and keras.backend.standardize_dtype(kernel.dtype) == self.compute_dtype
        )


@keras.saving.register_keras_serializable(package="kconv")
class Conv1D(_Conv, keras.layers.Conv1D):
    """1D convolution layer.

    `keras.layers.Conv1D` with the convolution computed by `kconv.ops.conv`.
    `kconv.layers.Conv2D` tells what holds for it.

    Args:
        filters: int, the dimension of the output space (the number of filters in the
            convolution).
        kernel_size: int or tuple/list of 1 integer, specifying the size of the
            convolution window.
        strides: int or tuple/list of 1 integer, specifying the stride length of the
            convolution.
        padding: string, `"valid"`, `"same"` or `"causal"` (case-insensitive), or a pair
            of integers (before, after) in a tuple. `"causal"` pads before the first
            step, so that `output[t]` does not depend on `input[t+1:]`.
        **kwargs: The others are those of `kconv.layers.Conv2D`, in the same order.

    Input shape:
        A 3D tensor, `(batch_size, steps, channels)` with
        `data_format="channels_last"`, or
        `(batch_size, channels, steps)` with
        `data_format="channels_first"`.

    Output shape:
        A 3D tensor, `(batch_size, new_steps, filters)` with
        `data_format="channels_last"`, or
        `(batch_size, filters, new_steps)` with
        `data_format="channels_first"`.

    Returns:
        A 3D tensor representing `activation(conv1d(inputs, kernel) + bias)`.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> x = np.random.rand(4, 10, 128)
    >>> y = kconv.layers.Conv1D(32, 3, padding="causal", activation="relu")(x)
    >>> print(y.shape)
    (4, 10, 32)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=1,
        padding="valid",
        data_format=None,
        dilation_rate=1,
        groups=1,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        *,
        algorithm="auto",
        padding_mode="zeros",
        **kwargs,
    ):
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            groups=groups,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            algorithm=algorithm,
            padding_mode=padding_mode,
            **kwargs,
        )


@keras.saving.register_keras_serializable(package="kconv")
class Conv2D(_Conv, keras.layers.Conv2D):
    """2D convolution layer.

    `keras.layers.Conv2D` with the convolution computed by `kconv.ops.conv`: by the
    kernel that is fastest for the problem, one of kconv's own or TensorFlow's. It takes
    the same arguments in the same order, has the same weights, and does all else, such
    as LoRA, in the same way. The bias and the activations `"relu"` and `"relu6"` are
    part of the convolution, other activations follow it; in a subclass that overrides
    `convolution_op` all of them follow.

    `model.compile` leaves a model with this layer out of XLA, as `jit_compile="auto"`
    asks the layers. In a function of your own with `jit_compile=True` the layer runs on
    TensorFlow's ops; but a `tf.function` with it that was traced before, outside of
    XLA, must not be called inside: XLA does not know kconv's ops.

    Args:
        filters: int, the dimension of the output space (the number of filters in the
            convolution).
        kernel_size: int or tuple/list of 2 integers, specifying the size of the
            convolution window.
        strides: int or tuple/list of 2 integers, specifying the stride length of the
            convolution. They may be combined with `dilation_rate`, which Keras's layer
            refuses.
        padding: string, either `"valid"` or `"same"` (case-insensitive). `"valid"`
            means no padding. `"same"` results in padding evenly to the left/right or
            up/down of the input. When `padding="same"` and `strides=1`, the output has
            the same size as the input. Or a pair of integers (before, after) for each
            spatial dimension, such as `((top, bottom), (left, right))`. PyTorch's
            `padding=1` is `((1, 1), (1, 1))`, which with strides `"same"` is not.
        data_format: string, either `"channels_last"` or `"channels_first"`, the
            ordering of the dimensions in the inputs. It defaults to the
            `image_data_format` value found in your Keras config file at
            `~/.keras/keras.json`. If you never set it, then it will be
            `"channels_last"`.
        dilation_rate: int or tuple/list of 2 integers, specifying the dilation rate to
            use for dilated convolution.
        groups: A positive int specifying the number of groups in which the input is
            split along the channel axis. Each group is convolved separately with
            `filters // groups` filters. The output is the concatenation of all the
            `groups` results along the channel axis. Input channels and `filters` must
            both be divisible by `groups`.
        activation: Activation function. If `None`, no activation is applied.
        use_bias: bool, if `True`, bias will be added to the output.
        kernel_initializer: Initializer for the convolution kernel. If `None`, the
            default initializer (`"glorot_uniform"`) will be used.
        bias_initializer: Initializer for the bias vector. If `None`, the default
            initializer (`"zeros"`) will be used.
        kernel_regularizer: Optional regularizer for the convolution kernel.
        bias_regularizer: Optional regularizer for the bias vector.
        activity_regularizer: Optional regularizer function for the output.
        kernel_constraint: Optional projection function to be applied to the kernel
            after being updated by an `Optimizer`.
        bias_constraint: Optional projection function to be applied to the bias after
            being updated by an `Optimizer`.
        algorithm: string, `"auto"`, `"auto:strict"` or a name out of
            `kconv.ops.algorithms()`, to force an algorithm in the layer and in its
            gradients.
        padding_mode: string, what the image is padded with: `"zeros"`; `"reflect"`, the
            image mirrored at its border pixels, which are not repeated; `"circular"`,
            the image again from its other end; or `"replicate"`, its border pixels.
            All but zeros are put around the image by an operation ahead of the
            convolution.
        **kwargs: The arguments of every Keras layer, such as `name`, `dtype` and
            `trainable`, and `lora_rank` and `lora_alpha`.

    Input shape:
        A 4D tensor, `(batch_size, height, width, channels)` with
        `data_format="channels_last"`, or `(batch_size, channels, height, width)` with
        `data_format="channels_first"`.

    Output shape:
        A 4D tensor, `(batch_size, new_height, new_width, filters)` with
        `data_format="channels_last"`, or
        `(batch_size, filters, new_height, new_width)` with
        `data_format="channels_first"`.

    Returns:
        A 4D tensor representing `activation(conv2d(inputs, kernel) + bias)`.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> x = np.random.rand(4, 10, 10, 128)
    >>> y = kconv.layers.Conv2D(32, 3, activation="relu")(x)
    >>> print(y.shape)
    (4, 8, 8, 32)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1),
        padding="valid",
        data_format=None,
        dilation_rate=(1, 1),
        groups=1,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        *,
        algorithm="auto",
        padding_mode="zeros",
        **kwargs,
    ):
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            groups=groups,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            algorithm=algorithm,
            padding_mode=padding_mode,
            **kwargs,
        )


@keras.saving.register_keras_serializable(package="kconv")
class Conv3D(_Conv, keras.layers.Conv3D):
    """3D convolution layer.

    `keras.layers.Conv3D` with the convolution computed by `kconv.ops.conv`.
    `kconv.layers.Conv2D` tells what holds for it.

    Args:
        filters: int, the dimension of the output space (the number of filters in the
            convolution).
        kernel_size: int or tuple/list of 3 integers, specifying the size of the
            convolution window.
        strides: int or tuple/list of 3 integers, specifying the stride length of the
            convolution.
        **kwargs: The others are those of `kconv.layers.Conv2D`, in the same order.

    Input shape:
        A 5D tensor, `(batch_size, depth, height, width, channels)` with
        `data_format="channels_last"`, or
        `(batch_size, channels, depth, height, width)` with
        `data_format="channels_first"`.

    Output shape:
        A 5D tensor, `(batch_size, new_depth, new_height, new_width, filters)` with
        `data_format="channels_last"`, or
        `(batch_size, filters, new_depth, new_height, new_width)` with
        `data_format="channels_first"`.

    Returns:
        A 5D tensor representing `activation(conv3d(inputs, kernel) + bias)`.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> x = np.random.rand(4, 10, 10, 10, 128)
    >>> y = kconv.layers.Conv3D(32, 3, activation="relu")(x)
    >>> print(y.shape)
    (4, 8, 8, 8, 32)
    """

    def __init__(
        self,
        filters,
        kernel_size,
        strides=(1, 1, 1),
        padding="valid",
        data_format=None,
        dilation_rate=(1, 1, 1),
        groups=1,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        *,
        algorithm="auto",
        padding_mode="zeros",
        **kwargs,
    ):
        super().__init__(
            filters,
            kernel_size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            dilation_rate=dilation_rate,
            groups=groups,
            activation=activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            kernel_regularizer=kernel_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            bias_constraint=bias_constraint,
            algorithm=algorithm,
            padding_mode=padding_mode,
            **kwargs,
        )
