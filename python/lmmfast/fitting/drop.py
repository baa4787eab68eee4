"""A fit without some of its groups: their sums are subtracted, and the search goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast._threads import n_threads
from lmmfast.arrays import Array
from lmmfast.engines.moments import MomentsEngine
from lmmfast.errors import DataError, UnsupportedModelError
from lmmfast.fitting.append import RowlessDesign, check_columns
from lmmfast.fitting.options import Options
from lmmfast.fitting.pipeline import fit_prepared
from lmmfast.fitting.prepare import prepared
from lmmfast.grouping.clusters import Clusters
from lmmfast.packing.compress import (
    BatchSums,
    CompressedClusters,
    aligned_zeros,
    better_basis,
    compress_batch,
)
from lmmfast.prediction.lookup import GroupLookup

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

# What is left of a sum of squares must be at least this part of it, or digits would be lost.
LEAST_LEFT = 1e-4

_ANEW = "; fit the rest anew"


def drop(fit: LMMResult, groups: Any, options: Options) -> LMMResult:
    """Fit the rows of a fit without those of some groups; see `LMMResult.drop`."""
    engine = fit._need(fit._engine, "groups to be dropped")
    clusters = fit._need(fit._clusters, "groups to be dropped")
    design = fit._need(fit._design, "groups to be dropped")
    if not isinstance(engine, MomentsEngine):
        raise UnsupportedModelError(
            "groups can be dropped from fits with one grouping factor and independent residuals"
            f"{_ANEW}"
        )
    fit._check_data()
    gone = _positions(clusters, groups, fit.group_name)
    left = np.setdiff1d(np.arange(clusters.m), gone)
    if len(left) < 2:
        raise DataError(
            f"{len(left)} groups of {fit.group_name!r} would be left: at least 2 are needed"
        )
    threads = n_threads(options.n_jobs)
    ptr, order = _rows(clusters, gone)
    packed = engine.clusters
    out = aligned_zeros((-(-len(gone) // core.lanes), *packed.blocks.shape[1:]))
    removed = compress_batch(design.batch(order), ptr, None, packed.basis, out, threads)
    total = _without(packed, removed, left, len(order))
    if better_basis(total.gram, total.basis) is not None:
        raise DataError(
            "the responses that are left lie so far from where those of the fit did that digits "
            f"would be lost{_ANEW}"
        )
    check_columns(design, packed, total)
    rest = RowlessDesign(
        spec=design.spec,
        terms=design.terms,
        x_names=design.x_names,
        y_name=design.y_name,
        group_name=design.group_name,
        n_obs=total.n_obs,
        n_dropped=design.n_dropped,
        missing_counts=design.missing_counts,
        unit=design.unit,
        dropped_effects=tuple(design.dropped_effects),
    )
    kept = _kept(clusters, left)
    return fit_prepared(rest, kept, fit._covariance, prepared(total, threads), options)


def _kept(clusters: Clusters, left: NDArray[np.intp]) -> Clusters:
    """Some clusters, with the names that they have alone."""
    keys, names = clusters.keys[left], clusters.names
    if names is not None:
        used = np.unique(keys)
        keys, names = np.searchsorted(used, keys), np.asarray(names)[used]
    ptr = np.append(0, np.cumsum(clusters.sizes[left])).astype(np.int64)
    return Clusters(keys, names, ptr, None)


def _positions(clusters: Clusters, groups: Any, name: str) -> NDArray[np.intp]:
    """Where the groups to be dropped are stored.

    Raises
    ------
    DataError
        No groups, or one that the fit does not have.
    """
    one = isinstance(groups, str) or not hasattr(groups, "__len__")
    labels = [groups] if one else list(groups)
    if not labels:
        raise DataError("no groups to be dropped")
    found = GroupLookup(np.asarray(clusters.labels)).positions(np.asarray(labels))
    if (found < 0).any():
        unknown = labels[int(np.argmin(found))]
        raise DataError(f"{unknown!r} is no group of {name!r} in the fit")
    return np.unique(found)


def _rows(
    clusters: Clusters, chosen: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Limits of some clusters, and their rows in this order."""
    sizes = clusters.sizes[chosen]
    ends = np.cumsum(sizes)
    at = np.arange(ends[-1]) + np.repeat(clusters.ptr[chosen] - (ends - sizes), sizes)
    order = at if clusters.order is None else clusters.order[at]
    return np.append(0, ends).astype(np.int64), order.astype(np.int64)


def _without(
    packed: CompressedClusters, removed: BatchSums, left: NDArray[np.intp], n_rows: int
) -> CompressedClusters:
    """Subtract sums, and move the clusters that are left together."""
    gram, perp = packed.gram - removed.gram, packed.perp - removed.perp
    for before, after in ((packed.gram, gram), (packed.perp, perp)):
        _check_digits(np.diagonal(before), np.diagonal(after))
    lanes = core.lanes
    blocks = aligned_zeros((-(-len(left) // lanes), *packed.blocks.shape[1:]))
    place = np.arange(len(left))
    blocks[place // lanes, :, place % lanes] = packed.blocks[left // lanes, :, left % lanes]
    return replace(
        packed,
        blocks=blocks,
        m=len(left),
        n_obs=packed.n_obs - n_rows,
        gram=gram,
        perp=perp,
        log_weights=packed.log_weights - removed.log_weights,
        rank_Z=packed.rank_Z - removed.rank_Z,
    )


def _check_digits(before: Array, after: Array) -> None:
    if ((before > 0) & (after < LEAST_LEFT * before)).any():
        raise DataError(
            f"less than {LEAST_LEFT:g} of a sum of squares would be left, so that digits would be "
            f"lost{_ANEW}"
        )
