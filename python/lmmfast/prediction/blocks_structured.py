"""Groups with a residual structure: V of their rows, those of one size together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.errors import TooLargeError
from lmmfast.prediction.derivatives import ResidualCovariance, ThetaParameters
from lmmfast.prediction.process import KnownRows, known_rows
from lmmfast.prediction.rows_used import design_of, sds_of
from lmmfast.prediction.targets import Targets

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

Index = NDArray[np.intp]
#: Rows of a group whose V is formed.
MAX_ROWS = 5000


class StructuredBlocks:
    """Blocks of `lmmfast.prediction.mse`: V = Z D Z' + R of k groups with n rows each.

    Parameters
    ----------
    known : KnownRows
        Rows of some groups.
    stratum : int
    rows : ndarray of int (k, n)
        Which of them these groups have.
    Z, Xg, sds : ndarray (n_rows, q), (n_rows, p), (n_rows,)
        Of all rows.
    theta : ThetaParameters
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
        known: KnownRows,
        stratum: int,
        rows: Index,
        Z: Array,
        Xg: Array,
        sds: Array,
        theta: ThetaParameters,
        targets: Targets,
        at: Index,
        own: Index,
        within: bool = True,
    ) -> None:
        self._known, self._stratum, self._rows, self._sds = known, stratum, rows, sds
        self._theta, self._targets = theta, targets
        self._Z, self.Xg = Z[rows], Xg[rows]
        places = known.places.take(rows)
        self._R = ResidualCovariance(theta, stratum, places, places, sds[rows], sds[rows], True)
        self.V = self._Z @ theta.D @ self._Z.swapaxes(1, 2) + self._R.value
        self.own, self.targets, self.within = own, at, within

    def c(self, rows: Index) -> tuple[Array, Array | None]:
        """Covariances of signals with the rows, and what targets have more."""
        return self._with_residuals(self._with_effects(rows, self._theta.D), rows, None)

    def dc(self, k: int, rows: Index) -> tuple[Array, Array | None]:
        """Their derivatives by parameter k."""
        E, of_R = self._theta.of_D(k), self._theta.of_R(k)
        if E is None:
            return self._with_residuals(np.zeros((len(rows), self._Z.shape[1])), rows, of_R)
        c = self._with_effects(rows, E)
        return c, np.zeros_like(c) if self._targets.has_more(self._theta) else None

    def dV(self, k: int, rows: Index, u: Array) -> Array:
        """V_k u."""
        E, of_R = self._theta.of_D(k), self._theta.of_R(k)
        if E is not None:
            Z = self._Z[self.own[rows]]
            return np.asarray(np.einsum("Nnq,Nq->Nn", Z, np.einsum("Nnq,Nn->Nq", Z, u) @ E))
        assert of_R is not None
        return np.asarray(np.einsum("Nij,Nj->Ni", self._R.derivative(of_R)[self.own[rows]], u))

    def _with_effects(self, rows: Index, D: Array) -> Array:
        z = self._targets.z[self.targets[rows]] @ D
        return np.asarray(np.einsum("Nnq,Nq->Nn", self._Z[self.own[rows]], z))

    def _with_residuals(self, c: Array, rows: Index, k: int | None) -> tuple[Array, Array | None]:
        """Covariances with signals, and the rest of those with targets; or derivatives."""
        targets, theta = self._targets, self._theta
        if not (targets.in_signal(theta) or targets.has_more(theta)):
            return c, None
        cross = self._cross(rows)
        value = (cross.value if k is None else cross.derivative(k))[:, 0]
        return (c, value) if targets.has_more(theta) else (c + value, None)

    def _cross(self, rows: Index) -> ResidualCovariance:
        """Covariances of residuals of targets with those of the rows, (N, 1, n)."""
        old, at = self._rows[self.own[rows]], self.targets[rows]
        assert self._targets.places is not None
        return ResidualCovariance(
            self._theta,
            self._stratum,
            self._targets.places.take(at[:, None]),
            self._known.places.take(old),
            self._targets.sds[at][:, None],
            self._sds[old],
            False,
        )


def structured_blocks(
    fit: LMMResult, theta: ThetaParameters, G: Array, targets: Targets, at: Index, cluster: Index
) -> Iterator[StructuredBlocks]:
    """Blocks of the groups of some targets; parameters as in `compressed_blocks`.

    Raises
    ------
    TooLargeError
        A group with more than `MAX_ROWS` rows.
    """
    wanted, own = np.unique(cluster, return_inverse=True)
    known, used = known_rows(fit, wanted)
    check_size(int(np.diff(known.ptr).max(initial=0)))
    batch = design_of(fit).batch(used).as_float()
    Z = np.column_stack(batch.Z) if batch.Z else np.empty((len(used), 0))
    Xg = (
        np.column_stack([batch.X[j] for j in fit._keep]) @ G if len(G) else np.empty((len(used), 0))
    )
    sds = np.broadcast_to(sds_of(fit, known.places.G, batch.weights), (len(used),))
    for stratum, some, rows in known.batches():
        of_batch = np.full(len(wanted), -1)
        of_batch[some] = np.arange(len(some))
        here = np.flatnonzero(of_batch[own] >= 0)
        yield StructuredBlocks(
            known, stratum, rows, Z, Xg, sds, theta, targets, at[here], of_batch[own[here]]
        )


def check_size(largest: int) -> None:
    """Refuse V of too many rows."""
    if largest > MAX_ROWS:
        raise TooLargeError(
            f"errors of conditional predictions form V of all rows of a group, {largest:,} here "
            f"and {MAX_ROWS:,} at most: leave se= and interval= out, or predict at "
            "level='population'"
        )
