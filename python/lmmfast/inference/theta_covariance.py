"""Covariance matrix of what is made of the variance parameters, by either information."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import ConvergenceError
from lmmfast.inference.denominators import inverse_of_information

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


def covariance_of(fit: LMMResult, information: str, J: Array) -> Array:
    """Covariance matrix of what has the derivatives J; NaN where nothing describes it.

    Parameters
    ----------
    information : {"observed", "expected"}
        Expected where there is no observed one: on the boundary, for instance.
    J : ndarray (k, n)
        By (natural parameters of D, kappa, sigma2).
    """
    if information == "observed":
        try:
            observed = fit._inference_totals.observed
        except ConvergenceError:
            observed = None
        if observed is not None:
            return np.asarray(J @ inverse_of_information(observed) @ J.T)
    return fit._cov_of(J)
