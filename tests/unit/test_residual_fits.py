"""Residual structures as users meet them: columns, times, errors, reports."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.covariance.triangle import least_squares, triangle


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """Forty subjects at 1 to 6 irregular times, shuffled."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(40):
        n = 1 + i % 6
        t = np.sort(rng.uniform(0, 10, n))
        e = np.linalg.cholesky(np.exp(-np.abs(t[:, None] - t) / 3)) @ rng.normal(size=n)
        visits = np.sort(rng.choice(8, n, replace=False))
        b, arm = rng.normal(), "AB"[i % 2]
        for k in range(n):
            y = 2 + 0.3 * t[k] + b + e[k] + 0.5 * rng.normal()
            rows.append((f"s{i}", arm, t[k], int(visits[k]), rng.uniform(1, 2), y))
    frame = pd.DataFrame(rows, columns=["id", "arm", "t", "visit", "v", "y"])
    return frame.sample(frac=1, random_state=1, ignore_index=True)


def ou(data: Any, time: Any = "t", **options: Any) -> Any:
    return lf.lmm("y ~ arm", data, groups="id", residual=lf.OU(time, nugget=True), **options)


def test_the_order_of_rows_does_not_matter(data: pd.DataFrame) -> None:
    fit, other = ou(data), ou(data.sort_values(["id", "t"]))
    assert fit.llf == pytest.approx(other.llf, rel=1e-12)
    np.testing.assert_allclose(fit.theta, other.theta, rtol=1e-6)
    shuffled = pd.Series(fit.residuals("normalized"), index=data.index)
    in_order = other.residuals("normalized")
    np.testing.assert_allclose(shuffled.loc[in_order.index], in_order, atol=1e-6)


@pytest.mark.parametrize("unit", [60.0, 1 / 365.25, 1e9])
def test_the_unit_and_the_origin_of_time_do_not_matter(data: pd.DataFrame, unit: float) -> None:
    fit, other = ou(data), ou(data.assign(t=1e3 * unit + data["t"] * unit))
    assert other.llf == pytest.approx(fit.llf, abs=1e-8)
    assert other.theta["rho(t)"] ** unit == pytest.approx(fit.theta["rho(t)"], rel=1e-5)


def test_dates_are_times(data: pd.DataFrame) -> None:
    dates = pd.Timestamp("2020-02-01") + pd.to_timedelta(data["t"], unit="D")
    fit = ou(data)
    for times in (dates, dates.dt.tz_localize("UTC"), pd.to_timedelta(data["t"], unit="D")):
        other = ou(data.assign(t=times))
        assert other.llf == pytest.approx(fit.llf, abs=1e-6)
        np.testing.assert_allclose(other.theta, fit.theta, rtol=1e-4)


def test_arrays(data: pd.DataFrame) -> None:
    X = np.column_stack([np.ones(len(data)), data["arm"] == "B"])
    times = data["t"].to_numpy()
    by_array = lf.fit(data["y"], X, data["id"], residual=lf.OU(times, nugget=True))
    fit = ou(data)
    assert by_array.llf == pytest.approx(fit.llf, abs=1e-10)
    assert list(by_array.theta_names) == ["var(OU|time)", "rho(time)", "var(Residual)"]
    with_random = lf.fit(data["y"], X, data["id"], Z=X[:, :1], residual=lf.AR1(data["visit"]))
    same = lf.lmm("y ~ arm + (1 | id)", data, residual=lf.AR1("visit"))
    assert with_random.llf == pytest.approx(same.llf, abs=1e-10)
    with pytest.raises(lf.DataError, match="fitted to arrays"):
        lf.fit(data["y"], X, data["id"], residual=lf.OU("t"))


def test_missing_values_of_the_structure_drop_rows(data: pd.DataFrame) -> None:
    holes = data.assign(t=data["t"].where(data.index % 7 > 0))
    with pytest.warns(lf.MissingRowsWarning, match="20 of 136 rows"):
        fit = ou(holes)
    clean = ou(holes.dropna())
    assert fit.n_dropped == holes["t"].isna().sum() > 0
    assert fit.missing_counts == {"t": fit.n_dropped}
    assert fit.llf == pytest.approx(clean.llf, abs=1e-10)
    with pytest.raises(lf.DataError, match="'t'"):
        ou(holes, missing="raise")


