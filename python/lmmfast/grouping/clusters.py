"""Rows of the data gathered by cluster."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast._threads import n_threads
from lmmfast.data.keys import GroupKeys, Labels
from lmmfast.errors import DataError

# From here on hashing and counting beat sorting.
MANY_ROWS = 10_000


@dataclass(frozen=True)
class Clusters:
    """Which rows form which cluster.

    Attributes
    ----------
    keys : ndarray (m,)
        Key of each cluster, in the order in which the clusters are stored: its value, or its
        position among ``names``.
    names : ndarray, Combination or None
        What the keys stand for.
    ptr : ndarray of int64 (m + 1,)
        Cluster i owns rows ``order[ptr[i]:ptr[i + 1]]``.
    order : ndarray of int64 (n,) or None
        None where the rows of each cluster lie together already.
    """

    keys: NDArray[Any]
    names: Labels | None
    ptr: NDArray[np.int64]
    order: NDArray[np.int64] | None

    @property
    def m(self) -> int:
        """Number of clusters."""
        return len(self.ptr) - 1

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Rows per cluster, (m,)."""
        return np.diff(self.ptr)

    @cached_property
    def labels(self) -> NDArray[Any]:
        """Labels of the clusters, (m,)."""
        return np.asarray(self.keys if self.names is None else self.names[self.keys])

    @cached_property
    def by_label(self) -> NDArray[np.intp] | None:
        """Clusters in the order in which they are reported, (m,); None: as they are stored."""
        if self.m < 2 or bool(np.all(self.keys[:-1] < self.keys[1:])):
            return None
        return np.argsort(self.keys, kind="stable")

    def reported(self, values: NDArray[Any]) -> NDArray[Any]:
        """Reorder values (m, ...) of the stored clusters as they are reported."""
        return values if self.by_label is None else values[self.by_label]

    def stored(self, values: NDArray[Any]) -> NDArray[Any]:
        """Undo `reported`."""
        if self.by_label is None:
            return values
        out = np.empty_like(values)
        out[self.by_label] = values
        return out

    @cached_property
    def _row_cluster(self) -> NDArray[np.int64]:
        """Cluster of each row (n,), for rows that are not in the order of their clusters."""
        assert self.order is not None
        out = np.empty(len(self.order), dtype=np.int64)
        out[self.order] = np.repeat(np.arange(self.m), self.sizes)
        return out

    def spread(self, values: NDArray[Any], rows: slice | NDArray[np.intp]) -> NDArray[Any]:
        """Give each of some rows the value (m, ...) of its cluster."""
        if self.order is not None:
            return values[self._row_cluster[rows]]
        if not isinstance(rows, slice):
            return values[np.searchsorted(self.ptr, rows, side="right") - 1]
        first = int(np.searchsorted(self.ptr, rows.start, side="right")) - 1
        last = int(np.searchsorted(self.ptr, rows.stop, side="left"))
        counts = np.diff(np.clip(self.ptr[first : last + 1], rows.start, rows.stop)).astype(
            np.int64
        )
        return np.repeat(values[first:last], counts, axis=0)


def gather(keys: GroupKeys, n_jobs: int | None = None) -> Clusters:
    """Find the clusters and the order of the rows.

    Runs of equal keys are found first; only one key per run is looked up. So sorted or contiguous
    data cost one comparison per row, and no order is kept. Other rows are sorted by counting:
    integers as they are where they lie close together, else by their place among the keys.

    Raises
    ------
    DataError
        The keys, which may be the user's memory, changed while they were read.
    """
    try:
        return _gather(keys, n_jobs)
    except ValueError as error:
        raise DataError(
            f"the groups changed while they were read ({error}): do not write to the data of a fit "
            "while it runs"
        ) from None


def _gather(keys: GroupKeys, n_jobs: int | None) -> Clusters:
    values = keys.values
    n = len(values)
    starts, run_keys, ascending = _runs(values, n_jobs)
    if ascending:
        return Clusters(run_keys, keys.labels, starts, None)
    if values.dtype.kind in "iu" and n >= MANY_ROWS:
        low, high = int(run_keys.min()), int(run_keys.max())
        if high - low < 4 * n:
            return _gather_integers(keys, run_keys, starts, low, high - low + 1, n_jobs)
    codes, distinct = _factorize(run_keys)
    if len(distinct) == len(run_keys):
        return Clusters(run_keys, keys.labels, starts, None)
    row_codes = np.repeat(codes, np.diff(starts))
    ptr, order = core.group_rows(
        row_codes, 0, len(distinct), n_threads(n_jobs) if n > MANY_ROWS else 1
    )
    return Clusters(distinct, keys.labels, ptr, order)


