"""First-order ante-dependence: a correlation for each pair of neighbouring visits."""

from __future__ import annotations

import numpy as np

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
