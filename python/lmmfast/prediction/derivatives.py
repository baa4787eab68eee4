"""Covariances that residual structures imply between rows, and derivatives of V by its parameters.

The parameters are those of `lmmfast.inference.totals`: natural ones of D, kappa, sigma2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.covariance.joint import JointCovariance
from lmmfast.residual.between import correlation_derivatives, correlations
from lmmfast.residual.layout import ResidualParameters
from lmmfast.residual.place import Places

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


class ThetaParameters:
    """The variance parameters of a fit, and where the derivatives of D and R by them are.

    Parameters
    ----------
    fit : LMMResult

    Attributes
    ----------
    D : ndarray (q, q)
    E : ndarray (n_random, q, q)
        Derivatives of D.
    n : int
        Number of parameters K.
    sigma2 : float
    """

    def __init__(self, fit: LMMResult) -> None:
        covariance = fit._covariance
        self.D, self.sigma2 = fit._estimates.D, fit._estimates.sigma2
        pairs = covariance.pairs
        by_vech = covariance.natural_jacobian(self.D)
        self.E = np.zeros((len(by_vech), covariance.q, covariance.q))
        self.E[:, pairs[0], pairs[1]] = self.E[:, pairs[1], pairs[0]] = by_vech
        # A variance of zero beside a correlation: D is steeper than any number there.
        self.E[~np.isfinite(self.E).all(axis=(1, 2))] = 0.0
        self.residual: ResidualParameters | None = None
        self.kappa = np.empty(0)
        if isinstance(covariance, JointCovariance):
            self.residual, self.kappa = covariance.residual, covariance.kappa(fit._phi)
        self.n = len(self.E) + len(self.kappa) + 1

    def of_D(self, k: int) -> Array | None:
        """Derivative of D by parameter k; None: it has no part in D."""
        return self.E[k] if k < len(self.E) else None

    def of_R(self, k: int) -> int | None:
        """Which of (kappa, sigma2) parameter k is; None: it is one of D."""
        return k - len(self.E) if k >= len(self.E) else None


@dataclass(frozen=True, eq=False)
class ResidualCovariance:
    """Covariances s_a s_b [(1 - nu) C_ab + nu (a is b)] of residuals of clusters of one stratum.

    Attributes
    ----------
    theta : ThetaParameters
    stratum : int
    one, other : Places
        Of k times a and k times b rows.
    s_one, s_other : ndarray (k, a), (k, b)
    same : bool
        Whether they are the same rows.
    """

    theta: ThetaParameters
    stratum: int
    one: Places
    other: Places
    s_one: Array
    s_other: Array
    same: bool

    @property
    def _parameters(self) -> ResidualParameters:
        return cast("ResidualParameters", self.theta.residual)

    @property
    def nu(self) -> float:
        """Part of the variance that is measurement error."""
        place = self._parameters.strata[self.stratum].nu
        return 0.0 if place is None else float(self.theta.kappa[place])

    @cached_property
    def _psi(self) -> Array:
        return np.asarray(self.theta.kappa[self._parameters.strata[self.stratum].psi])

    @cached_property
    def _size(self) -> Array:
        return np.asarray(self.s_one[..., :, None] * self.s_other[..., None, :])

    @cached_property
    def _C(self) -> Array:
        if self._parameters.correlation is None:
            return np.broadcast_to(self._eye, self._size.shape)
        return correlations(self._parameters, self._psi, self.one, self.other)

    @cached_property
    def _eye(self) -> Array:
        a, b = self._size.shape[-2:]
        return np.eye(a) if self.same else np.zeros((a, b))

    @cached_property
    def value(self) -> Array:
        """The covariances (k, a, b)."""
        return np.asarray(self._size * ((1 - self.nu) * self._C + self.nu * self._eye))

    @cached_property
    def _by_psi(self) -> Array:
        dC = correlation_derivatives(self._parameters, self._psi, self.one, self.other)
        return np.asarray((1 - self.nu) * self._size * dC)

    def derivative(self, k: int) -> Array:
        """Their derivatives by the k-th of (kappa, sigma2)."""
        stratum = self._parameters.strata[self.stratum]
        if k == len(self.theta.kappa):
            return self.value / self.theta.sigma2
        if k < self._parameters.n_variance:
            assert self.one.G is not None and self.other.G is not None
            G = self.one.G[..., k][..., :, None] + self.other.G[..., k][..., None, :]
            return np.asarray(G * self.value)
        if k == stratum.nu:
            return np.asarray(self._size * (self._eye - self._C))
        if stratum.psi.start <= k < stratum.psi.stop:
            return np.asarray(self._by_psi[k - stratum.psi.start])
        return np.zeros_like(self._size)


def variance_parts(
    theta: ThetaParameters, places: Places | None, sds: Array
) -> tuple[Array, Array, Array, Array]:
    """Variances (N,) of residuals and of the processes in them, and derivatives by theta (K, N).

    Parameters
    ----------
    places : Places or None
        None: residuals are independent.
    sds : ndarray (N,)
    """
    total, N = sds**2, len(sds)
    d_total = np.zeros((theta.n, N))
    d_total[-1] = total / theta.sigma2
    if places is None or theta.residual is None:
        return total, np.zeros(N), d_total, np.zeros_like(d_total)
    parameters, first = theta.residual, len(theta.E)
    for k in range(parameters.n_variance):
        assert places.G is not None
        d_total[first + k] = 2 * places.G[:, k] * total
    has_nugget = np.array([one.nu is not None for one in parameters.strata])
    nu_at = np.array([one.nu or 0 for one in parameters.strata])[places.stratum]
    part = np.where(has_nugget[places.stratum], 1 - _take(theta.kappa, nu_at), 0.0)
    process, d_process = part * total, part * d_total
    rows: NDArray[np.intp] = np.flatnonzero(has_nugget[places.stratum])
    d_process[first + nu_at[rows], rows] = -total[rows]
    return total, process, d_total, d_process


def _take(values: Array, at: NDArray[np.intp]) -> Array:
    return values[at] if len(values) else np.ones(len(at))
