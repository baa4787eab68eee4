"""A stream whose groups stand together, cut between groups at places that the rows alone choose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lmmfast.streaming.files import Batches
from lmmfast.streaming.place import Place

#: A part ends with this cluster, or with the first one beyond so many rows.
CUT_CLUSTERS = 1 << 15
CUT_ROWS = 1 << 18
#: Larger groups are handed out in pieces of so many rows.
LARGE_GROUP = 1 << 21


class Part(NamedTuple):
    """Whole groups, or a piece of a large one.

    Attributes
    ----------
    table : pyarrow.Table
    place : Place
        Where it begins.
    continues : bool
        Whether it has further rows of the last group of the part before, and no others.
    """

    table: Any
    place: Place
    continues: bool = False


class ScatteredError(Exception):
    """Groups do not ascend: their rows may be anywhere."""


def cut(batches: Batches, groups: Sequence[str], trusted: bool) -> Iterator[Part]:
    """Yield tables of whole groups.

    Parameters
    ----------
    batches : iterator of (RecordBatch, Place)
        Complete rows, such that those of a group stand together.
    groups : sequence of str
        Columns whose combinations are the groups.
    trusted : bool
        Whether groups need not ascend.

    Raises
    ------
    ScatteredError
        They do not ascend and are not trusted.
    """
    pending = _Pending()
    last: list[Any] | None = None
    for batch, place in batches:
        keys = [batch.column(name) for name in groups]
        starts = _starts(keys, last)
        if not trusted:
            _check_ascending(keys, starts, last)
        last = [key.slice(len(batch) - 1, 1) for key in keys]
        yield from pending.add(batch, place, starts)
    yield from pending.rest()


class _Pending:
    """Batches whose groups have not been handed out, and where in them groups begin."""

    def __init__(self) -> None:
        self._batches: list[tuple[Any, Place]] = []
        self._starts = np.empty(0, dtype=np.int64)
        self._n = 0
        self._continues = False  # whether the first rows are of the group handed out last

    def add(self, batch: Any, place: Place, starts: NDArray[np.int64]) -> Iterator[Part]:
        self._batches.append((batch, place))
        self._starts = np.concatenate([self._starts, starts + self._n])
        self._n += len(batch)
        while (found := self._next()) is not None:
            yield self._take(*found)

    def rest(self) -> Iterator[Part]:
        if self._n:
            yield self._take(self._n, len(self._starts))

    def _next(self) -> tuple[int, int] | None:
        """Rows of the next part, and the groups that end in it; None: they are not all here."""
        starts = self._starts
        large = np.flatnonzero(np.append(starts[1:], self._n) - starts > LARGE_GROUP)
        if len(large) and large[0] == 0:
            return LARGE_GROUP, 0
        end = max(int(np.searchsorted(starts, CUT_ROWS)), 1)
        end = 1 if self._continues else min(CUT_CLUSTERS, end, *large[:1].tolist())
        return (int(starts[end]), end) if end < len(starts) else None

    def _take(self, rows: int, groups: int) -> Part:
        table = pa.Table.from_batches([batch for batch, _ in self._batches])
        part = Part(table.slice(0, rows), self._batches[0][1], self._continues)
        left, first = [], 0
        for batch, where in self._batches:
            begin = max(rows - first, 0)
            if begin < len(batch):
                left.append((batch.slice(begin), where))
            first += len(batch)
        self._batches, self._n = left, self._n - rows
        self._starts = np.maximum(self._starts[groups:] - rows, 0)
        self._continues = groups == 0
        return part


def _starts(keys: Sequence[Any], last: Sequence[Any] | None) -> NDArray[np.int64]:
    """Rows of a batch with which another group begins than that of the row before."""
    n = len(keys[0])
    changes = np.zeros(n, dtype=bool)
    changes[0] = last is None
    for k, key in enumerate(keys):
        changes[1:] |= _true(pc.not_equal(key.slice(1), key.slice(0, n - 1)))
        if last is not None:
            changes[:1] |= _true(pc.not_equal(key.slice(0, 1), last[k]))
    return np.flatnonzero(changes).astype(np.int64)


def _check_ascending(
    keys: Sequence[Any], starts: NDArray[np.int64], last: Sequence[Any] | None
) -> None:
    """Compare the groups that begin in a batch, by their columns in order."""
    first = pa.array(starts)
    runs = [key.take(first) for key in keys]
    if last is not None:
        runs = [pa.concat_arrays([old, own]) for old, own in zip(last, runs, strict=True)]
    if len(runs[0]) < 2:
        return
    n = len(runs[0]) - 1
    before, equal = np.zeros(n, dtype=bool), np.ones(n, dtype=bool)
    for run in runs:
        a, b = run.slice(0, len(run) - 1), run.slice(1)
        before = before | (equal & _true(pc.less(a, b)))
        equal = equal & _true(pc.equal(a, b))
    if not before.all():
        raise ScatteredError


def _true(array: Any) -> NDArray[np.bool_]:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=bool)