@pytest.mark.parametrize(
    ("residual", "error", "message"),
    [
        (lf.OU("time"), lf.DataError, "'time', which is not a column"),
        (lf.OU("arm"), lf.DataError, "must be numbers or dates"),
        (lf.AR1("t"), lf.DataError, r"whole numbers.*OU\('t'\)"),
        (lf.VarPower("arm"), lf.DataError, "'arm' of the residual structure must be numbers"),
        (lf.VarPower("zero"), lf.DataError, "without zeros"),
        (lf.VarExp("one"), lf.NotIdentifiableError, "'one' is constant"),
        (lf.ByGroup("one"), lf.NotIdentifiableError, "single level"),
        (lf.Unstructured("one"), lf.NotIdentifiableError, "single level"),
        (lf.OU("tied"), lf.DataError, r"two rows at tied = .*nugget=True"),
        (lf.AR1("pair"), lf.DataError, "two rows at pair = "),
        (lf.Unstructured("pair"), lf.DataError, "two rows at pair = "),
        (lf.AR1("visit", by="visit"), lf.DataError, "by='visit' changes within cluster"),
        (lf.Toeplitz("visit", bands=8), lf.NotIdentifiableError, "there are 7 lags"),
        (lf.OU("infinite"), lf.DataError, "'infinite' is infinite in row 3"),
        (lf.OU("one", nugget=True), lf.NotIdentifiableError, "say nothing about the correlation"),
    ],
)
def test_bad_columns(data: pd.DataFrame, residual: Any, error: Any, message: str) -> None:
    infinite = data["t"].where(data.index != 3, np.inf)
    bad = data.assign(
        zero=0.0, one=1, tied=data["t"].round(-1), pair=data["visit"] // 4, infinite=infinite
    )
    with pytest.raises(error, match=message):
        lf.lmm("y ~ arm", bad, groups="id", residual=residual)


def test_models_that_cannot_be_told_apart(data: pd.DataFrame) -> None:
    with pytest.raises(lf.NotIdentifiableError, match=r"var\(Intercept\|id\), cor\(Residual\)"):
        lf.lmm("y ~ arm + (1 | id)", data, residual=lf.CompoundSymmetry())
    alone = data.drop_duplicates("id")
    for residual in (lf.OU("t", nugget=True), lf.AR1("visit"), lf.CompoundSymmetry()):
        with pytest.raises(lf.NotIdentifiableError):
            lf.lmm("y ~ arm", alone, groups="id", residual=residual)
    few = data[data["id"].isin([f"s{i}" for i in range(6)])]
    with pytest.raises(lf.NotIdentifiableError, match="more than 7 clusters, but there are 6"):
        lf.lmm("y ~ 1", few, groups="id", residual=lf.Unstructured("visit"))


def test_how_to_ask(data: pd.DataFrame) -> None:
    with pytest.raises(lf.FormulaError, match="groups="):
        lf.lmm("y ~ arm", data, residual=lf.OU("t"))
    with pytest.raises(lf.FormulaError, match="residual="):
        lf.lmm("y ~ arm", data, groups="id")
    with pytest.raises(lf.UnsupportedModelError, match="random effects are by 'id'"):
        lf.lmm("y ~ arm + (1 | id)", data, groups="arm", residual=lf.OU("t"))
    with pytest.raises(TypeError, match="no residual structure"):
        lf.lmm("y ~ arm", data, groups="id", residual="ar1")  # type: ignore[arg-type]
    with pytest.raises(lf.UnsupportedModelError, match="both are correlations"):
        lf.OU("t") * lf.AR1("visit")
    with pytest.raises(lf.UnsupportedModelError, match="markov"):
        lf.lmm("y ~ 1", data, groups="id", residual=lf.Toeplitz("visit"), engine="markov")
    with pytest.raises(lf.UnsupportedModelError, match="moments"):
        ou(data, engine="moments")
    with pytest.raises(lf.UnsupportedModelError, match="give residual="):
        lf.lmm("y ~ arm + (1 | id)", data, engine="dense")


