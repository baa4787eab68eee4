"""Tests of the terms of the fixed effects, by types of hypotheses.

Type 1: each term after those before it. Type 2: after all terms that do not contain it. Type 3:
means over cells with equal weights (SAS PROC GLM and MIXED; lmerTest: Kuznetsova, Brockhoff and
Christensen (2017), Journal of Statistical Software 82(13)). Hypotheses do not depend on V.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import numpy as np

from lmmfast.arrays import Array
from lmmfast.errors import DataError, UnsupportedModelError
from lmmfast.inference.denominators import FTest
from lmmfast.inference.fixed_rows import chunks_of_X
from lmmfast.inference.fixed_terms import FixedColumn, FixedTerms, fixed_terms

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

#: Weights of a hypothesis below this part of the largest are rounding.
ROUNDING = 1e-12


def anova(fit: LMMResult, kind: int) -> pd.DataFrame:
    """Test each term of the fixed effects; see `LMMResult.anova`."""
    terms = fixed_terms(fit)
    hypotheses = term_hypotheses(fit, terms, kind)
    return _table(fit, hypotheses)


def drop1(fit: LMMResult) -> pd.DataFrame:
    """Test the terms that no other term contains; see `LMMResult.drop1`."""
    terms = fixed_terms(fit)
    hypotheses = {
        name: np.eye(len(terms.columns))[terms.places[name]]
        for name in terms.names
        if not any(_is_part(terms, name, other) for other in terms.names)
    }
    return _table(fit, hypotheses)


def _is_part(terms: FixedTerms, smaller: str, larger: str) -> bool:
    return (
        terms.columns[terms.places[smaller][0]].term < terms.columns[terms.places[larger][0]].term
    )


def _table(fit: LMMResult, hypotheses: dict[str, Array]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for L in hypotheses.values():
        found: FTest = fit._denominators.test(L, L @ fit._estimates.beta)
        rows.append((found.df_num, found.df_denom, found.statistic, found.p_value))
    columns = ["df_num", "df_denom", "statistic", "p_value"]
    return pd.DataFrame(rows, index=list(hypotheses), columns=columns)


def term_hypotheses(fit: LMMResult, terms: FixedTerms, kind: int) -> dict[str, Array]:
    """Return the matrix L of each term, the hypothesis being L beta = 0.

    Raises
    ------
    ValueError
        ``kind`` is not 1, 2 or 3.
    UnsupportedModelError
        Type 3 where columns of X were dropped.
    """
    if kind not in (1, 2, 3) or isinstance(kind, bool):
        raise ValueError(f"type={kind!r}: choose 1, 2 or 3")
    if kind == 3:
        if fit.dropped_columns:
            raise UnsupportedModelError(
                f"type 3 hypotheses need all cells, and {', '.join(fit.dropped_columns)} had to be "
                "dropped: use type=1 or type=2, or leave the interaction out"
            )
        _refuse_two_codings(terms)
        return {name: equal_weights(terms, name) for name in terms.names}
    XX = cross_products(fit)
    if kind == 1:
        rows = sequential_rows(XX)
        return {name: rows[terms.places[name]] for name in terms.names}
    return {name: _after_others(XX, terms, name) for name in terms.names}


def _refuse_two_codings(terms: FixedTerms) -> None:
    """Refuse a column that is two factors: cells are not all combinations of their levels then."""
    found: dict[str, str] = {}
    for factor in terms.factor_levels:
        wrapped = re.match(r"C\((\w+)", factor)
        column = wrapped[1] if wrapped else factor
        if column in found:
            raise UnsupportedModelError(
                f"{column!r} is in the model as {found[column]!r} and as {factor!r}, so that its "
                "cells are not known: code it in one way, or use type=1 or type=2"
            )
        found[column] = factor


def cross_products(fit: LMMResult) -> Array:
    """X'X (p, p) of the columns in use, weights aside.

    Raises
    ------
    DataError
        A fit that holds no rows.
    """
    XX = np.zeros((len(fit._keep),) * 2)
    for _, X in chunks_of_X(fit, fit._keep, "hypotheses of type 1 and 2"):
        XX += X.T @ X
    return XX


def sequential_rows(XX: Array) -> Array:
    """Rows of the unit upper triangular U in X'X = U'EU: each column after those before it."""
    scale = np.sqrt(np.diag(XX))
    try:
        root = np.linalg.cholesky(XX / np.outer(scale, scale)) * scale[:, None]
    except np.linalg.LinAlgError:
        raise DataError(
            "columns of X depend on each other so nearly that no sequential hypotheses can be "
            "formed: center covariates"
        ) from None
    U = (root / np.diag(root)).T
    return np.where(np.abs(U) > ROUNDING * np.abs(U).max(), U, 0.0)


def _after_others(XX: Array, terms: FixedTerms, name: str) -> Array:
    """Type 2: columns of the term after all but those of terms that contain it.

    Of a term that none contains these are its coefficients. That is the same hypothesis; but the
    degrees of freedom of Fai and Cornelius depend on how it is written, here as in lmerTest.
    """
    own = terms.places[name]
    containing = [
        j for other in terms.names if terms.contains(other, name) for j in terms.places[other]
    ]
    if not containing:
        return np.eye(len(XX))[own]
    first = [j for j in range(len(XX)) if j not in own and j not in containing]
    order = [*first, *own, *containing]
    L = np.zeros((len(own), len(XX)))
    rows = sequential_rows(XX[np.ix_(order, order)])
    L[:, order] = rows[len(first) : len(first) + len(own)]
    return L


def equal_weights(terms: FixedTerms, name: str) -> Array:
    """Type 3: interaction contrasts of the term's factors, other factors averaged equally.

    Of a term with covariates, of the coefficient of their product. The hypothesis is the same for
    any coding of the factors.
    """
    column = terms.columns[terms.places[name][0]]
    own = list(column.levels)
    family = [other for other in terms.columns if set(other.covariates) == set(column.covariates)]
    others = sorted({factor for other in family for factor in other.levels} - set(own))
    pieces = dict.fromkeys(tuple(sorted(other.covariates.items())) for other in family)
    rows = []
    for piece in pieces:
        means = {
            cell: _mean_row(terms, dict(zip(own, cell, strict=True)), others, dict(piece))
            for cell in itertools.product(*(terms.factor_levels[factor] for factor in own))
        }
        rows += _interactions(means, [terms.factor_levels[factor] for factor in own])
    return np.array(rows)


def _mean_row(
    terms: FixedTerms, cell: dict[str, str], others: list[str], covariates: dict[str, str]
) -> Array:
    """Weights of the coefficient of a product of covariates, averaged over other factors."""

    def weight(column: FixedColumn) -> float:
        if column.covariates != covariates:
            return 0.0
        value = 1.0
        for factor, coding in column.levels.items():
            if factor in others:
                value *= sum(coding.values()) / len(terms.factor_levels[factor])
            else:
                value *= coding.get(cell[factor], 0.0)
        return value

    return np.array([weight(column) for column in terms.columns])


def _interactions(means: dict[tuple[str, ...], Array], levels: list[list[str]]) -> list[Array]:
    """Contrasts of all levels but the first with the first, of each factor times the others."""
    rows = []
    for chosen in itertools.product(*(own[1:] for own in levels)):
        row = np.zeros_like(next(iter(means.values())))
        for ends in itertools.product((0, 1), repeat=len(levels)):
            cell = tuple(
                level if end else own[0]
                for level, own, end in zip(chosen, levels, ends, strict=True)
            )
            row += (-1) ** (len(levels) - sum(ends)) * means[cell]
        rows.append(row)
    return rows
