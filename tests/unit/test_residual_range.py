"""The reported residual covariance is one: banded Toeplitz matrices up to the edge of the range."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import toeplitz
from scipy.optimize import minimize

import lmmfast as lf
from lmmfast.arrays import Array
from lmmfast.residual import ranges
from lmmfast.residual.complex_step import complex_step
from lmmfast.residual.edges import edges
from lmmfast.residual.kinds.toeplitz import banded_toeplitz
from lmmfast.residual.layout import ResidualParameters, Stratum
from lmmfast.search.barrier import Barrier, metric

SINGULAR = "the correlation matrix of t{} is singular"


def simulated(seed: int, m: int, T: int, rho: float = -0.58, missing: float = 0.0) -> pd.DataFrame:
    """Rows whose V has a correlation at lag one that no R has, or nearly so."""
    rng = np.random.default_rng(seed)
    V = 0.6 + toeplitz(np.append([1.0, rho], np.zeros(T - 2)))
    root = np.linalg.cholesky(V + max(0.0, 1e-3 - np.linalg.eigvalsh(V)[0]) * np.eye(T))
    y = 1 + rng.normal(size=(m, T)) @ root.T * np.exp(0.1 * np.arange(T))
    there = rng.uniform(size=(m, T)) >= missing
    i, t = np.nonzero(there)
    arm = np.array(["a", "b"])[i % 2]
    return pd.DataFrame(
        {"school": i // 4, "id": i, "arm": arm, "t": t, "v": t + 1.0, "y": y[there]}
    )


def correlations(fit: Any) -> list[Array]:
    """C of every stratum over all visits, from the reported parameters."""
    rhos: dict[str, list[float]] = {}
    for name, value in fit.theta.items():
        if name.startswith("rho"):
            rhos.setdefault(name.partition("|")[2], []).append(value)
    T = len(fit._residual_model.parameters.levels)
    return [
        toeplitz(np.concatenate([[1.0], rho, np.zeros(T - 1 - len(rho))])) for rho in rhos.values()
    ]


def smallest(fit: Any) -> float:
    return min(float(np.linalg.eigvalsh(C)[0]) for C in correlations(fit))


def reml(y: Array, t: Array, variance: float, rho: Array) -> float:
    """Profiled REML log-likelihood of y (m, T) ~ t with R = toeplitz(1, rho, 0, ...) + variance."""
    (m, T), X = y.shape, np.column_stack([np.ones(len(t)), t])
    V = variance + toeplitz(np.concatenate([[1.0], rho, np.zeros(T - 1 - len(rho))]))
    W = np.linalg.inv(V)
    S = m * X.T @ W @ X
    beta = np.linalg.solve(S, X.T @ W @ y.sum(axis=0))
    r = y - X @ beta
    df = m * T - 2
    sigma2 = np.einsum("ij,jk,ik->", r, W, r) / df
    logdet = m * np.linalg.slogdet(V)[1] + np.linalg.slogdet(S)[1]
    return float(-0.5 * (df * (np.log(2 * np.pi * sigma2) + 1) + logdet))


def highest(y: Array, bands: int) -> float:
    """Highest log-likelihood that a general optimiser finds within the range, from three starts."""
    T = y.shape[1]

    def height(x: Array) -> float:
        # Along every ray from zero the edge is reached, and not passed, where the gauge is pi / 2.
        C = toeplitz(np.concatenate([[0.0], x[1:], np.zeros(T - 1 - bands)]))
        gauge = max(-float(np.linalg.eigvalsh(C)[0]), 1e-12)
        return -reml(y, np.arange(T), x[0] ** 2, x[1:] * np.sin(gauge) / gauge * (1 - 1e-12))

    starts = [np.append(0.3, np.full(bands, r)) for r in (-0.4, 0.2)]
    starts.append(np.append(1.0, -0.3 * (-0.7) ** np.arange(bands)))
    options = {"xatol": 1e-8, "fatol": 1e-9, "maxiter": 3000}
    ends = [minimize(height, x, method="Nelder-Mead", options=options) for x in starts]
    return -min(end.fun for end in ends)


@pytest.mark.parametrize(("bands", "seeds"), [(1, range(12)), (2, range(6))])
def test_no_fit_leaves_the_range_and_none_is_short_within_it(bands: int, seeds: range) -> None:
    at_edge = 0
    for seed in seeds:
        m, T = 8 + seed, 4 + seed % 4
        data = simulated(seed, m, T)
        y = data["y"].to_numpy().reshape(m, T)
        fit = lf.lmm("y ~ t + (1 | id)", data, residual=lf.Toeplitz("t", bands=bands))
        assert smallest(fit) > 0
        assert fit.certificate.converged
        assert fit.llf > highest(y, bands) - 1e-7
        own = fit.theta[[f"rho{k + 1}(t)" for k in range(bands)]]
        ratio = fit.theta["var(Intercept|id)"] / fit.theta["var(Residual)"]
        assert fit.llf == pytest.approx(reml(y, np.arange(T), ratio, own.to_numpy()), abs=1e-8)
        is_there = smallest(fit) < 1e-7
        assert (SINGULAR.format("") in fit.certificate.status) == is_there
        at_edge += is_there
    assert 2 <= at_edge < len(seeds)


MODELS = {
    "banded": (lf.Toeplitz("t", bands=1), ""),
    "heterogeneous": (lf.HeterogeneousToeplitz("t", bands=1), ""),
    "by": (lf.Toeplitz("t", bands=1, by="arm"), " (a)"),
    "power": (lf.Toeplitz("t", bands=2) * lf.VarPower("v"), ""),
    "by group": (lf.Toeplitz("t", bands=1) * lf.ByGroup("arm"), ""),
}


@pytest.mark.parametrize("kind", [*MODELS, "nested"])
def test_the_edge_in_products_by_group_and_in_nested_factors(kind: str) -> None:
    structure, label = MODELS["banded" if kind == "nested" else kind]
    formula = "y ~ t + (1 | school / id)" if kind == "nested" else "y ~ t + (1 | id)"
    data = simulated(1, 24, 6, rho=-0.65, missing=0.1)
    fit = lf.lmm(formula, data, residual=structure)
    assert fit.certificate.converged
    assert SINGULAR.format(label) in fit.certificate.status
    assert smallest(fit) > 0
    # What sits at an end of its range has no standard error; the others have theirs.
    lost = fit.theta_se.index[fit.theta_se.isna()]
    rhos = fit.theta.index[fit.theta.index.str.startswith("rho")]
    singular = [name for name in rhos if not label or name.endswith("|a)")]
    assert set(singular) <= set(lost) <= {*singular, "var(Intercept|school)"}


def test_the_edge_with_many_rows() -> None:
    data = simulated(2, 2500, 6, rho=-0.65)
    fit = lf.lmm("y ~ t + (1 | id)", data, residual=lf.Toeplitz("t", bands=1))
    assert fit.certificate.converged
    assert fit.theta["rho1(t)"] == pytest.approx(-0.5 / np.cos(np.pi / 7), abs=1e-8)
    y = data["y"].to_numpy().reshape(2500, 6)
    ratio = fit.theta["var(Intercept|id)"] / fit.theta["var(Residual)"]
    rho = np.array([-0.5 / np.cos(np.pi / 7)])
    along = [reml(y, np.arange(6), ratio * f, rho * (1 - 1e-12)) for f in (0.9, 1.0, 1.1)]
    assert fit.llf >= max(along) - 1e-7
    assert along[1] > max(along[0], along[2])


def test_the_range_is_that_of_all_visits_though_no_cluster_has_all() -> None:
    rng, first = np.random.default_rng(4), np.arange(40) % 4  # of three visits in a row
    y = rng.normal(size=(40, 3)) @ np.linalg.cholesky(toeplitz([1.0, -0.65, 0.0])).T
    data = pd.DataFrame({"id": np.repeat(np.arange(40), 3), "y": y.ravel()})
    data["t"] = (first[:, None] + np.arange(3)).ravel()
    R = lf.Toeplitz("t", bands=1)
    fit = lf.lmm("y ~ t", data, residual=R, groups="id")
    assert smallest(fit) > 0
    assert SINGULAR.format("") in fit.certificate.status


def test_a_fit_at_the_edge_begins_another() -> None:
    data = simulated(1, 24, 6, rho=-0.65)
    options: Any = {"residual": lf.Toeplitz("t", bands=2)}
    fit = lf.lmm("y ~ t + (1 | id)", data, **options)
    again = lf.lmm("y ~ t + (1 | id)", data, start=fit, **options)
    assert again.llf == pytest.approx(fit.llf, abs=1e-8)
    # Over more visits the same correlations are not positive definite.
    longer = simulated(3, 24, 9, rho=-0.6)
    other = lf.lmm("y ~ t + (1 | id)", longer, start=fit, **options)
    assert other.llf == pytest.approx(lf.lmm("y ~ t + (1 | id)", longer, **options).llf, abs=1e-7)


# -- the range itself ------------------------------------------------------------------------------


@pytest.fixture
def parameters() -> ResidualParameters:
    correlation = lf.Toeplitz("t", bands=2, by="arm").correlation
    strata = (Stratum("a", slice(0, 2), None), Stratum("b", slice(2, 4), None))
    return ResidualParameters(correlation, (), strata, tuple("012345"), 6, 1.0)


KAPPA = np.array([0.5, 0.1, -0.4, 0.05])


def test_the_log_determinant_and_its_derivatives(parameters: ResidualParameters) -> None:
    logdet = ranges.log_determinant(parameters, KAPPA)

    def value(psi: Any) -> Any:
        tables = [banded_toeplitz(psi[s.psi], 6) for s in parameters.strata]
        return sum(np.log(np.linalg.det(C)) for C in tables)

    assert logdet.value == pytest.approx(value(KAPPA), abs=1e-12)
    np.testing.assert_allclose(logdet.g, complex_step(value, KAPPA), atol=1e-12)
    H = -(logdet.bent + np.diag(logdet.straight))
    for k, e in enumerate(1e-5 * np.eye(4)):
        ahead, back = (ranges.log_determinant(parameters, KAPPA + s).g for s in (e, -e))
        np.testing.assert_allclose(H[k], (ahead - back) / 2e-5, atol=1e-7)
    assert np.linalg.eigvalsh(logdet.bent)[0] > -1e-12


def test_steps_stay_within_the_range(parameters: ResidualParameters) -> None:
    step = np.array([1.0, 0.2, 0.0, 0.0])
    part = ranges.part_within(parameters, KAPPA, step)
    assert 0 < part < 1
    assert ranges.contains(parameters, KAPPA + part * step)
    assert not ranges.contains(parameters, KAPPA + 1.1 * part * step)
    assert ranges.part_within(parameters, KAPPA, 0.01 * step) == 1.0


def test_a_point_beyond_the_edge_is_brought_well_inside(parameters: ResidualParameters) -> None:
    kappa = np.array([1.5, 0.1, -0.4, 0.05])
    inside = ranges.well_inside(parameters, kappa, 0.1)
    np.testing.assert_array_equal(inside[2:], kappa[2:])  # the other group has room
    C = banded_toeplitz(inside[:2], 6)
    assert np.linalg.eigvalsh(C)[0] == pytest.approx(0.1, abs=1e-12)
    ratio = np.tanh(inside[:2]) / np.tanh(kappa[:2])
    assert ratio[0] == pytest.approx(ratio[1], rel=1e-12)


def test_the_metric_of_a_barrier_keeps_digits(parameters: ResidualParameters) -> None:
    logdet, scale = ranges.log_determinant(parameters, KAPPA), np.array([0.1, 0.2, 0.3, 0.4])
    B = 1e10 * logdet.bent * np.outer(scale, scale)
    W, whitened = metric(logdet, Barrier(1e-10, 1e10), scale)
    np.testing.assert_allclose(W @ W, np.linalg.inv(np.eye(4) + B), rtol=1e-5, atol=1e-20)
    np.testing.assert_allclose(W @ W + whitened, np.eye(4), atol=1e-14)


def test_an_unstructured_correlation_says_where_it_is_singular() -> None:
    correlation = lf.Unstructured("t").correlation
    strata = (Stratum(None, slice(0, 3), None),)
    parameters = ResidualParameters(correlation, (), strata, tuple("012"), 3, 1.0)
    assert edges(parameters, np.array([0.3, 0.2, -0.1])) == []
    assert edges(parameters, np.array([1e5, 0.2, -0.1])) == [SINGULAR.format("")]
