"""The conditional model y | b: how many parameters its fitted values use, and its AIC.

Fitted values X beta + Z b are H y, and H = I - R P, so that tr(H) = p + sum_k D_k tr(P V_k): the
totals at the optimum hold it (docs/algorithm.md, eq. 3.6, of REML whatever the fit is by). Where
fitted values have the process of a residual structure in them, R are measurement errors alone, and
the rows say what totals do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.data.batch import CHUNK
from lmmfast.diagnostics.residuals import estimated_variances, level_variances
from lmmfast.prediction.predict import residual_values
from lmmfast.prediction.process import takes_residuals
from lmmfast.search.objective import LOG_2PI, Evaluation

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


def hat_trace(fit: LMMResult) -> float:
    """Trace of the matrix that takes y to its conditional fitted values."""
    if takes_residuals(fit, "conditional", "process"):
        variances = level_variances(fit, "conditional")
        own = estimated_variances(fit, "conditional", variances)
        return float(fit.nobs - (own / variances).sum())
    evaluation = _evaluation(fit, "the hat trace")
    d = evaluation._padded(fit._D[fit._covariance.pairs])
    t = evaluation.totals.trace - np.trace(evaluation._quad_S, axis1=1, axis2=2)
    return float(len(fit._keep) + d @ t)


def conditional_loglik(fit: LMMResult) -> float:
    """Log density of y given the predicted random effects, at the estimates.

    The sum of squares e'R^-1 e of e = R V^-1 r is r'V^-1 r - sum_k D_k r'V^-1 V_k V^-1 r.
    """
    if takes_residuals(fit, "conditional", "process"):
        variances = level_variances(fit, "conditional")
        e = residual_values(fit, "response", "conditional")
        return float(-0.5 * (LOG_2PI + np.log(variances) + e**2 / variances).sum())
    evaluation = _evaluation(fit, "the conditional likelihood")
    d = evaluation._padded(fit._D[fit._covariance.pairs])
    squares = evaluation.problem.df - d @ evaluation.residual_quad
    log_R = fit.nobs * np.log(fit._unit) - _relative_log_weights(fit)
    if fit._residual_model is not None:
        engine: Any = fit._engine
        log_R += engine.totals(np.zeros_like(fit._Lambda)).logdet
    return float(-0.5 * (fit.nobs * LOG_2PI + log_R + squares))


def caic(fit: LMMResult) -> float:
    """Conditional AIC; see `LMMResult.caic`."""
    n_residual = len(fit._estimates.theta) - fit._covariance.n_random
    model = fit._residual_model
    if model is not None and takes_residuals(fit, "conditional", "process"):
        n_residual = model.parameters.n_variance + 1  # the process is one of the random effects
    return -2 * conditional_loglik(fit) + 2 * (hat_trace(fit) + n_residual)


def _evaluation(fit: LMMResult, what: str) -> Evaluation:
    engine: Any = fit._need(fit._engine, what)
    return Evaluation(fit._problem, engine.totals(fit._Lambda))


def _relative_log_weights(fit: LMMResult) -> float:
    """Sum of the logarithms of the weights, in units of the working basis."""
    design, total = fit._need(fit._design, "the conditional likelihood"), 0.0
    fit._check_data(response=False)
    if not fit.weighted:
        return 0.0
    for start in range(0, design.n_obs, CHUNK):
        weights = design.batch(slice(start, min(start + CHUNK, design.n_obs))).as_float().weights
        assert weights is not None
        total += float(np.log(weights / fit._basis.weight_scale).sum())
    return total
