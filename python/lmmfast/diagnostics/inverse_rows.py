"""Rows of V^-1 X and V^-1 (y - X beta), and the diagonal of V^-1, without any V where it can be.

With independent residuals and V = W^-1/2 (I + F F') W^-1/2 sigma2, V^-1 takes matrices of q by q
(Woodbury): one for each group, all of them side by side, or of several grouping factors one for all
of their effects together. Else V of each block of rows is formed (blocks.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK, Batch
from lmmfast.diagnostics.blocks import V_inverse, blocks
from lmmfast.inference.fixed_rows import columns_of_X

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: Effects of several grouping factors whose matrix is formed and inverted.
MAX_EFFECTS = 5000


@dataclass(frozen=True, eq=False)
class InverseRows:
    """Some rows, of whole blocks of V, in coordinates in which X'V^-1 X is the identity.

    With G G' = (X'V^-1 X)^-1:

    Attributes
    ----------
    rows : ndarray of int (k,)
        Which of the rows used; those of a group together where the grouping factor is one.
    X : ndarray (k, p)
        X G.
    r : ndarray (k,)
        y - X beta.
    inverse_X : ndarray (k, p)
        V^-1 X G.
    inverse_r : ndarray (k,)
        V^-1 (y - X beta).
    diagonal : ndarray (k,)
        Of V^-1.
    """

    rows: NDArray[np.intp]
    X: Array
    r: Array
    inverse_X: Array
    inverse_r: Array
    diagonal: Array


def inverse_rows(fit: LMMResult) -> Iterator[InverseRows]:
    """Go over the rows used, those of a block of V together.

    Raises
    ------
    DataError
        A fit that holds no data.
    TooLargeError
        Grouping factors with more than `MAX_EFFECTS` effects and more rows that hang together than
        V is formed of.
    """
    fit._check_data()
    if fit._residual_model is None and len(fit._grouping) == 1:
        return _of_groups(fit)
    if fit._residual_model is None and n_effects(fit) <= MAX_EFFECTS:
        return _of_all_effects(fit)
    return _of_blocks(fit)


def n_effects(fit: LMMResult) -> int:
    """Random effects of all groups of all factors together."""
    return sum(len(term.names) * fit._grouping[term.group][0] for term in fit.terms)


def coefficient_root(fit: LMMResult) -> Array:
    """G (p, p), with G G' the covariance matrix (X'V^-1 X)^-1 of beta."""
    return np.asarray(np.linalg.cholesky(fit._estimates.cov_beta), dtype=np.float64)


def design_rows(fit: LMMResult, batch: Batch, root: Array) -> tuple[Array, Array]:
    """X G (k, p) and y - X beta (k,) of a batch of rows."""
    assert batch.y is not None
    X = columns_of_X(batch, fit._keep, len(batch.y))
    r = batch.y - X @ fit._estimates.beta
    if batch.offset is not None:
        r = r - batch.offset
    return X @ root, r


def effect_rows(fit: LMMResult, batch: Batch) -> Array:
    """Z L (k, q) with D = L L', less a factor sigma, by way of the working basis."""
    Z = np.column_stack(batch.Z) if batch.Z else np.empty((len(batch.X[0]), 0))
    scale = np.sqrt(fit._unit / fit.scale)
    return np.asarray((Z @ fit._basis.z_map()) @ fit._Lambda * scale)


def _of_groups(fit: LMMResult) -> Iterator[InverseRows]:
    design, root = fit._need(fit._design, "diagnostics"), coefficient_root(fit)
    for ptr, rows in group_chunks(fit, CHUNK):
        batch = design.batch(rows).as_float()
        X, r = design_rows(fit, batch, root)
        F = effect_rows(fit, batch)
        w = np.ones(len(r)) if batch.weights is None else batch.weights
        F *= np.sqrt(w)[:, None]
        A = np.column_stack([X, r]) * np.sqrt(w / fit.scale)[:, None]
        starts, sizes = ptr[:-1], np.diff(ptr)
        q = F.shape[1]
        B = by_group(F[:, :, None] * F[:, None, :], starts)
        B[:, range(q), range(q)] += 1.0
        inverse = np.linalg.inv(B)
        U = inverse @ by_group(F[:, :, None] * A[:, None, :], starts)
        A -= np.einsum("nq,nqp->np", F, np.repeat(U, sizes, axis=0))
        leverage = np.einsum("nq,nqs,ns->n", F, np.repeat(inverse, sizes, axis=0), F)
        A *= np.sqrt(w / fit.scale)[:, None]
        yield InverseRows(rows, X, r, A[:, :-1], A[:, -1], w / fit.scale * (1 - leverage))


