"""The model frame: the columns a model uses, out of any data frame, and the rows it can use.

Nothing is copied unless it has to be: number columns stay the user's own memory, rows with missing
values are left out by an index of the rows kept, and pandas frames are made only of the rows and
columns that formulaic is about to evaluate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.data.columns import Column, all_finite, read_column
from lmmfast.data.tables import Table, check_same_index, open_table, row_index, suggest
from lmmfast.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Rows = slice | NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class ModelFrame:
    """The columns of a model and the rows it uses.

    Factor columns have the levels that occur in the rows used: sorted, except where the user chose
    an order (pandas Categorical, polars Enum), which is kept minus the levels that do not occur.

    Attributes
    ----------
    columns : dict of Column
        Over all rows of the user's data.
    n_rows : int
        Rows of the user's data.
    kept : (n_obs,) ndarray of int or None
        Rows used, ascending; None when all are.
    missing_counts : dict
        Column name to its number of missing values; only columns that have some.
    selected : (k,) ndarray of int or None
        Rows of the subset, whether they miss values or not; None when it is all.
    weights, offset : Column or None
    others : dict of Column
        Columns that a residual structure depends on.
    """

    columns: dict[str, Column]
    n_rows: int
    kept: NDArray[np.intp] | None
    missing_counts: dict[str, int]
    selected: NDArray[np.intp] | None = None
    weights: Column | None = None
    offset: Column | None = None
    others: Mapping[str, Column] = field(default_factory=dict)

    def residual_columns(self) -> dict[str, Column]:
        """Columns of the residual structure for the rows used, with the levels that occur there."""
        return {name: used_rows(column, self.kept) for name, column in self.others.items()}

    @property
    def n_obs(self) -> int:
        """Rows used."""
        return self.n_rows if self.kept is None else len(self.kept)

    @property
    def n_dropped(self) -> int:
        """Rows left out because something is missing."""
        selected = self.n_rows if self.selected is None else len(self.selected)
        return selected - self.n_obs

    def original_row(self, row: int) -> int:
        """Position in the user's data of a row used."""
        return row if self.kept is None else int(self.kept[row])

    def view(self, rows: Rows) -> RowView:
        """Look at some of the rows used."""
        return RowView(self.columns, rows if self.kept is None else self.kept[rows], self.n_rows)


