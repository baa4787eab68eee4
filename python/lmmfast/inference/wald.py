"""Wald tests and intervals of the fixed effects from the normal distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


def coefficient_table(
    params: pd.Series[float], bse: pd.Series[float], alpha: float
) -> pd.DataFrame:
    """Return estimate, std_error, statistic, p_value, conf_low, conf_high by coefficient.

    Raises
    ------
    ValueError
        If alpha does not lie between 0 and 1.
    """
    import pandas as pd
    from scipy.special import ndtr, ndtri  # scipy.stats takes half a second to import

    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha!r} must lie between 0 and 1")
    z = params / bse
    half = -ndtri(alpha / 2) * bse
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
