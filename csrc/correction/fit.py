"""Writes a network that corrects the estimates of "auto".

It is the one that is in use where this runs, as correction.cc tells. It learns from
files that `kconv bench auto --json` wrote there: for each problem what its candidates
took. The loss is the regret of the choice that the corrected estimates make, made
smooth, and the distance of their logarithms from the measured ones.

    kconv bench auto --seed 1 --count 200 --json 1.json
    kconv bench auto --seed 2 --count 200 --close 1.3 --json 2.json
    python csrc/correction/fit.py 1.json 2.json ... [--folds 5]

Problems whose two best estimates are close, which `--close` asks for, teach more than
others; which those are depends on the network that is compiled in then. With `--folds`
nothing is written, but told how networks choose for problems that they were not trained
on; the close ones only train them then, for a score is of all. Who changes a formula of
the estimates trains anew.

Source of the idea: T. Chen et al., Learning to Optimize Tensor Programs,
https://arxiv.org/abs/1805.08166.
"""

import argparse
import dataclasses
import itertools
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from rich.progress import track

from kconv import builtin, dispatch, native
from kconv.benchmark import auto
from kconv.benchmark.auto import STOCK, TOLERANCE
from kconv.benchmark.drawn import MOST_DRAWN, draw, stream

CANDIDATES = (
    *("direct", "gemm", "depthwise", "grouped", "fft"),
    *("winograd:f2", "winograd:f4", "winograd:f6", builtin.NAME),
)

THREADS = 2

