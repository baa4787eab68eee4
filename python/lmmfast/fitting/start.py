"""Search parameters at the variance parameters that a user gives, in the units that fits report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.errors import DataError
from lmmfast.packing.basis import Basis
from lmmfast.residual.inverse import working
from lmmfast.residual.kind import AT_THE_END, OFF_THE_END

if TYPE_CHECKING:
    from lmmfast.covariance.joint import JointCovariance

#: Smallest eigenvalue of banded residual correlations at the end of their range, and off it.
ROOM = {AT_THE_END: 1e-12, OFF_THE_END: 1e-3}


def given_start(
    covariance: BlockCovariance, basis: Basis, start: Any, what: str = "start"
) -> Array:
    """Root parameters (n_params,) at the user's variance parameters.

    Parameters
    ----------
    start : LMMResult or array (n_params + 1,)
        A fit of the same model, or its ``theta``.
    what : str
        What it is called in messages.

    Raises
    ------
    DataError
        Not as many finite numbers as the model has parameters, or a residual variance that is not
        positive.
    """
    theta = _theta(start, covariance.n_params + 1, what)
    if theta[-1] <= 0:
        raise DataError(f"the residual variance in {what}, its last entry, must be positive")
    return covariance.phi(_relative(covariance, basis, theta[:-1], float(theta[-1])))


def given_residual_starts(
    covariance: JointCovariance, basis: Basis, start: Any, what: str = "start"
) -> list[Array]:
    """Search parameters at the user's parameters of D and of the residuals.

    Where parameters are at the end of their range, which a search cannot leave if the likelihood is
    flat there, the same point away from the end comes second.

    Parameters
    ----------
    start : LMMResult or array (n_params + 1,)

    Returns
    -------
    list of one or two ndarray (n_params,)

    Raises
    ------
    DataError
        As `given_start`, or a parameter of the residuals out of its range.
    """
    theta = _theta(start, covariance.n_params + 1, what)
    k = covariance.n_random
    starts = []
    for margin, room in ROOM.items():
        kappa, sigma2 = working(covariance.residual, theta[k:], margin, what)
        D = _relative(covariance.random, basis, theta[:k], sigma2)
        phi = np.append(covariance.random.phi(D), covariance.residual.phi(kappa))
        starts.append(covariance.well_inside(phi, room))
    same = np.allclose(starts[0], starts[1], rtol=1e-6, atol=1e-6)
    return starts[:1] if same else starts


def _theta(start: Any, n: int, what: str) -> Array:
    from lmmfast.result import LMMResult

    theta = start.theta if isinstance(start, LMMResult) else start
    try:
        complex_or_not = np.asarray(theta)
        is_real = complex_or_not.dtype.kind != "c"
        theta = np.asarray(complex_or_not, dtype=float) if is_real else np.empty(0)
    except (TypeError, ValueError):
        theta = np.empty(0)
    if theta.shape != (n,) or not np.isfinite(theta).all():
        raise DataError(f"{what} must be {n} finite numbers, like fit.theta of this model")
    return np.asarray(theta)


def _relative(covariance: BlockCovariance, basis: Basis, natural: Array, sigma2: float) -> Array:
    """D (q, q) in the working basis, relative to sigma2."""
    B = np.linalg.inv(basis.z_map())
    return np.asarray(B @ covariance.matrix(natural) @ B.T / sigma2 * basis.weight_scale)
