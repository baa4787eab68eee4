"""What fits by segment predict with, as documents, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmmfast.batch.by_models import SegmentModels, SharedModel
from lmmfast.formula.by_segment import Affine
from lmmfast.persist.labels import labels_from_plain, labels_to_plain
from lmmfast.persist.specs import spec_document, spec_from_document
from lmmfast.prediction.new_rows import FactorEffects, Predictor

_ARRAYS = ("segments", "local", "beta", "effects", "groups", "group_starts")


def models_to_document(models: SegmentModels) -> dict[str, Any]:
    """Return what segments predict with as a document has it.

    Raises
    ------
    DataError
        Something in it cannot be saved.
    """
    return {
        "shared": [_shared(model) for model in models.shared],
        "alone": [[segment, _predictor(own)] for segment, own in models.alone.items()],
    }


def models_from_document(
    document: Mapping[str, Any] | None, context: Mapping[str, Any], trust: bool
) -> SegmentModels:
    """Undo `models_to_document`; files of the first release have none.

    Raises
    ------
    DataError
        Functions that are not in the context, expressions that are not allowed.
    """
    if document is None:
        return SegmentModels()
    return SegmentModels(
        shared=[_shared_from(plain, context, trust) for plain in document["shared"]],
        alone={
            segment: _predictor_from(plain, context, trust) for segment, plain in document["alone"]
        },
    )


def _shared(model: SharedModel) -> dict[str, Any]:
    return {
        **{name: getattr(model, name) for name in _ARRAYS},
        "spec": spec_document(model.spec),
        "states": [[expr, s.ddof, s.center, s.scale] for expr, s in model.states.items()],
        "labels": labels_to_plain(model.labels, "labels of groups"),
    }


def _shared_from(plain: Mapping[str, Any], context: Mapping[str, Any], trust: bool) -> SharedModel:
    spec: Any = spec_from_document(plain["spec"], context, trust)
    model = SharedModel(
        **{name: plain[name] for name in _ARRAYS},
        spec=spec,
        states={expr: Affine(*state) for expr, *state in plain["states"]},
        labels=labels_from_plain(plain["labels"]),
    )
    n_groups = int(model.group_starts[-1])
    if len(model.effects) != n_groups or len(model.groups) != n_groups:
        raise ValueError("as many groups as effects")
    return model


def _predictor(own: Predictor) -> dict[str, Any]:
    return {
        "spec": spec_document(own.spec),
        "keep": np.asarray(own.keep),
        "beta": own.beta,
        "factors": list(own.factors),
        "effects": [
            [e.name, np.asarray(e.columns), e.b, labels_to_plain(e.labels, f"labels of {e.name!r}")]
            for e in own.effects
        ],
        "dropped_columns": list(own.dropped_columns),
    }


def _predictor_from(plain: Mapping[str, Any], context: Mapping[str, Any], trust: bool) -> Predictor:
    return Predictor(
        spec=spec_from_document(plain["spec"], context, trust),
        keep=plain["keep"],
        beta=plain["beta"],
        factors=tuple(plain["factors"]),
        effects=tuple(
            FactorEffects(name, columns, b, labels_from_plain(labels))
            for name, columns, b, labels in plain["effects"]
        ),
        dropped_columns=tuple(plain["dropped_columns"]),
    )
