"""The design of a formula and a data frame."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.covariance.terms import Term, choose_structures
from lmmfast.data.batch import Batch, kernel_column, kernel_ready
from lmmfast.data.columns import Column
from lmmfast.data.frame import (
    ModelFrame,
    Rows,
    RowView,
    at_all_rows,
    check_infinite,
    check_lengths,
    check_weights,
    model_frame,
    read_extra,
    usable_rows,
    used_rows,
)
from lmmfast.data.keys import GroupKeys, group_keys
from lmmfast.data.subset import select_rows
from lmmfast.data.tables import Table, check_same_index, open_table, row_index, suggest
from lmmfast.design.design import check_names, check_size, find_empty_effects
from lmmfast.errors import DataError, FormulaError
from lmmfast.formula.by_segment import Affine, learn_by_segment, with_rows
from lmmfast.formula.factors import LEARNED, ROWWISE, WHOLE, FactorUse, analyse_factor
from lmmfast.formula.materialise import build_specs, learn_state, parse_terms, restrict
from lmmfast.formula.parse import ParsedFormula, expand_dot, has_dot, parse_formula
from lmmfast.formula.spec import ColumnRecipe, FormulaSpec, Part, read_new, simple_recipes
from lmmfast.residual.columns import read_structure
from lmmfast.residual.structure import ResidualStructure

_SAMPLE_ROWS = 256


class FormulaDesign:
    """Columns of a formula, evaluated on the rows asked for.

    Parameters
    ----------
    formula : str or ParsedFormula
    data : table
        pandas, polars, pyarrow, or a dict of arrays.
    weights, offset : str, array or None
        Column name, or an array with one value for each row of `data`.
    missing : {"drop", "exclude", "raise"}
        What to do with rows in which a column of the model is missing.
    subset : str or array of bool, optional
        Rows to be used; see `lmmfast.data.subset`.
    D : RandomStructure or list of them, optional
        Covariance structures of the terms, in place of unstructured.
    groups : str or sequence of str, optional
        Columns of the clusters; needed without random effects.
    residual : ResidualStructure, optional
        Structure of the residuals.
    context : mapping, optional
        Functions and values that the formula uses beside the columns.
    everything : RowView, optional
        Columns of all rows that something must be learnt from, where `data` are a sample.

    Raises
    ------
    FormulaError, UnsupportedModelError, DataError

    Notes
    -----
    Names and order of columns are formulaic's. The model is built from a sample of rows and the
    levels of all; what must be learnt from all rows (``scale(x)``, ``bs(x, df=4)``, ``C(x)`` of
    numbers) is evaluated on all rows once, one expression that is not row by row (``x - x.mean()``)
    makes all columns but the simple ones be evaluated at once and kept.
    """

    _response: NDArray[np.float64] | None = None
    _new_data = _excludes = False

    def __init__(
        self,
        formula: str | ParsedFormula,
        data: Any,
        *,
        weights: Any = None,
        offset: Any = None,
        missing: str = "drop",
        subset: Any = None,
        D: Any = None,
        groups: Any = None,
        residual: ResidualStructure | None = None,
        context: Mapping[str, Any] | None = None,
        everything: RowView | None = None,
    ) -> None:
        if not isinstance(formula, ParsedFormula):
            formula = parse_formula(formula, groups, residual is not None, context)
        table = open_table(data)
        self.residual: ResidualStructure | None = None
        others: dict[str, Column] = {}
        if residual is not None:
            self.residual, others = read_structure(residual, table)
        parsed = write_out_dot(formula, table, weights, offset, others)
        group = parsed.group_columns
        _check_columns_exist(group, table)
        terms, uses = read_terms(parsed, table)
        names = sorted(frozenset().union(*(use.columns for use in uses.values())))
        self._frame = model_frame(
            table,
            names,
            group,
            weights=weights,
            offset=offset,
            missing=missing,
            others=others,
            selected=select_rows(subset, table, parsed.context),
        )
        self._excludes = missing == "exclude"
        _check_response(terms["y"][0], self._frame)
        #: Whether each row's columns depend on that row alone, and on the levels of factor columns.
        scopes = {expr: _scope_in(use, self._frame) for expr, use in uses.items()}
        self.rowwise = all(scope == ROWWISE for scope in scopes.values())
        #: Expressions that are not so.
        self.learning = tuple(expr for expr, scope in scopes.items() if scope != ROWWISE)
        parts = _build_parts(terms, uses, self._frame, parsed.context, everything)
        if len(parts["y"].names) != 1:
            raise DataError(f"the response {parsed.response!r} must be one column of numbers")
        self.factor_keys: list[GroupKeys] = [
            group_keys([self._frame.columns[name] for name in factor], self._frame.kept)
            for factor in parsed.factors
        ]
        structures = choose_structures([(t.text, t.structure, t.hom) for t in parsed.terms], D)
        self.spec = FormulaSpec(
            formula=parsed,
            parts=parts,
            terms=tuple(
                Term(bar.group_name, parts[f"Z{k}"].names, structures[k])
                for k, bar in enumerate(parsed.terms)
            ),
            levels={
                name: levels
                for name in names
                if (levels := self._frame.columns[name].levels) is not None
            },
            number_levels=_number_levels(uses, parts, self._frame),
            offset_name=offset if isinstance(offset, str) else None,
            text_keys=tuple(keys.is_text for keys in self.factor_keys),
            offset_array=offset is not None and not isinstance(offset, str),
            weights_name=weights if isinstance(weights, str) else None,
        )
        self._index = table.index
        check_names(self.x_names, "X")
        check_size(self.n_obs, self.x_names)
        self._kept_columns: dict[str, list[NDArray[np.float64]]] | None = None
        if any(use.scope == WHOLE for use in uses.values()):
            everything = self._frame.view(slice(None))
            self._kept_columns = self.spec.make_evaluated(self.spec.parts, everything)

    @classmethod
    def more(
        cls, spec: FormulaSpec, data: Any, *, weights: Any, offset: Any, missing: str
    ) -> FormulaDesign:
        """Make the design of new rows for a model that was fitted before.

        Levels and everything that transforms have learnt stay as they were.

        Raises
        ------
        DataError
            A column is not there, a level is unknown to the fit, or a type has changed.
        """
        self = cls.__new__(cls)
        table = open_table(data)
        self.spec, self._index, self.residual = spec, table.index, None
        self._frame, self.factor_keys = _more_rows(spec, table, weights, offset, missing)
        self._kept_columns = None
        if any(part.whole for part in spec.parts.values()):
            spec.warn_of_whole(spec.parts, stacklevel=6)
            everything = self._frame.view(slice(None))
            self._kept_columns = spec.make_evaluated(spec.parts, everything, new_data=True)
        self._new_data = True
        return self

    @property
    def dropped_effects(self) -> tuple[str, ...]:
        """Columns of Z left out because they are zero in all rows, ``name|group``."""
        return self.spec.dropped_effects

    def empty_effects(self) -> list[int]:
        """Columns of Z that are zero in all rows used."""
        return find_empty_effects(self)

    def without_effects(self, columns: Sequence[int]) -> FormulaDesign:
        """Return the same design without some columns of Z, which are zero in all rows used."""
        new = copy.copy(self)
        new.spec = self.spec.without_effects(columns)
        return new

    def with_response(self, y: NDArray[np.float64]) -> FormulaDesign:
        """Return the same design with another response (n_obs,) for the rows used."""
        new = copy.copy(self)
        new._response = y
        return new

    def learnt_by(self, starts: NDArray[np.int64]) -> dict[str, Affine] | None:
        """Learn what transforms learn from each segment of the rows; None where they cannot.

        Parameters
        ----------
        starts : ndarray (S + 1,)
            First row of each segment among the rows used.
        """
        if self.rowwise:
            return {}
        return learn_by_segment(self.spec, self.learning, self._frame.view(slice(None)), starts)

    def with_segments(self, states: dict[str, Affine], segments: NDArray[np.intp]) -> FormulaDesign:
        """Return the same design with states by segment; `segments` are those of all rows."""
        new = copy.copy(self)
        new.spec = with_rows(self.spec, states, segments)
        return new

    @property
    def n_obs(self) -> int:
        """Rows used."""
        return self._frame.n_obs

    @property
    def n_dropped(self) -> int:
        """Rows left out because a value is missing."""
        return self._frame.n_dropped

    @property
    def missing_counts(self) -> dict[str, int]:
        """Columns with missing values, and how many."""
        return self._frame.missing_counts

    @property
    def index(self) -> Any:
        """Index of the rows used of a pandas frame."""
        kept = self._frame.kept
        return self._index if self._index is None or kept is None else self._index[kept]

    @property
    def kept(self) -> NDArray[np.intp] | None:
        """Positions in the user's data of the rows used; None: all."""
        return self._frame.kept

    def held_columns(self) -> tuple[list[Column], list[Column]]:
        """Columns that are kept: those of the design, and those of the response alone."""
        frame, parts = self._frame, self.spec.parts
        others = [part.columns for name, part in parts.items() if name != "y"]
        used = frozenset(self.spec.formula.group_columns).union(*others)
        extra = [column for column in (frame.weights, frame.offset) if column is not None]
        design = [column for name, column in frame.columns.items() if name in used]
        if self._response is not None:
            response = [Column(self.y_name, self._response)]
        else:
            response = [column for name, column in frame.columns.items() if name not in used]
        return [*design, *extra, *frame.others.values()], response

    @property
    def n_rows(self) -> int:
        """Rows of the user's data."""
        return self._frame.n_rows

    def report(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], Any]:
        """Values (n_obs,) as they are handed out, and their pandas index or None."""
        if not self._excludes:
            return values, self.index
        frame = self._frame
        return at_all_rows(values, self._index, frame.n_rows, frame.kept, frame.selected)

    @property
    def residual_columns(self) -> dict[str, Column]:
        """Columns of the residual structure, for the rows used."""
        return self._frame.residual_columns()

    @property
    def column_names(self) -> list[str]:
        """Columns of the data that the formula uses."""
        return list(self._frame.columns)

    def column(self, name: str) -> Column:
        """Return a column of the data that the model uses, for the rows used."""
        return used_rows(self._frame.columns[name], self._frame.kept)

    @property
    def factors(self) -> list[Column]:
        """Factor columns that the columns of the model are made of."""
        return [self._frame.columns[name] for name in self.spec.levels]

    @property
    def _wanted(self) -> list[str]:
        """Parts that come from the data frame."""
        return [name for name in self.spec.parts if name != "y" or self._response is None]

    @property
    def y_name(self) -> str:
        """The response as written."""
        return self.spec.formula.response

    @property
    def x_names(self) -> tuple[str, ...]:
        """Names of the columns of X, formulaic's."""
        return self.spec.x_names

    @property
    def terms(self) -> tuple[Term, ...]:
        """Random-effects terms."""
        return self.spec.terms

    @property
    def keys(self) -> GroupKeys:
        """Group of each row in the first grouping factor."""
        return self.factor_keys[0]

    @property
    def legend(self) -> dict[str, str]:
        """Nothing: all names are the user's."""
        return {}

    @property
    def factor_names(self) -> tuple[str, ...]:
        """``("a", "a:b")``."""
        return self.spec.formula.factor_names

    @property
    def group_name(self) -> str:
        """``"g"`` or ``"a:b"``; of several factors ``"a, a:b"``."""
        return self.spec.formula.group_name

    @property
    def unit(self) -> int | None:
        """Index in X of the intercept."""
        recipes = self.spec.parts["X"].recipes
        return next((j for j, recipe in enumerate(recipes) if recipe.factors == ()), None)

    @property
    def random_access(self) -> bool:
        """Whether every column is a view of the user's memory."""
        extra = [c for c in (self._frame.weights, self._frame.offset) if c is not None]
        return (
            self._frame.kept is None
            and all(
                self._in_memory(r) for name in self._wanted for r in self.spec.parts[name].recipes
            )
            and all(kernel_ready(column.values) for column in extra)
        )

    def _in_memory(self, recipe: ColumnRecipe) -> bool:
        if not recipe.factors:
            return recipe.factors is not None
        first, *others = recipe.factors
        return (
            not others
            and isinstance(first, str)
            and kernel_ready(self._frame.columns[first].values)
        )

    def batch(self, rows: Rows) -> Batch:
        """Columns for some of the rows used."""
        view = self._frame.view(rows)
        if self._kept_columns is None:
            made = self.spec.make(self._wanted, view, new_data=self._new_data)
        else:
            made = {
                name: self.spec.assemble(
                    name, view, [c[rows] for c in self._kept_columns.get(name, [])]
                )
                for name in self._wanted
            }
        weights, offset = (
            None if column is None else kernel_column(column.values[view.rows])
            for column in (self._frame.weights, self._frame.offset)
        )
        Z = [column for name in self.spec.z_parts for column in made[name]]
        y = made["y"][0] if self._response is None else self._response[rows]
        return Batch(y, made["X"], Z, weights, offset)

    def original_row(self, row: int) -> int:
        """Position in the user's data of a row used."""
        return self._frame.original_row(row)


