"""Fits of many responses, and fits by segment, as documents, and back."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from lmmfast.batch.by_fit import NamedColumns, Records
from lmmfast.batch.by_result import LMMByResult
from lmmfast.batch.many_result import ManyFits
from lmmfast.persist.by_models import models_from_document, models_to_document
from lmmfast.persist.labels import (
    index_from_plain,
    index_to_plain,
    labels_from_plain,
    labels_to_plain,
)
from lmmfast.persist.plain import from_plain, to_plain
from lmmfast.persist.structures import term_from_plain, term_to_plain

_NUMBERS = ("llf", "nobs", "ngroups", "evaluations", "converged")
_NAMED = ("params", "bse", "theta")


def many_to_document(fits: ManyFits) -> dict[str, Any]:
    """Return fits of many responses as a document."""
    plain = {field.name: getattr(fits, field.name) for field in dataclasses.fields(fits)}
    return {
        **plain,
        "status": labels_to_plain(fits.status.astype(object), "the statuses"),
        "terms": [term_to_plain(term) for term in fits.terms],
    }


def many_from_document(document: Mapping[str, Any]) -> ManyFits:
    """Undo `many_to_document`."""
    plain = {field.name: document[field.name] for field in dataclasses.fields(ManyFits)}
    plain["status"] = np.asarray(labels_from_plain(plain["status"]))
    plain["terms"] = tuple(map(term_from_plain, plain["terms"]))
    return ManyFits(**plain)


def by_to_document(result: LMMByResult) -> dict[str, Any]:
    """Return fits by segment as a document."""
    records = result._records
    return {
        "segments": index_to_plain(result.segments, "labels of segments"),
        "by": list(result.by),
        "formula": result.formula,
        "method": result.method,
        "n_dropped": records.n_dropped,
        "missing_counts": to_plain(records.missing_counts, "counts of missing values"),
        "factor_groups": [[name, counts] for name, counts in records.factor_groups.items()],
        "failed": to_plain(records.failed, "messages"),
        "warnings": to_plain(records.warnings, "messages"),
        "status": labels_to_plain(records.status, "the statuses"),
        "models": models_to_document(records.models),
        **{name: getattr(records, name) for name in _NUMBERS},
        **{name: [list(c) for c in getattr(records, name).columns.items()] for name in _NAMED},
    }


def by_from_document(
    document: Mapping[str, Any], context: Mapping[str, Any], trust: bool
) -> LMMByResult:
    """Undo `by_to_document`; no segment can be fitted again."""
    segments = index_from_plain(document["segments"])
    records = Records(
        n_segments=len(segments),
        n_dropped=document["n_dropped"],
        missing_counts=from_plain(document["missing_counts"]),
        factor_groups=dict(document["factor_groups"]),
        failed=from_plain(document["failed"]),
        warnings=from_plain(document["warnings"]),
        models=models_from_document(document.get("models"), context, trust),
    )
    for name in _NUMBERS:
        setattr(records, name, document[name])
    for name in _NAMED:
        named = NamedColumns(len(segments))
        named.columns = dict(document[name])
        setattr(records, name, named)
    records.status = np.asarray(labels_from_plain(document["status"]))
    result = LMMByResult.__new__(LMMByResult)
    result.segments, result.by = segments, list(document["by"])
    result.formula, result.method = document["formula"], document["method"]
    result.n_dropped, result.missing_counts = records.n_dropped, records.missing_counts
    result._records, result._fitter, result._fits = records, None, OrderedDict()
    return result
