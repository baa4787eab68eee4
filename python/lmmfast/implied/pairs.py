"""Standardised marginal residuals of a fit, and pairs of them within clusters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.errors import DataError
from lmmfast.implied.implied import GroupedRows, residual_sd, rows_at
from lmmfast.prediction.predict import residual_values
from lmmfast.residual import registry
from lmmfast.residual.dense import evaluate_custom

if TYPE_CHECKING:
    from lmmfast.covariance.joint import JointCovariance
    from lmmfast.residual.layout import Stratum
    from lmmfast.result import LMMResult

#: Of more pairs of rows about this many are looked at.
MOST_PAIRS = 4_000_000
#: Pairs at a time.
CHUNK = 1_000_000
#: Clusters of more rows are searched for the rows within the longest lag.
FEW_ROWS = 64
#: Of so many clusters some are left out rather than rows.
MANY_CLUSTERS = 1000

Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of rows of some blocks of clusters, all of (k,).

    Attributes
    ----------
    block : ndarray of int
    lag : ndarray
    e, f : ndarray
        Residuals of the two rows.
    fitted : ndarray
        Correlation of the two as the model has it.
    """

    block: Index
    lag: Array
    e: Array
    f: Array
    fitted: Array


class Sample:
    """Residuals in the order of the lag axis within each cluster.

    Parameters
    ----------
    fit : LMMResult
    coords : ndarray (n, d)
        In the order of `lmmfast.implied.implied.row_order`.
    normalized : bool
        Residuals whitened by V instead of marginal ones over their standard deviations.
    grouped : GroupedRows
    """

    def __init__(
        self, fit: LMMResult, coords: Array, normalized: bool, grouped: GroupedRows
    ) -> None:
        self.fit, self.normalized = fit, normalized
        times = [coords[:, 0]] if coords.shape[1] == 1 else []
        places: Index = np.lexsort([*times, grouped.unit, grouped.block])
        unit, self.block = grouped.unit[places], grouped.block[places]
        self.ptr, self.block_ptr = _starts(unit), _starts(self.block)
        self.m, self.unit = len(self.ptr) - 1, unit[self.ptr[:-1]]
        self.longest = int(np.diff(self.ptr).max())
        self.cluster: Index = np.repeat(np.arange(self.m), np.diff(self.ptr))
        self.coords = coords[places]
        self.rows = rows_at(fit, places)
        rows = fit._row_order()[places]
        self.factors = fit._factor_columns(rows)
        self.residual_sd = residual_sd(fit, self.rows)
        itself: Index = np.arange(fit.nobs)
        self.sd = np.sqrt(self._random(itself, itself) + self.residual_sd**2)
        self.r = self._residuals(rows)

    def _residuals(self, rows: Index) -> Array:
        """Residuals with a mean square of one."""
        if self.normalized:
            r = residual_values(self.fit, "normalized", "population")[rows]
        else:
            r = residual_values(self.fit, "response", "population")[rows] / self.sd
        return r / np.sqrt(np.mean(r**2))

    # -- lags --------------------------------------------------------------------------------------

    def span(self) -> float:
        """Longest distance within a cluster (of several coordinates: of its bounding box)."""
        starts = self.ptr[:-1]
        sides = np.maximum.reduceat(self.coords, starts) - np.minimum.reduceat(self.coords, starts)
        span = float(np.sqrt((sides**2).sum(axis=1)).max())
        if span == 0:
            raise DataError("no cluster has rows at two values of the lag axis: there are no lags")
        return span

    def step(self) -> float:
        """Median distance of neighbours within clusters."""
        steps = np.diff(self.coords[:, 0])[self.cluster[1:] == self.cluster[:-1]]
        return float(np.median(steps[steps > 0]))

    def _ends(self, furthest: float) -> Index:
        """Row behind the last one within the longest lag of each row, (n,)."""
        ends: Index = np.repeat(self.ptr[1:], np.diff(self.ptr))
        if self.coords.shape[1] > 1:
            return ends
        for i in np.flatnonzero(np.diff(self.ptr) > FEW_ROWS):
            rows = slice(self.ptr[i], self.ptr[i + 1])
            t = self.coords[rows, 0]
            ends[rows] = self.ptr[i] + np.searchsorted(t, t + furthest * (1 + 1e-9), side="right")
        return ends

    # -- pairs -------------------------------------------------------------------------------------

    def pairs(self, furthest: float, first: bool = False) -> Iterator[Pairs]:
        """Pairs up to the longest lag, those of a block together.

        Parameters
        ----------
        first : bool
            Only the first chunk.
        """
        rows: Index = np.arange(len(self.r))
        counts = self._ends(furthest) - rows - 1
        counts = np.where(self._chosen(counts), counts, 0)
        total = np.concatenate([[0], np.cumsum(counts)])
        by_block, n_blocks = total[self.block_ptr], len(self.block_ptr) - 1
        start = 0
        while start < n_blocks:
            stop = int(np.searchsorted(by_block, by_block[start] + CHUNK, side="right")) - 1
            stop = min(max(stop, start + 1), n_blocks)
            here = rows[self.block_ptr[start] : self.block_ptr[stop]]
            yield self._pairs_of(here, counts[here], furthest)
            if first:
                return
            start = stop

    def _chosen(self, counts: Index) -> NDArray[np.bool_]:
        """Which rows begin pairs: all, or an even choice of them."""
        stride = -(-int(counts.sum()) // MOST_PAIRS)
        if stride <= 1:
            return np.ones(len(counts), dtype=bool)
        if self.m >= MANY_CLUSTERS:
            return self.cluster % stride == 0
        return np.arange(len(counts)) % stride == 0

    def _pairs_of(self, rows: Index, counts: Index, furthest: float) -> Pairs:
        j = np.repeat(rows, counts)
        before = np.repeat(np.cumsum(counts) - counts, counts)
        other = j + 1 + np.arange(len(j)) - before
        lag = np.sqrt(((self.coords[other] - self.coords[j]) ** 2).sum(axis=1))
        near = lag <= furthest * (1 + 1e-9)
        j, other, lag = j[near], other[near], lag[near]
        fitted = np.zeros(len(j)) if self.normalized else self._fitted(j, other)
        return Pairs(self.block[j], lag, self.r[j], self.r[other], fitted)

    # -- what the model says -----------------------------------------------------------------------

    def _random(self, j: Index, other: Index) -> Array:
        """Covariances of pairs of rows due to the random effects."""
        out = np.zeros(len(j))
        for columns, codes in self.factors:
            Z, D = self.rows.Z[:, columns], self.fit._estimates.D[np.ix_(columns, columns)]
            cov = ((Z[j] @ D) * Z[other]).sum(axis=1)
            out += cov if codes is None else np.where(codes[j] == codes[other], cov, 0.0)
        return out

    def _fitted(self, j: Index, other: Index) -> Array:
        s = self.residual_sd
        cov = self._random(j, other) + s[j] * s[other] * self._correlation(j, other)
        return np.asarray(cov / (self.sd[j] * self.sd[other]))

    def _correlation(self, j: Index, other: Index) -> Array:
        """Correlations of the residuals of pairs of rows."""
        model = self.fit._residual_model
        out = np.zeros(len(j))
        if model is None or model.parameters.correlation is None:
            return out
        kappa = cast("JointCovariance", self.fit._covariance).kappa(self.fit._phi)
        of = model.stratum[self.unit[self.cluster[j]]]
        for k, stratum in enumerate(model.parameters.strata):
            mine = of == k
            nu = 0.0 if stratum.nu is None else kappa[stratum.nu]
            out[mine] = (1 - nu) * self._C(stratum, kappa[stratum.psi], j[mine], other[mine])
        return out

    def _C(self, stratum: Stratum, psi: Array, j: Index, other: Index) -> Array:
        assert self.fit._residual_model is not None
        parameters, rows = self.fit._residual_model.parameters, self.rows
        correlation = parameters.correlation
        assert correlation is not None
        if rows.positions is not None:
            table = registry.TABLES[correlation.kind](psi, parameters.T)
            return np.asarray(table[rows.positions[j], rows.positions[other]])
        assert rows.coords is not None
        if correlation.custom is None:
            d = np.sqrt(((rows.coords[j] - rows.coords[other]) ** 2).sum(axis=1))
            return np.asarray(registry.DISTANCES[correlation.kind](psi, d))
        out = np.empty(len(j))
        for i in np.unique(self.cluster[j]):
            here = self.cluster[j] == i
            first = self.ptr[i]
            C = evaluate_custom(correlation.custom, psi, rows.coords[first : self.ptr[i + 1]])[0]
            out[here] = C[j[here] - first, other[here] - first]
        return out


def _starts(groups: Index) -> NDArray[np.int64]:
    """First row of each run of equal numbers, and the number of rows."""
    changes = np.flatnonzero(groups[1:] != groups[:-1]) + 1
    return np.concatenate([[0], changes, [len(groups)]]).astype(np.int64)
