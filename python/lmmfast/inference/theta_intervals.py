"""Intervals of the variance parameters, of standard deviations and correlations of random effects.

Wald's, on scales on which the parameters are free: logarithms of variances and standard deviations,
Fisher's z of correlations (Pinheiro and Bates (2000), Mixed-Effects Models in S and S-PLUS, 2.4.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.inference.methods import INFORMATION
from lmmfast.inference.theta_covariance import covariance_of
from lmmfast.inference.variance_table import parameter_scales, scaled_row
from lmmfast.inference.wald import normal_quantile

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

METHODS = ("wald", "bootstrap")


def theta_intervals(
    fit: LMMResult, alpha: float, method: str, information: str, B: int, seed: Any
) -> pd.DataFrame:
    """Return estimate, std_error, conf_low, conf_high; see `LMMResult.conf_int_theta`."""
    import pandas as pd

    check_choice("method", method, METHODS)
    check_choice("information", information, INFORMATION)
    z = normal_quantile(alpha)
    if method == "bootstrap":
        return _by_bootstrap(fit, alpha, B, seed)
    names, values, scales, J = _effect_rows(fit)
    theta = fit.theta_names
    names += theta
    values = np.append(values, fit.theta.to_numpy())
    scales += parameter_scales(fit)
    J = np.vstack([J, fit._theta_jacobian])
    errors = np.sqrt(np.diag(covariance_of(fit, information, J)))
    rows = [
        scaled_row(np.float64(value), np.float64(error), scale, z)
        for value, error, scale in zip(values, errors, scales, strict=True)
    ]
    columns = ["estimate", "std_error", "conf_low", "conf_high"]
    return pd.DataFrame(rows, index=names, columns=columns)


def _by_bootstrap(fit: LMMResult, alpha: float, B: int, seed: Any) -> pd.DataFrame:
    """Percentile intervals and standard deviations of replicates."""
    found = fit.bootstrap(B, seed=seed)
    table = found.conf_int(alpha)[["estimate", "conf_low", "conf_high"]]
    table.insert(1, "std_error", found.se)
    return table.iloc[len(fit.x_names) :]


def _effect_rows(fit: LMMResult) -> tuple[list[str], Array, list[str], Array]:
    """Names, values, scales and derivatives of standard deviations, then correlations, by term."""
    covariance, D = fit._covariance, fit._estimates.D
    n = len(fit._theta_jacobian[0])
    row, column = covariance.pairs
    by_natural = np.zeros((covariance.q, covariance.q, n))
    by_natural[row, column, : covariance.n_random] = covariance.natural_jacobian(D).T
    by_natural[column, row] = by_natural[row, column]
    names: list[str] = []
    values: list[float] = []
    scales: list[str] = []
    J: list[Array] = []
    with np.errstate(all="ignore"):
        sd = np.sqrt(np.diag(D))
        for term, own in zip(fit.terms, covariance.columns, strict=True):
            places = range(own.start, own.stop)
            for a in places:
                names.append(f"sd({term.names[a - own.start]}|{term.group})")
                values.append(sd[a])
                scales.append("variance")
                J.append(by_natural[a, a] / (2 * sd[a]))
            for a in places:
                for b in range(a + 1, own.stop):
                    rho = D[a, b] / (sd[a] * sd[b])
                    if not by_natural[a, b].any():
                        continue  # independent by structure
                    first, second = term.names[a - own.start], term.names[b - own.start]
                    names.append(f"cor({first},{second}|{term.group})")
                    values.append(rho)
                    scales.append("correlation")
                    half = by_natural[a, a] / D[a, a] + by_natural[b, b] / D[b, b]
                    J.append(by_natural[a, b] / (sd[a] * sd[b]) - 0.5 * rho * half)
    return names, np.array(values), scales, np.reshape(J, (len(names), n))
