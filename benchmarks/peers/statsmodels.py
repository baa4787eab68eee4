"""statsmodels MixedLM, from arrays."""

from __future__ import annotations

import warnings
from typing import Any

from workloads import Workload

from .base import Fit, Peer, natural


class Statsmodels(Peer):
    """``sm.MixedLM(...).fit()``."""

    name = distribution = "statsmodels"
    module = "statsmodels.api"
    route = data = "arrays"

    def fit(self, data: Any, workload: Workload, reml: bool) -> Fit:
        """Fit with default settings."""
        import statsmodels.api as sm

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            design = sm.MixedLM(data.y, data.X, data.groups, exog_re=data.Z)
            result = design.fit(reml=reml)
        return Fit(float(result.llf), natural(result.cov_re, result.scale), result)
