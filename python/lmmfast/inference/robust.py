"""Covariance matrices of beta that hold whatever the covariance within clusters is.

Liang and Zeger (1986), Biometrika 73, 13-22 (CR0); Bell and McCaffrey (2002), Survey Methodology
28, 169-181 (CR2, CR3, degrees of freedom); Pustejovsky and Tipton (2018), Journal of Business &
Economic Statistics 36, 672-683 (tests of several functions). Everything is a sum over clusters, in
coordinates in which X'V^-1 X is the identity: no array of clusters by clusters is formed.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import DataError
from lmmfast.inference.cluster_sums import ClusterSums
from lmmfast.inference.denominators import FTest, wald_f

KINDS = ("CR0", "CR1", "CR1p", "CR1S", "CR2", "CR3")
#: Leverages this near to one: the cluster alone carries a coefficient.
ALONE = 1e-8
#: Below this leverage powers are series, of terms down to rounding.
LOW_LEVERAGE = 0.05
ROUNDING = 1e-17
#: A variance below this part of the model's is rounding.
NO_VARIANCE = 1e-20
#: What is left of a difference below this part of its terms, and an eigenvalue below this part of
#: the largest, are rounding.
SINGULAR = 1e-12


def adjustments(information: Array, power: float) -> tuple[Array, int]:
    """(I - G_i)^power of each cluster (m, p, p), and how many clusters carry a coefficient alone.

    By the binomial series where the leverage, the trace of G_i, is low, else by eigenvalues. Along
    directions that a cluster carries alone the power is zero: a generalised inverse.
    """
    p = information.shape[1]
    out = np.broadcast_to(np.eye(p), information.shape).copy()
    if power == 0.0:
        return out, 0
    leverage = np.trace(information, axis1=1, axis2=2)
    low = leverage < LOW_LEVERAGE
    if low.any():
        out[low] = _series(
            information if low.all() else information[low], power, leverage[low].max()
        )
    if low.all():
        return out, 0
    values, vectors = np.linalg.eigh(information[~low])
    values = np.clip(values, 0.0, 1.0)
    alone = values > 1 - ALONE
    with np.errstate(divide="ignore"):
        factors = np.where(alone, 0.0, (1 - values) ** power)
    out[~low] = (vectors * factors[:, None, :]) @ vectors.swapaxes(1, 2)
    return out, int(alone.any(axis=1).sum())


def _series(information: Array, power: float, largest: float) -> Array:
    """(I - G)^power for traces of G up to ``largest``, to rounding, by Horner's scheme."""
    coefficients = [1.0]
    while largest ** len(coefficients) > ROUNDING:
        k = len(coefficients)
        coefficients.append(coefficients[-1] * (k - 1 - power) / k)
    one = np.eye(information.shape[1])
    out = np.broadcast_to(coefficients[-1] * one, information.shape)
    for coefficient in coefficients[-2::-1]:
        out = information @ out
        out += coefficient * one
    return out


def _is_singular(cov: Array) -> bool:
    scale = np.sqrt(np.diag(cov))
    if not (scale > 0).all():
        return True
    values = np.linalg.eigvalsh(cov / np.outer(scale, scale))
    return bool(values[0] <= SINGULAR * values[-1])


