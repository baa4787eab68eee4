"""Wald tests and intervals of the fixed effects from the normal distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

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


def coefficient_table(
    params: pd.Series[float], bse: pd.Series[float], alpha: float
) -> pd.DataFrame:
    """Return estimate, std_error, statistic, p_value, conf_low, conf_high by coefficient.

    Raises
    ------
    ValueError
        If alpha does not lie between 0 and 0.5.
    """
    import pandas as pd
    from scipy.special import ndtr

    z = params / bse
    half = normal_quantile(alpha) * bse
    return pd.DataFrame(
        {
            "estimate": params,
            "std_error": bse,
            "statistic": z,
            "p_value": 2 * ndtr(-np.abs(z)),
            "conf_low": params - half,
            "conf_high": params + half,
        }
    )
