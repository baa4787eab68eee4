"""From a formula to columns: which come straight from the data, which through formulaic.

The intercept, plain number columns, indicators of the levels of a factor column and their products
are formulaic's values without formulaic: no copy, or one comparison or multiplication. Everything
else goes through one `formulaic.ModelSpec` a part, whose state (levels, knots, means) was fixed
when the model was built.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.covariance.terms import Term, terms_without
from lmmfast.data.batch import NewBatch, kernel_column, ones, scatter
from lmmfast.data.columns import Column
from lmmfast.data.frame import RowView, as_float
from lmmfast.data.keys import GroupKeys, check_key_kind, group_keys
from lmmfast.data.tables import Table, open_table, suggest
from lmmfast.errors import DataError, FormulaError, NewDataWarning
from lmmfast.formula.materialise import MissingAfterEvaluationError, evaluate, is_lookup
from lmmfast.formula.parse import ParsedFormula

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Indicator:
    """1 in the rows in which a factor column has a certain level, else 0."""

    column: str
    code: int  # position of the level


@dataclass(frozen=True)
class ColumnRecipe:
    """How to make one column of y, X or Z.

    Attributes
    ----------
    factors : tuple of str or Indicator, or None
        Number columns and indicators to multiply (none of them: the constant 1); None: ask
        formulaic.
    index : int
        Position among the columns of the part that formulaic makes.
    """

    factors: tuple[str | Indicator, ...] | None
    index: int = -1


@dataclass(frozen=True, eq=False)
class Part:
    """y, X or the Z of one term."""

    names: tuple[str, ...]
    recipes: tuple[ColumnRecipe, ...]
    model: Any  # formulaic.ModelSpec of the columns that need it, or None
    columns: frozenset[str]  # of the data, all that the part uses
    evaluated: frozenset[str]  # of the data, what formulaic must see
    whole: tuple[str, ...]  # expressions that are not known to go row by row


@dataclass(frozen=True, eq=False)
class FormulaSpec:
    """Makes the columns of a model for any rows; holds no data and can be pickled.

    Attributes
    ----------
    formula : ParsedFormula
        With ``.`` written out.
    parts : dict of Part
        "y", "X", then "Z0", "Z1", ... in the order of the terms.
    terms : tuple of Term
    levels : dict of pandas.Index
        Levels of the factor columns.
    number_levels : dict of list
        Levels of the number columns in ``C(column)``.
    offset_name : str or None
        Column that the offset is in.
    text_keys : tuple of bool
        Were the keys of each grouping factor text?
    offset_array : bool
        The fit had an offset as an array, which new data do not hold.
    weights_name : str or None
        Column that the weights are in.
    everything : FormulaSpec or None
        With the columns of Z that this one leaves out, because they are zero in all rows.
    left_out : tuple of int
        These columns, among all.
    dropped_effects : tuple of str
        And their names, ``name|group``.
    """

    formula: ParsedFormula
    parts: dict[str, Part]
    terms: tuple[Term, ...]
    levels: dict[str, pd.Index[Any]]
    number_levels: dict[str, list[Any]]
    offset_name: str | None
    text_keys: tuple[bool, ...] = ()
    offset_array: bool = False
    weights_name: str | None = None
    everything: FormulaSpec | None = None
    left_out: tuple[int, ...] = ()
    dropped_effects: tuple[str, ...] = ()

    def without_effects(self, columns: Sequence[int]) -> FormulaSpec:
        """Return the spec without some columns of Z."""
        terms, dropped = terms_without(self.terms, columns)
        parts, first = dict(self.parts), 0
        for name in self.z_parts:
            part = parts[name]
            used = [k for k in range(len(part.names)) if first + k not in columns]
            first += len(part.names)
            parts[name] = replace(
                part,
                names=tuple(part.names[k] for k in used),
                recipes=tuple(part.recipes[k] for k in used),
            )
        return replace(
            self,
            parts=parts,
            terms=terms,
            everything=self,
            left_out=tuple(columns),
            dropped_effects=dropped,
        )

    @property
    def x_names(self) -> tuple[str, ...]:
        """Names of the columns of X, formulaic's."""
        return self.parts["X"].names

    @property
    def z_parts(self) -> list[str]:
        """Names of the Z parts."""
        return [f"Z{k}" for k in range(len(self.terms))]

    def make(
        self, wanted: Iterable[str], view: RowView, *, new_data: bool = False
    ) -> dict[str, list[NDArray[Any]]]:
        """Make the columns of some parts for some rows; factors that parts share come once.

        Returns
        -------
        dict
            Name of the part to its columns, each (n,) of one of the
            `lmmfast.data.batch.KERNEL_DTYPES`.
        """
        wanted = list(wanted)
        made = self.make_evaluated(wanted, view, new_data=new_data)
        return {name: self.assemble(name, view, made.get(name, [])) for name in wanted}

    def make_evaluated(
        self, wanted: Iterable[str], view: RowView, *, new_data: bool = False
    ) -> dict[str, list[NDArray[np.float64]]]:
        """Only the columns that formulaic must make."""
        parts = {name: self.parts[name] for name in wanted if self.parts[name].model is not None}
        if not parts:
            return {}
        frame = view.to_pandas(sorted(frozenset().union(*(p.evaluated for p in parts.values()))))
        models = self.models(parts, view)
        try:
            return evaluate(models, frame, self.formula.context, new_data=new_data)
        except MissingAfterEvaluationError as error:
            if error.row is None:
                raise
            row = view.original_row(error.row)
            raise MissingAfterEvaluationError(error.expression, row) from None
        except FormulaError as error:
            expression = _outside_range(error) if new_data else None
            if expression is None:
                raise
            row = view.original_row(_first_row_refused(models, frame, self.formula.context))
            raise DataError(
                f"{expression!r} is outside the range that it had in the fit, first in row {row} "
                "(counting from 0): leave these rows out, or fit with extrapolation='clip' or "
                "another choice of formulaic's within the expression"
            ) from None

    def models(self, parts: dict[str, Part], view: RowView) -> dict[str, Any]:
        """Return formulaic's specifications of some parts, as they are for some rows."""
        return {name: part.model for name, part in parts.items()}

    def assemble(
        self, name: str, view: RowView, evaluated: list[NDArray[np.float64]]
    ) -> list[NDArray[Any]]:
        """Put the columns of a part together: the simple ones and formulaic's."""
        return [
            evaluated[recipe.index] if recipe.factors is None else _product(recipe.factors, view)
            for recipe in self.parts[name].recipes
        ]

    def columns(self, newdata: Any, *, random: bool = True, offset: Any = None) -> NewBatch:
        """Make X, Z and the offset for new data.

        Parameters
        ----------
        newdata : table
            Any that `lmmfast.data.frame.open_table` takes; the group columns are not needed here.
        random : bool
            Make Z too; without it only the columns of the fixed effects must be there.
        offset : str or array, optional
            Column to read instead of the offset column of the fit; an array: none is read.

        Raises
        ------
        DataError
            A column is not there, a level is unknown to the fit, or a type has changed.
        """
        table = open_table(newdata)
        wanted = ["X", *(self.z_parts if random else [])]
        self.warn_of_whole(wanted, stacklevel=7)
        needed = sorted(frozenset().union(*(self.parts[name].columns for name in wanted)))
        columns = {name: self.read(table, name) for name in needed}
        added = self._read_offset(table, offset)
        missing = _missing_rows([*columns.values(), *([added] if added else [])])
        rows = slice(None) if missing is None else np.flatnonzero(~missing)
        view = RowView(columns, rows, table.n_rows)
        if len(view):
            made = self.make(wanted, view, new_data=True)
        else:
            made = {name: [np.empty(0)] * len(self.parts[name].names) for name in wanted}
        X = [as_float(column) for column in made["X"]]
        Z = [as_float(column) for name in wanted[1:] for column in made[name]]
        if not isinstance(rows, slice):
            X, Z = scatter(X, rows, table.n_rows), scatter(Z, rows, table.n_rows)
        values = as_float(added.values) if added else None
        if values is not None and missing is not None:
            values = np.where(missing, np.nan, values)
        return NewBatch(table.n_rows, X, Z, values, missing)

    def response(self, newdata: Any) -> NDArray[np.float64]:
        """Make the response (n,) of new data; NaN where a value is missing.

        Raises
        ------
        DataError
            A column is not there.
        """
        table = open_table(newdata)
        columns = {name: self.read(table, name) for name in sorted(self.parts["y"].columns)}
        missing = _missing_rows(columns.values())
        rows = slice(None) if missing is None else np.flatnonzero(~missing)
        view = RowView(columns, rows, table.n_rows)
        out = np.full(table.n_rows, np.nan)
        if len(view):
            (out[rows],) = self.make(["y"], view, new_data=True)["y"]
        return out

    def warn_of_whole(self, wanted: Iterable[str], stacklevel: int) -> None:
        """Warn of expressions that may mean something else for new rows."""
        whole = [expr for name in wanted for expr in self.parts[name].whole]
        if whole:
            warnings.warn(
                f"{whole[0]!r} is evaluated on the new rows alone, with their own means and the "
                "like: use center(), scale() or another transform that remembers, or compute the "
                "column beforehand",
                NewDataWarning,
                stacklevel=stacklevel,
            )

    def group_keys(self, newdata: Any, factors: Collection[int] = (0,)) -> list[GroupKeys]:
        """Read the keys of some grouping factors; rows without a group are marked `missing`."""
        table = open_table(newdata)
        names = {name: None for k in factors for name in self.formula.factors[k]}
        columns = {name: read_new(table, name, group=True) for name in names}
        return self.make_keys(columns, None, factors)

    def make_keys(
        self,
        columns: Mapping[str, Column],
        kept: NDArray[np.intp] | None,
        factors: Collection[int],
    ) -> list[GroupKeys]:
        """Make the keys of some grouping factors of the columns of new data."""
        made = []
        for k in factors:
            keys = group_keys([columns[name] for name in self.formula.factors[k]], kept)
            check_key_kind(keys, self.text_keys[k], self.formula.factor_names[k])
            made.append(keys)
        return made

    def _read_offset(self, table: Table, given: Any) -> Column | None:
        name = self.offset_name if given is None else given
        if not isinstance(name, str):
            return None
        column = read_new(table, name)
        if column.is_factor:
            raise DataError(f"the offset {name!r} must be numbers")
        return column

    def read(self, table: Table, name: str) -> Column:
        """Read a column of new data as the fit knew it: a factor with its levels, or numbers."""
        column = read_new(table, name)
        if name in self.levels:
            return with_known_levels(column, self.levels[name])
        if column.is_factor:
            raise DataError(f"column {name!r} was numbers in the fit and is text here: convert it")
        if name in self.number_levels:
            _check_known(column, self.number_levels[name])
        return column


