"""The terms of the fixed part of a formula, and what the columns of X are made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmmfast.errors import DataError, UnsupportedModelError
from lmmfast.formula.spec import FormulaSpec, Indicator, Part

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: A column of treatment coding, ``C(dose)[T.2]``; one of several of an expression, ``bs(x)[1]``.
_TREATMENT = re.compile(r"(?s)(.*)\[T\.(.*)\]")
_SEVERAL = re.compile(r"(?s)(.*)\[(\d+)\]")
_INTERCEPT = "Intercept"
#: Value of a column by the level of a factor.
Coding = dict[str, float]


@dataclass(frozen=True)
class FixedColumn:
    """What a column of X is a product of.

    Attributes
    ----------
    levels : dict of dict
        Factor to the value that its coding has in the column, by level; levels of value zero may
        be left out.
    covariates : dict of str
        Expression in numbers to which of its columns this is; "" where there is one.
    name : str
        What the term is called: factors and expressions in their order.
    """

    levels: dict[str, Coding]
    covariates: dict[str, str]
    name: str

    @property
    def term(self) -> frozenset[str]:
        """Factors and expressions that the column is made of."""
        return frozenset(self.levels) | frozenset(self.covariates)


@dataclass(frozen=True)
class FixedTerms:
    """The terms of the fixed effects that are estimated.

    Attributes
    ----------
    columns : list of FixedColumn (p,)
    names : list of str
        Terms in the order of the formula, the intercept not among them.
    places : dict of list of int
        Columns of each term.
    factor_levels : dict of list of str
        All levels of each factor.
    """

    columns: list[FixedColumn]
    names: list[str]
    places: dict[str, list[int]]
    factor_levels: dict[str, list[str]]

    def contains(self, larger: str, smaller: str) -> bool:
        """Whether a term contains another: all its factors, and the same expressions in numbers.

        As SAS and lmerTest have it: ``a:x`` contains ``x``, and not ``a``.
        """
        of = {name: self.columns[self.places[name][0]] for name in (larger, smaller)}
        big, small = of[larger], of[smaller]
        return (
            larger != smaller
            and set(big.covariates) == set(small.covariates)
            and set(small.levels) < set(big.levels)
        )


def fixed_terms(fit: LMMResult) -> FixedTerms:
    """Read the terms of the fixed part.

    Raises
    ------
    DataError
        A model fitted to arrays, which has no terms.
    UnsupportedModelError
        Factors of which it is not known how they are coded.
    """
    spec = fit.spec
    if not isinstance(spec, FormulaSpec):
        raise DataError(
            "terms are those of a formula, and this model was fitted to arrays: test functions of "
            "coefficients with fit.test(L)"
        )
    part = spec.parts["X"]
    codings, levels = _codings(part)
    columns = [_column(spec, part.names[j], part.recipes[j].factors, codings) for j in fit._keep]
    places: dict[frozenset[str], list[int]] = {}
    for j, column in enumerate(columns):
        places.setdefault(column.term, []).append(j)
    named = {columns[own[0]].name: own for term, own in places.items() if term}
    return FixedTerms(columns, list(named), named, _factor_levels(spec, columns, levels))


def _codings(part: Part) -> tuple[dict[str, tuple[str, Coding] | None], dict[str, list[str]]]:
    """Read how formulaic coded its factors.

    Returns
    -------
    dict
        Name of a column to the factor and its values by level; None where two codings share a name.
    dict
        Factor to all its levels.
    """
    found: dict[str, tuple[str, Coding] | None] = {}
    levels: dict[str, list[str]] = {}
    for expr, (_, state) in (part.model.encoder_state if part.model else {}).items():
        coded = state.get("contrasts") if isinstance(state, dict) else None
        if coded is None:
            continue
        levels[expr] = [str(level) for level in coded.levels]
        for reduced in (True, False):
            matrix = coded.contrasts.get_coding_matrix(coded.levels, reduced_rank=reduced)
            form = coded.contrasts.get_factor_format(coded.levels, reduced_rank=reduced)
            for field in matrix.columns:
                name = form.format(name=expr, field=field)
                values = matrix[field].to_numpy(dtype=float).tolist()
                own = expr, dict(zip(levels[expr], values, strict=True))
                found[name] = own if found.get(name, own) == own else None
    return found, levels


def _column(
    spec: FormulaSpec,
    name: str,
    factors: Sequence[str | Indicator] | None,
    codings: dict[str, tuple[str, Coding] | None],
) -> FixedColumn:
    levels: dict[str, Coding] = {}
    covariates: dict[str, str] = {}
    parts: list[str] = []
    for piece in pieces_of(name) if factors is None else factors:
        if isinstance(piece, Indicator):
            parts.append(piece.column)
            levels[piece.column] = {str(spec.levels[piece.column][piece.code]): 1.0}
        elif factors is not None:
            parts.append(piece)
            covariates[piece] = ""
        else:
            coded = codings.get(piece)
            if coded is None:
                parts.append(_read(spec, piece, levels, covariates, piece not in codings))
            else:
                parts.append(coded[0])
                levels[coded[0]] = coded[1]
    return FixedColumn(levels, covariates, ":".join(parts))


def _read(
    spec: FormulaSpec,
    piece: str,
    levels: dict[str, Coding],
    covariates: dict[str, str],
    is_known: bool,
) -> str:
    """Read a piece of the name of a column that formulaic made; return what it is of."""
    if is_known and (match := _TREATMENT.fullmatch(piece)):
        levels[match[1]] = {match[2]: 1.0}
        return match[1]
    if is_known and (match := _SEVERAL.fullmatch(piece)):
        covariates[match[1]] = match[2]
        return match[1]
    if piece.endswith("]") or piece in spec.levels:
        raise UnsupportedModelError(
            f"the column {piece!r} of X is of a factor whose coding is not known: write the factor "
            "without contrasts of your own in C(…), or test coefficients with fit.test"
        )
    covariates[piece] = ""
    return piece


def pieces_of(name: str) -> list[str]:
    """Split ``a[T.x:y]:b`` at colons outside brackets; the intercept has none."""
    if name == _INTERCEPT:
        return []
    out, depth, start = [], 0, 0
    for k, sign in enumerate(name):
        depth += (sign in "([{") - (sign in ")]}")
        if sign == ":" and depth == 0:
            out.append(name[start:k])
            start = k + 1
    return [*out, name[start:]]


def _factor_levels(
    spec: FormulaSpec, columns: list[FixedColumn], levels: dict[str, list[str]]
) -> dict[str, list[str]]:
    """All levels of each factor in use; those of codings that formulaic made are known."""
    found: dict[str, list[str]] = {}
    for column in columns:
        for factor, coding in column.levels.items():
            own = found.setdefault(factor, [])
            own += [level for level in coding if level not in own]
    for factor, own in found.items():
        if factor in spec.levels:
            found[factor] = [str(level) for level in spec.levels[factor]]
        elif factor in levels:
            found[factor] = levels[factor]
        elif (lookup := re.fullmatch(r"C\((\w+)\)", factor)) and lookup[1] in spec.number_levels:
            found[factor] = [str(level) for level in spec.number_levels[lookup[1]]]
        else:
            found[factor] = ["", *own]  # the baseline, whose name no column has
    return found
