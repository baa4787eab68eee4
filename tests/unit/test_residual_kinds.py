"""Residuals of all kinds and levels beside dense algebra."""

import pickle

import numpy as np
import pandas as pd
import pytest
from dense_cases import CASES, nested, slopes

import lmmfast as lf
from lmmfast.diagnostics import inverse_rows


@pytest.fixture(params=CASES)
def case(request):
    fit, _, model = CASES[request.param]()
    levels = {"population": []}
    if model.parts or model.errors is not None:
        levels["conditional"] = list(range(len(model.parts)))
    if len(model.parts) == 2:
        inner = fit.factor_names[0]
        around = [inner, *fit.nested_in[inner]]
        levels[inner] = [k for k, name in enumerate(fit.factor_names) if name in around]
    return fit, model, levels


def test_the_dense_model_is_that_of_the_fit(case):
    fit, model, _ = case
    np.testing.assert_allclose(fit.params, model.beta, rtol=1e-7)
    np.testing.assert_allclose(fit.cov_params(), model.C, rtol=1e-7)


def test_studentized_and_pearson(case):
    fit, model, levels = case
    for level, factors in levels.items():
        M = model.left(factors, level == "conditional")
        e = M @ model.V_inv @ model.r
        np.testing.assert_allclose(fit.residuals(level=level), e, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(
            fit.residuals("pearson", level), e / np.sqrt(np.diag(M)), rtol=1e-6, atol=1e-8
        )
        sd = np.sqrt(np.diag(M @ model.P @ M))
        np.testing.assert_allclose(
            fit.residuals("studentized", level), e / sd, rtol=1e-6, atol=1e-8
        )


def test_normalized_have_unit_covariance(case):
    fit, model, _ = case
    e = np.asarray(fit.residuals("normalized"))
    assert e @ e == pytest.approx(model.r @ model.V_inv @ model.r, rel=1e-9)


def test_rows_in_blocks_and_all_effects_at_once(monkeypatch):
    fit, _, _ = nested()
    at_once = np.asarray(fit.residuals("studentized"))
    monkeypatch.setattr(inverse_rows, "MAX_EFFECTS", 3)
    np.testing.assert_allclose(fit.residuals("studentized"), at_once, rtol=1e-10)


def test_rows_that_are_fitted_exactly_have_none():
    data = lf.datasets.sleepstudy().assign(alone=0.0)
    data.loc[5, "alone"] = 1.0
    fit = lf.lmm("Reaction ~ Days + alone + (Days | Subject)", data)
    for level in ("population", "conditional"):
        e = fit.residuals("studentized", level)
        assert np.isnan(e[5]) == (level == "conditional")
        assert e.drop(5).notna().all()


def test_left_out_rows_and_arrays():
    data = lf.datasets.sleepstudy()
    data.loc[3, "Reaction"] = np.nan
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", data, missing="exclude")
    e = fit.residuals("studentized")
    assert list(e.index[e.isna()]) == [3]
    kept = data.drop(index=3)
    X = np.column_stack([np.ones(len(kept)), kept["Days"]])
    arrays = lf.fit(kept["Reaction"].to_numpy(), X, kept["Subject"].to_numpy(), Z=X)
    np.testing.assert_allclose(arrays.residuals("studentized"), e.dropna(), rtol=1e-8)


def test_without_fixed_effects():
    data = lf.datasets.sleepstudy()
    fit = lf.lmm("Reaction ~ 0 + (1 | Subject)", data)
    np.testing.assert_allclose(
        fit.residuals("studentized", "population"), fit.residuals("pearson", "population")
    )
    assert fit.residuals("studentized").notna().all()


def test_large_offsets_of_the_columns_cost_no_digits():
    fit, data, _ = slopes()
    far = lf.lmm(
        "Reaction ~ Days + (Days | Subject)", data.assign(Days=data["Days"] + 1e5), weights="w"
    )
    np.testing.assert_allclose(
        far.residuals("studentized"), fit.residuals("studentized"), rtol=1e-6, atol=1e-7
    )


def test_refusals():
    fit, _, _ = slopes()
    with pytest.raises(ValueError, match="'pearson', 'studentized', 'normalized'"):
        fit.residuals("student")
    with pytest.raises(ValueError, match="choose one of 'population', 'conditional'"):
        fit.residuals("studentized", "marginal")
    bare = pickle.loads(pickle.dumps(fit))
    for kind in ("response", "pearson", "studentized", "normalized"):
        with pytest.raises(lf.DataError, match="need the data"):
            bare.residuals(kind)


def test_too_large_blocks_are_refused(monkeypatch):
    from lmmfast.diagnostics import blocks

    fit, _, _ = nested()
    monkeypatch.setattr(blocks, "MAX_BLOCK", 3)
    with pytest.raises(lf.UnsupportedModelError, match="6 here and 3 at most"):
        fit.residuals("normalized")


def test_index_is_that_of_the_data():
    fit, data, _ = slopes()
    assert isinstance(fit.residuals("studentized"), pd.Series)
    assert fit.residuals("studentized").index.equals(data.index)