class Robust:
    """A cluster-robust covariance matrix, with degrees of freedom under the fitted V.

    Parameters
    ----------
    sums : ClusterSums
    kind : str
        One of `KINDS`; CR2 has the principal root (I - G_i M)^-1/2.

    Attributes
    ----------
    n_alone : int
        Clusters that carry a coefficient alone: CR2 and CR3 leave that direction out.

    Raises
    ------
    DataError
        One cluster alone, whose scores sum to zero whatever the data.
    """

    def __init__(self, sums: ClusterSums, kind: str) -> None:
        if len(sums.score) < 2:
            raise DataError(
                f"vcov={kind!r} needs at least two clusters, and all rows are in one: use "
                "vcov='model', or finer clusters (cluster=)"
            )
        self._sums, self._kind = sums, kind
        power = {"CR2": -0.5, "CR3": -1.0}.get(kind, 0.0)
        self._adjust, self.n_alone = adjustments(sums.information, power)  # T_i
        self._adjusted = self._adjust @ sums.information  # T_i G_i

    @property
    def _scale(self) -> float:
        """The factor of CR1 and its kin."""
        m, p = self._sums.score.shape
        n = self._sums.n_obs
        if self._kind == "CR1":
            return m / (m - 1)
        if self._kind == "CR1p":
            return m / (m - p) if m > p else np.nan
        if self._kind == "CR1S":
            return m * (n - 1) / ((m - 1) * (n - p))
        return 1.0

    @cached_property
    def cov(self) -> Array:
        """The covariance matrix, (p, p).

        NaN for coefficients that a cluster carries alone and nothing else estimates: their scores
        are zero in all clusters, but for rounding.
        """
        scores = np.einsum("iab,ib->ia", self._adjust, self._sums.score)
        root = self._sums.root
        cov = np.asarray(self._scale * root @ (scores.T @ scores) @ root.T)
        unknown = np.diag(cov) <= NO_VARIANCE * np.square(root).sum(axis=1)
        cov[unknown], cov[:, unknown] = np.nan, np.nan
        return cov

    def df(self, weights: Array) -> float:
        """Satterthwaite's degrees of freedom of weights'beta, (p,) of them."""
        h, d = self._terms(weights[None])
        h, d = h[:, :, 0], d[:, 0, 0]
        K = h.T @ h
        trace = d.sum() - np.trace(K)
        if not trace > SINGULAR * d.sum():  # nothing but rounding
            return np.nan
        trace2 = (d * d).sum() - 2 * (d * (h * h).sum(axis=1)).sum() + (K * K).sum()
        return float(trace**2 / trace2)

    def test(self, L: Array, difference: Array) -> FTest:
        """Hotelling's T^2 with the degrees of freedom of Pustejovsky and Tipton (HTZ).

        NaN where the clusters are too few for so many functions: the covariance matrix of these is
        singular then.
        """
        q = len(L)
        cov = L @ self.cov @ L.T
        if q >= len(self._sums.score) or not np.isfinite(cov).all() or _is_singular(cov):
            return FTest(np.nan, q, np.nan)
        statistic = wald_f(cov, difference)
        if q == 1:
            return FTest(statistic, 1, self.df(L[0]))
        eta = self._eta(L)
        df = eta - q + 1
        if not df > 0:
            return FTest(np.nan, q, np.nan)
        return FTest(statistic * df / eta, q, df)

    def _terms(self, L: Array) -> tuple[Array, Array]:
        """h_i = T_i G_i M L' (m, p, q) and d_i = L M T_i T_i G_i M L' (m, q, q)."""
        x = self._sums.root.T @ L.T
        h = self._adjusted @ x
        d = (self._adjust @ x).swapaxes(1, 2) @ h
        return h, d

    def _eta(self, L: Array) -> float:
        """Degrees of freedom of the Wishart distribution that L cov L' is like."""
        q = len(L)
        h, d = self._terms(L)
        total = d.sum(axis=0) - np.einsum("iaq,iar->qr", h, h)
        values, vectors = np.linalg.eigh(total)
        R = (vectors / np.sqrt(values)) @ vectors.T
        h, d = h @ R, R @ d @ R
        hh = h.swapaxes(1, 2) @ h
        K = np.einsum("ias,ibt->asbt", h, h, optimize=True)
        squares = np.einsum("ist,its->", d, d - 2 * hh) + np.einsum("asbt,atbs->", K, K)
        traces = np.trace(d, axis1=1, axis2=2)
        products = (traces * (traces - 2 * np.trace(hh, axis1=1, axis2=2))).sum() + (K * K).sum()
        return float(q * (q + 1) / (squares + products))
