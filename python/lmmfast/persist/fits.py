"""The record of a fit as a document, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lmmfast.fitted import Fitted, FittedFactor, FromRows, InferenceChoice, WorkingOptimum
from lmmfast.fitting.redundancy import Redundancy
from lmmfast.inference.totals import InferenceTotals
from lmmfast.packing.basis import Basis
from lmmfast.persist.labels import labels_from_plain, labels_to_plain
from lmmfast.persist.plain import from_plain, to_plain
from lmmfast.persist.specs import spec_document, spec_from_document
from lmmfast.persist.structures import (
    covariance_from_plain,
    covariance_to_plain,
    structure_from_plain,
    structure_to_plain,
    term_from_plain,
    term_to_plain,
)
from lmmfast.residual.place import KnownColumn
from lmmfast.search.certificate import Certificate

#: Fields of a record that a document has as they are.
_AS_THEY_ARE = (
    "y_name",
    "group_name",
    "method",
    "nobs",
    "n_dropped",
    "keep",
    "x_names",
    "dropped_columns",
    "dropped_effects",
    "weighted",
    "engine",
    "n_designs",
    "beta",
    "cov_beta",
    "D",
    "sigma2",
    "llf",
    "theta",
    "identifiable",
)


def fit_to_document(fitted: Fitted) -> dict[str, Any]:
    """Return the record of a fit as `lmmfast.persist.archive` writes it.

    Raises
    ------
    DataError
        Something in it cannot be saved.
    """
    rows = fitted.from_rows
    return {
        **{name: getattr(fitted, name) for name in _AS_THEY_ARE},
        "spec": spec_document(fitted.spec),
        "terms": [term_to_plain(term) for term in fitted.terms],
        "structure": structure_to_plain(fitted.structure),
        "covariance": covariance_to_plain(fitted.covariance),
        "factors": [_factor(factor) for factor in fitted.factors],
        "missing_counts": to_plain(fitted.missing_counts, "counts of missing values"),
        "working": _fields(fitted.working),
        "basis": _fields(fitted.basis),
        "certificate": {
            **_fields(fitted.certificate),
            "rank": [[name, *ranks] for name, ranks in fitted.certificate.rank.items()],
        },
        "trace": [_evaluation(entry) for entry in fitted.trace],
        "from_rows": {
            "totals": rows.totals and _fields(rows.totals),
            "cov_working": rows.cov_working,
            "lost": rows.lost,
            "mean_variances": to_plain(rows.mean_variances, "variances by factor"),
            "response_sum": rows.response_sum,
        },
        "redundancy": fitted.redundancy and _fields(fitted.redundancy),
        "inference": _fields(fitted.inference),
        "known_columns": fitted.known_columns
        and [_known_column(one) for one in fitted.known_columns.values()],
    }


def fit_from_document(
    document: Mapping[str, Any], context: Mapping[str, Any], trust: bool
) -> Fitted:
    """Undo `fit_to_document`.

    Parameters
    ----------
    context, trust
        See `lmmfast.load`.

    Raises
    ------
    DataError
        Functions that are not in the context, expressions that are not allowed.
    KeyError, TypeError, ValueError and the like
        The document is another than it should be.
    """
    rows = document["from_rows"]
    certificate = dict(document["certificate"])
    certificate["rank"] = {name: (rank, q) for name, rank, q in certificate["rank"]}
    basis = dict(document["basis"])
    return Fitted(
        **{name: document[name] for name in _AS_THEY_ARE},
        spec=spec_from_document(document["spec"], context, trust),
        terms=tuple(map(term_from_plain, document["terms"])),
        structure=structure_from_plain(document["structure"]),
        covariance=covariance_from_plain(document["covariance"]),
        factors=tuple(map(_factor_from, document["factors"])),
        missing_counts=from_plain(document["missing_counts"]),
        working=WorkingOptimum(**document["working"]),
        basis=Basis(**basis),
        certificate=Certificate(**certificate),
        trace=[_evaluation_from(entry) for entry in document["trace"]],
        from_rows=FromRows(
            totals=rows["totals"] and InferenceTotals(**rows["totals"]),
            cov_working=rows["cov_working"],
            lost=rows["lost"],
            mean_variances=from_plain(rows["mean_variances"]),
            response_sum=rows["response_sum"],
        ),
        redundancy=document["redundancy"] and Redundancy(**document["redundancy"]),
        inference=InferenceChoice(**document["inference"]),
        known_columns=_known_columns_from(document.get("known_columns")),
    )


def _fields(record: Any) -> dict[str, Any]:
    """Fields of a dataclass whose values a document has as they are."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


def _factor(factor: FittedFactor) -> dict[str, Any]:
    plain = {**_fields(factor), "sizes": list(factor.sizes)}
    if factor.labels is not None:
        plain["labels"] = labels_to_plain(factor.labels, f"labels of {factor.name!r}")
    return plain


def _factor_from(plain: Mapping[str, Any]) -> FittedFactor:
    labels, effects = plain["labels"], plain["effects"]
    if labels is not None:
        labels = labels_from_plain(labels)
        if effects is None or len(labels) != len(effects):
            raise ValueError("as many labels as effects")
    smallest, mean, largest = plain["sizes"]
    return FittedFactor(**{**plain, "labels": labels, "sizes": (smallest, mean, largest)})


def _known_column(known: KnownColumn) -> dict[str, Any]:
    levels = known.levels
    plain = None if levels is None else labels_to_plain(levels, f"levels of {known.name!r}")
    return {**_fields(known), "levels": plain}


def _known_columns_from(plain: Any) -> dict[str, KnownColumn] | None:
    """Columns of a residual structure; files of the first release do not have them."""
    if plain is None:
        return None
    found = {}
    for one in plain:
        levels = None if one["levels"] is None else np.asarray(labels_from_plain(one["levels"]))
        found[one["name"]] = KnownColumn(**{**one, "levels": levels})
    return found


def _evaluation(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation of the search; its few parameters are a list, and no array of their own."""
    return {
        key: value.tolist() if isinstance(value, np.ndarray) else value
        for key, value in entry.items()
    }


def _evaluation_from(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: np.array(value, dtype=np.float64) if isinstance(value, list) else value
        for key, value in plain.items()
    }
