"""Degrees of freedom by counting: between and within subjects, and by the level of a column.

"between-within" is SAS PROC MIXED's DDFM=BETWITHIN; "inner-outer" is nlme's: Pinheiro and Bates
(2000), Mixed-Effects Models in S and S-PLUS, section 2.4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.errors import UnsupportedModelError
from lmmfast.inference.denominators import FTest, wald_f
from lmmfast.inference.fixed_rows import chunks_of_X

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

Codes = NDArray[np.int64]


class CountedDenominators:
    """Degrees of freedom of each coefficient; functions of several have the least of theirs.

    Parameters
    ----------
    cov : ndarray (p, p)
        Covariance matrix of beta.
    by_coefficient : ndarray (p,)
    """

    def __init__(self, cov: Array, by_coefficient: Array) -> None:
        self.cov, self.by_coefficient = cov, by_coefficient

    def df(self, weights: Array) -> float:
        """Degrees of freedom of the t statistic of weights'beta."""
        used = weights != 0
        return float(self.by_coefficient[used].min()) if used.any() else np.nan

    def test(self, L: Array, difference: Array) -> FTest:
        """Wald's F with the least degrees of freedom of the coefficients that L holds."""
        return FTest(wald_f(L @ self.cov @ L.T, difference), len(L), self.df(abs(L).sum(axis=0)))


def between_within(fit: LMMResult) -> Array:
    """Degrees of freedom (p,) between subjects, m - p_b, and within, n - m - p_w.

    Columns of X that are constant within subjects are between them. With an unstructured
    covariance matrix of the residuals all columns have the first, as in SAS. Subjects are the
    clusters, of nested factors the levels of the outermost.

    Raises
    ------
    UnsupportedModelError
        Crossed grouping factors, which have no subjects.
    DataError
        A fit that holds no data.
    """
    codes = nested_codes(fit)[0]
    between = constant_within(fit, [codes])[:, 0]
    m = int(codes.max()) + 1
    p_between = int(between.sum())
    outer = float(m - p_between)
    correlation = fit.residual.correlation
    if correlation is not None and correlation.kind == "unstructured":
        return np.full(len(between), outer)
    return np.where(between, outer, float(fit.nobs - m - (len(between) - p_between)))


def inner_outer(fit: LMMResult) -> Array:
    """Degrees of freedom (p,) of the level at which a column varies, as nlme counts them.

    A column that is constant within the levels of a factor, and not within those of the factor
    around it, belongs to that factor: m_k - m_(k-1) - p_k degrees of freedom, with m_0 = 1 where
    there is an intercept, which itself has those of the rows.

    Raises
    ------
    UnsupportedModelError
        Crossed grouping factors.
    DataError
        A fit that holds no data.
    """
    codes = nested_codes(fit)
    constant = constant_within(fit, codes)
    whole = constant_within(fit, [np.zeros(fit.nobs, dtype=np.int64)])[:, 0]
    counts = [int(code.max()) + 1 for code in codes]
    sizes = np.array([1.0 if whole.any() else 0.0, *counts, fit.nobs])
    level = np.where(constant.any(axis=1), constant.argmax(axis=1), len(codes))
    level[whole] = len(codes)
    columns = np.bincount(level[~whole], minlength=len(codes) + 1)
    by_level: Array = np.diff(sizes) - columns
    return by_level[level]


def nested_codes(fit: LMMResult) -> list[Codes]:
    """Level of each row in each grouping factor, from the outermost to the innermost."""
    clusters: Any = fit._need(fit._clusters, "degrees of freedom by counting")
    if not hasattr(clusters, "chain"):
        everything = slice(0, fit.nobs)
        return [np.asarray(clusters.spread(np.arange(clusters.m), everything), dtype=np.int64)]
    if clusters.chain is None:
        raise UnsupportedModelError(
            f"degrees of freedom by counting need nested factors, and "
            f"{', '.join(map(repr, clusters.names))} are crossed: use ddf='satterthwaite'"
        )
    return [clusters.codes[factor] for factor in clusters.chain]


def constant_within(fit: LMMResult, codes: list[Codes]) -> NDArray[np.bool_]:
    """Whether each column of X is constant within the levels of each factor, (p, n_factors)."""
    first = [np.zeros(int(code.max()) + 1, dtype=np.int64) for code in codes]
    for own, code in zip(first, codes, strict=True):
        own[code[::-1]] = np.arange(len(code))[::-1]
    out = np.ones((len(fit.x_names), len(codes)), dtype=bool)
    columns = np.empty((len(fit.x_names), fit.nobs))
    for rows, X in chunks_of_X(fit, fit._keep, "degrees of freedom by counting"):
        columns[:, rows] = X.T
    for j, x in enumerate(columns):
        for k, (own, code) in enumerate(zip(first, codes, strict=True)):
            out[j, k] = np.array_equal(x, x[own[code]])
    return out
