"""Satterthwaite's degrees of freedom, and those of Fai and Cornelius for several functions.

Giesbrecht and Burns (1985), Biometrics 41, 477-486; Fai and Cornelius (1996), Journal of
Statistical Computation and Simulation 54, 363-378; what is done where single degrees of freedom are
two or less, or all equal, is lmerTest's: Kuznetsova, Brockhoff and Christensen (2017), Journal of
Statistical Software 82(13).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from lmmfast.arrays import Array
from lmmfast.inference.denominators import FTest, inverse_of_information
from lmmfast.inference.totals import InferenceTotals

#: Degrees of freedom that differ by no more are the same, relative to the largest.
SAME_DF = 1e-8


class Satterthwaite:
    """The covariance matrix of beta, as sure as the information about theta makes it.

    Parameters
    ----------
    totals : InferenceTotals
    information : ndarray (k, k)
        Of the variance parameters, expected or observed.
    """

    def __init__(self, totals: InferenceTotals, information: Array) -> None:
        self._totals = totals
        self._W = inverse_of_information(information)

    @cached_property
    def cov(self) -> Array:
        """(X'V^-1 X)^-1, (p, p)."""
        return np.asarray(self._totals.root @ self._totals.root.T)

    def df(self, weights: Array) -> float:
        """2 f^2 / g'W g for the variance f of l'beta and its gradient g by theta."""
        x = self._totals.root.T @ weights
        g = (self._totals.q @ x) @ x
        spread = g @ self._W @ g
        with np.errstate(divide="ignore", invalid="ignore"):
            df = 2 * (x @ x) ** 2 / spread
        return float(df) if df > 0 else np.nan

    def test(self, L: Array, difference: Array) -> FTest:
        """F of Fai and Cornelius: the mean of independent squared t statistics."""
        values, vectors = np.linalg.eigh(L @ self.cov @ L.T)
        t2 = (vectors.T @ difference) ** 2 / values
        nu = np.array([self.df(row) for row in vectors.T @ L])
        return FTest(float(t2.mean()), len(L), pooled_df(nu))


def pooled_df(nu: Array) -> float:
    """Degrees of freedom of the mean of squares of independent t variables, (k,) of them."""
    if len(nu) == 1 or np.ptp(nu) <= SAME_DF * nu.max():
        return float(nu.mean())
    if not (nu > 2).all():
        return 2.0
    E = float((nu / (nu - 2)).sum())
    return 2 * E / (E - len(nu))
