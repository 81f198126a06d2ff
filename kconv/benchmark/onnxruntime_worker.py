"""The child's side for ONNX Runtime: times models of one convolution on request.

`python kconv/benchmark/onnxruntime_worker.py THREADS` answers questions as
`server.serve` says; see `reference_server`.
"""

import sys

from problems import channels_first
from reference_server import ReferenceServer, check_forward, weights_shape
from server import serve

TITLE = "ONNX Runtime"

# Versions of the format and of the operators: old ones, which every release reads.
_IR_VERSION, _OPSET = 8, 13

# Beyond the second it gives images layouts of its own.
_LEVELS = {"all": "ORT_ENABLE_ALL", "extended": "ORT_ENABLE_EXTENDED"}


class Server(ReferenceServer):
    """Answers the questions of one parent process.

    Args:
        threads: Threads within an operation.
    """

    name = "onnxruntime"

    def __init__(self, threads):
        super().__init__()
        self._threads = threads

    def describe(self):
        """The version."""
        import onnxruntime

        return {"onnxruntime": onnxruntime.__version__}

    def make_call(self, problem, mode):
        """A function that runs a session, and no arguments.

        The mode is the level of its optimizations, and "passive" if its threads do not
        spin while they wait.
        """
        import numpy

        check_forward(problem, TITLE)
        if problem.dtype == "bfloat16":
            raise RuntimeError("NumPy, which feeds ONNX Runtime, has no bfloat16.")
        generator = numpy.random.default_rng(0)

        def normal(shape):
            return generator.standard_normal(shape).astype(problem.dtype)

        image = normal(channels_first(problem.input_shape))
        weights = normal(weights_shape(problem))
        run, _ = make_session(problem, mode, self._threads, image, weights)
        return run, ()


def make_session(problem, mode, threads, image, weights):
    """A model of one convolution, compiled.

    Args:
        problem: A `Problem`.
        mode: As in `Server.make_call`.
        threads: Int.
        image: An array, (batch, channels, *size).
        weights: An array, (filters, channels // groups, *kernel).

    Returns:
        A function without arguments that runs it, and one that returns the result.
    """
    import onnxruntime

    level, _, passive = mode.partition(", ")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, _LEVELS[level]
    )
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0" if passive else "1"
    )
    try:
        session = onnxruntime.InferenceSession(
            _model(problem, weights), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        # Its exceptions have no public names.
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(image))
    binding.bind_output("y", "cpu")
    return (
        lambda: session.run_with_iobinding(binding),
        lambda: binding.get_outputs()[0].numpy(),
    )


def _model(problem, weights):
    from onnx import helper, numpy_helper

    layer = problem.layer
    element = helper.np_dtype_to_tensor_dtype(weights.dtype)
    node = helper.make_node(
        "Conv",
        ["x", "weights"],
        ["y"],
        strides=[layer.stride] * layer.dims,
        dilations=[layer.dilation] * layer.dims,
        # All the firsts, then all the lasts.
        pads=[pad for pad in layer.pads for _ in range(layer.dims)],
        group=layer.groups,
    )
    graph = helper.make_graph(
        [node],
        "convolution",
        [_value("x", element, problem.input_shape)],
        [_value("y", element, problem.output_shape)],
        [numpy_helper.from_array(weights, "weights")],
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    return model.SerializeToString()


def _value(name, element, shape):
    from onnx import helper

    return helper.make_tensor_value_info(name, element, channels_first(shape))


if __name__ == "__main__":
    serve(lambda: Server(int(sys.argv[1])))
