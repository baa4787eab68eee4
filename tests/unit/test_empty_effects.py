"""Columns of Z that are zero in all rows are left out with a warning."""

import pickle

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf

FORMULA = "y ~ a + b + (0 + a:b | g)"


@pytest.fixture(scope="module")
def cells() -> pd.DataFrame:
    """Three levels of a by two of b; no row has a = 3 and b = 2."""
    rng = np.random.default_rng(8)
    n = 520
    d = pd.DataFrame(
        {"g": rng.integers(0, 24, n), "a": rng.integers(1, 4, n), "b": rng.integers(1, 3, n)}
    )
    d.loc[d["a"] == 3, "b"] = 1
    d["cell"] = d["a"].astype(str) + d["b"].astype(str)
    effects = rng.normal(size=(24, 6))
    d["y"] = 2.0 + effects[d["g"], 2 * d["a"] + d["b"] - 3] + rng.normal(size=n)
    return d.astype({"a": str, "b": str})


@pytest.mark.parametrize(
    ("D", "residual"),
    [(None, None), (lf.D.diag(), None), (lf.D.cs(), None), (lf.D.diag(), lf.ByGroup("b"))],
)
def test_an_empty_cell_is_left_out(cells: pd.DataFrame, D: object, residual: object) -> None:
    message = r"zero in all rows: a\[3\]:b\[2\]\|g$"
    with pytest.warns(lf.RankWarning, match=message):
        fit = lf.lmm(FORMULA, cells, D=D, residual=residual)
    other = lf.lmm("y ~ a + b + (0 + cell | g)", cells, D=D, residual=residual)
    assert fit.llf == pytest.approx(other.llf, abs=1e-8)
    assert fit.dropped_effects == ["a[3]:b[2]|g"] and other.dropped_effects == []
    assert len(fit.z_names) == 5 and "a[3]:b[2]" not in fit.z_names
    order = np.argsort([name.replace("a[", "").replace("]:b[", "")[:2] for name in fit.z_names])
    np.testing.assert_allclose(
        fit.random_effects.to_numpy()[:, order], other.random_effects, atol=1e-5
    )
    # New rows in the cell have the effect zero; the others are as in the other model.
    new = pd.DataFrame({"a": ["3", "2"], "b": ["2", "2"], "g": [0, 0], "cell": ["12", "22"]})
    found = fit.predict(new, level="conditional")
    assert found[0] == pytest.approx(fit.predict(new)[0], abs=1e-12)
    assert found[1] == pytest.approx(other.predict(new, level="conditional")[1], abs=1e-5)
    assert "because their columns are zero in all rows: a[3]:b[2]|g." in " ".join(
        str(fit.summary()).split()
    )
    kept = pickle.loads(pickle.dumps(fit))
    np.testing.assert_array_equal(kept.predict(new, level="conditional"), found)


def test_it_may_be_refused(cells: pd.DataFrame) -> None:
    with pytest.raises(
        lf.NotIdentifiableError, match=r"nothing about the effects a\[3\]:b\[2\]\|g"
    ):
        lf.lmm(FORMULA, cells, rank_deficient="raise")


def test_other_data_for_such_a_fit(cells: pd.DataFrame) -> None:
    with pytest.warns(lf.RankWarning):
        fit = lf.lmm(FORMULA, cells[:480])
        whole = lf.lmm(FORMULA, cells)
    assert fit.append(cells[480:]).llf == pytest.approx(whole.llf, abs=1e-8)
    assert fit.append(cells[480:]).dropped_effects == whole.dropped_effects
    assert fit.refit(2 * cells["y"][:480]).llf < fit.llf
    with pytest.raises(lf.DataError, match=r"'a\[3\]:b\[2\]' of Z was zero in every row"):
        fit.append(cells[480:].assign(a="3", b="2"))
    rows = fit.implied_covariance(group=0, at=pd.DataFrame({"a": ["3", "1"], "b": ["2", "1"]}))
    assert rows.iloc[0, 0] == pytest.approx(fit.scale, rel=1e-12) and rows.iloc[0, 1] == 0


