"""The answer of `kconv.ops.explain`."""

from dataclasses import dataclass

from kconv import builtin, dispatch, native, settings


@dataclass(frozen=True)
class Explanation:
    """What each algorithm says about a problem, and which one runs.

    Attributes:
        pass_: String, `"forward"`, `"input_gradient"` or `"filter_gradient"`.
        input_shape: Tuple of ints, the shape that was estimated.
        kernel_shape: Tuple of ints.
        dtype: String.
        candidates: Tuple of `kconv.dispatch.Candidate`, each with `algorithm`,
            `refusal` (a sentence, or None), `seconds` (estimated on one core, or None),
            `workspace` (bytes, or None), `multiplications` (of its products, or
            None), `is_strict`, `is_measured` and `correction` (what measurements of
            other problems multiplied the estimate by).
        chosen: String, the algorithm that runs.
        reason: String, the sentence why.

    `str()` of it is a table.
    """

    pass_: str
    input_shape: tuple
    kernel_shape: tuple
    dtype: str
    candidates: tuple
    chosen: str
    reason: str

    def __str__(self):
        width = max(len(row.algorithm) for row in self.candidates)
        lines = [
            f"{self.pass_} of {self.input_shape} * {self.kernel_shape}, {self.dtype}"
        ]
        for row in self.candidates:
            marker = ">" if row.algorithm == self.chosen else " "
            lines.append(f"{marker} {row.algorithm:{width}}  {_text(row)}")
        return "\n".join([*lines, f"{self.chosen}: {self.reason}"])


def _text(row):
    if row.refusal is not None:
        return row.refusal
    parts = []
    if row.seconds is not None:
        parts.append(f"{1e3 * row.seconds:10.4g} ms on one core")
    if row.workspace is not None:
        parts.append(f"workspace {row.workspace / 1024:.4g} KiB")
    return ", ".join(parts) or "not estimated"


def explain(pass_, spec, input_shape, kernel_shape, dtype):
    """Returns an `Explanation`; the arguments are those of `dispatch.candidates`.

    Args:
        pass_: String, one of `dispatch.PASSES`.
        spec: A `ConvSpec`.
        input_shape: Tuple of ints; None for an unknown batch or size.
        kernel_shape: Tuple of ints.
        dtype: String.

    Returns:
        An `Explanation`.

    Raises:
        ValueError: If a forced algorithm does not take the problem.
    """
    shape = dispatch.known_shape(spec, input_shape, kernel_shape)
    terms = dispatch.present_terms()
    why_stock = dispatch.why_stock(spec.algorithm, dtype)
    if native.ops() is None or dtype not in dispatch.DTYPES:
        rows = (dispatch.Candidate(builtin.NAME),)
    else:
        rows = dispatch.candidates(pass_, spec, shape, kernel_shape, dtype, terms)
    asked, spec = spec.algorithm, settings.heeded(spec)
    if why_stock:
        chosen, reason = builtin.NAME, why_stock
    elif not dispatch.is_auto(asked):
        dispatch.check_not_refused(pass_, spec, shape, kernel_shape, dtype)
        winner = dispatch.best(dispatch.allowed(rows, asked))
        chosen = asked if winner is None else winner.algorithm
        reason = f"algorithm={asked!r} asks for it."
        if winner is None:
            reason += " The CPU takes it only, which the op must be placed on."
        elif chosen != asked:
            first = "first" if terms.device == "gpu" else "lowest estimate"
            reason = f"The {first} of those that algorithm={asked!r} allows."
    elif dispatch.is_stock_on_gpu(spec, input_shape, kernel_shape, dtype):
        chosen = builtin.NAME
        reason = (
            "On a GPU nothing is estimated, and TensorFlow's ops run unless kconv.tune"
            " measured that others are faster."
        )
    else:
        allowed = dispatch.allowed(rows, spec.algorithm)
        winner = dispatch.best(allowed)
        chosen = winner.algorithm
        accepted = sum(row.refusal is None for row in allowed)
        reason = "The lowest estimate" if accepted > 1 else "The only one to take it"
        if winner.is_measured:
            reason = "Measured by kconv.tune to be the fastest"
        if spec.algorithm == dispatch.AUTO_STRICT:
            reason += f" of the strict ones, for which {_who_wants_strict(asked)} asks"
        reason += "."
        stock = dispatch.stock_takes(
            pass_, spec, input_shape, kernel_shape, dtype, terms
        )
        if stock == dispatch.Stock.DECIDED_AT_RUN_TIME:
            reason += (
                " The batch or a size is unknown: whether builtin runs is decided anew"
                " for each."
            )
    return Explanation(pass_, shape, tuple(kernel_shape), dtype, rows, chosen, reason)


def _who_wants_strict(asked):
    if asked == dispatch.AUTO_STRICT:
        return f"algorithm={asked!r}"
    return "kconv.set_accuracy('strict')"
