"""Estimates, standard errors and intervals of all variance parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmmfast.covariance import Array
from lmmfast.joint import JointCovariance
from lmmfast.residual import definitions

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult


def variance_table(fit: LMMResult, alpha: float) -> pd.DataFrame:
    """Return estimate, std_error, conf_low, conf_high by parameter; see `LMMResult`.

    Raises
    ------
    ValueError
        If alpha does not lie between 0 and 1.
    """
    import pandas as pd
    from scipy.special import ndtri

    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha!r} must lie between 0 and 1")
    z = float(-ndtri(alpha / 2))
    estimate, error = fit.theta.to_numpy(), fit.theta_se.to_numpy()
    rows = [
        (name, *_row(np.float64(value), np.float64(se), scale, z))
        for name, value, se, scale in zip(
            fit.theta_names, estimate, error, _scales(fit), strict=True
        )
    ]
    rows += _derived(fit, rows)
    names, *columns = zip(*rows, strict=True)
    return pd.DataFrame(
        dict(zip(["estimate", "std_error", "conf_low", "conf_high"], columns, strict=True)),
        index=list(names),
    )


def _scales(fit: LMMResult) -> list[str]:
    """Scale of the interval of each parameter."""
    covariance = fit._covariance
    names = fit.theta_names
    if not isinstance(covariance, JointCovariance):
        return [_scale_of(name) for name in names]
    own = [natural.scale for natural in covariance.residual.names()]
    return [_scale_of(name) for name in names[: -len(own)]] + own


def _scale_of(name: str) -> str:
    kind = name.split("(")[0]
    return {"var": "variance", "cor": "correlation"}.get(kind, "free")


def _row(
    value: np.float64, se: np.float64, scale: str, z: float
) -> tuple[float, float, float, float]:
    """Estimate, standard error and interval on the scale given."""
    with np.errstate(all="ignore"):
        if scale in ("variance", "range"):
            half = z * se / value
            return value, se, value * np.exp(-half), value * np.exp(half)
        if scale == "correlation":
            half = z * se / (1 - value**2)
            return value, se, np.tanh(np.arctanh(value) - half), np.tanh(np.arctanh(value) + half)
        if scale == "fraction":
            logit, half = np.log(value / (1 - value)), z * se / (value * (1 - value))
            low, high = (1 / (1 + np.exp(-(logit + side))) for side in (-half, half))
            return value, se, low, high
    return value, se, value - z * se, value + z * se


def _derived(
    fit: LMMResult, rows: list[tuple[str, float, float, float, float]]
) -> list[tuple[str, float, float, float, float]]:
    """Range -1 / log(rho) and half-life of each correlation that falls exponentially."""
    covariance = fit._covariance
    if not isinstance(covariance, JointCovariance):
        return []
    correlation = covariance.residual.correlation
    if correlation is None or correlation.kind not in definitions.DISTANCES:
        return []
    out = []
    for name, *numbers in rows:
        values = np.array(numbers)
        if correlation.kind != "exponential" or not name.startswith(("rho(", "range(")):
            continue
        inner = name.split("(", 1)[1]
        reach = values
        if name.startswith("rho("):
            reach = _range_of_rho(values)
            out.append((f"range({inner}", *reach.tolist()))
        half = reach * np.log(2)
        out.append((f"half-life({inner}", *half.tolist()))
    return out


def _range_of_rho(values: Array) -> Array:
    """Estimate, standard error and interval of -1 / log(rho) from those of rho."""
    rho, se, low, high = values
    with np.errstate(all="ignore"):
        reach = -1 / np.log(rho)
        return np.array([reach, se * reach**2 / rho, -1 / np.log(low), -1 / np.log(high)])