def _product(factors: tuple[str | Indicator, ...], view: RowView) -> NDArray[Any]:
    if not factors:
        return ones(len(view))
    if len(factors) == 1:
        (factor,) = factors
        return kernel_column(
            view.values(factor) if isinstance(factor, str) else _indicator(factor, view)
        )
    product: NDArray[np.float64] | None = None
    for factor in factors:
        values = view.numbers(factor) if isinstance(factor, str) else _indicator(factor, view)
        product = as_float(values) if product is None else product * values
    assert product is not None
    return product


def _indicator(indicator: Indicator, view: RowView) -> NDArray[np.bool_]:
    values: NDArray[np.bool_] = view.values(indicator.column) == indicator.code
    return values


def read_new(table: Table, name: str, *, group: bool = False) -> Column:
    """Read a column of new data; complains if there is none."""
    if name not in table.names:
        raise DataError(f"the new data have no column {name!r}{suggest(name, table.names)}")
    column = table.read(name, group=group)
    if len(column) != table.n_rows:
        raise DataError(f"{name!r} has {len(column)} values, but there are {table.n_rows} rows")
    return column


def _outside_range(error: FormulaError) -> str | None:
    """Return the spline that formulaic refuses to evaluate beyond its bounds."""
    found = re.search(r"factor `(.*)`.*values extend beyond upper and/or lower", str(error))
    return None if found is None else found.group(1)


