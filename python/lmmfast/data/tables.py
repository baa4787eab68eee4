"""A user's data frame, whichever library made it: column names, and columns on request."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmmfast.data.columns import Column, read_column
from lmmfast.errors import DataError


@dataclass(frozen=True)
class Table:
    """A user's data frame: names, columns on request, and the index of pandas frames."""

    names: tuple[str, ...]
    n_rows: int
    fetch: Callable[[str], Any]
    index: Any = None

    def read(self, name: str, *, group: bool = False) -> Column:
        """Read one column; see `lmmfast.data.columns.read_column`."""
        return read_column(name, self.fetch(name), group=group)


def open_table(data: Any) -> Table:
    """Look at a data frame of any kind.

    Parameters
    ----------
    data : pandas, polars or pyarrow table, mapping of arrays, structured array
        In a mapping single values stand for a constant column.

    Raises
    ------
    DataError
        Not a table, or two columns have the same name.
    """
    if isinstance(data, Table):
        return data
    if isinstance(data, np.ndarray) and data.dtype.names:
        return Table(tuple(data.dtype.names), len(data), lambda name: data[name])
    if isinstance(data, Mapping):
        return _open_mapping(data)
    import narwhals  # noqa: F401  whole, before its parts: threads must not meet within them
    import narwhals.stable.v2 as nw

    if _is_pandas(data):
        _check_pandas(data)
    elif type(data).__module__.startswith("pyarrow") and type(data).__name__ == "RecordBatch":
        data = _arrow_table(data)
    try:
        frame = nw.from_native(data, eager_only=True)
    except TypeError:
        raise DataError(_what_to_do(data)) from None

    def fetch(name: str) -> Any:
        series = frame.get_column(name)
        native = series.to_native()
        known = type(native).__module__.split(".")[0] in ("pandas", "polars", "pyarrow")
        return native if known else series.to_pandas()

    names = tuple(name for name in frame.columns if isinstance(name, str))
    _check_duplicates(names)
    return Table(names, len(frame), fetch, row_index(data))


def _what_to_do(data: Any) -> str:
    """Say what an object is that is no table in memory, and how to make one of it."""
    kind = f"{type(data).__module__}.{type(data).__qualname__}"
    tables = "a pandas, polars or pyarrow table or a dict of arrays"
    if isinstance(data, str | os.PathLike):
        return (
            f"data={os.fspath(data)!r} is a path: read the file first, for instance by "
            f"pandas.read_csv or polars.read_parquet, and pass the table"
        )
    for method, what in (
        ("collect", "a lazy frame"),  # polars
        ("to_arrow_table", "a database relation"),  # duckdb
        ("fetch_arrow_table", "a database relation"),
        ("to_pyarrow", "an expression of a database table"),  # ibis
        ("toPandas", "a distributed frame"),  # pyspark
        ("compute", "a distributed frame"),  # dask
    ):
        if hasattr(data, method):
            return (
                f"data of type {kind} are {what}, not in memory: select the columns of the model "
                f"and pass data.{method}()"
            )
    return f"data of type {kind} are not a table in memory: give {tables}"


def row_index(data: Any) -> Any:
    """Index of a pandas frame or series; None for anything else."""
    if data is None or type(data) is np.ndarray:
        return None
    return data.index if _is_pandas(data) and hasattr(data, "iloc") else None


def check_same_index(indexes: Mapping[str, Any]) -> None:
    """Raise a DataError if two pandas indexes (None: there is none) of one length differ.

    Rows are paired by position: another index is most likely another order of rows.
    """
    first: tuple[str, Any] | None = None
    for name, index in indexes.items():
        if index is None:
            continue
        if first is None:
            first = name, index
        elif index is not first[1] and len(index) == len(first[1]) and not index.equals(first[1]):
            raise DataError(
                f"{first[0]!r} and {name!r} are paired by position, but their indexes differ: "
                "align them and use .reset_index(drop=True), or pass .to_numpy()"
            )


def single_column(name: str, data: Any) -> Any:
    """The one column of a table or matrix; anything else as it is.

    Raises
    ------
    DataError
        The table has another number of columns.
    """
    if isinstance(data, np.ndarray) and data.ndim == 2 and data.shape[1] == 1:
        return data[:, 0]
    if not is_table(data):
        return data
    if hasattr(data, "iloc") and data.shape[1] == 1:
        return data.iloc[:, 0]  # whatever its name
    table = open_table(data)
    if len(table.names) != 1:
        raise DataError(f"{name!r} is a table of {len(table.names)} columns: give one column")
    return table.fetch(table.names[0])


def _is_pandas(data: Any) -> bool:
    return any(c.__module__.startswith("pandas") for c in type(data).__mro__)


def _check_pandas(data: Any) -> None:
    """Raise a DataError if it is not a frame with plain, distinct column names."""
    if not hasattr(data, "columns"):
        raise DataError(
            f"data of type pandas {type(data).__name__} are no table: give a frame, and one row as "
            "d.iloc[[0]] rather than d.iloc[0]"
        )
    if data.columns.nlevels > 1:
        shown = ", ".join(map(repr, data.columns[:5])) + (", ..." if len(data.columns) > 5 else "")
        raise DataError(
            f"the columns have names of {data.columns.nlevels} levels: {shown}; join them, such as "
            "d.columns = ['_'.join(map(str, c)) for c in d.columns]"
        )
    _check_duplicates([name for name in data.columns if isinstance(name, str)])


def _arrow_table(batch: Any) -> Any:
    import pyarrow as pa

    return pa.Table.from_batches([batch])


def is_table(data: Any) -> bool:
    """Tell a table from an array."""
    if isinstance(data, np.ndarray):
        return data.dtype.names is not None
    return isinstance(data, Mapping) or hasattr(type(data), "columns")


def _check_duplicates(names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"the data have several columns named {twice[0]!r}: rename or drop them")


def _open_mapping(data: Mapping[str, Any]) -> Table:
    lengths = {
        name: len(values)
        for name, values in data.items()
        if not isinstance(values, str) and hasattr(values, "__len__") and np.ndim(values) > 0
    }
    if len(set(lengths.values())) > 1:
        # Name the column that disagrees with most of the others.
        sizes = list(lengths.values())
        usual = max(sizes, key=sizes.count)
        odd = next(name for name, size in lengths.items() if size != usual)
        raise DataError(
            f"the columns have different lengths: {odd!r} has {lengths[odd]} values, others have "
            f"{usual}"
        )
    check_same_index({name: row_index(values) for name, values in data.items()})
    n = next(iter(lengths.values()), 1)

    def fetch(name: str) -> Any:
        values = data[name]
        return values if name in lengths else [values] * n

    return Table(tuple(name for name in data if isinstance(name, str)), n, fetch)


def suggest(name: str, names: Iterable[str]) -> str:
    """``"; did you mean 'age'?"`` where a name is close, else the first names there are."""
    names = list(names)
    close = difflib.get_close_matches(name, names, n=3)
    if not close:
        close = [other for other in names if other.lower() == name.lower()]
    if close:
        return "; did you mean " + " or ".join(repr(c) for c in close) + "?"
    more = ", ..." if len(names) > 10 else ""
    return "; the columns are " + ", ".join(names[:10]) + more
