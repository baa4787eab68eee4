"""What the benchmark asks of a library."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import process
from levels import Levels
from workloads import AnyWorkload, Workload


class Fit(NamedTuple):
    """One fit: log-likelihood at the optimum, and (vech D, residual variance)."""

    loglik: float
    theta: list[float]
    result: Any = None


class Peer:
    """A library with one route into it; subclasses say how to load it and how to fit."""

    name: str  # as users know it; one name may have several routes
    route: str  # what is handed over
    data: str  # kind for simulate.load
    module: str
    distribution: str
    for_random_effects: bool = True  # whether it takes part in models with random effects alone
    for_levels: bool = False  # whether it fits any nested and crossed factors
    note: str = ""  # how the call differs from a plain default one

    @property
    def kind(self) -> str:
        """``arrays`` or ``formula``: ratios compare like with like."""
        return "formula" if "formula" in self.route else "arrays"

    @property
    def key(self) -> str:
        """Unique name: library and route."""
        return f"{self.name} ({self.route})"

    def version(self) -> str | None:
        """Version installed, None if there is none; nothing heavy is imported."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return None

    def available(self) -> bool:
        """Whether the library can be used here."""
        return self.version() is not None

    def knows(self, workload: AnyWorkload) -> bool:
        """Whether it fits this model."""
        if isinstance(workload, Workload):
            return self.for_random_effects
        if isinstance(workload, Levels) and self.for_levels:
            return True
        return self.name in workload.calls

    def prepare(self) -> None:
        """Import everything that a fit needs: imports are not timed."""
        __import__(self.module)

    def fit(self, data: Any, workload: Workload, reml: bool) -> Fit:
        """Fit from the user's data to the log-likelihood."""
        raise NotImplementedError

    def after(self, fit: Fit, data: Any) -> dict[str, Callable[[], Any]]:
        """Things users ask of a result, to be timed one by one, each for the first time."""
        return {}

    def command(self, job: dict[str, Any], path: Path) -> list[str]:
        """Command of the child process that carries out the job written to ``path``."""
        return process.script("measure.py", path)


def natural(cov_re: Any, scale: float) -> list[float]:
    """(vech D by columns of the lower triangle, residual variance) as plain floats."""
    cov_re = np.atleast_2d(np.asarray(cov_re, dtype=float))
    rows, columns = np.triu_indices(len(cov_re))
    return [*map(float, cov_re[columns, rows]), float(scale)]
