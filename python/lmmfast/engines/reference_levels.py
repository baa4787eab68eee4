"""Reference engine for several grouping factors: V (n, n) of all rows. The specification."""

from __future__ import annotations

import copy

import numpy as np

from lmmfast.arrays import Array, vech_pairs
from lmmfast.engines.engine import BaseEngine
from lmmfast.engines.reference import ReferenceEngine
from lmmfast.engines.totals import Totals
from lmmfast.grouping.levels import Levels


class LevelsReferenceEngine(BaseEngine):
    """Form V of all rows and invert it. Cost O(n^3).

    Parameters
    ----------
    A : ndarray (n, p + 1)
        [X y], in the order of ``levels.codes``.
    Z : ndarray (n, q)
        The columns of all terms.
    weights : ndarray (n,) or None
    levels : Levels
    residuals : ReferenceEngine, optional
        Gives R where residuals have a structure; its clusters are rows that lie together.
    """

    name = "reference"
    n_designs = None

    def __init__(
        self,
        A: Array,
        Z: Array,
        weights: Array | None,
        levels: Levels,
        residuals: ReferenceEngine | None = None,
    ) -> None:
        self.A, self.Z, self.levels, self.residuals = A, Z, levels, residuals
        self.R_diag = np.ones(len(A)) if weights is None else 1.0 / weights

    @property
    def gram(self) -> Array:
        """Sum of A'W A, (p + 1, p + 1)."""
        return self.A.T @ (self.A / self.R_diag[:, None])

    @property
    def log_weights(self) -> float:
        """Sum of the logarithms of the weights."""
        return float(-np.log(self.R_diag).sum())

    def at(self, kappa: Array) -> LevelsReferenceEngine:
        """Return the same engine at other parameters of the residual structure."""
        new = copy.copy(self)
        new.residuals = None if self.residuals is None else self.residuals.at(kappa)
        return new

    def _R(self) -> tuple[Array, Array]:
        """Rdot (n, n) and its derivatives (K_R, n, n)."""
        if self.residuals is None:
            return np.diag(self.R_diag), np.empty((0, len(self.A), len(self.A)))
        return self.residuals.residual_covariance()

    def _same(self, factor: int) -> Array:
        """Indicator (n, n) of rows of one level."""
        codes = self.levels.codes[factor]
        return (codes[:, None] == codes[None, :]).astype(float)

    def _dV(self) -> Array:
        """Derivatives of V by vech(Ddot), (K, n, n): zero between effects of different factors."""
        row, column = vech_pairs(self.Z.shape[1])
        dV = np.zeros((len(row), len(self.A), len(self.A)))
        for factor, columns in enumerate(self.levels.columns):
            same = self._same(factor)
            for k, (a, b) in enumerate(zip(row, column, strict=True)):
                if a in columns and b in columns:
                    block = np.outer(self.Z[:, a], self.Z[:, b]) * same
                    dV[k] = block if a == b else block + block.T
        return dV

    def _V(self, Lambda: Array) -> Array:
        D = Lambda @ Lambda.T
        row, column = vech_pairs(len(D))
        return np.tensordot(D[row, column], self._dV(), 1) + self._R()[0]

    def totals(self, Lambda: Array, with_kr: bool = False) -> Totals:
        """Totals at Ddot = Lambda Lambda'; ``logdet`` leaves out log|W^-1|, as all engines do."""
        A, V = self.A, self._V(Lambda)
        dV = np.concatenate([self._dV(), self._R()[1]])
        try:
            np.linalg.cholesky(V)
        except np.linalg.LinAlgError:
            K, p1 = len(dV), A.shape[1]
            empty = np.zeros((K, p1, p1))
            return Totals(np.inf, empty[0] * np.nan, np.zeros(K), empty, np.zeros((K, K)))
        V_inv = np.linalg.inv(V)
        V_inv_dV = V_inv @ dV
        W = V_inv @ A
        dV_W = dV @ W
        kr = None
        if with_kr:
            kr = dV_W.transpose(0, 2, 1)[:, None] @ (V_inv @ dV_W)[None]
        return Totals(
            logdet=float(np.linalg.slogdet(V)[1] - np.log(self.R_diag).sum()),
            gram=A.T @ V_inv @ A,
            trace=np.trace(V_inv_dV, axis1=1, axis2=2),
            quad=W.T @ dV_W,
            info=0.5 * np.tensordot(V_inv_dV, V_inv_dV.transpose(0, 2, 1), ([1, 2], [1, 2])),
            kr=kr,
        )

    def _spread(self, Lambda: Array, factor: int) -> Array:
        """Columns (n, m_f q_f) that take root-scale effects u of a factor's levels to rows."""
        columns, codes = self.levels.columns[factor], self.levels.codes[factor]
        ZL = (self.Z @ Lambda)[:, columns]
        out = np.zeros((len(codes), self.levels.counts[factor], len(columns)))
        out[np.arange(len(codes)), codes] = ZL
        return out.reshape(len(codes), -1)

    def random_effects(self, Lambda: Array, root: Array, c: Array) -> list[Array]:
        """Predictions root u of each factor, (m_f, q_f), where b = Lambda u."""
        weighted = np.linalg.solve(self._V(Lambda), self.A @ c)
        effects = []
        for factor, columns in enumerate(self.levels.columns):
            u = (self._spread(Lambda, factor).T @ weighted).reshape(-1, len(columns))
            effects.append(u @ root[np.ix_(columns, columns)].T)
        return effects

    def random_effects_cov(self, Lambda: Array, root: Array) -> list[Array]:
        """Var(root u | y) / sigma2 of each level of each factor, (m_f, q_f, q_f)."""
        V, found = self._V(Lambda), []
        for factor, columns in enumerate(self.levels.columns):
            own, m, q = root[np.ix_(columns, columns)], self.levels.counts[factor], len(columns)
            ZL = self._spread(Lambda, factor)
            inner = np.eye(m * q) - ZL.T @ np.linalg.solve(V, ZL)
            blocks = inner.reshape(m, q, m, q)[np.arange(m), :, np.arange(m)]
            found.append(own @ blocks @ own.T)
        return found

    def whitened(self, Lambda: Array, c: Array) -> Array:
        """L^-1 A c (n,) with Vdot = L L'."""
        return np.asarray(np.linalg.solve(np.linalg.cholesky(self._V(Lambda)), self.A @ c))
