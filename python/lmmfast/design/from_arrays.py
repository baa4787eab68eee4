"""The design of plain arrays: y, X, Z and groups as they lie in memory."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.covariance.random import Term, choose_structures, terms_without
from lmmfast.data.batch import Batch, NewBatch, kernel_column, kernel_ready, ones
from lmmfast.data.columns import Column, read_column
from lmmfast.data.frame import (
    Rows,
    as_float,
    at_all_rows,
    check_infinite,
    check_missing,
    check_weights,
    usable_rows,
    used_rows,
)
from lmmfast.data.keys import GroupKeys, check_key_kind, group_keys
from lmmfast.data.tables import check_same_index, is_table, open_table, row_index, single_column
from lmmfast.design.design import check_names, check_size, find_empty_effects
from lmmfast.errors import DataError
from lmmfast.grouping.factor_arrays import factor_arrays, legend
from lmmfast.residual.columns import read_structure
from lmmfast.residual.structures import ResidualStructure


@dataclass(frozen=True)
class ArraySpec:
    """Makes columns from new arrays; holds no data and can be pickled.

    Attributes
    ----------
    x_names : tuple of str
    z_names : tuple of (tuple of str or None)
        For each grouping factor; None: it has a random intercept and needs no Z.
    factor_names : tuple of str
    text_keys : tuple of bool
        Were the keys of each grouping factor text?
    offset_array : bool
        The fit had an offset, which new data cannot supply by name.
    left_out : tuple of int
        Columns of Z, those of all factors, that the fit does not use: they are zero in all rows.
    """

    x_names: tuple[str, ...]
    z_names: tuple[tuple[str, ...] | None, ...]
    factor_names: tuple[str, ...]
    text_keys: tuple[bool, ...]
    offset_array: bool = False
    left_out: tuple[int, ...] = ()

    @property
    def group_name(self) -> str:
        """Names of the grouping factors."""
        return ", ".join(self.factor_names)

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
        given = Z if len(self.factor_names) > 1 else [Z]
        given = [None] * len(self.factor_names) if given is None else list(given)
        if len(given) != len(self.factor_names):
            raise DataError(f"Z must be a list with an entry for each of {self.group_name}")
        x_columns = _read_new_matrix(X, "X", self.x_names)
        n = len(x_columns[0]) if x_columns else len(X)
        z_columns: list[Column] = []
        for one, names, factor in zip(given, self.z_names, self.factor_names, strict=True):
            if one is not None and names is None:
                raise DataError(
                    f"the fit had a random intercept by {factor!r} and no Z: leave Z out"
                )
            if random:
                z_columns += _new_effects(one, names, factor, n)
        z_columns = [column for k, column in enumerate(z_columns) if k not in self.left_out]
        masks = [c.missing for c in [*x_columns, *z_columns] if c.missing is not None]
        missing = np.logical_or.reduce(masks) if masks else None
        made = [_nan_where_missing(column) for column in [*x_columns, *z_columns]]
        return NewBatch(n, made[: len(x_columns)], made[len(x_columns) :], None, missing)

    def group_keys(self, groups: Any, factors: Collection[int] = (0,)) -> list[GroupKeys]:
        """Read the keys of some grouping factors; rows without a group are marked `missing`."""
        given = factor_arrays(groups, self.factor_names)
        if len(given.groups) != len(self.factor_names):
            raise DataError(f"groups must have an array for each of {self.group_name}")
        found = []
        for k in factors:
            name = self.factor_names[k]
            column = read_column(name, single_column(name, given.groups[k]), group=True)
            found.append(group_keys([column]))
            check_key_kind(found[-1], self.text_keys[k], name)
        return found


def _new_effects(Z: Any, names: tuple[str, ...] | None, factor: str, n: int) -> list[Column]:
    """Columns of Z of one factor, for new rows."""
    if names is None:
        return [Column("Intercept", ones(n))]
    if not names and Z is None:  # a residual structure without random effects
        return []
    if Z is None:
        raise DataError(f"the model needs Z by {factor!r} with columns {', '.join(names)}")
    columns = _read_new_matrix(Z, "Z", names)
    _check_length(columns, n)
    return columns


class ArrayDesign:
    """Columns that lie in memory.

    Parameters
    ----------
    y : (n,) array
    X : (n, p) array or table
        Any number dtype and memory order; columns of the `lmmfast.data.batch.KERNEL_DTYPES` are
        not copied, others are converted when they are asked for. Tables keep their column names.
    groups : (n,) array; or list, dict or table of arrays
        Integers, text or categories; several grouping factors.
    Z : (n, q) array or table, optional
        Default: a random intercept. For several grouping factors a list with an entry for each.
    weights, offset : (n,) array, optional
    x_names, z_names : sequence of str, optional
    missing : {"raise", "drop"}
        With "raise" floating-point columns are not searched for NaN here (see
        `lmmfast.design.design.check_finite`); with "drop" rows with NaN are left out.
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
        z_names: Sequence[Any] | None = None,
        y_name: str = "y",
        group_name: str | Sequence[str] = "group",
        D: Any = None,
        missing: str = "raise",
        part: bool = False,
        residual: ResidualStructure | None = None,
    ) -> None:
        check_missing(missing)
        scan = missing != "raise"
        self._excludes = missing == "exclude"
        factors = factor_arrays(groups, group_name, Z, z_names)
        self.y_name, self.factor_names = y_name, factors.names
        self.legend = legend(factors)
        given = {"y": y, "X": X, "weights": weights, "offset": offset}
        given |= {f"groups of {k!r}": g for k, g in zip(factors.names, factors.groups, strict=True)}
        given |= {f"Z of {k!r}": z for k, z in zip(factors.names, factors.Z, strict=True)}
        check_same_index({name: row_index(data) for name, data in given.items()})
        self._y = _read_vector(y, y_name, scan)
        self._index = row_index(y)
        n = len(self._y)
        self._X, self.x_names = read_matrix(X, "X", x_names, "x", n, scan)
        self._Z: list[Column] = []
        effects: list[tuple[str, ...]] = []
        for own, own_names in zip(factors.Z, factors.z_names, strict=True):
            columns, names = _read_effects(own, own_names, n, scan, default=residual is None)
            self._Z, effects = [*self._Z, *columns], [*effects, names]
        self._weights = None if weights is None else _read_vector(weights, "weights", scan)
        self._offset = None if offset is None else _read_vector(offset, "offset", scan)
        keys = [
            read_column(name, single_column(name, own), group=True)
            for name, own in zip(factors.names, factors.groups, strict=True)
        ]
        self.residual: ResidualStructure | None = None
        self._others: dict[str, Column] = {}
        if residual is not None:
            self.residual, self._others = read_structure(residual, None)
        others = list(self._others.values())
        _check_length([*self._numbers(), *keys, *others], n)
        used = [*keys, *self._numbers(), *others]
        self.kept, self.missing_counts = usable_rows(used, n, missing)
        for column in [*(self._numbers() if scan else []), *others]:
            check_infinite(column, self.kept)
        for key in keys:
            check_infinite(key, self.kept)
        check_weights(self._weights, self.kept)
        self.n_obs = n if self.kept is None else len(self.kept)
        self.n_rows, self.n_dropped = n, n - self.n_obs
        if not part:
            check_size(self.n_obs, self.x_names)
        self.factor_keys: list[GroupKeys] = [group_keys([key], self.kept) for key in keys]
        random = [k for k, names in enumerate(effects) if names]
        where = [
            "(Z | groups)" if not factors.several else f"(Z[{k}] | groups[{k}])" for k in random
        ]
        structures = choose_structures([(text, "us", None) for text in where], D)
        self.dropped_effects: tuple[str, ...] = ()
        self.terms: tuple[Term, ...] = tuple(
            Term(factors.names[k], effects[k], structure)
            for k, structure in zip(random, structures, strict=True)
        )
        self.spec = ArraySpec(
            self.x_names,
            tuple(
                None if own is None and names else names
                for own, names in zip(factors.Z, effects, strict=True)
            ),
            factors.names,
            tuple(keys.is_text for keys in self.factor_keys),
            offset is not None,
        )

    @property
    def keys(self) -> GroupKeys:
        """Group of each row in the first grouping factor."""
        return self.factor_keys[0]

    @property
    def group_name(self) -> str:
        """Names of the grouping factors."""
        return ", ".join(self.factor_names)

    def empty_effects(self) -> list[int]:
        """Columns of Z that are zero in all rows used."""
        return find_empty_effects(self)

    def without_effects(self, columns: Sequence[int]) -> ArrayDesign:
        """Return the same design without some columns of Z, which are zero in all rows used."""
        new = copy.copy(self)
        new._Z = [column for k, column in enumerate(self._Z) if k not in columns]
        new.terms, new.dropped_effects = terms_without(self.terms, columns)
        new.spec = replace(self.spec, left_out=tuple(columns))
        return new

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

    def report(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], Any]:
        """Values (n_obs,) as they are handed out, and their pandas index or None."""
        if not self._excludes:
            return values, self.index
        return at_all_rows(values, self._index, self.n_rows, self.kept, None)

    def held_columns(self) -> tuple[list[Column], list[Column]]:
        """Columns that are kept: those of the design, and the response."""
        keys = [
            Column(name, keys.values)
            for name, keys in zip(self.factor_names, self.factor_keys, strict=True)
        ]
        return [*self._numbers()[1:], *keys, *self._others.values()], [self._y]

    def _numbers(self) -> list[Column]:
        extra = [column for column in (self._weights, self._offset) if column is not None]
        return [self._y, *self._X, *self._Z, *extra]

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
            Z=[take(column) for column in self._Z],
            weights=None if self._weights is None else take(self._weights),
            offset=None if self._offset is None else take(self._offset),
        )

    def original_row(self, row: int) -> int:
        """Position in the user's arrays of a row used."""
        return row if self.kept is None else int(self.kept[row])


def _read_effects(
    Z: Any, names: Sequence[str] | None, n: int, scan: bool, default: bool
) -> tuple[list[Column], tuple[str, ...]]:
    """Read the Z of one factor; without one a random intercept by default, or no effects."""
    if Z is not None:
        columns, effects = read_matrix(Z, "Z", names, "z", n, scan)
        if not effects:
            raise DataError("Z has no columns: leave it out for a random intercept")
        return columns, effects
    if names is not None:
        raise DataError("z_names without Z: give both or neither")
    return ([Column("Intercept", ones(n))], ("Intercept",)) if default else ([], ())


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
    if isinstance(names, str) or not (names is None or isinstance(names, Sequence | np.ndarray)):
        raise DataError(f"the names of the columns of {role} must be a list, not {names!r}")
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
