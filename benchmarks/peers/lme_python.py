"""lme-python: the Rust crate lme-rs, from a polars frame (its native input)."""

from __future__ import annotations

from typing import Any

import numpy as np
from levels import Levels
from workloads import AnyWorkload

from .base import Fit, Peer, natural


class LmePython(Peer):
    """``lme_python.lmer``."""

    name = distribution = "lme-python"
    module = "lme_python"
    route = "data frame + formula"
    data = "polars"
    for_levels = True

    def fit(self, data: Any, workload: AnyWorkload, reml: bool) -> Fit:
        """Fit with default settings."""
        import lme_python

        result = lme_python.lmer(workload.formula, data=data, reml=reml)
        loglik = float(result.log_likelihood)
        if isinstance(workload, Levels):  # relative standard deviations
            variances = [result.sigma2 * float(v) ** 2 for v in (*result.theta, 1.0)]
            return Fit(loglik, variances, result)
        # theta is lme4's: the lower triangle of the relative Cholesky factor, by columns.
        columns, rows = np.triu_indices(workload.q)
        factor = np.zeros((workload.q, workload.q))
        factor[rows, columns] = result.theta
        cov_re = result.sigma2 * (factor @ factor.T)
        return Fit(loglik, natural(cov_re, result.sigma2), result)
