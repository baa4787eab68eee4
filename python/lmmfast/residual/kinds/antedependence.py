"""First-order ante-dependence: a correlation for each pair of neighbouring visits."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual.kind import Natural, Setting, TableKind, artanh, is_one
from lmmfast.residual.signatures import written
from lmmfast.residual.structure import (
    Correlation,
    ResidualStructure,
    Source,
    Values,
    level_variances,
    own_variance,
)


def antedependence(psi: Values, T: int) -> Values:
    """Products of correlations tanh(psi) between neighbours."""
    C = np.eye(T, dtype=np.result_type(psi, float))
    for j in range(T):
        for k in range(j + 1, T):
            C[j, k] = C[k, j] = np.prod(np.tanh(psi[j:k]))
    return C


class AntedependenceKind(TableKind):
    """Parametrised by inverse hyperbolic tangents of the correlations of neighbours."""

    name = "antedependence"
    definition = staticmethod(antedependence)

    def n_psi(self, T: int, bands: int | None) -> int:  # noqa: D102
        return T - 1

    def natural(self, psi: Values, setting: Setting) -> list[Values]:  # noqa: D102
        return list(np.tanh(psi))

    def names(self, setting: Setting) -> list[Natural]:  # noqa: D102
        return [
            Natural(f"rho({setting.of(f'{a},{b}')})", "correlation")
            for a, b in pairwise(setting.levels)
        ]

    def psi(self, natural: Array, setting: Setting, margin: float) -> Array:  # noqa: D102
        return artanh(natural, margin)

    def at_end(self, psi: Array, setting: Setting) -> str | None:  # noqa: D102
        return f"a correlation over {setting.where} is 1 or -1" if is_one(psi) else None

    def starts(self, E: Array, bands: int | None) -> list[Array]:  # noqa: D102
        return [np.arctanh(np.diag(E, 1))]


class Antedependence(ResidualStructure):
    """First-order ante-dependence: a correlation for each pair of neighbouring visits.

    Parameters
    ----------
    col : str or array (n,)
        Visit: levels in their order.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("antedependence", "levels", (col,), by),
            own_variance(by),
            written("Antedependence", [col], by=by),
        )


class HeterogeneousAntedependence(ResidualStructure):
    """First-order ante-dependence with a variance for each visit (SAS TYPE=ANTE(1)).

    Parameters
    ----------
    col, by
        As in `Antedependence`.
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("antedependence", "levels", (col,), by),
            level_variances(col, by),
            written("HeterogeneousAntedependence", [col], by=by),
        )
