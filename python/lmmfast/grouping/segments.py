"""The rows of a table in the order of their segments, and the table of some segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast._threads import n_threads
from lmmfast.data.columns import Column
from lmmfast.data.frame import (
    Rows,
    as_float,
    check_lengths,
    read_extra,
    usable_rows,
    with_used_levels,
)
from lmmfast.data.keys import renumber
from lmmfast.data.tables import Table, check_same_index, open_table, row_index, suggest
from lmmfast.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class SortedTable(Table):
    """Some rows of another table; each column is read once and then shared by all parts of it."""

    source: Table | None = None
    rows: Rows | None = None  # None: all
    columns: dict[tuple[str, bool], Column] = field(default_factory=dict)

    def read(self, name: str, *, group: bool = False) -> Column:
        """Read one column; see `lmmfast.data.columns.read_column`."""
        if (name, group) not in self.columns:
            assert self.source is not None
            column = self.source.read(name, group=group)
            check_lengths([column], self.source.n_rows)
            self.columns[name, group] = take(column, self.rows)
        return self.columns[name, group]

    def part(self, rows: slice) -> SortedTable:
        """Look at some neighbouring rows."""
        index = None if self.index is None else self.index[rows]
        return SortedTable(self.names, rows.stop - rows.start, self.fetch, index, self, rows)


def take(column: Column, rows: Rows | None) -> Column:
    """Return some rows of a column."""
    if rows is None:
        return column
    missing = None if column.missing is None else column.missing[rows]
    return Column(
        column.name,
        column.values[rows],
        column.levels,
        missing if missing is not None and missing.any() else None,
        column.keeps_order,
        column.finite,
    )


@dataclass(frozen=True)
class Segments:
    """Rows in the order of their segments.

    Attributes
    ----------
    table : SortedTable
    weights, offset : str, ndarray or None
        Column name, or a value for each row of ``table``.
    starts : ndarray (S + 1,)
        Rows ``starts[s] ... starts[s + 1] - 1`` are those of segment s.
    labels : pandas.Index (S,)
        Sorted; of several columns a MultiIndex.
    missing_counts : dict
        Columns that tell the segments apart and have missing values, and how many.
    n_dropped : int
        Rows that belong to no segment because of them.
    """

    table: SortedTable
    weights: Any
    offset: Any
    starts: NDArray[np.int64]
    labels: pd.Index[Any]
    missing_counts: dict[str, int]
    n_dropped: int

    @property
    def n_rows(self) -> int:
        """Rows of the data, or of the subset."""
        return self.table.n_rows + self.n_dropped

    @property
    def by(self) -> list[str]:
        """Columns that tell the segments apart."""
        return [str(name) for name in self.labels.names]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows(self, first: int, end: int) -> slice:
        """Rows of segments first ... end - 1."""
        return slice(int(self.starts[first]), int(self.starts[end]))

    def part(self, first: int, end: int) -> dict[str, Any]:
        """Table, weights and offset of segments first ... end - 1, as a design takes them."""
        rows = self.rows(first, end)
        weights, offset = (
            given if given is None or isinstance(given, str) else given[rows]
            for given in (self.weights, self.offset)
        )
        return {"data": self.table.part(rows), "weights": weights, "offset": offset}


def segments(
    data: Any,
    by: Any,
    *,
    weights: Any,
    offset: Any,
    missing: str,
    selected: NDArray[np.intp] | None = None,
) -> Segments:
    """Sort the rows of a table, or those selected, by segment.

    Raises
    ------
    DataError
        A column of `by` is not there, or misses values and they are not to be dropped.
    """
    table = open_table(data)
    names = [by] if isinstance(by, str) else by
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise DataError(f"by={by!r} must be the name of a column of the data, or a list of them")
    if not names:
        raise DataError("by= names no column: give the columns that tell the segments apart")
    for name in names:
        if name not in table.names:
            raise DataError(f"by={name!r} is not a column of the data{suggest(name, table.names)}")
    columns = [table.read(name, group=True) for name in names]
    check_lengths(columns, table.n_rows)
    used, counts = usable_rows(columns, table.n_rows, missing, selected)
    columns = [take(column, used) for column in columns]
    order, starts, labels = _sort(columns)
    rows = used if order is None else order if used is None else used[order]
    weights = _extra("weights", weights, table, rows)
    offset = _extra("offset", offset, table, rows)
    n_rows = int(starts[-1])
    index = table.index if table.index is None or rows is None else table.index[rows]
    sorted_table = SortedTable(table.names, n_rows, table.fetch, index, table, rows)
    n_dropped = (table.n_rows if selected is None else len(selected)) - n_rows
    return Segments(sorted_table, weights, offset, starts, labels, counts, n_dropped)


def _extra(role: str, given: Any, table: Table, rows: Rows | None) -> Any:
    """Weights or offset as they are passed on: a name, or floats with NaN where missing."""
    if given is None or isinstance(given, str):
        return given
    check_same_index({"data": table.index, role: row_index(given)})
    column = read_extra(role, given, table)
    assert column is not None
    check_lengths([column], table.n_rows)
    values = column.values
    if column.missing is not None:
        values = np.where(column.missing, np.nan, as_float(values))
    return values if rows is None else values[rows]


def _sort(
    columns: Sequence[Column],
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64], pd.Index[Any]]:
    """Order of the rows (None: as they are), first row of each segment, labels.

    Runs of equal values are found first, so that data in the order of their segments cost one
    comparison a row and are not copied.
    """
    n = len(columns[0])
    changes = np.zeros(n, dtype=bool)
    changes[0] = True
    for column in columns:
        changes[1:] |= column.values[1:] != column.values[:-1]
    run_starts = np.flatnonzero(changes)
    codes = np.zeros(len(run_starts), dtype=np.int64)
    coded = []
    for column in columns:
        code, names = _code(take(column, run_starts))
        coded.append((code, names))
        codes = renumber(codes * len(names) + code)[0]
    n_segments = int(codes.max()) + 1
    if len(codes) == n_segments and bool(np.all(codes[1:] > codes[:-1])):
        order, starts = None, np.append(run_starts, n).astype(np.int64)
    else:
        row_codes = np.repeat(codes, np.diff(np.append(run_starts, n)))
        starts, order = core.group_rows(row_codes, 0, n_segments, n_threads())
    first_runs = np.empty(n_segments, dtype=np.intp)
    first_runs[codes[::-1]] = np.arange(len(codes))[::-1]
    values = [names[code[first_runs]] for code, names in coded]
    return order, starts, _labels(values, [column.name for column in columns])


def _code(column: Column) -> tuple[NDArray[np.int64], Any]:
    """Codes in sorted order of the values, and the values."""
    column = with_used_levels(column, None)
    if column.levels is not None:
        return column.values.astype(np.int64), column.levels
    return renumber(column.values)


def _labels(values: list[Any], names: list[str]) -> pd.Index[Any]:
    import pandas as pd

    labels: pd.Index[Any]
    if len(values) == 1:
        labels = pd.Index(values[0], name=names[0])
    else:
        labels = pd.MultiIndex.from_arrays(values, names=names)
    return labels
