"""P-values and intervals of several tests together.

The names and rules are those of the R package emmeans; "tukey" is Tukey and Kramer's, "dunnettx" an
approximation of Dunnett's, and "mvt" and "dunnett" integrate the multivariate t distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.inference.wald import f_tail, two_sided_p

#: Absolute error and seed of the integrals of the multivariate t distribution.
INTEGRAL_ERROR = 1e-5
SEED = 20_260_101
_MOST_POINTS = 200_000


@dataclass(frozen=True)
class Family:
    """Tests that are adjusted together.

    Attributes
    ----------
    t : ndarray (k,)
    df : ndarray (k,)
        Infinite for the normal distribution.
    correlation : ndarray (k, k)
        Of the estimates.
    n_means : int
        Number of means that are compared.
    rank : int
        Of the functions.
    is_pairwise : bool
        Whether they are all differences of two of the means.
    """

    t: Array
    df: Array
    correlation: Array
    n_means: int
    rank: int
    is_pairwise: bool


def adjusted_p(family: Family, method: str) -> Array:
    """Adjusted p-values, (k,)."""
    p = two_sided_p(family.t, family.df)
    k = len(p)
    if method == "none" or k == 1:
        return p
    if method == "bonferroni":
        return np.minimum(1.0, k * p)
    if method == "holm":
        return _holm(p)
    if method == "sidak":
        return np.asarray(-np.expm1(k * np.log1p(-p)))
    if method == "scheffe":
        return f_tail(family.t**2 / family.rank, family.rank, family.df)
    if method == "tukey":
        return _tukey_tail(np.sqrt(2) * np.abs(family.t), family.n_means, family.df)
    if method == "dunnettx":
        return _dunnettx_tail(np.abs(family.t), k, family.df)
    return np.array(
        [_mvt_tail(abs(t), df, family) for t, df in zip(family.t, family.df, strict=True)]
    )


def critical_values(family: Family, method: str, alpha: float) -> Array:
    """Half-widths of simultaneous intervals in standard errors, (k,); of "holm" Bonferroni's."""
    from scipy.special import fdtri
    from scipy.stats import chi2, studentized_range

    from lmmfast.inference.wald import t_quantile

    k, df = len(family.t), family.df
    if method == "none" or k == 1:
        return t_quantile(alpha, df)
    if method in ("bonferroni", "holm"):
        return t_quantile(alpha / k, df)
    if method == "sidak":
        return t_quantile(-np.expm1(np.log1p(-alpha) / k), df)
    if method == "scheffe":
        r = family.rank
        normal = np.sqrt(chi2.isf(alpha, r))
        finite = np.where(np.isinf(df), 1.0, df)
        return np.where(np.isinf(df), normal, np.sqrt(r * fdtri(r, finite, 1 - alpha)))
    if method == "tukey":
        return _each(lambda nu: studentized_range.isf(alpha, family.n_means, nu), df) / np.sqrt(2)
    if method == "dunnettx":
        return _each(lambda nu: _root(lambda t: float(_dunnettx_tail(t, k, nu)) - alpha), df)
    return _each(lambda nu: _root(lambda t: _mvt_tail(t, nu, family) - alpha, 1e-4), df)


#: Adjustments by name, and what each of them is for.
ADJUSTMENTS = (
    "none",
    "bonferroni",
    "holm",
    "sidak",
    "scheffe",
    "tukey",
    "dunnettx",
    "dunnett",
    "mvt",
)


def check_adjustment(method: str, is_pairwise: bool) -> None:
    """Refuse unknown words, and Tukey's method for other functions than pairwise differences.

    Raises
    ------
    ValueError
    """
    check_choice("adjust", method, ADJUSTMENTS)
    if method == "tukey" and not is_pairwise:
        raise ValueError(
            "adjust='tukey' is for all pairwise differences: choose 'sidak' or 'mvt' for others"
        )


def _holm(p: Array) -> Array:
    order = np.argsort(p, kind="stable")
    scaled = p[order] * np.arange(len(p), 0, -1)
    out = np.empty_like(p)
    out[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return out


def _tukey_tail(q: Array, n_means: float, df: Array) -> Array:
    from scipy.stats import studentized_range

    return np.asarray(studentized_range.sf(q, n_means, df))


def _dunnettx_tail(t: Array | float, k: int, df: Array | float) -> Array:
    """Approximate Dunnett's tail by a mixture of Tukey's and Sidak's, as emmeans does."""
    part = (k - 1) / k
    means = (1 + np.sqrt(1 + 8 * k)) / 2
    tukey = 1 - _tukey_tail(np.sqrt(2) * np.asarray(t), means, np.asarray(df))
    single = 1 - two_sided_p(np.asarray(t), np.asarray(df))
    return np.asarray(1 - (part * tukey + (1 - part) * single**k))


def _mvt_tail(t: float, df: float, family: Family) -> float:
    """P(max |t_j| > t) for t statistics with this correlation."""
    from scipy.stats import multivariate_normal, multivariate_t

    k = len(family.t)
    box = np.full(k, t)
    shape = family.correlation + 1e-10 * np.eye(k)  # differences of means depend on each other
    if np.isinf(df):
        rng = np.random.default_rng(SEED)
        inside = multivariate_normal.cdf(
            box, cov=shape, allow_singular=True, lower_limit=-box, abseps=INTEGRAL_ERROR, rng=rng
        )
    else:
        inside = multivariate_t.cdf(
            box,
            shape=shape,
            df=df,
            allow_singular=True,
            lower_limit=-box,
            maxpts=_MOST_POINTS,
            random_state=np.random.default_rng(SEED),
        )
    return float(np.clip(1 - inside, 0.0, 1.0))


def _root(excess: Callable[[float], float], tolerance: float = 1e-8) -> float:
    from scipy.optimize import brentq

    return float(brentq(excess, 0.1, 50.0, xtol=tolerance))


def _each(function: Callable[[float], float], df: Array) -> Array:
    """A function of each of the degrees of freedom, once for equal ones."""
    rounded = np.round(df, 8)
    known = {nu: float(function(nu)) for nu in dict.fromkeys(rounded.tolist())}
    return np.array([known[nu] for nu in rounded.tolist()])
