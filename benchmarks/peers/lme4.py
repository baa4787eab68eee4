"""lme4 of R, measured by lme4.R inside an R process of its own."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Any

from workloads import WORKLOADS

from .base import Peer


class Lme4(Peer):
    """``lmer``, without the finite-difference check of the gradient after the fit."""

    name = "lme4"
    route = "data frame + formula"
    data = "R"
    note = 'calc.derivs = FALSE, check.nobs.vs.nRE = "ignore"'

    @functools.cache  # noqa: B019 - one instance for the life of the process
    def version(self) -> str | None:
        """Ask R."""
        rscript = shutil.which("Rscript")
        if rscript is None:
            return None
        ask = 'cat(as.character(packageVersion("lme4")), " (R ", as.character(getRversion()), ")"'
        answer = subprocess.run(
            [rscript, "-e", f'{ask}, sep = "")'], capture_output=True, text=True, check=False
        )
        return answer.stdout.strip() if answer.returncode == 0 else None

    def command(self, job: dict[str, Any], path: Path) -> list[str]:
        """Hand the job over as arguments."""
        workload = WORKLOADS[job["workload"]]
        return [
            "Rscript",
            "--vanilla",
            str(Path(__file__).with_name("lme4.R")),
            job["folder"],
            str(job["rows"]),
            workload.formula,
            "TRUE" if job["reml"] else "FALSE",
            str(job["repeats"]),
            str(job["seconds"]),
            str(job["patience"]),
            ",".join(workload.covariates),
            job["out"],
        ]
