"""Ways to compute a problem, and what was measured of them."""

import dataclasses
import math
import statistics

# What TF_ENABLE_ONEDNN_OPTS can be, and as the user has it.
ENGINES = {
    "oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "1"},
    "Eigen": {"TF_ENABLE_ONEDNN_OPTS": "0"},
    "default": {},
}

# Between them stock's best is found: by default TensorFlow takes oneDNN on some
# processors only.
STOCK_ENGINES = ("oneDNN", "Eigen")

# How TensorFlow's calls are made.
GRAPH, EAGER, FROZEN, XLA = MODES = ("graph", "eager", "frozen", "xla")

# A graph with a kernel of TensorFlow's own for channels_first, where it has one.
NATIVE = "NCHW"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to compute a problem.

    Attributes:
        name: "stock"; one of `references.REFERENCES`; "auto" or another name of
            algorithms of kconv; or "dense", kconv's "auto" for the layer of the same
            width in one group.
        mode: Of TensorFlow one of `MODES`, or `NATIVE`; or one of the modes of a
            `Reference`.
        engine: Key of `ENGINES`: what TensorFlow's own kernels use; `XLA`, whose
            process is its own; or of the engines of a `Reference`.
    """

    name: str
    mode: str
    engine: str = "default"

    @property
    def setting(self):
        """How it was called, for the report."""
        if self.engine in ("default", self.name, self.mode):
            return self.mode
        return f"{self.mode}, {self.engine}"

    def to_json(self):
        """As a dictionary of the constructor's arguments."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What a candidate did on a problem.

    Attributes:
        problem: The `Problem`.
        candidate: The `Candidate`.
        seconds: Seconds of each call; empty if it refused.
        refusal: None, or a sentence.
        choice: Name of the algorithm that ran; of stock's best the implementation.
    """

    problem: object
    candidate: Candidate
    seconds: list
    refusal: str | None = None
    choice: str = ""

    @property
    def median(self):
        """Seconds a call; infinite if it refused."""
        return statistics.median(self.seconds) if self.seconds else math.inf

    @property
    def spread(self):
        """Half the distance between the quartiles, as a part of the median."""
        return spread(self.seconds)


def spread(values):
    """Half the distance between the quartiles, as a part of the median."""
    if len(values) < 2:
        return 0.0
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    return (third - first) / 2 / middle


def tensorflow_candidates(problem, algorithms, modes=MODES, engines=STOCK_ENGINES):
    """Every way in which TensorFlow computes a problem, with kconv and without.

    Args:
        problem: A `Problem`.
        algorithms: Names of algorithms of kconv.
        modes: Names from `MODES`.
        engines: Names from `STOCK_ENGINES`.

    Returns:
        A list of `Candidate`, stock's first.
    """
    if problem.pass_ == "filter_gradient":
        modes = [mode for mode in modes if mode != FROZEN]  # there is no filter
    plain = [mode for mode in modes if mode != XLA]
    grouped = problem.layer.kind == "grouped"
    native = problem.layout == "channels_first" and problem.layer.dims == 2
    stock = [*plain, NATIVE] if native and plain else plain
    # Keras has XLA compile layers in groups: it is not left out.
    compiled = XLA in modes or grouped
    # XLA compiles nothing of kconv's.
    ours = plain or [GRAPH]
    return [
        *(Candidate("stock", m, e) for e in engines for m in stock),
        *([Candidate("stock", XLA, XLA)] if compiled else ()),
        *(Candidate("dense", m) for m in ours if grouped),
        *(Candidate(name, m) for name in algorithms for m in ours),
    ]
