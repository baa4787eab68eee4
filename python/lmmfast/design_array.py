"""The design of plain arrays: y, X, Z and groups as they lie in memory."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.columns import Column, read_column
from lmmfast.design import (
    Batch,
    NewBatch,
    Term,
    check_names,
    check_size,
    choose_structures,
    kernel_column,
    kernel_ready,
    ones,
)
from lmmfast.errors import DataError
from lmmfast.frame import (
    Rows,
    as_float,
    check_infinite,
    check_weights,
    usable_rows,
    used_rows,
)
from lmmfast.keys import GroupKeys, check_key_kind, group_keys
from lmmfast.residual.columns import read_structure
from lmmfast.residual.structures import ResidualStructure
from lmmfast.tables import check_same_index, is_table, open_table, row_index, single_column


@dataclass(frozen=True)
class ArraySpec:
    """Makes columns from new arrays; holds no data and can be pickled.

    Attributes
    ----------
    x_names : tuple of str
    z_names : tuple of str or None
        None: the model has a random intercept and needs no Z.
    offset_array : bool
        The fit had an offset, which new data cannot supply by name.
    """

    x_names: tuple[str, ...]
    z_names: tuple[str, ...] | None
    group_name: str
    text_keys: bool
    offset_array: bool = False

    def columns(self, X: Any, Z: Any = None, *, random: bool = True) -> NewBatch:
        """Make X and Z from new arrays.

        Parameters
        ----------
        X : (n, p) array or table
        Z : (n, q) array or table, optional
            Not needed for a random intercept.
        random : bool
            Make Z too.

        Raises
        ------
        DataError
            The number of columns or rows is not what the fit had, or there are no numbers.
        """
        if Z is not None and self.z_names is None:
            raise DataError("the fit had a random intercept and no Z: leave Z out")
        x_columns = _read_new_matrix(X, "X", self.x_names)
        n = len(x_columns[0]) if x_columns else len(X)
        z_columns: list[Column] = []
        if random and self.z_names is not None:
            if Z is None:
                raise DataError(f"the model needs Z with columns {', '.join(self.z_names)}")
            z_columns = _read_new_matrix(Z, "Z", self.z_names)
            _check_length(z_columns, n)
        masks = [c.missing for c in [*x_columns, *z_columns] if c.missing is not None]
        missing = np.logical_or.reduce(masks) if masks else None
        made = [_nan_where_missing(column) for column in [*x_columns, *z_columns]]
        Z_made = made[len(x_columns) :]
        if random and self.z_names is None:
            Z_made = [ones(n)]
        return NewBatch(n, made[: len(x_columns)], Z_made, None, missing)

    def group_keys(self, groups: Any) -> GroupKeys:
        """Read the group keys of new rows; rows without a group are marked `missing`."""
        groups = single_column(self.group_name, groups)
        keys = group_keys([read_column(self.group_name, groups, group=True)])
        check_key_kind(keys, self.text_keys, self.group_name)
        return keys


class ArrayDesign:
    """Columns that lie in memory.

    Parameters
    ----------
    y : (n,) array
    X : (n, p) array or table
        Any number dtype and memory order; columns of the `lmmfast.design.KERNEL_DTYPES` are not
        copied, others are converted when they are asked for. Tables keep their column names.
    groups : (n,) array
        Integers, text or categories.
    Z : (n, q) array or table, optional
        Default: a random intercept.
    weights, offset : (n,) array, optional
    x_names, z_names : sequence of str, optional
    missing : {"raise", "drop"}
        With "raise" floating-point columns are not searched for NaN here (see
        `lmmfast.design.check_finite`); with "drop" rows with NaN are left out.
    D : RandomStructure, optional
        Default: unstructured.
    part : bool
        The rows are added to others of a fit, so that they may be few.

    Raises
    ------
    DataError
        Naming the array, column or row at fault.
    """

    unit: int | None = None  # nobody says that a column of X is the constant 1

    def __init__(
        self,
        y: Any,
        X: Any,
        groups: Any,
        Z: Any = None,
        *,
        weights: Any = None,
        offset: Any = None,
        x_names: Sequence[str] | None = None,
        z_names: Sequence[str] | None = None,
        y_name: str = "y",
        group_name: str = "group",
        D: Any = None,
        missing: str = "raise",
        part: bool = False,
        residual: ResidualStructure | None = None,
    ) -> None:
        if missing not in ("drop", "raise"):
            raise ValueError(f"missing={missing!r} must be 'drop' or 'raise'")
        scan = missing == "drop"
        given = {"y": y, "X": X, "groups": groups, "Z": Z, "weights": weights, "offset": offset}
        check_same_index({name: row_index(data) for name, data in given.items()})
        self.y_name, self.group_name = y_name, group_name
        self._y = _read_vector(y, y_name, scan)
        self._index = row_index(y)
        n = len(self._y)
        self._X, self.x_names = read_matrix(X, "X", x_names, "x", n, scan)
        self._Z: list[Column] | None = None
        effects: tuple[str, ...] = ("Intercept",)
        if Z is not None:
            self._Z, effects = read_matrix(Z, "Z", z_names, "z", n, scan)
            if not effects:
                raise DataError("Z has no columns: leave it out for a random intercept")
        elif z_names is not None:
            raise DataError("z_names without Z: give both or neither")
        elif residual is not None:
            self._Z, effects = [], ()
        self._weights = None if weights is None else _read_vector(weights, "weights", scan)
        self._offset = None if offset is None else _read_vector(offset, "offset", scan)
        group = read_column(group_name, single_column(group_name, groups), group=True)
        self.residual: ResidualStructure | None = None
        self._others: dict[str, Column] = {}
        if residual is not None:
            self.residual, self._others = read_structure(residual, None)
        others = list(self._others.values())
        _check_length([*self._numbers(), group, *others], n)
        used = [group, *self._numbers(), *others]
        self.kept, self.missing_counts = usable_rows(used, n, missing)
        for column in [*(self._numbers() if scan else []), *others]:
            check_infinite(column, self.kept)
        check_infinite(group, self.kept)
        check_weights(self._weights, self.kept)
        self.n_obs = n if self.kept is None else len(self.kept)
        self.n_dropped = n - self.n_obs
        if not part:
            check_size(self.n_obs, self.x_names)
        self.keys: GroupKeys = group_keys([group], self.kept)
        written = [("(Z | groups)", "us", None)] if effects else []
        structures = choose_structures(written, D)
        self.terms: tuple[Term, ...] = tuple(Term(group_name, effects, s) for s in structures)
        self.spec = ArraySpec(
            self.x_names,
            None if Z is None and effects else effects,
            group_name,
            self.keys.is_text,
            offset is not None,
        )

    def with_response(self, y: NDArray[np.float64]) -> ArrayDesign:
        """Return the same design with another response (n_obs,) for the rows used."""
        new = copy.copy(self)
        values = y
        if self.kept is not None:
            values = np.full(self.n_obs + self.n_dropped, np.nan)
            values[self.kept] = y
        new._y = Column(self.y_name, values)
        return new

    @property
    def residual_columns(self) -> dict[str, Column]:
        """Columns of the residual structure, for the rows used."""
        return {name: used_rows(column, self.kept) for name, column in self._others.items()}

    @property
    def index(self) -> Any:
        """Index of the rows used if y is a pandas series."""
        return self._index if self._index is None or self.kept is None else self._index[self.kept]

    def _numbers(self) -> list[Column]:
        extra = [column for column in (self._weights, self._offset) if column is not None]
        return [self._y, *self._X, *(self._Z or []), *extra]

    @property
    def random_access(self) -> bool:
        """Whether all columns lie in the user's memory as the kernels take them."""
        return self.kept is None and all(kernel_ready(c.values) for c in self._numbers())

    def batch(self, rows: Rows) -> Batch:
        """Columns for some of the rows used."""
        located = rows if self.kept is None else self.kept[rows]

        def take(column: Column) -> NDArray[Any]:
            return kernel_column(column.values[located])

        y = take(self._y)
        return Batch(
            y=y,
            X=[take(column) for column in self._X],
            Z=[ones(len(y))] if self._Z is None else [take(column) for column in self._Z],
            weights=None if self._weights is None else take(self._weights),
            offset=None if self._offset is None else take(self._offset),
        )

    def original_row(self, row: int) -> int:
        """Position in the user's arrays of a row used."""
        return row if self.kept is None else int(self.kept[row])


