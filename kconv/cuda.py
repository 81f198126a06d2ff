"""The library of kconv's GPU kernels, `kconv/_cuda.so`: finding and calling it.

It is loaded only where NVIDIA's driver is there and new enough; whatever is wrong with
it, the CPU's kernels do not notice. This file needs the standard library only, so that
`tests/gpu` can load it by its path on a machine without TensorFlow.
"""

import ctypes
import dataclasses
import pathlib

LIBRARY = pathlib.Path(__file__).resolve().parent / "_cuda.so"
DRIVER = "libcuda.so.1"

# KCONV_CUDA_INTERFACE of csrc/cuda/kconv_cuda.h, which the structs below mirror.
INTERFACE = 2
PASSES = ("forward", "input_gradient", "filter_gradient")
DTYPES = ("float32", "float64", "bfloat16", "float16")
LAYOUTS = ("channels_last", "channels_first")
ACTIVATIONS = ("linear", "relu", "relu6")


class Problem(ctypes.Structure):
    """`kconv_cuda_problem`: one convolution."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("pass_", "dtype", "layout")),
        *((name, ctypes.c_int32) for name in ("dimensions", "has_bias", "activation")),
        *((name, ctypes.c_int64) for name in ("batch", "in_channels")),
        *((name, ctypes.c_int64) for name in ("out_channels", "groups")),
        *((name, ctypes.c_int64 * 3) for name in ("input", "kernel", "stride")),
        *((name, ctypes.c_int64 * 3) for name in ("dilation", "before", "after")),
    )


class Arguments(ctypes.Structure):
    """`kconv_cuda_arguments`: addresses in the memory of a GPU."""

    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in ("input", "filter", "output", "bias", "workspace")
    )


def problem(
    pass_,
    input_size,
    kernel_size,
    in_channels,
    out_channels,
    *,
    batch=1,
    groups=1,
    strides=None,
    dilation_rate=None,
    padding=None,
    layout="channels_last",
    dtype="float32",
    bias=False,
    activation="linear",
):
    """Returns the `Problem` of the words that `kconv._core.Problem` takes."""
    dims = len(input_size)

    def three(sizes, missing):
        sizes = (missing,) * dims if sizes is None else sizes
        if len(sizes) != dims or not 1 <= dims <= 3:
            raise ValueError(
                "Sizes must be those of one to three dimensions, as many everywhere. "
                f"Received: {input_size} and {sizes}"
            )
        return (ctypes.c_int64 * 3)(*(missing,) * (3 - dims), *sizes)

    pairs = ((0, 0),) * dims if padding is None else padding
    return Problem(
        PASSES.index(pass_),
        DTYPES.index(dtype),
        LAYOUTS.index(layout),
        dims,
        bias,
        ACTIVATIONS.index(activation),
        *(batch, in_channels, out_channels, groups),
        *(three(input_size, 1), three(kernel_size, 1)),
        *(three(strides, 1), three(dilation_rate, 1)),
        three([before for before, _ in pairs], 0),
        three([after for _, after in pairs], 0),
    )


class Deform(ctypes.Structure):
    """`kconv_cuda_deform`: one deformable convolution."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("pass_", "dtype", "has_mask")),
        *((name, ctypes.c_int32) for name in ("has_bias", "activation", "reserved")),
        *((name, ctypes.c_int64) for name in ("batch", "in_channels")),
        *((name, ctypes.c_int64) for name in ("out_channels", "groups")),
        ("offset_groups", ctypes.c_int64),
        *((name, ctypes.c_int64 * 2) for name in ("input", "kernel", "stride")),
        *((name, ctypes.c_int64 * 2) for name in ("dilation", "before", "after")),
    )


class DeformArguments(ctypes.Structure):
    """`kconv_cuda_deform_arguments`: addresses in the memory of a GPU."""

    _fields_ = tuple(
        (name, ctypes.c_void_p)
        for name in (
            *("input", "filter", "offsets", "mask", "bias", "output"),
            *("result", "offsets_gradient", "mask_gradient", "workspace"),
        )
    )


