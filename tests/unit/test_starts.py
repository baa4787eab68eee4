"""Where searches begin: theta given by the user, several starting points, other maxima."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import lmmfast as lf
from lmmfast.covariance.structures import HeterogeneousCS
from lmmfast.residual.inverse import working
from lmmfast.residual.layout import ResidualParameters


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """Sixty subjects at up to five visits, some missing, with AR(1) residuals."""
    rng = np.random.default_rng(11)
    i, t = np.divmod(np.arange(300), 5)
    e = rng.normal(size=(60, 5))
    for k in range(1, 5):
        e[:, k] = 0.5 * e[:, k - 1] + np.sqrt(0.75) * e[:, k]
    y = 3 + 0.4 * t + 0.7 * np.repeat(rng.normal(size=60), 5) + e.ravel() * (1 + 0.1 * t)
    arm = np.array(["a", "b"])[i % 2]
    frame = pd.DataFrame({"y": 5 * y, "id": i, "t": t, "v": t + 1.0, "arm": arm})
    frame["x"] = t + rng.uniform(0, 0.8, 300)
    return frame[rng.uniform(size=300) > 0.1].reset_index(drop=True)


ALONE = {
    "AR1": lf.AR1("t"),
    "ARMA": lf.ARMA11("t"),
    "ARMA by": lf.ARMA11("t", by="arm"),
    "linear": lf.SpatialLinear("x", nugget=True),
    "rational quadratic": lf.SpatialRationalQuadratic("x", nugget=True),
    "CS": lf.HeterogeneousCS("t"),
    "CS by": lf.CompoundSymmetry(by="arm"),
    "Toeplitz": lf.HeterogeneousToeplitz("t", by="arm"),
    "banded": lf.Toeplitz("t", bands=1),
    "ante": lf.HeterogeneousAntedependence("t"),
    "unstructured": lf.Unstructured("t"),
    "OU": lf.OU("x", nugget=True),
    "OU by": lf.OU("x", nugget=True, by="arm"),
    "power": lf.OU("x", nugget=True) * lf.VarPower("v"),
    "exponential": lf.SpatialExponential("x") * lf.VarExp("v") * lf.ByGroup("arm"),
    "two groups": lf.AR1("t") * lf.ByGroup("arm") * lf.ByGroup("t"),
    "Matérn": lf.SpatialMatern("x", nu=1.5),
}


def began(fit: Any) -> float:
    return float(next(e["llf"] for e in fit.trace if e["step"] == "start"))


@pytest.mark.parametrize("kind", ALONE)
def test_a_fit_or_its_theta_is_a_start(kind: str, data: pd.DataFrame) -> None:
    options: Any = {"residual": ALONE[kind], "groups": "id"}
    fit = lf.lmm("y ~ t", data, **options)
    for start in (fit, fit.theta, np.asarray(fit.theta)):
        again = lf.lmm("y ~ t", data, start=start, n_starts=1, **options)
        assert began(again) == pytest.approx(fit.llf, abs=1e-6)
        assert again.llf == pytest.approx(fit.llf, abs=1e-7)
        assert len(again.trace) < len(fit.trace)


def test_a_start_beside_random_effects_and_in_other_units(data: pd.DataFrame) -> None:
    R = lf.AR1("t") * lf.VarPower("v")
    weights = np.linspace(0.5, 2, len(data))
    fit = lf.lmm("y ~ t + (t | id)", data, residual=R, weights=weights)
    again = lf.lmm("y ~ t + (t | id)", data, residual=R, weights=weights, start=fit.theta)
    assert began(again) == pytest.approx(fit.llf, abs=1e-6)


def test_the_likelihood_at_a_start_is_that_of_its_theta(data: pd.DataFrame) -> None:
    theta = np.array([20.0, -2.0, 3.0, -0.3, 15.0])  # var, cov, var of (1, t); rho; sigma2
    fit = lf.lmm("y ~ t + (t | id)", data, residual=lf.AR1("t"), start=theta, reml=False)
    D = np.array([[theta[0], theta[1]], [theta[1], theta[2]]])
    X, y, parts = np.zeros((2, 2)), np.zeros(2), [0.0, 0.0]
    for _, d in data.groupby("id"):
        t = d["t"].to_numpy()
        Z = np.column_stack([np.ones(len(t)), t])
        V = Z @ D @ Z.T + theta[4] * theta[3] ** np.abs(np.subtract.outer(t, t))
        W = np.linalg.inv(V)
        X, y = X + Z.T @ W @ Z, y + Z.T @ W @ d["y"]
        parts[0] += d["y"] @ W @ d["y"]
        parts[1] += np.linalg.slogdet(V)[1]
    n = len(data)
    rss = parts[0] - y @ np.linalg.solve(X, y)
    # The search profiles sigma2: at the start all variances are scaled to their best size.
    llf = -0.5 * (n * (np.log(2 * np.pi * rss / n) + 1) + parts[1])
    assert began(fit) == pytest.approx(llf, abs=1e-8)


def test_heterogeneous_compound_symmetry_of_random_effects_has_a_start() -> None:
    D = np.array([[2.0, 0.4, -0.1], [0.4, 1.0, 0.3], [-0.1, 0.3, 3.0]])
    structure = HeterogeneousCS()
    D = structure.matrix(structure.natural(D), 3)
    np.testing.assert_allclose(structure.matrix(structure.natural(D), 3), D, rtol=1e-14)
    rng = np.random.default_rng(3)
    g, x, z = np.repeat(np.arange(40), 8), rng.normal(size=320), rng.normal(size=320)
    b = rng.multivariate_normal(np.zeros(3), D, 40)[g]
    y = 1 + x + b[:, 0] + b[:, 1] * x + b[:, 2] * z + rng.normal(size=320)
    frame = pd.DataFrame({"y": y, "x": x, "z": z, "g": g})
    fit = lf.lmm("y ~ x + z + cs(x + z | g)", frame)
    again = lf.lmm("y ~ x + z + cs(x + z | g)", frame, start=fit.theta)
    assert began(again) == pytest.approx(fit.llf, abs=1e-8)


@pytest.mark.parametrize(
    ("structure", "theta", "message"),
    [
        (lf.AR1("t"), [0.5], "2 finite numbers, like fit.theta"),
        (lf.AR1("t"), [np.nan, 1.0], "2 finite numbers"),
        (lf.AR1("t"), "cold", "2 finite numbers"),
        (lf.AR1("t"), [1.5, 1.0], r"rho\(t\) = 1.5: it must be from -1 to 1"),
        (lf.AR1("t"), [0.5, -1.0], r"var\(Residual\) = -1: it must be 0 or more"),
        (lf.AR1("t"), [0.5, 0.0], r"var\(Residual\) = 0: variances must be positive"),
        (lf.OU("x"), [1.2, 1.0], r"rho\(x\) = 1.2: it must be from 0 to 1"),
        (lf.ByGroup("arm") * lf.ByGroup("t"), [0.0] + [1.0] * 5, "= 0: it must be positive"),
        (lf.Unstructured("t"), [5.0] * 10 + [1.0] * 5, "no covariance matrix"),
    ],
)
def test_a_start_that_is_none_is_refused(
    structure: Any, theta: Any, message: str, data: pd.DataFrame
) -> None:
    with pytest.raises(lf.DataError, match=message):
        lf.lmm("y ~ t", data, groups="id", residual=structure, start=theta)


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        *(("OU", [process, rho, 10 - process]) for process in (0, 10) for rho in (0, 1)),
        ("AR1", [1, 1]),
        ("AR1", [-1, 1]),
        ("CS", [-0.25, 1, 1, 1, 1, 1]),
        ("CS", [1, 1, 1, 1, 1, 1]),
        ("ante", [1, -1, 1, -1, 1, 1, 1, 1, 1]),
        ("unstructured", [1] * 15),
        ("sphere", [0.01, 10]),
        ("sphere", [1e9, 10]),
        ("banded", [0.8, 10]),
    ],
)
def test_a_start_at_the_end_of_a_range_leads_away_from_it(
    kind: str, start: list[float], data: pd.DataFrame
) -> None:
    structure = {**ALONE, "sphere": lf.SpatialSpherical("x")}[kind]
    options: Any = {"residual": structure, "groups": "id", "n_starts": 1}
    fit = lf.lmm("y ~ t", data, start=start, **options)
    assert fit.llf == pytest.approx(lf.lmm("y ~ t", data, **options).llf, abs=1e-7)


def test_parameters_and_their_inverse(data: pd.DataFrame) -> None:
    rng = np.random.default_rng(4)
    for structure in ALONE.values():
        fit = lf.lmm("y ~ t", data, groups="id", residual=structure, max_iter=1000, n_starts=1)
        parameters: ResidualParameters = fit._residual_model.parameters
        kappa = rng.uniform(0.05, 0.45, parameters.n_params)
        back, sigma2 = working(parameters, parameters.natural(kappa, 2.5))
        np.testing.assert_allclose(back, kappa, atol=1e-10)
        assert sigma2 == pytest.approx(2.5, rel=1e-10)


# -- several starts --------------------------------------------------------------------------------


def few_rows(seed: int) -> pd.DataFrame:
    """Ten subjects at four visits."""
    rng = np.random.default_rng(seed)
    i, t = np.divmod(np.arange(40), 4)
    y = rng.normal(size=40) * np.exp(rng.normal(size=4)[t]) + np.repeat(rng.normal(size=10), 4)
    return pd.DataFrame({"y": y, "id": i, "t": t, "arm": np.array(["a", "b"])[i % 2]})


def ml(x: Any, Y: Any) -> float:
    """Profiled ML log-likelihood of HeterogeneousAR1 beside a random intercept; Y (m, 4)."""
    m, sd = len(Y), np.exp(np.append(0.0, x[2:]))
    lag = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    V = x[0] ** 2 + np.outer(sd, sd) * np.tanh(x[1]) ** lag
    X, W = np.column_stack([np.ones(4), np.arange(4)]), np.linalg.inv(V)
    beta = np.linalg.solve(m * X.T @ W @ X, X.T @ W @ Y.sum(axis=0))
    r = Y - X @ beta
    sigma2 = np.einsum("ij,jk,ik->", r, W, r) / Y.size
    return float(-0.5 * (Y.size * (np.log(2 * np.pi * sigma2) + 1) + m * np.linalg.slogdet(V)[1]))


@pytest.mark.parametrize("seed", [9, 15, 2])
def test_the_highest_of_several_maxima_is_found(seed: int) -> None:
    data = few_rows(seed)
    Y = data["y"].to_numpy().reshape(10, 4)
    options: Any = {"residual": lf.HeterogeneousAR1("t"), "reml": False}
    fit = lf.lmm("y ~ t + (1 | id)", data, **options)
    one = lf.lmm("y ~ t + (1 | id)", data, n_starts=1, **options)
    rng = np.random.default_rng(seed)
    starts = rng.normal(size=(12, 5)) * [2.0, 1.0, 1.0, 1.0, 1.0]
    best = max(-minimize(lambda x: -ml(x, Y), x, method="BFGS").fun for x in starts)
    assert fit.llf > best - 1e-6
    assert fit.converged
    assert (one.llf < fit.llf - 0.1) == (seed in (9, 15))


def test_starts_are_counted_and_the_same_each_time() -> None:
    data = few_rows(3)
    options: Any = {"residual": lf.Antedependence("t", by="arm")}
    fits = {n: lf.lmm("y ~ t + (t | id)", data, n_starts=n, **options) for n in (1, 2, 6)}
    restarts = {n: sum(e["step"] == "restart" for e in fit.trace) for n, fit in fits.items()}
    assert restarts[1] == 0 < restarts[2] < restarts[6] <= 5
    assert fits[1].llf <= fits[2].llf <= fits[6].llf
    again = lf.lmm("y ~ t + (t | id)", data, n_starts=6, **options)
    assert again.llf == fits[6].llf
    np.testing.assert_array_equal(again.theta, fits[6].theta)


def test_several_starts_of_variance_models_and_of_many_rows(data: pd.DataFrame) -> None:
    many = pd.concat([data, data.assign(id=data["id"] + 100, y=data["y"] + data["v"])])
    for formula in ("y ~ t + (t | id)", "y ~ t + (1 | id) + (1 | v)", "y ~ t + (1 | arm / id)"):
        fit, other = lf.lmm(formula, many), lf.lmm(formula, many, n_starts=4)
        assert other.llf == pytest.approx(fit.llf, abs=1e-8)
        assert sum(e["step"] == "restart" for e in other.trace) == 3
    X = np.column_stack([np.ones(len(data)), data["t"]])
    fit = lf.fit(data["y"], X, data["id"], X, n_starts=3)
    assert fit.llf == pytest.approx(lf.lmm("y ~ t + (t | id)", data).llf, abs=1e-8)


@pytest.mark.parametrize("n_starts", [0, -1, 2.5, "two"])
def test_a_number_of_starts_is_one(n_starts: Any, data: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="n_starts="):
        lf.lmm("y ~ t + (1 | id)", data, n_starts=n_starts)


def test_evaluations_are_limited_from_each_start() -> None:
    options: Any = {"residual": lf.HeterogeneousAR1("t"), "max_iter": 3, "n_starts": 4}
    with pytest.warns(lf.ConvergenceWarning, match="max_iter=3"):
        fit = lf.lmm("y ~ t + (1 | id)", few_rows(9), **options)
    assert len(fit.trace) <= 3 + 4 * 3
