"""lmmfast, from arrays and from a pandas frame with a formula."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from workloads import AnyWorkload

from .base import Fit, Peer


class Lmmfast(Peer):
    """What the two routes share."""

    name = module = distribution = "lmmfast"

    def version(self) -> str | None:
        """Version of the package that is imported, installed or not (a light import)."""
        try:
            import lmmfast
        except ImportError:
            return None
        return str(lmmfast.__version__)

    def knows(self, workload: AnyWorkload) -> bool:
        """All of them."""
        return True

    def prepare(self) -> None:
        """Import what lmmfast itself imports at the first fit or formula."""
        import formulaic  # noqa: F401
        import narwhals  # noqa: F401
        import pandas  # noqa: F401
        import scipy.linalg
        import scipy.special  # noqa: F401

        import lmmfast  # noqa: F401

    def after(self, fit: Fit, data: Any) -> dict[str, Callable[[], Any]]:
        """Summary, random effects of all clusters, fitted values."""
        result = fit.result
        return {
            "summary": lambda: str(result.summary()),
            "random effects, all clusters": lambda: np.asarray(result.random_effects),
            "their covariance matrices": lambda: np.asarray(result.random_effects_cov),
            "fitted values": lambda: np.asarray(result.fittedvalues),
        }


class LmmfastArrays(Lmmfast):
    """``lmmfast.fit``."""

    route = data = "arrays"

    def fit(self, data: Any, workload: AnyWorkload, reml: bool) -> Fit:
        """Fit with default settings."""
        import lmmfast

        options = workload.options(data)
        result = lmmfast.fit(data.y, data.X, data.groups, data.Z, reml=reml, **options)
        return Fit(float(result.llf), [float(v) for v in result.theta], result)


class LmmfastFormula(Lmmfast):
    """``lmmfast.lmm``."""

    route = "data frame + formula"
    data = "pandas"

    def fit(self, data: Any, workload: AnyWorkload, reml: bool) -> Fit:
        """Fit with default settings."""
        import lmmfast

        result = lmmfast.lmm(workload.formula, data, reml=reml, **workload.options(data))
        return Fit(float(result.llf), [float(v) for v in result.theta], result)

    def after(self, fit: Fit, data: Any) -> dict[str, Callable[[], Any]]:
        """As for arrays, and predictions for the rows of the training data."""
        result = fit.result
        return super().after(fit, data) | {
            "predict, training rows, population": lambda: np.asarray(
                result.predict(data, level="population")
            ),
            "predict, training rows, conditional": lambda: np.asarray(
                result.predict(data, level="conditional")
            ),
        }