def test_products_read_as_written() -> None:
    product = lf.ByGroup("sex") * lf.OU("t", nugget=True) * lf.VarPower("v")
    assert repr(product) == "ByGroup('sex') * OU('t', nugget=True) * VarPower('v')"
    assert repr(lf.Toeplitz("visit", bands=2, by="arm")) == "Toeplitz('visit', bands=2, by='arm')"


def test_independent_residuals_without_random_effects_are_least_squares(
    data: pd.DataFrame,
) -> None:
    fit = lf.lmm("y ~ t + arm", data, groups="id", residual=lf.Independent())
    X = np.column_stack([np.ones(len(data)), data["t"], data["arm"] == "B"])
    beta, rss, *_ = np.linalg.lstsq(X, data["y"], rcond=None)
    np.testing.assert_allclose(fit.params[["Intercept", "t", "arm[T.B]"]], beta, rtol=1e-10)
    assert fit.scale == pytest.approx(rss[0] / (len(data) - 3), rel=1e-10)
    with_random = lf.lmm("y ~ t + (1 | id)", data, residual=lf.Independent())
    assert with_random.llf == lf.lmm("y ~ t + (1 | id)", data).llf


def test_positive_compound_symmetry_is_a_random_intercept(data: pd.DataFrame) -> None:
    marginal = lf.lmm("y ~ t", data, groups="id", residual=lf.CompoundSymmetry())
    random = lf.lmm("y ~ t + (1 | id)", data)
    assert marginal.llf == pytest.approx(random.llf, abs=1e-9)
    variance = random.theta["var(Intercept|id)"]
    assert marginal.theta["cor(Residual)"] == pytest.approx(
        variance / (variance + random.scale), rel=1e-6
    )


def test_compound_symmetry_may_be_negative() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(size=(50, 3))
    y -= 0.9 * y.mean(axis=1, keepdims=True)
    d = pd.DataFrame({"y": y.ravel(), "id": np.repeat(np.arange(50), 3)})
    fit = lf.lmm("y ~ 1", d, groups="id", residual=lf.CompoundSymmetry())
    assert -0.5 < fit.theta["cor(Residual)"] < -0.4
    assert fit.llf > lf.lmm("y ~ 1 + (1 | id)", d).llf + 10


def test_ar1_of_either_sign_keeps_the_place_of_missing_visits() -> None:
    rng = np.random.default_rng(8)
    rows = []
    for i in range(200):
        e = rng.normal()
        for k in range(6):
            e = -0.6 * e + 0.8 * rng.normal()
            if rng.random() < 0.7:
                rows.append((i, k, e))
    d = pd.DataFrame(rows, columns=["id", "visit", "y"])
    fit = lf.lmm("y ~ 1", d, groups="id", residual=lf.AR1("visit"))
    assert fit.theta["rho(visit)"] == pytest.approx(-0.6, abs=0.08)
    levels = d.assign(visit=pd.Categorical([f"V{k}" for k in d["visit"]]))
    assert lf.lmm("y ~ 1", levels, groups="id", residual=lf.AR1("visit")).llf == fit.llf


def test_a_nugget_of_zero_is_a_boundary_that_is_told() -> None:
    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(0, 20, (60, 5)), axis=1)
    C = np.exp(-np.abs(t[:, :, None] - t[:, None, :]) / 4)
    y = (np.linalg.cholesky(C) @ rng.normal(size=(60, 5, 1))).ravel()
    d = pd.DataFrame({"y": y, "t": t.ravel(), "id": np.repeat(np.arange(60), 5)})
    plain = lf.lmm("y ~ 1", d, groups="id", residual=lf.OU("t"))
    fit = lf.lmm("y ~ 1", d, groups="id", residual=lf.OU("t", nugget=True))
    assert fit.converged
    if fit.theta["var(Residual)"] < 1e-6:
        assert "measurement error" in fit.certificate.status
        assert fit.llf == pytest.approx(plain.llf, abs=1e-8)
        assert np.isnan(fit.theta_se["var(Residual)"])
    else:
        assert fit.llf > plain.llf


