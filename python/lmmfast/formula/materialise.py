"""Everything that touches formulaic: its tokenizer, its parser, its model specifications.

formulaic's tokenizer and materializer are only half public, so the rest of the package sees
them through the few functions of this file.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import formulaic  # noqa: F401  whole, before its parts: threads must not meet within them
import numpy as np
from numpy.typing import NDArray

from lmmfast.errors import DataError, FormulaError
from lmmfast.formula.language import FUNCTIONS, MAX_NAME, check_n_terms, check_size, to_formulaic

ModelSpec: TypeAlias = Any  # formulaic.ModelSpec
Term: TypeAlias = Any  # formulaic.parser.types.Term

# `warnings.catch_warnings` swaps a global list: two fits in two threads must not interleave there.
_WARNINGS_LOCK = threading.Lock()

# What formulaic's parser raises, beside its own errors, for texts that make no sense.
_ODD = (
    AttributeError, AssertionError, LookupError, NotImplementedError, OverflowError, RecursionError,
    RuntimeError, TypeError,
)  # fmt: skip

_CLOSED_BY_QUOTE = "`{%"


@dataclass(frozen=True)
class Token:
    """One token of a formula; ``source[start:end]`` is what the user wrote."""

    kind: str  # "operator", "context" (a parenthesis), "name", "value" or "python"
    text: str
    start: int
    end: int


def tokenize(source: str) -> list[Token]:
    """Split a formula by formulaic's rules.

    Raises
    ------
    FormulaError
        A quote or a call is not closed, or a character makes no sense where it stands.
    """
    from formulaic.errors import FormulaicError
    from formulaic.parser.algos.tokenize import (
        tokenize as split,
    )

    check_size(source)
    tokens = []
    try:
        for token in split(source):
            # Closing backticks and braces are not counted in formulaic's `source_end`.
            closing = 1 if source[token.source_start] in _CLOSED_BY_QUOTE else 0
            end = token.source_end + 1 + closing
            if end - token.source_start > MAX_NAME and token.kind.value == "name":
                raise FormulaError(f"a name of {end - token.source_start:,} characters")
            tokens.append(Token(token.kind.value, token.token, token.source_start, end))
    except FormulaicError as error:
        raise FormulaError(f"cannot read {shortened(source)}: {plain_message(error)}") from None
    return tokens


def shortened(text: str) -> str:
    """Quote a text in a message, at most 200 characters of it."""
    return repr(text if len(text) <= 200 else text[:197] + "...")


def plain_message(error: Exception) -> str:
    """Return formulaic's message without the terminal colours."""
    text = re.sub(r"\x1b?\[[0-9;]*m", "", str(error))
    return " ".join(text.split())


def parse_terms(text: str, *, intercept: bool = True) -> list[Term]:
    """Return the terms of a one-sided formula, the intercept (``1``) included.

    Raises
    ------
    FormulaError
        formulaic cannot read the text, or it has several parts.
    """
    return list(_parse(text, intercept))


@lru_cache(maxsize=256)  # one design asks for the same few texts several times
def _parse(text: str, intercept: bool) -> tuple[Term, ...]:
    from formulaic import Formula
    from formulaic.errors import FormulaicError
    from formulaic.formula import SimpleFormula
    from formulaic.parser import DefaultFormulaParser

    translated = to_formulaic(text, tokenize(text))
    parser = DefaultFormulaParser(include_intercept=intercept)
    try:
        tree = parser.get_ast(translated, context={})
    except (FormulaicError, SyntaxError, ValueError) as error:
        raise FormulaError(f"cannot read {shortened(text)}: {plain_message(error)}") from None
    except _ODD as error:
        raise _out_of_place(text, error) from None
    check_n_terms(text, tree)
    try:
        formula = Formula(translated, _parser=parser, _context={})
    except (FormulaicError, SyntaxError, ValueError) as error:
        raise FormulaError(f"cannot read {shortened(text)}: {plain_message(error)}") from None
    except _ODD as error:
        raise _out_of_place(text, error) from None
    if not isinstance(formula, SimpleFormula):
        raise FormulaError(f"{text!r} must be a single sum of terms, without '~' and '|'")
    return tuple(formula)


