"""The model fitted anew without some rows, from where the fit of all of them ended."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.design.part import DesignPart
from lmmfast.errors import LmmError, LmmWarning

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


@dataclass(frozen=True, eq=False)
class Refit:
    """Estimates without some rows; NaN where they have none, of beta for all where for one.

    Attributes
    ----------
    beta : ndarray (p,)
    cov : ndarray (p, p)
        Covariance matrix of beta.
    theta : ndarray (n_theta,)
    """

    beta: Array
    cov: Array
    theta: Array


def refit_without(fit: LMMResult, rows: NDArray[np.intp]) -> Refit | None:
    """Fit without some of the rows used; None where that cannot be done, or has not converged."""
    from lmmfast.fitting.pipeline import fit_design
    from lmmfast.fitting.refit import continued

    design = fit._need(fit._design, "refits")
    left = np.delete(np.arange(fit.nobs), rows)
    options = continued(fit, "warm", None, 200, 0, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        try:
            new = fit_design(DesignPart(design, left), options)
        except LmmError:
            return None
    if not new.converged:
        return None
    p = len(fit.x_names)
    beta, cov = np.full(p, np.nan), np.full((p, p), np.nan)
    if list(new.x_names) == list(fit.x_names):  # else coefficients mean other things
        beta, cov = new._estimates.beta, new._estimates.cov_beta
    theta = np.asarray(new.theta.reindex(fit.theta_names), dtype=np.float64)
    return Refit(beta, cov, theta)
