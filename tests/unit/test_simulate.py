"""Simulated responses have the mean and the covariance matrix of the model."""

import numpy as np
import pytest
from scipy import stats

import lmmfast as lf

N = 2000


@pytest.fixture(scope="module")
def data():
    d = lf.datasets.sleepstudy()
    d["w"] = 1.0 + 0.1 * np.arange(len(d)) % 1.7
    d["far"] = 10.0 * (np.arange(len(d)) % 3)
    return d.sample(frac=1.0, random_state=4, ignore_index=True)


MODELS = {
    "slopes": ("Reaction ~ Days + (Days | Subject)", {"offset": "far"}),
    "weights": ("Reaction ~ Days + (1 | Subject)", {"weights": "w"}),
    "process": ("Reaction ~ Days", {"groups": "Subject", "residual": lf.OU("Days", nugget=True)}),
    "beside": ("Reaction ~ Days + (1 | Subject)", {"residual": lf.AR1("Days")}),
    "variances": ("Reaction ~ Days + (1 | Subject)", {"residual": lf.VarPower("w")}),
}


def check_law(y, mean, V):
    """Whitened responses are standard normal and uncorrelated."""
    white = np.linalg.solve(np.linalg.cholesky(V), y - mean[:, None])
    assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3
    cov = white @ white.T / white.shape[1]
    off = cov[np.tril_indices(len(V), -1)] * np.sqrt(white.shape[1])
    assert stats.kstest(off, "norm").pvalue > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_law_of_a_group(name, data):
    formula, options = MODELS[name]
    fit = lf.lmm(formula, data, **options)
    y = fit.simulate(N, seed=3)
    assert y.shape == (180, N)
    np.testing.assert_array_equal(y, fit.simulate(N, seed=3))
    mean = np.asarray(fit.fitted("population"))
    for group in fit.group_labels[:2]:
        V = fit.implied_covariance(group).to_numpy()
        rows = np.flatnonzero(data["Subject"] == group)
        if "residual" in options:  # implied covariances are in the order of the times
            rows = rows[np.argsort(data["Days"].to_numpy()[rows])]
        check_law(y[rows], mean[rows], V)
    first, second = (np.flatnonzero(data["Subject"] == g)[0] for g in fit.group_labels[:2])
    assert stats.pearsonr(y[first], y[second]).pvalue > 1e-3


@pytest.mark.parametrize("formula", ["y ~ x + (x | a) + (1 | b)", "y ~ x + (1 | a / c)"])
def test_law_of_several_factors(formula):
    rng = np.random.default_rng(6)
    n = 60
    d = {"a": rng.integers(0, 4, n), "b": rng.integers(0, 5, n), "c": rng.integers(0, 3, n)}
    d["x"], d["y"] = rng.normal(size=n), rng.normal(size=n) + d["a"] - 0.5 * d["b"] + d["c"]
    fit = lf.lmm(formula, d)
    y, mean = fit.simulate(N, seed=2), np.asarray(fit.fitted("population"))
    level = np.unique(d["a"])[0]
    order = fit._row_order()  # that of implied covariances
    rows = order[d["a"][order] == level]
    V = fit.implied_covariance({"a": level})
    check_law(y[rows], mean[rows], V.to_numpy())


def test_conditional(data):
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", data)
    y = fit.simulate(N, seed=5, conditional=True)
    white = (y - np.asarray(fit.fittedvalues)[:, None]) / fit.sigma
    assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3


def test_without_random_effects_of_a_fit_that_stays_as_it_is(data):
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", data)
    before = fit.llf
    again = fit.refit(fit.simulate(seed=1)[:, 0])
    assert again.converged and fit.llf == before


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "many"])
def test_numbers_are_checked(n, data):
    fit = lf.lmm("Reaction ~ Days + (1 | Subject)", data)
    with pytest.raises(lf.DataError, match="positive whole number"):
        fit.simulate(n)


def test_what_is_refused(data, monkeypatch):
    fit = lf.lmm("Reaction ~ Days + (1 | Subject)", data)
    with pytest.raises(lf.TooLargeError, match="draw fewer"):
        fit.simulate(10**12)
    with pytest.raises(lf.DataError, match="need the data"):
        fit.remove_data().simulate()
    serial = lf.lmm("Reaction ~ Days", data, groups="Subject", residual=lf.AR1("Days"))
    monkeypatch.setattr("lmmfast.likelihood.simulate.MOST_ROWS", 9)
    with pytest.raises(lf.TooLargeError, match="10 rows"):
        serial.simulate()