def _out_of_place(text: str, error: Exception) -> FormulaError:
    return FormulaError(
        f"cannot read {shortened(text)}: an operator or a parenthesis is out of place "
        f"({type(error).__name__} in the parser)"
    )


def transform_names() -> frozenset[str]:
    """Names that a formula can use although no column has them (``log``, ``bs``, ``np``, ...)."""
    from formulaic.transforms import TRANSFORMS

    return frozenset(TRANSFORMS)


def function_names() -> frozenset[str]:
    """Functions that every formula can call."""
    return transform_names() | frozenset(FUNCTIONS)


def is_lookup(factor: Any) -> bool:
    """Tell whether the factor is a plain column name."""
    return bool(factor.eval_method.value == "lookup")


def is_python(factor: Any) -> bool:
    """Tell whether the factor is an expression, such as ``log(x)``."""
    return bool(factor.eval_method.value == "python")


def learn_state(
    factors: Iterable[Any], frame: Any, context: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Evaluate factors on all rows; return formulaic's transform state and encoder state."""
    from formulaic.formula import SimpleFormula
    from formulaic.model_spec import ModelSpec
    from formulaic.parser.types import Term

    formula = SimpleFormula([Term([factor]) for factor in factors])
    spec = ModelSpec(formula=formula, ensure_full_rank=False, na_action="raise", output="pandas")
    learnt = _materialize(spec, frame, context).model_spec
    return learnt.transform_state, learnt.encoder_state


def evaluate_expressions(
    states: Mapping[str, dict[str, Any]], frame: Any, context: Mapping[str, Any]
) -> dict[str, NDArray[np.float64]]:
    """Evaluate calls with states of their own on some rows; NaN where there is no value.

    Parameters
    ----------
    states : mapping
        Calls of numbers, such as ``scale(x)``, and their states.
    """
    from formulaic.formula import SimpleFormula
    from formulaic.model_spec import ModelSpec
    from formulaic.parser.types import Factor, Term

    found = {}
    for expr, state in states.items():
        formula = SimpleFormula([Term([Factor(expr, eval_method="python")])])
        spec = ModelSpec(
            formula=formula,
            ensure_full_rank=False,
            na_action="ignore",
            output="pandas",
            transform_state={expr: state},
        )
        made = _materialize(spec, frame, context)
        found[expr] = made.iloc[:, 0].to_numpy(dtype=np.float64)
    return found


def build_specs(
    parts: Mapping[str, list[Term]],
    sample: Any,
    transform_state: dict[str, Any],
    encoder_state: dict[str, Any],
    context: Mapping[str, Any],
) -> dict[str, ModelSpec]:
    """Fix the columns of each part of the model from a sample of rows.

    Parameters
    ----------
    parts : mapping
        Name of the part ("y", "X", "Z0", ...) to its terms.
    sample : pandas.DataFrame
        Some rows; the categorical columns carry all their levels.
    transform_state, encoder_state : dict
        What `learn_state` found on all rows.
    context : mapping
        Functions and values of the user's.
    """
    from formulaic.formula import SimpleFormula
    from formulaic.model_spec import ModelSpec, ModelSpecs

    drafts = {
        name: ModelSpec(
            formula=SimpleFormula(terms, _ordering="none"),
            na_action="raise",
            output="pandas",
            transform_state=dict(transform_state),
            encoder_state=dict(encoder_state),
        )
        for name, terms in parts.items()
    }
    matrices = _materialize(ModelSpecs(**drafts), sample, context)
    specs = {name: matrices[name].model_spec for name in parts}
    # A factor that two parts share is encoded once, and only one part remembers its levels.
    encoders: dict[str, Any] = {}
    for spec in specs.values():
        encoders.update(spec.encoder_state)
    return {name: spec.update(encoder_state=dict(encoders)) for name, spec in specs.items()}


def restrict(spec: ModelSpec, entries: list[Any]) -> ModelSpec:
    """Keep some entries of ``spec.structure``; their coding stays as it was in the whole."""
    from formulaic.formula import SimpleFormula

    formula = SimpleFormula([entry.term for entry in entries], _ordering="none")
    return spec.update(formula=formula, structure=entries)


def evaluate(
    specs: Mapping[str, ModelSpec],
    frame: Any,
    context: Mapping[str, Any],
    *,
    new_data: bool = False,
) -> dict[str, list[NDArray[np.float64]]]:
    """Evaluate parts of a model on some rows.

    Returns
    -------
    dict
        Name of the part to its columns, each (n,) float64.

    Raises
    ------
    DataError
        An expression is missing somewhere (such as ``log(x)`` of a negative number), or new data
        have levels that the fit has not seen.
    FormulaError
        An expression cannot be evaluated.
    """
    from formulaic.model_spec import ModelSpecs

    matrices = _materialize(ModelSpecs(**specs), frame, context, check_levels=new_data)
    try:
        return {
            name: [
                matrices[name].iloc[:, j].to_numpy(dtype=np.float64)
                for j in range(matrices[name].shape[1])
            ]
            for name in specs
        }
    except (TypeError, ValueError) as error:
        raise FormulaError(f"the formula does not evaluate to numbers: {error}") from None


def _materialize(
    spec: Any, frame: Any, context: Mapping[str, Any], *, check_levels: bool = True
) -> Any:
    from formulaic.errors import DataMismatchWarning

    if not check_levels:
        return _materialize_unchecked(spec, frame, context)
    with _WARNINGS_LOCK, warnings.catch_warnings():
        # formulaic codes a level outside the nominated ones as the reference level and warns.
        warnings.simplefilter("error", DataMismatchWarning)
        try:
            return _materialize_unchecked(spec, frame, context)
        except DataMismatchWarning:
            names = ", ".join(sorted(f.expr for f in _factors(spec) if "C(" in f.expr))
            raise DataError(
                f"a categorical expression of the formula ({names}) has levels outside the known "
                "ones; remove these rows or name all levels with C(..., levels=[...])"
            ) from None


def _materialize_unchecked(spec: Any, frame: Any, context: Mapping[str, Any]) -> Any:
    from formulaic.errors import DataMismatchWarning, FormulaicError

    try:
        with np.errstate(all="ignore"):  # log(0) is found later, with its row
            return spec.get_model_matrix(frame, context={**FUNCTIONS, **context})
    except DataMismatchWarning:
        raise
    except (FormulaicError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        found = re.search(r"nulls in `(.*)`: .* contains null values", str(error))
        if found is None:
            raise FormulaError(f"cannot evaluate the formula: {plain_message(error)}") from error
        row = _first_missing_row(spec, found.group(1), frame, context)
        raise MissingAfterEvaluationError(found.group(1), row) from None


def _first_missing_row(
    spec: Any, expression: str, frame: Any, context: Mapping[str, Any]
) -> int | None:
    """Row of `frame` in which an expression is missing first."""
    from formulaic.formula import SimpleFormula
    from formulaic.model_spec import ModelSpec
    from formulaic.parser.types import Term

    factor = next((f for f in _factors(spec) if f.expr == expression), None)
    if factor is None:
        return None
    alone = ModelSpec(formula=SimpleFormula([Term([factor])]), na_action="ignore", output="pandas")
    with np.errstate(all="ignore"):
        made = alone.get_model_matrix(frame, context={**FUNCTIONS, **context})
    missing = made.isna().to_numpy().any(axis=1)
    return int(np.argmax(missing)) if missing.any() else None


def _factors(spec: Any) -> set[Any]:
    """All factors of a specification or of several."""
    if hasattr(spec, "factors"):
        return set(spec.factors)
    found: set[Any] = set()
    spec._map(lambda one: found.update(one.factors))
    return found


class MissingAfterEvaluationError(DataError):
    """An expression is missing in rows where its variables are not."""

    def __init__(self, expression: str, row: int | None = None) -> None:
        self.expression = expression
        self.row = row
        where = "in some rows" if row is None else f"in row {row} (counting from 0)"
        super().__init__(
            f"{expression!r} is missing (NaN) {where} although its variables are not: check the "
            "expression (the logarithm of a negative number?) or remove these rows"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.expression, self.row)
