"""The distinct problems of a model that `algorithm="auto"` decides."""

import dataclasses
import math

from kconv import builtin, dispatch, explanation, gpu, profiler, settings
from kconv.profiler import algorithms
from kconv.spec import ConvSpec


@dataclasses.dataclass
class Problem:
    """A pass of a convolution, and where a model has it.

    Attributes:
        key: String, all that decides what is fastest.
        pass_: String, the pass that is computed: of a transposed convolution the one of
            the convolution that it undoes.
        spec: `ConvSpec`, with the mode as its algorithm.
        input_shape: Tuple of ints.
        filter_shape: Tuple of ints.
        output_shape: Tuple of ints.
        dtype: String.
        candidates: Dictionary from the name of an algorithm that `auto` may take to its
            estimate in seconds, cheapest first; 0 on a GPU, where there is none.
        before: String, what `auto` takes now.
        layers: List of strings, names of the layers that have it.
        uses: Int, how often a step computes it.
    """

    key: str
    pass_: str
    spec: ConvSpec
    input_shape: tuple
    filter_shape: tuple
    output_shape: tuple
    dtype: str
    candidates: dict
    before: str
    layers: list = dataclasses.field(default_factory=list)
    uses: int = 0

    @property
    def estimate(self):
        """Float, seconds that a step is thought to spend on it."""
        return self.uses * self.candidates.get(self.before, 0.0)


@dataclasses.dataclass(frozen=True)
class Omitted:
    """A convolution that is not measured.

    Attributes:
        layer: String.
        sentence: String, why.
    """

    layer: str
    sentence: str


def collect(model, input_shape, batch_sizes, passes, dtype=None):
    """Finds the problems of a model.

    Args:
        model: A `keras.Layer`, with stock layers or kconv's.
        input_shape: As in `kconv.profile`.
        batch_sizes: Tuple of positive ints.
        passes: Tuple of names of passes.
        dtype: String, to take instead of what the model computes in, or None.

    Returns:
        A list of `Problem`, the most expensive first, and a list of `Omitted`.

    Raises:
        ValueError: As `kconv.profile`.
    """
    found, omitted = {}, {}
    for batch_size in batch_sizes:
        tracer, _, _ = profiler.trace(model, input_shape, batch_size)
        for call in tracer.calls:
            for convolution in call.convolutions:
                sentence = why_omitted(convolution, dtype or call.dtype)
                if sentence:
                    omitted[Omitted(call.name, sentence)] = None
                    continue
                for pass_ in passes:
                    one = _problem(convolution, pass_, dtype or call.dtype)
                    one = found.setdefault(one.key, one)
                    one.uses += 1
                    if call.name not in one.layers:
                        one.layers.append(call.name)
    problems = sorted(found.values(), key=lambda one: -one.estimate)
    return problems, list(omitted)


def why_omitted(convolution, dtype):
    """Returns the sentence why a `Convolution` is not measured, or None."""
    algorithm = convolution.spec.algorithm
    if not dispatch.is_auto(algorithm):
        return f"algorithm={algorithm!r} leaves nothing to choose."
    if algorithm == settings.AUTO_STRICT and settings.accuracy() != "strict":
        return (
            f'algorithm={algorithm!r} chooses among others than "auto" does: after'
            " kconv.set_accuracy('strict') those are measured."
        )
    if gpu.is_used() and any(
        builtin.refusal(pass_, convolution.spec, convolution.kernel_shape, dtype)
        for pass_ in dispatch.PASSES
    ):
        return (
            "On a GPU it is left to TensorFlow's ops, which have no one kernel for it."
        )
    if 0 in (*convolution.image_shape, *convolution.output_shape):
        return "It is empty."
    return dispatch.why_stock(algorithm, dtype)


def _problem(convolution, pass_, dtype):
    spec, pass_ = algorithms.computed(convolution, pass_)
    spec = settings.heeded(spec)
    shapes = convolution.image_shape, convolution.kernel_shape
    device = dispatch.present_terms().device
    core = dispatch.problem(pass_, spec, *shapes, dtype, device)
    told = explanation.explain(pass_, spec, *shapes, dtype)
    rows = dispatch.allowed(told.candidates, spec.algorithm)
    accepted = [row for row in rows if row.refusal is None]
    return Problem(
        key=core.key,
        pass_=pass_,
        spec=spec,
        input_shape=tuple(core.input_shape),
        filter_shape=tuple(core.filter_shape),
        output_shape=tuple(core.output_shape),
        dtype=dtype,
        candidates={
            row.algorithm: row.seconds or 0.0
            for row in sorted(accepted, key=lambda row: row.seconds or 0.0)
        },
        before=told.chosen,
    )


def text(problem):
    """A problem in a few words, such as `"56x56x64 3x3 -> 64, batch 8"`."""
    spec = problem.spec
    size = "x".join(map(str, spec.size(problem.input_shape)))
    kernel = "x".join(map(str, problem.filter_shape[:-2]))
    words = (
        f"{size}x{spec.channels(problem.input_shape)} {kernel}"
        f" -> {problem.filter_shape[-1]}"
    )
    if math.prod(spec.strides) > 1:
        words += f" /{'x'.join(map(str, dict.fromkeys(spec.strides)))}"
    if math.prod(spec.dilation_rate) > 1:
        words += f", dilation {'x'.join(map(str, dict.fromkeys(spec.dilation_rate)))}"
    if spec.groups > 1:
        words += f", {spec.groups} groups"
    if problem.dtype != "float32":
        words += f", {problem.dtype}"
    return f"{words}, batch {problem.input_shape[0]}"