class RowView:
    """Some rows of some columns.

    Parameters
    ----------
    columns : mapping of Column
    rows : slice or (k,) ndarray of int
        Positions in the columns.
    n_rows : int
        Length of the columns.
    """

    def __init__(self, columns: Mapping[str, Column], rows: Rows, n_rows: int) -> None:
        self.columns = columns
        self.rows = rows
        self.n_rows = n_rows
        self._values: dict[str, NDArray[Any]] = {}
        self._numbers: dict[str, NDArray[np.float64]] = {}

    def __len__(self) -> int:
        if isinstance(self.rows, slice):
            return len(range(*self.rows.indices(self.n_rows)))
        return len(self.rows)

    def original_row(self, row: int) -> int:
        """Position in the columns of a row of the view."""
        if isinstance(self.rows, slice):
            return range(*self.rows.indices(self.n_rows))[row]
        return int(self.rows[row])

    def values(self, name: str) -> NDArray[Any]:
        """Values of a number column, codes of a factor: a view of the user's memory for a slice."""
        if name not in self._values:
            self._values[name] = self.columns[name].values[self.rows]
        return self._values[name]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Values of a number column as float64, without a copy where they are already."""
        if name not in self._numbers:
            self._numbers[name] = as_float(self.values(name))
        return self._numbers[name]

    def to_pandas(self, names: Iterable[str]) -> pd.DataFrame:
        """Numbers as 64-bit columns, factors as Categoricals with all their levels."""
        import pandas as pd

        made: dict[str, Any] = {}
        for name in names:
            column = self.columns[name]
            values = column.values[self.rows]
            if column.is_factor:
                dtype = pd.CategoricalDtype(column.levels)
                made[name] = pd.Categorical.from_codes(values, dtype=dtype, validate=False)
            else:
                made[name] = _wide(values)
        return pd.DataFrame(made, index=pd.RangeIndex(len(self)), copy=False)


def _wide(values: NDArray[Any]) -> NDArray[Any]:
    """Small integers would overflow in products, float32 would lose digits in sums."""
    if values.dtype.kind == "f":
        return values.astype(np.float64, copy=False)
    if values.dtype.kind == "i":
        return values.astype(np.int64, copy=False)
    if values.dtype.kind == "u":
        return values.astype(np.uint64 if values.dtype.itemsize == 8 else np.int64, copy=False)
    return values


def as_float(values: NDArray[Any]) -> NDArray[np.float64]:
    """Convert a column (n,) to float64; no copy where it can be read as float64 where it lies."""
    if values.dtype == np.float64 and values.flags.aligned and values.strides[0] % 8 == 0:
        return values
    return values.astype(np.float64)


def model_frame(
    data: Any,
    variables: Iterable[str],
    groups: Iterable[str],
    *,
    weights: Any = None,
    offset: Any = None,
    missing: str = "drop",
    others: Mapping[str, Column] | None = None,
    selected: NDArray[np.intp] | None = None,
) -> ModelFrame:
    """Read the columns of a model and find the rows that can be used.

    Parameters
    ----------
    data : Table, or any table that `open_table` takes
    variables, groups : iterable of str
        Columns of the formula, and columns whose combinations are the groups; all must exist.
    weights, offset : str, array or None
        Column name, or an array with a value for every row of `data`.
    missing : {"drop", "exclude", "raise"}
    others : mapping of Column, optional
        Columns that a residual structure depends on.
    selected : (k,) ndarray of int, optional
        Rows of the subset that is to be used; default: all.

    Raises
    ------
    DataError
        Naming the column and the row: wrong types, lengths, infinite or missing values, weights
        that are not positive, no rows left.
    """
    table = data if isinstance(data, Table) else open_table(data)
    grouping = set(groups)
    columns = {}
    for name in dict.fromkeys([*variables, *grouping]):
        only_group = name in grouping and name not in set(variables)
        columns[name] = table.read(name, group=only_group)
    given_indexes = {"weights": row_index(weights), "offset": row_index(offset)}
    check_same_index({"data": table.index, **given_indexes})
    extra = {
        role: read_extra(role, given, table)
        for role, given in (("weights", weights), ("offset", offset))
    }
    others = {} if others is None else others
    used = [*columns.values(), *(c for c in extra.values() if c is not None), *others.values()]
    n_rows = table.n_rows
    check_lengths(used, n_rows)
    kept, counts = usable_rows(used, n_rows, missing, selected)
    for column in used:
        check_infinite(column, kept)
    check_weights(extra["weights"], kept)
    columns = {name: with_used_levels(column, kept) for name, column in columns.items()}
    weights, offset = extra["weights"], extra["offset"]
    return ModelFrame(columns, n_rows, kept, counts, selected, weights, offset, others)


def used_rows(column: Column, kept: NDArray[np.intp] | None) -> Column:
    """Return a column of the rows used alone, which miss nothing."""
    column = with_used_levels(column, kept)
    values = column.values if kept is None else column.values[kept]
    return replace(column, values=values, missing=None)


def read_extra(role: str, given: Any, table: Table) -> Column | None:
    """Read weights or offset: a column of the table, or an array."""
    if given is None:
        return None
    if isinstance(given, str):
        if given not in table.names:
            raise DataError(
                f"{role}={given!r} is not a column of the data{suggest(given, table.names)}"
            )
        column = table.read(given)
    else:
        column = read_column(role, given)
    if column.is_factor:
        raise DataError(f"{role} ({column.name!r}) must be numbers")
    return column


def check_lengths(columns: Iterable[Column], n_rows: int) -> None:
    """Raise a DataError that names the first column of another length."""
    for column in columns:
        if len(column) != n_rows:
            raise DataError(
                f"{column.name!r} has {len(column)} values, but the data have {n_rows} rows"
            )


def usable_rows(
    columns: Iterable[Column],
    n_rows: int,
    missing: str,
    selected: NDArray[np.intp] | None = None,
) -> tuple[NDArray[np.intp] | None, dict[str, int]]:
    """Find the rows without missing values (None: all), and count the missing per column.

    Parameters
    ----------
    columns : iterable of Column
    n_rows : int
        Their length.
    missing : {"drop", "exclude", "raise"}
    selected : (k,) ndarray of int, optional
        Rows that are to be looked at; default: all.
    """
    check_missing(missing)
    if n_rows == 0:
        raise DataError("the data have no rows")
    masks = [(c.name, c.missing) for c in columns if c.missing is not None]
    if selected is not None:
        masks = [(name, own) for name, mask in masks if (own := mask[selected]).any()]
        n_rows = len(selected)
    if not masks:
        return selected, {}
    counts = {name: int(np.count_nonzero(mask)) for name, mask in masks}
    listed = ", ".join(f"{name!r} ({count})" for name, count in counts.items())
    if missing == "raise":
        raise DataError(
            f"missing values in {listed}: remove or impute them, or leave the rows out with "
            "missing='drop'"
        )
    kept = np.flatnonzero(~np.logical_or.reduce([mask for _, mask in masks]))
    if not len(kept):
        raise DataError(f"all {n_rows} rows have missing values: {listed}")
    return kept if selected is None else selected[kept], counts


def check_missing(missing: str) -> None:
    """Raise a ValueError for what is no way to treat missing values."""
    if missing not in ("drop", "exclude", "raise"):
        raise ValueError(f"missing={missing!r} must be 'drop', 'exclude' or 'raise'")


def at_all_rows(
    values: NDArray[np.float64],
    index: Any,
    n_rows: int,
    kept: NDArray[np.intp] | None,
    selected: NDArray[np.intp] | None,
) -> tuple[NDArray[np.float64], Any]:
    """Spread values of the rows used over all rows of the subset, NaN where one was left out.

    Parameters
    ----------
    values : (n_obs,) ndarray
    index : pandas.Index (n_rows,) or None
        Of the user's data.
    n_rows : int
        Rows of the user's data.
    kept, selected : ndarray of int or None
        Rows used and rows of the subset, ascending; None: all.

    Returns
    -------
    values : (k,) ndarray
    index : pandas.Index (k,) or None
    """
    if selected is not None:
        index = None if index is None else index[selected]
        assert kept is not None  # they are some of the selected
        kept = np.searchsorted(selected, kept)
        n_rows = len(selected)
    if kept is None:
        return values, index
    spread = np.full(n_rows, np.nan)
    spread[kept] = values
    return spread, index


def check_infinite(column: Column, kept: NDArray[np.intp] | None) -> None:
    """Raise a DataError with the first row that is infinite among those used."""
    values = column.values
    if column.finite or values.dtype.kind != "f" or all_finite(values):
        return
    infinite = np.flatnonzero(np.isinf(values))
    if kept is not None and len(infinite):
        infinite = infinite[np.isin(infinite, kept)]
    if len(infinite):
        row = int(infinite[0])
        raise DataError(
            f"column {column.name!r} is infinite in row {row} (counting from 0): remove the row "
            "or set it to missing"
        )


def check_weights(weights: Column | None, kept: NDArray[np.intp] | None) -> None:
    """Raise a DataError with the first row whose weight is not positive."""
    if weights is None:
        return
    bad = ~(weights.values > 0)
    if kept is not None:
        bad = bad[kept]
    if bad.any():
        row = int(np.argmax(bad))
        row = row if kept is None else int(kept[row])
        raise DataError(
            f"weights must be positive: {weights.name!r} is {weights.values[row]} in row {row} "
            "(counting from 0); remove rows that are not to count"
        )


def _occurring(
    codes: NDArray[Any], n_levels: int, kept: NDArray[np.intp] | None
) -> NDArray[np.bool_]:
    """Which levels occur in the rows used, (n_levels,); often a few rows have them all."""
    found = np.zeros(n_levels, dtype=bool)
    n = len(codes) if kept is None else len(kept)
    step = max(n_levels, 1 << 16)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        here = codes[rows] if kept is None else codes[kept[rows]]
        found |= np.bincount(here, minlength=n_levels) > 0
        if found.all():
            break
    return found


def _are_sorted(levels: pd.Index[Any]) -> bool:
    """Whether sorting can be spared; a look at arrow's text would cost as much as sorting."""
    return levels.dtype == object and bool(levels.is_monotonic_increasing)


def with_used_levels(column: Column, kept: NDArray[np.intp] | None) -> Column:
    """Drop the levels that do not occur in the rows used, and sort the rest."""
    if column.levels is None or column.occurring:
        return column
    used = np.flatnonzero(_occurring(column.values, len(column.levels), kept))
    in_order = column.keeps_order or _are_sorted(column.levels)
    if not in_order:
        try:
            used = used[np.asarray(column.levels[used].argsort())]
        except TypeError:
            raise DataError(
                f"column {column.name!r} mixes types that have no common order: convert it to "
                "text or numbers first"
            ) from None
        in_order = bool((used[:-1] < used[1:]).all())
    if in_order and len(used) == len(column.levels):
        return replace(column, occurring=True)
    recode = np.full(len(column.levels) + 1, -1, dtype=np.int32)  # the last one serves code -1
    recode[used] = np.arange(len(used), dtype=np.int32)
    return Column(
        column.name,
        recode[column.values],
        column.levels[used],
        column.missing,
        column.keeps_order,
        occurring=True,
    )
