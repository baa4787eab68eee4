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
    from lmmfast.covariance.random import D
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
        TooLargeError,
        UnsupportedModelError,
    )
    from lmmfast.inference.comparison import compare
    from lmmfast.persist.files import load
    from lmmfast.residual.structures import (
        AR1,
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
        SpatialMatern,
        SpatialPower,
        SpatialSpherical,
        Toeplitz,
        Unstructured,
        VarExp,
        VarPower,
    )
    from lmmfast.result import LMMResult

__version__ = "0.1.0"

# Imported when first used: `import lmmfast` loads neither pandas nor formulaic nor the kernels.
_HOMES = {
    "AR1": "lmmfast.residual.structures",
    "Antedependence": "lmmfast.residual.structures",
    "ByGroup": "lmmfast.residual.structures",
    "CompoundSymmetry": "lmmfast.residual.structures",
    "CustomCorrelation": "lmmfast.residual.structures",
    "HeterogeneousAR1": "lmmfast.residual.structures",
    "HeterogeneousAntedependence": "lmmfast.residual.structures",
    "HeterogeneousCS": "lmmfast.residual.structures",
    "HeterogeneousToeplitz": "lmmfast.residual.structures",
    "Independent": "lmmfast.residual.structures",
    "OU": "lmmfast.residual.structures",
    "SpatialExponential": "lmmfast.residual.structures",
    "SpatialGaussian": "lmmfast.residual.structures",
    "SpatialMatern": "lmmfast.residual.structures",
    "SpatialPower": "lmmfast.residual.structures",
    "SpatialSpherical": "lmmfast.residual.structures",
    "Toeplitz": "lmmfast.residual.structures",
    "Unstructured": "lmmfast.residual.structures",
    "VarExp": "lmmfast.residual.structures",
    "VarPower": "lmmfast.residual.structures",
    "D": "lmmfast.covariance.random",
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
    "TooLargeError",
    "UnsupportedModelError",
)
_HOMES.update(dict.fromkeys(_ERRORS, "lmmfast.errors"))

__all__ = [
    "AR1",
    "OU",
    "Antedependence",
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
    "SpatialExponential",
    "SpatialGaussian",
    "SpatialMatern",
    "SpatialPower",
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
