"""Memory, streams and events of a GPU, by PyTorch or CuPy; and kconv's library.

The files of this folder import nothing of kconv but `kconv/cuda.py`, by its path, so
they need no TensorFlow.
"""

import ctypes
import dataclasses
import importlib.util
import os
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))


def _load_interface():
    path = ROOT / "kconv" / "cuda.py"
    spec = importlib.util.spec_from_file_location("kconv_cuda_interface", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


interface = _load_interface()


def library():
    """The loaded GPU library; ends the program where it cannot be used."""
    status = interface.find()
    if status.library is None:
        sys.exit(f"The GPU library cannot be used: {status.why_missing}")
    return status.library


@dataclasses.dataclass(frozen=True)
class Peaks:
    """What a GPU can do at most, by the clocks that its driver tells."""

    bandwidth: float  # bytes a second of the memory
    flops: float  # float32 operations a second, without tensor cores
    cache: int  # bytes of the second level


def peaks(number=0, driver=None):
    """The `Peaks` of a GPU: not every PyTorch tells the clocks."""
    driver = driver or ctypes.CDLL(interface.DRIVER)
    gpu = ctypes.c_int()

    def call(name, *arguments):
        error = getattr(driver, name)(*arguments)
        if error:
            raise RuntimeError(f"{name} failed. Received: error {error}")

    def attribute(which):
        value = ctypes.c_int()
        call("cuDeviceGetAttribute", ctypes.byref(value), which, gpu)
        return value.value

    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(gpu), number)
    # CU_DEVICE_ATTRIBUTE_CLOCK_RATE and so on, of cuda.h; rates in kHz.
    clock, processors, memory, bits, cache = map(attribute, (13, 16, 36, 37, 38))
    lanes = 64 if (attribute(75), attribute(76)) == (8, 0) else 128
    # Memory moves data twice a clock; a multiply-add is two operations.
    bandwidth = 2 * memory * 1e3 * bits / 8
    return Peaks(bandwidth, 2 * lanes * processors * clock * 1e3, cache)


class Torch:
    """Tensors of PyTorch, as bits where NumPy has no such type."""

    def __init__(self, pooled):
        """Fails where PyTorch or its CUDA is missing."""
        if not pooled:
            os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
        import torch

        if not torch.cuda.is_available():
            raise ImportError("this PyTorch sees no GPU")
        self.torch = torch
        self.name = f"PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
        self.gpu = torch.cuda.get_device_name()

    def put(self, array):
        """A copy of an array on the GPU."""
        bits = np.ascontiguousarray(array)
        if bits.dtype.itemsize == 2:
            bits = bits.view(np.int16)
        return self.torch.from_numpy(bits.copy()).cuda()

    def empty(self, byte_count):
        """Bytes of the GPU's memory, each 0xff: NaN in every type."""
        options = {"dtype": self.torch.uint8, "device": "cuda"}
        return self.torch.full((max(16, byte_count),), 255, **options)

    def address(self, tensor):
        """Where a tensor lies."""
        return tensor.data_ptr()

    def get(self, tensor, shape, dtype):
        """A tensor's bytes as an array."""
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = tensor.cpu().numpy().reshape(-1).view(np.uint8)[:count]
        return raw.view(dtype).reshape(shape)

    def stream(self):
        """The stream that work is put on."""
        return self.torch.cuda.current_stream().cuda_stream

    def wait(self):
        """Waits for the GPU; raises what went wrong there."""
        self.torch.cuda.synchronize()


class CuPy:
    """The same by CuPy."""

    def __init__(self, pooled):
        """Fails where CuPy or a GPU is missing."""
        import cupy

        if not pooled:
            cupy.cuda.set_allocator(None)
        self.cupy = cupy
        properties = cupy.cuda.runtime.getDeviceProperties(0)
        self.name = f"CuPy {cupy.__version__}"
        self.gpu = properties["name"].decode()

    def put(self, array):
        """A copy of an array on the GPU."""
        bits = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return self.cupy.asarray(bits)

    def empty(self, byte_count):
        """Bytes of the GPU's memory, each 0xff: NaN in every type."""
        return self.cupy.full(max(16, byte_count), 255, self.cupy.uint8)

    def address(self, tensor):
        """Where a tensor lies."""
        return tensor.data.ptr

    def get(self, tensor, shape, dtype):
        """A tensor's bytes as an array."""
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self.cupy.asnumpy(tensor)[:count].view(dtype).reshape(shape)

    def stream(self):
        """The stream that work is put on."""
        return self.cupy.cuda.get_current_stream().ptr

    def wait(self):
        """Waits for the GPU; raises what went wrong there."""
        self.cupy.cuda.Device().synchronize()


def find(pooled=True):
    """A `Torch` or a `CuPy`; ends the program where there is neither.

    Where `pooled` is false each tensor has memory of its own from CUDA: of a pool,
    compute-sanitizer sees nothing but its ends.
    """
    reasons = []
    for kind in (Torch, CuPy):
        try:
            return kind(pooled)
        except Exception as error:
            reasons.append(f"{kind.__name__}: {error}")
    sys.exit("Neither PyTorch nor CuPy can use a GPU here. " + "; ".join(reasons))


class Call:
    """A pass of a problem on tensors of a device, as often as wanted."""

    def __init__(self, device, native, algorithm, words, tensors, shift=0):
        """Takes the words of `interface.problem`, and input, filter, output, bias.

        The tensors begin `shift` bytes after the memory that holds them.
        """
        self._device, self._native, self._name = device, native, algorithm.encode()
        self._problem = interface.problem(**words)
        self._by = ctypes.byref
        size = native.kconv_cuda_workspace(self._name, self._by(self._problem))
        if size < 0:
            raise ValueError(f"{algorithm} refuses {words}")
        self._kept = device.empty(size), tensors
        self._arguments = interface.Arguments(
            *(t if t is None else device.address(t) + shift for t in tensors),
            device.address(self._kept[0]),
        )

    def __call__(self):
        """Puts the work on the current stream."""
        error = self._native.kconv_cuda_run(
            self._name,
            self._by(self._problem),
            self._by(self._arguments),
            self._device.stream(),
        )
        if error:
            raise RuntimeError(error.decode())