def _read_vector(data: Any, name: str, scan: bool) -> Column:
    """Read y, weights or offset."""
    return _number_column(name, single_column(name, data), scan)


def _number_column(name: str, data: Any, scan: bool) -> Column:
    plain = not scan and type(data) is np.ndarray and data.ndim == 1 and data.dtype.kind == "f"
    column = Column(name, data) if plain else read_column(name, data)
    if column.is_factor:
        raise DataError(
            f"{name!r} is text or categorical: arrays must be numbers; use a formula to code "
            "categories"
        )
    return column


def read_matrix(
    data: Any,
    role: str,
    names: Sequence[str] | None,
    prefix: str,
    n: int | None,
    scan: bool,
) -> tuple[list[Column], tuple[str, ...]]:
    """Read X or Z as columns.

    Parameters
    ----------
    data : (n, k) array, table or (n,) array
    role : str
        "X" or "Z", for messages.
    names : sequence of str or None
        Default: those of a table, or `prefix` and a number.
    n : int or None
        Number of rows there must be.
    scan : bool
        Search floating-point columns for NaN.
    """
    columns, given = _columns_of(data, role)
    plain = type(data) is np.ndarray and data.dtype.kind == "f" and not scan
    if names is not None and len(names) != len(columns):
        raise DataError(f"{role} has {len(columns)} columns, but {len(names)} names are given")
    chosen = tuple(names or given or (f"{prefix}{j}" for j in range(len(columns))))
    check_names(chosen, role)
    read = [
        Column(name, one) if plain else _number_column(name, one, scan)
        for name, one in zip(chosen, columns, strict=True)
    ]
    if n is not None:
        _check_length(read, n)
    return read, chosen


