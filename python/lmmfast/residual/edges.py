"""Where the parameters of the residuals sit at an end of their range, in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.residual import registry
from lmmfast.residual.kind import AT_END
from lmmfast.residual.layout import ResidualParameters, Stratum, VariancePart

#: A standard deviation of a level below this part of the largest is zero.
ZERO_SD = 1e-7


def edges(parameters: ResidualParameters, kappa: Array) -> list[str]:
    """Sentences on parameters at an end of their range; none in the interior."""
    out = [
        f"the residual variance of {part.labels[k]} is zero"
        for part in parameters.variances
        for k in np.flatnonzero(_vanishes(part, kappa))
    ]
    return out + [text for s in parameters.strata for text in _of(parameters, s, kappa)]


def _vanishes(part: VariancePart, kappa: Array) -> NDArray[np.bool_]:
    """Which levels of a variance model, the baseline first, have a variance of zero."""
    if part.kind != "levels":
        return np.zeros(1, dtype=bool)
    log_sds = np.append(0.0, kappa[part.params])
    return np.asarray(log_sds < log_sds.max() + np.log(ZERO_SD))


def _of(parameters: ResidualParameters, stratum: Stratum, kappa: Array) -> list[str]:
    correlation = parameters.correlation
    if correlation is None:
        return []
    setting, out = parameters.setting(stratum), []
    if stratum.nu is not None:
        if kappa[stratum.nu] < AT_END:
            out.append(f"the measurement error beside {setting.where} is zero")
        elif kappa[stratum.nu] > 1 - AT_END:
            out.append(f"the variance of the process over {setting.where} is zero")
            return out  # its correlation then means nothing
    end = None
    if correlation.custom is None:
        end = registry.KINDS[correlation.kind].at_end(kappa[stratum.psi], setting)
    return out if end is None else [*out, end]


def free(parameters: ResidualParameters, kappa: Array) -> NDArray[np.bool_]:
    """Which working parameters have a standard error: not those at an end of their range."""
    out = np.ones(parameters.n_params, dtype=bool)
    for part in parameters.variances:
        gone = _vanishes(part, kappa)
        if gone.any():
            # Those of the others are relative to the baseline: where it vanishes all are unknown.
            out[part.params] = ~gone[1:] & ~gone[0]
    for stratum in parameters.strata:
        if not _of(parameters, stratum, kappa):
            continue
        if stratum.nu is not None:
            nu = kappa[stratum.nu]
            out[stratum.nu] = AT_END <= nu <= 1 - AT_END
            if nu < AT_END:
                continue  # the correlation is as free as without a nugget
        out[stratum.psi] = False
    return out
