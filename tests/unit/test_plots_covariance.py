"""Implied covariances and autocorrelations: as by definition, and drawn as they are."""

import functools
import itertools
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.implied import pairs as residual_pairs
from lmmfast.plots.axes import LINE, SUBJECT, PlotError, figure
from lmmfast.plots.covariance import plot_acf, plot_covariance

matplotlib.use("Agg")

ORTHODONT = lf.datasets.orthodont()
SLEEP = lf.datasets.sleepstudy()


@pytest.fixture
def ax():
    return figure().subplots()


def irregular(m=30, seed=1):
    """OU with measurement error at irregular times, rows in no order, a covariate and weights."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(m):
        n = int(rng.integers(2, 9))
        t = np.sort(rng.uniform(0, 10, n))
        C = np.exp(-np.abs(t[:, None] - t) / 3.0) + 0.3 * np.eye(n)
        y = 1 + 0.2 * t + np.linalg.cholesky(C) @ rng.normal(size=n) + rng.normal()
        w = rng.uniform(0.5, 2, n)
        frames.append(pd.DataFrame({"id": i, "t": t, "y": y, "w": w, "arm": "ab"[i % 2], "u": t}))
    return pd.concat(frames).sample(frac=1.0, random_state=seed, ignore_index=True)


IRREGULAR = irregular()


def cauchy(psi, values):
    a = ((values - values.T) / np.exp(psi[0])) ** 2
    return 1 / (1 + a), (2 * a / (1 + a) ** 2)[None]


def irregular_fit(residual=None, random="", **options):
    groups = None if random else "id"
    return lf.lmm(f"y ~ t{random}", IRREGULAR, residual=residual, groups=groups, **options)


FITS = {
    "slope": lambda: irregular_fit(None, " + (1 + t | id)", weights="w"),
    "ou": lambda: irregular_fit(lf.OU("t", nugget=True), weights="w"),
    "intercept and ou": lambda: irregular_fit(lf.OU("t", nugget=True), " + (1 | id)"),
    "by": lambda: irregular_fit(lf.OU("t", by="arm")),
    "matern and power": lambda: irregular_fit(lf.SpatialMatern("t", "u") * lf.VarPower("t")),
    "custom": lambda: irregular_fit(
        lf.CustomCorrelation("t", function=cauchy, start=[0.5], names=["log_range"], nugget=True)
    ),
    "groups": lambda: irregular_fit(lf.ByGroup("arm"), " + (1 | id)"),
    "unstructured": lambda: lf.lmm(
        "distance ~ age * Sex", ORTHODONT, groups="Subject", residual=lf.Unstructured("age")
    ),
    "arh": lambda: lf.lmm(
        "distance ~ age", ORTHODONT, groups="Subject", residual=lf.HeterogeneousAR1("age")
    ),
    "cs": lambda: lf.lmm(
        "distance ~ age", ORTHODONT, groups="Subject", residual=lf.CompoundSymmetry(by="Sex")
    ),
    "varexp": lambda: lf.lmm(
        "distance ~ age",
        ORTHODONT,
        groups="Subject",
        residual=lf.Toeplitz("age") * lf.VarExp("age", by="Sex"),
    ),
}


@functools.cache
def fitted(name):
    return FITS[name]()


@pytest.fixture(params=FITS)
def fit(request):
    return fitted(request.param)


def test_implied_covariance_whitens_the_residuals(fit):
    """V^-1 of the rows of each group, as reported, has the quadratic form of the whitened rows."""
    normalized = np.asarray(fit.residuals("normalized"))
    marginal = np.asarray(fit.residuals("response", level="population"))
    data = IRREGULAR if fit.nobs == len(IRREGULAR) else ORTHODONT
    groups = data["id" if "id" in data else "Subject"].to_numpy()
    time = data["t" if "t" in data else "age"].to_numpy()
    for label in fit.group_labels[:6]:
        rows = np.flatnonzero(groups == label)
        V = fit.implied_covariance(label)
        if fit.residual.correlation is not None and fit.residual.correlation.columns:
            rows = rows[np.argsort(time[rows])]
            assert V.index.get_level_values(0).to_numpy() == pytest.approx(time[rows])
        r = marginal[rows]
        expected = (normalized[rows] ** 2).sum()
        assert r @ np.linalg.solve(V.to_numpy(), r) == pytest.approx(expected, rel=1e-9)
        assert V.index.equals(V.columns)


def test_rows_that_could_have_been_are_those_that_are(fit):
    label = fit.group_labels[1]
    V = fit.implied_covariance(label)
    if fit.weighted and not fit.residual.is_independent:
        pytest.skip("new rows have a weight of one")
    correlation = fit.residual.correlation
    names = V.index.names
    at = pd.DataFrame(V.index.to_frame(index=False))
    if correlation is None and not fit.residual.is_independent:
        pytest.skip("a random intercept needs no times")
    if correlation is not None and not correlation.columns:
        at = {"any": [1, 2, 3, 4]}
    elif len(names) == 1 and not fit.residual.variances:
        again = fit.implied_covariance(label, at=V.index.to_numpy()[::-1])
        assert again.index.name == names[0]
        np.testing.assert_allclose(off(again.iloc[::-1, ::-1], fit), off(V, fit), rtol=1e-12)
    again = fit.implied_covariance(label, at=at)
    np.testing.assert_allclose(off(again, fit), off(V, fit), rtol=1e-9)


def off(V, fit):
    """Without the variances where these depend on weights, which new rows do not have."""
    values = V.to_numpy().copy()
    if fit.weighted:
        np.fill_diagonal(values, 0.0)
    return values


def test_unstructured_is_the_estimate():
    fit = fitted("unstructured")
    V = fit.implied_covariance()
    assert list(V.index) == [8, 10, 12, 14]
    assert V.loc[8, 12] == pytest.approx(fit.theta["cov(8,12)"])
    assert np.diag(V) == pytest.approx([fit.theta[f"var(Residual|{a})"] for a in V.index])
    some = fit.implied_covariance(at=[14, 8])
    assert some.loc[14, 8] == pytest.approx(V.loc[8, 14], rel=1e-14)


def test_new_times():
    fit = fitted("intercept and ou")
    V = fit.implied_covariance(at=[0.0, 1.0, 100.0])
    theta = fit.theta
    between, process = theta["var(Intercept|id)"], theta["var(OU|t)"]
    rho = theta["rho(t)"]
    assert V.loc[0.0, 1.0] == pytest.approx(between + process * rho)
    assert V.loc[0.0, 100.0] == pytest.approx(between + process * rho**100)
    assert V.loc[1.0, 1.0] == pytest.approx(between + process + theta["var(Residual)"])


def test_default_is_the_first_of_the_largest():
    fit = fitted("slope")
    sizes = IRREGULAR.groupby("id").size()
    largest = sizes.idxmax()
    pd.testing.assert_frame_equal(fit.implied_covariance(), fit.implied_covariance(largest))


def test_arrays():
    d = IRREGULAR
    X = np.column_stack([np.ones(len(d)), d["t"]])
    ids, t = d["id"].to_numpy(), d["t"].to_numpy()
    fit = lf.fit(d["y"].to_numpy(), X, ids, Z=X, z_names=["one", "t"])
    same = lf.lmm("y ~ t + (1 + t | id)", d)
    V = fit.implied_covariance(at={"one": [1.0, 1.0], "t": [0.0, 2.0]})
    np.testing.assert_allclose(V, same.implied_covariance(at=[0.0, 2.0]), rtol=1e-6)
    fit = lf.fit(d["y"].to_numpy(), X, ids, residual=lf.OU(t))
    V = fit.implied_covariance(at=[0.0, 2.0])
    assert V.loc[0.0, 2.0] == pytest.approx(fit.scale * fit.theta["rho(time)"] ** 2)
    assert fit.acf()["pairs"].sum() == fit.acf("time")["pairs"].sum()


def test_implied_errors():
    fit = fitted("unstructured")
    with pytest.raises(lf.DataError, match="no group 'X' of 'Subject'"):
        fit.implied_covariance("X")
    with pytest.raises(lf.DataError, match=r"'age' has no level 9.* it has 8"):
        fit.implied_covariance(at=[8, 9])
    with pytest.raises(lf.DataError, match="'age' has numbers in the fit"):
        fit.implied_covariance(at=["a"])
    with pytest.raises(lf.DataError, match="depends on no column"):
        lf.lmm("y ~ t + (1 | id)", IRREGULAR).implied_covariance(at=[1.0])
    with pytest.raises(lf.DataError, match=r"table with columns t, u"):
        fitted("matern and power").implied_covariance(at=[1.0])
    both = irregular_fit(lf.OU("t"), " + (1 + u | id)")
    with pytest.raises(lf.DataError, match=r"'u' too, which changes within group"):
        both.implied_covariance(at=[1.0, 2.0])
    arms = irregular_fit(lf.OU("t", by="arm"))
    with pytest.raises(lf.DataError, match="'arm' must not change"):
        arms.implied_covariance(at={"t": [1.0, 2.0], "arm": ["a", "b"]})
    with pytest.raises(lf.DataError, match="need the data"):
        both.remove_data().implied_covariance()
    n = 5001
    data = {"y": np.arange(2.0 * n) % 7, "t": np.tile(np.arange(n), 2), "g": np.repeat([0, 1], n)}
    with pytest.raises(lf.DataError, match="5001 rows"):
        lf.lmm("y ~ t + (1 | g)", data).implied_covariance()


# -- autocorrelations ------------------------------------------------------------------------------


def brute(fit, data, group, time, edges, kind="correlation"):
    """By definition, pair by pair."""
    r = np.asarray(fit.residuals("response", level="population"))
    pairs, ssq = [], 0.0
    for label, rows in data.groupby(group, observed=True).indices.items():
        rows = rows[np.argsort(data[time].to_numpy()[rows], kind="stable")]
        V = fit.implied_covariance(label).to_numpy()
        order = np.arange(len(rows))
        if fit._residual_model is None or fit.residual.correlation is None:
            order = np.argsort(np.argsort(data[time].to_numpy()[np.sort(rows)], kind="stable"))
            order = np.argsort(order)
        V = V[np.ix_(order, order)]
        sd = np.sqrt(np.diag(V))
        e, t = r[rows] / sd, data[time].to_numpy()[rows]
        ssq += e @ e
        pairs += [
            (t[k] - t[j], e[j], e[k], V[j, k] / sd[j] / sd[k])
            for j, k in itertools.combinations(range(len(rows)), 2)
        ]
    lag, e, f, implied = np.array(pairs).T
    e, f = e / np.sqrt(ssq / len(r)), f / np.sqrt(ssq / len(r))
    out = []
    for low, high in itertools.pairwise(edges):
        of = (lag > low) & (lag <= high)
        if kind == "semivariogram":
            value, model = np.mean((e[of] - f[of]) ** 2) / 2, 1 - implied[of].mean()
        else:
            value = (e[of] * f[of]).sum() / ((e[of] ** 2 + f[of] ** 2) / 2).sum()
            model = implied[of].mean()
        out.append((lag[of].mean(), of.sum(), value, model))
    columns = ["lag", "pairs", "empirical", "fitted"]
    return pd.DataFrame(out, columns=columns)


@pytest.mark.parametrize("kind", ["correlation", "semivariogram"])
def test_autocorrelation_by_definition(fit, kind):
    if fit.residual.text.startswith("SpatialMatern"):
        pytest.skip("distances in the plane")
    irregular = fit.nobs == len(IRREGULAR)
    data, group, time = (IRREGULAR, "id", "t") if irregular else (ORTHODONT, "Subject", "age")
    edges = np.linspace(0, 6, 5)
    options = {"max_lag": 6.0, "bins": 4}
    if not irregular:
        options, edges = {}, np.array([1.0, 3, 5, 7])
    table = fit.acf(data[time], kind=kind, **options)
    expected = brute(fit, data, group, time, edges, kind)
    for name in expected:
        assert table[name].to_numpy() == pytest.approx(expected[name].to_numpy(), rel=1e-8)


def test_default_lags():
    assert fitted("unstructured").acf()["lag"].tolist() == [1, 2, 3]  # levels
    assert fitted("arh").acf()["lag"].tolist() == [2, 4, 6]  # whole numbers
    assert fitted("cs").acf()["lag"].tolist() == [1, 2, 3]  # rows
    slope = lf.lmm("Reaction ~ Days + (Days | Subject)", SLEEP)
    assert slope.acf()["lag"].tolist() == list(range(1, 10))
    intercept = lf.lmm("Reaction ~ Days + (1 | Subject)", SLEEP)
    assert intercept.acf()["pairs"].tolist() == [18 * k for k in range(9, 0, -1)]
    assert intercept.acf("Days").equals(intercept.acf())
    rho = intercept.theta["var(Intercept|Subject)"] / intercept.theta.sum()
    assert intercept.acf()["fitted"].to_numpy() == pytest.approx(np.full(9, rho))
    times = fitted("ou").acf()
    assert len(times) == 15 and (np.diff(times["lag"]) > 0).all()


def test_plane():
    fit = fitted("matern and power")
    table = fit.acf(bins=5)
    t = np.sqrt(2.0) * IRREGULAR["t"]
    same = fit.acf(t, bins=5, max_lag=half_span(t))
    pd.testing.assert_frame_equal(table, same)


def half_span(t):
    return t.groupby(IRREGULAR["id"]).agg(np.ptp).max() / 2


def test_whitened_residuals_are_those_of_the_fit():
    fit = fitted("intercept and ou")
    table = fit.acf(residuals="normalized", bins=4, max_lag=4.0)
    assert (table["fitted"] == 0).all()
    assert (table["empirical"].abs() < 3 * table["std_error"]).all()
    marginal = fit.acf(bins=4, max_lag=4.0)
    assert (marginal["empirical"] > table["empirical"]).all()


def test_standard_error_is_that_of_resampled_groups():
    data = irregular(m=300, seed=3)
    fit = lf.lmm("y ~ t", data, groups="id", residual=lf.OU("t", nugget=True))
    table = fit.acf(bins=3, max_lag=6.0)
    rng = np.random.default_rng(0)
    r = np.asarray(fit.residuals("response", level="population"))
    rows = data.groupby("id").indices
    draws = []
    for _ in range(200):
        chosen = rng.integers(0, 300, 300)
        parts = [(r[rows[i]], data["t"].to_numpy()[rows[i]]) for i in chosen]
        draws.append(resampled(parts))
    assert table["std_error"].to_numpy() == pytest.approx(np.std(draws, axis=0), rel=0.15)


def resampled(parts):
    top, bottom = np.zeros(3), np.zeros(3)
    for r, t in parts:
        j, k = np.triu_indices(len(r), 1)
        lag = np.abs(t[j] - t[k])
        bins = np.minimum((lag // 2).astype(int), 3)
        top += np.bincount(bins, r[j] * r[k], 4)[:3]
        bottom += np.bincount(bins, (r[j] ** 2 + r[k] ** 2) / 2, 4)[:3]
    return top / bottom


def test_of_many_pairs_some_are_used(monkeypatch):
    rng = np.random.default_rng(1)
    n = 3000
    data = {
        "y": np.convolve(rng.normal(size=2 * n + 9), np.ones(10), "valid"),
        "t": np.tile(np.arange(n), 2),
        "g": np.repeat([0, 1], n),
    }
    fit = lf.lmm("y ~ 1 + (1 | g)", data)
    every = fit.acf(data["t"], max_lag=20)
    assert every["pairs"].tolist() == [2 * (n - k) for k in range(1, 21)]
    assert every["empirical"].iloc[4] == pytest.approx(0.5, abs=0.1)
    monkeypatch.setattr(residual_pairs, "MOST_PAIRS", 20_000)
    some = fit.acf(data["t"], max_lag=20)
    assert 10_000 < some["pairs"].sum() < 25_000
    assert some["empirical"].to_numpy() == pytest.approx(every["empirical"].to_numpy(), abs=0.1)
    monkeypatch.setattr(residual_pairs, "CHUNK", 1)
    np.testing.assert_allclose(fit.acf(data["t"], max_lag=20), some, rtol=1e-9)
    many = lf.lmm("y ~ 1 + (1 | g)", {**data, "g": np.arange(2 * n) // 4})
    assert 1000 <= many.acf()["pairs"].sum() <= 9000
    monkeypatch.setattr(residual_pairs, "MOST_PAIRS", 3000)
    assert 2000 < many.acf()["pairs"].sum() < 4000


def test_acf_errors():
    fit = fitted("ou")
    with pytest.raises(lf.DataError, match=r"no column 'time'"):
        fit.acf("time")
    with pytest.raises(lf.DataError, match="3 values"):
        fit.acf([1.0, 2.0, 3.0])
    with pytest.raises(lf.DataError, match="must be numbers"):
        fit.acf(IRREGULAR["arm"])
    with pytest.raises(lf.DataError, match="missing or infinite"):
        fit.acf(np.full(fit.nobs, np.nan))
    with pytest.raises(lf.DataError, match="no lags"):
        fit.acf(np.ones(fit.nobs))
    with pytest.raises(lf.DataError, match="within a lag of 1e-09"):
        fit.acf(max_lag=1e-9)
    for options in ({"kind": "cov"}, {"residuals": "raw"}, {"bins": 0}, {"max_lag": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            fit.acf(**options)


# -- pictures --------------------------------------------------------------------------------------


def test_heatmap(ax):
    fit = fitted("unstructured")
    assert plot_covariance(fit, "M03", ax=ax) is ax
    V = fit.implied_covariance("M03").to_numpy()
    C = V / np.sqrt(np.outer(np.diag(V), np.diag(V)))
    np.testing.assert_allclose(ax.images[0].get_array(), C)
    assert [text.get_text() for text in ax.texts] == [f"{c:.2f}" for c in C.ravel()]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["8", "10", "12", "14"]
    assert ax.get_xlabel() == "age"
    assert ax.get_title() == "Implied correlation, Subject M03\nUnstructured('age')"


def test_heatmap_of_covariances(ax):
    fit = fitted("unstructured")
    plot_covariance(fit, at=[8, 14], kind="covariance", values=False, ax=ax)
    np.testing.assert_allclose(ax.images[0].get_array(), fit.implied_covariance(at=[8, 14]))
    assert not ax.texts
    assert "chosen rows" in ax.get_title()
    with pytest.raises(ValueError, match="kind"):
        plot_covariance(fit, kind="acf", ax=ax)


def test_heatmap_of_a_long_cluster(ax):
    n = 700
    data = {"y": np.sin(np.arange(2.0 * n)), "t": np.tile(np.arange(n), 2), "g": [0] * n + [1] * n}
    fit = lf.lmm("y ~ 1 + (1 + t | g)", data)
    plot_covariance(fit, ax=ax)
    assert ax.images[0].get_array().shape == (200, 200)
    assert "200 of 700 rows" in ax.get_title()
    assert not ax.texts
    assert len(ax.get_xticks()) <= 12
    assert ax.get_xticklabels()[-1].get_text() == "699"


def test_heatmap_of_coordinates(ax):
    fit = fitted("matern and power")
    plot_covariance(fit, ax=ax)
    assert ax.get_xlabel() == "t, u"


@pytest.mark.parametrize("kind", ["correlation", "semivariogram"])
def test_acf_picture(ax, kind):
    fit = fitted("intercept and ou")
    assert plot_acf(fit, kind=kind, ax=ax) is ax
    table = fit.acf(kind=kind)
    (line,) = [line for line in ax.get_lines() if line.get_color() == LINE]
    np.testing.assert_allclose(line.get_xydata(), table[["lag", "fitted"]])
    (points,) = [line for line in ax.get_lines() if line.get_color() == SUBJECT]
    np.testing.assert_allclose(points.get_xydata(), table[["lag", "empirical"]])
    counts = [text.get_text() for text in ax.texts]
    assert counts == [*map(str, table["pairs"]), "pairs"]
    assert ax.get_xlabel() == "lag (t)"
    assert ax.get_title() == "(Intercept | id) + OU('t', nugget=True)"
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["fitted", "residuals ± 2 SE"]


def test_acf_picture_of_whitened_residuals_without_counts(ax):
    few = SLEEP[SLEEP["Subject"].isin(["S308", "S309", "S310", "S330"])]
    fit = lf.lmm("Reaction ~ Days + (1 | Subject)", few)
    plot_acf(fit, residuals="normalized", pairs=False, ax=ax)
    assert not ax.texts
    assert ax.get_legend_handles_labels()[1] == ["residuals"]  # no line, and too few groups
    assert [label.get_text() for label in ax.get_xticklabels()] == list("123456789")


def test_large_counts_are_short():
    from lmmfast.plots.covariance import _short

    counts = (7, 9999, 10_000, 41_234, 999_499, 1_234_567)
    assert [_short(c) for c in counts] == ["7", "9999", "10k", "41.2k", "999k", "1.23M"]


def test_methods_make_figures():
    from matplotlib import pyplot

    fit = fitted("unstructured")
    for axes in (fit.plot_covariance(), fit.plot_acf()):
        axes.figure.canvas.draw()
        pyplot.close(axes.figure)


def test_without_matplotlib(monkeypatch):
    fit = fitted("unstructured")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (plot_covariance, plot_acf):
        with pytest.raises(PlotError, match=r"pip install 'lmmfast\[plots\]'"):
            draw(fit)