def _columns_of(data: Any, role: str) -> tuple[list[Any], list[str] | None]:
    """One-dimensional columns and, for a table, their names."""
    if is_table(data):
        table = open_table(data)
        if hasattr(type(data), "columns") and len(data.columns) != len(table.names):
            raise DataError(f"the columns of {role} must be named by text")
        return [table.fetch(name) for name in table.names], list(table.names)
    if type(data).__module__.startswith("scipy.sparse"):
        raise DataError(f"{role} is a sparse matrix: give a dense one, such as {role}.toarray()")
    array = data if isinstance(data, np.ma.MaskedArray) else np.asarray(data)
    if array.ndim == 1:
        return [array], None
    if array.ndim != 2:
        raise DataError(f"{role} must have two dimensions (rows, columns), not shape {array.shape}")
    return list(array.T), None


def _read_new_matrix(data: Any, role: str, names: tuple[str, ...]) -> list[Column]:
    """Read a matrix for prediction; a table must have the columns of the fit, in any order."""
    if is_table(data):
        table = open_table(data)
        absent = [name for name in names if name not in table.names]
        if absent:
            raise DataError(f"the new {role} has no column {absent[0]!r}")
        return [_number_column(name, table.fetch(name), scan=True) for name in names]
    columns, _ = read_matrix(data, role, None, role.lower(), None, scan=True)
    if len(columns) != len(names):
        raise DataError(f"the new {role} has {len(columns)} columns, the fit had {len(names)}")
    return columns


def _check_length(columns: Sequence[Column], n: int) -> None:
    for column in columns:
        if len(column.values) != n:
            raise DataError(f"{column.name!r} has {len(column)} rows, but y has {n}")


def _nan_where_missing(column: Column) -> NDArray[np.float64]:
    values = as_float(column.values)
    return values if column.missing is None else np.where(column.missing, np.nan, values)
