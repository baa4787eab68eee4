"""What is wrong with a fit, if anything."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from dense_likelihood import DenseLikelihood
from random_models import Problem

import lmmfast as lf

#: What can be found, in the order of how bad it is.
FINDS = (
    "untyped exception",
    "exception of a fit",
    "wrong likelihood",
    "short in silence",
    "not a number",
    "negative variance",
    "false alarm",
)
LIKELIHOOD, SHORT = 1e-8, 1e-6
#: Every problem is searched from the reported point, one in so many from others too.
OTHERS_EVERY, N_OTHERS = 5, 3


def judge(problem: Problem) -> tuple[str, str]:
    """Fit a problem and look at it.

    Returns
    -------
    outcome : str
        "right", "refused" (a typed error), "not converged" (and rightly said so), or one of FINDS.
    detail : str
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lf.LmmWarning)
        try:
            fit = lf.lmm(problem.formula, problem.data, **problem.options)
        except lf.LmmError as error:
            return "refused", f"{type(error).__name__}: {error}"
        except Exception as error:
            return "untyped exception", f"{type(error).__name__}: {error}"
        try:
            complaint = next(_complaints(fit), None)
        except Exception as error:
            return "exception of a fit", f"{type(error).__name__}: {error}"
    if complaint is not None:
        return complaint
    return _against_dense_algebra(problem, fit)


def _complaints(fit: Any) -> Iterator[tuple[str, str]]:
    """Numbers that are none, and variances below zero, in whatever a fit hands out."""
    for name in ("params", "bse", "theta", "llf", "aic", "bic", "scale", "resid", "fittedvalues"):
        if not np.isfinite(np.asarray(getattr(fit, name), dtype=float)).all():
            yield "not a number", name
    one_factor = len({term.group for term in fit.terms}) < 2
    if one_factor and not np.isfinite(np.asarray(fit.residuals("normalized"))).all():
        yield "not a number", "normalized residuals"
    variances = [v for name, v in fit.theta.items() if name.startswith("var(")]
    if min(variances) < 0:
        yield "negative variance", str(fit.theta.to_dict())
    with np.errstate(invalid="ignore"):
        if (np.diag(fit.theta_cov) < 0).any():
            yield "negative variance", f"theta_cov {np.diag(fit.theta_cov)}"
    if (np.diag(fit.cov_params()) < 0).any():
        yield "negative variance", "cov_params"
    if fit.terms:
        effects, covariances = fit.random_effects, fit.random_effects_cov
        if not isinstance(covariances, dict):
            effects, covariances = {"": effects}, {"": covariances}
        for name, blocks in covariances.items():
            if not np.isfinite(np.asarray(effects[name], dtype=float)).all():
                yield "not a number", f"random effects of {name}"
            if (np.diagonal(blocks, axis1=1, axis2=2) < 0).any():
                yield "negative variance", f"random_effects_cov of {name}"
    fit.variance_table()
    str(fit.summary())


def _against_dense_algebra(problem: Problem, fit: Any) -> tuple[str, str]:
    dense = DenseLikelihood(problem, fit.x_names)
    theta, status = fit.theta.to_dict(), fit.certificate.status
    try:
        known = dense.checked_loglik(theta)
    except (np.linalg.LinAlgError, ValueError, ZeroDivisionError) as error:
        if not fit.converged:
            return "not converged", f"V is singular but for rounding: {status}"
        return "wrong likelihood", f"V is not positive definite at {theta} ({error})"
    off = abs(fit.llf - known)
    if off > LIKELIHOOD * max(1.0, abs(known)) and off > dense.rounding(theta):
        if not fit.converged:
            return "not converged", f"digits are lost: {status}"
        return "wrong likelihood", f"{fit.llf!r}, dense {known!r} at {theta}"
    if "without bound" in status and dense.falls_off(theta):
        return "not converged", status
    n_others = N_OTHERS if problem.seed % OTHERS_EVERY == 0 else 0
    gain = dense.improved(theta, n_others, problem.seed) - known
    if fit.converged:
        if gain > SHORT * max(1.0, abs(known)):
            return "short in silence", f"{known!r}, another search finds {gain:.2g} more"
        return "right", ""
    if abs(gain) > SHORT:  # there is more, or no other search comes as far
        return "not converged", status
    return "false alarm", f"{status}; another search finds no more either"
