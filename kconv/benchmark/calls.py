"""TensorFlow's calls that are timed: kconv's, and how any are called."""

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2,
)

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


def frozen(call, operand, kernel):
    """A graph that holds the kernel as a constant, as a model for inference does.

    Args:
        call: A function of two tensors.
        operand: The first of them, whose shape the graph has.
        kernel: The second.

    Returns:
        A function of the first.
    """
    variable = tf.Variable(kernel, trainable=False)

    @tf.function
    def with_variable(operand):
        return call(operand, variable.value())

    graph = convert_variables_to_constants_v2(
        with_variable.get_concrete_function(tf.TensorSpec(operand.shape, operand.dtype))
    )
    # To call what was frozen as it is takes milliseconds.
    return tf.function(lambda operand: graph(operand))


def operands(problem):
    """Random tensors for a `Problem`'s pass, in the order its call takes them."""
    return random_operands(
        problem.pass_,
        problem.dtype,
        problem.arranged(problem.input_shape),
        problem.filter_shape,
        problem.arranged(problem.output_shape),
    )


def random_operands(pass_, dtype, input_shape, filter_shape, output_shape):
    """Random tensors that a pass works on, in the order its call takes them.

    Args:
        pass_: Name of a pass.
        dtype: String.
        input_shape: Tuple of ints, in the layout of the images.
        filter_shape: Tuple of ints.
        output_shape: Tuple of ints, like `input_shape`.

    Returns:
        A tuple of two tensors.
    """
    generator = tf.random.Generator.from_seed(0)
    shapes = {
        "forward": (input_shape, filter_shape),
        "input_gradient": (output_shape, filter_shape),
        "filter_gradient": (input_shape, output_shape),
    }[pass_]
    return tuple(tf.cast(generator.normal(shape), dtype) for shape in shapes)


def kconv(problem, algorithm):
    """A function of the operands that runs kconv.

    Args:
        problem: A `Problem`.
        algorithm: "auto", "auto:strict" or a name out of `kconv.ops.algorithms()`.

    Returns:
        A sentence if the algorithm refuses the problem, or None; the name of the
        algorithm that runs; a function of the operands.
    """
    if native.ops() is None:
        return native.why_missing(), "", None
    input_shape = problem.arranged(problem.input_shape)
    shapes = input_shape, problem.filter_shape
    options = {
        "strides": problem.layer.stride,
        "padding": problem.layer.padding,
        "data_format": problem.layout,
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
        "input_gradient": tf.zeros(input_shape, problem.dtype),
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
