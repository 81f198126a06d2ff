"""Which problems each algorithm takes, apart from the code that says so."""

from tiling import taps_a_stride, transformed_axes


def takes(algorithm, case, dtype):
    """Whether an algorithm, or one of a family, takes a problem."""
    channels, filters = (
        n // case.groups for n in (case.in_channels, case.out_channels)
    )
    if algorithm == "depthwise":
        return channels == 1 and filters <= 256
    if algorithm == "grouped":
        return case.groups > 1 and 1 < channels <= 64 and filters <= 64
    if algorithm == "fft":
        return (
            len(case.kernel_size) < 3
            and (9 if channels == 1 else 7) <= max(case.kernel_size) <= 128
            and set(case.strides) == {1}
        )
    if algorithm.startswith("winograd"):
        return _winograd_takes(algorithm, case, dtype, min(channels, filters))
    return True


def _winograd_takes(algorithm, case, dtype, channels):
    axes = transformed_axes(case)
    if not axes or dtype == "float64" or channels < 4:
        return False
    of_axes = zip(case.kernel_size, case.strides, case.dilation_rate, strict=True)
    if any(s > k or (s > 1 and d > 1) for k, s, d in of_axes):
        return False
    if any(1 in (case.input_size[i], case.output_size[i]) for i in axes):
        return False
    return algorithm != "winograd:f6" or taps_a_stride(case)[axes[0]] == 3
