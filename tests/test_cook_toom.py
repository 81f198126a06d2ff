"""The transforms of Winograd's convolutions: proved, not sampled."""

import itertools
import re
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import sympy
import wincnn
from tiling import SCRIPT, cook_toom

sizes = pytest.mark.parametrize("m, r", cook_toom.SIZES)


def written(m, r):
    """The tables A^T, G and B^T of F(m, r) in matrices.h, as text."""
    text = cook_toom.HEADER.read_text(encoding="utf-8")
    body = re.search(rf"struct CookToom<{m}, {r}> {{(.*?)\n}};", text, re.DOTALL)[1]
    assert f"kPoints = {m + r - 1};" in body
    tables = {}
    for name, height, width, numbers in re.findall(
        r"double (\w+)\[(\d+)\]\[(\d+)\] = {(.*?)\n  };", body, re.DOTALL
    ):
        rows = re.findall(r"{(.*?)}", numbers, re.DOTALL)
        tables[name] = [[" ".join(x.split()) for x in row.split(",")] for row in rows]
        assert len(rows) == int(height)
        assert all(len(row) == int(width) for row in tables[name])
    return tables["kAt"], tables["kG"], tables["kBt"]


def as_compiled(text):
    """What a C++ compiler makes of an entry: one literal, or the quotient of two."""
    over, _, under = text.partition(" / ")
    return float(over) / float(under) if under else float(text)


def test_header_is_what_the_script_writes():
    assert cook_toom.HEADER.read_text(encoding="utf-8") == cook_toom.header()
    subprocess.run([sys.executable, SCRIPT, "--check"], check=True)


def test_check_finds_a_changed_header(monkeypatch, tmp_path):
    header = tmp_path / "matrices.h"
    monkeypatch.setattr(cook_toom, "HEADER", header)
    monkeypatch.setattr(sys, "argv", ["cook_toom.py", "--check"])
    with pytest.raises(SystemExit, match=r"matrices\.h is not what"):
        cook_toom.main()
    header.write_text(cook_toom.header().replace("0.625", "0.5"))
    with pytest.raises(SystemExit, match=r"matrices\.h is not what"):
        cook_toom.main()
    monkeypatch.setattr(sys, "argv", ["cook_toom.py"])
    cook_toom.main()
    assert header.read_text() == cook_toom.header()


def is_correlation(at, g, bt, r):
    """Whether the matrices compute a correlation, for any input and any taps.

    Both sides are bilinear in input and taps, so it is enough to compare them on pairs
    of unit vectors: output i must hold d[p] g[q] just where p is i + q.
    """
    n = len(bt)
    return all(
        sum(at[i][j] * g[j][q] * bt[j][p] for j in range(n)) == (p == i + q)
        for i, p, q in itertools.product(range(len(at)), range(n), range(r))
    )


@sizes
def test_correlates(m, r):
    at, g, bt = cook_toom.cook_toom(m, r)
    assert all(
        isinstance(x, Fraction) for rows in (at, g, bt) for row in rows for x in row
    )
    assert is_correlation(at, g, bt, r)
    g[-1][-1] += Fraction(1, 10**9)
    assert not is_correlation(at, g, bt, r)


@sizes
def test_equals_wincnn(m, r):
    """Rows of G and B^T may trade a factor between them; wincnn turns a sign around."""
    at, g, bt = map(sympy.Matrix, cook_toom.cook_toom(m, r))
    finite = [sympy.Rational(point) for point in cook_toom.POINTS[m + r - 1]]
    their_at, their_g, their_bt, _ = wincnn.cookToomFilter(finite, m, r)
    assert at == their_at
    scale = [
        next(x / y for x, y in zip(g.row(j), their_g.row(j), strict=True) if y)
        for j in range(m + r - 1)
    ]
    assert g == sympy.diag(*scale) * their_g
    assert sympy.diag(*scale) * bt == their_bt


@sizes
def test_header_holds_the_fractions(m, r):
    for table, exact in zip(written(m, r), cook_toom.cook_toom(m, r), strict=True):
        assert len(table) == len(exact)
        for texts, row in zip(table, exact, strict=True):
            assert [as_compiled(text) for text in texts] == [float(x) for x in row]
            assert not any(re.match(r"-0(\.0*)?$", text) for text in texts)


@sizes
def test_inputs_and_outputs_transform_by_exact_numbers(m, r):
    at, _, bt = cook_toom.cook_toom(m, r)
    assert all(Fraction(float(np.float32(x))) == x for row in at + bt for x in row)


@sizes
def test_opposite_points_share_parts(m, r):
    """The transforms compute even and odd parts once for a pair of points."""
    at, g, bt = cook_toom.cook_toom(m, r)
    for j in range((m + r) % 2, m + r - 2, 2):
        for plus, minus in (
            (g[j], g[j + 1]),
            (bt[j], bt[j + 1]),
            ([row[j] for row in at], [row[j + 1] for row in at]),
        ):
            assert minus == [(-1) ** i * x for i, x in enumerate(plus)]


def test_nests_in_two_dimensions():
    m, r = 4, 3
    at, g, bt = (
        np.array([[as_compiled(x) for x in row] for row in table])
        for table in written(m, r)
    )
    random = np.random.default_rng(0)
    image = random.standard_normal((m + r - 1, m + r - 1))
    kernel = random.standard_normal((r, r))
    windows = np.lib.stride_tricks.sliding_window_view(image, (r, r))
    np.testing.assert_allclose(
        at @ ((g @ kernel @ g.T) * (bt @ image @ bt.T)) @ at.T,
        np.einsum("ijkl,kl->ij", windows, kernel),
        rtol=0,
        atol=1e-13,
    )
