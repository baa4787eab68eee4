"""lmmfast: Gaussian linear mixed models for very many small clusters."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmmfast import datasets
    from lmmfast._build_info import build_info
    from lmmfast.api import fit, lmm
    from lmmfast.batch.by import lmm_by
    from lmmfast.batch.by_result import LMMByResult
    from lmmfast.batch.many import fit_many
    from lmmfast.batch.many_result import ManyFits
    from lmmfast.covariance.choices import D
    from lmmfast.errors import (
        ConvergenceError,
        ConvergenceWarning,
        DataError,
        FormulaError,
        LmmError,
        LmmWarning,
        MissingRowsWarning,
        NestingWarning,
        NewDataWarning,
        NewGroupsWarning,
        NotIdentifiableError,
        NotIdentifiableWarning,
        RankWarning,
        SlowFitWarning,
        TooLargeError,
        UnsupportedModelError,
    )
    from lmmfast.inference.comparison import compare
    from lmmfast.persist.files import load
    from lmmfast.resampling.bootstrap import Bootstrap
    from lmmfast.resampling.power import power
    from lmmfast.resampling.simulate import simulate
    from lmmfast.residual.kinds import (
        AR1,
        ARMA11,
        OU,
        Antedependence,
        ByGroup,
        CompoundSymmetry,
        CustomCorrelation,
        HeterogeneousAntedependence,
        HeterogeneousAR1,
        HeterogeneousCS,
        HeterogeneousToeplitz,
        Independent,
        SpatialExponential,
        SpatialGaussian,
        SpatialLinear,
        SpatialMatern,
        SpatialPower,
        SpatialRationalQuadratic,
        SpatialSpherical,
        Toeplitz,
        Unstructured,
        VarExp,
        VarPower,
    )
    from lmmfast.result import LMMResult
    from lmmfast.streaming.scan import scan

__version__ = "0.1.0"

# Imported when first used: `import lmmfast` loads neither pandas nor formulaic nor the kernels.
_HOMES = {
    "AR1": "lmmfast.residual.kinds",
    "ARMA11": "lmmfast.residual.kinds",
    "Antedependence": "lmmfast.residual.kinds",
    "ByGroup": "lmmfast.residual.kinds",
    "CompoundSymmetry": "lmmfast.residual.kinds",
    "CustomCorrelation": "lmmfast.residual.kinds",
    "HeterogeneousAR1": "lmmfast.residual.kinds",
    "HeterogeneousAntedependence": "lmmfast.residual.kinds",
    "HeterogeneousCS": "lmmfast.residual.kinds",
    "HeterogeneousToeplitz": "lmmfast.residual.kinds",
    "Independent": "lmmfast.residual.kinds",
    "OU": "lmmfast.residual.kinds",
    "SpatialExponential": "lmmfast.residual.kinds",
    "SpatialGaussian": "lmmfast.residual.kinds",
    "SpatialLinear": "lmmfast.residual.kinds",
    "SpatialMatern": "lmmfast.residual.kinds",
    "SpatialPower": "lmmfast.residual.kinds",
    "SpatialRationalQuadratic": "lmmfast.residual.kinds",
    "SpatialSpherical": "lmmfast.residual.kinds",
    "Toeplitz": "lmmfast.residual.kinds",
    "Unstructured": "lmmfast.residual.kinds",
    "VarExp": "lmmfast.residual.kinds",
    "VarPower": "lmmfast.residual.kinds",
    "D": "lmmfast.covariance.choices",
    "LMMByResult": "lmmfast.batch.by_result",
    "LMMResult": "lmmfast.result",
    "ManyFits": "lmmfast.batch.many_result",
    "fit": "lmmfast.api",
    "fit_many": "lmmfast.batch.many",
    "lmm": "lmmfast.api",
    "load": "lmmfast.persist.files",
    "lmm_by": "lmmfast.batch.by",
    "build_info": "lmmfast._build_info",
    "compare": "lmmfast.inference.comparison",
    "power": "lmmfast.resampling.power",
    "simulate": "lmmfast.resampling.simulate",
    "Bootstrap": "lmmfast.resampling.bootstrap",
    "scan": "lmmfast.streaming.scan",
}
_ERRORS = (
    "ConvergenceError",
    "ConvergenceWarning",
    "DataError",
    "FormulaError",
    "LmmError",
    "LmmWarning",
    "MissingRowsWarning",
    "NestingWarning",
    "NewDataWarning",
    "NewGroupsWarning",
    "NotIdentifiableError",
    "NotIdentifiableWarning",
    "RankWarning",
    "SlowFitWarning",
    "TooLargeError",
    "UnsupportedModelError",
)
_HOMES.update(dict.fromkeys(_ERRORS, "lmmfast.errors"))

__all__ = [
    "AR1",
    "ARMA11",
    "OU",
    "Antedependence",
    "Bootstrap",
    "ByGroup",
    "CompoundSymmetry",
    "ConvergenceError",
    "ConvergenceWarning",
    "CustomCorrelation",
    "D",
    "DataError",
    "FormulaError",
    "HeterogeneousAR1",
    "HeterogeneousAntedependence",
    "HeterogeneousCS",
    "HeterogeneousToeplitz",
    "Independent",
    "LMMByResult",
    "LMMResult",
    "LmmError",
    "LmmWarning",
    "ManyFits",
    "MissingRowsWarning",
    "NestingWarning",
    "NewDataWarning",
    "NewGroupsWarning",
    "NotIdentifiableError",
    "NotIdentifiableWarning",
    "RankWarning",
    "SlowFitWarning",
    "SpatialExponential",
    "SpatialGaussian",
    "SpatialLinear",
    "SpatialMatern",
    "SpatialPower",
    "SpatialRationalQuadratic",
    "SpatialSpherical",
    "Toeplitz",
    "TooLargeError",
    "Unstructured",
    "UnsupportedModelError",
    "VarExp",
    "VarPower",
    "build_info",
    "compare",
    "datasets",
    "fit",
    "fit_many",
    "lmm",
    "lmm_by",
    "load",
    "power",
    "scan",
    "simulate",
]


if not TYPE_CHECKING:  # a type checker is to know every name

    def __getattr__(name: str):
        if name == "datasets":
            return importlib.import_module("lmmfast.datasets")
        if name not in _HOMES:
            raise AttributeError(f"module 'lmmfast' has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
