"""The child's side for torchvision: times its deformable convolution on request.

`python kconv/benchmark/torchvision_worker.py THREADS` answers questions as
`server.serve` says; see `reference_server`.
"""

import sys

from deformable_problem import FORWARD, Deformable
from reference_server import ReferenceServer
from server import serve


class Server(ReferenceServer):
    """Answers the questions of one parent process.

    Args:
        threads: Threads within an operation.
    """

    name = "torchvision"
    problem_class = Deformable

    def __init__(self, threads):
        import torch
        import torchvision

        super().__init__()
        torch.set_num_threads(threads)
        self._torch, self._torchvision = torch, torchvision

    def describe(self):
        """Versions and instruction set."""
        torch = self._torch
        isa = torch.backends.cpu.get_cpu_capability()
        words = f"{self._torchvision.__version__}, torch {torch.__version__}, {isa}"
        return {"torchvision": words}

    def make_call(self, problem, mode):
        """A pass of a problem, of random operands; there is one mode."""
        del mode
        torch = self._torch
        torch.manual_seed(0)
        function = self._torchvision.ops.deform_conv2d
        dtype = getattr(torch, problem.dtype)
        # Images as PyTorch has them: the channels ahead of the places.
        image, kernel, offsets, mask = (
            torch.randn((shape[0], shape[-1], *shape[1:-1])).to(dtype)
            for shape in problem.shapes
        )
        kernel = kernel.permute(1, 3, 0, 2).contiguous()
        operands = image, offsets, kernel, torch.sigmoid(mask)
        padding = kernel.shape[-1] // 2

        def forward(image, offsets, kernel, mask):
            with torch.no_grad():
                return function(image, offsets, kernel, padding=padding, mask=mask)

        def train(*operands):
            image, offsets, kernel, mask = operands
            y = function(image, offsets, kernel, padding=padding, mask=mask)
            return torch.autograd.grad(y, operands, upstream)

        if problem.pass_ == FORWARD:
            return forward, operands
        upstream = torch.randn(operands[0].shape).to(dtype)
        return train, tuple(one.requires_grad_() for one in operands)


if __name__ == "__main__":
    serve(lambda: Server(int(sys.argv[1])))
