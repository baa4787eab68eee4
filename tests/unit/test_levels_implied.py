"""V and autocorrelations of models with several grouping factors, against dense algebra."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.plots.axes import figure

matplotlib.use("Agg")


def make_trial():
    rng = np.random.default_rng(8)
    rows = [
        (f"c{c:02d}", p, t)
        for c in range(12)
        for p in range(rng.integers(3, 7))
        for t in range(rng.integers(2, 5))
    ]
    d = pd.DataFrame(rows, columns=["center", "patient", "t"]).sample(frac=1.0, random_state=1)
    d["unit"] = d["center"] + "/" + d["patient"].astype(str)
    d["w"] = rng.uniform(0.5, 2.0, len(d))
    b = dict(zip(d["center"].unique(), rng.normal(0, 2, 12), strict=True))
    c = {u: rng.normal(0, [1.5, 0.5]) for u in sorted(d["unit"].unique())}
    effects = np.array([c[u] for u in d["unit"]])
    d["y"] = d["center"].map(b) + effects[:, 0] + (1 + effects[:, 1]) * d["t"]
    d["y"] += rng.normal(0, 1, len(d)) / np.sqrt(d["w"])
    return d


TRIAL = make_trial()
FORMULA = "y ~ t + (1 | center) + (1 + t | center:patient)"


@pytest.fixture(scope="module")
def fit():
    return lf.lmm(FORMULA, TRIAL, weights="w")


@pytest.fixture(scope="module")
def crossed():
    return lf.lmm("diameter ~ 1 + (1 | plate) + (1 | sample)", lf.datasets.penicillin())


@pytest.fixture(scope="module")
def serial():
    return lf.lmm("y ~ t + (1 | center/patient)", TRIAL, residual=lf.OU("t"))


def dense(fit, rows):
    """V of rows of the trial."""
    Z = np.column_stack([np.ones(len(rows)), rows["t"]])
    center, unit = rows["center"].to_numpy(), rows["unit"].to_numpy()
    V = np.where(center[:, None] == center, fit.varcorr["center"].cov.to_numpy()[0, 0], 0.0)
    D = fit.varcorr["center:patient"].cov.to_numpy()
    V = V + np.where(unit[:, None] == unit, Z @ D @ Z.T, 0.0)
    return V + np.diag(fit.scale / rows["w"])


def in_order(rows):
    return rows.sort_values(["center", "patient"], kind="stable")


def test_of_a_center_and_of_a_patient(fit):
    rows = in_order(TRIAL[TRIAL["center"] == "c03"])
    V = fit.implied_covariance("c03")
    np.testing.assert_allclose(V, dense(fit, rows), rtol=1e-10)
    assert V.index.names == ["center:patient", "t"]
    assert V.index[0] == ("c03:0", rows["t"].iloc[0])
    V = fit.implied_covariance({"center:patient": "c03:2"})
    rows = rows[rows["patient"] == 2]
    np.testing.assert_allclose(V, dense(fit, rows), rtol=1e-10)
    assert V.index.names == ["t"]
    pd.testing.assert_frame_equal(
        fit.implied_covariance({"center": "c03"}), fit.implied_covariance("c03")
    )


def test_default_is_the_largest_level_of_the_outermost(fit):
    largest = TRIAL["center"].value_counts().sort_index().idxmax()
    pd.testing.assert_frame_equal(fit.implied_covariance(), fit.implied_covariance(largest))


def test_all_rows_together_are_the_V_of_the_likelihood(fit):
    """-2 REML log-likelihood from V of all centers, and its own."""
    order = in_order(TRIAL)
    V = dense(fit, order)
    X = np.column_stack([np.ones(len(order)), order["t"]])
    y = order["y"].to_numpy()
    solved = np.linalg.solve(V, X)
    XVX = X.T @ solved
    r = y - X @ np.linalg.solve(XVX, solved.T @ y)
    value = np.linalg.slogdet(V)[1] + np.linalg.slogdet(XVX)[1] + r @ np.linalg.solve(V, r)
    value += (len(y) - 2) * np.log(2 * np.pi)
    assert fit.deviance == pytest.approx(value, rel=1e-9)
    blocks = [fit.implied_covariance(name).to_numpy() for name in fit.group_labels["center"]]
    assert sum(np.linalg.slogdet(B)[1] for B in blocks) == pytest.approx(np.linalg.slogdet(V)[1])


def test_new_times_of_a_patient(fit):
    V = fit.implied_covariance({"center:patient": "c03:2"}, at=[0, 10])
    D = fit.cov_re.to_numpy()
    Z = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 10.0]])
    np.testing.assert_allclose(V, Z @ D @ Z.T + fit.scale * np.eye(2), rtol=1e-10)
    pd.testing.assert_frame_equal(fit.implied_covariance(at=[0, 10]), V)
    with pytest.raises(lf.UnsupportedModelError, match="a level of the innermost grouping factor"):
        fit.implied_covariance("c03", at=[0, 10])


def test_new_times_from_arrays():
    X = np.column_stack([np.ones(len(TRIAL)), TRIAL["t"]])
    groups = {"center": TRIAL["center"], "unit": TRIAL["unit"]}
    fit = lf.fit(TRIAL["y"], X, groups=groups, Z=[None, X], z_names=[None, ["one", "t"]])
    V = fit.implied_covariance({"unit": "c03/2"}, at={"t": [0, 10]})
    Z = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 10.0]])
    D = fit.cov_re.to_numpy()
    np.testing.assert_allclose(V, Z @ D @ Z.T + fit.scale * np.eye(2), rtol=1e-10)


def test_crossed(crossed):
    d = lf.datasets.penicillin()
    V = crossed.implied_covariance("B")
    plate, sample, residual = crossed.theta
    n = (d["sample"] == "B").sum()
    np.testing.assert_allclose(V, sample + (plate + residual) * np.eye(n), rtol=1e-10)
    assert V.index.name == "plate"
    V = crossed.implied_covariance({"plate": "c"})
    np.testing.assert_allclose(V, plate + (sample + residual) * np.eye(6), rtol=1e-10)
    with pytest.raises(lf.UnsupportedModelError, match="crossed grouping factors"):
        crossed.implied_covariance("B", at=[1])


def test_with_a_residual_structure(serial):
    V = serial.implied_covariance("c05")
    center, unit = serial.theta.iloc[:2]
    rows = TRIAL[TRIAL["center"] == "c05"].sort_values(["patient", "t"])
    t, u = rows["t"].to_numpy(), rows["unit"].to_numpy()
    C = np.where(u[:, None] == u, serial.theta["rho(t)"] ** np.abs(t[:, None] - t), 0.0)
    expected = center + np.where(u[:, None] == u, unit, 0.0) + serial.scale * C
    np.testing.assert_allclose(V, expected, rtol=1e-8)
    one = serial.implied_covariance({"center:patient": "c05:1"})
    mine = (rows["patient"] == 1).to_numpy()
    np.testing.assert_allclose(one, expected[np.ix_(mine, mine)], rtol=1e-8)


def test_unknown_levels(fit):
    with pytest.raises(lf.DataError, match="no group 'c03:2' of 'center'; levels of another"):
        fit.implied_covariance("c03:2")
    with pytest.raises(lf.DataError, match="no grouping factor 'patient'"):
        fit.implied_covariance({"patient": 2})


def test_too_many_rows():
    rng = np.random.default_rng(2)
    a = np.repeat([0, 1, 2], 6000)
    b = np.repeat(np.arange(180), 100)
    y = rng.normal(size=3)[a] + rng.normal(size=180)[b] + rng.normal(size=18000)
    fit = lf.fit(y, np.ones((18000, 1)), groups={"a": a, "b": b})
    with pytest.raises(lf.DataError, match="a 0 has 6000 rows"):
        fit.implied_covariance()
    assert fit.implied_covariance({"b": 3}).shape == (100, 100)
    ax = fit.plot_covariance(ax=figure().subplots())
    assert "200 of 6000 rows" in ax.get_title()


def test_heatmap(fit, crossed):
    for one, name in ((fit, "center c03"), (crossed, "sample B")):
        group = name.split()[1]
        ax = one.plot_covariance(group, ax=figure().subplots())
        assert name in ax.get_title()


# -- autocorrelation -----------------------------------------------------------------------------


def pairs_of(fit, rows, unit, sd):
    """Lag, e * f, (e^2 + f^2) / 2, fitted correlation of all pairs of rows of one unit."""
    V = dense(fit, rows)
    e = (rows["y"] - fit.params["Intercept"] - fit.params["t"] * rows["t"]).to_numpy()
    e = e / np.sqrt(np.diag(V))
    found = []
    for i in range(len(rows)):
        for j in range(i):
            if rows[unit].iloc[i] == rows[unit].iloc[j]:
                lag = abs(rows["t"].iloc[i] - rows["t"].iloc[j])
                corr = V[i, j] / np.sqrt(V[i, i] * V[j, j])
                found.append((lag, e[i] * e[j], (e[i] ** 2 + e[j] ** 2) / 2, corr))
    return pd.DataFrame(found, columns=["lag", "ef", "ee", "fitted"])


@pytest.mark.parametrize(("within", "unit"), [(None, "unit"), ("center", "center")])
def test_autocorrelation_by_hand(fit, within, unit):
    table = fit.acf("t", within=within)
    sums = pairs_of(fit, TRIAL, unit, None).groupby("lag")
    np.testing.assert_array_equal(table["lag"], list(sums.groups))
    np.testing.assert_array_equal(table["pairs"], sums.size())
    totals = sums.sum()
    np.testing.assert_allclose(table["empirical"], totals["ef"] / totals["ee"], rtol=1e-9)
    np.testing.assert_allclose(table["fitted"], sums["fitted"].mean(), rtol=1e-9)


def test_standard_errors_are_from_the_variation_between_centers(fit):
    table = fit.acf("t").iloc[0]
    pairs = pairs_of(fit, TRIAL, "unit", None)
    centers = pd.concat(
        [pairs_of(fit, rows, "unit", None).assign(c=c) for c, rows in TRIAL.groupby("center")]
    )
    assert len(pairs) == len(centers)
    first = centers[centers["lag"] == table["lag"]].groupby("c")[["ef", "ee"]].sum()
    k, ratio = len(first), first["ef"].sum() / first["ee"].sum()
    square = ((first["ef"] - ratio * first["ee"]) ** 2).sum() * k / (k - 1)
    assert table["std_error"] == pytest.approx(np.sqrt(square) / first["ee"].sum())


def test_crossed_factors_have_no_standard_errors(crossed):
    table = crossed.acf()
    assert table["std_error"].isna().all()
    plate, sample, residual = crossed.theta
    np.testing.assert_allclose(table["fitted"], plate / (plate + sample + residual), rtol=1e-9)
    with pytest.raises(ValueError, match="choose one of 'plate', 'sample'"):
        crossed.acf(within="batch")


def test_of_residual_structures_and_whitened(serial, fit):
    table = serial.acf()
    assert table["lag"].to_list() == [1.0, 2.0, 3.0]
    with pytest.raises(lf.UnsupportedModelError, match="within='center' with a residual"):
        serial.acf(within="center")
    whitened = fit.acf(residuals="normalized")
    assert (abs(whitened["empirical"]) < 0.3).all()
    assert fit.plot_acf(within="center", ax=figure().subplots()).get_xlabel() == "lag (t)"


def test_new_times_with_a_residual_structure(serial):
    V = serial.implied_covariance({"center:patient": "c05:1"}, at=[0, 1, 5])
    lag = np.abs(np.subtract.outer([0, 1, 5], [0, 1, 5]))
    effects = serial.theta.iloc[:2].sum()
    expected = effects + serial.scale * serial.theta["rho(t)"] ** lag
    np.testing.assert_allclose(V, expected, rtol=1e-10)
