"""`fit.drop`: what is left after subtracting groups is a fit of the other rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf


def made(m: int = 50, n_i: int = 5, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n, g, t = m * n_i, np.repeat(np.arange(m), n_i), np.tile(np.arange(float(n_i)), m)
    b, x = rng.normal(size=(m, 2)), rng.normal(size=n)
    y = 1 + 0.5 * t - x + b[g, 0] + 0.5 * b[g, 1] * t + rng.normal(size=n)
    w = rng.uniform(0.5, 2, size=n)
    return pd.DataFrame({"y": y, "t": t, "x": x, "g": g, "w": w, "name": [f"n{k:02}" for k in g]})


@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("group", ["g", "name"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_fit_of_the_rest(group, weights, shuffled):
    data = made()
    if shuffled:
        data = data.sample(frac=1, random_state=2)
    data.loc[data.index[7], "x"] = np.nan
    gone = data[group].unique()[[0, 3, 17, 49]]
    formula = f"y ~ t + x + (t | {group})"
    fit = lf.lmm(formula, data, weights=weights)
    expected = lf.lmm(formula, data[~data[group].isin(gone)], weights=weights)
    found = fit.drop(list(gone))
    assert (found.nobs, found.ngroups) == (expected.nobs, expected.ngroups)
    assert found.llf == pytest.approx(expected.llf, rel=1e-11)
    np.testing.assert_allclose(found.params, expected.params, rtol=1e-8)
    np.testing.assert_allclose(found.bse, expected.bse, rtol=1e-8)
    np.testing.assert_allclose(found.theta, expected.theta, rtol=1e-6)
    pd.testing.assert_frame_equal(
        found.random_effects, expected.random_effects, rtol=1e-6, atol=1e-8
    )
    back = found.append(data[data[group].isin(gone)])
    assert back.llf == pytest.approx(fit.llf, rel=1e-11)


def test_one_label():
    data = made()
    found = lf.lmm("y ~ t + (1 | g)", data).drop(3)
    assert found.llf == pytest.approx(lf.lmm("y ~ t + (1 | g)", data[data["g"] != 3]).llf)


def test_what_cannot_be_dropped():
    data = made()
    fit = lf.lmm("y ~ t + (1 | g)", data)
    with pytest.raises(lf.DataError, match="99 is no group of 'g'"):
        fit.drop([3, 99])
    with pytest.raises(lf.DataError, match="no groups"):
        fit.drop([])
    with pytest.raises(lf.DataError, match="1 groups of 'g' would be left"):
        fit.drop(np.arange(49))
    with pytest.raises(lf.DataError, match="appended rows"):
        fit.append(data.assign(g=data["g"] + 100)).drop(3)
    with pytest.raises(lf.DataError, match="need the data"):
        fit.remove_data().drop(3)
    large = data.assign(y=np.where(data["g"] == 3, 1e6 * data["x"], data["y"]))
    with pytest.raises(lf.DataError, match="digits would be lost"):
        lf.lmm("y ~ t + (1 | g)", large).drop(3)
    with pytest.raises(lf.UnsupportedModelError):
        lf.lmm("y ~ t + (1 | g)", data, residual=lf.AR1("t")).drop(3)
    only = data.assign(z=np.where(data["g"] == 3, data["x"], 0.0))
    with pytest.raises(lf.DataError, match=r"'z'|digits"):
        lf.lmm("y ~ t + z + (1 | g)", only).drop(3)