def group_chunks(
    fit: LMMResult, most_rows: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.intp]]]:
    """Chunks of whole groups of one grouping factor: where each begins, and the rows used."""
    clusters = fit._need(fit._clusters, "diagnostics")
    ptr, first = clusters.ptr, 0
    while first < clusters.m:
        last = int(np.searchsorted(ptr, ptr[first] + most_rows, side="right")) - 1
        last = max(last, first + 1)
        places = np.arange(ptr[first], ptr[last])
        rows = places if clusters.order is None else clusters.order[places]
        yield ptr[first : last + 1] - ptr[first], rows
        first = last


def by_group(values: Array, starts: NDArray[Any]) -> Array:
    """Sums of the rows (n, ...) of each group (m, ...)."""
    if not values.size:
        return np.zeros((len(starts), *values.shape[1:]))
    return np.asarray(np.add.reduceat(values, starts, axis=0))


class AllEffects:
    """Several grouping factors: V = S (I + F F') S with the effects of all groups as columns of F.

    Attributes
    ----------
    X : ndarray (n, p)
        In coordinates in which X'V^-1 X is the identity.
    r : ndarray (n,)
        y - X beta.
    """

    def __init__(self, fit: LMMResult) -> None:
        from scipy.linalg import cho_factor, cho_solve
        from scipy.sparse import csr_array

        batch = fit._need(fit._design, "diagnostics").batch(slice(0, fit.nobs)).as_float()
        self.X, self.r = design_rows(fit, batch, coefficient_root(fit))
        w = np.ones(fit.nobs) if batch.weights is None else batch.weights
        self._scale = np.sqrt(w / fit.scale)
        self._own = effect_rows(fit, batch) * np.sqrt(w)[:, None]
        self._places = np.empty(self._own.shape, dtype=np.intp)  # of all effects
        first = 0
        for columns, codes in fit._factor_columns(np.arange(fit.nobs)):
            assert codes is not None
            places = codes[:, None] * len(columns) + np.arange(len(columns))
            self._places[:, columns] = first + places
            first += (int(codes.max()) + 1) * len(columns)
        ptr = np.arange(0, self._own.size + 1, self._own.shape[1])
        shape = (fit.nobs, first)
        self._F = csr_array((self._own.ravel(), self._places.ravel(), ptr), shape=shape)
        B = (self._F.T @ self._F).toarray() + np.eye(first)
        self._inverse = cho_solve(cho_factor(B, lower=True), np.eye(first))

    def solved(self) -> Array:
        """V^-1 [X r], (n, p + 1)."""
        A = np.column_stack([self.X, self.r]) * self._scale[:, None]
        A -= self._F @ (self._inverse @ (self._F.T @ A))
        return np.asarray(A * self._scale[:, None])

    def diagonal(self) -> Array:
        """Of V^-1, (n,)."""
        leverage = np.zeros(len(self.r))
        for j in range(self._own.shape[1]):
            for k in range(self._own.shape[1]):
                entries = self._inverse[self._places[:, j], self._places[:, k]]
                leverage += self._own[:, j] * self._own[:, k] * entries
        return np.asarray(self._scale**2 * (1 - leverage))

    def between(self, rows: NDArray[np.intp]) -> Array:
        """V^-1 between some rows, (k, k)."""
        touched, local = np.unique(self._places[rows], return_inverse=True)
        F = np.zeros((len(rows), len(touched)))
        np.add.at(F, (np.arange(len(rows))[:, None], local.reshape(len(rows), -1)), self._own[rows])
        inner = np.eye(len(rows)) - F @ self._inverse[np.ix_(touched, touched)] @ F.T
        return np.asarray(self._scale[rows, None] * inner * self._scale[rows])


def _of_all_effects(fit: LMMResult) -> Iterator[InverseRows]:
    own = AllEffects(fit)
    solved = own.solved()
    yield InverseRows(
        np.arange(fit.nobs), own.X, own.r, solved[:, :-1], solved[:, -1], own.diagonal()
    )


def _of_blocks(fit: LMMResult) -> Iterator[InverseRows]:
    root = coefficient_root(fit)
    for part in blocks(fit):
        inverse = V_inverse(part.V)
        A = np.concatenate([part.X @ root, part.r[:, :, None]], axis=2)
        solved = inverse @ A
        n, p = part.rows.size, len(root)
        yield InverseRows(
            part.rows.reshape(n),
            A[:, :, :-1].reshape(n, p),
            A[:, :, -1].reshape(n),
            solved[:, :, :-1].reshape(n, p),
            solved[:, :, -1].reshape(n),
            np.diagonal(inverse, axis1=1, axis2=2).reshape(n),
        )
