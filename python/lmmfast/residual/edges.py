"""Where the parameters of the residuals sit at an end of their range, in words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.residual import definitions
from lmmfast.residual.layout import ResidualParameters, Stratum, VariancePart

#: A fraction or a correlation this near to its end is there.
AT_END = 1e-7
#: A range beyond this many median distances is not seen in the data.
LONG_RANGE = 1e7
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
    columns = ",".join(correlation.columns) or "the residuals"
    where = "" if stratum.label is None else f" ({stratum.label})"
    out = []
    if stratum.nu is not None:
        if kappa[stratum.nu] < AT_END:
            out.append(f"the measurement error beside {columns}{where} is zero")
        elif kappa[stratum.nu] > 1 - AT_END:
            out.append(f"the variance of the process over {columns}{where} is zero")
            return out  # its correlation then means nothing
    psi = kappa[stratum.psi]
    if correlation.kind in definitions.DISTANCES and correlation.kind != "ar1":
        if np.exp(psi[0]) > LONG_RANGE:
            out.append(f"the range of the correlation over {columns}{where} has no upper limit")
        elif np.exp(psi[0]) < parameters.closest / np.log(1 / AT_END):
            out.append(f"the correlation over {columns}{where} is zero")
    elif correlation.kind in ("ar1", "toeplitz", "antedependence"):
        if (np.abs(np.tanh(psi)) > 1 - AT_END).any():
            out.append(f"a correlation over {columns}{where} is 1 or -1")
    elif correlation.kind == "compound_symmetry":
        if abs(psi[0]) > np.log(1 / AT_END):
            end = "1" if psi[0] > 0 else f"-1/{parameters.T - 1}"
            out.append(f"the common correlation of {columns}{where} is {end}")
    elif correlation.kind in ("banded_toeplitz", "unstructured"):
        C = definitions.TABLES[correlation.kind](psi, parameters.T)
        if np.linalg.eigvalsh(C)[0] < AT_END:
            out.append(f"the correlation matrix of {columns}{where} is singular")
    return out


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
