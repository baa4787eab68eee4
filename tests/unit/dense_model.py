"""V, R and M of the rows of a fit, by definition, (n, n): what diagnostics are tested against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Dense:
    """A fit's design and covariance matrices over all rows used."""

    y: np.ndarray
    X: np.ndarray
    parts: list  # Z_f D_f Z_f' of each grouping factor
    R: np.ndarray
    errors: np.ndarray | None = None  # measurement errors, where fitted values have the rest of R

    @property
    def V(self):
        return sum(self.parts, self.R)

    @property
    def V_inv(self):
        return np.linalg.inv(self.V)

    @property
    def C(self):
        return np.linalg.inv(self.X.T @ self.V_inv @ self.X)

    @property
    def P(self):
        W = self.V_inv @ self.X
        return self.V_inv - W @ self.C @ W.T

    @property
    def beta(self):
        return self.C @ self.X.T @ self.V_inv @ self.y

    @property
    def r(self):
        return self.y - self.X @ self.beta

    def left(self, factors, conditional=False):
        """M: what the effects of some factors leave of V, and at level "conditional" a process."""
        R = self.errors if conditional and self.errors is not None else self.R
        return sum((part for k, part in enumerate(self.parts) if k not in factors), R)


def dense(fit, data, y, X, effects, weights=None, correlation=None, errors=False):
    """Build the matrices from columns.

    Parameters
    ----------
    effects : list of (factor, Z)
        For each grouping factor its labels (n,) and columns of Z (n, q_f), in the order of the fit.
    correlation : ndarray (n, n), optional
        Of the residuals, already times zero between clusters; with ``errors`` of a process and of
        measurement errors, in units of the variance of these.
    errors : bool
        Whether fitted values have the process in them.
    """
    D, first, parts = fit.cov_re.to_numpy(), 0, []
    for labels, Z in effects:
        own = slice(first, first + Z.shape[1])
        same = np.asarray(labels)[:, None] == np.asarray(labels)
        parts.append(Z @ D[own, own] @ Z.T * same)
        first = own.stop
    s = np.full(len(y), fit.sigma) if weights is None else fit.sigma / np.sqrt(np.asarray(weights))
    P = np.eye(len(y)) if correlation is None else correlation
    R = s[:, None] * P * s
    alone = np.diag(s**2) if errors else None
    return Dense(np.asarray(y, float), np.asarray(X, float), parts, R, alone)
