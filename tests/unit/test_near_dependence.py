"""Columns that nearly determine each other: kept with all digits, or dropped without a trace."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.search.estimates import independent_columns


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(3)
    m, n_i = 300, 5
    g = np.repeat(np.arange(m), n_i)
    yr = rng.integers(1990, 2019, m * n_i).astype(float)
    t = yr - 2004
    y = 1 + 0.2 * t - 0.01 * t**2 + 0.0003 * t**3 + (1 + 0.05 * t) * rng.standard_normal(m)[g]
    return pd.DataFrame({"y": y + rng.standard_normal(m * n_i), "g": g, "yr": yr, "t": t})


@pytest.mark.parametrize("engine", ["moments", "reference"])
def test_powers_of_a_year(panel, engine):
    """The same polynomial in the raw and in the shifted year: ML fits are the same fit."""
    raw, shifted = (
        lf.lmm(
            f"y ~ {name} + I({name}**2) + I({name}**3) + (1 + {name} | g)",
            panel,
            reml=False,
            engine=engine,
        )
        for name in ("yr", "t")
    )
    assert raw.converged
    np.testing.assert_allclose(raw.llf, shifted.llf, rtol=1e-10)
    np.testing.assert_allclose(raw.bse.iloc[3], shifted.bse.iloc[3], rtol=1e-7)
    np.testing.assert_allclose(raw.tvalues.iloc[3], shifted.tvalues.iloc[3], rtol=1e-6)


def test_a_power_beyond_the_digits_is_dropped_without_a_trace(panel):
    """Less than 1e-7 of yr**4 lies beyond the lower powers: lme4's limit, too."""
    cubic = "y ~ yr + I(yr**2) + I(yr**3)"
    with pytest.warns(lf.RankWarning, match=r"I\(yr \*\* 4\)"):
        quartic = lf.lmm(f"{cubic} + I(yr**4) + (1 + yr | g)", panel)
    np.testing.assert_allclose(
        quartic.llf, lf.lmm(f"{cubic} + (1 + yr | g)", panel).llf, rtol=1e-10
    )


def test_powers_of_a_year_in_Z(panel):
    fits = [
        lf.lmm(f"y ~ {name} + ({name} + I({name}**2) | g)", panel, reml=False)
        for name in ("yr", "t")
    ]
    assert fits[0].converged
    np.testing.assert_allclose(fits[0].llf, fits[1].llf, rtol=1e-9)
    np.testing.assert_allclose(fits[0].fittedvalues, fits[1].fittedvalues, atol=1e-5)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("engine", ["moments", "reference"])
def test_a_dropped_column_leaves_no_trace(engine, reml):
    """Celsius rounded to six decimals is Fahrenheit: the fit is that without it."""
    rng = np.random.default_rng(7)
    g = np.repeat(np.arange(40), 4)
    F = rng.normal(50, 20, 160).round(1)
    y = rng.standard_normal(40)[g] + 0.1 * F + rng.standard_normal(160)
    data = {"y": y, "g": g, "F": F, "C": ((F - 32) * 5 / 9).round(6)}
    without = lf.lmm("y ~ F + (1 | g)", data, reml=reml, engine=engine)
    with pytest.warns(lf.RankWarning, match="C"):
        dropped = lf.lmm("y ~ F + C + (1 | g)", data, reml=reml, engine=engine)
    assert dropped.dropped_columns == ["C"]
    np.testing.assert_allclose(dropped.llf, without.llf, rtol=1e-12)
    np.testing.assert_allclose(dropped.params, without.params, rtol=1e-9)
    np.testing.assert_allclose(dropped.bse, without.bse, rtol=1e-9)
    np.testing.assert_allclose(dropped.fittedvalues, without.fittedvalues, rtol=1e-9)


