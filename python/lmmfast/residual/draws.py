"""Points drawn at random over the range of the parameters of the residuals, to search from."""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual import definitions
from lmmfast.residual.layout import ResidualParameters

#: Spreads of log standard deviations around their start, and of correlation parameters around none:
#: some draws stay near, some go far.
NEAR_AND_FAR_SDS = (0.3, 1.0, 2.0)
NEAR_AND_FAR = (0.5, 1.0, 2.0)

#: Range, in median distances, of residuals that hardly change from row to row, and their nugget.
LONG, LITTLE = 1e3, 1e-3


def nearly_constant(parameters: ResidualParameters, start: Array) -> Array | None:
    """Search parameters of a process that hardly changes within a cluster; None without one.

    Parameters
    ----------
    start : ndarray (n_params,)
        Search parameters that moments suggest, from which variances are taken.
    """
    correlation = parameters.correlation
    if correlation is None or correlation.kind not in definitions.DISTANCES:
        return None
    kappa = parameters.kappa(start)
    for stratum in parameters.strata:
        is_ar1 = correlation.kind == "ar1"
        kappa[stratum.psi] = np.arctanh(np.exp(-1 / LONG)) if is_ar1 else np.log(LONG)
        if stratum.nu is not None:
            kappa[stratum.nu] = LITTLE
    return parameters.phi(kappa)


def drawn(parameters: ResidualParameters, start: Array, rng: np.random.Generator) -> Array:
    """Draw search parameters (n_params,).

    Parameters
    ----------
    start : ndarray (n_params,)
        Search parameters that moments suggest: standard deviations are drawn around theirs.
    """
    kappa, n = parameters.kappa(start), parameters.n_variance
    kappa[:n] += rng.choice(NEAR_AND_FAR_SDS) * rng.normal(size=n)
    for stratum in parameters.strata:
        n_psi = stratum.psi.stop - stratum.psi.start
        kappa[stratum.psi] = rng.choice(NEAR_AND_FAR) * rng.normal(size=n_psi)
        if stratum.nu is not None:
            kappa[stratum.nu] = rng.uniform()
    return parameters.phi(kappa)
