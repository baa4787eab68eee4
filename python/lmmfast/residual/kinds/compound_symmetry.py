"""Compound symmetry: one correlation between all rows of a cluster."""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.residual.kind import AT_END, Natural, Setting, TableKind
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


class CompoundSymmetryKind(TableKind):
    """Parametrised by the logit of the part of the way from -1 / (T - 1) to 1."""

    name = "compound_symmetry"
    definition = staticmethod(compound_symmetry)

    def n_psi(self, T: int, bands: int | None) -> int:  # noqa: D102
        return 1

    def natural(self, psi: Values, setting: Setting) -> list[Values]:  # noqa: D102
        return [equicorrelation(psi[0], setting.T)]

    def names(self, setting: Setting) -> list[Natural]:  # noqa: D102
        return [Natural(f"cor({setting.of('Residual')})", "correlation")]

    def psi(self, natural: Array, setting: Setting, margin: float) -> Array:  # noqa: D102
        lowest = -1.0 / (setting.T - 1)
        share = np.clip((natural - lowest) / (1 - lowest), margin, 1 - margin)
        return np.asarray(np.log(share / (1 - share)))

    def at_end(self, psi: Array, setting: Setting) -> str | None:  # noqa: D102
        if abs(psi[0]) <= np.log(1 / AT_END):
            return None
        end = "1" if psi[0] > 0 else f"-1/{setting.T - 1}"
        return f"the common correlation of {setting.where} is {end}"

    def starts(self, E: Array, bands: int | None) -> list[Array]:  # noqa: D102
        lowest = -1.0 / (len(E) - 1)
        mean = np.mean(E[np.triu_indices(len(E), 1)])
        share = np.clip((mean - lowest) / (1 - lowest), 0.02, 0.98)
        return [np.array([np.log(share / (1 - share))])]


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
