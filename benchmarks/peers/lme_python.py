"""lme-python: the Rust crate lme-rs, from a polars frame (its native input)."""

from __future__ import annotations

from typing import Any

import numpy as np
from workloads import Workload

from .base import Fit, Peer, natural


class LmePython(Peer):
    """``lme_python.lmer``."""

    name = distribution = "lme-python"
    module = "lme_python"
    route = "data frame + formula"
    data = "polars"

    def fit(self, data: Any, workload: Workload, reml: bool) -> Fit:
        """Fit with default settings."""
        import lme_python

        result = lme_python.lmer(workload.formula, data=data, reml=reml)
        # theta is lme4's: the lower triangle of the relative Cholesky factor, by columns.
        columns, rows = np.triu_indices(workload.q)
        factor = np.zeros((workload.q, workload.q))
        factor[rows, columns] = result.theta
        cov_re = result.sigma2 * (factor @ factor.T)
        return Fit(float(result.log_likelihood), natural(cov_re, result.sigma2), result)
