"""How much of the variance fixed and random effects explain: R2 and intraclass correlations.

Nakagawa and Schielzeth (2013), Methods in Ecology and Evolution 4, 133-142; Johnson (2014), Methods
in Ecology and Evolution 5, 944-946 (random slopes: means over the rows of z'D z).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmmfast.arrays import Array
from lmmfast.covariance.joint import JointCovariance
from lmmfast.data.batch import CHUNK
from lmmfast.errors import ConvergenceError
from lmmfast.inference.denominators import inverse_of_information
from lmmfast.inference.fixed_rows import chunks_of_X
from lmmfast.inference.partition import RESIDUAL
from lmmfast.inference.variance_table import scaled_row
from lmmfast.inference.wald import normal_quantile
from lmmfast.prediction.rows_used import residual_sds

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult


def r2(fit: LMMResult) -> pd.Series[float]:
    """Marginal and conditional R2; see `LMMResult.r2`."""
    import pandas as pd

    fixed = fixed_variance(fit)
    variances = fit._mean_variances
    total = fixed + sum(variances.values())
    shares = [fixed / total, 1 - variances[RESIDUAL] / total]
    return pd.Series(shares, index=["marginal", "conditional"])


def fixed_variance(fit: LMMResult) -> float:
    """Variance of X beta over the rows used, with divisor n - 1."""
    fit._check_data(response=False)
    n, mean, squares = 0, 0.0, 0.0
    for _, X in chunks_of_X(fit, fit._keep, "R2"):
        own = X @ fit._estimates.beta
        centre, k = float(own.mean()), len(own)
        squares += float(((own - centre) ** 2).sum()) + (centre - mean) ** 2 * n * k / (n + k)
        mean += (centre - mean) * k / (n + k)
        n += k
    return squares / (n - 1)


def icc(fit: LMMResult, alpha: float) -> pd.DataFrame:
    """Intraclass correlations with intervals; see `LMMResult.icc`."""
    import pandas as pd

    z = normal_quantile(alpha)
    variances = fit._mean_variances
    factors = [name for name in variances if name != RESIDUAL]
    total = sum(variances.values())
    by_factor = derivatives(fit, factors)
    by_total = sum(by_factor.values(), np.zeros(by_factor[RESIDUAL].shape))
    rows, J = [], []
    for name in factors:
        inside = [name, *(outer for outer in fit.nested_in[name] if outer in variances)]
        value = sum(variances[other] for other in inside) / total
        J.append((sum(by_factor[other] for other in inside) - value * by_total) / total)
        rows.append(value)
    cov = _covariance(fit, np.reshape(J, (len(factors), len(by_total))))
    errors = np.sqrt(np.diag(cov))
    table = [
        scaled_row(np.float64(value), np.float64(error), "fraction", z)
        for value, error in zip(rows, errors, strict=True)
    ]
    columns = ["estimate", "std_error", "conf_low", "conf_high"]
    return pd.DataFrame(table, index=pd.Index(factors, name="factor"), columns=columns)


def derivatives(fit: LMMResult, factors: list[str]) -> dict[str, Array]:
    """Derivatives of the mean variances by (natural parameters of D, kappa, sigma2)."""
    covariance, design = fit._covariance, fit._need(fit._design, "intraclass correlations")
    n_parameters = fit._theta_jacobian.shape[1]
    owner = np.array([term.group for term in fit.terms for _ in term.names], dtype=object)
    row, column = covariance.pairs
    products = np.zeros(len(row))
    for start in range(0, design.n_obs, CHUNK):
        Z = design.batch(slice(start, min(start + CHUNK, design.n_obs))).as_float().Z
        if Z:
            products += [Z[a] @ Z[b] for a, b in zip(row, column, strict=True)]
    products *= np.where(row == column, 1.0, 2.0) / design.n_obs
    natural = covariance.natural_jacobian(fit._estimates.D)
    found = {}
    for name in factors:
        own = (owner[row] == name) & (owner[column] == name)
        found[name] = np.zeros(n_parameters)
        found[name][: covariance.n_random] = natural[:, own] @ products[own]
    found[RESIDUAL] = _residual_derivatives(fit, n_parameters)
    return found


def _residual_derivatives(fit: LMMResult, n_parameters: int) -> Array:
    """Derivatives of the mean of the residual variances: s^2 = sigma2 exp(2 G kappa) / w."""
    out = np.zeros(n_parameters)
    sigma2 = fit._estimates.sigma2
    out[-1] = fit._mean_variances[RESIDUAL] / sigma2
    model, covariance = fit._residual_model, fit._covariance
    if model is not None and model.G is not None and isinstance(covariance, JointCovariance):
        sds = residual_sds(fit)
        assert sds is not None
        first = covariance.n_random
        s2 = sds[model.rows] ** 2
        out[first : first + model.G.shape[1]] = 2 * model.G.T @ s2 / len(s2)
    return out


def _covariance(fit: LMMResult, J: Array) -> Array:
    """Covariance matrix of what has the derivatives J, from the observed information if it is."""
    try:
        observed = fit._inference_totals.observed
    except ConvergenceError:
        observed = None
    if observed is None:
        return fit._cov_of(J)
    return np.asarray(J @ inverse_of_information(observed) @ J.T)
