"""Many rows that hang together by the levels of several grouping factors: V^-1 by Woodbury.

V^-1 = R^-1 - R^-1 F (I + F'R^-1 F)^-1 F'R^-1 with V = F F' + R, F = Z Lambda sparse and R
block-diagonal: one sparse factorisation of the size of the random effects.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import TooLargeError
from lmmfast.prediction.blocks_levels import FittedLevels, Index, LevelBlock
from lmmfast.prediction.mse import Solver

#: Rows, and effects of all crossed factors but the one with the most, that are factorised.
MAX_ROWS = 500_000
MAX_CROSSED = 5_000


class SparseLevelBlock(LevelBlock):
    """A `LevelBlock` without V."""

    @cached_property
    def _levels(self) -> list[Index]:
        """Levels (n,) of the rows of this block in each factor, counted from zero."""
        return [np.unique(codes, return_inverse=True)[1] for codes in self._codes]

    def _sparse(self, factor: int, columns: Array) -> Any:
        """Columns (n, q_f) of a factor, in those of the level of each row: (n, m_f q_f)."""
        from scipy.sparse import csr_array

        level, (n, q) = self._levels[factor], columns.shape
        at = level[:, None] * q + np.arange(q)
        shape = (n, (int(level.max()) + 1) * q)
        return csr_array((columns.ravel(), at.ravel(), np.arange(n + 1) * q), shape=shape)

    @cached_property
    def _Z_of(self) -> list[Any]:
        return [
            self._sparse(factor, self._Z[:, columns])
            for factor, columns in enumerate(self._rows.columns)
        ]

    def factor(self) -> Solver:
        """Factorise I + F'R^-1 F."""
        from scipy.sparse import csc_array, eye_array, hstack
        from scipy.sparse.linalg import splu

        parts = []
        for factor, columns in enumerate(self._rows.columns):
            values, vectors = np.linalg.eigh(self._theta.D[np.ix_(columns, columns)])
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            parts.append(self._sparse(factor, self._Z[:, columns] @ root))
        F, inverse = csc_array(hstack(parts)), self._sparse_residuals(None, inverse=True)
        M = csc_array(eye_array(F.shape[1]) + F.T @ inverse @ F)
        options = {"SymmetricMode": True}
        lu = splu(M, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
        return SparseSolver(F, inverse, lu)

    def dV(self, k: int, rows: Index, u: Array) -> Array:
        """V_k u."""
        E, of_R = self._theta.of_D(k), self._theta.of_R(k)
        if E is None:
            if self._last is None or self._last[0] != k:
                self._last = k, self._sparse_residuals(of_R)
            return np.asarray((self._last[1] @ u.T).T)
        out = np.zeros_like(u)
        for Z, columns in zip(self._Z_of, self._rows.columns, strict=True):
            own = E[np.ix_(columns, columns)]
            if own.any():
                inner = (Z.T @ u.T).reshape(-1, len(columns), len(u))
                out += (Z @ np.einsum("ab,mbN->maN", own, inner).reshape(-1, len(u))).T
        return out

    def _sparse_residuals(self, k: int | None, inverse: bool = False) -> Any:
        """R, its inverse, or its derivative by the k-th of (kappa, sigma2), (n, n)."""
        from scipy.sparse import block_diag, csr_array, diags_array

        if self._rows.known is None:
            value = self._sds**2 if k is None else self._sds**2 / self._theta.sigma2
            return csr_array(diags_array(1 / value if inverse else value))
        blocks = [(own.value if k is None else own.derivative(k))[0] for *_, own in self._clusters]
        return csr_array(block_diag([np.linalg.inv(b) if inverse else b for b in blocks]))


class SparseSolver:
    """V^-1 of one block, by Woodbury's identity.

    Parameters
    ----------
    F : sparse array (n, Q)
    inverse : sparse array (n, n)
        R^-1.
    lu : SuperLU
        Of I + F'R^-1 F.
    """

    def __init__(self, F: Any, inverse: Any, lu: Any) -> None:
        self._F, self._inverse, self._lu = F, inverse, lu

    def solve(self, own: Index, u: Array) -> Array:
        """V^-1 u (N, n)."""
        weighted = self._inverse @ u.T
        inner = self._lu.solve(np.ascontiguousarray(self._F.T @ weighted))
        return np.asarray((weighted - self._inverse @ (self._F @ inner)).T)

    def of_blocks(self, U: Array) -> Array:
        """V^-1 U (1, n, m)."""
        return self.solve(np.zeros(U.shape[2], dtype=np.intp), U[0].T).T[None]

    def size(self, K: int) -> int:
        """Count the numbers that work on a target takes, of K parameters."""
        return self._F.shape[0] * max(K, 1)


def check_sparse_size(rows: FittedLevels, places: Index) -> None:
    """Refuse what takes too long to factorise.

    Raises
    ------
    TooLargeError
    """
    effects = sorted(
        len(np.unique(codes[places])) * len(columns)
        for codes, columns in zip(rows.codes, rows.columns, strict=True)
    )
    crossed = 0 if rows.nested else sum(effects[:-1])
    if len(places) > MAX_ROWS or crossed > MAX_CROSSED:
        raise TooLargeError(
            "errors of conditional predictions take all rows that hang together by the levels that "
            f"they share, {len(places):,} here with {crossed:,} crossed effects; at most "
            f"{MAX_ROWS:,} and {MAX_CROSSED:,}: leave se= and interval= out, or predict at "
            "level='population'"
        )
