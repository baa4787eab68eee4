"""Searches on the way to an end: maxima there are found and named, likelihoods without one too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.residual import definitions
from lmmfast.residual.ends import LEAST_SD, NEXT_TO_THE_END, ends
from lmmfast.residual.layout import ResidualParameters

UNBOUNDED = "not converged: the likelihood grows without bound as "


def visits(seed: int, m: int, T: int, arm: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    i, v = np.divmod(np.arange(m * T), T)
    y = rng.normal(size=m)[i] + rng.normal(size=m * T)
    return pd.DataFrame({"y": y, "id": i, "v": v + 1, "x": rng.normal(size=m * T), "arm": i % 2})


def parameters(structure: Any, d: pd.DataFrame) -> ResidualParameters:
    fit = lf.lmm("y ~ 1", d, groups="id", residual=structure, n_starts=1)
    model: ResidualParameters = fit._residual_model.parameters
    return model


# -- the ends themselves ---------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", ["AR1", "Antedependence", "Toeplitz"])
def test_next_to_a_correlation_of_one(name: str, sign: int) -> None:
    p = parameters(getattr(lf, name)("v"), visits(0, 20, 3))
    kappa = np.full(p.n_params, 0.1)
    assert not ends(p, kappa)
    for value in (4.0, 12.0):
        kappa[0] = sign * value
        (end,) = ends(p, kappa)
        assert end.held == 0
        assert end.past == (value > 10)
        assert 1 - abs(np.tanh(end.moved(kappa, end.units)[0])) == pytest.approx(
            NEXT_TO_THE_END, rel=1e-6
        )
        further = 1 - abs(np.tanh(end.moved(kappa, end.units + 1)[0]))
        assert further == pytest.approx(NEXT_TO_THE_END / np.e**2, rel=1e-6)
        assert end.text == f"a correlation over v goes to {sign}"


def test_next_to_a_variance_of_zero() -> None:
    p = parameters(lf.HeterogeneousCS("v"), visits(1, 20, 3))
    kappa = np.array([-8.0, 0.5, 0.0])
    (end,) = ends(p, kappa)
    assert end.text == "the residual variance of 2 goes to zero"
    sds = np.exp(np.append(0.0, end.moved(kappa, end.units)[:2]))
    assert sds[1] / sds.max() == pytest.approx(LEAST_SD, rel=1e-9)
    kappa = np.array([8.0, 8.5, 0.0])  # the first, which all others are relative to
    (end,) = ends(p, kappa)
    assert end.text == "the residual variance of 1 goes to zero"
    sds = np.exp(np.append(0.0, end.moved(kappa, end.units)[:2]))
    assert sds[0] / sds.max() == pytest.approx(LEAST_SD, rel=1e-9)
    assert sds[2] / sds[1] == pytest.approx(np.exp(0.5), rel=1e-9)
    assert end.shrinks and end.is_variance and not end.past


def test_next_to_other_ends() -> None:
    d = visits(2, 20, 3)
    p = parameters(lf.CompoundSymmetry(), d)
    (end,) = ends(p, np.array([-9.0]))
    assert end.text == "the common correlation of the residuals goes to -1/2"
    rho = definitions.equicorrelation(end.moved(np.array([-9.0]), end.units)[0], p.T)
    assert rho == pytest.approx(-0.5, abs=1e-7)
    p = parameters(lf.SpatialGaussian("x", nugget=True), d)
    (end,) = ends(p, np.array([6.0, 0.2]))
    assert end.text == "the range of the correlation over x goes to infinity"
    p = parameters(lf.Unstructured("v"), d)
    kappa = np.array([0.0, 0.0, 0.3, 400.0, -300.0])
    (end,) = ends(p, kappa)
    assert end.text == "the correlation matrix of v becomes singular" and end.held == 3
    C = definitions.unstructured(end.moved(kappa, end.units)[2:], p.T)
    assert np.linalg.eigvalsh(C)[0] == pytest.approx(0.0, abs=2 * NEXT_TO_THE_END)


# -- fits ------------------------------------------------------------------------------------------


def test_a_residual_variance_of_zero_is_a_boundary() -> None:
    """One visit is the subject's level itself: V stays positive definite, and l has a maximum."""
    rng = np.random.default_rng(6)
    i, v = np.divmod(np.arange(60), 3)
    b = 2 * rng.normal(size=20)
    y = b[i] + np.where(v == 1, 0.0, 1.0) * rng.normal(size=60)
    d = pd.DataFrame({"y": y, "id": i, "v": v})
    fit = lf.lmm("y ~ 1 + (1 | id)", d, residual=lf.ByGroup("v"))
    assert fit.converged
    assert fit.certificate.status == (
        "converged on the boundary: the residual variance of 1 is zero"
    )
    assert fit.theta["var(Residual|1)"] < 1e-12 * fit.theta["var(Residual|0)"]
    assert np.isfinite(fit.bse).all()
    V = fit.theta["var(Intercept|id)"] + np.diag(
        [fit.theta["var(Residual|0)"], 0.0, fit.theta["var(Residual|2)"]]
    )
    r = y.reshape(20, 3) - fit.params.iloc[0]
    W = np.linalg.inv(V)
    dense = -0.5 * (
        59 * np.log(2 * np.pi)
        + 20 * np.linalg.slogdet(V)[1]
        + np.einsum("ia,ab,ib->", r, W, r)
        + np.log(20 * W.sum())
    )
    assert fit.llf == pytest.approx(dense, rel=1e-8)


