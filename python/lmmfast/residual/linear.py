"""Residual structures whose R is linear in some parameters: entries of R over all visits.

Second derivatives of V by the working parameters then play no part but through these entries: the
Hessian of the likelihood has a closed form (docs/residual.md, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.residual.layout import ResidualParameters
from lmmfast.residual.model import ResidualModel
from lmmfast.residual.structures import ResidualStructure

#: Correlations that with one variance are linear in covariances.
HOMOGENEOUS_LINEAR = ("compound_symmetry", "toeplitz", "banded_toeplitz")
#: Step of differences of derivatives by logarithms and angles.
STEP = 1e-4


def has_linear_residuals(structure: ResidualStructure) -> bool:
    """Whether R is linear in some parameters: its second derivatives play no part then.

    At an interior optimum information transforms as a tensor, and the bias of Kenward and Roger is
    expanded by the parameters in which V is linear, as SAS PROC MIXED does.
    """
    correlation, variances = structure.correlation, structure.variances
    if any(variance.kind != "levels" for variance in variances) or len(variances) > 1:
        return False
    if correlation is None:
        return True
    if correlation.nugget:
        return False
    if correlation.kind == "unstructured":
        return len(variances) == 1
    shared = () if correlation.by is None else (correlation.by,)
    own = variances[0].columns if variances else ()
    same = len(own) == len(shared) and all(
        a is b or str(a) == str(b) for a, b in zip(own, shared, strict=True)
    )
    return correlation.kind in HOMOGENEOUS_LINEAR and same


@dataclass(frozen=True, eq=False)
class LinearEntries:
    """Entries of Rdot over all visits by the working parameters kappa.

    Parameters
    ----------
    parameters : ResidualParameters
        Of a structure that `has_linear_residuals`, over positions.
    G : ndarray (n_strata, T, n_variance)
        Log standard deviations of a visit are G kappa.
    """

    parameters: ResidualParameters
    G: Array

    def jacobian(self, kappa: Array) -> Array:
        """Derivatives of the entries on and below the diagonal, (n_entries, n_params)."""
        parameters, T = self.parameters, self.parameters.T
        row, column = np.tril_indices(T)
        n_variance = parameters.n_variance
        blocks = []
        for stratum, G in zip(parameters.strata, self.G, strict=True):
            assert parameters.correlation is not None
            psi = np.ascontiguousarray(kappa[stratum.psi])
            C, dC = core.residual_table(parameters.correlation.kind, T, psi)
            s = np.exp(G @ kappa[:n_variance])
            sd = s[row] * s[column]
            block = np.zeros((len(row), parameters.n_params))
            block[:, :n_variance] = (sd * C[row, column])[:, None] * (G[row] + G[column])
            block[:, stratum.psi] = sd[:, None] * dC[:, row, column].T
            blocks.append(block)
        return np.concatenate(blocks)

    def bend(self, kappa: Array, score: Array) -> Array:
        """Second derivatives by kappa of the entries, weighted by the score by them, (K, K).

        Parameters
        ----------
        score : ndarray (K,)
            By kappa: that by the entries follows.
        """
        by_entries = np.linalg.lstsq(self.jacobian(kappa).T, score, rcond=None)[0]
        rows = []
        for k in range(len(kappa)):
            ends = []
            for side in (1.0, -1.0):
                moved = kappa.copy()
                moved[k] += side * STEP
                ends.append(self.jacobian(moved).T @ by_entries)
            rows.append((ends[0] - ends[1]) / (2 * STEP))
        bent = np.array(rows)
        return 0.5 * (bent + bent.T)


def linear_entries(model: ResidualModel) -> LinearEntries | None:
    """Entries of R over all visits; None where R is not linear, or not all visits are seen."""
    parameters = model.parameters
    if model.positions is None or not has_linear_residuals(model.structure):
        return None
    T, n_variance = parameters.T, parameters.n_variance
    stratum = np.repeat(model.stratum, np.diff(model.ptr))
    G = np.zeros((len(parameters.strata), T, n_variance))
    seen = np.zeros(G.shape[:2], dtype=bool)
    seen[stratum, model.positions] = True
    if not seen.all():
        return None
    if model.G is not None:
        G[stratum, model.positions] = model.G
    return LinearEntries(parameters, G)
