"""Several grouping factors: V of all rows that hang together by the levels they share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.prediction.blocks_structured import check_size
from lmmfast.prediction.derivatives import ResidualCovariance, ThetaParameters
from lmmfast.prediction.placed import cluster_of
from lmmfast.prediction.process import KnownRows, known_rows
from lmmfast.prediction.rows_used import design_of, sds_of
from lmmfast.prediction.targets import Targets, factor_columns

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

Index = NDArray[np.intp]


class FittedLevels:
    """Rows of a fit with several grouping factors, and how they hang together.

    Parameters
    ----------
    fit : LMMResult
    """

    def __init__(self, fit: LMMResult) -> None:
        from lmmfast.inference.whitened_rows import connected_rows

        self.fit = fit
        self.order = fit._row_order()
        levels: Any = fit._need(fit._clusters, "errors of conditional predictions")
        self.codes = [np.asarray(codes)[self.order] for codes in levels.codes]
        together, block = connected_rows(fit, self.order)
        self.block = np.empty(len(block), dtype=np.intp)
        self.block[together] = block
        self.columns = factor_columns(fit)
        self.known: KnownRows | None = None
        if fit._residual_model is not None:
            self.known = known_rows(fit)[0]

    def blocks_of(self, targets: Targets, at: Index) -> dict[tuple[int, ...], Index]:
        """Return the targets that each set of blocks tells something of."""
        found = np.full((len(at), len(self.codes)), -1)
        for factor in targets.signal:
            block = np.empty(self.codes[factor].max() + 1, dtype=np.intp)
            block[self.codes[factor]] = self.block
            level = targets.levels[factor][at]
            found[:, factor] = np.where(level >= 0, block[level], -1)
        out: dict[tuple[int, ...], list[int]] = {}
        for one, blocks in zip(at.tolist(), found.tolist(), strict=True):
            out.setdefault(tuple(sorted({b for b in blocks if b >= 0})), []).append(one)
        return {blocks: np.array(rows) for blocks, rows in out.items()}


class LevelBlock:
    """One block of `lmmfast.prediction.mse`, of some rows of a fit.

    Parameters
    ----------
    rows : FittedLevels
    places : ndarray of int (n,)
        Rows in the order of ``fit._row_order()``, ascending.
    theta : ThetaParameters
    G : ndarray (p, p)
        With G G' the covariance matrix of beta.
    targets : Targets
    at : ndarray of int (N,)
        Which of the targets these are.
    """

    within = True

    def __init__(
        self,
        rows: FittedLevels,
        places: Index,
        theta: ThetaParameters,
        G: Array,
        targets: Targets,
        at: Index,
    ) -> None:
        fit, n = rows.fit, len(places)
        self._rows, self._places, self._theta, self._all = rows, places, theta, targets
        self.targets, self.own = at, np.zeros(len(at), dtype=np.intp)
        batch = design_of(fit).batch(rows.order[places]).as_float()
        self._Z = np.column_stack(batch.Z)
        X = [batch.X[j] for j in fit._keep]
        self.Xg = (np.column_stack(X) @ G if X else np.empty((n, 0)))[None]
        grid = None if rows.known is None else rows.known.places.take(places).G
        self._sds = np.broadcast_to(sds_of(fit, grid, batch.weights), (n,))
        self._codes = [codes[places] for codes in rows.codes]
        self.V = (self._of_effects(theta.D) + self._of_residuals(None))[None]
        self._last: tuple[int, Array] | None = None

    def _of_effects(self, D: Array) -> Array:
        """Z D Z' of rows that share levels, (n, n)."""
        out = np.zeros((len(self._places),) * 2)
        for codes, columns in zip(self._codes, self._rows.columns, strict=True):
            own = D[np.ix_(columns, columns)]
            if own.any():
                Z = self._Z[:, columns]
                out += np.where(codes[:, None] == codes, Z @ own @ Z.T, 0.0)
        return out

    @cached_property
    def _clusters(self) -> list[tuple[int, Index, ResidualCovariance]]:
        """Clusters of the residual structure: rows of this block, and their covariances."""
        known = self._rows.known
        assert known is not None
        cluster = np.searchsorted(known.ptr, self._places, side="right") - 1
        first = np.flatnonzero(np.append(True, np.diff(cluster) != 0))
        out = []
        for mine in np.split(np.arange(len(cluster)), first[1:]):
            places, sds = known.places.take(self._places[mine][None]), self._sds[mine][None]
            stratum = int(known.stratum[cluster[mine[0]]])
            own = ResidualCovariance(self._theta, stratum, places, places, sds, sds, True)
            out.append((int(cluster[mine[0]]), mine, own))
        return out

    def _of_residuals(self, k: int | None) -> Array:
        """R (n, n), or its derivative by the k-th of (kappa, sigma2)."""
        out = np.zeros((len(self._places),) * 2)
        if self._rows.known is None:
            value = self._sds**2 if k is None else self._sds**2 / self._theta.sigma2
            np.fill_diagonal(out, value)
            return out
        for _, mine, own in self._clusters:
            out[np.ix_(mine, mine)] = (own.value if k is None else own.derivative(k))[0]
        return out

    def dV(self, k: int, rows: Index, u: Array) -> Array:
        """V_k u."""
        if self._last is None or self._last[0] != k:
            E, of_R = self._theta.of_D(k), self._theta.of_R(k)
            matrix = self._of_residuals(of_R) if E is None else self._of_effects(E)
            self._last = k, matrix
        return np.asarray(u @ self._last[1])

    def c(self, rows: Index) -> tuple[Array, Array | None]:
        """Covariances of signals with the rows, and what targets have more."""
        return self._with_residuals(self._with_effects(rows, self._theta.D), rows, None)

    def dc(self, k: int, rows: Index) -> tuple[Array, Array | None]:
        """Their derivatives by parameter k."""
        E, of_R = self._theta.of_D(k), self._theta.of_R(k)
        if E is not None:
            c = self._with_effects(rows, E)
            return c, np.zeros_like(c) if self._all.has_more(self._theta) else None
        return self._with_residuals(np.zeros((len(rows), len(self._places))), rows, of_R)

    def _with_effects(self, rows: Index, D: Array) -> Array:
        at = self.targets[rows]
        out = np.zeros((len(rows), len(self._places)))
        for factor in self._all.signal:
            columns, level = self._rows.columns[factor], self._all.levels[factor][at]
            cov = self._all.z[np.ix_(at, columns)] @ D[np.ix_(columns, columns)]
            same = level[:, None] == self._codes[factor]
            out += np.where(same, cov @ self._Z[:, columns].T, 0.0)
        return out

    def _with_residuals(self, c: Array, rows: Index, k: int | None) -> tuple[Array, Array | None]:
        """Covariances with signals, and the rest of those with targets."""
        more = self._all.has_more(self._theta)
        if self._rows.known is None or not (more or self._all.in_signal(self._theta)):
            return c, None
        cross = self._cross(rows, k)
        return (c, cross) if more else (c + cross, None)

    def _cross(self, rows: Index, k: int | None) -> Array:
        """Covariances (N, n) of residuals of targets with those of the rows, or derivatives."""
        fit, known, at = self._rows.fit, self._rows.known, self.targets[rows]
        assert known is not None and self._all.places is not None
        inner = list(fit._grouping).index(fit._innermost)
        cluster = cluster_of(fit, self._all.levels[inner][at])
        out = np.zeros((len(rows), len(self._places)))
        for one, mine, own in self._clusters:
            some = np.flatnonzero(cluster == one)
            if not len(some):
                continue
            new, old = self._all.places.take(at[some][None]), own.one
            s = self._all.sds[at[some]][None]
            cross = ResidualCovariance(self._theta, own.stratum, new, old, s, own.s_one, False)
            out[np.ix_(some, mine)] = (cross.value if k is None else cross.derivative(k))[0]
        return out


def level_blocks(
    fit: LMMResult, theta: ThetaParameters, G: Array, targets: Targets, at: Index
) -> Iterator[LevelBlock]:
    """Blocks that some targets are correlated with.

    Raises
    ------
    TooLargeError
        More rows hang together than `lmmfast.prediction.blocks_structured.MAX_ROWS`.
    """
    rows = FittedLevels(fit)
    for blocks, some in rows.blocks_of(targets, at).items():
        places = np.flatnonzero(np.isin(rows.block, blocks))
        check_size(len(places))
        yield LevelBlock(rows, places, theta, G, targets, some)
