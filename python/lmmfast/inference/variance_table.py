"""Estimates, standard errors and intervals of all variance parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmmfast.arguments import check_choice
from lmmfast.covariance.joint import JointCovariance
from lmmfast.inference.methods import INFORMATION
from lmmfast.inference.theta_covariance import covariance_of
from lmmfast.inference.wald import normal_quantile
from lmmfast.residual.complex_step import complex_step
from lmmfast.residual.structure import Values

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

Row = tuple[str, float, float, float, float]


def variance_table(fit: LMMResult, alpha: float, information: str = "expected") -> pd.DataFrame:
    """Return estimate, std_error, conf_low, conf_high by parameter; see `LMMResult`.

    Raises
    ------
    ValueError
        If alpha does not lie between 0 and 0.5, or for another word.
    """
    import pandas as pd

    check_choice("information", information, INFORMATION)
    z = normal_quantile(alpha)
    estimate = fit.theta.to_numpy()
    error = np.sqrt(np.diag(covariance_of(fit, information, fit._theta_jacobian)))
    rows = [
        (name, *scaled_row(np.float64(value), np.float64(se), scale, z))
        for name, value, se, scale in zip(
            fit.theta_names, estimate, error, parameter_scales(fit), strict=True
        )
    ]
    rows = [*_derived(fit, rows, z, information), *_sums(fit, z)]
    names, *columns = zip(*rows, strict=True)
    return pd.DataFrame(
        dict(zip(["estimate", "std_error", "conf_low", "conf_high"], columns, strict=True)),
        index=list(names),
    )


def _sums(fit: LMMResult, z: float) -> list[Row]:
    """Sums that are known where their parts are not."""
    redundancy = fit._redundancy
    if redundancy is None:
        return []
    values = redundancy.values(fit._estimates.theta)
    errors = np.sqrt(np.diag(fit._propagated_cov(redundancy.weights)))
    positive = (redundancy.weights >= 0).all(axis=1) & (values > 0)
    positive &= np.array(["cov(" not in name for name in redundancy.names], dtype=bool)
    return [
        (name, *scaled_row(value, error, "variance" if of_variances else "free", z))
        for name, value, error, of_variances in zip(
            redundancy.names, values, errors, positive, strict=True
        )
    ]


def parameter_scales(fit: LMMResult) -> list[str]:
    """Scale of the interval of each parameter of theta."""
    covariance = fit._covariance
    names = fit.theta_names
    if not isinstance(covariance, JointCovariance):
        return [_scale_of(name) for name in names]
    own = [natural.scale for natural in covariance.residual.names()]
    return [_scale_of(name) for name in names[: -len(own)]] + own


def _scale_of(name: str) -> str:
    kind = name.split("(")[0]
    return {"var": "variance", "cor": "correlation"}.get(kind, "free")


def scaled_row(
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


def _derived(fit: LMMResult, rows: list[Row], z: float, information: str) -> list[Row]:
    """Add what residual structures report beside their parameters."""
    covariance = fit._covariance
    if not isinstance(covariance, JointCovariance):
        return rows
    rows = rows + _other_variances(fit, covariance, z, information)
    return _with_ranges(fit, covariance, rows, z, information)


def _other_variances(
    fit: LMMResult, covariance: JointCovariance, z: float, information: str
) -> list[Row]:
    """Total variances where process and measurement error are parameters, else the errors'."""
    parameters = covariance.residual
    if not parameters.has_nugget:
        return []
    split = parameters.splits_nugget
    word, variances = (
        ("Total", parameters.total_variances) if split else ("Residual", parameters.error_variances)
    )
    at = np.append(covariance.kappa(fit._phi), fit._estimates.sigma2)

    def values(x: Values) -> Values:
        return np.array(list(variances(x[:-1], x[-1]).values()))

    own = complex_step(values, at).T
    J = np.hstack([np.zeros((len(own), covariance.n_random)), own])
    errors = np.sqrt(np.diag(covariance_of(fit, information, J)))
    return [
        (f"var({word}{level})", *scaled_row(np.float64(value), np.float64(error), "variance", z))
        for level, value, error in zip(variances(at[:-1], at[-1]), values(at), errors, strict=True)
    ]


def _with_ranges(
    fit: LMMResult, covariance: JointCovariance, rows: list[Row], z: float, information: str
) -> list[Row]:
    """Replace the intervals of correlations exp(-d / range), and add ranges and half-lives.

    They come from the logarithm of the range, on which the likelihood is nearest to a parabola.
    """
    parameters = covariance.residual
    correlation = parameters.correlation
    if correlation is None or correlation.kind != "exponential":
        return rows
    derived: list[Row] = []
    kappa = covariance.kappa(fit._phi)
    working = np.eye(len(fit._theta_jacobian[0]))
    errors = np.sqrt(np.diag(covariance_of(fit, information, working))[covariance.n_random :])
    with np.errstate(all="ignore"):  # an interval may end at zero or infinity
        for stratum in parameters.strata:
            k = stratum.psi.start
            columns = ",".join(correlation.columns)
            inner = columns if stratum.label is None else f"{columns}|{stratum.label}"
            reach, error = np.exp(kappa[k]) * parameters.unit, errors[k]
            ends = reach * np.exp(np.array([-z, z]) * error)
            place = next((j for j, row in enumerate(rows) if row[0] == f"rho({inner})"), None)
            if place is not None:
                rho = np.exp(-1 / reach)
                low, high = np.exp(-1 / ends)
                rows[place] = (f"rho({inner})", rho, rho / reach * error, low, high)
                derived.append((f"range({inner})", reach, reach * error, *ends))
            half = np.log(2) * np.array([reach, reach * error, *ends])
            derived.append((f"half-life({inner})", *half.tolist()))
    return [*rows, *derived]
