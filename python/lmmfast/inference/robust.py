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
from lmmfast.inference.adjusted_scores import AdjustedScores
from lmmfast.inference.denominators import FTest, wald_f

KINDS = ("CR0", "CR1", "CR1p", "CR1S", "CR2", "CR2-clubsandwich", "CR3")
#: Of the matrix (I - G_i) that scores are multiplied by.
POWERS = {"CR2": -0.5, "CR3": -1.0}
#: A variance below this part of the model's is rounding.
NO_VARIANCE = 1e-20
#: What is left of a difference below this part of its terms, and an eigenvalue below this part of
#: the largest, are rounding.
SINGULAR = 1e-12


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
    scores : AdjustedScores
    kind : str
        One of `KINDS`.

    Raises
    ------
    DataError
        One cluster alone, whose scores sum to zero whatever the data.
    """

    def __init__(self, scores: AdjustedScores, kind: str) -> None:
        if len(scores.score) < 2:
            raise DataError(
                f"vcov={kind!r} needs at least two clusters, and all rows are in one: use "
                "vcov='model', or finer clusters (cluster=)"
            )
        self._scores, self._kind = scores, kind

    @property
    def n_alone(self) -> int:
        """Clusters that carry a coefficient alone: CR2 and CR3 leave that direction out."""
        return self._scores.n_alone

    @property
    def _scale(self) -> float:
        """The factor of CR1 and its kin."""
        m, p = self._scores.score.shape
        n = self._scores.n_obs
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
        scores, root = self._scores.score, self._scores.root
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
        if q >= len(self._scores.score) or not np.isfinite(cov).all() or _is_singular(cov):
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
        """h_i = X_i'F_i x (m, p, q) and d_i = x'F_i'F_i x (m, q, q) for x = G'L'.

        The covariance matrix of the terms of clusters i and j is d_i [i = j] - h_i'h_j.
        """
        x = self._scores.root.T @ L.T
        return self._scores.with_rows @ x, x.T @ self._scores.squared @ x

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
