"""What makes the columns of new rows, of a formula or of arrays, as documents have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmmfast.errors import DataError
from lmmfast.formula.parse import BarTerm, ParsedFormula
from lmmfast.formula.spec import ColumnRecipe, FormulaSpec, Indicator, Part
from lmmfast.formula.stored import check_expression, spec_from_plain, spec_to_plain
from lmmfast.persist.labels import index_from_plain, index_to_plain
from lmmfast.persist.plain import from_plain, to_plain
from lmmfast.persist.structures import term_from_plain, term_to_plain

if TYPE_CHECKING:
    from lmmfast.design.from_arrays import ArraySpec


def spec_document(spec: FormulaSpec | ArraySpec) -> dict[str, Any]:
    """Return what makes columns as a document has it.

    Raises
    ------
    DataError
        A value that cannot be saved, such as a coding of categories that is not formulaic's.
    """
    if isinstance(spec, FormulaSpec):
        return {"kind": "formula", **_formula_spec(spec)}
    return {
        "kind": "arrays",
        "x_names": list(spec.x_names),
        "z_names": [None if names is None else list(names) for names in spec.z_names],
        "factor_names": list(spec.factor_names),
        "text_keys": list(spec.text_keys),
        "offset_array": spec.offset_array,
        "left_out": [int(k) for k in spec.left_out],
    }


def spec_from_document(
    plain: Mapping[str, Any], context: Mapping[str, Any], trust: bool
) -> FormulaSpec | ArraySpec:
    """Undo `spec_document`.

    Parameters
    ----------
    context : mapping
        Functions and values of the formula that the file does not hold.
    trust : bool
        Allow expressions that can run any code.

    Raises
    ------
    DataError
        Functions that are not in the context, expressions that are not allowed.
    """
    if plain["kind"] == "formula":
        return _formula_spec_from(plain, context, trust)
    from lmmfast.design.from_arrays import ArraySpec

    return ArraySpec(
        x_names=tuple(plain["x_names"]),
        z_names=tuple(None if names is None else tuple(names) for names in plain["z_names"]),
        factor_names=tuple(plain["factor_names"]),
        text_keys=tuple(plain["text_keys"]),
        offset_array=plain["offset_array"],
        left_out=tuple(plain["left_out"]),
    )


def _formula_spec(spec: FormulaSpec) -> dict[str, Any]:
    return {
        "formula": _formula(spec.formula),
        "parts": [[name, _part(part)] for name, part in spec.parts.items()],
        "terms": [term_to_plain(term) for term in spec.terms],
        "levels": [
            [name, index_to_plain(levels, f"levels of {name!r}")]
            for name, levels in spec.levels.items()
        ],
        "number_levels": to_plain(spec.number_levels, "C(...) of numbers"),
        "offset_name": spec.offset_name,
        "text_keys": list(spec.text_keys),
        "offset_array": spec.offset_array,
        "weights_name": spec.weights_name,
        "everything": None if spec.everything is None else _formula_spec(spec.everything),
        "left_out": [int(k) for k in spec.left_out],
        "dropped_effects": list(spec.dropped_effects),
    }


def _formula_spec_from(
    plain: Mapping[str, Any], context: Mapping[str, Any], trust: bool
) -> FormulaSpec:
    formula = _formula_from(plain["formula"], context)
    names = frozenset(formula.context)
    whole = plain["everything"]
    return FormulaSpec(
        formula=formula,
        parts={name: _part_from(part, names, trust) for name, part in plain["parts"]},
        terms=tuple(map(term_from_plain, plain["terms"])),
        levels={name: index_from_plain(levels) for name, levels in plain["levels"]},
        number_levels=from_plain(plain["number_levels"]),
        offset_name=plain["offset_name"],
        text_keys=tuple(plain["text_keys"]),
        offset_array=plain["offset_array"],
        weights_name=plain["weights_name"],
        everything=None if whole is None else _formula_spec_from(whole, context, trust),
        left_out=tuple(plain["left_out"]),
        dropped_effects=tuple(plain["dropped_effects"]),
    )


def _formula(formula: ParsedFormula) -> dict[str, Any]:
    values, functions = {}, []
    for name, value in formula.context.items():
        try:
            values[name] = to_plain(value, name)
        except DataError:
            functions.append(name)  # given again at loading
    return {
        "response": formula.response,
        "fixed": formula.fixed,
        "terms": [
            {
                "lhs": term.lhs,
                "group": list(term.group),
                "structure": term.structure,
                "hom": term.hom,
                "text": term.text,
            }
            for term in formula.terms
        ],
        "text": formula.text,
        "clusters": list(formula.clusters),
        "response_term": formula.response_term,
        "values": values,
        "functions": functions,
    }


def _formula_from(plain: Mapping[str, Any], given: Mapping[str, Any]) -> ParsedFormula:
    absent = [name for name in plain["functions"] if name not in given]
    if absent:
        named = ", ".join(f"{name!r}: {name}" for name in absent)
        raise DataError(
            f"the formula {plain['text']!r} calls functions of yours, which a file does not hold: "
            f"pass context={{{named}}}"
        )
    context = {name: from_plain(value) for name, value in plain["values"].items()}
    return ParsedFormula(
        response=plain["response"],
        fixed=plain["fixed"],
        terms=tuple(
            BarTerm(
                lhs=term["lhs"],
                group=tuple(term["group"]),
                structure=term["structure"],
                hom=term["hom"],
                text=term["text"],
            )
            for term in plain["terms"]
        ),
        text=plain["text"],
        clusters=tuple(plain["clusters"]),
        response_term=plain["response_term"],
        context={**context, **given},
    )


def _part(part: Part) -> dict[str, Any]:
    model = None
    if part.model is not None:
        model = to_plain(spec_to_plain(part.model), "the state of the formula")
    return {
        "names": list(part.names),
        "recipes": [
            recipe.index
            if recipe.factors is None
            else [f if isinstance(f, str) else [f.column, f.code] for f in recipe.factors]
            for recipe in part.recipes
        ],
        "model": model,
        "columns": sorted(part.columns),
        "evaluated": sorted(part.evaluated),
        "whole": list(part.whole),
    }


def _part_from(plain: Mapping[str, Any], names: frozenset[str], trust: bool) -> Part:
    model = None
    if plain["model"] is not None:
        model = spec_from_plain(from_plain(plain["model"]), names, trust)
    if not trust:
        for expr in plain["whole"]:
            check_expression(expr, "python", names)
    return Part(
        names=tuple(plain["names"]),
        recipes=tuple(map(_recipe, plain["recipes"])),
        model=model,
        columns=frozenset(plain["columns"]),
        evaluated=frozenset(plain["evaluated"]),
        whole=tuple(plain["whole"]),
    )


def _recipe(plain: int | list[Any]) -> ColumnRecipe:
    if isinstance(plain, int):
        return ColumnRecipe(None, plain)
    return ColumnRecipe(
        tuple(part if isinstance(part, str) else Indicator(part[0], part[1]) for part in plain)
    )