def _more_rows(
    spec: FormulaSpec, table: Table, weights: Any, offset: Any, missing: str
) -> tuple[ModelFrame, list[GroupKeys]]:
    """Read the columns of a fitted model, with its levels, and the groups of new rows."""
    check_same_index(
        {"data": table.index, "weights": row_index(weights), "offset": row_index(offset)}
    )
    names = sorted(frozenset().union(*(part.columns for part in spec.parts.values())))
    columns = {name: spec.read(table, name) for name in names}
    groups = {name: read_new(table, name, group=True) for name in spec.formula.group_columns}
    extra = {
        role: read_extra(role, given, table)
        for role, given in (("weights", weights), ("offset", offset))
    }
    used = [*columns.values(), *groups.values(), *(c for c in extra.values() if c is not None)]
    check_lengths(used, table.n_rows)
    kept, counts = usable_rows(used, table.n_rows, missing)
    for column in used:
        check_infinite(column, kept)
    check_weights(extra["weights"], kept)
    keys = spec.make_keys(groups, kept, range(len(spec.formula.factors)))
    weights, offset = extra["weights"], extra["offset"]
    return ModelFrame(columns, table.n_rows, kept, counts, None, weights, offset), keys


def write_out_dot(
    parsed: ParsedFormula,
    table: Table,
    weights: Any = None,
    offset: Any = None,
    excluded: Collection[str] = (),
) -> ParsedFormula:
    """``.`` stands for the columns that have no other part in the model, and are not `excluded`."""
    if not has_dot(parsed.fixed):
        return parsed
    used = {weights if isinstance(weights, str) else None, *excluded}
    used |= {offset if isinstance(offset, str) else None, *parsed.group_columns}
    for term in parse_terms(parsed.response_term, intercept=False):
        for factor in term.factors:
            used |= analyse_factor(factor, table.names, parsed.context).columns
    others = [name for name in table.names if name not in used]
    return replace(parsed, fixed=expand_dot(parsed.fixed, others))