def test_integer_columns_are_centred_like_floats():
    rng = np.random.default_rng(0)
    m = 200
    g, yr = np.repeat(np.arange(m), 6), np.tile(np.arange(2000, 2006), m)
    b = rng.normal(size=(m, 2)) * [1, 0.3]
    y = 3 + 0.2 * (yr - 2002) + b[g, 0] + b[g, 1] * (yr - 2002) + rng.normal(size=m * 6)
    X = np.c_[np.ones(m * 6, int), yr]
    fit, same = (lf.fit(y, x, g, Z=x) for x in (X, X.astype(float)))
    np.testing.assert_allclose(fit.llf, same.llf, rtol=1e-12)
    np.testing.assert_allclose(fit.theta, same.theta, rtol=1e-6)


def test_start_does_not_decide_what_is_identifiable():
    rng = np.random.default_rng(1)
    g = np.repeat(np.arange(200), 4)
    data = {"y": 1e4 * rng.standard_normal(200)[g] + rng.standard_normal(800), "g": g}
    first = lf.lmm("y ~ 1 + (1 | g)", data)
    again = lf.lmm("y ~ 1 + (1 | g)", data, start=first)
    np.testing.assert_allclose(again.llf, first.llf, rtol=1e-10)
    assert len(again.trace) <= len(first.trace)


@pytest.mark.parametrize("formula", ["y ~ x + (1 | g)", "c ~ 0 + x + (1 | g)"])
def test_fixed_and_random_effects_that_fit_exactly(formula):
    g = np.repeat(np.arange(50), 6)
    x = np.random.default_rng(2).standard_normal(300)
    data = {"y": g % 7 + 2 * x, "c": np.full(300, 5.0), "g": g, "x": x}
    with pytest.raises(lf.NotIdentifiableError, match="exactly"):
        lf.lmm(formula, data)


@pytest.mark.parametrize("m", [8, 64, 65, 128])
@pytest.mark.parametrize("p", [47, 48, 100])
def test_many_columns(p, m):
    """Panels of matrix products that are full, partly full and empty at the end."""
    rng = np.random.default_rng([p, m])
    g = np.repeat(np.arange(m), 16)
    X = np.c_[np.ones(16 * m), rng.standard_normal((16 * m, p - 1))]
    y = rng.standard_normal(m)[g] + rng.standard_normal(16 * m)
    fit = lf.fit(y, X, g)
    same = lf.fit(y, X, g, engine="reference")
    np.testing.assert_allclose(fit.llf, same.llf, rtol=1e-11)
    np.testing.assert_allclose(fit.params, same.params, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("row", [1, 3, 9_997])
def test_a_column_that_is_constant_in_the_sample_only(row):
    """The basis trusts its sample of the rows; packing sees every row and has it chosen anew."""
    rng = np.random.default_rng(row)
    n, groups = 10_000, np.repeat(np.arange(2_000), 5)
    X = np.column_stack([np.ones(n), rng.standard_normal(n) + 1e6])
    X[row, 0] = 3.0
    assert row not in np.linspace(0, n - 1, 4096).astype(int)
    y = X @ [1.0, 2.0] + rng.standard_normal(2_000)[groups] + rng.standard_normal(n)
    fit = lf.fit(y, X, groups, X[:, :1])
    dense = lf.fit(y, X, groups, X[:, :1], engine="reference")
    assert fit.llf == pytest.approx(dense.llf, rel=1e-10)
    assert fit._basis.unit is None


def test_the_columns_that_are_kept():
    """Those that raise the rank of the earlier ones, whatever their scales."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = int(rng.integers(1, 14))
        unit = rng.normal(size=(p + 5, p))
        for j in range(1, p):
            if rng.random() < 0.4:
                unit[:, j] = unit[:, :j] @ rng.normal(size=j)
            unit[:, j] /= np.linalg.norm(unit[:, j])
        X = unit * 10.0 ** rng.integers(-100, 100, p)
        first = rng.choice(p, min(p, 2), replace=False).tolist()
        excluded = [j for j in range(p) if j not in first][:1]
        basis = SimpleNamespace(x_mix=None, unit_columns=first, excluded=excluded)
        kept: list[int] = []
        for j in [*first, *(j for j in range(p) if j not in (*first, *excluded))]:
            if np.linalg.matrix_rank(unit[:, [*kept, j]], tol=1e-9) > len(kept):
                kept.append(j)
        assert independent_columns(X.T @ X, basis).tolist() == sorted(kept)
