"""Reference engine: dense NumPy, one cluster after the other, no tricks. The specification."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmmfast.covariance import Array, vech_pairs
from lmmfast.engine import Totals


class ReferenceEngine:
    """Form each V_i (n_i, n_i) and invert it. Cost O(sum n_i^3).

    Parameters
    ----------
    A : ndarray (n, p + 1)
        [X y], rows of a cluster together.
    Z : ndarray (n, q)
    weights : ndarray (n,) or None
        R_i = sigma2 diag(1 / w).
    ptr : ndarray of int (m + 1,)
        Rows of cluster i are ``ptr[i]:ptr[i + 1]``.
    """

    name = "reference"
    n_designs = None

    def __init__(self, A: Array, Z: Array, weights: Array | None, ptr: NDArray[np.int64]) -> None:
        self.A, self.Z, self.ptr = A, Z, ptr
        self.R_diag = np.ones(len(A)) if weights is None else 1.0 / weights

    def _clusters(self) -> list[slice]:
        return [slice(a, b) for a, b in zip(self.ptr[:-1], self.ptr[1:], strict=True)]

    @property
    def gram(self) -> Array:
        """Sum of A_i'W_i A_i, (p + 1, p + 1)."""
        return self.A.T @ (self.A / self.R_diag[:, None])

    def beside_Z(self) -> tuple[Array, int]:
        """Cross-products of what of W^1/2 A lies beside W^1/2 Z, and the sum of the ranks."""
        perp, rank = np.zeros((self.A.shape[1], self.A.shape[1])), 0
        for i in self._clusters():
            root = np.sqrt(1.0 / self.R_diag[i])[:, None]
            A, Z = root * self.A[i], root * self.Z[i]
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
        K = len(row)
        logdet = 0.0
        gram, trace, info = np.zeros((p1, p1)), np.zeros(K), np.zeros((K, K))
        quad, kr = np.zeros((K, p1, p1)), np.zeros((K, K, p1, p1))
        for i in self._clusters():
            A, Z, R_diag = self.A[i], self.Z[i], self.R_diag[i]
            V = Z @ Lambda @ Lambda.T @ Z.T + np.diag(R_diag)
            V_inv = np.linalg.inv(V)
            dV = np.einsum("na,mb->abnm", Z, Z)
            dV = dV[row, column] + np.where(row == column, 0, 1)[:, None, None] * dV[column, row]
            V_inv_dV = V_inv @ dV
            logdet += np.linalg.slogdet(V)[1] - np.log(R_diag).sum()
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
        for i in self._clusters():
            ZL = self.Z[i] @ Lambda
            V = ZL @ ZL.T + np.diag(self.R_diag[i])
            effects.append(root @ ZL.T @ np.linalg.solve(V, self.A[i] @ c))
        return np.array(effects)

    def random_effects_cov(self, Lambda: Array, root: Array) -> Array:
        """Var(root u | y) / sigma2 = root (I - Lambda'Z'V^-1 Z Lambda) root', (m, q, q)."""
        variances = []
        for i in self._clusters():
            ZL = self.Z[i] @ Lambda
            V = ZL @ ZL.T + np.diag(self.R_diag[i])
            inner = np.eye(len(Lambda)) - ZL.T @ np.linalg.solve(V, ZL)
            variances.append(root @ inner @ root.T)
        return np.array(variances)
