"""What becomes of a profile: algorithms, tables, files, pictures, the command."""

import csv
import dataclasses
import json
import types

import keras
import pytest

import kconv
from kconv import cli, explanation, native
from kconv.profiler import wording

L = keras.layers
PASSES = ("forward", "input_gradient", "filter_gradient")


@pytest.fixture(scope="module")
def model():
    return keras.Sequential(
        [
            keras.Input((28, 28, 32)),
            L.Conv2D(32, 3, padding="same", name="stem"),
            L.SeparableConv2D(16, 5, name="apart"),
            L.Conv2DTranspose(8, 3, strides=2, name="up"),
            L.Flatten(name="flat"),
            L.Dense(3, name="top"),
        ],
        name="small",
    )


@pytest.fixture(scope="module")
def profile(model):
    return kconv.profile(model, passes=PASSES, refusals=True)


def test_algorithms_are_those_that_explain_tells(profile):
    rows = {row.name: row for row in profile.layers}
    for pass_ in PASSES:
        told = kconv.ops.explain(
            (1, 28, 28, 32), (3, 3, 32, 32), padding="same", pass_=pass_
        )
        assert rows["stem"].algorithms[pass_] == told.chosen
    # A transposed convolution undoes another one.
    undone = {"forward": "input_gradient", "input_gradient": "forward"}
    for pass_ in PASSES:
        told = kconv.ops.explain(
            (1, 49, 49, 8), (3, 3, 8, 16), 2, pass_=undone.get(pass_, pass_)
        )
        assert rows["up"].algorithms[pass_] == told.chosen
    halves = [
        kconv.ops.explain((1, 28, 28, 32), (5, 5, 1, 32)).chosen,
        kconv.ops.explain((1, 24, 24, 32), (1, 1, 32, 16)).chosen,
    ]
    assert rows["apart"].algorithms["forward"] == " + ".join(dict.fromkeys(halves))
    assert rows["top"].algorithms == {}


def test_forced_algorithms():
    image = keras.Input((14, 14, 8))
    x = kconv.layers.Conv2D(8, 3, algorithm="direct")(image)
    x = kconv.layers.SeparableConv2D(8, 3, algorithm="depthwise")(x)
    x = kconv.layers.Conv2D(8, 3, padding="same", padding_mode="reflect")(x)
    rows = kconv.profile(keras.Model(image, x), passes="filter_gradient").layers
    assert rows[0].algorithms == {"filter_gradient": "direct"}
    assert rows[1].algorithms["filter_gradient"].startswith("depthwise + ")
    told = kconv.ops.explain((1, 12, 12, 8), (3, 3, 8, 8), pass_="filter_gradient")
    assert rows[2].algorithms["filter_gradient"] == told.chosen


def test_refusals_are_sentences(profile, model):
    assert kconv.profile(model).refusals == ()
    found = {(one.layer, one.pass_, one.algorithm): one for one in profile.refusals}
    told = kconv.ops.explain((1, 28, 28, 32), (3, 3, 32, 32), padding="same")
    for row in told.candidates:
        key = "stem", "forward", row.algorithm
        if row.refusal is None:
            assert key not in found
        else:
            assert found[key].sentence == row.refusal
            assert row.refusal in str(profile)


@pytest.fixture
def fewer(monkeypatch):
    """Has algorithms tell how often they multiply: a quarter of the MACs."""

    def explain(pass_, spec, input_shape, kernel_shape, dtype):
        output = spec.output_shape(input_shape, kernel_shape)
        macs = 1
        for n in (*output, *kernel_shape[:-1]):
            macs *= n
        row = types.SimpleNamespace(
            algorithm="winograd:f4", refusal=None, multiplications=macs / 4
        )
        return types.SimpleNamespace(candidates=(row,), chosen="winograd:f4")

    monkeypatch.setattr(explanation, "explain", explain)


def test_multiplications_that_are_saved(fewer):
    model = keras.Sequential(
        [keras.Input((8, 8, 4)), L.Conv2D(4, 3), L.Flatten(), L.Dense(10)]
    )
    profile = kconv.profile(model)
    row = profile.layers[0]
    assert row.multiplications == {"forward": row.macs / 4}
    dense = 36 * 4 * 10
    assert profile.total.multiplications == {"forward": row.macs / 4 + dense}
    left = row.macs / 4 + dense
    assert profile.total.saved() == pytest.approx((row.macs + dense) / left)
    assert "4.00x" in str(profile)
    assert f"{profile.total.saved():.2f} times fewer" in str(profile)


def test_without_the_compiled_parts(model, monkeypatch):
    missing = native._Parts(why_missing="KCONV_DISABLE_NATIVE switches it off.")
    monkeypatch.setattr(native, "_parts", missing)
    profile = kconv.profile(model, passes=PASSES, refusals=True)
    assert profile.layers[0].algorithms == dict.fromkeys(PASSES, "builtin")
    assert profile.total.multiplications["forward"] == profile.total.macs
    assert profile.refusals == ()


def test_table(profile):
    words = str(profile)
    title, headings, *lines = words.split("\n")
    assert title == "small, input (1, 28, 28, 32)"
    assert headings.split()[:5] == ["layer", "kind", "output", "parameters", "MACs"]
    assert "filter gradient" in headings
    assert [line.split()[0] for line in lines[:5]] == [
        "stem",
        "apart",
        "up",
        "flat",
        "top",
    ]
    assert lines[0].split()[1:6] == ["Conv2D", "28x28x32", "9,248", "7.2", "M"]
    assert f"{profile.total.macs:,}" in words
    assert "One MAC is one multiplication and one addition" in words


