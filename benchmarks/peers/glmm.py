"""glmm: the Rust crate's own formula front end, from a dict of NumPy columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from workloads import AnyWorkload

from .base import Fit, Peer


class Glmm(Peer):
    """Without Satterthwaite degrees of freedom and with the cheaper standard errors."""

    name = module = distribution = "glmm"
    route = "columns + formula"
    data = "columns"
    for_levels = True
    note = 'satterthwaite=False, wald_se="rx"'

    def fit(self, data: Any, workload: AnyWorkload, reml: bool) -> Fit:
        """Fit; the options leave out work that lmmfast does not do in a fit."""
        import glmm

        result = glmm.fit(data, workload.formula, reml=reml, satterthwaite=False, wald_se="rx")
        vech = np.concatenate([np.asarray(D, dtype=float).ravel() for D in result.varcorr])
        return Fit(float(result.loglik), [*map(float, vech), float(result.dispersion)], result)
