"""mixedlm-rs: lme4's profiled criterion in Rust, L-BFGS-B of scipy around it."""

from __future__ import annotations

from typing import Any

from workloads import Workload

from .base import Fit, Peer, natural


class MixedlmRs(Peer):
    """What the two routes share."""

    name = distribution = "mixedlm-rs"
    module = "mixedlm_rs"

    def prepare(self) -> None:
        """Import it with the parts of scipy and patsy that it imports at the first fit."""
        import mixedlm_rs  # noqa: F401
        import patsy  # noqa: F401
        import scipy.optimize
        import scipy.stats  # noqa: F401


class MixedlmRsArrays(MixedlmRs):
    """``MixedLM(...).fit()``; the default method, faster here than its ``method="rust"``."""

    route = data = "arrays"

    def fit(self, data: Any, workload: Workload, reml: bool) -> Fit:
        """Fit with default settings."""
        import mixedlm_rs

        design = mixedlm_rs.MixedLM(data.y, data.X, data.groups, exog_re=data.Z)
        result = design.fit(reml=reml)
        return Fit(float(result.llf), natural(result.cov_re, result.scale), result)


class MixedlmRsFormula(MixedlmRs):
    """``mixedlm("y ~ ...", data, ...)``."""

    route = "data frame + formula"
    data = "pandas"

    def fit(self, data: Any, workload: Workload, reml: bool) -> Fit:
        """Fit with default settings."""
        import mixedlm_rs

        re_formula = f"~{workload.random}" if workload.q > 1 else None
        design = mixedlm_rs.mixedlm(workload.fixed, data, groups="id", re_formula=re_formula)
        result = design.fit(reml=reml)
        return Fit(float(result.llf), natural(result.cov_re, result.scale), result)
