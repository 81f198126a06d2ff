"""What the formulas must know; how well they hold, `kconv bench auto` measures."""

import platform

import pytest
from test_correction import problem_of

from kconv import native


def seconds(problem, algorithm, isa):
    rows = problem.explain(isa=isa, with_stock=True)
    (row,) = [row for row in rows if row["algorithm"] == algorithm]
    return row["seconds"] / row["correction"]


@pytest.mark.parametrize("algorithm", ["direct", "depthwise"])
@pytest.mark.parametrize("isa", native.core().isas())
def test_an_input_gradient_writes_every_pixel(algorithm, isa):
    """However few taps strides leave to one: here a quarter of them."""
    plain, strided = (
        seconds(
            problem_of(
                pass_="input_gradient",
                input_size=(64, 64),
                kernel_size=(4, 4),
                in_channels=1,
                out_channels=16,
                strides=(stride, stride),
            ),
            algorithm,
            isa,
        )
        for stride in (1, 2)
    )
    assert 1 < plain / strided < 3.5


@pytest.mark.parametrize("isa", native.core().isas())
def test_direct_is_fast_in_full_rows_of_filters(isa):
    def told(filters, **fields):
        problem = problem_of(pass_="input_gradient", out_channels=filters, **fields)
        return seconds(problem, "direct", isa)

    assert told(64) < told(63)
    assert told(63, layout="channels_first") < told(64, layout="channels_first")


def gradient_of_stock(**fields):
    """Its seconds for small volumes, by Eigen everywhere."""
    problem = problem_of(
        pass_="input_gradient",
        input_size=(5, 5, 5),
        kernel_size=(3, 3, 3),
        in_channels=8,
        out_channels=4,
        dtype="float64",
        **fields,
    )
    return seconds(problem, "builtin", native.core().isas()[-1])


@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="Eigen takes a small cache for granted."
)
def test_stock_expands_strided_3d_gradients():
    """Unless patches fit its buffer: those of one image do, and of many."""
    one, two, many = (
        gradient_of_stock(strides=(2, 2, 2), batch=batch) for batch in (1, 2, 1 << 14)
    )
    assert two > 5 * one
    assert many < 4000 * two
    one, two = (gradient_of_stock(batch=batch) for batch in (1, 2))
    assert two < 3 * one
