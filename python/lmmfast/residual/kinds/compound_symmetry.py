"""Compound symmetry: one correlation between all rows of a cluster."""

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


def compound_symmetry(psi: Values, T: int) -> Values:
    """One correlation from -1 / (T - 1) to 1, by a logistic function."""
    rho = equicorrelation(psi[0], T)
    return rho + (1 - rho) * np.eye(T)


def equicorrelation(psi: Values, T: int) -> Values:
    """Correlation of compound symmetry over T positions."""
    lowest = -1.0 / (T - 1)
    return lowest + (1 - lowest) / (1 + np.exp(-psi))


class CompoundSymmetry(ResidualStructure):
    """One correlation between all rows of a cluster, down to -1/(n - 1) (SAS TYPE=CS).

    Parameters
    ----------
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).
    """

    def __init__(self, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("compound_symmetry", by=by),
            own_variance(by),
            written("CompoundSymmetry", [], by=by),
        )


class HeterogeneousCS(ResidualStructure):
    """Compound symmetry with a variance for each visit (SAS TYPE=CSH).

    Parameters
    ----------
    col : str or array (n,)
        Visit.
    by : str or array (n,), optional
        Column, constant within clusters, whose levels have their own parameters (SAS GROUP=).
    """

    def __init__(self, col: Source, *, by: Source | None = None) -> None:
        super().__init__(
            Correlation("compound_symmetry", "levels", (col,), by),
            level_variances(col, by),
            written("HeterogeneousCS", [col], by=by),
        )