def test_intervals_contain_the_estimate_and_stay_in_range(data: pd.DataFrame) -> None:
    table = ou(data).variance_table()
    assert list(table.columns) == ["estimate", "std_error", "conf_low", "conf_high"]
    assert (table["conf_low"] < table["estimate"]).all()
    assert (table["estimate"] < table["conf_high"]).all()
    assert (table["conf_low"] > 0).all()
    assert table.loc["rho(t)", "conf_high"] < 1
    reach = -1 / np.log(table.loc["rho(t)", "estimate"])
    assert table.loc["range(t)", "estimate"] == pytest.approx(reach)
    assert table.loc["half-life(t)", "estimate"] == pytest.approx(reach * np.log(2))
    with pytest.raises(ValueError, match="alpha"):
        ou(data).variance_table(alpha=2)


def test_refit_copy_and_pickle(data: pd.DataFrame) -> None:
    fit = lf.lmm("y ~ t + (1 | id)", data, residual=lf.AR1("visit") * lf.VarPower("v"))
    again = fit.refit(data["y"])
    assert again.llf == pytest.approx(fit.llf, abs=1e-9)
    assert len(again.trace) < len(fit.trace)
    twice = fit.refit(2 * data["y"])
    np.testing.assert_allclose(twice.params, 2 * fit.params, rtol=1e-6)
    loaded = pickle.loads(pickle.dumps(fit))
    assert str(loaded.summary()) == str(fit.summary())
    pd.testing.assert_frame_equal(loaded.random_effects, fit.random_effects)
    assert repr(loaded.residual) == "AR1('visit') * VarPower('v')"
    assert copy.copy(fit).theta.equals(fit.theta)
    with pytest.raises(lf.UnsupportedModelError, match="appended"):
        fit.append(data)


def test_the_report_shows_the_structure(data: pd.DataFrame) -> None:
    report = str(ou(data).summary())
    assert "Residual covariance: OU('t', nugget=True)" in report
    assert "half-life(t)" in report
    assert "Random effects" not in report
    assert "rho(t)" in ou(data).summary()._repr_html_()


def test_pearson_residuals_have_unit_variance_where_variances_differ(data: pd.DataFrame) -> None:
    rng = np.random.default_rng(1)
    d = data.assign(y=rng.normal(size=len(data)) * np.where(data["arm"] == "A", 1.0, 5.0))
    fit = lf.lmm("y ~ 1", d, groups="id", residual=lf.ByGroup("arm"))
    r = pd.Series(fit.residuals("pearson"))
    for arm in "AB":
        assert r[d["arm"] == arm].std() == pytest.approx(1, abs=0.05)


def test_a_start_from_another_fit_saves_evaluations(data: pd.DataFrame) -> None:
    fit = ou(data)
    again = ou(data, start=fit)
    assert again.llf == pytest.approx(fit.llf, abs=1e-9)
    with pytest.raises(lf.DataError, match="3 finite numbers"):
        ou(data, start=[1.0, 2.0])


def test_a_users_correlation_is_checked(data: pd.DataFrame) -> None:
    def wrong_shape(psi: Any, values: Any) -> Any:
        return np.eye(len(values)), np.zeros((2, len(values), len(values)))

    def no_correlation(psi: Any, values: Any) -> Any:
        return 2 * np.eye(len(values)), np.zeros((1, len(values), len(values)))

    for function, message in ((wrong_shape, "shapes"), (no_correlation, "ones on its diagonal")):
        with pytest.raises(lf.DataError, match=message):
            lf.lmm(
                "y ~ 1",
                data,
                groups="id",
                residual=lf.CustomCorrelation("t", function=function, start=[0.0]),
            )


