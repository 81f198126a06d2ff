"""The layer of deformable convolution."""

import keras

from kconv import ops
from kconv.deformation import deform_spec
from kconv.layers.bases import of_any_rank
from kconv.layers.fused import BaseFusedConv
from kconv.spec import is_integer


@keras.saving.register_keras_serializable(package="kconv")
class DeformableConv2D(BaseFusedConv, of_any_rank(keras.layers.Conv2D)):
    """2D deformable convolution layer.

    A 2D convolution each tap of which reads where an offset moves it, computed by
    `kconv.ops.deform_conv`. The offsets, two for each tap of each output, are those of
    a convolution of the same inputs, the offset branch, which is a part of this layer;
    or they are an input. With `modulated=True`, as in version 2, what a tap reads is
    multiplied besides by a mask, the sigmoid of the last third of what the offset
    branch computes.

    The offset branch has the kernel size, strides, padding and dilation of the layer,
    one group, a bias and `2 * offset_groups * taps` filters, or `3 * ...` if modulated.
    It begins with zeros: the layer is a plain convolution at first, and if modulated,
    because the sigmoid of zero is 0.5, one of half the size. The weights are `kernel`,
    `bias`, `offset_kernel` and `offset_bias`, in this order.
    `kconv.conversion.deformable_weights` makes them of torchvision's and mmcv's.

    What `kconv.layers.Conv2D` says of XLA holds here. LoRA is for `kernel`. There are
    first derivatives only: see `kconv.ops.deform_conv`.

    Args:
        filters: int, the dimension of the output space (the number of filters in the
            convolution).
        kernel_size: int or tuple/list of 2 integers, specifying the size of the
            convolution window.
        strides: int or tuple/list of 2 integers, specifying the stride length of the
            convolution. They may be combined with `dilation_rate`.
        padding: string, either `"valid"` or `"same"` (case-insensitive), or a pair of
            integers (before, after) for each spatial dimension, such as
            `((top, bottom), (left, right))`. PyTorch's `padding=1` is
            `((1, 1), (1, 1))`, which with strides `"same"` is not.
        data_format: string, either `"channels_last"` or `"channels_first"`, the
            ordering of the dimensions in all inputs. It defaults to the
            `image_data_format` value found in your Keras config file at
            `~/.keras/keras.json`. If you never set it, then it will be
            `"channels_last"`.
        dilation_rate: int or tuple/list of 2 integers, specifying the dilation rate to
            use for dilated convolution.
        groups: A positive int specifying the number of groups in which the input is
            split along the channel axis, as in `kconv.layers.Conv2D`.
        offset_groups: A positive int, the parts that the input channels fall into, one
            after the other, each with offsets (and a mask) of its own.
        modulated: bool, whether there is a mask.
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
        offset_kernel_initializer: Initializer for the kernel of the offset branch.
        offset_bias_initializer: Initializer for the bias of the offset branch.
        own_offsets: bool, whether the layer has an offset branch. If not, it is called
            with a list, `[inputs, offsets]`, or `[inputs, offsets, mask]` if modulated,
            whose mask is taken as it is.
        **kwargs: The arguments of every Keras layer, such as `name`, `dtype` and
            `trainable`, and `lora_rank` and `lora_alpha`.

    Input shape:
        A 4D tensor, `(batch_size, height, width, channels)` with
        `data_format="channels_last"`, or `(batch_size, channels, height, width)` with
        `data_format="channels_first"`. With `own_offsets=False` a list of this and the
        offsets, of the shape of the output with `2 * offset_groups * taps` channels,
        and if modulated of the mask, with `offset_groups * taps` channels.
        `kconv.ops.deform_conv` tells their order.

    Output shape:
        A 4D tensor, `(batch_size, new_height, new_width, filters)` with
        `data_format="channels_last"`, or
        `(batch_size, filters, new_height, new_width)` with
        `data_format="channels_first"`.

    Returns:
        A 4D tensor representing `activation(deform_conv(inputs, kernel) + bias)`.

    Raises:
        ValueError: If an argument is wrong, or the shape of the inputs.
        RuntimeError: If this version of Keras has no base for such a layer.

    Example:

    >>> x = np.random.rand(4, 10, 10, 128)
    >>> y = kconv.layers.DeformableConv2D(32, 3, modulated=True, activation="relu")(x)
    >>> print(y.shape)
    (4, 8, 8, 32)

    Source: Dai, Qi, Xiong, Li, Zhang, Hu, Wei, "Deformable convolutional networks",
    ICCV 2017 (arXiv:1703.06211); Zhu, Hu, Lin, Dai, "Deformable ConvNets v2: more
    deformable, better results", CVPR 2019 (arXiv:1811.11168).
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
        offset_groups=1,
        modulated=False,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        offset_kernel_initializer="zeros",
        offset_bias_initializer="zeros",
        own_offsets=True,
        **kwargs,
    ):
        super().__init__(
            rank=2,
            filters=filters,
            kernel_size=kernel_size,
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
            **kwargs,
        )
        if not is_integer(offset_groups) or offset_groups < 1:
            raise ValueError(
                "`offset_groups` must be a positive integer. Received: "
                f"offset_groups={offset_groups!r}"
            )
        self.offset_groups = int(offset_groups)
        self.modulated = bool(modulated)
        self.own_offsets = bool(own_offsets)
        self.offset_kernel_initializer = keras.initializers.get(
            offset_kernel_initializer
        )
        self.offset_bias_initializer = keras.initializers.get(offset_bias_initializer)
        self.offset_kernel = self.offset_bias = None
        self.input_spec = self._spec_of_inputs()

    def build(self, input_shape):
        """Makes the weights.

        Args:
            input_shape: Tuple of ints and None, or a list of them.
        """
        self._checked(input_shape)
        image_shape = tuple(input_shape if self.own_offsets else input_shape[0])
        channels = image_shape[self._channel_axis]
        # LoRA ends the making of weights.
        lora_rank, self.lora_rank = self.lora_rank, None
        super().build(image_shape)
        self.lora_rank = lora_rank
        if self.own_offsets:
            count = self._values * (3 if self.modulated else 2)
            self.offset_kernel = self.add_weight(
                name="offset_kernel",
                shape=(*self.kernel_size, channels, count),
                initializer=self.offset_kernel_initializer,
            )
            self.offset_bias = self.add_weight(
                name="offset_bias",
                shape=(count,),
                initializer=self.offset_bias_initializer,
            )
        self.input_spec = self._spec_of_inputs(channels)
        if lora_rank:
            self.enable_lora(lora_rank, lora_alpha=self.lora_alpha)

    def call(self, inputs):
        """Computes `activation(deform_conv(inputs, kernel) + bias)`.

        Args:
            inputs: A tensor, or a list of tensors.

        Returns:
            A tensor.
        """
        if self.own_offsets:
            image, (offsets, mask) = inputs, self._predict(inputs)
        else:
            image, offsets, mask = (*inputs, None)[:3]
        arguments = {**self._arguments, "offset_groups": self.offset_groups}

        def function(**epilogue):
            operands = image, self.kernel, offsets, mask
            return ops.deform_conv(*operands, **arguments, **epilogue)

        return self._finish(function, image)

    def compute_output_shape(self, input_shape):
        """Returns the shape of the output, a tuple of ints and None."""
        spec, kernel_shape = self._checked(input_shape)
        image_shape = input_shape if _is_shape(input_shape) else input_shape[0]
        return spec.conv.output_shape(tuple(image_shape), kernel_shape)

    def save_own_variables(self, store):
        """Saves the weights, those of the offset branch last."""
        super().save_own_variables(store)
        for name, variable in self._of_branch():
            store[name] = variable

    def load_own_variables(self, store):
        """Loads the weights."""
        super().load_own_variables(store)
        for name, variable in self._of_branch():
            variable.assign(store[name])

    def get_config(self):
        """Returns the arguments that make this layer again."""
        serialize = keras.initializers.serialize
        return {
            **super().get_config(),
            "offset_groups": self.offset_groups,
            "modulated": self.modulated,
            "offset_kernel_initializer": serialize(self.offset_kernel_initializer),
            "offset_bias_initializer": serialize(self.offset_bias_initializer),
            "own_offsets": self.own_offsets,
        }

    @property
    def _values(self):
        """The values of the mask for a pixel, of which there are twice in offsets."""
        return self.offset_groups * self.kernel_size[0] * self.kernel_size[1]

    def _predict(self, image):
        """Returns offsets and mask, or None."""
        bias = self.offset_bias
        found = ops.conv(image, self.offset_kernel, **self._arguments, bias=bias)
        if not self.modulated:
            return found, None
        places = 2 * self._values
        offsets, mask = keras.ops.split(found, [places], axis=self._channel_axis)
        return offsets, keras.ops.sigmoid(mask)

    def _of_branch(self):
        """Pairs of a key of a store and a variable."""
        if not self.built or not self.own_offsets:
            return []
        first = 2 if self.use_bias else 1
        variables = self.offset_kernel, self.offset_bias
        return [(str(first + i), variable) for i, variable in enumerate(variables)]

    def _spec_of_inputs(self, channels=None):
        axes = {} if channels is None else {self._channel_axis: channels}
        image = keras.layers.InputSpec(ndim=4, axes=axes)
        if self.own_offsets:
            return image
        spec = keras.layers.InputSpec(ndim=4)
        return [image, spec, spec] if self.modulated else [image, spec]

    def _checked(self, input_shape):
        """Returns the `DeformSpec` and the shape of the kernel."""
        is_alone = _is_shape(input_shape)
        shapes = [input_shape] if is_alone else list(input_shape)
        wanted = 1 if self.own_offsets else 3 if self.modulated else 2
        # Keras asks for the output of the image alone.
        fits = is_alone or (len(shapes) == wanted and not self.own_offsets)
        if not fits or not all(map(_is_shape, shapes)):
            raise ValueError(
                f"The layer must be called with {wanted} tensors: the inputs, not in a "
                "list, or with `own_offsets=False` a list of these, the offsets and if "
                f"modulated the mask. Received: input_shape={input_shape}"
            )
        shapes = [tuple(shape) for shape in shapes]
        channels = shapes[0][self._channel_axis] if len(shapes[0]) > 1 else None
        if channels is not None and channels % self.groups:
            raise ValueError(
                "The channels of the inputs must be a multiple of `groups`. Received: "
                f"groups={self.groups}, inputs.shape={shapes[0]}"
            )
        part = None if channels is None else channels // self.groups
        kernel_shape = (*self.kernel_size, part, self.filters)
        arguments = {**self._arguments, "offset_groups": self.offset_groups}
        image, offsets, mask = (*shapes, None, None)[:3]
        spec = deform_spec(image, kernel_shape, offsets, mask, **arguments)
        return spec, kernel_shape


def _is_shape(value):
    return isinstance(value, tuple | list) and all(
        n is None or is_integer(n) for n in value
    )
