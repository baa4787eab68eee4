"""Where the parameters of the residuals sit at an end of their range, in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.residual import registry
from lmmfast.residual.kind import AT_END
from lmmfast.residual.layout import ResidualParameters, Stratum


def edges(parameters: ResidualParameters, kappa: Array) -> list[str]:
    """Sentences on parameters at an end of their range; none in the interior."""
    return [text for stratum in parameters.strata for text in _of(parameters, stratum, kappa)]


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
