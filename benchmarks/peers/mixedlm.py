"""mixedlm: lmer of a package with a Rust core; for several grouping factors."""

from __future__ import annotations

from typing import Any

from workloads import AnyWorkload

from .base import Fit, Peer


class Mixedlm(Peer):
    """``mixedlm.lmer``."""

    name = module = distribution = "mixedlm"
    route = "data frame + formula"
    data = "pandas"
    for_random_effects = False
    for_levels = True

    def fit(self, data: Any, workload: AnyWorkload, reml: bool) -> Fit:
        """Fit with default settings."""
        import mixedlm

        result = mixedlm.lmer(workload.formula, data, REML=reml)
        return Fit(float(result.logLik().value), [float(v) for v in result.theta], result)
