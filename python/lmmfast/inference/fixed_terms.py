"""The terms of the fixed part of a formula, and what the columns of X are made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmmfast.errors import DataError, UnsupportedModelError
from lmmfast.formula.spec import FormulaSpec, Indicator

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: A column of treatment coding, ``C(dose)[T.2]``; one of several of an expression, ``bs(x)[1]``.
_TREATMENT = re.compile(r"(?s)(.*)\[T\.(.*)\]")
_SEVERAL = re.compile(r"(?s)(.*)\[(\d+)\]")
_INTERCEPT = "Intercept"


@dataclass(frozen=True)
class FixedColumn:
    """What a column of X is a product of.

    Attributes
    ----------
    levels : dict of str
        Factor to the level that the column indicates; treatment coding, or all levels.
    covariates : dict of str
        Expression in numbers to which of its columns this is; "" where there is one.
    name : str
        What the term is called: factors and expressions in their order.
    """

    levels: dict[str, str]
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
        Factors that are coded in another way than by treatment.
    """
    spec = fit.spec
    if not isinstance(spec, FormulaSpec):
        raise DataError(
            "terms are those of a formula, and this model was fitted to arrays: test functions of "
            "coefficients with fit.test(L)"
        )
    part = spec.parts["X"]
    columns = [_column(spec, part.names[j], part.recipes[j].factors) for j in fit._keep]
    places: dict[frozenset[str], list[int]] = {}
    for j, column in enumerate(columns):
        places.setdefault(column.term, []).append(j)
    named = {columns[own[0]].name: own for term, own in places.items() if term}
    return FixedTerms(columns, list(named), named, _factor_levels(spec, columns))


def _column(spec: FormulaSpec, name: str, factors: Sequence[str | Indicator] | None) -> FixedColumn:
    levels: dict[str, str] = {}
    covariates: dict[str, str] = {}
    parts: list[str] = []
    for piece in pieces_of(name) if factors is None else factors:
        if isinstance(piece, Indicator):
            parts.append(piece.column)
            levels[piece.column] = str(spec.levels[piece.column][piece.code])
        elif factors is not None:
            parts.append(piece)
            covariates[piece] = ""
        else:
            parts.append(_read(spec, piece, levels, covariates))
    return FixedColumn(levels, covariates, ":".join(parts))


def _read(spec: FormulaSpec, piece: str, levels: dict[str, str], covariates: dict[str, str]) -> str:
    """Read a piece of the name of a column that formulaic made; return what it is of."""
    if match := _TREATMENT.fullmatch(piece):
        levels[match[1]] = match[2]
        return match[1]
    if match := _SEVERAL.fullmatch(piece):
        covariates[match[1]] = match[2]
        return match[1]
    if piece.endswith("]") or piece in spec.levels:
        raise UnsupportedModelError(
            f"the column {piece!r} of X codes a factor in another way than by treatment: its terms "
            "cannot be told apart; write the factor without C(…), or use fit.test"
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


def _factor_levels(spec: FormulaSpec, columns: list[FixedColumn]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for column in columns:
        for factor, level in column.levels.items():
            own = found.setdefault(factor, [])
            if level not in own:
                own.append(level)
    for factor, own in found.items():
        if factor in spec.levels:
            found[factor] = [str(level) for level in spec.levels[factor]]
        elif (lookup := re.fullmatch(r"C\((\w+)\)", factor)) and lookup[1] in spec.number_levels:
            found[factor] = [str(level) for level in spec.number_levels[lookup[1]]]
        else:
            found[factor] = ["", *own]  # the baseline, whose name no column has
    return found
