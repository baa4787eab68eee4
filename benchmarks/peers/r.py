"""Libraries of R, measured by fit.R inside an R process of their own."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

from workloads import ALL

from .base import Peer


class RPeer(Peer):
    """A package of R; subclasses say what is called."""

    route = "data frame + formula"
    data = "R"
    theta: str  # the parameters of the fit `model`, in R

    @functools.cache  # noqa: B019 - one instance for the life of the process
    def version(self) -> str | None:
        """Ask R."""
        rscript = shutil.which("Rscript")
        if rscript is None:
            return None
        package = f'cat(as.character(packageVersion("{self.name}"))'
        ask = f'{package}, " (R ", as.character(getRversion()), ")", sep = "")'
        answer = subprocess.run([rscript, "-e", ask], capture_output=True, text=True, check=False)
        return answer.stdout.strip() if answer.returncode == 0 else None

    def call(self, workload: Any, reml: bool) -> str:
        """The call, in R, that fits the data frame ``data``."""
        raise NotImplementedError

    def command(self, job: dict[str, Any], path: Path) -> list[str]:
        """Hand the job over as arguments."""
        workload = ALL[job["workload"]]
        return [
            "Rscript",
            "--vanilla",
            str(Path(__file__).with_name("fit.R")),
            job["folder"],
            str(job["rows"]),
            self.name,
            self.call(workload, job["reml"]),
            self.theta,
            str(job["repeats"]),
            str(job["seconds"]),
            str(job["patience"]),
            ",".join(["y", *workload.covariates]),
            ",".join(workload.groups),
            ",".join(workload.factors),
            job["out"],
        ]


class Lme4(RPeer):
    """``lmer``, without the finite-difference check of the gradient after the fit."""

    name = "lme4"
    for_levels = True
    note = 'calc.derivs = FALSE, check.nobs.vs.nRE = "ignore"'
    theta = (
        "c(unlist(lapply(VarCorr(model), function(D) D[lower.tri(D, diag = TRUE)])), "
        "sigma(model)^2)"
    )

    def call(self, workload: Any, reml: bool) -> str:
        """Leave out work that lmmfast does not do in a fit."""
        control = f"lmerControl({self.note})"
        return f"lmer({workload.formula}, data, REML = {logical(reml)}, control = {control})"


class Nlme(RPeer):
    """``gls`` or ``lme``."""

    name = "nlme"
    for_random_effects = False
    theta = "c(coef(model$modelStruct, unconstrained = FALSE), sigma(model)^2)"

    def call(self, workload: Any, reml: bool) -> str:
        """Fit with default settings."""
        return with_argument(workload.calls[self.name], f'method = "{"REML" if reml else "ML"}"')


class GlmmTMB(RPeer):
    """``glmmTMB``; by default it uses one thread."""

    name = "glmmTMB"
    for_random_effects = False
    theta = "model$fit$par"

    def call(self, workload: Any, reml: bool) -> str:
        """Fit with default settings."""
        return with_argument(workload.calls[self.name], f"REML = {logical(reml)}")


def with_argument(call: str, argument: str) -> str:
    """Add a last argument to a call."""
    return f"{call.removesuffix(')')}, {argument})"


def logical(value: bool) -> str:
    """As R writes it."""
    return "TRUE" if value else "FALSE"
