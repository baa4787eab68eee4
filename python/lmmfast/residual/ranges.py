"""The range of correlations that are searched as they are: banded Toeplitz matrices.

All other structures are positive definite for every psi. A banded one C = I + sum_k rho_k B_k,
with ones on the k-th off-diagonals of B_k, is so on a convex set of rho that has no smooth
coordinates: it has corners where two eigenvalues vanish. That set, over all T visits, is the range
of the model, however positive the random effects make V; log det C keeps the search within it
(`lmmfast.search.barrier`).
"""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual.kinds.toeplitz import banded_toeplitz
from lmmfast.residual.layout import ResidualParameters, Stratum
from lmmfast.residual.log_determinant import LogDeterminant

#: The part of the way to the edge that a step may go.
PART_OF_THE_WAY = 0.95


def is_bounded(parameters: ResidualParameters) -> bool:
    """Whether some values of psi give no covariance matrix."""
    correlation = parameters.correlation
    return correlation is not None and correlation.kind == "banded_toeplitz"


def table(parameters: ResidualParameters, stratum: Stratum, kappa: Array) -> Array:
    """C of a stratum over all visits, (T, T)."""
    return np.asarray(banded_toeplitz(kappa[stratum.psi], parameters.T))


def contains(parameters: ResidualParameters, kappa: Array) -> bool:
    """Whether C of every stratum is positive definite."""
    if not is_bounded(parameters):
        return True
    return all(_is_positive(table(parameters, s, kappa)) for s in parameters.strata)


def _is_positive(C: Array) -> bool:
    try:
        np.linalg.cholesky(C)
    except np.linalg.LinAlgError:
        return False
    return True


def log_determinant(parameters: ResidualParameters, kappa: Array) -> LogDeterminant:
    """Sum of log det C over the strata, where all are positive definite."""
    n = parameters.n_params
    value, g, bent, straight = 0.0, np.zeros(n), np.zeros((n, n)), np.zeros(n)
    for stratum in parameters.strata:
        C = table(parameters, stratum, kappa)
        inverse = np.asarray(np.linalg.inv(C), dtype=np.float64)
        value += float(np.linalg.slogdet(C)[1])
        rho = np.tanh(kappa[stratum.psi])
        lags = range(1, len(rho) + 1)
        first = np.array([2 * np.trace(inverse, lag) for lag in lags])
        products = [_times_shifts(inverse, lag) for lag in lags]
        second = np.array([[np.sum(a * b.T) for b in products] for a in products])
        slope = 1 - rho**2
        g[stratum.psi] = first * slope
        bent[stratum.psi, stratum.psi] = second * np.outer(slope, slope)
        straight[stratum.psi] = first * 2 * rho * slope
    return LogDeterminant(value, g, bent, straight)


def _times_shifts(A: Array, lag: int) -> Array:
    """A B_lag, (T, T)."""
    out = np.zeros_like(A)
    out[:, lag:] += A[:, :-lag]
    out[:, :-lag] += A[:, lag:]
    return out


def part_within(parameters: ResidualParameters, kappa: Array, step: Array) -> float:
    """The part of a step that stays clear of the edge: 1 where all of it does."""
    if not is_bounded(parameters) or contains(parameters, kappa + step / PART_OF_THE_WAY):
        return 1.0
    low, high = 0.0, 1.0
    while high - low > 0.01 * high and high > 1e-9:
        middle = 0.5 * (low + high)
        inside = contains(parameters, kappa + middle * step / PART_OF_THE_WAY)
        low, high = (middle, high) if inside else (low, middle)
    return low


def well_inside(parameters: ResidualParameters, kappa: Array, least: float) -> Array:
    """Working parameters with all correlations of a stratum shrunk until C has room.

    Parameters
    ----------
    least : float
        That its smallest eigenvalue has at the end, below 1. Eigenvalues are linear in the part of
        the correlations that is left.
    """
    out = kappa.copy()
    for stratum in parameters.strata if is_bounded(parameters) else ():
        lowest = float(np.linalg.eigvalsh(table(parameters, stratum, kappa))[0])
        if lowest < least:
            part = (1 - least) / (1 - lowest)
            out[stratum.psi] = np.arctanh(part * np.tanh(kappa[stratum.psi]))
    return out
