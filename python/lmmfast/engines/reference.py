"""Reference engine: dense NumPy, one cluster after the other, no tricks. The specification."""

from __future__ import annotations

import copy

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array, vech_pairs
from lmmfast.engines.engine import BaseEngine
from lmmfast.engines.totals import Totals
from lmmfast.residual.dense import residual_covariance
from lmmfast.residual.model import ResidualModel


class ReferenceEngine(BaseEngine):
    """Form each V_i (n_i, n_i) and invert it. Cost O(sum n_i^3).

    Parameters
    ----------
    A : ndarray (n, p + 1)
        [X y], rows of a cluster together.
    Z : ndarray (n, q)
    weights : ndarray (n,) or None
        R_i = sigma2 diag(1 / w), or what takes the place of the identity within W^-1/2 . W^-1/2.
    ptr : ndarray of int (m + 1,)
        Rows of cluster i are ``ptr[i]:ptr[i + 1]``.
    residual : ResidualModel, optional
        Structure of the residuals other than independence.
    """

    name = "reference"
    n_designs = None

    def __init__(
        self,
        A: Array,
        Z: Array,
        weights: Array | None,
        ptr: NDArray[np.int64],
        residual: ResidualModel | None = None,
    ) -> None:
        self.A, self.Z, self.ptr = A, Z, ptr
        self.R_diag = np.ones(len(A)) if weights is None else 1.0 / weights
        self.residual, self.kappa = residual, np.empty(0)

    def at(self, kappa: Array) -> ReferenceEngine:
        """Return the same engine at other parameters of the residual structure."""
        new = copy.copy(self)
        new.kappa = kappa
        return new

    def _clusters(self) -> list[tuple[int, slice]]:
        ends = zip(self.ptr[:-1], self.ptr[1:], strict=True)
        return [(i, slice(a, b)) for i, (a, b) in enumerate(ends)]

    def _R(self, i: int, rows: slice) -> tuple[Array, Array]:
        """Rdot_i (n_i, n_i) and its derivatives (K_R, n_i, n_i)."""
        model = self.residual
        if model is None:
            return np.diag(self.R_diag[rows]), np.empty((0, rows.stop - rows.start, 1))
        return residual_covariance(
            model.parameters,
            model.parameters.strata[model.stratum[i]],
            self.kappa,
            None if model.G is None else model.G[rows],
            None if model.positions is None else model.positions[rows],
            None if model.coords is None else model.coords[rows],
            np.sqrt(self.R_diag[rows]),
        )

    def residual_covariance(self) -> tuple[Array, Array]:
        """Rdot (n, n) of all rows and its derivatives (K_R, n, n)."""
        n = len(self.A)
        K_R = 0 if self.residual is None else self.residual.parameters.n_params
        R, dR = np.zeros((n, n)), np.zeros((K_R, n, n))
        for i, rows in self._clusters():
            R[rows, rows], dR_i = self._R(i, rows)
            dR[:, rows, rows] = dR_i[:K_R]
        return R, dR

    @property
    def gram(self) -> Array:
        """Sum of A_i'W_i A_i, (p + 1, p + 1)."""
        return self.A.T @ (self.A / self.R_diag[:, None])

    def beside_Z(self) -> tuple[Array, int]:
        """Cross-products of what of W^1/2 A lies beside W^1/2 Z, and the sum of the ranks."""
        perp, rank = np.zeros((self.A.shape[1], self.A.shape[1])), 0
        for _, rows in self._clusters():
            root = np.sqrt(1.0 / self.R_diag[rows])[:, None]
            A, Z = root * self.A[rows], root * self.Z[rows]
            Q, sizes, _ = np.linalg.svd(Z, full_matrices=False)
            Q = Q[:, sizes > 1e-13 * sizes[0]]
            rest = A - Q @ (Q.T @ A)
            perp += rest.T @ rest
            rank += Q.shape[1]
        return perp, rank

    def totals(self, Lambda: Array, with_kr: bool = False) -> Totals:
        """Totals at Ddot = Lambda Lambda'; ``logdet`` leaves out log|W^-1|, as all engines do."""
        q, p1 = self.Z.shape[1], self.A.shape[1]
        row, column = vech_pairs(q)
        K = len(row) + (0 if self.residual is None else self.residual.parameters.n_params)
        logdet = 0.0
        gram, trace, info = np.zeros((p1, p1)), np.zeros(K), np.zeros((K, K))
        quad, kr = np.zeros((K, p1, p1)), np.zeros((K, K, p1, p1))
        for i, rows in self._clusters():
            A, Z = self.A[rows], self.Z[rows]
            R, dR = self._R(i, rows)
            V = Z @ Lambda @ Lambda.T @ Z.T + R
            try:
                np.linalg.cholesky(V)
            except np.linalg.LinAlgError:
                return Totals(np.inf, gram * np.nan, trace, quad, info)
            V_inv = np.linalg.inv(V)
            dV = np.einsum("na,mb->abnm", Z, Z)
            dV = dV[row, column] + np.where(row == column, 0, 1)[:, None, None] * dV[column, row]
            if self.residual is not None:
                dV = np.concatenate([dV, dR])
            V_inv_dV = V_inv @ dV
            logdet += np.linalg.slogdet(V)[1] - np.log(self.R_diag[rows]).sum()
            gram += A.T @ V_inv @ A
            trace += np.trace(V_inv_dV, axis1=1, axis2=2)
            info += 0.5 * np.einsum("kij,lji->kl", V_inv_dV, V_inv_dV)
            quad += A.T @ V_inv_dV @ V_inv @ A
            if with_kr:
                kr += A.T @ (V_inv_dV[:, None] @ V_inv_dV[None, :]) @ V_inv @ A
        return Totals(logdet, gram, trace, quad, info, kr if with_kr else None)

    def random_effects(self, Lambda: Array, root: Array, c: Array) -> Array:
        """Predictions root Lambda'Z'V^-1 r (m, q) for r = A c."""
        effects = []
        for i, rows in self._clusters():
            ZL = self.Z[rows] @ Lambda
            V = ZL @ ZL.T + self._R(i, rows)[0]
            effects.append(root @ ZL.T @ np.linalg.solve(V, self.A[rows] @ c))
        return np.array(effects)

    def random_effects_cov(self, Lambda: Array, root: Array) -> Array:
        """Var(root u | y) / sigma2 = root (I - Lambda'Z'V^-1 Z Lambda) root', (m, q, q)."""
        variances = []
        for i, rows in self._clusters():
            ZL = self.Z[rows] @ Lambda
            V = ZL @ ZL.T + self._R(i, rows)[0]
            inner = np.eye(len(Lambda)) - ZL.T @ np.linalg.solve(V, ZL)
            variances.append(root @ inner @ root.T)
        return np.array(variances)

    def whitened(self, Lambda: Array, c: Array) -> Array:
        """L^-1 A c (n,) with Vdot_i = L L'."""
        out = np.empty(len(self.A))
        for i, rows in self._clusters():
            ZL = self.Z[rows] @ Lambda
            L = np.linalg.cholesky(ZL @ ZL.T + self._R(i, rows)[0])
            out[rows] = np.linalg.solve(L, self.A[rows] @ c)
        return out
