"""The examples that learn, on a few images and for a step or two."""

import pathlib
import re
import runpy
import sys

import matplotlib.image
import numpy as np
import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"

SEGMENT = "segment_flowers.py --size 16 --width 4 --images 16 --tests 16 --epochs 1"
LENET = "lenet_digits.py --epochs 1 --batch 256"
TWIN = "shufflenet_twin.py --size 32 --blocks 1 1 1 --epochs 1 --batch 700 --apart 1"
DEFORMABLE = "deformable_shapes.py --epochs 1 --seeds 1 --filters 4"


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs a command line in this process; returns its end, its words and its plot."""

    def call(line):
        program, *arguments = line.split()
        plot = tmp_path / "plots" / "plot.png"
        monkeypatch.setattr(sys, "argv", [program, *arguments, "--plot", str(plot)])
        monkeypatch.syspath_prepend(EXAMPLES)
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(EXAMPLES / program), run_name="__main__")
        return ended.value.code, capsys.readouterr().out, matplotlib.image.imread(plot)

    return call


def number(pattern, words):
    """The number that stands in the place of # in a sentence."""
    digits = r"([-+.e\d]*\d)"
    return float(re.search(re.escape(pattern).replace(r"\#", digits), words)[1])


def test_segment_flowers(run):
    failure, words, plot = run(f"{SEGMENT} --least 0")
    assert failure is None
    assert 0 <= number("U-Net, trained #", words) <= 1
    assert number("difference to stock Keras: # of", words) < 1e-4
    assert number("stock # ms, kconv", words) > 0
    assert plot.std() > 0.1


def test_images_of_flowers(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    from flower_images import Composer, cut_out_flower

    flower, _ = cut_out_flower()
    red, green, _, alpha = np.asarray(flower).astype(float).transpose(2, 0, 1)
    # A dahlia is round, and its colour that of apricots.
    assert alpha.mean() / 255 == pytest.approx(np.pi / 4, abs=0.05)
    assert (red - green)[alpha > 0].mean() > 50

    images, masks = Composer(32, "test", 1).compose_many(20, "")
    assert images.shape == (20, 32, 32, 3)
    assert 0 <= images.min() < 0.1
    assert 0.9 < images.max() <= 1
    assert set(np.unique(masks)) == {0, 1}
    # Some have no flower; none is all flower.
    assert masks.mean(axis=(1, 2, 3)).min() == 0
    assert masks.mean(axis=(1, 2, 3)).max() < 0.9
    again, _ = Composer(32, "test", 1).compose_many(20, "")
    np.testing.assert_array_equal(images, again)
    other, _ = Composer(32, "train", 1).compose_many(20, "")
    assert not np.array_equal(images, other)


def test_lenet_digits(run):
    failure, words, plot = run(f"{LENET} --least 1")
    # It would have to learn all in six steps; the rest is as it should be.
    assert failure == "LeNet-5 has not learnt enough: accuracy below 100%."
    assert number("LeNet-5 reads #% of 360", words) >= 5
    assert number("difference to stock Keras: # of", words) < 1e-4
    assert plot.std() > 0.1


def test_deformable_shapes(run):
    failure, words, plot = run(f"{DEFORMABLE} --least 1")
    # No network is so much better; the rest is as it should be.
    assert failure == "That is less than the 100% that was to be reached."
    plain, deformable = (
        [float(cell.rstrip("%")) for cell in line.split()[1:]]
        for line in words.splitlines()
        if line.startswith(("plain ", "deformable "))
    )
    assert (
        plain[0] >= deformable[0] == 10 * 4 + 37 * 4 + 18 * 37 + 37 * 8 + 18 * 37 + 90
    )
    for _, accuracy, mean in (plain, deformable):
        assert 0 < accuracy == mean < 100
    better = number("read #% of the digits more", words)
    assert better == pytest.approx(deformable[-1] - plain[-1], abs=0.11)
    assert plot.std() > 0.05


@pytest.mark.slow
def test_shufflenet_twin(run):
    failure, words, plot = run(f"{TWIN} --least 0")
    assert failure is None
    assert 0 < number("to stock after the first step: #,", words) < 1e-4
    assert number("stock #%, kconv", words) <= 100
    assert plot.std() > 0.05


def test_convert_and_profile(run):
    failure, words, plot = run("convert_and_profile.py --size 32 --rows 3")
    assert failure is None
    assert "kconv.layers.DepthwiseConv2D" in words
    assert number("has # million MACs", words) == pytest.approx(7, abs=1)
    assert 0 < number("on two photographs: #;", words) < 1e-4
    assert plot.std() > 0.05
