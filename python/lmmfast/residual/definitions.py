"""Correlation structures by their definitions, in plain NumPy, to test the compiled ones on.

Every function here takes complex parameters, so that complex steps give exact derivatives
(Squire and Trapp, 1998, SIAM Review 40, 110-112).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lmmfast.arrays import Array

# Real or complex: complex steps go through.
Values = Any


def ar1(psi: Values, d: Array) -> Values:
    """rho^d for whole numbers d, rho = tanh(psi)."""
    return np.tanh(psi[0]) ** np.asarray(d, dtype=np.int64)


def exponential(psi: Values, d: Array) -> Values:
    """exp(-d / l), l = exp(psi)."""
    return np.exp(-d / np.exp(psi[0]))


def gaussian(psi: Values, d: Array) -> Values:
    """exp(-(d / l)^2), l = exp(psi)."""
    return np.exp(-((d / np.exp(psi[0])) ** 2))


def matern32(psi: Values, d: Array) -> Values:
    """(1 + a) exp(-a), a = sqrt(3) d / l, l = exp(psi)."""
    a = np.sqrt(3.0) * d / np.exp(psi[0])
    return (1 + a) * np.exp(-a)


def matern52(psi: Values, d: Array) -> Values:
    """(1 + a + a^2 / 3) exp(-a), a = sqrt(5) d / l, l = exp(psi)."""
    a = np.sqrt(5.0) * d / np.exp(psi[0])
    return (1 + a + a**2 / 3) * np.exp(-a)


def spherical(psi: Values, d: Array) -> Values:
    """1 - 1.5 d / l + 0.5 (d / l)^3 for d < l = exp(psi), else 0."""
    a = d / np.exp(psi[0])
    return np.where(np.real(a) < 1, 1 - 1.5 * a + 0.5 * a**3, 0.0)


def compound_symmetry(psi: Values, T: int) -> Values:
    """One correlation from -1 / (T - 1) to 1, by a logistic function."""
    rho = equicorrelation(psi[0], T)
    return rho + (1 - rho) * np.eye(T)


def equicorrelation(psi: Values, T: int) -> Values:
    """Correlation of compound symmetry over T positions."""
    lowest = -1.0 / (T - 1)
    return lowest + (1 - lowest) / (1 + np.exp(-psi))


def autocorrelations(psi: Values) -> Values:
    """Autocorrelations at lags 1 … K from partial ones tanh(psi): Durbin and Levinson's recursion.

    References
    ----------
    Brockwell, P. J. and Davis, R. A. (1991). Time Series: Theory and Methods, prop. 5.2.1.
    """
    rho: list[Values] = []
    weights: list[Values] = []
    for pacf in np.tanh(psi):
        predicted = sum(w * r for w, r in zip(weights, rho[::-1], strict=True))
        spread = 1 - sum(w * r for w, r in zip(weights, rho, strict=True))
        rho.append(predicted + pacf * spread)
        weights = [w - pacf * v for w, v in zip(weights, weights[::-1], strict=True)] + [pacf]
    return np.array(rho)


def toeplitz(psi: Values, T: int) -> Values:
    """A correlation for each lag; always positive definite."""
    return _by_lag(np.concatenate([[1.0], autocorrelations(psi)]), T)


def banded_toeplitz(psi: Values, T: int) -> Values:
    """Correlations tanh(psi) at the first lags, zero beyond; not always positive definite."""
    by_lag = np.concatenate([[1.0], np.tanh(psi), np.zeros(max(T - 1 - len(psi), 0))])
    return _by_lag(by_lag, T)


def _by_lag(by_lag: Values, T: int) -> Values:
    return by_lag[np.abs(np.subtract.outer(np.arange(T), np.arange(T)))]


def antedependence(psi: Values, T: int) -> Values:
    """Products of correlations tanh(psi) between neighbours."""
    C = np.eye(T, dtype=np.result_type(psi, float))
    for j in range(T):
        for k in range(j + 1, T):
            C[j, k] = C[k, j] = np.prod(np.tanh(psi[j:k]))
    return C


def unstructured(psi: Values, T: int) -> Values:
    """L L' for L with rows of length one, proportional to (psi, 1)."""
    L = np.eye(T, dtype=np.result_type(psi, float))
    L[np.tril_indices(T, -1)] = psi
    L = L / np.sqrt((L**2).sum(axis=1))[:, None]
    return L @ L.T


#: Functions of the distance of two rows.
DISTANCES: dict[str, Callable[[Values, Array], Values]] = {
    "ar1": ar1,
    "exponential": exponential,
    "gaussian": gaussian,
    "matern32": matern32,
    "matern52": matern52,
    "spherical": spherical,
}

#: Matrices over the levels that a row can have.
TABLES: dict[str, Callable[[Values, int], Values]] = {
    "compound_symmetry": compound_symmetry,
    "toeplitz": toeplitz,
    "banded_toeplitz": banded_toeplitz,
    "antedependence": antedependence,
    "unstructured": unstructured,
}


def n_psi(kind: str, T: int, bands: int | None) -> int:
    """Number of parameters of a structure over T levels."""
    if kind in DISTANCES or kind == "compound_symmetry":
        return 1
    if kind == "banded_toeplitz":
        assert bands is not None
        return bands
    return T * (T - 1) // 2 if kind == "unstructured" else T - 1


def complex_step(function: Callable[[Values], Values], at: Array) -> Array:
    """Derivatives of a real function by its arguments (K,), the arguments along the first axis."""
    step = 1e-30
    columns = []
    for k in range(len(at)):
        shifted = at.astype(complex)
        shifted[k] += 1j * step
        columns.append(np.imag(function(shifted)) / step)
    value = np.asarray(function(at))
    return np.array(columns).reshape(len(at), *value.shape)


#: Correlations of a start stay this far within their range.
MAX_START_CORRELATION = 0.9


def partial_autocorrelations(
    rho: Array, most: float = MAX_START_CORRELATION, least: float = 1e-3
) -> Array:
    """Inverse hyperbolic tangents of the partial autocorrelations of autocorrelations.

    Parameters
    ----------
    rho : ndarray (K,)
        At lags 1 ... K; those of moments need not belong to a covariance matrix.
    most : float
        Largest partial autocorrelation.
    least : float
        Smallest variance of a prediction that is divided by.
    """
    psi: list[float] = []
    weights: list[float] = []
    for k, value in enumerate(rho):
        predicted = float(np.dot(weights, rho[:k][::-1]))
        spread = max(1.0 - float(np.dot(weights, rho[:k])), least)
        pacf = float(np.clip((value - predicted) / spread, -most, most))
        psi.append(float(np.arctanh(pacf)))
        weights = [w - pacf * v for w, v in zip(weights, weights[::-1], strict=True)] + [pacf]
    return np.array(psi)