def read_terms(
    parsed: ParsedFormula, table: Table
) -> tuple[dict[str, list[Any]], dict[str, FactorUse]]:
    """Read the terms of each part of a model, and what its factors need, by their expressions.

    Raises
    ------
    FormulaError
        Columns that the table does not have.
    """
    terms = {
        "y": parse_terms(parsed.response_term, intercept=False),
        "X": parse_terms(parsed.fixed),
        **{f"Z{k}": parse_terms(term.lhs) for k, term in enumerate(parsed.terms)},
    }
    return terms, _factor_uses(terms, table, parsed.context)


def _check_columns_exist(names: tuple[str, ...], table: Table) -> None:
    for name in names:
        if name not in table.names:
            raise FormulaError(f"{name!r} is not a column of the data{suggest(name, table.names)}")


def _factor_uses(
    terms: dict[str, list[Any]], table: Table, context: Mapping[str, Any]
) -> dict[str, FactorUse]:
    """Find what each factor of the model needs, by its expression."""
    uses: dict[str, FactorUse] = {}
    for term in (term for part in terms.values() for term in part):
        for factor in term.factors:
            if factor.expr not in uses:
                uses[factor.expr] = analyse_factor(factor, table.names, context)
                _check_columns_exist(tuple(sorted(uses[factor.expr].columns)), table)
    return uses


