"""Groups without a residual structure: what predictions need of the rows of each, q rows of it.

With R_i'R_i = Z_i'W Z_i the rows Q_i'W^1/2 [Z_i X_i] = [R_i, R_i^-T Z_i'W X_i] have all that V_i^-1
leaves of those of the group where the columns of Z_i are concerned (docs/algorithm.md, section 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK
from lmmfast.prediction.derivatives import ThetaParameters
from lmmfast.prediction.rows_used import design_of
from lmmfast.prediction.targets import Targets

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

Index = NDArray[np.intp]
#: Part of the largest eigenvalue of Z'W Z below which one is zero.
RANK = 1e-14


class CompressedBlocks:
    """Blocks of `lmmfast.prediction.mse`, of q rows for each group.

    Parameters
    ----------
    theta : ThetaParameters
    z_map : ndarray (q, q)
        From the columns of Z to the working ones.
    ZWZ, ZWX : ndarray (k, q, q), (k, q, p)
        Z'W Z and Z'W X G of each group, in working columns of Z.
    unit : float
        Variance of a residual of weight one in W.
    targets : Targets
    at, own : ndarray of int (N,)
        Which of the targets these are, and the group of each.
    within : bool
        Whether beta was estimated from these rows, too.
    """

    #: y - X beta (k, n), where it is wanted.
    r: Array = np.empty((0, 0))

    def __init__(
        self,
        theta: ThetaParameters,
        z_map: Array,
        ZWZ: Array,
        ZWX: Array,
        unit: float,
        targets: Targets,
        at: Index,
        own: Index,
        within: bool = True,
    ) -> None:
        values, vectors = np.linalg.eigh(ZWZ)
        largest = values.max(axis=1, initial=0.0, keepdims=True)
        roots = np.sqrt(np.where(values > RANK * largest, values, 0.0))
        inverse = np.divide(1.0, roots, out=np.zeros_like(roots), where=roots > 0)
        self.R = roots[:, :, None] * vectors.swapaxes(1, 2)
        self.Xg = inverse[:, :, None] * (vectors.swapaxes(1, 2) @ ZWX)
        B = np.linalg.inv(z_map)
        self._D = B @ theta.D @ B.T
        self._E = B @ theta.E @ B.T
        self.V = self.R @ self._D @ self.R.swapaxes(1, 2) + unit * np.eye(len(z_map))
        self._z = targets.z[at] @ z_map
        self._by_sigma2 = unit / theta.sigma2
        self.own, self.targets, self.within = own, at, within

    def c(self, rows: Index) -> tuple[Array, None]:
        """Covariances of signals with the rows."""
        return np.einsum("Nij,Nj->Ni", self.R[self.own[rows]], self._z[rows] @ self._D), None

    def dc(self, k: int, rows: Index) -> tuple[Array, None]:
        """Their derivatives by parameter k."""
        if k >= len(self._E):
            return np.zeros((len(rows), self.R.shape[1])), None
        return np.einsum("Nij,Nj->Ni", self.R[self.own[rows]], self._z[rows] @ self._E[k]), None

    def dV(self, k: int, rows: Index, u: Array) -> Array:
        """V_k u."""
        if k >= len(self._E):
            return u * self._by_sigma2
        R = self.R[self.own[rows]]
        inner = np.einsum("Nij,Ni->Nj", R, u) @ self._E[k]
        return np.asarray(np.einsum("Nij,Nj->Ni", R, inner))


def compressed_blocks(
    fit: LMMResult, theta: ThetaParameters, G: Array, targets: Targets, at: Index, cluster: Index
) -> Iterator[CompressedBlocks]:
    """Blocks of the groups of some targets, a bounded number of rows at a time.

    Parameters
    ----------
    G : ndarray (p, p)
        With G G' the covariance matrix of beta.
    at, cluster : ndarray of int (N,)
        Which of the targets these are, and the stored cluster of each.
    """
    clusters = fit._need(fit._clusters, "errors of conditional predictions")
    wanted, own = np.unique(cluster, return_inverse=True)
    sizes = clusters.sizes[wanted]
    ends = np.cumsum(sizes)
    first = 0
    while first < len(wanted):
        before = ends[first] - sizes[first]
        last = max(first + 1, int(np.searchsorted(ends, before + CHUNK, side="right")))
        some = wanted[first:last]
        ZWZ, ZWX = _products(fit, some, G)
        here = np.flatnonzero((own >= first) & (own < last))
        yield CompressedBlocks(
            theta, fit._basis.z_map(), ZWZ, ZWX, fit._unit, targets, at[here], own[here] - first
        )
        first = last


def _products(fit: LMMResult, some: Index, G: Array) -> tuple[Array, Array]:
    """Z'W Z and Z'W X G of stored clusters, in the working basis of Z."""
    clusters = fit._need(fit._clusters, "errors of conditional predictions")
    basis, keep = fit._basis, fit._keep
    sizes = clusters.sizes[some]
    starts = np.append(0, np.cumsum(sizes)[:-1])
    rows = np.repeat(clusters.ptr[some] - starts, sizes) + np.arange(sizes.sum())
    rows = rows if clusters.order is None else clusters.order[rows]
    A, Z, weights = basis.working(design_of(fit).batch(rows))
    Xg = A[:, keep] @ np.linalg.solve(basis.x_map(keep), G)
    ZW = Z if weights is None else Z * weights[:, None]
    ZWZ = np.add.reduceat(ZW[:, :, None] * Z[:, None, :], starts, axis=0)
    return ZWZ, np.add.reduceat(ZW[:, :, None] * Xg[:, None, :], starts, axis=0)