def deform(
    pass_,
    input_size,
    kernel_size,
    in_channels,
    out_channels,
    *,
    batch=1,
    groups=1,
    offset_groups=1,
    strides=(1, 1),
    dilation_rate=(1, 1),
    padding=((0, 0), (0, 0)),
    dtype="float32",
    mask=False,
    bias=False,
    activation="linear",
):
    """Returns the `Deform` of words like those of `problem`."""
    two = ctypes.c_int64 * 2
    return Deform(
        PASSES.index(pass_),
        DTYPES.index(dtype),
        mask,
        bias,
        ACTIVATIONS.index(activation),
        0,
        *(batch, in_channels, out_channels, groups, offset_groups),
        *(two(*input_size), two(*kernel_size), two(*strides), two(*dilation_rate)),
        two(*(before for before, _ in padding)),
        two(*(after for _, after in padding)),
    )


@dataclasses.dataclass(frozen=True)
class Status:
    """What there is of the GPU library, and why it is not in use, if it is not."""

    library: ctypes.CDLL | None = None
    why_missing: str | None = None
    version: str | None = None
    built_with: int | None = None  # CUDA's version as a number: 13000 is 13.0
    driver: int | None = None
    devices: int = 0


def find(version=None, path=LIBRARY):
    """Loads the GPU library where that can work.

    Args:
        version: String, the version of kconv that it must be of; None takes any.
        path: Path of the library.

    Returns:
        A `Status`. Its `library` is None, and `why_missing` a sentence, where the
        library, the driver or a GPU is missing or does not fit.
    """
    if not path.exists():
        return Status(why_missing=f"{path.name} is not built.")
    driver = driver_version()
    if driver is None:
        return Status(why_missing=f"{DRIVER}, NVIDIA's driver, cannot be loaded.")
    try:
        library = declared(ctypes.CDLL(str(path)))
    except (OSError, AttributeError) as error:
        return Status(why_missing=f"{path.name} cannot be loaded: {error}.")
    if library.kconv_cuda_interface() != INTERFACE:
        return Status(why_missing=f"{path.name} has another interface: build it again.")
    found = {
        "version": library.kconv_cuda_version().decode(),
        "built_with": library.kconv_cuda_runtime_version(),
        "driver": driver,
    }
    if version is not None and found["version"] != version:
        why = (
            f"{path.name} was built for kconv {found['version']}, but this is kconv "
            f"{version}: build it again."
        )
        return Status(why_missing=why, **found)
    # Within a major version an older driver will do.
    if driver // 1000 < found["built_with"] // 1000:
        why = (
            f"{path.name} needs a driver of CUDA {found['built_with'] // 1000}. "
            f"Received: one of CUDA {driver // 1000}.{driver % 1000 // 10}"
        )
        return Status(why_missing=why, **found)
    devices = library.kconv_cuda_devices()
    if devices == 0:
        return Status(why_missing="CUDA finds no GPU that it can use.", **found)
    return Status(library, devices=devices, **found)


def driver_version(name=DRIVER):
    """Returns the CUDA version that NVIDIA's driver knows, as 13000, or None."""
    try:
        driver = ctypes.CDLL(name)
        version = ctypes.c_int()
        if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return version.value


def algorithms(library):
    """Returns the names of the algorithms that GPUs have, best first."""
    names = []
    while name := library.kconv_cuda_algorithm(len(names)):
        names.append(name.decode())
    return names


def declared(library):
    """Returns `library` with the types of its functions."""
    name, one, text = ctypes.c_char_p, ctypes.POINTER(Problem), ctypes.c_char_p
    arguments = ctypes.POINTER(Arguments)
    deform, of_deform = ctypes.POINTER(Deform), ctypes.POINTER(DeformArguments)
    for function, result, takes in (
        ("interface", ctypes.c_int, ()),
        ("version", text, ()),
        ("runtime_version", ctypes.c_int, ()),
        ("driver_version", ctypes.c_int, ()),
        ("devices", ctypes.c_int, ()),
        ("algorithm", text, (ctypes.c_int,)),
        ("is_strict", ctypes.c_int, (name,)),
        ("refuse", text, (name, one)),
        ("workspace", ctypes.c_int64, (name, one)),
        ("run", text, (name, one, arguments, ctypes.c_void_p)),
        ("deform_refuse", text, (deform,)),
        ("deform_workspace", ctypes.c_int64, (deform,)),
        ("deform_run", text, (deform, of_deform, ctypes.c_void_p)),
    ):
        entry = getattr(library, f"kconv_cuda_{function}")
        entry.restype, entry.argtypes = result, takes
    return library