def _check_response(term: Any, frame: ModelFrame) -> None:
    for factor in term.factors:
        column = frame.columns.get(factor.expr)
        if column is not None and column.is_factor:
            raise DataError(
                f"the response {factor.expr!r} is text or categorical: it must be numbers"
            )


def _build_parts(
    terms: dict[str, list[Any]],
    uses: dict[str, FactorUse],
    frame: ModelFrame,
    context: Mapping[str, Any],
    everything: RowView | None,
) -> dict[str, Part]:
    """Fix names, levels and states; split each part into simple columns and formulaic's."""
    scopes = {expr: _scope_in(use, frame) for expr, use in uses.items()}
    factors = {f.expr: f for part in terms.values() for term in part for f in term.factors}
    names = sorted(frozenset().union(*(use.columns for use in uses.values())))
    learning = [factors[expr] for expr, scope in scopes.items() if scope != ROWWISE]
    states: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    if learning:
        seen = sorted(frozenset().union(*(uses[f.expr].columns for f in learning)))
        rows = frame.view(slice(None)) if everything is None else everything
        states = learn_state(learning, rows.to_pandas(seen), context)
    whole = any(scope == WHOLE for scope in scopes.values())
    step = 1 if whole else max(1, frame.n_obs // _SAMPLE_ROWS)
    sample = frame.view(slice(None, None, step)).to_pandas(names)
    specs = build_specs(terms, sample, *states, context)
    return {name: _split_part(spec, uses, frame) for name, spec in specs.items()}


def _scope_in(use: FactorUse, frame: ModelFrame) -> int:
    """``C(column)`` of a factor column has nothing to learn: its levels are known."""
    if use.levels_of is not None and use.scope == LEARNED:
        return ROWWISE if frame.columns[use.levels_of].is_factor else LEARNED
    return use.scope


def _split_part(spec: Any, uses: dict[str, FactorUse], frame: ModelFrame) -> Part:
    recipes: list[ColumnRecipe] = []
    entries, index = [], 0
    for entry in spec.structure:
        simple = simple_recipes(entry, frame.columns)
        if simple is not None:
            recipes += simple
            continue
        recipes += [ColumnRecipe(None, index + j) for j in range(len(entry.columns))]
        index += len(entry.columns)
        entries.append(entry)

    def columns_of(some: list[Any]) -> frozenset[str]:
        exprs = {factor.expr for entry in some for factor in entry.term.factors}
        return frozenset().union(*(uses[expr].columns for expr in exprs))

    return Part(
        names=tuple(spec.column_names),
        recipes=tuple(recipes),
        model=restrict(spec, entries) if index else None,
        columns=columns_of(spec.structure),
        evaluated=columns_of(entries),
        whole=tuple(
            factor.expr
            for entry in entries
            for factor in entry.term.factors
            if uses[factor.expr].scope == WHOLE
        ),
    )


def _number_levels(
    uses: dict[str, FactorUse], parts: dict[str, Part], frame: ModelFrame
) -> dict[str, list[Any]]:
    """Levels of ``C(x)`` for number columns x, to recognise unknown ones in new data."""
    found: dict[str, list[Any]] = {}
    for part in parts.values():
        for expr, (_, state) in (part.model.encoder_state if part.model else {}).items():
            name = uses[expr].levels_of
            if name is not None and not frame.columns[name].is_factor and "categories" in state:
                found[name] = list(state["categories"])
    return found
