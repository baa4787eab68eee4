"""formulaic's model specifications as plain values, which can be written to a file, and back.

What evaluates new rows is the structure of each term, and what transforms and codings have learnt.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lmmfast.errors import DataError
from lmmfast.formula.factors import calls_unknown
from lmmfast.formula.materialise import ModelSpec

#: formulaic's codings of categories, by name.
CODINGS = (
    "TreatmentContrasts",
    "SASContrasts",
    "SumContrasts",
    "HelmertContrasts",
    "DiffContrasts",
    "PolyContrasts",
    "CustomContrasts",
)


def spec_to_plain(spec: ModelSpec) -> dict[str, Any]:
    """Take a model specification apart.

    Raises
    ------
    DataError
        A coding of categories that is not formulaic's.
    """
    return {
        "structure": [
            {
                "factors": [_factor_to_plain(factor) for factor in entry.term.factors],
                "scoped": [
                    {
                        "scale": scoped.scale,
                        "factors": [[own.factor.expr, own.reduced] for own in scoped.factors],
                    }
                    for scoped in entry.scoped_terms
                ],
                "columns": list(entry.columns),
            }
            for entry in spec.structure
        ],
        "transforms": dict(spec.transform_state),
        "encoders": {
            expr: [kind.value, _coding_to_plain(state)]
            for expr, (kind, state) in spec.encoder_state.items()
        },
    }


def spec_from_plain(plain: Mapping[str, Any], names: Collection[str], trust: bool) -> ModelSpec:
    """Put a model specification together.

    Parameters
    ----------
    plain : mapping
        What `spec_to_plain` returned.
    names : collection of str
        Functions and values that the user has given.
    trust : bool
        Allow expressions that can run any code.

    Raises
    ------
    DataError
        An expression that calls what is neither formulaic's, NumPy's nor given.
    """
    from formulaic.formula import SimpleFormula
    from formulaic.materializers.base import EncodedTermStructure
    from formulaic.materializers.types import EvaluatedFactor, ScopedFactor, ScopedTerm
    from formulaic.model_spec import ModelSpec as Spec
    from formulaic.parser.types import Factor, Term

    entries = []
    for entry in plain["structure"]:
        factors = [Factor(expr, eval_method=how) for expr, how in entry["factors"]]
        for factor in factors:
            if not trust:
                check_expression(factor.expr, factor.eval_method.value, names)
        own = {factor.expr: EvaluatedFactor(factor, None) for factor in factors}
        scoped = [
            ScopedTerm(
                [ScopedFactor(own[expr], bool(reduced)) for expr, reduced in one["factors"]],
                scale=one["scale"],
            )
            for one in entry["scoped"]
        ]
        entries.append(EncodedTermStructure(Term(factors), scoped, list(entry["columns"])))
    return Spec(
        formula=SimpleFormula([entry.term for entry in entries], _ordering="none"),
        materializer="pandas",
        materializer_params={},
        na_action="raise",
        output="pandas",
        structure=entries,
        transform_state=dict(plain["transforms"]),
        encoder_state={
            expr: (Factor.Kind(kind), _coding_from_plain(state))
            for expr, (kind, state) in plain["encoders"].items()
        },
    )


def check_expression(expr: str, how: str, names: Collection[str]) -> None:
    """Refuse an expression that could run any code.

    Raises
    ------
    DataError
    """
    if how == "lookup":
        return
    if how == "literal":
        ast.literal_eval(expr)
        return
    if calls_unknown(expr, names):
        raise DataError(
            f"the formula evaluates {expr!r}, which could run any code: pass the functions that it "
            "calls as context=, or trust=True if you know who wrote the file"
        )


def _factor_to_plain(factor: Any) -> list[str]:
    return [factor.expr, factor.eval_method.value]


def _coding_to_plain(state: Any) -> list[Any]:
    """Take what codings have learnt apart: a state, a coding with its options, or a value."""
    from formulaic.transforms.contrasts import ContrastsState
    from formulaic.utils.sentinels import UNSET

    if isinstance(state, Mapping):
        return ["state", {key: _coding_to_plain(value) for key, value in state.items()}]
    if not isinstance(state, ContrastsState):
        return ["value", state]
    coding, name = state.contrasts, type(state.contrasts).__name__
    if name not in CODINGS or not type(coding).__module__.startswith("formulaic."):
        raise DataError(f"the coding {name} of categories cannot be saved: use formulaic's")
    if name == "CustomContrasts":
        options = {"contrasts": coding.contrasts, "names": coding.contrast_names}
    else:
        options = {
            option.name: getattr(coding, option.name)
            for option in dataclasses.fields(coding)
            if getattr(coding, option.name) is not UNSET
        }
    return ["coding", name, options, list(state.levels)]


def _coding_from_plain(plain: Sequence[Any]) -> Any:
    from formulaic.transforms import contrasts

    kind, value = plain[0], plain[1]
    if kind == "state":
        return {key: _coding_from_plain(part) for key, part in value.items()}
    if kind == "value":
        return value
    if kind != "coding" or value not in CODINGS:
        raise ValueError(f"an unknown coding {value!r}")
    coding = getattr(contrasts, value)(**plain[2])
    return contrasts.ContrastsState(coding, list(plain[3]))
