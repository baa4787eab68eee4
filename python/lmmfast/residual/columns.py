"""Reading the columns that a residual structure names: visits, times, coordinates, groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.data.columns import Column, read_column
from lmmfast.data.tables import Table, single_column, suggest
from lmmfast.errors import DataError
from lmmfast.residual.structures import Correlation, ResidualStructure, Variance


class ColumnReader:
    """Reads each column once, under a name; arrays get a name from their role.

    Parameters
    ----------
    table : Table or None
        None: models fitted to arrays, whose structures hold arrays.
    """

    def __init__(self, table: Table | None) -> None:
        self._table = table
        self.columns: dict[str, Column] = {}
        self._arrays: list[tuple[Any, str]] = []

    def read(self, source: Any, role: str, how: Callable[[str, Any], Column]) -> str:
        """Read a column, given by name or by its values, and return its name."""
        if isinstance(source, str):
            name, data = source, self._fetch(source)
        else:
            name, data = self._name(source, role), single_column(role, source)
        if name not in self.columns:
            self.columns[name] = how(name, data)
        elif how is not _levels and self.columns[name].is_factor:
            how(name, data)  # says why it cannot be used so
        return name

    def _fetch(self, name: str) -> Any:
        if self._table is None:
            raise DataError(
                f"the residual structure names column {name!r}, but this model is fitted to "
                "arrays: give the values themselves, such as lmmfast.OU(times)"
            )
        if name not in self._table.names:
            raise DataError(
                f"the residual structure names {name!r}, which is not a column of the data"
                f"{suggest(name, self._table.names)}"
            )
        return self._table.fetch(name)

    def _name(self, source: Any, role: str) -> str:
        for known, name in self._arrays:
            if known is source:
                return name
        taken = {name for _, name in self._arrays}
        name = next(
            name for name in (role, *(f"{role}{k}" for k in range(2, 99))) if name not in taken
        )
        self._arrays.append((source, name))
        return name


def read_structure(
    structure: ResidualStructure, table: Table | None
) -> tuple[ResidualStructure, dict[str, Column]]:
    """Read all columns of a structure.

    Returns
    -------
    structure : ResidualStructure
        With names where arrays were.
    columns : dict of Column
        By name, over all rows of the data.

    Raises
    ------
    DataError
        Unknown columns, or values of the wrong type.
    """
    reader = ColumnReader(table)
    correlation = structure.correlation
    if correlation is not None:
        correlation = _read_correlation(correlation, reader)
    variances = tuple(_read_variance(part, reader) for part in structure.variances)
    return ResidualStructure(correlation, variances, structure.text), reader.columns


_ROLES = {
    "levels": "visit",
    "positions": "visit",
    "time": "time",
    "coordinates": "coordinate",
}


def _read_correlation(part: Correlation, reader: ColumnReader) -> Correlation:
    how = {"levels": _levels, "positions": _levels, "time": _time, "coordinates": _numbers}
    columns = tuple(reader.read(c, _ROLES[part.role], how[part.role]) for c in part.columns)
    by = None if part.by is None else reader.read(part.by, "by", _levels)
    return replace(part, columns=columns, by=by)


def _read_variance(part: Variance, reader: ColumnReader) -> Variance:
    how = _levels if part.kind == "levels" else _numbers
    role = "stratum" if part.kind == "levels" else "covariate"
    columns = tuple(reader.read(c, role, how) for c in part.columns)
    by = None if part.by is None else reader.read(part.by, "by", _levels)
    return replace(part, columns=columns, by=by)


def _levels(name: str, data: Any) -> Column:
    return read_column(name, data, group=True)


def _numbers(name: str, data: Any) -> Column:
    column = read_column(name, data)
    if column.is_factor:
        raise DataError(f"column {name!r} of the residual structure must be numbers")
    return column


def _time(name: str, data: Any) -> Column:
    """Numbers, or dates as days since the first."""
    column = read_column(name, data, group=True)
    if not column.is_factor:
        return column
    assert column.levels is not None
    found = _days(np.asarray(column.levels), None)
    if found is None:
        raise DataError(f"the time {name!r} must be numbers or dates, not text or categories")
    days, origin = found
    values = np.append(days, np.nan)[column.values]
    return Column(name, values, missing=column.missing, origin=origin)


def as_days(column: Column, origin: str | None) -> NDArray[np.float64] | None:
    """Dates or durations (n,) of new rows as the days that a fit counts; NaN where missing.

    Parameters
    ----------
    column : Column
    origin : str or None
        Date that days are counted from; None: they are durations.

    Returns
    -------
    ndarray or None
        None for numbers, text, and dates where the fit had none or the reverse.
    """
    found = None if column.levels is None else _days(np.asarray(column.levels), origin)
    if found is None or (found[1] is None) != (origin is None):
        return None
    return np.asarray(np.append(found[0], np.nan)[column.values])


def _days(levels: Any, origin: str | None) -> tuple[NDArray[np.float64], str | None] | None:
    """Dates or durations as days (k,), and the first date; None if they are something else."""
    import pandas as pd

    if not len(levels):
        return np.empty(0), origin
    first = levels[0]
    day = pd.Timedelta(days=1)
    try:
        if isinstance(first, np.timedelta64) or hasattr(first, "total_seconds"):
            return np.asarray(pd.to_timedelta(levels) / day, dtype=float), None
        if isinstance(first, str | bytes | int | float | np.number):
            return None
        times = pd.DatetimeIndex(pd.to_datetime(levels, utc=True))
        start = times.min() if origin is None else pd.Timestamp(origin)
        return np.asarray((times - start) / day, dtype=float), start.isoformat()
    except (TypeError, ValueError):
        return None
