"""Quantiles of replicates, and how well so many of them know these."""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array


def column_quantiles(replicates: Array, level: float) -> tuple[Array, Array]:
    """Quantiles (k,) of the columns of replicates (B, k), and their Monte Carlo standard errors.

    The number of replicates below the quantile is binomial: half the distance between the order
    statistics one standard deviation of it to either side is the error.
    """
    found = [_quantile(column[np.isfinite(column)], level) for column in replicates.T]
    values, errors = np.reshape(found, (len(found), 2)).T
    return values, errors


def _quantile(x: Array, level: float) -> tuple[float, float]:
    if not len(x):
        return np.nan, np.nan
    away = np.sqrt(level * (1 - level) / len(x))
    low, value, high = np.quantile(x, np.clip([level - away, level, level + away], 0, 1))
    return float(value), float(high - low) / 2