def test_a_correlation_of_one_without_a_maximum() -> None:
    """Second visits are a multiple of the first ones beside what X explains: V may be singular."""
    rng = np.random.default_rng(6)
    first = rng.normal(size=6)
    x = np.repeat([0.0, 1.0], 3)
    d = pd.DataFrame(
        {
            "y": np.column_stack([first, 1.7 * first + 0.4]).ravel(),
            "id": np.repeat(np.arange(6), 2),
            "v": np.tile([1, 2], 6),
            "x": np.repeat(x, 2),
        }
    )
    with pytest.warns(lf.ConvergenceWarning, match="grows without bound"):
        fit = lf.lmm("y ~ v", d, groups="id", residual=lf.HeterogeneousAntedependence("v"))
    assert fit.certificate.status.startswith(UNBOUNDED)
    assert "a correlation over v goes to 1" in fit.certificate.status
    assert not fit.converged


def test_an_unstructured_matrix_of_few_subjects_has_no_maximum() -> None:
    """Six subjects at five visits: means by arm and visit leave four dimensions."""
    d = visits(7, 6, 5)
    formula = "y ~ factor(v) * factor(arm)"
    with pytest.warns(lf.ConvergenceWarning, match="the correlation matrix of v becomes singular"):
        fit = lf.lmm(formula, d, groups="id", residual=lf.Unstructured("v"), reml=False)
    assert not fit.converged
    assert fit.certificate.status.startswith(UNBOUNDED)


def test_a_search_that_ended_within_the_range_is_left_alone() -> None:
    fit = lf.lmm("y ~ x", visits(8, 30, 4), groups="id", residual=lf.HeterogeneousAR1("v"))
    assert fit.certificate.status == "converged"
    assert not any("end" in entry["step"] for entry in fit.trace)


def reml(d: pd.DataFrame, theta: pd.Series) -> float:
    """Log-likelihood of y ~ 1 + identity(1 + z | id) + (1 | item) by dense algebra."""
    same_id, same_item = (d[c].to_numpy()[:, None] == d[c].to_numpy() for c in ("id", "item"))
    z, n = d["z"].to_numpy(), len(d)
    V = theta["var(Intercept,z|id)"] * same_id * (1 + np.outer(z, z))
    V += theta["var(Intercept|item)"] * same_item + theta["var(Residual)"] * np.eye(n)
    L = np.linalg.cholesky(V)
    X, y = np.linalg.solve(L, np.column_stack([np.ones(n), d["y"]])).T
    r = y - X * (X @ y) / (X @ X)
    value = (n - 1) * np.log(2 * np.pi) + 2 * np.log(np.diag(L)).sum() + np.log(X @ X) + r @ r
    return float(-0.5 * value)


@pytest.mark.parametrize(("seed", "higher"), [(3, 1.8), (14, 0.01)])
def test_crossed_effects_that_take_all_of_the_variance(seed: int, higher: float) -> None:
    """Two rows and two effects a subject: a higher maximum has little or no residual variance."""
    rng = np.random.default_rng(seed)
    i = np.repeat(np.arange(12), 2)
    d = pd.DataFrame({"id": i, "z": rng.uniform(0.4, 3, 24), "item": rng.integers(0, 4, 24)})
    b = 25 * rng.normal(size=(12, 2))
    d["y"] = b[i, 0] + b[i, 1] * d["z"] + 5 * rng.normal(size=24)
    formula = "y ~ 1 + identity(1 + z | id) + (1 | item)"
    one, fit = lf.lmm(formula, d, n_starts=1), lf.lmm(formula, d)
    assert fit.llf > one.llf + higher
    assert fit.llf == pytest.approx(reml(d, fit.theta), rel=1e-8)
    assert one.llf == pytest.approx(reml(d, one.theta), rel=1e-8)


# -- what can be fitted exactly --------------------------------------------------------------------


def test_few_rows_with_a_variance_of_their_own() -> None:
    d = visits(10, 12, 3)
    d["lab"] = np.where(np.arange(36) < 2, "b", "a")
    options: Any = {"groups": "id", "residual": lf.AR1("v") * lf.ByGroup("lab")}
    with pytest.raises(
        lf.NotIdentifiableError,
        match="the fixed effects can fit 'y' exactly in the few rows of b: their residual variance "
        "goes to zero and the likelihood has no maximum; use REML, give b no variance of its own",
    ):
        lf.lmm("y ~ x", d, reml=False, **options)
    lf.lmm("y ~ x", d, reml=True, **options)
    lf.lmm("y ~ 1", d, reml=False, **options)


def test_effects_that_take_all_rows() -> None:
    d = visits(11, 10, 2)
    d["t"] = d["v"] + np.random.default_rng(0).uniform(size=20)
    d.loc[d["id"] == 3, "t"] = 1.0
    with pytest.raises(lf.NotIdentifiableError, match=r"together can fit 'y' exactly.*use REML"):
        lf.lmm("y ~ x + diag(1 + t | id)", d, residual=lf.AR1("v"), reml=False)


def test_a_response_that_effects_fit_by_chance() -> None:
    rng = np.random.default_rng(12)
    i = np.repeat(np.arange(10), 4)
    t = rng.uniform(size=40)
    d = pd.DataFrame({"y": rng.normal(size=10)[i], "id": i, "t": t})
    with pytest.raises(lf.NotIdentifiableError, match="can fit 'y' exactly"):
        lf.lmm("y ~ t + (1 | id)", d, residual=lf.OU("t"))
