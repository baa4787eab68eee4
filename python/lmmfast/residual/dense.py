"""Covariance matrices of single clusters by definition: for the reference engine and for plots."""

from __future__ import annotations

from typing import Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import DataError
from lmmfast.residual import registry
from lmmfast.residual.complex_step import complex_step
from lmmfast.residual.layout import ResidualParameters, Stratum
from lmmfast.residual.structure import CustomFunction


def correlation_matrix(
    parameters: ResidualParameters,
    stratum: Stratum,
    psi: Any,
    positions: Any,
    coords: Any,
    n: int,
) -> Any:
    """C (n, n) of rows at given positions or coordinates; complex psi go through."""
    correlation = parameters.correlation
    if correlation is None:
        return np.eye(n)
    if correlation.kind in registry.TABLES:
        table = registry.TABLES[correlation.kind](psi, parameters.T)
        return table[np.ix_(positions, positions)]
    if correlation.kind == "custom":
        assert correlation.custom is not None
        return evaluate_custom(correlation.custom, np.real(psi), coords)[0]
    d = np.sqrt(((coords[:, None] - coords[None, :]) ** 2).sum(axis=2))
    return registry.DISTANCES[correlation.kind](psi, d)


def evaluate_custom(custom: CustomFunction, psi: Array, values: Array) -> tuple[Array, Array]:
    """Call a user's correlation and check what it returns.

    Raises
    ------
    DataError
        Wrong shapes, values that are not finite, no unit diagonal, no symmetry.
    """
    C, dC = (np.asarray(part, dtype=float) for part in custom.function(psi, values))
    n, K = len(values), len(custom.start)
    name = getattr(custom.function, "__name__", "function")
    if C.shape != (n, n) or dC.shape != (K, n, n):
        raise DataError(
            f"{name} returned shapes {C.shape} and {dC.shape}: a correlation ({n}, {n}) and "
            f"derivatives ({K}, {n}, {n}) are wanted"
        )
    if not (np.isfinite(C).all() and np.isfinite(dC).all()):
        raise DataError(f"{name} returned values that are not finite at psi = {psi}")
    if not np.allclose(np.diag(C), 1.0) or not np.allclose(C, C.T):
        raise DataError(f"{name} must return a symmetric matrix with ones on its diagonal")
    return C, dC


def residual_covariance(
    parameters: ResidualParameters,
    stratum: Stratum,
    kappa: Array,
    G: Array | None,
    positions: Any,
    coords: Any,
    inverse_root_weights: Array,
) -> tuple[Array, Array]:
    """Rdot_i and its derivatives by all working parameters.

    Returns
    -------
    R : ndarray (n_i, n_i)
    dR : ndarray (n_params, n_i, n_i)
    """
    n = len(inverse_root_weights)
    n_variance = parameters.n_variance
    s = inverse_root_weights.copy()
    if G is not None:
        s *= np.exp(G @ kappa[:n_variance])
    psi = kappa[stratum.psi]
    nu = 0.0 if stratum.nu is None else kappa[stratum.nu]

    def C_at(values: Any) -> Any:
        return correlation_matrix(parameters, stratum, values, positions, coords, n)

    C = C_at(psi)
    size = np.outer(s, s)
    R = size * ((1 - nu) * C + nu * np.eye(n))
    dR = np.zeros((parameters.n_params, n, n))
    for k in range(n_variance):
        assert G is not None
        dR[k] = G[:, [k]] * R + R * G[:, k]
    if len(psi):
        correlation = parameters.correlation
        assert correlation is not None
        if correlation.custom is not None:
            dC = evaluate_custom(correlation.custom, psi, coords)[1]
        else:
            dC = complex_step(C_at, psi)
        dR[stratum.psi] = (1 - nu) * size * dC
    if stratum.nu is not None:
        dR[stratum.nu] = size * (np.eye(n) - C)
    return R, dR