def test_many_clusters_start_from_a_sample_of_them() -> None:
    rng = np.random.default_rng(2)
    m = 4500
    ids = np.repeat(np.arange(m), 3)
    visit = np.tile(np.arange(3), m)
    e = rng.normal(size=(m, 3))
    e[:, 1] += 0.5 * e[:, 0]
    e[:, 2] += 0.5 * e[:, 1]
    rare = np.isin(ids, np.arange(40, 2000, 49))  # not all of them in the sample
    d = pd.DataFrame({"y": e.ravel() * np.where(rare, 3.0, 1.0), "id": ids, "visit": visit})
    d["arm"] = np.where(rare, "rare", "common")
    fit = lf.lmm("y ~ 1", d, groups="id", residual=lf.AR1("visit", by="arm"))
    assert fit.converged
    alone = lf.lmm("y ~ 1", d[rare], groups="id", residual=lf.AR1("visit"), reml=False)
    assert fit.theta["rho(visit|rare)"] == pytest.approx(alone.theta["rho(visit)"], abs=0.05)
    again = lf.lmm("y ~ 1", d, groups="id", residual=lf.AR1("visit", by="arm"), start=fit)
    assert again.llf == pytest.approx(fit.llf, abs=1e-9)
    with pytest.raises(lf.NotIdentifiableError):
        lf.lmm("y ~ 1 + (1 | id)", d, residual=lf.CompoundSymmetry())


@pytest.mark.parametrize(
    ("n", "k"), [(500, 0), (12, 12), (500, 12), (5000, 12), (20000, 44), (900, 500)]
)
def test_triangles_of_blocks_have_the_same_products(n: int, k: int) -> None:
    A = np.random.default_rng(n).normal(size=(n, k))
    R = triangle(A)
    assert R.shape == (k, k)
    np.testing.assert_allclose(R.T @ R, A.T @ A, rtol=0, atol=1e-11 * n)


