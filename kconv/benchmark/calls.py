"""TensorFlow's calls that are timed: three passes of stock and of kconv."""

import tensorflow as tf

from kconv import dispatch, native, ops, settings
from kconv.operands import Operands
from kconv.spec import conv_spec

# A graph computes a problem for about so long, at most so often.
_GRAPH_SECONDS = 1e-2
_MOST_REPETITIONS = 20


def repetitions(seconds):
    """How often a graph computes a problem that takes so long."""
    wanted = round(_GRAPH_SECONDS / seconds)
    return max(1, min(_MOST_REPETITIONS, wanted))


def in_sequence(call, count):
    """A graph of `count` calls, one after another, as layers are in a model.

    To call a `tf.function` takes a tenth of a millisecond or several, whatever is in
    it: more than many a layer, and the same for all.
    """

    @tf.function
    def sequence(*arguments):
        used = []
        for _ in range(count):
            # The order keeps the calls from being merged, the use of an element each
            # from being left out.
            with tf.control_dependencies(used[-1:]):
                result = call(*arguments)
            used.append(tf.reshape(result, [-1])[0])
        return used

    return sequence


def operands(problem):
    """Random tensors for a problem's pass, in the order its call takes them."""
    generator = tf.random.Generator.from_seed(0)

    def normal(shape):
        return tf.cast(generator.normal(shape), problem.dtype)

    image = normal(problem.input_shape)
    kernel = normal(problem.filter_shape)
    gradient = normal(problem.output_shape)
    return {
        "forward": (image, kernel),
        "input_gradient": (gradient, kernel),
        "filter_gradient": (image, gradient),
    }[problem.pass_]


def stock_operands(problem, operands):
    """The same tensors as `stock` takes them."""
    if problem.pass_ == "filter_gradient":
        return operands
    first, kernel = operands
    return first, tf.reshape(kernel, _stock_filter_shape(problem))


def _stock_filter_shape(problem):
    """That of a depthwise layer is (height, width, channels, multiplier).

    In memory it is the same.
    """
    if problem.layer.kind != "depthwise":
        return problem.filter_shape
    layer = problem.layer
    multiplier = layer.out_channels // layer.in_channels
    return (layer.kernel, layer.kernel, layer.in_channels, multiplier)


def stock(problem):
    """A function of the operands that runs TensorFlow's own kernel.

    TensorFlow computes groups with oneDNN, or compiled by XLA; otherwise the function
    raises an error. Of one dimension, which has no kernels of its own, it runs what
    Keras does.
    """
    dims = problem.layer.dims
    if dims == 1:
        return _stock_1d(problem)
    options = {"strides": [1, *[problem.layer.stride] * dims, 1], "padding": "SAME"}
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
            input_sizes=problem.input_shape,
            filter=kernel,
            out_backprop=gradient,
            **options,
        )

    def filter_gradient(image, gradient):
        return run(
            input=image,
            filter_sizes=_stock_filter_shape(problem),
            out_backprop=gradient,
            **options,
        )

    return {
        "forward": forward,
        "input_gradient": input_gradient,
        "filter_gradient": filter_gradient,
    }[problem.pass_]


_SUFFIXES = {
    "forward": "",
    "input_gradient": "BackpropInput",
    "filter_gradient": "BackpropFilter",
}


def _stock_1d(problem):
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


def kconv(problem, algorithm):
    """The same for kconv.

    Args:
        problem: A `Problem`.
        algorithm: "auto", "auto:strict" or a name out of `kconv.ops.algorithms()`.

    Returns:
        A sentence if the algorithm refuses the problem, or None; the name of the
        algorithm that runs; a function of the operands.
    """
    if native.ops() is None:
        return native.why_missing(), "", None
    shapes = problem.input_shape, problem.filter_shape
    options = {
        "strides": problem.layer.stride,
        "padding": problem.layer.padding,
        "data_format": "channels_last",
        "dilation_rate": problem.layer.dilation,
    }
    asked = {"dtype": problem.dtype, "pass_": problem.pass_}
    rows = ops.explain(*shapes, **options, **asked).candidates
    rows = dispatch.allowed(rows, algorithm)
    if dispatch.best(rows) is None:
        return rows[0].refusal, "", None
    options["algorithm"] = algorithm
    chosen = ops.explain(*shapes, **options, **asked).chosen
    spec = settings.heeded(conv_spec(*shapes, **options))

    # The operand that a pass computes gives it nothing but a shape.
    computed = {
        "forward": None,
        "input_gradient": tf.zeros(problem.input_shape, problem.dtype),
        "filter_gradient": tf.zeros(problem.filter_shape, problem.dtype),
    }[problem.pass_]

    def call(first, second):
        operands = {
            "forward": (first, second, None),
            "input_gradient": (computed, second, first),
            "filter_gradient": (first, computed, second),
        }[problem.pass_]
        return dispatch.run(problem.pass_, spec, Operands(*operands))

    return None, chosen, call
