"""The residual structures that users write, a file each with its definition in NumPy."""

from lmmfast.residual.kinds.antedependence import Antedependence, HeterogeneousAntedependence
from lmmfast.residual.kinds.ar1 import AR1, HeterogeneousAR1
from lmmfast.residual.kinds.arma11 import ARMA11
from lmmfast.residual.kinds.compound_symmetry import CompoundSymmetry, HeterogeneousCS
from lmmfast.residual.kinds.custom import CustomCorrelation
from lmmfast.residual.kinds.linear import SpatialLinear
from lmmfast.residual.kinds.rational_quadratic import SpatialRationalQuadratic
from lmmfast.residual.kinds.spatial import (
    OU,
    SpatialExponential,
    SpatialGaussian,
    SpatialMatern,
    SpatialPower,
    SpatialSpherical,
)
from lmmfast.residual.kinds.toeplitz import HeterogeneousToeplitz, Toeplitz
from lmmfast.residual.kinds.unstructured import Unstructured
from lmmfast.residual.kinds.variances import ByGroup, Independent, VarExp, VarPower

__all__ = [
    "AR1",
    "ARMA11",
    "OU",
    "Antedependence",
    "ByGroup",
    "CompoundSymmetry",
    "CustomCorrelation",
    "HeterogeneousAR1",
    "HeterogeneousAntedependence",
    "HeterogeneousCS",
    "HeterogeneousToeplitz",
    "Independent",
    "SpatialExponential",
    "SpatialGaussian",
    "SpatialLinear",
    "SpatialMatern",
    "SpatialPower",
    "SpatialRationalQuadratic",
    "SpatialSpherical",
    "Toeplitz",
    "Unstructured",
    "VarExp",
    "VarPower",
]