def _first_row_refused(
    models: dict[str, Any], frame: pd.DataFrame, context: Mapping[str, Any]
) -> int:
    """Position of the first row that cannot be evaluated, by halving."""
    low, high = 0, len(frame)  # the first `low` rows can be evaluated, the first `high` cannot
    while high - low > 1:
        middle = (low + high) // 2
        try:
            evaluate(models, frame.iloc[low:middle], context, new_data=True)
            low = middle
        except FormulaError:
            high = middle
    return low


def _missing_rows(columns: Iterable[Column]) -> NDArray[np.bool_] | None:
    masks = [column.missing for column in columns if column.missing is not None]
    return np.logical_or.reduce(masks) if masks else None


def with_known_levels(column: Column, levels: pd.Index[Any]) -> Column:
    """Code a column by the levels of the fit.

    Raises
    ------
    DataError
        Naming the column and the levels that the fit does not know.
    """
    import pandas as pd

    here = column.levels
    if here is None:  # numbers now, categories of numbers in the fit
        codes = levels.get_indexer(pd.Index(column.values))
        unknown = set(column.values[(codes < 0) & _present(column)].tolist())
    else:
        lookup = np.append(levels.get_indexer(here), -1)  # the last one serves code -1
        codes = lookup[column.values]
        used = np.unique(column.values[(codes < 0) & _present(column)])
        unknown = set(np.asarray(here)[used].tolist())
    _raise_unknown(column.name, unknown, list(levels))
    if column.missing is not None:
        codes = np.where(column.missing, -1, codes)
    return Column(column.name, codes, levels, column.missing, keeps_order=True)


