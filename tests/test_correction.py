"""What measurements say of the estimates: networks, and what trains them."""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_walls import ROOT

from kconv import builtin, dispatch, native
from kconv.benchmark import auto, drawn

FOLDER = ROOT / "csrc" / "correction"
COUNT = 60
NETWORKS = sorted(path.stem for path in FOLDER.glob("*.inc"))

ISA_VARIABLES = "KCONV_MAX_ISA", "ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS"
NARROW = {"KCONV_MAX_ISA": "avx2", "ONEDNN_MAX_CPU_ISA": "avx2"}
ONEDNN = {"TF_ENABLE_ONEDNN_OPTS": "1"}
EIGEN = {"TF_ENABLE_ONEDNN_OPTS": "0"}
# What processes run on, and which network is of that.
SETTINGS = [
    (ONEDNN, "avx512_onednn"),
    (ONEDNN | {"ONEDNN_MAX_CPU_ISA": ""}, "avx512_onednn"),
    (ONEDNN | {"ONEDNN_MAX_CPU_ISA": "avx512_core"}, "avx512_onednn"),
    (ONEDNN | {"ONEDNN_MAX_CPU_ISA": "avx2"}, None),
    (ONEDNN | NARROW, None),
    (EIGEN | NARROW, "avx2_eigen"),
    (EIGEN | NARROW | {"ONEDNN_MAX_CPU_ISA": "avx2_vnni"}, "avx2_eigen"),
    (EIGEN | NARROW | {"ONEDNN_MAX_CPU_ISA": "sse41"}, None),
    (EIGEN | NARROW | {"KCONV_MAX_ISA": "sse2"}, None),
]
# With the settings of its environment, and the compiled core alone.
ASKED = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("_core", sys.argv[1])
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
problem = core.Problem("forward", (8, 12), (3, 3), 24, 32, batch=4)
corrections = {
    row["algorithm"]: row["correction"]
    for row in problem.explain(with_stock=True) if row["refusal"] is None
}
print(json.dumps([core.network(), corrections, core.isas()]))
"""


@pytest.fixture(scope="module")
def fit():
    spec = importlib.util.spec_from_file_location("fit", FOLDER / "fit.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def drawn_problems():
    return [
        dispatch.problem(
            p.pass_, p.spec("auto"), p.input_shape, p.kernel_shape, p.dtype
        )
        for p in drawn.draw(5, COUNT)
    ]


@pytest.fixture(scope="module")
def problems():
    return drawn_problems()


def tables(text):
    """The candidates and the arrays of a table of weights."""
    names = re.search(r"kCandidates\[\] = \{(.*?)\}", text)[1]
    arrays = {}
    for name, height, width, body in re.findall(
        r"float (\w+)\[(\d+)\]\[(\d+)\] = \{(.*?)\n\};", text, re.DOTALL
    ):
        numbers = [float(n) for n in re.findall(r"[-+.\de]+(?=f)", body)]
        arrays[name] = np.reshape(numbers, (int(height), int(width)))
    return re.findall(r'"(.*?)"', names), arrays


@pytest.fixture(scope="module", params=NETWORKS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def weights(name):
    return tables((FOLDER / f"{name}.inc").read_text())


def corrections(weights, features):
    """The network by its definition, in float64."""
    names, arrays = weights
    low, high = arrays["kRanges"].T
    values = np.clip(features, low, high)
    for name in ("First", "Second", "Last"):
        layer = arrays[f"k{name}Layer"]
        values = layer[:, :-1] @ values + layer[:, -1]
        if name != "Last":
            values = np.maximum(values, 0)
    return dict(zip(names, np.exp(np.clip(values, -1, 1)), strict=True))


def is_possible(name):
    """Whether this processor, and this build, can be what a network is of."""
    isa, _ = name.split("_")
    if isa not in ask({})[2]:
        return False
    told = Path("/proc/cpuinfo").read_text()
    if isa == "avx2":
        return "GenuineIntel" in told
    return not ("AuthenticAMD" in told and re.search(r"cpu family\s*: 25\n", told))


def problem_of(**fields):
    given = {"pass_": "forward", "input_size": (8, 12), "kernel_size": (3, 3)}
    given |= {"in_channels": 24, "out_channels": 32, "batch": 4}
    return native.core().Problem(**given | fields)


def test_the_tables_are_those_of_the_folder():
    core = native.core()
    assert sorted(core.networks()) == NETWORKS
    assert {name for _, name in SETTINGS} == {None, *NETWORKS}
    assert core.network() in {None, *NETWORKS}
    with pytest.raises(ValueError, match=r"networks.*Received: sse2_eigen"):
        problem_of().factors("sse2_eigen")


def ask(settings):
    """Of a process: the network in use, corrections of estimates, instruction sets."""
    environment = {k: v for k, v in os.environ.items() if k not in ISA_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", ASKED, native.core().__file__],
        env=environment | settings,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("settings, name", SETTINGS)
def test_the_network_of_what_runs(settings, name):
    told, corrections, _ = ask(settings)
    if name is not None and not is_possible(name):
        name = None
    assert told == name
    names = tables((FOLDER / f"{name}.inc").read_text())[0] if name else []
    factors = dict(zip(names, problem_of().factors(name), strict=True)) if name else {}
    assert corrections == {each: factors.get(each, 1) for each in corrections}
    assert len(corrections) > 3


def test_no_network_is_of_eigen_with_avx512():
    if " avx512f " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("This processor has no AVX-512.")
    for settings in (EIGEN, EIGEN | {"KCONV_MAX_ISA": "avx2"}):
        assert ask(settings)[0] is None


def test_the_table_is_of_all_candidates(weights, problems):
    names, arrays = weights
    # Of another one the estimate stays as it is.
    assert set(names) <= {*native.core().algorithms(), builtin.NAME}
    assert len(set(names)) == len(names)
    assert len(arrays["kRanges"]) == len(problems[0].features())
    assert (arrays["kRanges"][:, 0] <= arrays["kRanges"][:, 1]).all()
    assert all(np.isfinite(array).all() for array in arrays.values())
    # It knows what is drawn.
    assert (np.ptp(arrays["kRanges"], axis=1) > 0).all()


def test_features_tell_problems_apart(problems):
    features = np.array([problem.features() for problem in problems])
    assert np.isfinite(features).all()
    assert len(np.unique(features, axis=0)) == len(problems)


def test_a_feature_is_what_it_says():
    problem = problem_of()
    features = problem.features()
    logarithms = [4, 96, 60, 24, 32, 24, 32, 1, 9, 3, 12, 10, 1]
    assert features[:13] == pytest.approx([math.log2(x) for x in logarithms])
    # Rounded up to 16: 32 and 24 of them; to 64.
    assert features[17:21] == pytest.approx(
        [0, math.log2(32 / 24), 1, math.log2(64 / 24)]
    )
    assert set(features[27:]) <= {0, 1}


def test_the_core_computes_the_network(name, weights, problems):
    known = 0
    for problem in problems:
        factors = problem.factors(name)
        if factors:
            expected = corrections(weights, problem.features())
            assert factors == pytest.approx(list(expected.values()), rel=1e-3)
            known += 1
    assert known > 0.9 * len(problems)


def test_estimates_are_corrected(problems):
    here = native.core().network()
    if here is None:
        pytest.skip("No network is of what runs here.")
    names, _ = tables((FOLDER / f"{here}.inc").read_text())
    seen = set()
    for problem in problems:
        factors = dict(zip(names, problem.factors(here), strict=False))
        for row in problem.explain(with_stock=True):
            if row["refusal"] is None:
                assert row["correction"] == factors.get(row["algorithm"], 1)
                seen |= {row["algorithm"]} & factors.keys()
    assert seen == set(names)


@pytest.mark.parametrize(
    "fields",
    [
        {"batch": 0},
        {"out_channels": 1},  # fewer than any that was measured
        {"groups": 24, "out_channels": 24, "dilation_rate": (2, 2)},
        {"groups": 4, "input_size": (96,), "kernel_size": (3,)},
    ],
)
def test_nothing_is_said_of_what_was_never_seen(name, fields):
    problem = problem_of(**fields)
    assert problem.factors(name) == []
    for row in problem.explain(with_stock=True):
        assert row["refusal"] is not None or row["correction"] == 1


def test_sizes_beyond_what_was_seen_count_as_the_largest(name, weights):
    low, high = weights[1]["kRanges"].T
    problem = problem_of(batch=4096)
    assert problem.features()[0] > high[0]
    assert (problem.features() >= low).all()
    assert problem.factors(name) == pytest.approx(
        list(corrections(weights, problem.features()).values()), rel=1e-3
    )


def test_no_correction_without_a_network(problems):
    for problem in problems:
        for isa in native.core().isas():
            for row in problem.explain(isa=isa, with_stock=True):
                corrected = native.core().network(isa)
                assert corrected or row["refusal"] or row["correction"] == 1


def test_what_is_chosen_has_the_lowest_estimate(problems):
    for problem in problems:
        rows = [r for r in problem.explain(with_stock=True) if r["refusal"] is None]
        least = min(rows, key=lambda row: row["seconds"])
        assert problem.choose(with_stock=True) == least["algorithm"]


def test_empty_problems_are_chosen_for():
    assert problem_of(batch=0).choose() in native.core().algorithms()


# Training.


@pytest.fixture(scope="module")
def measured(fit):
    """Two candidates that take the same, and formulas that get one of them wrong."""
    generator = np.random.default_rng(3)
    features = generator.uniform(0, 8, (400, 5))
    seconds = np.stack([features[:, 0], features[:, 1]], axis=1) / 4
    wrong = np.stack([seconds[:, 0], seconds[:, 1] + features[:, 2] / 4 - 1], axis=1)
    rest = len(fit.CANDIDATES) - 2
    pad = np.full((400, rest), np.inf)
    return fit.Measured(
        features,
        np.hstack([wrong, pad]),
        np.hstack([seconds, np.full((400, rest), 9.0)]),
        np.hstack([np.ones((400, 2), bool), np.zeros((400, rest), bool)]),
        seconds[:, 1],
        np.arange(400) % 4 == 0,
    )


def test_networks_learn_what_formulas_miss(fit, measured):
    train, test = measured.at(slice(300)), measured.at(slice(300, 400))
    network = fit.learn(train, 0, units=16, steps=300)
    student = fit.distil(
        [network], train.features, train.estimates, units=16, steps=300
    )
    before = fit.score(test, 0)
    for taught in (network, student):
        right, lost = fit.score(test, taught(test.features))
        assert right > before[0] + 0.1
        assert lost < before[1]
    # What is written computes the same.
    name = fit.CANDIDATES[1]
    text = fit.text(student, "avx9_none", [])
    written = tables(text)
    assert 'MakeNetwork("avx9_none", kCandidates, kRanges, kFirst' in text
    for row in test.features[:10]:
        told = math.log(corrections(written, row)[name])
        assert told == pytest.approx(student(row[None])[0][1], abs=0.01)


def test_what_is_taught_beyond_measurements(fit, monkeypatch):
    monkeypatch.setattr(fit, "TAUGHT", (40, 5))
    features, estimates = fit.unmeasured()
    problems = drawn.draw(5, 40)
    assert estimates.shape == (40, len(fit.CANDIDATES))
    assert np.isfinite(estimates.min(axis=1)).all()
    of_stock = estimates[:, fit.CANDIDATES.index(builtin.NAME)]
    refused = [
        builtin.refusal(p.pass_, p.spec("auto"), p.kernel_shape, p.dtype) is not None
        for p in problems
    ]
    assert any(refused)
    assert np.isinf(of_stock[refused]).all()
    assert np.isfinite(of_stock).any()
    for row, problem in zip(features, problems, strict=True):
        assert (row == fit._asked(problem).features()).all()


def test_slow_candidates_are_not_taught(fit):
    """With two that take turns in being slow, and a teacher of noise."""
    generator = np.random.default_rng(1)
    shape = 300, len(fit.CANDIDATES)
    features = generator.uniform(0, 8, (300, 5))
    wanted = generator.uniform(-0.5, 0.5, shape)
    estimates = np.where(np.arange(shape[1]) < 2, 0.0, np.inf) * np.ones(shape)
    estimates[:150, 1] = estimates[150:, 0] = 9
    student = fit.distil([lambda _: wanted], features, estimates, units=16, steps=200)
    wrong = np.square(student(features) - wanted)
    fast, slow = np.exp(-estimates) > 0.5, estimates == 9
    assert wrong[fast].mean() < 0.8 * wrong[slow].mean()


def test_close_problems_only_train(fit, measured, monkeypatch, capsys):
    judged, trained = [], []

    class Silent:
        def __call__(self, features):
            return np.zeros((len(features), len(fit.CANDIDATES)))

    def learn(part, seed):
        trained.append(int(part.of_close.sum()))
        return Silent()

    def score(part, corrections):
        judged.append((len(part.features), int(part.of_close.sum())))
        assert corrections.shape == part.estimates.shape
        return 0.5, 0.25

    monkeypatch.setattr(fit, "learn", learn)
    monkeypatch.setattr(fit, "distil", lambda *arguments: Silent())
    monkeypatch.setattr(
        fit, "unmeasured", lambda: (measured.features[:1], measured.estimates[:1])
    )
    monkeypatch.setattr(fit, "score", score)
    fit.judge(measured, 3)
    assert trained == [100] * 3 * fit.TEACHERS
    assert judged == [(300, 0)] * 4
    with pytest.raises(SystemExit, match="Received: none"):
        fit.judge(measured.at(measured.of_close), 3)
    assert "50.0% right, 25.0% lost to stock" in capsys.readouterr().out


def test_files_are_read(fit, tmp_path):
    seconds = {"gemm": 1e-3, "direct": 2e-3, "stock": 3e-3}
    rows = [{"problem": str(p), "seconds": seconds} for p in drawn.draw(9, 3)]
    path = tmp_path / "auto.json"
    here = auto.environment(9, fit.THREADS)
    path.write_text(json.dumps({"environment": here, "rows": rows}))
    told = fit.read([path])
    assert told.features.shape[0] == 3
    assert not told.of_close.any()
    gemm = fit.CANDIDATES.index("gemm")
    assert told.seconds[:, gemm] == pytest.approx(np.log([1e-3] * 3))
    assert told.stock == pytest.approx(np.log([3e-3] * 3))
    # Nobody measured these: hopeless ones.
    grouped = fit.CANDIDATES.index("grouped")
    assert not told.is_measured[:, grouped].any()
    assert told.seconds[:, grouped] == pytest.approx(np.log([fit.HOPELESS * 1e-3] * 3))
    # A candidate that stock's kernel refuses is none.
    assert np.isinf(told.estimates[:, fit.CANDIDATES.index(builtin.NAME)]).all()

    close = tmp_path / "close.json"
    some = [{"problem": str(p), "seconds": seconds} for p in drawn.draw(8, 5)[::2]]
    within = auto.environment(8, fit.THREADS) | {auto.CLOSE: 1.3}
    close.write_text(json.dumps({"environment": within, "rows": some}))
    assert fit.read([path, close]).of_close.tolist() == [False] * 3 + [True] * 3
    with pytest.raises(SystemExit, match=r"another seed.*Received: 9"):
        fit.read([path, path])
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({"environment": here, "rows": []}))
    with pytest.raises(SystemExit, match="Received: none"):
        fit.read([empty])

    rows[0]["problem"] = "another"
    path.write_text(json.dumps({"environment": here, "rows": rows}))
    with pytest.raises(SystemExit, match=r"drawn now.*Received: another"):
        fit.read([path])
    there = here | {"processor": "another"}
    path.write_text(json.dumps({"environment": there, "rows": rows}))
    with pytest.raises(SystemExit, match=r"that is here.*Received: another"):
        fit.read([path])
    there = here | {"ONEDNN_MAX_CPU_ISA": "sse41"}
    path.write_text(json.dumps({"environment": there, "rows": rows}))
    with pytest.raises(SystemExit, match=r"that is here.*Received: sse41"):
        fit.read([path])


def test_it_trains_only_what_is_in_use(fit, monkeypatch):
    core = native.core()

    class Core:
        def __getattr__(self, name):
            return getattr(core, name)

        def network(self):
            return None

    monkeypatch.setattr(sys, "argv", ["fit.py", "any.json"])
    monkeypatch.setattr(fit.native, "core", Core)
    with pytest.raises(SystemExit, match=r"take a network here\. Received: "):
        fit.main()


def test_the_command_tells_how_to_use_it(fit, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fit.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        fit.main()
    assert ended.value.code == 0
    assert "--folds" in capsys.readouterr().out
