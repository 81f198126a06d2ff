"""How the reports of a profile write numbers, shapes and names."""

FOOTER = (
    "One MAC is one multiplication and one addition of a convolution or a product of"
    " matrices, by definition: taps on the padding are counted; biases, normalizations,"
    " activations, pooling and elementwise operations are not."
)


def shapes_of(row):
    """The shapes of all outputs of a row."""
    shape = row.output_shape
    return shape if shape and isinstance(shape[0], tuple) else (shape,) if shape else ()


def shape_text(shape):
    """A shape without the batch, such as `"28x28x256"`."""
    return "x".join(map(str, shape[1:])) or "scalar"


def decimal(number):
    """A number with three or four digits and a letter, such as `"118.0 M"`."""
    for unit in ("", " k", " M", " G", " T", " P"):
        if abs(number) < 1000 or unit == " P":
            return f"{number:.0f}" if not unit else f"{number:.1f}{unit}"
        number /= 1000


def binary(number):
    """Bytes, such as `"3.1 MiB"`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(number) < 1024 or unit == "TiB":
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024


def short(name, most=28):
    """A name, or its end if it is long."""
    return name if len(name) <= most else "…" + name[1 - most :]
