"""First-order autoregression over visits."""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual.signatures import written
from lmmfast.residual.structure import (
    Correlation,
    ResidualStructure,
    Source,
    Values,
    level_variances,
    own_variance,
)


def ar1(psi: Values, d: Array) -> Values:
    """rho^d for whole numbers d, rho = tanh(psi)."""
    return np.tanh(psi[0]) ** np.asarray(d, dtype=np.int64)


class AR1(ResidualStructure):
    """First-order autoregression: correlation rho^lag, rho of either sign (SAS TYPE=AR(1)).

    Parameters
    ----------
    col : str or array (n,)
        Visit: whole numbers, or levels in their order. Visits that are missing keep their place.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("ar1", "positions", (col,), by),
            own_variance(by),
            written("AR1", [col], by=by),
        )


class HeterogeneousAR1(ResidualStructure):
    """First-order autoregression with a variance for each visit (SAS TYPE=ARH(1)).

    Parameters
    ----------
    col, by
        As in `AR1`.
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("ar1", "positions", (col,), by),
            level_variances(col, by),
            written("HeterogeneousAR1", [col], by=by),
        )
