"""What kconv's kernels for GPUs say of a problem, where they are in use.

They are in use by the environment variable `KCONV_GPU=1`; see `docs/gpu.md`.
"""

from kconv import builtin, cuda, native, runtime


def is_used():
    """Whether kconv's ops run on a GPU where TensorFlow places them on one."""
    return native.gpu() is not None and runtime.has_gpu()


def rows(pass_, spec, input_shape, kernel_shape, dtype, choice):
    """Asks every algorithm that GPUs have about a problem.

    Nothing is estimated there: TensorFlow's own kernel runs unless another one was
    measured to be faster.

    Args:
        pass_: String, the name of a pass.
        spec: A `ConvSpec`.
        input_shape: Tuple of ints, all known.
        kernel_shape: Tuple of ints, all known.
        dtype: String.
        choice: String, the name of what was measured to be the fastest, or None.

    Returns:
        A list of dictionaries, the arguments of `dispatch.Candidate`; the last one is
        stock's kernel.
    """
    library, limit = native.gpu(), native.workspace_limit()
    size, kernel_size = spec.size(input_shape), kernel_shape[:-2]
    asked = cuda.problem(
        pass_,
        size,
        kernel_size,
        spec.channels(input_shape),
        kernel_shape[-1],
        batch=input_shape[0],
        groups=spec.groups,
        strides=spec.strides,
        dilation_rate=spec.dilation_rate,
        padding=spec.pads(size, kernel_size),
        layout=spec.data_format,
        dtype=dtype,
    )
    found = []
    for name in cuda.algorithms(library):
        refusal = library.kconv_cuda_refuse(name.encode(), asked)
        bytes_ = None if refusal else library.kconv_cuda_workspace(name.encode(), asked)
        found.append(
            {
                "algorithm": name,
                "refusal": refusal.decode() if refusal else None,
                "workspace": bytes_,
                "is_strict": bool(library.kconv_cuda_is_strict(name.encode())),
                # One that may not run now leaves the pass to stock's kernel.
                "is_measured": choice == name
                and not refusal
                and (limit is None or bytes_ <= limit),
            }
        )
    return [
        *found,
        {
            "algorithm": builtin.NAME,
            "refusal": builtin.refusal(pass_, spec, kernel_shape, dtype),
            "is_measured": choice == builtin.NAME,
        },
    ]
