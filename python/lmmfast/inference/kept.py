"""Conclusions that take the rows, kept by a fit that has none: coefficients one at a time."""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import DataError
from lmmfast.inference.denominators import FTest


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
