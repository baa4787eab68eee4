"""Random effects one term at a time, beside lmerTest's ranova."""

import numpy as np
import pytest
from peers import expected
from scipy import stats

import lmmfast as lf

CASES = expected("ranova")["cases"]


def fit_of(case):
    formula = case["formula"].replace("^", "**")
    return lf.lmm(formula, getattr(lf.datasets, case["data"])(), reml=case["reml"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['formula']}-{case['reml']}")
def test_as_lmertest(case):
    found = fit_of(case).ranova(reduce_terms=case["reduce"], n_sim=200)
    rows = ["full model" if row == "<none>" else row.replace("^", " ** ") for row in case["rows"]]
    rows = [row.replace("cask:batch", "batch:cask") for row in rows]
    own = found.loc[rows]
    np.testing.assert_array_equal(own["n_params"], case["npar"])
    np.testing.assert_allclose(own["llf"], case["loglik"], rtol=1e-9)
    np.testing.assert_allclose(own["aic"], case["aic"], rtol=1e-9)
    np.testing.assert_allclose(own["chisq"].iloc[1:], case["lrt"][1:], rtol=1e-6)
    np.testing.assert_array_equal(own["df"].iloc[1:].astype(int), case["df"][1:])
    np.testing.assert_allclose(own["p"].iloc[1:], case["p"][1:], rtol=1e-5)


def test_mixtures_and_the_model_without_random_effects():
    data = lf.datasets.sleepstudy()
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", data)
    table = fit.ranova()
    assert list(table.index) == ["full model", "Days in (Days | Subject)", "all random effects"]
    chisq = table["chisq"].iloc[1]
    half = 0.5 * (stats.chi2.sf(chisq, 1) + stats.chi2.sf(chisq, 2))
    assert table["p_mixture"].iloc[1] == pytest.approx(half, rel=1e-12)
    none = lf.lmm("Reaction ~ Days", data, groups="Subject", residual=lf.Independent())
    want = lf.compare(none, fit, test="mixture").iloc[1]
    last = table.iloc[-1]
    assert last["llf"] == pytest.approx(none.llf, rel=1e-12)
    assert last["p_mixture"] == pytest.approx(want["p"], rel=1e-8)
    assert "chi-bar-squared: 10,000 draws" in last["note"]


def test_uncorrelated_and_structured_effects():
    data = lf.datasets.sleepstudy()
    apart = lf.lmm("Reaction ~ Days + (Days || Subject)", data).ranova()
    assert list(apart.index[1:3]) == ["1 in (Days || Subject)", "Days in (Days || Subject)"]
    slope = lf.lmm("Reaction ~ Days + (0 + Days | Subject)", data)
    assert apart["llf"].iloc[1] == pytest.approx(slope.llf, rel=1e-9)
    assert list(slope.ranova().index) == ["full model", "(0 + Days | Subject)"]
    equal = lf.lmm("Reaction ~ Days + cs(Days | Subject)", data).ranova().iloc[1]
    assert equal.name == "cs(Days | Subject)" and np.isnan(equal["p_mixture"])
    serial = lf.lmm("Reaction ~ Days + (Days | Subject)", data, residual=lf.AR1("Days"))
    want = lf.lmm("Reaction ~ Days + (1 | Subject)", data, residual=lf.AR1("Days"))
    assert serial.ranova()["llf"].iloc[1] == pytest.approx(want.llf, rel=1e-9)


def test_arrays_and_what_is_refused():
    data = lf.datasets.sleepstudy()
    X = np.column_stack([np.ones(len(data)), data["Days"]])
    arrays = lf.fit(data["Reaction"], X, data["Subject"], X, z_names=["Intercept", "Days"])
    want = lf.lmm("Reaction ~ Days + (Days | Subject)", data).ranova()
    np.testing.assert_allclose(arrays.ranova()["chisq"], want["chisq"], rtol=1e-7)
    with pytest.raises(lf.DataError, match="need the data"):
        arrays.remove_data().ranova()
    none = lf.lmm("Reaction ~ Days", data, groups="Subject", residual=lf.Independent())
    with pytest.raises(lf.DataError, match="no random effects"):
        none.ranova()
