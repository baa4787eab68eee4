"""The correlation structures there are: a new one is its file in `kinds/` and a line here.

Names are those of the compiled core. Definitions take complex parameters too, so that complex
steps give exact derivatives.
"""

from __future__ import annotations

from lmmfast.residual.kind import SHORTEST_SPHERE, DistanceKind, Kind, TableKind
from lmmfast.residual.kinds.antedependence import AntedependenceKind
from lmmfast.residual.kinds.ar1 import AR1Kind
from lmmfast.residual.kinds.arma11 import ARMA11Kind
from lmmfast.residual.kinds.compound_symmetry import CompoundSymmetryKind
from lmmfast.residual.kinds.linear import linear
from lmmfast.residual.kinds.rational_quadratic import rational_quadratic
from lmmfast.residual.kinds.spatial import exponential, gaussian, matern32, matern52, spherical
from lmmfast.residual.kinds.toeplitz import BandedToeplitzKind, ToeplitzKind
from lmmfast.residual.kinds.unstructured import UnstructuredKind

_KINDS: tuple[AR1Kind | DistanceKind | TableKind, ...] = (
    AR1Kind(),
    DistanceKind("exponential", exponential),
    DistanceKind("gaussian", gaussian),
    DistanceKind("linear", linear, SHORTEST_SPHERE, has_kinks=True),
    DistanceKind("matern32", matern32),
    DistanceKind("matern52", matern52),
    DistanceKind("rational_quadratic", rational_quadratic),
    DistanceKind("spherical", spherical, SHORTEST_SPHERE),
    ARMA11Kind(),
    CompoundSymmetryKind(),
    ToeplitzKind(),
    BandedToeplitzKind(),
    AntedependenceKind(),
    UnstructuredKind(),
)

#: All structures of the compiled core, by name.
KINDS: dict[str, Kind] = {kind.name: kind for kind in _KINDS}
#: Definitions of functions of the distance of two rows.
DISTANCES = {kind.name: kind.definition for kind in _KINDS if not isinstance(kind, TableKind)}
#: Definitions of matrices over the levels that a row can have.
TABLES = {kind.name: kind.definition for kind in _KINDS if isinstance(kind, TableKind)}
