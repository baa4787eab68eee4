"""Fitted values, residuals and predictions: index, levels, unknown groups, missing values."""

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf


@pytest.fixture(scope="module")
def data():
    frame = lf.datasets.sleepstudy()
    return frame.set_index(pd.Index([f"row {k}" for k in range(len(frame))])).sample(
        frac=1, random_state=1
    )


@pytest.fixture(scope="module")
def fit(data):
    return lf.lmm("Reaction ~ Days + (Days | Subject)", data)


def test_fitted_values_keep_the_index(fit, data):
    b = fit.random_effects.loc[data["Subject"]]
    population = fit.params["Intercept"] + fit.params["Days"] * data["Days"]
    conditional = (
        population + b["Intercept"].to_numpy() + b["Days"].to_numpy() * data["Days"].to_numpy()
    )
    assert fit.fittedvalues.index.equals(data.index)
    np.testing.assert_allclose(fit.fittedvalues, conditional, rtol=1e-12)
    np.testing.assert_allclose(fit.fitted("population"), population, rtol=1e-12)
    np.testing.assert_allclose(fit.resid(), data["Reaction"] - conditional, atol=1e-9)
    np.testing.assert_allclose(fit.resid(kind="pearson") * fit.sigma, fit.resid(), rtol=1e-12)
    np.testing.assert_allclose(
        fit.resid(level="population"), data["Reaction"] - population, atol=1e-9
    )
    assert fit.predict(data, level="conditional").index.equals(data.index)
    np.testing.assert_allclose(fit.predict(data, level="conditional"), conditional, rtol=1e-12)
    np.testing.assert_allclose(fit.predict(), population, rtol=1e-12)


def test_rows_with_missing_values(data):
    holes = data.copy()
    holes.loc["row 3", "Days"] = np.nan
    holes.loc["row 7", "Reaction"] = np.nan
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", holes)
    assert fit.n_dropped == 2
    assert fit.fittedvalues.index.equals(data.index.drop(["row 3", "row 7"], errors="ignore"))
    predicted = fit.predict(holes, level="conditional")
    assert predicted.isna().sum() == 1
    assert np.isnan(predicted["row 3"])


def test_normalized_residuals_whiten(fit, data):
    """r'V^-1 r is the sum of their squares: n - p at the REML estimate."""
    r = fit.resid(kind="normalized", level="population")
    assert r.index.equals(data.index)
    np.testing.assert_allclose(r @ r, fit.nobs - 2, rtol=1e-8)
    with pytest.raises(ValueError, match="marginal"):
        fit.resid(kind="normalized")


def test_unknown_groups(fit, data):
    new = pd.DataFrame({"Days": [1.0, 2.0, 3.0], "Subject": ["S308", "S999", None]})
    with pytest.warns(lf.NewGroupsWarning, match="2 of 3 rows"):
        predicted = fit.predict(new, level="conditional")
    population = fit.predict(new)
    assert predicted[0] != population[0]
    np.testing.assert_allclose(predicted[1:], population[1:], rtol=1e-15)
    with pytest.raises(lf.DataError, match=r"first in row 1.*new_levels='population'"):
        fit.predict(new, level="conditional", new_levels="error")


def test_population_needs_no_group(fit):
    np.testing.assert_allclose(
        fit.predict({"Days": [0.0, 1.0]}),
        [fit.params["Intercept"], fit.params["Intercept"] + fit.params["Days"]],
        rtol=1e-12,
    )


def test_arrays(fit, data):
    X = np.column_stack([np.ones(len(data)), data["Days"]])
    same = lf.fit(data["Reaction"], X, data["Subject"], Z=X, x_names=["Intercept", "Days"])
    assert same.fittedvalues.index.equals(data.index)
    np.testing.assert_allclose(same.fittedvalues, fit.fittedvalues, rtol=1e-9)
    predicted = same.predict(X[:5], level="conditional", groups=data["Subject"][:5], Z=X[:5])
    np.testing.assert_allclose(predicted, same.fittedvalues[:5], rtol=1e-12)
    with pytest.raises(lf.DataError, match="groups="):
        same.predict(X, level="conditional", Z=X)
    with pytest.raises(lf.DataError, match="offset has shape"):
        same.predict(X, offset=np.zeros(3))
    shifted = same.predict(X[:2], offset=[1.0, 2.0])
    np.testing.assert_allclose(shifted, same.predict(X[:2]) + np.arange(1, 3))


def test_wrong_choices(fit, data):
    for call in (
        lambda: fit.predict(data, level="group"),
        lambda: fit.predict(data, new_levels="ignore"),
        lambda: fit.resid(kind="raw"),
        lambda: fit.fitted("group"),
    ):
        with pytest.raises(ValueError, match="choose one of"):
            call()


def test_expressions_over_all_rows_warn_for_new_ones(data):
    fit = lf.lmm("Reaction ~ I(Days - Days.mean()) + (1 | Subject)", data)
    with pytest.warns(lf.NewDataWarning, match="Days - Days.mean"):
        fit.predict(data[:5])
    remembered = lf.lmm("Reaction ~ center(Days) + (1 | Subject)", data)
    np.testing.assert_allclose(remembered.predict(data[:5]), fit.fitted("population")[:5])
