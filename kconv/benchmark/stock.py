"""TensorFlow's own kernels: three passes of stock, called directly."""

import tensorflow as tf

_SUFFIXES = {
    "forward": "",
    "input_gradient": "BackpropInput",
    "filter_gradient": "BackpropFilter",
}


def call(problem, native=False):
    """A function of the operands that runs TensorFlow's own kernel.

    TensorFlow computes groups with oneDNN, or compiled by XLA; otherwise the function
    raises an error. Of one dimension, which has no kernels of its own, it runs what
    Keras does. Images with the channels first are transposed, as Keras does on a CPU,
    and so are those that come out.

    Args:
        problem: A `Problem`.
        native: Whether such images are left to kernels for them, which TensorFlow has
            for a few passes in two dimensions, with oneDNN only; without one, the
            function raises an error.
    """
    if problem.layout == "channels_last":
        return _kernel(problem)
    if native:
        return _kernel(problem, "NCHW")
    run, dims = _kernel(problem), problem.layer.dims
    last = [0, *range(2, dims + 2), 1]
    first = [0, dims + 1, *range(1, dims + 1)]

    def transposed(one, other):
        if problem.pass_ == "filter_gradient":
            return run(tf.transpose(one, last), tf.transpose(other, last))
        return tf.transpose(run(tf.transpose(one, last), other), first)

    return transposed


def operands(problem, tensors):
    """The tensors of `calls.operands` as what `call` returns takes them."""
    if problem.pass_ == "filter_gradient":
        return tensors
    first, kernel = tensors
    return first, tf.reshape(kernel, _filter_shape(problem))


def _filter_shape(problem):
    """That of a depthwise layer is (height, width, channels, multiplier).

    In memory it is the same.
    """
    if problem.layer.kind != "depthwise":
        return problem.filter_shape
    layer = problem.layer
    multiplier = layer.out_channels // layer.in_channels
    return (layer.kernel, layer.kernel, layer.in_channels, multiplier)


def _kernel(problem, data_format=None):
    dims = problem.layer.dims
    if dims == 1:
        return _one_dimension(problem)
    options = {"strides": [1, *[problem.layer.stride] * dims, 1], "padding": "SAME"}
    input_shape = problem.input_shape
    if data_format:
        options["data_format"] = data_format
        options["strides"] = [1, 1, *[problem.layer.stride] * dims]
        input_shape = problem.arranged(input_shape)
    name = "DepthwiseConv2dNative" if problem.layer.kind == "depthwise" else "Conv2D"
    names = {pass_: name + suffix for pass_, suffix in _SUFFIXES.items()}
    if dims == 3:
        names = {
            "forward": "Conv3D",
            "input_gradient": "Conv3DBackpropInputV2",
            "filter_gradient": "Conv3DBackpropFilterV2",
        }
    run = getattr(tf.raw_ops, names[problem.pass_])

    def forward(image, kernel):
        return run(input=image, filter=kernel, **options)

    def input_gradient(gradient, kernel):
        return run(
            input_sizes=input_shape, filter=kernel, out_backprop=gradient, **options
        )

    def filter_gradient(image, gradient):
        return run(
            input=image,
            filter_sizes=_filter_shape(problem),
            out_backprop=gradient,
            **options,
        )

    return {
        "forward": forward,
        "input_gradient": input_gradient,
        "filter_gradient": filter_gradient,
    }[problem.pass_]


def _one_dimension(problem):
    layer = problem.layer

    def forward(image, kernel):
        padded = tf.pad(image, [[0, 0], layer.pads, [0, 0]])
        return tf.nn.convolution(padded, kernel, dilations=layer.dilation)

    def derived(image, kernel, gradient, of):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(of)
            output = forward(image, kernel)
        return tape.gradient(output, of, gradient)

    def input_gradient(gradient, kernel):
        image = tf.zeros(problem.input_shape, problem.dtype)
        return derived(image, kernel, gradient, image)

    def filter_gradient(image, gradient):
        kernel = tf.zeros(problem.filter_shape, problem.dtype)
        return derived(image, kernel, gradient, kernel)

    return {
        "forward": forward,
        "input_gradient": input_gradient,
        "filter_gradient": filter_gradient,
    }[problem.pass_]