def test_arrays(cells: pd.DataFrame) -> None:
    y, X, g = cells["y"].to_numpy(), np.ones((520, 1)), cells["g"].to_numpy()
    some = (cells["a"] == "1").to_numpy(float)
    Z = np.column_stack([np.ones(520), np.zeros(520), some])
    left = lf.fit(y, X, g, Z[:, [0, 2]])
    with pytest.warns(lf.RankWarning, match=r"z1\|group"):
        fit = lf.fit(y, X, g, Z)
    assert fit.llf == pytest.approx(left.llf, abs=1e-9)
    assert fit.z_names == ["z0", "z2"]
    # New data have all columns, in the places that they had.
    Znew = np.column_stack([Z[:5, 0], np.full(5, 3.0), Z[:5, 2]])
    np.testing.assert_allclose(
        fit.predict(X[:5], level="conditional", groups=g[:5], Z=Znew),
        left.predict(X[:5], level="conditional", groups=g[:5], Z=Znew[:, [0, 2]]),
        atol=1e-7,
    )
    both = fit.append(y, X, g + 50, Z)
    assert both.nobs == 1040 and both.z_names == ["z0", "z2"]
    with pytest.raises(lf.DataError, match="'z1' of Z was zero in every row"):
        fit.append(y, X, g, Z[:, [0, 2, 2]])
    table = pd.DataFrame({"z0": [1.0, 1.0], "z1": [0.0, 9.0], "z2": [0.0, 1.0]})
    V = fit.implied_covariance(at=table)
    np.testing.assert_allclose(
        V,
        left.implied_covariance(at=table.drop(columns="z1").set_axis(["z0", "z1"], axis=1)),
        rtol=1e-5,
    )
    # One column that is left of cs is a variance; nothing that is left is an error.
    with pytest.warns(lf.RankWarning):
        alone = lf.fit(y, X, g, Z[:, :2], D=lf.D.cs())
    assert alone.llf == pytest.approx(lf.fit(y, X, g).llf, abs=1e-9)
    with pytest.raises(lf.NotIdentifiableError, match="zero"):
        lf.fit(y, X, g, np.zeros((520, 1)))


def test_several_factors_and_many_fits(cells: pd.DataFrame) -> None:
    d = cells.assign(h=pd.Series(list("uvwxy") * 104), zero=0.0)
    with pytest.warns(lf.RankWarning, match=r"zero\|h"):
        fit = lf.lmm("y ~ 1 + (1 | g) + (zero | h)", d)
    assert fit.llf == pytest.approx(lf.lmm("y ~ 1 + (1 | g) + (1 | h)", d).llf, abs=1e-8)
    assert list(fit.random_effects["h"]) == ["Intercept"]
    X, Z = np.ones((520, 1)), d[["zero"]].assign(one=1.0)
    with pytest.warns(lf.RankWarning, match=r"zero\|group"):
        many = lf.fit_many(d[["y"]], X, d["g"], Z)
    assert many.llf[0] == pytest.approx(lf.fit(d["y"], X, d["g"]).llf, abs=1e-9)
    # In a segment: the other has all cells.
    both = pd.concat([d.assign(part=0), d.assign(part=1, b=np.where(np.arange(520) % 2, "1", "2"))])
    with pytest.warns(lf.LmmWarning):
        fits = lf.lmm_by("y ~ a + b + (0 + a:b || g)", both, "part")
    assert "a[3]:b[2]|g" in fits.warnings[0] and 1 not in fits.warnings
    with pytest.warns(lf.RankWarning):
        alone = lf.lmm("y ~ a + b + (0 + a:b || g)", d)
    assert fits.llf[0] == pytest.approx(alone.llf, abs=1e-8)
    assert np.isnan(fits.theta.loc[0, "var(a[3]:b[2]|g)"])
