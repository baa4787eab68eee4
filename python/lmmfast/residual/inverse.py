"""From natural parameters of the residuals, as a fit reports them, back to working ones.

The inverse of `lmmfast.residual.layout.ResidualParameters.natural`, for starts that users give.
"""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import DataError
from lmmfast.residual import registry
from lmmfast.residual.kind import AT_THE_END
from lmmfast.residual.layout import ResidualParameters, Stratum


class _Values:
    """Reported values in their order, with their names for messages."""

    def __init__(self, parameters: ResidualParameters, values: Array, what: str) -> None:
        self.what = what
        self.names = [natural.name for natural in parameters.names()]
        self.scales = [natural.scale for natural in parameters.names()]
        self.values, self.at = values, 0

    def take(self, n: int) -> Array:
        """Take the next n values, checked against the range of their kind."""
        part = slice(self.at, self.at + n)
        self.at += n
        for name, scale, value in zip(
            self.names[part], self.scales[part], self.values[part], strict=True
        ):
            low, high = _RANGES[scale]
            if not low <= value <= high:
                limits = f"from {low:g} to {high:g}" if high < np.inf else f"{low:g} or more"
                raise DataError(f"{self.what} has {name} = {value:g}: it must be {limits}")
        return self.values[part]


_RANGES = {
    "variance": (0.0, np.inf),
    "correlation": (-1.0, 1.0),
    "fraction": (0.0, 1.0),
    "range": (0.0, np.inf),
    "free": (-np.inf, np.inf),
}


def working(
    parameters: ResidualParameters,
    values: Array,
    margin: float = AT_THE_END,
    what: str = "start",
) -> tuple[Array, float]:
    """Working parameters and sigma2 of natural parameters.

    Parameters
    ----------
    values : ndarray (n_params + 1,)
        In the order of ``parameters.names()``.
    margin : {AT_THE_END, OFF_THE_END}
        How near to the ends of their ranges correlations may be.
    what : str
        What the values are called in messages.

    Returns
    -------
    kappa : ndarray (n_params,)
    sigma2 : float

    Raises
    ------
    DataError
        A value out of its range, variances that are zero, covariances that are no covariance
        matrix. It names the parameter.
    """
    kappa, own = np.zeros(parameters.n_params), _Values(parameters, values, what)
    heads = [(stratum, *_stratum(parameters, stratum, own)) for stratum in parameters.strata]
    _variance_models(parameters, own, kappa)
    n = len(values) - own.at
    totals = own.take(n) + _process_variances(parameters, heads, n)
    if not (totals > 0).all():
        name = own.names[-n]
        raise DataError(f"{own.what} has {name} = {totals[0]:g}: variances must be positive")
    if parameters.level_part is not None:
        kappa[parameters.level_part.params] = 0.5 * np.log(totals[1:] / totals[0])
    for stratum, nugget, reported in heads:
        if parameters.splits_nugget:
            nugget = 1 - nugget / parameters.stratum_variance(stratum, totals)
        if stratum.nu is not None:
            kappa[stratum.nu] = np.clip(nugget, 0.0, 1.0)
        kappa[stratum.psi] = _psi(parameters, stratum, reported, totals, margin)
    return kappa, float(totals[0] * np.exp(2 * parameters.shift(kappa)))


def _stratum(parameters: ResidualParameters, stratum: Stratum, own: _Values) -> tuple[float, Array]:
    """Nugget, or variance of the process beside one, and correlation parameters as reported."""
    if parameters.correlation is None:
        return 0.0, np.empty(0)
    nugget = 0.0 if stratum.nu is None else float(own.take(1)[0])
    return nugget, own.take(stratum.psi.stop - stratum.psi.start)


def _variance_models(parameters: ResidualParameters, own: _Values, kappa: Array) -> None:
    """Fill in what is not reported as a variance."""
    for part in parameters.variances:
        n = part.params.stop - part.params.start
        if part.kind != "levels":
            kappa[part.params] = own.take(n) * part.scale
        elif part is not parameters.level_part:
            ratios = own.take(n)
            if not (ratios > 0).all():
                raise DataError(f"{own.what} has {own.names[own.at - n]} = 0: it must be positive")
            kappa[part.params] = np.log(ratios)


def _process_variances(
    parameters: ResidualParameters, heads: list[tuple[Stratum, float, Array]], n: int
) -> Array:
    """What variances lack that are reported without those of the process."""
    if not parameters.splits_nugget:
        return np.zeros(n)
    part = parameters.level_part
    by_label = {stratum.label: nugget for stratum, nugget, _ in heads}
    return np.array([by_label[label] for label in (part.labels if part else (None,))])


def _psi(
    parameters: ResidualParameters,
    stratum: Stratum,
    reported: Array,
    totals: Array,
    margin: float,
) -> Array:
    """Working correlation parameters of a stratum."""
    correlation = parameters.correlation
    if correlation is None or correlation.kind == "custom":
        return reported
    kind = registry.KINDS[correlation.kind]
    if kind.reports_covariances:
        sds = np.sqrt(parameters.visit_variances(stratum, totals))
        j, k = np.triu_indices(parameters.T, 1)
        reported = reported / (sds[j] * sds[k])
    return kind.psi(reported, parameters.setting(stratum), margin)
