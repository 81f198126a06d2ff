"""The child's side for PyTorch: times its convolutions on request.

`python kconv/benchmark/pytorch_worker.py THREADS` answers questions as `server.serve`
says; see `client.Worker`. It runs as a script under an interpreter that has PyTorch and
needs neither kconv nor TensorFlow, and so imports only files beside it.
"""

import sys

from problems import Problem
from server import Stopwatch, serve

# How PyTorch's tensors may lie in memory; the shape is channels first in both.
_FORMATS = {"contiguous": "contiguous_format", "channels_last": "channels_last"}


class Server:
    """Answers the questions of one parent process.

    Args:
        threads: Threads within an operation.
    """

    def __init__(self, threads):
        try:
            import torch
        except ModuleNotFoundError as error:
            raise RuntimeError(
                "PyTorch is missing: `pip install torch`, best into an environment of "
                "its own, and name its interpreter by --torch-python or "
                f"KCONV_TORCH_PYTHON. Received: {sys.executable}"
            ) from error
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self._torch = torch
        self._stopwatch = Stopwatch()

    def describe(self):
        """Version and instruction set."""
        torch = self._torch
        isa = torch.backends.cpu.get_cpu_capability()
        return {"pytorch": f"{torch.__version__}, {isa}"}

    def prepare(self, problem, candidate, limit=None):
        """Makes random operands and calls it."""
        torch = self._torch
        problem = Problem.from_json(problem)
        answer = {"refusal": None, "choice": "torch"}
        torch.manual_seed(0)
        try:
            call, arguments = make_call(
                torch,
                problem,
                _FORMATS[candidate["mode"]],
                lambda shape: torch.randn(shape).to(getattr(torch, problem.dtype)),
            )
            return answer | self._stopwatch.prepare(
                candidate["mode"], call, arguments, limit
            )
        except RuntimeError as error:
            return answer | {"refusal": str(error).splitlines()[0]}

    def time(self, candidate, seconds):
        """Measures a candidate that is prepared."""
        return {"seconds": self._stopwatch.measure(candidate["mode"], seconds)}

    def forget(self):
        """Frees the operands."""
        self._stopwatch.forget()
        return {}


def make_call(torch, problem, memory_format, tensor):
    """A pass of a problem.

    Args:
        torch: The module.
        problem: A `Problem`.
        memory_format: "contiguous_format" or "channels_last".
        tensor: A function that returns a tensor of a shape; it is asked for the image,
            (batch, channels, *size), the filter, (out_channels, channels, *kernel), and
            the gradient by the output.

    Returns:
        A function of the two operands that the pass takes, and the operands. Where the
        padding is uneven, which PyTorch's kernels do not know, the image is padded
        beforehand, and the gradient by it is that by the padded image.
    """
    layer = problem.layer
    before, after = layer.pads
    padding = before
    image = tensor(_channels_first(problem.input_shape))
    if before != after:
        image = torch.nn.functional.pad(image, (before, after) * layer.dims)
        padding = 0
    *size, channels, filters = problem.filter_shape
    operands = {
        "image": image,
        "kernel": tensor((filters, channels, *size)),
        "gradient": tensor(_channels_first(problem.output_shape)),
    }
    if memory_format == "channels_last" and layer.dims != 2:
        # In one dimension PyTorch knows no other.
        memory_format = {1: "contiguous_format", 3: "channels_last_3d"}[layer.dims]
    operands = {
        name: operand.contiguous(memory_format=getattr(torch, memory_format))
        for name, operand in operands.items()
    }
    image, kernel, gradient = operands.values()
    conv = getattr(torch.nn.functional, f"conv{layer.dims}d")
    backward = torch.ops.aten.convolution_backward

    def derive(image, kernel, gradient, mask):
        return backward(
            gradient,
            image,
            kernel,
            None,  # sizes of the bias
            [layer.stride] * layer.dims,
            [padding] * layer.dims,
            [layer.dilation] * layer.dims,
            False,  # transposed
            [0] * layer.dims,  # padding of a transposed one
            layer.groups,
            mask,
        )

    def forward(image, kernel):
        options = layer.stride, padding, layer.dilation, layer.groups
        return conv(image, kernel, None, *options)

    def input_gradient(gradient, kernel):
        return derive(image, kernel, gradient, [True, False, False])[0]

    def filter_gradient(image, gradient):
        return derive(image, kernel, gradient, [False, True, False])[1]

    return {
        "forward": (forward, (image, kernel)),
        "input_gradient": (input_gradient, (gradient, kernel)),
        "filter_gradient": (filter_gradient, (image, gradient)),
    }[problem.pass_]


def _channels_first(shape):
    batch, *size, channels = shape
    return batch, channels, *size


if __name__ == "__main__":
    serve(lambda: Server(int(sys.argv[1])))
