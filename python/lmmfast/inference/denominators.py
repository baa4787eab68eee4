"""Tests of linear functions of beta: what a method of inference gives, and the simplest of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lmmfast.arrays import Array
from lmmfast.inference.wald import f_tail


@dataclass(frozen=True)
class FTest:
    """A test of L beta = value.

    Attributes
    ----------
    statistic : float
        F.
    df_num, df_denom : float
        Degrees of freedom; infinite for a chi-square distribution.
    """

    statistic: float
    df_num: int
    df_denom: float

    @property
    def p_value(self) -> float:
        """Probability of a larger F under the hypothesis."""
        return float(f_tail(self.statistic, self.df_num, self.df_denom))


class Denominators(Protocol):
    """A method of inference on beta: a covariance matrix, and degrees of freedom."""

    @property
    def cov(self) -> Array:
        """Covariance matrix of beta, (p, p)."""

    def df(self, weights: Array) -> float:
        """Degrees of freedom of the t statistic of weights'beta, (p,) of them."""

    def test(self, L: Array, difference: Array) -> FTest:
        """Test L beta = value for L (k, p) of full rank, given L beta - value (k,)."""


@dataclass(frozen=True)
class FixedDenominators:
    """The same degrees of freedom for all functions: n - p, or none (the normal distribution).

    Parameters
    ----------
    cov : ndarray (p, p)
    value : float
    """

    cov: Array
    value: float

    def df(self, weights: Array) -> float:
        """Degrees of freedom of the t statistic of weights'beta."""
        return self.value

    def test(self, L: Array, difference: Array) -> FTest:
        """Wald's F."""
        return FTest(wald_f(L @ self.cov @ L.T, difference), len(L), self.value)


def wald_f(cov: Array, difference: Array) -> float:
    """d'C^-1 d / k for a difference d (k,) with covariance matrix C."""
    return float(difference @ np.linalg.solve(cov, difference) / len(difference))


def inverse_of_information(information: Array) -> Array:
    """Return the inverse of an information matrix, zero along directions that it says nothing of.

    Scaled to a unit diagonal first, as parameters have units of their own.
    """
    scale = np.sqrt(np.abs(np.diag(information)))
    scale = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
    known = np.abs(values) > 1e-12 * np.abs(values).max(initial=0.0)
    inverse = (vectors[:, known] / values[known]) @ vectors[:, known].T
    return np.asarray(inverse / np.outer(scale, scale))