@pytest.mark.parametrize(("n", "k"), [(500, 0), (3, 5), (12, 12), (5000, 12)])
def test_least_squares_of_dependent_columns(n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    X, y = rng.normal(size=(n, k)), rng.normal(size=n)
    X[:, k // 2 : k // 2 + 1] = X[:, :1] + X[:, -1:]
    want = np.linalg.lstsq(X, y, rcond=1e-10)[0]
    np.testing.assert_allclose(least_squares(X, y, 1e-10), want, rtol=1e-10, atol=1e-10)


def test_linear_correlations_are_for_a_line() -> None:
    with pytest.raises(lf.UnsupportedModelError, match="one coordinate, not 2"):
        lf.SpatialLinear("x", "y")
    # on a square grid of 9 points some combination of rows would have a negative variance
    x, y = (axis.ravel() for axis in np.meshgrid(np.arange(9.0), np.arange(9.0)))
    d = np.hypot(x[:, None] - x, y[:, None] - y)
    assert np.linalg.eigvalsh(np.clip(1 - d / 6, 0, None))[0] < -0.01


def test_linear_correlations_are_searched_over_all_ranges() -> None:
    """Many maxima: nlme stops at -809.04, from a range of 0.2."""
    fit = lf.lmm(
        "follicles ~ sin1 + cos1",
        lf.datasets.ovary(),
        groups="Mare",
        residual=lf.SpatialLinear("Time"),
        reml=False,
    )
    assert fit.llf > -800.6


def test_linear_correlations_that_touch_no_two_rows_are_zero() -> None:
    rng = np.random.default_rng(3)
    apart = pd.DataFrame(
        {
            "id": np.repeat(np.arange(60), 3),
            "t": np.tile([0.0, 1.0, 2.0], 60),
            "y": rng.normal(size=180),
        }
    )
    apart["y"] -= 0.3 * np.roll(apart["y"], 1)  # negative correlations
    fit = lf.lmm("y ~ 1", apart, groups="id", residual=lf.SpatialLinear("t"))
    alone = lf.lmm("y ~ 1", apart, groups="id", residual=lf.Independent())
    assert fit.llf == pytest.approx(alone.llf, rel=1e-9)
    assert "the correlation over t is zero" in str(fit.certificate)


def by_arma(data: pd.DataFrame, visit: Any = "visit", **options: Any) -> Any:
    return lf.lmm("y ~ arm", data, groups="id", residual=lf.ARMA11(visit), **options)


def test_arma_of_levels_is_that_of_their_numbers(data: pd.DataFrame) -> None:
    named = data.assign(visit=pd.Categorical([f"V{k}" for k in data["visit"]]))
    fit, other = by_arma(data), by_arma(named)
    shifted = by_arma(data.assign(visit=data["visit"] - 100))
    for one in (other, shifted):
        assert one.llf == pytest.approx(fit.llf, rel=1e-12)
        np.testing.assert_allclose(one.theta, fit.theta, rtol=1e-6)
    assert list(fit.theta.index) == ["rho(visit)", "gamma(visit)", "var(Residual)"]


def test_arma_contains_ar1(data: pd.DataFrame) -> None:
    small = lf.lmm("y ~ arm", data, groups="id", residual=lf.AR1("visit"))
    big = by_arma(data)
    assert big.llf >= small.llf
    rho = small.theta["rho(visit)"]
    begin = [rho, rho, small.theta["var(Residual)"]]
    with pytest.warns(lf.ConvergenceWarning):
        start = by_arma(data, start=begin, max_iter=1)
    assert start.llf == pytest.approx(small.llf, rel=1e-9)


def test_arma_covariances_of_other_visits(data: pd.DataFrame) -> None:
    fit = by_arma(data)
    rho, gamma, variance = fit.theta
    V = fit.implied_covariance(at=pd.DataFrame({"visit": [12, 10, 15], "arm": "A"}))
    expected = variance * np.array(
        [
            [1, gamma * rho, gamma * rho**2],
            [gamma * rho, 1, gamma * rho**4],
            [gamma * rho**2, gamma * rho**4, 1],
        ]
    )
    np.testing.assert_allclose(V, expected, rtol=1e-12)
    with pytest.raises(lf.DataError, match="go over 9 places"):
        fit.implied_covariance(at=pd.DataFrame({"visit": [1, 9], "arm": "A"}))


def test_arma_says_what_it_cannot_take(data: pd.DataFrame) -> None:
    with pytest.raises(lf.DataError, match=r"ARMA11\('t'\) needs whole numbers"):
        by_arma(data, "t")
    with pytest.raises(lf.DataError, match=r"from -0\.25 to 0\.75"):
        by_arma(data, start=[0.5, 0.9, 1.0])
    with pytest.raises(lf.TooLargeError, match="whole numbers from first to last visit"):
        by_arma(data.assign(visit=data["visit"] * 10**7))
    with pytest.raises(lf.NotIdentifiableError):
        by_arma(data[data["visit"] < 2])


@pytest.mark.parametrize("make", [lf.AR1, lf.ARMA11, lf.Toeplitz])
def test_implied_covariances_do_not_cut_whole_numbers(data: pd.DataFrame, make: Any) -> None:
    fit = lf.lmm("y ~ arm", data, groups="id", residual=make("visit"))
    with pytest.raises(lf.DataError, match=r"needs whole numbers|no level 1\.5"):
        fit.implied_covariance(at=pd.DataFrame({"visit": [1, 1.5]}))


def test_compound_symmetry_of_more_rows_than_any_group(data: pd.DataFrame) -> None:
    fit = lf.lmm("y ~ t + arm", data, groups="id", residual=lf.CompoundSymmetry())
    most = int(data.groupby("id").size().max())
    rows = pd.DataFrame({"t": np.arange(most + 1.0)})
    assert fit.implied_covariance(at=rows.iloc[:most]).shape == (most, most)
    with pytest.raises(lf.DataError, match=f"groups of {most} rows at most"):
        fit.implied_covariance(at=rows)
