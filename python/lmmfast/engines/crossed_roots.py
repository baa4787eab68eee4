"""Crossed factors of few levels by orthogonal factors: where D is very large beside sigma2.

Elimination works on cross-products, which lose all digits of what is left of y and X as D grows:
the error of the log-likelihood is that of rounding times D / sigma2. Of the rows themselves it is
rounding times the root of that. With J = W^(1/2) Z Lambda and A = W^(1/2) [X y],

    [J; I] = Q R,    Q'[A; 0] = [.; E],    Q'[W^(1/2) Z; 0] = [.; P]

give log|V| = 2 sum log|R_ii|, A'V^-1 A = E'E, Z'V^-1 A = P'E, Z'V^-1 Z = P'P: no differences.
Rows are sorted by size and columns pivoted: Cox and Higham (1998).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.engines.engine import Working
from lmmfast.grouping.levels import Levels
from lmmfast.packing.compress import CHUNK_ROWS

#: Most effects of all levels.
MOST_EFFECTS = 600
#: Entries of the dense rows that are made at a time.
CHUNK_ENTRIES = 4_000_000


@dataclass(frozen=True)
class RootRows:
    """Rows reduced to the triangular factor of W^(1/2) [Z X y].

    Attributes
    ----------
    Z : ndarray (r, N)
        Its columns of the effects, those of a factor's levels one after the other.
    A : ndarray (r, p + 1)
    columns : tuple of ndarray of int (F,)
        Columns of Z of each factor.
    effects : list of ndarray of int (m_f, q_f)
        Positions of the effects of each factor's levels.
    """

    Z: Array
    A: Array
    columns: tuple[NDArray[np.intp], ...]
    effects: list[NDArray[np.int64]]

    def at(self, Lambda: Array, keep: NDArray[np.intp]) -> OrthogonalFactors:
        """Factorise at Ddot = Lambda Lambda', with the columns of X that are in use."""
        J = np.empty_like(self.Z)
        for columns, at in zip(self.columns, self.effects, strict=True):
            own = Lambda[np.ix_(columns, columns)]
            J[:, at] = np.einsum("rjb,ba->rja", self.Z[:, at], own)
        return OrthogonalFactors(J, self.Z, self.A, keep)


class OrthogonalFactors:
    """V^-1 at one D.

    Parameters
    ----------
    J, Z : ndarray (r, N)
    A : ndarray (r, p + 1)
    keep : ndarray of int
        Columns of X in use.

    Attributes
    ----------
    shift : ndarray (p,)
        Nearly the generalised least squares estimate: ``gram`` and ``v`` are of [X, y - X shift].
    """

    def __init__(self, J: Array, Z: Array, A: Array, keep: NDArray[np.intp]) -> None:
        from scipy.linalg import lapack

        n_rows, N = J.shape
        order = np.argsort(-np.abs(J).max(axis=1), kind="stable")
        stacked = np.asfortranarray(np.vstack([J[order], np.eye(N)]))
        factors, pivots, tau, _, _ = lapack.dgeqp3(stacked, overwrite_a=1)
        right = np.zeros((n_rows + N, A.shape[1] + N), order="F")
        right[:n_rows] = np.hstack([A[order], Z[order]])
        size = max(1, 32 * right.shape[1])
        turned, _, info = lapack.dormqr("L", "T", factors, tau, right, size, overwrite_c=1)
        assert info == 0
        self._R, self._pivots = np.triu(factors[:N]), pivots - 1
        self._top, rest = turned[:N, : A.shape[1]], turned[N:]
        self._E, self._P = rest[:, : A.shape[1]].copy(), rest[:, A.shape[1] :]
        self.shift = np.zeros(A.shape[1] - 1)
        if len(keep):
            X = self._E[:, keep]
            size = np.sqrt(np.einsum("ij,ij->j", X, X))
            size[size == 0.0] = 1.0
            self.shift[keep] = np.linalg.lstsq(X / size, self._E[:, -1])[0] / size
            self._E[:, -1] -= self._E[:, :-1] @ self.shift

    @property
    def logdet(self) -> float:
        """log|Vdot|, without that of the weights."""
        return 2.0 * float(np.log(np.abs(np.diag(self._R))).sum())

    @property
    def gram(self) -> Array:
        """A'V^-1 A (p + 1, p + 1)."""
        return np.asarray(self._E.T @ self._E)

    @cached_property
    def v(self) -> Array:
        """Z'V^-1 A (N, p + 1)."""
        return np.ascontiguousarray(self._P.T @ self._E)

    @cached_property
    def T(self) -> Array:
        """Z'V^-1 Z (N, N)."""
        return np.asarray(self._P.T @ self._P)

    def scaled_effects(self, c: Array) -> Array:
        """Predictions u (N,), where b = Lambda u, for A c."""
        from scipy.linalg import solve_triangular

        out = np.empty(len(self._R))
        out[self._pivots] = solve_triangular(self._R, self._top @ c)
        return out

    @cached_property
    def scaled_root(self) -> Array:
        """Root (N, N) of Var(u | y) / sigma2."""
        from scipy.linalg import solve_triangular

        out = np.empty_like(self._R)
        out[self._pivots] = solve_triangular(self._R, np.eye(len(self._R)))
        return out


def root_rows(levels: Levels, working: Working) -> RootRows:
    """Reduce the rows to a triangular factor, chunk by chunk.

    Parameters
    ----------
    levels : Levels
        With at most `MOST_EFFECTS` effects.
    working : callable
        Gives A (k, p + 1), Z (k, q) and weights (k,) or None of some rows, in the working basis.
    """
    effects, N = [], 0
    for m, columns in zip(levels.counts, levels.columns, strict=True):
        effects.append(N + np.arange(m * len(columns)).reshape(m, -1))
        N += effects[-1].size
    step = max(1, min(CHUNK_ROWS, CHUNK_ENTRIES // (N + 1)))
    reduced: Any = None
    for begin in range(0, levels.n, step):
        end = min(begin + step, levels.n)
        A, Z, weights = working(slice(begin, end))
        rows = np.zeros((end - begin, N + A.shape[1]))
        rows[:, N:] = A
        for codes, columns, at in zip(levels.codes, levels.columns, effects, strict=True):
            rows[np.arange(len(rows))[:, None], at[codes[begin:end]]] = Z[:, columns]
        if weights is not None:
            rows *= np.sqrt(weights)[:, None]
        stacked = rows if reduced is None else np.vstack([reduced, rows])
        reduced = stacked if len(stacked) <= stacked.shape[1] else np.linalg.qr(stacked, mode="r")
    return RootRows(np.ascontiguousarray(reduced[:, :N]), reduced[:, N:], levels.columns, effects)