def _present(column: Column) -> NDArray[np.bool_]:
    return np.ones(len(column), dtype=bool) if column.missing is None else ~column.missing


def _check_known(column: Column, levels: list[Any]) -> None:
    values = set(np.unique(column.values[_present(column)]).tolist())
    _raise_unknown(column.name, values - set(levels), levels)


def _raise_unknown(name: str, unknown: set[Any], levels: list[Any]) -> None:
    if not unknown:
        return
    shown = ", ".join(repr(level) for level in sorted(unknown, key=str)[:5])
    known = ", ".join(repr(level) for level in levels[:10]) + (", ..." if len(levels) > 10 else "")
    raise DataError(
        f"column {name!r} has levels that the fit has not seen: {shown}; it knows {known}. Remove "
        "these rows or map them to a known level"
    )


def simple_recipes(entry: Any, columns: Mapping[str, Column]) -> list[ColumnRecipe] | None:
    """Recognise an entry of a ModelSpec whose columns need no formulaic.

    These are the intercept and the products of plain columns: numbers, and factors in treatment
    coding, which is formulaic's where the formula asks for no other. None: ask formulaic.
    """
    names, recipes = [], []
    for term in entry.scoped_terms:
        if term.scale != 1 or any(not is_lookup(s.factor.factor) for s in term.factors):
            return None
        coded = [_coded(s.factor.factor.expr, s.reduced, columns) for s in term.factors]
        # formulaic lets the first factors of a term run through their levels fastest.
        for product in itertools.product(*reversed(coded)):
            names.append(":".join(name for name, _ in reversed(product)) or "Intercept")
            recipes.append(ColumnRecipe(tuple(factor for _, factor in reversed(product))))
    return recipes if names == list(entry.columns) else None


def _coded(
    name: str, reduced: bool, columns: Mapping[str, Column]
) -> list[tuple[str, str | Indicator]]:
    """Name and values of each column that a plain column of the data contributes to a term."""
    levels = columns[name].levels
    if levels is None:
        return [(name, name)]
    code_names = [f"{name}[T.{level}]" if reduced else f"{name}[{level}]" for level in levels]
    coded: list[tuple[str, str | Indicator]] = [
        (code_name, Indicator(name, code)) for code, code_name in enumerate(code_names)
    ]
    return coded[1:] if reduced else coded
