"""The command line and the demonstration."""

import re
import runpy
import sys

import numpy as np
import pytest

from kconv import cli, demo, models


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["demo", "--help"],
        ["bench", "layers", "--help"],
        ["bench", "depthwise", "--help"],
        ["bench", "deformable", "--help"],
        ["profile", "--help"],
        ["tune", "--help"],
        ["info", "--help"],
    ],
)
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 0
    words = capsys.readouterr().out
    assert "usage: kconv" in words
    # One default each.
    for option in re.split(r"\n  --", words):
        assert option.count("(default: ") <= 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["bench"],
        ["bench", "layers", "--batch", "0"],
        ["bench", "layers", "--passes", "sideways"],
        ["bench", "layers", "--layers", "deepwise"],
        ["bench", "layers", "--torch-python"],
        ["bench", "layers", "--references", "caffe"],
        ["bench", "deformable", "--references", "torch"],
        ["bench", "deformable", "--csv", "/no/such/folder/x.csv"],
        ["bench", "layers", "--layout", "channels_middle"],
        ["bench", "grouped", "--layers", "grouped"],
        ["profile"],
        ["profile", "lenet5", "--batch", "0"],
        ["profile", "lenet5", "--input-shape", "-1"],
        ["profile", "lenet5", "--passes", "backward"],
        ["profile", "lenet5", "--csv", "/no/such/folder/x.csv"],
        ["bench", "grouped", "--json", "."],
        ["bench", "grouped", "--roofline", "/no/such/folder/x.png"],
        ["bench", "train", "lenet5", "--plot", "/no/such/folder/x.png"],
        ["bench", "auto", "--csv", "/no/such/folder/x.csv"],
        ["tune", "lenet5", "--batch", "0"],
        ["tune", "lenet5", "--passes", "backward"],
        ["tune", "lenet5", "--dtype", "int8"],
    ],
)
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage: kconv" in capsys.readouterr().err


def test_unknown_algorithm_is_one_sentence(capsys):
    assert cli.main(["bench", "layers", "--algorithm", "gemm", "magic"]) == 1
    assert "Received: ['magic']" in capsys.readouterr().err


def test_pictures_of_unknown_kinds_are_told_before_measuring(capsys):
    for words in (
        ["grouped", "--plot"],
        ["layers", "--roofline"],
        ["models", "--plot"],
    ):
        assert cli.main(["bench", *words, "x.xyz"]) == 1
        assert "Received: x.xyz" in capsys.readouterr().err


def test_interrupted_it_ends_quietly(monkeypatch, capsys):
    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_info", interrupted)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == ""


def test_module_runs_as_the_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["kconv", "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("kconv", run_name="__main__")
    assert stopped.value.code == 0
    assert "demo" in capsys.readouterr().out


# The demonstration.


@pytest.mark.parametrize("agreed", [True, False])
def test_demo_exits_by_its_verdict(monkeypatch, agreed):
    monkeypatch.setattr(demo, "compare_resnet", lambda *arguments: True)
    monkeypatch.setattr(demo, "compare_training", lambda *arguments: agreed)
    assert cli.main(["demo"]) == (0 if agreed else 1)


def test_demo_trains_both_models_alike(tmp_path, capsys):
    assert demo.compare_training(tmp_path / "new", epochs=1, seed=0)
    assert (tmp_path / "new" / "learning_curves.png").stat().st_size > 10_000
    assert "accuracy on 360 new digits" in capsys.readouterr().out


def test_demo_notices_training_that_differs(tmp_path):
    twins = {name: models.LeNet5() for name in ("stock", "kconv")}
    curves = {
        "stock": {"loss": [1.0, 0.5], "accuracy": [0.5, 0.9]},
        "kconv": {"loss": [1.0, 0.6], "accuracy": [0.5, 0.9]},
    }
    assert not demo.show_training(twins, curves, tmp_path, 360)
    curves["kconv"]["loss"] = curves["stock"]["loss"]
    assert demo.show_training(twins, curves, tmp_path, 360)


def test_demo_notices_outputs_that_differ(capsys):
    keras = demo.keras
    keras.utils.set_random_seed(0)

    def model():
        image = keras.Input((8, 8, 3))
        features = keras.layers.Conv2D(4, 3, name="conv5_block3_out")(image)
        pooled = keras.layers.GlobalAveragePooling2D()(features)
        return keras.Model(image, keras.layers.Dense(10)(pooled))

    batch = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32")
    stock, other = model(), model()
    models = {"stock": stock, "kconv": other}
    assert not demo.show_agreement(models, ["noise"], batch, real=False)
    models["kconv"] = demo.kconv.convert(stock)
    assert demo.show_agreement(models, ["noise"], batch, real=False)


def test_demo_takes_photographs_of_any_size(tmp_path):
    from PIL import Image

    path = tmp_path / "gray.png"
    Image.fromarray(np.full((50, 300), 7, "uint8")).save(path)
    names, photographs = demo.load_photographs([path])
    assert names == [str(path)]
    assert photographs.shape == (1, 224, 224, 3)
    assert (photographs == 7).all()


@pytest.mark.slow
def test_whole_demo(tmp_path):
    assert cli.main(["demo", "--epochs", "1", "--output", str(tmp_path)]) == 0
