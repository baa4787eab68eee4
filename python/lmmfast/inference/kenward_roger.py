"""Kenward and Roger's adjusted covariance matrix, and their F tests.

Kenward and Roger (1997), Biometrics 53, 983-997. "Linear" leaves the second derivatives of V out,
as DDFM=KENWARDROGER(FIRSTORDER) of SAS PROC MIXED and as pbkrtest, whose models have none: Halekoh
and Hojsgaard (2014), Journal of Statistical Software 59(9).
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from lmmfast.arrays import Array
from lmmfast.inference.denominators import FTest, inverse_of_information, wald_f
from lmmfast.inference.totals import InferenceTotals

#: Factors of the variance of F that are less are rounding (pbkrtest).
ROUNDING = 1e-10
#: Denominators this near to two leave F as it is (pbkrtest).
NEAR_TWO = 1e-2


class KenwardRoger:
    """A covariance matrix of beta that knows that theta is estimated, and its degrees of freedom.

    Parameters
    ----------
    totals : InferenceTotals
        With ``r``.
    information : ndarray (k, k)
        Of the variance parameters, expected or observed.
    curvature : ndarray (p, p)
        Sum of W_kl h_kl, of second derivatives of V by the parameters in which the bias is
        expanded; zeros for parameters in which V is linear.
    """

    def __init__(self, totals: InferenceTotals, information: Array, curvature: Array) -> None:
        self._totals = totals
        self._W = inverse_of_information(information)
        self._curvature = curvature

    @cached_property
    def cov(self) -> Array:
        """The adjusted covariance matrix, (p, p)."""
        G, q, r, W = self._totals.root, self._totals.q, self._totals.r, self._W
        assert r is not None
        bias = np.einsum("kl,klpq->pq", W, r) - np.einsum("kl,kpa,laq->pq", W, q, q, optimize=True)
        bias = 0.5 * (bias + bias.T) - 0.25 * self._curvature
        return np.asarray(G @ (np.eye(len(bias)) + 2 * bias) @ G.T)

    def df(self, weights: Array) -> float:
        """Denominator of the test of one function: Satterthwaite's, of the same information."""
        return self._scaled(weights[None])[1]

    def test(self, L: Array, difference: Array) -> FTest:
        """Kenward and Roger's scaled F."""
        scale, df = self._scaled(L)
        return FTest(scale * wald_f(L @ self.cov @ L.T, difference), len(L), df)

    def _scaled(self, L: Array) -> tuple[float, float]:
        """The factor lambda of F, and its denominator m."""
        x = L @ self._totals.root
        k = len(x)
        theta = x.T @ np.linalg.solve(x @ x.T, x)
        q_theta = self._totals.q @ theta
        traces = np.trace(q_theta, axis1=1, axis2=2)
        A1 = float(traces @ self._W @ traces)
        A2 = float(np.einsum("kl,kab,lba->", self._W, q_theta, q_theta, optimize=True))
        B = (A1 + 6 * A2) / (2 * k)
        g = ((k + 1) * A1 - (k + 4) * A2) / ((k + 2) * A2)
        below = 3 * k + 2 * (1 - g)
        c1, c2, c3 = g / below, (k - g) / below, (k + 2 - g) / below
        E = 1 / (1 - A2 / k)
        factors = np.array([1 + c1 * B, 1 - c2 * B, 1 - c3 * B])
        factors[np.abs(factors) < ROUNDING] = 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            V = (2 / k) * factors[0] / (factors[1] ** 2 * factors[2])
            rho = V / (2 * E**2)
            m = 4 + (k + 2) / (k * rho - 1)
            scale = 1.0 if abs(m - 2) < NEAR_TWO else m / (E * (m - 2))
        return float(scale), float(m)
