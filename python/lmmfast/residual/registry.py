"""The correlation structures there are, by the names that the compiled core has for them.

A definition takes complex parameters too, so that complex steps give exact derivatives.
"""

from __future__ import annotations

from collections.abc import Callable

from lmmfast.arrays import Array
from lmmfast.residual.kinds.antedependence import antedependence
from lmmfast.residual.kinds.ar1 import ar1
from lmmfast.residual.kinds.compound_symmetry import compound_symmetry
from lmmfast.residual.kinds.linear import linear
from lmmfast.residual.kinds.rational_quadratic import rational_quadratic
from lmmfast.residual.kinds.spatial import exponential, gaussian, matern32, matern52, spherical
from lmmfast.residual.kinds.toeplitz import banded_toeplitz, toeplitz
from lmmfast.residual.kinds.unstructured import unstructured
from lmmfast.residual.structure import Values

#: Functions of the distance of two rows.
DISTANCES: dict[str, Callable[[Values, Array], Values]] = {
    "ar1": ar1,
    "exponential": exponential,
    "gaussian": gaussian,
    "linear": linear,
    "matern32": matern32,
    "matern52": matern52,
    "rational_quadratic": rational_quadratic,
    "spherical": spherical,
}

#: Matrices over the levels that a row can have.
TABLES: dict[str, Callable[[Values, int], Values]] = {
    "compound_symmetry": compound_symmetry,
    "toeplitz": toeplitz,
    "banded_toeplitz": banded_toeplitz,
    "antedependence": antedependence,
    "unstructured": unstructured,
}


def n_psi(kind: str, T: int, bands: int | None) -> int:
    """Number of parameters of a structure over T levels."""
    if kind in DISTANCES or kind == "compound_symmetry":
        return 1
    if kind == "banded_toeplitz":
        assert bands is not None
        return bands
    return T * (T - 1) // 2 if kind == "unstructured" else T - 1
