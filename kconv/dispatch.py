"""Which candidate computes a pass of a convolution, and the call of it.

Three passes make up a convolution and its derivatives of every order, and each of them
chooses for itself between kconv's kernels and stock's. Between its own algorithms
kconv's op chooses when it runs, so here is decided only whether stock's kernel,
"builtin", takes a pass.
"""

import dataclasses
import enum
import functools
import itertools
import typing

import tensorflow as tf

from kconv import builtin, gpu, native, runtime, settings
from kconv.epilogue import NO_EPILOGUE, Epilogue
from kconv.operands import Operands, Outline, sizes_of
from kconv.settings import AUTO, AUTO_STRICT

PASSES = ("forward", "input_gradient", "filter_gradient")
DTYPES = ("float16", "bfloat16", "float32", "float64")

# Which operand a pass computes from the other two.
_COMPUTES = {
    "forward": "output",
    "input_gradient": "input",
    "filter_gradient": "filter",
}

# Where a graph is built for an unknown batch, height or width, the choice is made for
# all of these, and if they do not agree, when the graph runs. Stock may have a buffer
# for one image, none for two (csrc/stock.cc).
_PROBED_BATCHES = (1, 2, 64)
_PROBED_SIZES = {1: (32, 512, 16384), 2: (7, 56, 224), 3: (8, 32, 96)}

# Where something has to be said of an unknown size it is taken to be this, as in the
# middle of an image network.
_ASSUMED_SIZE = 56


class Stock(enum.Enum):
    """Whether stock's kernel takes a pass."""

    NEVER = enum.auto()
    ALWAYS = enum.auto()
    DECIDED_AT_RUN_TIME = enum.auto()


class Terms(typing.NamedTuple):
    """What a choice heeds beside the problem.

    Attributes:
        deterministic: Bool, whether results must not depend on the number of threads,
            nor on anything that was measured.
        threads: Int, those within an operation; 0 on a GPU.
        generation: `native.generation()`, which stands for limits and measurements.
        device: String, `"cpu"` or `"gpu"`, where the problem is to be computed.
    """

    deterministic: bool = False
    threads: int = 1
    generation: int = 0
    device: str = "cpu"


