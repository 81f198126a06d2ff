"""The child's side for OpenVINO: times models of one convolution on request.

`python kconv/benchmark/openvino_worker.py THREADS` answers questions as `server.serve`
says; see `reference_server`.
"""

import sys

from problems import channels_first
from reference_server import ReferenceServer, check_forward, weights_shape
from server import serve

TITLE = "OpenVINO"

_TYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


class Server(ReferenceServer):
    """Answers the questions of one parent process.

    Args:
        threads: Threads of a model.
    """

    name = "openvino"

    def __init__(self, threads):
        super().__init__()
        self._threads = threads

    def describe(self):
        """The version."""
        import openvino

        return {"openvino": openvino.__version__}

    def make_call(self, problem, mode):
        """A function that runs a compiled model, and no arguments.

        The mode is the precision that it may compute in, "f32" or "default", and
        "unpinned" if its threads may move between processors.
        """
        import numpy

        check_forward(problem, TITLE)
        if problem.dtype not in _TYPES:
            raise RuntimeError(f"{TITLE} computes no {problem.dtype} on a CPU.")
        generator = numpy.random.default_rng(0)
        shapes = channels_first(problem.input_shape), weights_shape(problem)
        image, weights = (
            generator.standard_normal(shape, dtype="float32") for shape in shapes
        )
        request = make_request(problem, mode, self._threads, image, weights)
        return request.infer, ()


def make_request(problem, mode, threads, image, weights):
    """A model of one convolution, compiled, and with its input set.

    Args:
        problem: A `Problem`.
        mode: As in `Server.make_call`.
        threads: Int.
        image: An array of float32, (batch, channels, *size).
        weights: An array of float32, (filters, channels // groups, *kernel).

    Returns:
        An `openvino.InferRequest`.
    """
    import openvino
    from openvino import opset13 as ops

    layer = problem.layer
    element = getattr(openvino.Type, _TYPES[problem.dtype])
    before, after = layer.pads
    x = ops.parameter(openvino.Shape(image.shape), element)
    if layer.groups > 1:
        weights = weights.reshape(layer.groups, -1, *weights.shape[1:])
    run = ops.group_convolution if layer.groups > 1 else ops.convolution
    y = run(
        x,
        ops.constant(weights, element),
        [layer.stride] * layer.dims,
        [before] * layer.dims,
        [after] * layer.dims,
        [layer.dilation] * layer.dims,
    )
    precision, _, unpinned = mode.partition(", ")
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision != "default":
        options["INFERENCE_PRECISION_HINT"] = precision
    if unpinned:
        options["ENABLE_CPU_PINNING"] = False
    model = openvino.Model([y], [x], "convolution")
    request = openvino.compile_model(model, "CPU", options).create_infer_request()
    tensor = openvino.Tensor(element, openvino.Shape(image.shape))
    if problem.dtype == "bfloat16":
        # NumPy knows no such numbers: they are the upper halves of float32.
        tensor.data.view("uint16")[:] = image.view("uint32") >> 16
    else:
        tensor.data[:] = image
    request.set_input_tensor(tensor)
    return request


if __name__ == "__main__":
    serve(lambda: Server(int(sys.argv[1])))
