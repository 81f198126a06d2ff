"""The child's side for PyTorch: times its convolutions on request.

`python kconv/benchmark/pytorch_worker.py THREADS` answers questions as `server.serve`
says; see `reference_server`.
"""

import sys

from problems import channels_first
from reference_server import ReferenceServer
from server import serve

# How PyTorch's tensors may lie in memory; the shape is channels first in both.
_FORMATS = {"contiguous": "contiguous_format", "channels_last": "channels_last"}


class Server(ReferenceServer):
    """Answers the questions of one parent process.

    Args:
        threads: Threads within an operation.
    """

    name = "torch"

    def __init__(self, threads):
        import torch

        super().__init__()
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self._torch = torch

    def describe(self):
        """Version and instruction set."""
        torch = self._torch
        isa = torch.backends.cpu.get_cpu_capability()
        return {"torch": f"{torch.__version__}, {isa}"}

    def make_call(self, problem, mode):
        """A pass of a problem, of random operands; the mode is a memory format."""
        torch = self._torch
        torch.manual_seed(0)
        dtype = getattr(torch, problem.dtype)
        return make_call(
            torch, problem, _FORMATS[mode], lambda shape: torch.randn(shape).to(dtype)
        )


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
    image = tensor(channels_first(problem.input_shape))
    if before != after:
        image = torch.nn.functional.pad(image, (before, after) * layer.dims)
        padding = 0
    *size, channels, filters = problem.filter_shape
    operands = {
        "image": image,
        "kernel": tensor((filters, channels, *size)),
        "gradient": tensor(channels_first(problem.output_shape)),
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


if __name__ == "__main__":
    serve(lambda: Server(int(sys.argv[1])))
