"""Which algorithm kconv takes for the convolutions of a layer, and what it saves."""

import dataclasses

from kconv import dispatch, explanation

# The pass of the convolution that a transposed one undoes.
_UNDONE = {"forward": "input_gradient", "input_gradient": "forward"}


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why an algorithm does not take a convolution.

    Attributes:
        layer: String, the name of the row.
        pass_: String, `"forward"`, `"input_gradient"` or `"filter_gradient"`.
        algorithm: String.
        sentence: String, the reason.
    """

    layer: str
    pass_: str
    algorithm: str
    sentence: str


def choose(call, pass_):
    """Asks what computes a pass of the convolutions of a call.

    Args:
        call: A `Call`.
        pass_: String, one of `dispatch.PASSES`.

    Returns:
        A tuple: the names of the algorithms joined by " + ", or None if there is no
        convolution; the multiplications of all together; and a list of `Refusal`.
    """
    names, multiplications, refusals = [], 0, []
    for one in call.convolutions:
        told = explain(one, pass_, call.dtype)
        chosen = next(row for row in told.candidates if row.algorithm == told.chosen)
        names.append(told.chosen)
        done = getattr(chosen, "multiplications", None)
        multiplications += one.macs if done is None else done
        refusals += [
            Refusal(call.name, pass_, row.algorithm, row.refusal)
            for row in told.candidates
            if row.refusal is not None
        ]
    if not names:
        return None, call.macs, []
    # What a layer of its own computes beside its convolutions.
    rest = (call.macs or 0) - sum(one.macs for one in call.convolutions)
    return " + ".join(dict.fromkeys(names)), multiplications + rest, refusals


def explain(convolution, pass_, dtype):
    """Returns the `Explanation` of a pass of a `Convolution`."""
    spec, pass_ = computed(convolution, pass_)
    problem = convolution.image_shape, convolution.kernel_shape, dtype
    try:
        return explanation.explain(pass_, spec, *problem)
    except ValueError:
        # The pointwise half of a separable convolution, which is not forced to it.
        spec = dataclasses.replace(spec, algorithm=dispatch.AUTO)
        return explanation.explain(pass_, spec, *problem)


def computed(convolution, pass_):
    """Returns what computes a pass of a `Convolution`: a `ConvSpec` and its pass.

    A transposed one is the input gradient of the convolution that it undoes.
    """
    spec = convolution.spec
    if convolution.padded_before:
        spec = dataclasses.replace(spec, padding="VALID")
    if convolution.is_transposed:
        pass_ = _UNDONE.get(pass_, pass_)
    return spec, pass_
