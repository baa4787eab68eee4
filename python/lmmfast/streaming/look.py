"""A first look at a stream: a sample, levels of factors, and what transforms learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmmfast.data.columns import Column
from lmmfast.data.frame import RowView
from lmmfast.data.tables import Table, open_table
from lmmfast.errors import DataError, TooLargeError
from lmmfast.formula.spec import with_known_levels
from lmmfast.streaming.rows import Cleaner, gathered, sized
from lmmfast.streaming.types import width

if TYPE_CHECKING:
    import pandas as pd

#: formulaic takes about this many times the bytes of what it learns from.
ROOM = 6


@dataclass(frozen=True)
class LevelledTable(Table):
    """A sample of the rows, whose factors have the levels of all rows."""

    levels: Mapping[str, pd.Index[Any]] | None = None

    def read(self, name: str, *, group: bool = False) -> Column:
        """Read one column."""
        column = Table.read(self, name, group=group)
        levels = (self.levels or {}).get(name)
        if levels is None:
            return column
        return replace(with_known_levels(column, levels), occurring=True)


@dataclass(frozen=True)
class Look:
    """What is known before the pass.

    Attributes
    ----------
    sample : pyarrow.Table
        Complete rows.
    levels : dict of pandas.Index
        Of factor columns.
    everything : RowView or None
        Columns of all rows that transforms learn from.
    """

    sample: Any
    levels: dict[str, pd.Index[Any]]
    everything: RowView | None

    def table(self) -> LevelledTable:
        """Return the sample as a table whose factors have the levels of all rows."""
        plain = open_table(self.sample)
        return LevelledTable(plain.names, plain.n_rows, plain.fetch, None, self.levels)


def look(
    source: Any, cleaner: Cleaner, factors: list[str], learning: list[str], memory: int
) -> Look:
    """Look at a source, at all its rows only where something is to be learnt from them.

    Parameters
    ----------
    source : ParquetFiles or ScratchFile
    cleaner : Cleaner
        Of the columns of the model.
    factors : list of str
        Columns whose levels are wanted.
    learning : list of str
        Columns that transforms learn from.
    memory : int
        Bytes that these may take.

    Raises
    ------
    DataError
        There are no complete rows.
    TooLargeError
        More than fits into memory is to be learnt from.
    """
    types, names = cleaner.types, list(cleaner.types)
    fresh = replace(cleaner, missing="drop", missing_counts={}, told=None)
    sample = gathered(fresh.clean(source.sample(names)), types)
    levels: dict[str, Any] = {}
    everything = None
    if factors or learning:
        needed = source.n_rows * sized(types, learning, width) * ROOM
        if needed > memory:
            raise TooLargeError(
                f"learning from all {source.n_rows:,} values of {', '.join(map(repr, learning))} "
                f"takes about {needed >> 20:,} MB: raise memory=, choose learn='sample' of "
                "lmmfast.scan, or compute the columns beforehand"
            )
        levels, rows = _pass(source, cleaner, factors, learning)
        if learning:
            table = LevelledTable(*_opened(rows), None, levels)
            columns = {name: table.read(name) for name in learning}
            everything = RowView(columns, slice(None), table.n_rows)
    if not len(sample):  # the few rows of the sample all miss something
        fresh = replace(cleaner, missing="drop", missing_counts={})
        first = next(fresh.clean(source.batches(names)), None)
        if first is None:
            listed = ", ".join(f"{k!r} ({n})" for k, n in fresh.missing_counts.items())
            rows_missing = f"all {fresh.n_rows} rows have missing values: {listed}"
            raise DataError(rows_missing if fresh.n_rows else "the data have no rows")
        sample = pa.Table.from_batches([first[0]]).slice(0, 4000)
    return Look(sample, levels, everything)


def _opened(table: Any) -> tuple[tuple[str, ...], int, Any]:
    plain = open_table(table)
    return plain.names, plain.n_rows, plain.fetch


def _pass(
    source: Any, cleaner: Cleaner, factors: list[str], learning: list[str]
) -> tuple[dict[str, Any], Any]:
    """Levels of factors among the rows used, and the columns that transforms learn from."""
    cleaner = replace(cleaner, missing_counts={})
    found: dict[str, list[Any]] = {name: [] for name in factors}
    ordered: dict[str, Any] = {}
    kept = []
    for batch, place in cleaner.clean(source.batches(list(cleaner.types))):
        for name in factors:
            column = batch.column(name)
            if pa.types.is_dictionary(column.type):
                known = ordered.setdefault(name, column.dictionary)
                if not known.equals(column.dictionary):
                    raise DataError(
                        f"the ordered categories of {name!r} are others in {place} than before: "
                        "write them alike"
                    )
                column = column.dictionary_decode()
            found[name] = [pc.unique(pa.concat_arrays([*found[name], pc.unique(column)]))]
        if learning:
            kept.append((batch.select(learning), place))
    return (
        {name: _sorted(values[0], ordered.get(name)) for name, values in found.items() if values},
        gathered(iter(kept), cleaner.types, learning) if learning else None,
    )


def _sorted(values: Any, ordered: Any) -> Any:
    """Levels in order, which the user may have chosen."""
    import pandas as pd

    present = values.to_pylist()
    if ordered is not None:
        return pd.Index([level for level in ordered.to_pylist() if level in set(present)])
    return pd.Index(np.array(sorted(present), dtype=object), dtype=object)
