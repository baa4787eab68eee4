"""Clusters of one pattern (times, Z, covariates, weights) share V: find them, lay them out.

The plan is made once, before any evaluation. Patterns of equal size lie side by side in lanes, as
the kernels want them. Of a pattern that many clusters share, the kernels need of their A_i = [X r]
only what sums over them are made of: the R factor of the stacked A_i stands for all of them
(docs/residual.md, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.covariance.triangle import triangle
from lmmfast.residual.model import ResidualModel

#: Clusters of up to this many rows lie in lanes; larger ones are factorised by blocks.
MOST_ROWS_IN_LANES = 32
#: Where most of the lanes are filled, the same goes for clusters of up to this many rows.
MOST_ROWS_IN_FULL_LANES = 100
#: Where more of a first look at clusters have patterns of their own, patterns are not looked for.
MOSTLY_DISTINCT = 0.8
_LOOK = 4096
#: Among so few clusters patterns are always looked for.
_FEW = 256

Index = NDArray[np.intp]
Hash = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class PatternGroup:
    """Patterns of one size and stratum.

    Attributes
    ----------
    n : int
        Rows of a cluster.
    stratum : int
    members : ndarray of int (n_clusters,)
        Clusters, those of a pattern together.
    starts : ndarray of int (n_patterns + 1,)
        Members of pattern k are ``members[starts[k]:starts[k + 1]]``.
    """

    n: int
    stratum: int
    members: Index
    starts: Index

    @property
    def first(self) -> Index:
        """One cluster of each pattern."""
        return self.members[self.starts[:-1]]

    @property
    def counts(self) -> Index:
        """Number of clusters of each pattern."""
        return np.diff(self.starts)


def find_patterns(model: ResidualModel, columns: list[Array], share: bool) -> list[PatternGroup]:
    """Put clusters of one size, stratum and pattern together.

    Parameters
    ----------
    columns : list of ndarray (n, k)
        What V depends on, a row for each row of the model.
    share : bool
        Whether to look for clusters of one pattern; else each is its own.
    """
    sizes = np.diff(model.ptr)
    groups = []
    kinds = sizes * len(model.parameters.strata) + model.stratum
    for kind in np.unique(kinds):
        clusters = np.flatnonzero(kinds == kind)
        n, stratum = divmod(int(kind), len(model.parameters.strata))
        members, starts = clusters, np.arange(len(clusters) + 1)
        if share:
            members, starts = _same(clusters, n, model, columns)
        groups.append(PatternGroup(n, stratum, members, starts))
    return groups


def _same(
    clusters: Index, n: int, model: ResidualModel, columns: list[Array]
) -> tuple[Index, Index]:
    """Order clusters by pattern, and where each pattern begins."""
    every = np.arange(len(clusters) + 1)
    look = clusters[:: max(1, len(clusters) // _LOOK)]
    hashes = _hash(look, n, model, columns)
    if len(look) > _FEW and _n_distinct(hashes) > MOSTLY_DISTINCT * len(look):
        return clusters, every
    if len(look) < len(clusters):
        hashes = _hash(clusters, n, model, columns)
    _, first, pattern = np.unique(hashes, return_index=True, return_inverse=True)
    representative = clusters[first[pattern]]
    for values in columns:
        here, there = (values[rows_of(which, n, model)] for which in (clusters, representative))
        if not np.array_equal(here, there):
            return clusters, every  # two patterns with one hash: as good as never
    order = np.argsort(pattern, kind="stable")
    starts = np.searchsorted(pattern[order], np.arange(len(first) + 1))
    return clusters[order], starts


def _n_distinct(hashes: Hash) -> int:
    ordered = np.sort(hashes)
    return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def rows_of(clusters: Index, n: int, model: ResidualModel) -> Index:
    """Rows of clusters of n rows each, (len(clusters), n)."""
    return np.asarray(model.ptr[clusters][:, None] + np.arange(n))


def _hash(clusters: Index, n: int, model: ResidualModel, columns: list[Array]) -> Hash:
    """A number (len(clusters),) that is the same for clusters of one pattern."""
    rng = np.random.default_rng(0)
    rows = rows_of(clusters, n, model)
    out = np.zeros(len(clusters), dtype=np.uint64)
    for values in columns:
        for column in values.T:
            bits = (column[rows] + 0.0).view(np.uint64)  # -0.0 is 0.0
            mixed = (
                (bits ^ (bits >> np.uint64(29)))
                * rng.integers(1, 2**63, n, dtype=np.uint64)
                * np.uint64(2)
            )
            out += (mixed ^ (mixed >> np.uint64(31))).sum(axis=1, dtype=np.uint64)
    return out


@dataclass(frozen=True, eq=False)
class Bucket:
    """Patterns of one size side by side, as the dense kernels take them.

    Attributes
    ----------
    stratum : int
    first : ndarray of int (n_lanes_used,)
        A cluster of each pattern.
    members : ndarray of int (n_patterns, reps)
        Clusters of each pattern; -1: none.
    A : ndarray (N, reps, n, p1, L)
    Z : ndarray (N, n, q, L)
    counts : ndarray (N, L)
    inverse_root_weights : ndarray (N, n, L) or None
    G : ndarray (N, n, n_variance, L) or None
    positions : ndarray of int32 (N, n, L) or None
    coords : ndarray (N, n, d, L) or None
    """

    n: int
    stratum: int
    first: Index
    members: Index
    A: Array
    Z: Array
    counts: Array
    inverse_root_weights: Array | None
    G: Array | None
    positions: NDArray[np.int32] | None
    coords: Array | None

    @property
    def lanes(self) -> int:
        """Patterns side by side."""
        return self.counts.shape[1]

    @property
    def n_rows(self) -> int:
        """Rows of all clusters."""
        return self.n * int(self.counts.sum())

    def packs(self, some: slice) -> Bucket:
        """Return the bucket of some packs of patterns alone."""

        def take(values: NDArray[Any] | None) -> Any:
            return None if values is None else np.ascontiguousarray(values[some])

        patterns = np.arange(self.counts.size).reshape(self.counts.shape)[some].ravel()
        chosen = patterns[patterns < len(self.first)]
        return Bucket(
            n=self.n,
            stratum=self.stratum,
            first=self.first[chosen],
            members=self.members[chosen],
            A=take(self.A),
            Z=take(self.Z),
            counts=take(self.counts),
            inverse_root_weights=take(self.inverse_root_weights),
            G=take(self.G),
            positions=take(self.positions),
            coords=take(self.coords),
        )


class BucketMaker:
    """Lays patterns out in buckets.

    Parameters
    ----------
    model : ResidualModel
    Z : ndarray (n, q)
    inverse_root_weights : ndarray (n,) or None
    share : bool
        Whether clusters of one pattern are looked for.
    """

    def __init__(
        self,
        model: ResidualModel,
        Z: Array,
        inverse_root_weights: Array | None,
        share: bool = True,
    ) -> None:
        self.model, self.Z, self.inverse_root_weights = model, Z, inverse_root_weights
        # Distances do not change when all times of a cluster move together.
        self.coords = model.coords
        correlation = model.parameters.correlation
        if self.coords is not None and correlation is not None and correlation.custom is None:
            sizes = np.diff(model.ptr)
            self.coords = self.coords - np.repeat(self.coords[model.ptr[:-1]], sizes, axis=0)
        columns = [Z]
        if model.positions is not None:
            columns.append(model.positions[:, None].astype(float))
        columns += [c for c in (self.coords, model.G) if c is not None]
        if inverse_root_weights is not None:
            columns.append(inverse_root_weights[:, None])
        self.groups = find_patterns(model, [np.ascontiguousarray(c) for c in columns], share)

    @property
    def n_patterns(self) -> int:
        """Number of different V_i."""
        return sum(len(group.counts) for group in self.groups)

    def buckets(self, A: Array, compressed: bool) -> Iterator[Bucket]:
        """Make the buckets for A (n, p1).

        Parameters
        ----------
        compressed : bool
            Whether R factors stand for many clusters of a pattern; sums are the same.
        """
        p1 = A.shape[1]
        for group in self.groups:
            most = group.n * p1 if compressed else len(self.model.rows)
            reps = np.minimum(group.counts, most)
            classes = np.ceil(np.log2(reps)).astype(np.intp)
            for size in np.unique(classes):
                chosen = np.flatnonzero(classes == size)
                yield self._bucket(group, chosen, int(reps[chosen].max()), A, most)

    def _bucket(self, group: PatternGroup, chosen: Index, reps: int, A: Array, most: int) -> Bucket:
        n, n_patterns = group.n, len(chosen)
        most_rows = MOST_ROWS_IN_LANES
        if n_patterns > core.lanes // 2:
            most_rows = MOST_ROWS_IN_FULL_LANES
        L = core.lanes if n <= most_rows else 1
        first, counts = group.first[chosen], group.counts[chosen]
        rows = in_lanes(rows_of(first, n, self.model), L)
        if reps == 1:
            members, in_order = first[:, None], side_by_side(A, rows)[:, None]
            in_order[-1, ..., n_patterns - L * len(in_order) + L :] = 0.0
        else:
            members, blocks = self._stacked(group, chosen, reps, A, most)
            in_order = in_lanes(blocks, L, zeros=True)

        def take(values: NDArray[Any] | None) -> Any:
            return None if values is None else side_by_side(values, rows)

        model = self.model
        return Bucket(
            n=n,
            stratum=group.stratum,
            first=first,
            members=members,
            A=in_order,
            Z=take(self.Z),
            counts=in_lanes(counts.astype(float), L, zeros=True),
            inverse_root_weights=take(self.inverse_root_weights),
            G=take(model.G),
            positions=take(model.positions),
            coords=take(self.coords),
        )

    def _stacked(
        self, group: PatternGroup, chosen: Index, reps: int, A: Array, most: int
    ) -> tuple[Index, Array]:
        """Members (n_patterns, reps) and A (n_patterns, reps, n, p1) of patterns of several."""
        n, p1 = group.n, A.shape[1]
        blocks = np.zeros((len(chosen), reps, n, p1))
        members = np.full((len(chosen), reps), -1, dtype=np.intp)
        for k, pattern in enumerate(chosen):
            who = group.members[group.starts[pattern] : group.starts[pattern + 1]]
            stacked = A[rows_of(who, n, self.model)]
            if len(who) > most:
                stacked = triangle(stacked.reshape(len(who), n * p1)).reshape(-1, n, p1)
            else:
                members[k, : len(who)] = who
            blocks[k, : len(stacked)] = stacked
        return members, blocks


def in_lanes(values: NDArray[Any], L: int, zeros: bool = False) -> NDArray[Any]:
    """Lay patterns (P, …) side by side: (N, …, L) with N = ceil(P / L).

    Parameters
    ----------
    zeros : bool
        Whether lanes without a pattern are zero; else they repeat the last pattern.
    """
    P = len(values)
    N = -(-P // L)
    if N * L > P:
        filler = np.repeat(values[-1:], N * L - P, axis=0)
        values = np.concatenate([values, np.zeros_like(filler) if zeros else filler])
    return np.ascontiguousarray(np.moveaxis(values.reshape(N, L, *values.shape[1:]), 1, -1))


def side_by_side(values: NDArray[Any], rows: Index) -> NDArray[Any]:
    """Values (n_rows,) or (n_rows, k) at rows (N, n, L) in lanes: (N, n, L) or (N, n, k, L)."""
    found = values.take(rows, axis=0)
    return found if values.ndim == 1 else np.ascontiguousarray(np.moveaxis(found, -1, -2))


def from_lanes(values: Array, P: int) -> Array:
    """Undo `in_lanes`: (P, …)."""
    moved = np.moveaxis(values, -1, 1)
    return moved.reshape(moved.shape[0] * moved.shape[1], *moved.shape[2:])[:P]
