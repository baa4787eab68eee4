"""Packed clusters of a fit as a document, and back: what appending rows and the like go on with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lmmfast._threads import n_threads
from lmmfast.data.fingerprints import Fingerprints
from lmmfast.engines.moments import MomentsEngine
from lmmfast.errors import DataError, UnsupportedModelError
from lmmfast.fitting.append import RowlessDesign
from lmmfast.grouping.clusters import Clusters
from lmmfast.inference.cluster_sums import ClusterSums, cluster_sums
from lmmfast.packing.compress import CompressedClusters, aligned_zeros
from lmmfast.persist.labels import labels_from_plain, labels_to_plain
from lmmfast.result import LMMResult

_PACKED = ("blocks", "gram", "perp", "log_weights", "rank_Z", "z_in_x", "n_obs")
#: Kernels read blocks from such addresses.
_ALIGNMENT = 64


def clusters_to_document(fit: LMMResult) -> dict[str, Any]:
    """Return the packed clusters of a fit as a document has them.

    Raises
    ------
    DataError
        The fit holds none, or its data have changed.
    UnsupportedModelError
        Several grouping factors or a residual structure.
    """
    engine = fit._need(fit._engine, "packed clusters")
    clusters = fit._need(fit._clusters, "packed clusters")
    if not isinstance(engine, MomentsEngine):
        raise UnsupportedModelError(
            "clusters=True: fits with several grouping factors, residual structures or "
            "engine='reference' have no packed clusters; save without them"
        )
    packed, design = engine.clusters, fit._need(fit._design, "packed clusters")
    try:
        sums = _fields(cluster_sums(fit))
    except DataError:
        sums = None  # rows were appended: only those of the fit before them are known
    keys: dict[str, Any] = {"keys": np.ascontiguousarray(clusters.keys), "names": None}
    if clusters.names is not None:
        keys["names"] = labels_to_plain(clusters.names, f"labels of {fit.group_name!r}")
    return {
        **{name: getattr(packed, name) for name in _PACKED},
        **keys,
        "sizes": clusters.sizes,
        "unit": design.unit,
        "share": engine._share,
        "sums": sums,
    }


def give_clusters(fit: LMMResult, plain: Mapping[str, Any]) -> None:
    """Give a loaded fit the packed clusters that were saved with it."""
    names = None if plain["names"] is None else np.asarray(labels_from_plain(plain["names"]))
    ptr = np.append(0, np.cumsum(plain["sizes"])).astype(np.int64)
    clusters = Clusters(plain["keys"], names, ptr, None)
    q, p1 = len(fit._basis.z_scale), len(plain["gram"])
    blocks = plain["blocks"]
    n_fields = q * (q + 1) // 2 + q * p1
    if blocks.ndim != 3 or blocks.shape[1] != n_fields or 8 * len(blocks) < len(clusters.keys):
        raise ValueError("blocks of another shape than the model has")
    packed = CompressedClusters(
        **{name: plain[name] for name in _PACKED if name != "blocks"},
        blocks=_aligned(blocks),
        q=q,
        p1=p1,
        m=clusters.m,
        basis=fit._basis,
    )
    fit._engine = MomentsEngine(packed, n_threads(), share=bool(plain["share"]))
    fit._clusters, fit._fingerprints = clusters, Fingerprints([], [])
    fit._design = RowlessDesign(
        spec=fit.spec,
        terms=fit.terms,
        x_names=tuple(fit.spec.x_names),
        y_name=fit.y_name,
        group_name=fit.group_name,
        n_obs=fit.nobs,
        n_dropped=fit.n_dropped,
        missing_counts=fit.missing_counts,
        unit=plain["unit"],
        dropped_effects=tuple(fit.dropped_effects),
    )
    if plain["sums"] is not None:
        fit.__dict__["_own_cluster_sums"] = ClusterSums(**plain["sums"])


def _aligned(blocks: Any) -> Any:
    """Blocks where the kernels can read them: where they lie in the file if it is mapped."""
    if blocks.ctypes.data % _ALIGNMENT == 0:
        return blocks
    copy = aligned_zeros(blocks.shape)
    copy[:] = blocks
    return copy


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