def _runs(values: NDArray[Any], n_jobs: int | None) -> tuple[NDArray[np.int64], NDArray[Any], bool]:
    """Where runs of equal keys begin and the rows end, the key of each, whether keys ascend."""
    readable = values.flags.c_contiguous and values.flags.aligned and values.dtype.isnative
    if values.dtype.kind in "iu" and readable:
        found: tuple[NDArray[np.int64], NDArray[Any], bool]
        found = core.find_runs(values, n_threads(n_jobs) if len(values) > MANY_ROWS else 1)
        return found
    ends = (values[1:] != values[:-1]).nonzero()[0]
    starts = np.empty(len(ends) + 2, dtype=np.int64)
    starts[0], starts[-1] = 0, len(values)
    np.add(ends, 1, out=starts[1:-1])
    run_keys = values[starts[:-1]]
    return starts, run_keys, len(run_keys) < 2 or bool((run_keys[:-1] < run_keys[1:]).all())


def _gather_integers(
    keys: GroupKeys,
    run_keys: NDArray[Any],
    starts: NDArray[np.int64],
    low: int,
    count: int,
    n_jobs: int | None,
) -> Clusters:
    """Gather keys that lie within low … low + count - 1, without looking them up."""
    # Differences of unsigned numbers are right for every type of key, whatever wraps around.
    zero = np.uint64(low % (1 << 64))
    occurs = np.zeros(count, dtype=bool)
    occurs[run_keys.astype(np.uint64) - zero] = True
    distinct = np.flatnonzero(occurs)
    labels = (distinct.astype(np.uint64) + zero).astype(run_keys.dtype)
    if len(distinct) == len(run_keys):
        return Clusters(run_keys, keys.labels, starts, None)
    values = np.require(keys.values, requirements=["C", "A"])
    ptr, order = core.group_rows(values, low, count, n_threads(n_jobs))
    ptr = np.append(ptr[distinct], len(order)) if len(distinct) < count else ptr
    return Clusters(labels, keys.labels, ptr, order)


def gather_segments(
    keys: NDArray[Any], starts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None, NDArray[np.int64]]:
    """Find the clusters of each segment of the rows; the same key in two segments makes two.

    Parameters
    ----------
    keys : ndarray (n,)
    starts : ndarray (S + 1,)
        Rows ``starts[s] ... starts[s + 1] - 1`` are those of segment s.

    Returns
    -------
    ptr : ndarray (m + 1,)
    order : ndarray (n,) or None
        As in `Clusters`; the rows of a segment stay together.
    cluster_starts : ndarray (S + 1,)
        First cluster of each segment.
    """
    n, every = len(keys), np.arange(len(starts))
    begins = np.concatenate([[True], keys[1:] != keys[:-1]])
    begins[starts[starts < n]] = True
    runs = np.flatnonzero(begins).astype(np.int64)
    segment = np.searchsorted(starts, runs, side="right") - 1
    run_keys = keys[runs]
    ascending = (run_keys[1:] > run_keys[:-1]) | (segment[1:] != segment[:-1])
    if not ascending.all():
        codes, distinct = _factorize(run_keys)
        codes, pairs = _factorize(segment * len(distinct) + codes)
        if len(pairs) < len(runs):
            row_codes = np.repeat(codes, np.diff(np.append(runs, n)))
            ptr, order = core.group_rows(row_codes, 0, len(pairs), n_threads())
            return ptr, order, np.searchsorted(pairs // len(distinct), every)
    return np.append(runs, n), None, np.searchsorted(segment, every)


def _factorize(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Codes and sorted distinct values."""
    if len(values) < MANY_ROWS:
        labels, codes = np.unique(values, return_inverse=True)
        return codes.astype(np.int64), labels
    import pandas as pd

    codes, labels = pd.factorize(values, sort=True)
    return codes.astype(np.int64), np.asarray(labels)
