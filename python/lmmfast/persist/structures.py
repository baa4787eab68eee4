"""Structures of D and of the residuals, and their parameters, as documents have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from lmmfast.covariance.choices import structure as random_structure
from lmmfast.covariance.joint import JointCovariance
from lmmfast.covariance.terms import BlockCovariance, Term
from lmmfast.errors import UnsupportedModelError
from lmmfast.residual.layout import ResidualParameters, Stratum, VariancePart
from lmmfast.residual.structure import Correlation, CustomFunction, ResidualStructure, Variance


def term_to_plain(term: Term) -> dict[str, Any]:
    """Return a random-effects term as a document has it."""
    name, hom = term.structure.formula
    return {"group": term.group, "names": list(term.names), "structure": name, "hom": hom}


def term_from_plain(plain: Mapping[str, Any]) -> Term:
    """Undo `term_to_plain`."""
    return Term(
        plain["group"], tuple(plain["names"]), random_structure(plain["structure"], plain["hom"])
    )


def covariance_to_plain(covariance: BlockCovariance) -> dict[str, Any]:
    """Return what D and R are by the search parameters as a document has it."""
    plain: dict[str, Any] = {
        "structures": [list(s.formula) for s in covariance.structures],
        "sizes": [int(q) for q in covariance.sizes],
    }
    if isinstance(covariance, JointCovariance):
        plain["residual"] = _parameters(covariance.residual)
        plain["starts"] = list(covariance.starts)
    return plain


def covariance_from_plain(plain: Mapping[str, Any]) -> BlockCovariance:
    """Undo `covariance_to_plain`."""
    structures = tuple(random_structure(name, hom) for name, hom in plain["structures"])
    sizes = tuple(plain["sizes"])
    if "residual" not in plain:
        return BlockCovariance(structures, sizes)
    residual = _parameters_from(plain["residual"])
    return JointCovariance(structures, sizes, residual, tuple(plain["starts"]))


def structure_to_plain(structure: ResidualStructure | None) -> dict[str, Any] | None:
    """Return a structure of the residuals as a document has it."""
    if structure is None:
        return None
    return {
        "text": structure.text,
        "correlation": _correlation(structure.correlation),
        "variances": [
            {"kind": one.kind, "columns": list(one.columns), "by": one.by}
            for one in structure.variances
        ],
    }


def structure_from_plain(plain: Mapping[str, Any] | None) -> ResidualStructure | None:
    """Undo `structure_to_plain`; functions of users' own are not there."""
    if plain is None:
        return None
    variances = [Variance(v["kind"], tuple(v["columns"]), v["by"]) for v in plain["variances"]]
    return ResidualStructure(_correlation_from(plain["correlation"]), variances, plain["text"])


def _correlation(correlation: Correlation | None) -> dict[str, Any] | None:
    if correlation is None:
        return None
    custom = correlation.custom
    return {
        "kind": correlation.kind,
        "role": correlation.role,
        "columns": list(correlation.columns),
        "by": correlation.by,
        "nugget": correlation.nugget,
        "bands": correlation.bands,
        "label": correlation.label,
        "report": correlation.report,
        "custom": custom and {"names": list(custom.names), "start": list(custom.start)},
    }


def _correlation_from(plain: Mapping[str, Any] | None) -> Correlation | None:
    if plain is None:
        return None
    custom = plain["custom"]
    return Correlation(
        **{name: plain[name] for name in ("kind", "role", "by", "nugget", "bands", "label")},
        report=plain["report"],
        columns=tuple(plain["columns"]),
        custom=custom
        and CustomFunction(_no_function, tuple(custom["names"]), tuple(custom["start"])),
    )


def _no_function(psi: Any, values: Any) -> NoReturn:
    raise UnsupportedModelError(
        "the function of CustomCorrelation is not in the file that the fit was loaded from"
    )


def _parameters(parameters: ResidualParameters) -> dict[str, Any]:
    return {
        "correlation": _correlation(parameters.correlation),
        "variances": [
            {
                "kind": part.kind,
                "columns": list(part.columns),
                "labels": list(part.labels),
                "center": float(part.center),
                "scale": float(part.scale),
                "params": _range(part.params),
            }
            for part in parameters.variances
        ],
        "strata": [
            {"label": stratum.label, "psi": _range(stratum.psi), "nu": stratum.nu}
            for stratum in parameters.strata
        ],
        "levels": list(parameters.levels),
        "T": int(parameters.T),
        "unit": float(parameters.unit),
        "closest": float(parameters.closest),
    }


def _parameters_from(plain: Mapping[str, Any]) -> ResidualParameters:
    return ResidualParameters(
        correlation=_correlation_from(plain["correlation"]),
        variances=tuple(
            VariancePart(
                kind=part["kind"],
                columns=tuple(part["columns"]),
                labels=tuple(part["labels"]),
                center=part["center"],
                scale=part["scale"],
                params=slice(*part["params"]),
            )
            for part in plain["variances"]
        ),
        strata=tuple(
            Stratum(stratum["label"], slice(*stratum["psi"]), stratum["nu"])
            for stratum in plain["strata"]
        ),
        levels=tuple(plain["levels"]),
        T=plain["T"],
        unit=plain["unit"],
        closest=plain["closest"],
    )


def _range(params: slice) -> list[int]:
    return [int(params.start), int(params.stop)]