UNITS = 64
STEPS = 800
# Several networks err less than one, and one learns from them what they say of more
# problems than anybody measured.
TEACHERS = 5
TAUGHT = 16_000, 1_000_000  # so many, of this seed
# What a choice is worse by is smoothed by so much, in the logarithm of seconds.
TEMPERATURE = 0.1
# It rounds more, and so must win clearly; not in the filter gradient (winograd.cc).
HANDICAPS = {"winograd:f6": 1.06}
# A candidate without a time was hopeless: so many times as long as the best.
HOPELESS = 5.0


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured, a row for each problem and a column for each candidate.

    Attributes:
        features: Float array.
        estimates: Logarithms of seconds; infinite where a candidate refuses.
        seconds: Logarithms of seconds, where `is_measured`.
        is_measured: Bool array.
        stock: Logarithms of stock's seconds, NaN where it has none.
        of_close: Bool array: of a file of `--close`.
    """

    features: np.ndarray
    estimates: np.ndarray
    seconds: np.ndarray
    is_measured: np.ndarray
    stock: np.ndarray
    of_close: np.ndarray

    def at(self, rows):
        """The same of some problems."""
        return Measured(
            *(getattr(self, f.name)[rows] for f in dataclasses.fields(self))
        )

    def regret(self):
        """By what each choice is worse than the best candidate."""
        return self.seconds - self.seconds.min(axis=1, keepdims=True)

    def loss_to_stock(self):
        """By what each choice is worse than stock."""
        return self.seconds - np.nan_to_num(self.stock, nan=np.inf)[:, None]


def read(paths):
    """What files of `kconv bench auto` tell, as `Measured`."""
    rows, of_close, seeds = [], [], set()
    for path in paths:
        told = json.loads(Path(path).read_text())
        _check_environment(path, told["environment"])
        seed = told["environment"]["seed"]
        if seed in seeds:  # a problem that trains must not be judged by
            raise SystemExit(f"{path} must be of another seed. Received: {seed}")
        seeds.add(seed)
        if not told["rows"]:
            raise SystemExit(f"{path} must tell of problems. Received: none")
        of_close += [auto.CLOSE in told["environment"]] * len(told["rows"])
        # Among those drawn were some that `--close` left out.
        count = MOST_DRAWN if of_close[-1] else len(told["rows"])
        drawn = itertools.islice(stream(seed), count)
        for row in told["rows"]:
            named = (problem for problem in drawn if str(problem) == row["problem"])
            problem = next(named, None)
            if problem is None:
                raise SystemExit(
                    f"{path} must be of problems that are drawn now, in this order."
                    f" Received: {row['problem']}"
                )
            rows.append(_row(problem, row["seconds"]))
    columns = (np.array(column) for column in zip(*rows, strict=True))
    features, estimates, seconds, stock = columns
    is_measured = ~np.isnan(seconds)
    hopeless = np.nanmin(seconds, axis=1, keepdims=True) + np.log(HOPELESS)
    seconds = np.where(is_measured, seconds, hopeless)
    return Measured(
        features, estimates, seconds, is_measured, stock, np.array(of_close)
    )


def _check_environment(path, told):
    """That times are of the configuration that estimates are asked for here."""
    here = auto.environment(told["seed"], THREADS)
    compared = "processor", "instruction set", "threads", "TensorFlow"
    for name in (*compared, "ONEDNN_MAX_CPU_ISA"):
        if told.get(name, here[name]) != here[name]:  # older files tell less
            raise SystemExit(
                f"{path} must be of the {name} that is here: {here[name]}."
                f" Received: {told[name]}"
            )


def _asked(problem):
    return dispatch.problem(
        problem.pass_,
        problem.spec(dispatch.AUTO),
        problem.input_shape,
        problem.kernel_shape,
        problem.dtype,
    )


def _estimates(problem, asked):
    """Seconds of each candidate that does not refuse, as the formulas tell them."""
    spec = problem.spec(dispatch.AUTO)
    refuses = builtin.refusal(problem.pass_, spec, problem.kernel_shape, problem.dtype)
    told = asked.explain(algorithm=dispatch.AUTO, threads=THREADS, with_stock=True)
    return {
        row["algorithm"]: row["seconds"] / row["correction"]
        for row in told
        if row["refusal"] is None
        and not (refuses is not None and row["algorithm"] == builtin.NAME)
    }


def _logarithms(seconds, otherwise):
    return [np.log(seconds.get(name, otherwise)) for name in CANDIDATES]


def _row(problem, seconds):
    asked = _asked(problem)
    if problem.pass_ != "filter_gradient":
        seconds = {name: seconds[name] * HANDICAPS.get(name, 1) for name in seconds}
    estimates = _estimates(problem, asked)
    if builtin.NAME not in seconds:  # not worth a call
        estimates.pop(builtin.NAME, None)
    return (
        asked.features(),
        _logarithms(estimates, np.inf),
        _logarithms(seconds, np.nan),
        np.log(seconds.get(builtin.NAME, seconds.get(STOCK, np.nan))),
    )


class Network:
    """Two hidden layers; what it tells is added to the logarithms of estimates."""

    def __init__(self, features, units, activation, dropout, seed):
        tf.keras.utils.set_random_seed(seed)
        self.low, self.high = features.min(axis=0), features.max(axis=0)
        self._mean, self._scale = features.mean(axis=0), features.std(axis=0) + 0.1
        layers = tf.keras.layers
        self.layers = tf.keras.Sequential(
            [
                layers.Dense(units, activation),
                layers.Dropout(dropout),
                layers.Dense(units, activation),
                layers.Dense(len(CANDIDATES), kernel_initializer="zeros"),
            ]
        )
        self.layers(self.scaled(features))

    def scaled(self, features):
        """Features as the first layer takes them, and within what was seen."""
        clipped = np.clip(features, self.low, self.high)
        return tf.constant((clipped - self._mean) / self._scale, tf.float32)

    def __call__(self, features):
        return np.clip(self.layers(self.scaled(features)).numpy(), -1, 1)

    def tables(self):
        """The three layers for features as they are, a bias behind each row."""
        (w, b), (w2, b2), (w3, b3) = (
            [v.numpy() for v in layer.weights]
            for layer in self.layers.layers
            if layer.weights
        )
        w = w / self._scale[:, None]
        b = b - self._mean @ w
        return [np.vstack([k, bias]).T for k, bias in ((w, b), (w2, b2), (w3, b3))]

    def minimize(self, loss, features, decay, steps):
        """Trains by all problems at once."""
        rate = tf.keras.optimizers.schedules.CosineDecay(0.006, steps)
        optimizer = tf.keras.optimizers.AdamW(rate, weight_decay=decay)
        weights, inputs = self.layers.trainable_variables, self.scaled(features)

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                value = loss(self.layers(inputs, training=True))
            optimizer.apply_gradients(
                zip(tape.gradient(value, weights), weights, strict=True)
            )

        for _ in range(steps):
            step()
        return self


def learn(measured, seed, units=UNITS, steps=STEPS):
    """A `Network` that chooses well for measured problems."""
    takes = np.isfinite(measured.estimates)
    estimates = np.where(takes, measured.estimates, 0)
    scale = np.median((measured.seconds - estimates)[takes & measured.is_measured])
    regret, lost = measured.regret(), measured.loss_to_stock()
    wrong = 1 / (1 + np.exp(-40 * (np.exp(np.minimum(regret, 2)) - TOLERANCE)))
    cost = np.minimum(regret, 1) + 0.3 * wrong + 0.5 * np.clip(lost - 0.03, 0, 1)
    # Far from the best it does not matter how far.
    weight = np.where(
        takes & measured.is_measured, np.exp(-np.maximum(regret - 0.3, 0)), 0
    )
    constants = (estimates + scale, measured.seconds, weight, np.where(takes, cost, 0))
    base, seconds, weight, cost = (tf.constant(c, tf.float32) for c in constants)

    def loss(corrections):
        told = base + corrections
        away = tf.abs(told - seconds)
        distance = tf.where(away < 0.5, tf.square(away), away - 0.25)
        chance = tf.nn.softmax(tf.where(takes, -told / TEMPERATURE, -1e9))
        chosen = tf.reduce_sum(chance * cost)
        return (tf.reduce_sum(weight * distance) + chosen) / len(estimates)

    network = Network(measured.features, units, "gelu", 0.1, seed)
    return network.minimize(loss, measured.features, 0.3, steps)


def distil(teachers, features, estimates, units=UNITS, steps=3 * STEPS):
    """One `Network` that says what several say on average."""
    wanted = sum(teacher(features) for teacher in teachers) / len(teachers)
    # Of a candidate that is slow, or refuses, it need not know much.
    told = estimates + wanted
    weight = np.exp(told.min(axis=1, keepdims=True) - told)
    wanted, weight = (tf.constant(c, tf.float32) for c in (wanted, weight))

    def loss(corrections):
        return tf.reduce_mean(weight * tf.square(corrections - wanted))

    network = Network(features, units, "relu", 0, 0)
    return network.minimize(loss, features, 0.003, steps)


def unmeasured():
    """Features and estimates of problems that nobody measured."""
    count, seed = TAUGHT
    rows = [(problem, _asked(problem)) for problem in draw(seed, count)]
    return (
        np.array([asked.features() for _, asked in rows]),
        np.array([_logarithms(_estimates(*row), np.inf) for row in rows]),
    )


def taught_by(teachers, measured, more):
    """A network `distil`led for what was measured, and for what `unmeasured` tells."""
    known = measured.features, measured.estimates
    return distil(
        teachers, *(np.vstack(pair) for pair in zip(known, more, strict=True))
    )


def score(measured, corrections):
    """How many choices are right, and how many lost to stock: two parts of all."""
    told = measured.estimates + corrections
    rows, chosen = np.arange(len(told)), np.argmin(told, axis=1)
    right = measured.regret()[rows, chosen] <= np.log(TOLERANCE)
    lost = measured.loss_to_stock()[rows, chosen] > np.log(TOLERANCE)
    return right.mean(), lost.sum() / np.isfinite(measured.stock).sum()


def judge(measured, folds):
    """Prints the scores of networks for what they were not trained on."""
    judged = ~measured.of_close
    if not judged.any():
        raise SystemExit("--folds needs a file without --close. Received: none")
    fold = np.random.default_rng(0).integers(0, folds, len(measured.features))
    fold[~judged] = -1  # in no part
    more = unmeasured()
    alone, together = np.zeros((2, *measured.estimates.shape))
    distilled = np.zeros_like(alone)
    for i in track(range(folds), "Training"):
        rest, part = measured.at(fold != i), fold == i
        networks = [learn(rest, seed) for seed in range(TEACHERS)]
        each = [network(measured.features[part]) for network in networks]
        alone[part], together[part] = each[0], sum(each) / len(each)
        student = taught_by(networks, rest, more)
        distilled[part] = student(measured.features[part])
    for name, corrections in (
        ("the formulas", np.zeros_like(alone)),
        ("a network", alone),
        (f"{TEACHERS} networks", together),
        ("distilled", distilled),
    ):
        right, lost = score(measured.at(judged), corrections[judged])
        print(f"{name}: {right:.1%} right, {lost:.1%} lost to stock")


def text(network, name, files):
    """What is included by correction.cc."""
    names = ", ".join(f'"{name}"' for name in CANDIDATES)
    lines = [
        "// Written by fit.py, not to be edited, from `kconv bench auto` of seeds",
        *(f"// {line}" for line in _seeds(files)),
        "// clang-format off",
        f"constexpr const char* kCandidates[] = {{{names}}};",
    ]
    ranges = np.stack([network.low, network.high], axis=1)
    layers = zip(("First", "Second", "Last"), network.tables(), strict=True)
    tables = [("kRanges", ranges)] + [
        (f"k{name}Layer", table) for name, table in layers
    ]
    for title, table in tables:
        rows, columns = table.shape
        lines.append(f"constexpr float {title}[{rows}][{columns}] = {{")
        lines += [f"    {{{', '.join(map(_number, row))}}}," for row in table]
        lines.append("};")
    arguments = [f'"{name}"', "kCandidates", *(title for title, _ in tables)]
    lines.append(f"constexpr Network kNetwork = MakeNetwork({', '.join(arguments)});")
    return "\n".join([*lines, "// clang-format on", ""])


def _seeds(files):
    """Lines that name them, those of each factor of `--close` together."""
    by_factor = {}
    for path in files:
        told = json.loads(Path(path).read_text())["environment"]
        by_factor.setdefault(told.get(auto.CLOSE), []).append(str(told["seed"]))
    return [
        f"--close {factor}: {' '.join(seeds)}" if factor else " ".join(seeds)
        for factor, seeds in by_factor.items()
    ]


def _number(value):
    short = f"{value:.4g}"
    return short + ("f" if "." in short or "e" in short else ".f")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", help="JSON files of `kconv bench auto`")
    parser.add_argument("--folds", type=int, help="judge instead, by so many parts")
    arguments = parser.parse_args()
    if arguments.folds is not None and arguments.folds < 2:
        parser.error(f"--folds must be at least 2. Received: {arguments.folds}")
    name = native.core().network()
    if name is None and arguments.folds is None:
        here = auto.environment(0, THREADS)
        raise SystemExit(f"correction.cc must take a network here. Received: {here}")
    measured = read(arguments.files)
    if arguments.folds is not None:
        judge(measured, arguments.folds)
        return
    seeds = track(range(TEACHERS), "Training")
    teachers = [learn(measured, seed) for seed in seeds]
    network = taught_by(teachers, measured, unmeasured())
    written = Path(__file__).with_name(f"{name}.inc")
    written.write_text(text(network, name, arguments.files))


if __name__ == "__main__":
    main()
