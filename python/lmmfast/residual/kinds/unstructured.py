"""Any covariance matrix of the visits."""

from __future__ import annotations

import numpy as np

from lmmfast.residual.signatures import written
from lmmfast.residual.structure import (
    Correlation,
    ResidualStructure,
    Source,
    Values,
    level_variances,
)


def unstructured(psi: Values, T: int) -> Values:
    """L L' for L with rows of length one, proportional to (psi, 1)."""
    L = np.eye(T, dtype=np.result_type(psi, float))
    L[np.tril_indices(T, -1)] = psi
    L = L / np.sqrt((L**2).sum(axis=1))[:, None]
    return L @ L.T


class Unstructured(ResidualStructure):
    """Any covariance matrix of the visits (SAS TYPE=UN, nlme's corSymm times varIdent).

    Parameters
    ----------
    col : str or array (n,)
        Visit.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own matrix (SAS GROUP=).
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("unstructured", "levels", (col,), by),
            level_variances(col, by),
            written("Unstructured", [col], by=by),
        )
