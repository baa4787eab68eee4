"""Any covariance matrix of the visits."""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import DataError
from lmmfast.residual.kind import OFF_THE_END, Natural, Setting, TableKind
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


#: Least eigenvalue of a correlation matrix that has a root.
ROUNDING = 1e-12


class UnstructuredKind(TableKind):
    """Parametrised by rows of a root of C relative to their diagonal; reports covariances."""

    name = "unstructured"
    reports_covariances = True
    definition = staticmethod(unstructured)

    def n_psi(self, T: int, bands: int | None) -> int:  # noqa: D102
        return T * (T - 1) // 2

    def natural(self, psi: Values, setting: Setting) -> list[Values]:  # noqa: D102
        return list(unstructured(psi, setting.T)[np.triu_indices(setting.T, 1)])

    def names(self, setting: Setting) -> list[Natural]:  # noqa: D102
        levels = setting.levels
        return [
            Natural(f"cov({setting.of(f'{levels[j]},{levels[k]}')})", "free")
            for j, k in zip(*np.triu_indices(setting.T, 1), strict=True)
        ]

    def psi(self, natural: Array, setting: Setting, margin: float) -> Array:  # noqa: D102
        T, margin = setting.T, max(margin, ROUNDING)
        C, upper = np.eye(T), np.triu_indices(T, 1)
        C[upper] = natural
        C.T[upper] = C[upper]
        lowest = float(np.linalg.eigvalsh(C)[0])
        if lowest < -OFF_THE_END:
            raise DataError("start has covariances of visits that are no covariance matrix")
        part = min(1.0, (1 - margin) / (1 - lowest))
        return _rows_of_root(part * C + (1 - part) * np.eye(T))

    def at_end(self, psi: Array, setting: Setting) -> str | None:  # noqa: D102
        singular = self.is_singular(psi, setting.T)
        return f"the correlation matrix of {setting.where} is singular" if singular else None

    def starts(self, E: Array, bands: int | None) -> list[Array]:  # noqa: D102
        return [_rows_of_root(_positive_definite(E))]


def _rows_of_root(C: Array) -> Array:
    """Rows of the lower triangular root of a correlation matrix, relative to their diagonal."""
    L = np.linalg.cholesky(C)
    return np.asarray((L / np.diag(L)[:, None])[np.tril_indices(len(C), -1)])


def _positive_definite(E: Array) -> Array:
    """Correlation matrix with the eigenvalues of E floored."""
    values, vectors = np.linalg.eigh(E)
    C = (vectors * np.maximum(values, 0.05)) @ vectors.T
    sd = np.sqrt(np.diag(C))
    return np.asarray(C / np.outer(sd, sd))


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
