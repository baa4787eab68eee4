"""Conclusions that take the rows, kept by a fit that has none: coefficients one at a time."""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import DataError
from lmmfast.inference.counted import CountedDenominators
from lmmfast.inference.denominators import Denominators, FTest


def kept_denominators(vcov: str, cov: Array, by_coefficient: Array) -> Denominators:
    """Return conclusions of a method that needs rows, from what it said of each coefficient.

    Parameters
    ----------
    vcov : str
        The covariance matrix, as `LMMResult.inference` calls it. With "model" the degrees of
        freedom were counted, and those of all functions follow from those of the coefficients.
    cov : ndarray (p, p)
    by_coefficient : ndarray (p,)
        Degrees of freedom.
    """
    if vcov == "model":
        return CountedDenominators(cov, by_coefficient)
    return KeptDenominators(cov, by_coefficient, f"robust tests ({vcov})")


class KeptDenominators:
    """Covariance matrix and degrees of freedom of the coefficients, as they were with the rows.

    Parameters
    ----------
    cov : ndarray (p, p)
        Covariance matrix of beta.
    by_coefficient : ndarray (p,)
    method : str
        How they were made, for messages.
    """

    def __init__(self, cov: Array, by_coefficient: Array, method: str) -> None:
        self.cov, self.by_coefficient, self.method = cov, by_coefficient, method

    def df(self, weights: Array) -> float:
        """Degrees of freedom of one coefficient, or of a multiple of it.

        Raises
        ------
        DataError
            A function of several coefficients.
        """
        used = np.flatnonzero(weights)
        if len(used) != 1:
            raise DataError(
                f"{self.method} of several coefficients need the data, which a saved fit does not "
                "hold: test them before saving, or choose another method by fit.inference()"
            )
        return float(self.by_coefficient[used[0]])

    def test(self, L: Array, difference: Array) -> FTest:
        """Square of the t statistic of one coefficient; others are refused, see `df`."""
        df = self.df(np.abs(L).sum(axis=0))
        statistic = difference[0] ** 2 / (L @ self.cov @ L.T)[0, 0]
        return FTest(float(statistic), len(L), df)