def present_terms():
    """The `Terms` that hold now."""
    on_gpu = gpu.is_used()
    return Terms(
        runtime.is_deterministic(),
        0 if on_gpu else runtime.threads(),
        native.generation(),
        "gpu" if on_gpu else "cpu",
    )


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What an algorithm says about a problem.

    Attributes:
        algorithm: String, its name.
        refusal: String, the sentence why it does not take the problem, or None.
        seconds: Float, its estimate on one core, or None where there is none.
        workspace: Int, the bytes it needs beside its operands, or None where that is
            not known.
        multiplications: Float, those of its products, transforms aside, or None where
            that is not known.
        is_strict: Bool, whether it rounds as a plain sum does and lets no NaN out of
            the windows that hold it.
        is_measured: Bool, whether it was measured to be the fastest.
        correction: Float, by what measurements of other problems multiplied the
            estimate; 1 where none are known.
    """

    algorithm: str
    refusal: str | None = None
    seconds: float | None = None
    workspace: int | None = None
    multiplications: float | None = None
    is_strict: bool = True
    is_measured: bool = False
    correction: float = 1.0


def algorithms():
    """Returns the names of the algorithms that can be forced here.

    A family, whose name goes before a colon, comes ahead of its variants.
    """
    own = native.core().algorithms() if native.ops() else ()
    names = (name for variant in own for name in (_family(variant), variant))
    return [*dict.fromkeys(names), builtin.NAME]


def _family(algorithm):
    return algorithm.partition(":")[0]


def check_algorithm(algorithm):
    """Raises ValueError unless `algorithm` is a mode or one of `algorithms()`."""
    # Without the op library every name is fine: stock runs, and a model that was saved
    # with a name can be loaded.
    names = [AUTO, AUTO_STRICT, *algorithms()]
    if algorithm not in names and (native.ops() or not isinstance(algorithm, str)):
        raise ValueError(
            f"`algorithm` must be one of {names}. Received: algorithm={algorithm!r}"
        )


def is_auto(algorithm):
    """Whether a name lets stock's kernel run as well as kconv's."""
    return algorithm in (AUTO, AUTO_STRICT)


def why_stock(algorithm, dtype):
    """Returns why all passes run on stock ops, or None if they choose.

    Raises ValueError if `algorithm` is one of kconv's and does not take `dtype`.
    """
    if algorithm == builtin.NAME:
        return f"algorithm={algorithm!r} asks for stock ops."
    if native.ops() is None:
        return native.why_missing()
    if dtype not in DTYPES:
        sentence = f"kconv's kernels do not take {dtype}."
        if is_auto(algorithm):
            return sentence
        raise ValueError(f"{sentence} Received: algorithm={algorithm!r}, dtype={dtype}")
    if is_auto(algorithm) and runtime.has_gpu() and not gpu.is_used():
        return "A GPU is visible, and kconv's kernels run on the CPU only."
    if runtime.in_xla():
        return "XLA compiles this function, and cannot see into kconv's ops."
    return None


# Entries are of kilobytes: where every call has another shape, so many would be growth.
@functools.lru_cache(maxsize=256)
def problem(pass_, spec, input_shape, kernel_shape, dtype, device="cpu"):
    """Describes a problem to the core.

    Args:
        pass_: String, one of `PASSES`.
        spec: A `ConvSpec`.
        input_shape: Tuple of ints, all known.
        kernel_shape: Tuple of ints, all known.
        dtype: String, one of `DTYPES`.
        device: String, `"cpu"` or `"gpu"`.

    Returns:
        A `kconv._core.Problem`.

    Raises:
        ValueError: If sizes overflow.
    """
    size, kernel_size = spec.size(input_shape), kernel_shape[:-2]
    return native.core().Problem(
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
        device=device,
    )


@functools.lru_cache(maxsize=256)
def candidates(pass_, spec, input_shape, kernel_shape, dtype, terms):
    """Asks every algorithm about a problem.

    Args:
        pass_: As in `problem`.
        spec: As in `problem`.
        input_shape: As in `problem`.
        kernel_shape: As in `problem`.
        dtype: As in `problem`.
        terms: A `Terms`.

    Returns:
        A tuple of `Candidate`; the last one is stock's kernel.
    """
    asked = pass_, spec, input_shape, kernel_shape, dtype
    if terms.device == "gpu":
        key = problem(*asked, "gpu").key
        choice = None if terms.deterministic else native.choices().get((0, key))
        return tuple(Candidate(**row) for row in gpu.rows(*asked, choice))
    rows = problem(*asked).explain(
        algorithm=spec.algorithm,
        threads=terms.threads,
        deterministic=terms.deterministic,
        with_stock=True,
    )
    refusal = builtin.refusal(pass_, spec, kernel_shape, dtype)
    if refusal is not None:
        rows[-1] = {"algorithm": builtin.NAME, "refusal": refusal}
    return tuple(Candidate(**row) for row in rows)


def allowed(rows, algorithm):
    """Returns the `Candidate`s that a name allows: all, the strict ones or a family."""
    if is_auto(algorithm):
        return [row for row in rows if row.is_strict or algorithm == AUTO]
    return [row for row in rows if algorithm in (row.algorithm, _family(row.algorithm))]


def best(rows):
    """Returns the `Candidate` that runs, or None if all refuse.

    It is the one that was measured to be the fastest, else that of the lowest estimate.
    On a GPU, where there are no estimates, it is stock's kernel, or the first.
    """
    accepted = [row for row in rows if row.refusal is None]
    measured = [row for row in accepted if row.is_measured]
    racing = measured or accepted
    if any(row.seconds is None for row in racing):
        stock = [row for row in racing if row.algorithm == builtin.NAME]
        return (stock or racing)[0]
    return min(racing, key=lambda row: row.seconds, default=None)


def known_shape(spec, input_shape, kernel_shape, batch=1, size=_ASSUMED_SIZE):
    """Returns `input_shape` with what is assumed where it is unknown."""
    sizes = (
        max(size, needed) if n is None else n
        for n, needed in zip(
            spec.size(input_shape), spec.dilated(kernel_shape[:-2]), strict=True
        )
    )
    if input_shape[0] is not None:
        batch = input_shape[0]
    return spec.tensor_shape(batch, sizes, spec.channels(input_shape))


@functools.lru_cache(maxsize=1024)
def stock_takes(pass_, spec, input_shape, kernel_shape, dtype, terms):
    """Returns whether stock's kernel takes a pass.

    Args:
        pass_: As in `candidates`.
        spec: As in `candidates`.
        input_shape: Tuple of ints, None where unknown; None if the rank is.
        kernel_shape: Tuple of ints, None where unknown; None if the rank is.
        dtype: As in `candidates`.
        terms: As in `candidates`.

    Returns:
        A `Stock`.
    """
    if not is_auto(spec.algorithm) or dtype not in DTYPES:
        return Stock.NEVER
    if None in (input_shape, kernel_shape) or None in kernel_shape:
        return Stock.NEVER
    if spec.channels(input_shape) is None:
        return Stock.NEVER
    if builtin.refusal(pass_, spec, kernel_shape, dtype) or terms.deterministic:
        return Stock.NEVER
    shapes = {
        known_shape(spec, input_shape, kernel_shape, batch, size)
        for batch, size in itertools.product(_PROBED_BATCHES, _PROBED_SIZES[spec.dims])
    }
    answers = _measured_for(pass_, spec, input_shape, kernel_shape, dtype, terms)
    for shape in shapes:
        try:
            rows = candidates(pass_, spec, shape, kernel_shape, dtype, terms)
        except ValueError:  # what is assumed overflows, what comes need not
            continue
        answers.add(best(allowed(rows, spec.algorithm)).algorithm == builtin.NAME)
    if len(answers) > 1:
        return Stock.DECIDED_AT_RUN_TIME
    return Stock.ALWAYS if True in answers else Stock.NEVER


def _measured_for(pass_, spec, input_shape, kernel_shape, dtype, terms):
    """Whether stock was the fastest, for all measured problems that may come here."""
    answers = set()
    if None not in input_shape:
        return answers  # the candidates know
    shape = known_shape(spec, input_shape, kernel_shape)
    try:
        asked = pass_, spec, shape, kernel_shape, dtype, terms.device
        wanted = problem(*asked).key.split()
    except ValueError:
        return answers
    for (threads, key), name in native.choices().items():
        words = key.split()
        # The fourth word is the shape of the image, the last but one is the padding,
        # which may depend on it.
        same = (
            words[:3] + words[4:7] + words[8:] == wanted[:3] + wanted[4:7] + wanted[8:]
        )
        if threads == terms.threads and same:
            given = words[3].split("x")
            if len(given) == len(input_shape) and all(
                n is None or n == int(m)
                for n, m in zip(input_shape, given, strict=True)
            ):
                answers.add(name == builtin.NAME)
    return answers


def conv(spec, inputs, kernel, epilogue=NO_EPILOGUE, prepared=None, told=None):
    """Computes a convolution, each pass of it and of its gradients by its best kernel.

    Args:
        spec: A `ConvSpec`.
        inputs: A tensor.
        kernel: A tensor of the same dtype.
        epilogue: An `Epilogue`.
        prepared: A `Prepared`, or None.
        told: String, the operands that the caller knows and their shapes, for errors;
            by default `inputs` and `kernel`.

    Returns:
        A tensor.
    """
    spec = settings.heeded(spec)
    dtype = inputs.dtype.name
    shapes = tuple(inputs.shape), tuple(kernel.shape)
    if why_stock(spec.algorithm, dtype) or is_stock_on_gpu(spec, *shapes, dtype):
        return builtin.conv(spec, inputs, kernel, epilogue)
    # Of unknown sizes the op decides when it runs.
    if not is_auto(spec.algorithm) and None not in spec.size(shapes[0]):
        check_not_refused("forward", spec, *shapes, dtype, told)
    return run("forward", spec, Operands(inputs, kernel), epilogue, prepared)


def conv_transpose(spec, image, inputs, kernel, epilogue=NO_EPILOGUE, told=None):
    """Computes a transposed convolution: the input gradient of the one that it undoes.

    Args:
        spec: A `ConvSpec`, of the convolution from the output to `inputs`.
        image: An `Outline` of the output.
        inputs: A tensor.
        kernel: A tensor of the same dtype.
        epilogue: An `Epilogue`.
        told: As in `conv`.

    Returns:
        A tensor.
    """
    spec = settings.heeded(spec)
    dtype = inputs.dtype.name
    shape = tuple(image.shape)
    by_stock = why_stock(spec.algorithm, dtype) or 0 in inputs.shape[1:]
    if by_stock or is_stock_on_gpu(spec, shape, tuple(kernel.shape), dtype):
        result = builtin.conv_transpose(spec, image, inputs, kernel)
        return epilogue.apply(result, spec.data_format)
    several = kernel.shape[-2] == 1 and kernel.shape[-1] > spec.groups
    wanted = spec.groups > 1 or spec.algorithm == "depthwise"
    if several and wanted and not epilogue.is_empty:
        # The algorithm "depthwise", which these are for, refuses both together.
        plain = conv_transpose(spec, image, inputs, kernel, told=told)
        return epilogue.apply(plain, spec.data_format)
    if not is_auto(spec.algorithm) and None not in spec.size(shape):
        check_not_refused(
            "input_gradient", spec, shape, tuple(kernel.shape), dtype, told
        )
    result = run("input_gradient", spec, Operands(image, kernel, inputs), epilogue)
    if not tf.executing_eagerly():
        # The op knows no more of a size that is a tensor. Eagerly all is known, and
        # TensorFlow would keep a kernel of this for every shape.
        result = tf.ensure_shape(result, image.shape)
    return result


@functools.lru_cache(maxsize=1024)
def refusal(pass_, spec, input_shape, kernel_shape, dtype):
    """Returns why all that the algorithm of `spec` allows refuse a problem, or None."""
    shape = known_shape(spec, input_shape, kernel_shape)
    # Where there is a GPU, TensorFlow places the op on one device or the other later.
    devices = ("cpu", "gpu") if gpu.is_used() else ("cpu",)
    sentences = []
    for device in devices:
        terms = Terms(device=device)
        rows = candidates(pass_, spec, shape, kernel_shape, dtype, terms)
        rows = allowed(rows, spec.algorithm)
        if best(rows) is not None:
            return None
        sentences += [row.refusal for row in rows[:1]]
    return sentences[0]


def check_not_refused(pass_, spec, input_shape, kernel_shape, dtype, told=None):
    """Raises ValueError if all that the algorithm of `spec` allows refuse a problem."""
    sentence = refusal(pass_, spec, input_shape, kernel_shape, dtype)
    if sentence is not None:
        told = told or f"inputs.shape={input_shape}, kernel.shape={kernel_shape}"
        raise ValueError(f"{sentence} Received: algorithm={spec.algorithm!r}, {told}")


def is_stock_on_gpu(spec, input_shape, kernel_shape, dtype):
    """Whether a convolution and its gradients are left to stock's ops on a GPU.

    Nothing is estimated there. So they are, unless a kernel of kconv's was measured to
    be faster in a pass, and each of the others has a single stock kernel.
    """
    if not gpu.is_used() or not is_auto(spec.algorithm):
        return False
    terms = present_terms()
    if terms.deterministic or None in kernel_shape:
        return True
    if any(builtin.refusal(pass_, spec, kernel_shape, dtype) for pass_ in PASSES):
        return True
    asked = spec, input_shape, kernel_shape, dtype, terms
    return all(stock_takes(pass_, *asked) == Stock.ALWAYS for pass_ in PASSES)


def takes_all_passes(spec, input_shape, kernel_shape, dtype):
    """Whether what the algorithm of `spec` allows refuses no pass of a convolution."""
    if why_stock(spec.algorithm, dtype) or is_auto(spec.algorithm):
        return True
    problem = spec, input_shape, kernel_shape, dtype
    return all(refusal(pass_, *problem) is None for pass_ in PASSES)


def run(pass_, spec, operands, epilogue=NO_EPILOGUE, prepared=None):
    """Computes one pass by the kernel that is best for it.

    The estimates leave the epilogue out: it costs all kernels about the same. They
    leave out as well whether the filter is prepared, so that this changes no result.

    Args:
        pass_: String, one of `PASSES`.
        spec: A `ConvSpec`.
        operands: An `Operands`.
        epilogue: An `Epilogue`, which the filter gradient must not have.
        prepared: A `Prepared`, or None; for the forward pass only.

    Returns:
        A tensor, whose gradients again run by the kernels that are best for them.
    """
    asked = (
        spec,
        _static_shape(operands.input),
        _static_shape(operands.filter),
        operands.input.dtype.name,
        present_terms(),
    )
    stock = stock_takes(pass_, *asked)
    if stock == Stock.NEVER:
        return _run_native(pass_, spec, operands, epilogue, prepared)
    if not runtime.may_differentiate() or all(
        stock_takes(other, *asked) == Stock.ALWAYS for other in PASSES
    ):
        return _run_chosen(pass_, spec, operands, epilogue, prepared, stock)

    # Stock's kernel would bring its own gradients along.
    given = [name for name in Operands._fields if name != _COMPUTES[pass_]]
    biases = [] if epilogue.bias is None else [epilogue.bias]
    if stock == Stock.DECIDED_AT_RUN_TIME and runtime.has_tangents(
        [*(getattr(operands, name) for name in given), *biases]
    ):
        # In graphs forward mode does not ask custom gradients, and what chooses is held
        # back from it: see _run_chosen.
        return _run_native(pass_, spec, operands, epilogue, prepared)

    @tf.custom_gradient
    def with_gradients(first, second, *biases):
        inner = operands._replace(**{given[0]: first, given[1]: second})
        inner_epilogue = Epilogue(*biases, activation=epilogue.activation)
        result = _run_chosen(pass_, spec, inner, inner_epilogue, prepared, stock)

        def gradient(upstream):
            upstream, by_bias = inner_epilogue.gradients(
                result, upstream, spec.data_format
            )
            found = gradients(pass_, spec, inner, upstream)
            of_bias = [by_bias] if biases else []
            return [*(getattr(found, name) for name in given), *of_bias]

        return result, gradient

    return with_gradients(*(getattr(operands, name) for name in given), *biases)


def gradients(pass_, spec, operands, upstream):
    """Computes the gradients of a pass.

    The sum of output * conv(input, filter) is linear in each of the three operands, and
    a pass computes its derivative by one of them from the other two. So the gradients
    of a pass are the other two passes, with `upstream` in place of what it computed.

    Args:
        pass_: String, the pass whose gradients are wanted.
        spec: A `ConvSpec`.
        operands: An `Operands`, those of the pass.
        upstream: A tensor, the gradient by the result of the pass.

    Returns:
        An `Operands`: the gradient by each of the two operands of the pass.
    """
    operands = operands._replace(**{_COMPUTES[pass_]: upstream})
    return Operands(
        **{
            _COMPUTES[other]: run(other, spec, operands)
            for other in PASSES
            if other != pass_
        }
    )


def _run_chosen(pass_, spec, operands, epilogue, prepared, stock):
    def run_stock(operands, epilogue):
        result = builtin.run(pass_, spec, operands)
        return epilogue.apply(result, spec.data_format)

    if stock == Stock.ALWAYS:
        return run_stock(operands, epilogue)
    # Under a tape tf.cond differentiates its branches at once, and so the gradients of
    # these, without end. Nobody needs them: the caller knows the gradients.
    held = Operands(*(_held(operand) for operand in operands))
    if epilogue.bias is not None:
        epilogue = epilogue._replace(bias=tf.stop_gradient(epilogue.bias))
    return tf.cond(
        _prefers_stock(pass_, spec, held),
        lambda: run_stock(held, epilogue),
        lambda: _run_native(pass_, spec, held, epilogue, prepared),
    )


def _prefers_stock(pass_, spec, operands):
    return native.ops().kconv_prefers_stock(
        input_sizes=sizes_of(operands.input),
        filter_sizes=sizes_of(operands.filter),
        pass_name=pass_,
        device="GPU" if gpu.is_used() else "CPU",
        T=operands.input.dtype,
        **spec.attributes,
    )


def _run_native(pass_, spec, operands, epilogue=NO_EPILOGUE, prepared=None):
    x, kernel, dy = operands
    if pass_ == "forward":
        return native.ops().kconv_conv(
            input=x,
            filter=kernel,
            bias=[] if epilogue.bias is None else [epilogue.bias],
            prepared=[] if prepared is None else [prepared.form],
            source=[] if prepared is None else [prepared.source],
            activation=epilogue.activation,
            **spec.attributes,
        )
    if pass_ == "input_gradient":
        return native.ops().kconv_conv_backprop_input(
            input_sizes=sizes_of(x),
            filter=kernel,
            out_backprop=dy,
            bias=[] if epilogue.bias is None else [epilogue.bias],
            activation=epilogue.activation,
            **spec.attributes,
        )
    return native.ops().kconv_conv_backprop_filter(
        input=x, filter_sizes=sizes_of(kernel), out_backprop=dy, **spec.attributes
    )


def _static_shape(tensor):
    return None if tensor.shape.rank is None else tuple(tensor.shape)


def _held(operand):
    return (
        operand
        if operand is None or isinstance(operand, Outline)
        else (tf.stop_gradient(operand))
    )