@pytest.mark.parametrize("width", [200, 80])
def test_show(profile, width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    profile.show()
    words = capsys.readouterr().out
    assert max(map(len, words.split("\n"))) <= width
    assert ("Not shown" in words) == (width == 80)
    for row in profile.layers:
        assert row.name in words


def test_narrow_terminals_break_no_words(monkeypatch, capsys):
    name = "a_branch_with_a_name_that_is_long"
    image = keras.Input((8, 8, 4))
    x = L.AveragePooling2D(2, name="pool")(L.Conv2D(4, 3, name=name)(image))
    found = kconv.profile(keras.Model(image, x, name="[bold]net"))
    for width in (120, 80, 60, 40):
        monkeypatch.setenv("COLUMNS", str(width))
        found.show()
        title, headings, _, first, second, *_ = capsys.readouterr().out.split("\n")
        assert title.startswith("[bold]net, input")
        assert headings.split()[0] == "layer"
        assert first.split()[0] == (name if width > 60 else "…" + name[-15:])
        assert second.split()[0] == "pool"
        assert ("AveragePooling2D" in second) == (width > 80)


def test_a_pipe_gets_all_columns(profile, monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    profile.show()
    assert capsys.readouterr().out == f"{profile}\n"


def test_numbers_are_short():
    assert [wording.decimal(n) for n in (0, 7, 1500, 118_013_952, 4e12)] == [
        *("0", "7", "1.5 k", "118.0 M", "4.0 T")
    ]
    assert [wording.binary(n) for n in (12, 2048, 5 << 20)] == [
        "12 B",
        "2.0 KiB",
        "5.0 MiB",
    ]


def test_json(profile, tmp_path):
    profile.to_json(tmp_path / "profile.json")
    read = json.loads((tmp_path / "profile.json").read_text())
    assert read == profile.to_dict()
    assert read["layers"][0]["macs"] == profile.layers[0].macs
    assert read["layers"][2]["receptive_fields"][0]["stride"] == [0.5, 0.5]
    assert read["total"]["multiplications"] == profile.total.multiplications
    assert read["refusals"][0]["pass"] in PASSES


def test_csv(profile, tmp_path):
    profile.to_csv(tmp_path / "profile.csv")
    with open(tmp_path / "profile.csv", newline="") as file:
        *lines, total = csv.DictReader(file)
    assert [line["name"] for line in lines] == [row.name for row in profile.layers]
    assert sum(int(line["macs"]) for line in lines) == int(total["macs"])
    assert lines[0]["output_shape"] == "28x28x32"
    assert lines[0]["algorithm_filter_gradient"] in kconv.ops.algorithms()
    assert int(total["parameters"]) == profile.total.parameters


def test_rows_are_frozen(profile):
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.layers[0].macs = 0


def test_plot(profile, tmp_path):
    pytest.importorskip("matplotlib")
    profile.plot(tmp_path / "profile.png")
    assert (tmp_path / "profile.png").stat().st_size > 10_000
    unknown = keras.Sequential([keras.Input((4, 4, 2)), L.Reshape((8, 4)), L.Dense(2)])
    kconv.profile(unknown).plot(tmp_path / "unknown.png")
    assert (tmp_path / "unknown.png").stat().st_size > 10_000


# The command.


def test_command_on_a_file(model, profile, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    model.save(tmp_path / "small.keras")
    outputs = [tmp_path / name for name in ("a.json", "a.csv", "a.png")]
    arguments = [
        *("profile", str(tmp_path / "small.keras"), "--passes", *PASSES, "--refusals"),
        *(
            "--json",
            str(outputs[0]),
            "--csv",
            str(outputs[1]),
            "--plot",
            str(outputs[2]),
        ),
    ]
    assert cli.main(arguments) == 0
    assert json.loads(outputs[0].read_text()) == profile.to_dict()
    assert all(path.stat().st_size > 500 for path in outputs)
    words = capsys.readouterr().out
    assert "stem" in words
    assert "Refusals" in words


def test_command_on_a_name(monkeypatch, capsys):
    asked = []

    def build(name, weights="imagenet", input_shape=(8, 8, 3)):
        asked.append((name, weights, input_shape))
        return keras.Sequential([keras.Input(input_shape), L.Conv2D(4, 3)])

    models = types.SimpleNamespace(build=build)
    monkeypatch.setattr(kconv, "models", models, raising=False)
    assert cli.main(["profile", "tiny"]) == 0
    arguments = ["profile", "tiny", "--input-shape", "12", "12", "1", "--batch", "3"]
    assert cli.main(arguments) == 0
    assert asked == [("tiny", None, (8, 8, 3)), ("tiny", None, (12, 12, 1))]
    assert f"{3 * 100 * 9 * 4:,}" in capsys.readouterr().out


def test_command_without_a_file(capsys):
    assert cli.main(["profile", "missing.keras"]) == 1
    assert "no such file. Received: missing.keras" in capsys.readouterr().err


def test_command_on_a_file_with_a_class_that_is_not_known(tmp_path, capsys):
    class Mine(L.Layer):
        def call(self, x):
            return x

    path = tmp_path / "mine.keras"
    keras.Sequential([keras.Input((4,)), Mine()]).save(path)
    assert cli.main(["profile", str(path)]) == 1
    words = capsys.readouterr().err
    assert "Mine" in words
    assert f"Received: {path}" in words
