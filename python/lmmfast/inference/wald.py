"""Wald tests and intervals of the fixed effects, from the t or the normal distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array

if TYPE_CHECKING:
    import pandas as pd


def normal_quantile(alpha: float) -> float:
    """Return the quantile of the normal distribution for two-sided intervals of level 1 - alpha.

    Raises
    ------
    ValueError
        If alpha is not above 0 and at most 0.5: ``alpha=0.95`` would give intervals of 5 %.
    """
    from scipy.special import ndtri  # scipy.stats takes half a second to import

    try:
        valid = 0 < alpha <= 0.5
    except TypeError:
        valid = False
    if not valid:
        meant = ""
        if isinstance(alpha, float | int) and 0.5 < alpha < 1:
            meant = f": for intervals of {100 * alpha:.6g} % write alpha={1 - alpha:.6g}"
        raise ValueError(f"alpha={alpha!r} must lie between 0 and 0.5{meant}")
    return float(-ndtri(alpha / 2))


def t_quantile(alpha: float, df: Array) -> Array:
    """Quantiles of t distributions for two-sided intervals of level 1 - alpha; df may be infinite.

    Raises
    ------
    ValueError
        If alpha is not above 0 and at most 0.5.
    """
    from scipy.special import stdtrit

    normal = normal_quantile(alpha)
    finite = np.where(np.isinf(df), 1.0, df)
    return np.where(np.isinf(df), normal, -stdtrit(finite, alpha / 2))


def two_sided_p(statistic: NDArray[np.floating[Any]], df: Array) -> Array:
    """Two-sided p-values from t distributions; df may be infinite."""
    from scipy.special import ndtr, stdtr

    below = -np.abs(statistic)
    finite = np.where(np.isinf(df), 1.0, df)
    return 2 * np.where(np.isinf(df), ndtr(below), stdtr(finite, below))


def f_tail(statistic: Any, df_num: Any, df_denom: Any) -> Any:
    """Return the upper tail of F distributions; ``df_denom`` may be infinite (chi-square)."""
    from scipy.special import chdtrc, fdtrc

    finite = np.where(np.isinf(df_denom), 1.0, df_denom)
    chisq = chdtrc(df_num, df_num * np.asarray(statistic))
    return np.where(np.isinf(df_denom), chisq, fdtrc(df_num, finite, statistic))


def coefficient_table(
    params: pd.Series[float], bse: pd.Series[float], alpha: float, df: Array | None = None
) -> pd.DataFrame:
    """Return estimate, std_error, statistic, df, p_value, conf_low, conf_high by coefficient.

    Parameters
    ----------
    params, bse : Series (p,)
    alpha : float
        One minus the level of the intervals.
    df : ndarray (p,), optional
        Degrees of freedom; default: infinite, the normal distribution.

    Raises
    ------
    ValueError
        If alpha does not lie between 0 and 0.5.
    """
    import pandas as pd

    normal = np.full(len(params), np.inf) if df is None else df
    statistic = params / bse
    p_values = two_sided_p(statistic.to_numpy(dtype=np.float64), normal)
    half = t_quantile(alpha, normal) * bse
    columns = {
        "estimate": params,
        "std_error": bse,
        "statistic": statistic,
        "df": pd.Series(normal, index=params.index),
        "p_value": pd.Series(p_values, index=params.index),
        "conf_low": params - half,
        "conf_high": params + half,
    }
    return pd.DataFrame(columns)
