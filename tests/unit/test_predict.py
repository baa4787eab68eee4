"""Fitted values, residuals and predictions: index, levels, unknown groups, missing values."""

import copy

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
    np.testing.assert_allclose(fit.residuals(), data["Reaction"] - conditional, atol=1e-9)
    np.testing.assert_allclose(
        fit.residuals(kind="pearson") * fit.sigma, fit.residuals(), rtol=1e-12
    )
    np.testing.assert_allclose(
        fit.residuals(level="population"), data["Reaction"] - population, atol=1e-9
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
    r = fit.residuals(kind="normalized")
    assert r.index.equals(data.index)
    np.testing.assert_allclose(r @ r, fit.nobs - 2, rtol=1e-8)
    with pytest.raises(ValueError, match="marginal"):
        fit.residuals(kind="normalized", level="conditional")


def test_normalized_residuals_are_those_of_cholesky(monkeypatch):
    rng = np.random.default_rng(3)
    g = rng.integers(0, 30, 200)
    d = pd.DataFrame({"g": g, "t": rng.normal(size=200), "w": rng.uniform(0.5, 2, 200)})
    d["y"] = d["t"] + rng.normal(size=30)[g] * (1 + d["t"]) + rng.normal(size=200) / d["w"] ** 0.5
    fit = lf.lmm("y ~ t + (t | g)", d, weights="w")
    want = np.empty(200)
    for i in range(30):
        rows = np.flatnonzero(g == i)
        Z = np.column_stack([np.ones(len(rows)), d["t"].iloc[rows]])
        V = Z @ fit.cov_re.to_numpy() @ Z.T + np.diag(fit.scale / d["w"].iloc[rows])
        want[rows] = np.linalg.solve(np.linalg.cholesky(V), fit.residuals(level="population")[rows])
    np.testing.assert_allclose(fit.residuals("normalized"), want, rtol=1e-9, atol=1e-11)
    monkeypatch.setattr(
        "lmmfast.prediction.predict.CHUNK", 5
    )  # some clusters are larger than a chunk
    np.testing.assert_allclose(fit.residuals("normalized"), want, rtol=1e-9, atol=1e-11)


def test_unknown_groups(fit):
    new = pd.DataFrame({"Days": [1.0, 2.0, 3.0], "Subject": ["S308", "S999", None]})
    with pytest.warns(lf.NewGroupsWarning, match="1 of 3 rows"):
        predicted = fit.predict(new, level="conditional")
    population = fit.predict(new)
    assert predicted[0] != population[0]
    assert predicted[1] == pytest.approx(population[1], rel=1e-15)
    assert np.isnan(predicted[2]) and not np.isnan(population[2])
    with pytest.raises(lf.DataError, match=r"first in row 1.*new_levels='population'"):
        fit.predict(new, level="conditional", new_levels="error")


@pytest.mark.parametrize(
    "keys", [pd.Categorical([None, None]), pd.array([None, None], dtype="string"), [None, None]]
)
def test_all_groups_missing(fit, keys):
    new = pd.DataFrame({"Days": [1.0, 2.0], "Subject": keys})
    assert np.isnan(fit.predict(new, level="conditional", new_levels="error")).all()
    assert not np.isnan(fit.predict(new)).any()


def test_combinations_of_groups_with_colons():
    rng = np.random.default_rng(2)
    a = np.repeat(["x:y", "x", "u", "v", "w"], 8)
    b = np.repeat(["z", "y:z", "z", "", "z"], 8)
    y = rng.normal(size=40) + np.repeat(rng.normal(size=5), 8)
    d = pd.DataFrame({"a": a, "b": b, "y": 3 * y})
    fit = lf.lmm("y ~ 1 + (1 | a:b)", d)
    assert fit.ngroups == 5 and len(set(fit.group_labels)) == 5
    for rows in (slice(None), slice(0, 8), slice(8, 16), slice(24, 32)):
        np.testing.assert_allclose(
            fit.predict(d[rows], level="conditional"), fit.fittedvalues[rows], rtol=1e-12
        )
    gone = d[:3].assign(a=pd.Categorical([None] * 3))
    assert np.isnan(fit.predict(gone, level="conditional")).all()


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
        lambda: fit.residuals(kind="raw"),
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


def test_offsets_of_new_rows(data):
    d = data.assign(o=data["Days"] * 3.0, other=1.0)
    named = lf.lmm("Reaction ~ Days + (1 | Subject)", d, offset="o")
    array = lf.lmm("Reaction ~ Days + (1 | Subject)", d, offset=d["o"].to_numpy())
    new, shift = d[:4].drop(columns="o"), np.arange(4.0)
    with pytest.warns(lf.NewDataWarning, match="offset="):
        bare = array.predict(new)
    np.testing.assert_allclose(named.predict(new, offset=shift), bare + shift, rtol=1e-8)
    np.testing.assert_allclose(named.predict(new, offset="other"), bare + 1, rtol=1e-8)
    np.testing.assert_allclose(array.predict(new, offset="other"), bare + 1, rtol=1e-8)
    np.testing.assert_allclose(named.predict(d[:4]), bare + d["o"][:4], rtol=1e-8)
    with pytest.raises(lf.DataError, match="'o'"):
        named.predict(new)
    with pytest.raises(lf.DataError, match="offset must be numbers"):
        array.predict(new, offset=list("abcd"))
    X = np.ones((len(d), 1))
    plain = lf.fit(d["Reaction"], X, d["Subject"], offset=d["o"])
    with pytest.raises(lf.DataError, match=r"'o'.*as an array"):
        plain.predict(X, offset="o")
    with pytest.warns(lf.NewDataWarning, match="offset="):
        plain.predict(X)


def test_new_data_after_dropped_columns(data):
    d = data.assign(twice=2 * data["Days"])
    with pytest.warns(lf.RankWarning):
        fit = lf.lmm("Reaction ~ Days + twice + (1 | Subject)", d)
    with pytest.warns(lf.NewDataWarning, match="twice"):
        fit.predict(d[:3])
    fit.predict()


def test_splines_end_where_the_data_did(data):
    fit = lf.lmm("Reaction ~ bs(Days, df=4) + (1 | Subject)", data)
    new = pd.DataFrame({"Days": [1.0, np.nan, 2.0, 12.0, 3.0, -1.0]})
    with pytest.raises(lf.DataError, match=r"'bs\(Days, df=4\)'.*first in row 3 "):
        fit.predict(new)
    assert np.isfinite(fit.predict(new[:1])).all()


def test_one_row_is_a_frame(fit, data):
    with pytest.raises(lf.DataError, match=r"d.iloc\[\[0\]\]"):
        fit.predict(data.iloc[0])
    assert len(fit.predict(data.iloc[[0]])) == 1


def test_Z_for_a_random_intercept(data):
    X = np.ones((len(data), 1))
    fit = lf.fit(data["Reaction"], X, data["Subject"])
    with pytest.raises(lf.DataError, match="leave Z out"):
        fit.predict(X, Z=X)
    one = fit.predict(X[:3], level="conditional", groups=data[["Subject"]][:3])
    np.testing.assert_allclose(one, fit.fittedvalues[:3], rtol=1e-12)


def test_copies_keep_the_data(fit):
    for twin in (copy.copy(fit), copy.deepcopy(fit)):
        np.testing.assert_array_equal(twin.residuals(), fit.residuals())
        twin.remove_data()
    assert len(fit.fittedvalues) == fit.nobs
