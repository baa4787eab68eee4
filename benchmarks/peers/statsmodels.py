"""statsmodels MixedLM, from arrays; nested factors as variance components in a formula."""

from __future__ import annotations

import warnings
from typing import Any

from levels import Levels
from workloads import AnyWorkload, Workload

from .base import Fit, Peer, natural


class Statsmodels(Peer):
    """``sm.MixedLM(...).fit()``."""

    name = distribution = "statsmodels"
    module = "statsmodels.api"
    route = data = "arrays"

    def knows(self, workload: AnyWorkload) -> bool:
        """One grouping factor."""
        return isinstance(workload, Workload)

    def fit(self, data: Any, workload: AnyWorkload, reml: bool) -> Fit:
        """Fit with default settings."""
        import statsmodels.api as sm

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            design = sm.MixedLM(data.y, data.X, data.groups, exog_re=data.Z)
            result = design.fit(reml=reml)
        return Fit(float(result.llf), natural(result.cov_re, result.scale), result)


class StatsmodelsFormula(Peer):
    """``smf.mixedlm(..., vc_formula=...)``."""

    name = distribution = "statsmodels"
    module = "statsmodels.formula.api"
    route = "data frame + formula"
    data = "pandas"

    def knows(self, workload: AnyWorkload) -> bool:
        """Nested factors."""
        return isinstance(workload, Levels) and self.name in workload.calls

    def fit(self, data: Any, workload: Any, reml: bool) -> Fit:
        """Fit with default settings."""
        import statsmodels.formula.api as smf

        call = workload.calls[self.name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = smf.mixedlm(workload.fixed, data, re_formula="1", **call).fit(reml=reml)
        variances = [*result.cov_re.to_numpy().ravel(), *result.vcomp, result.scale]
        return Fit(float(result.llf), [float(v) for v in variances], result)
