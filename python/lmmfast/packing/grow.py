"""Compressed clusters grow: rows of new clusters are added, rows of old ones stacked below them.

What is kept of a cluster, [R_i Q_i'A_i], stands for its rows (docs/algorithm.md, section 2); a QR
decomposition of these q rows and the new ones together is that of all of them. The sums over
clusters add.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.design.design import Design, check_finite
from lmmfast.errors import DataError
from lmmfast.grouping.clusters import Clusters
from lmmfast.packing.basis import Basis
from lmmfast.packing.compress import (
    CompressedClusters,
    aligned_zeros,
    better_basis,
    common,
    compress_once,
)

# Of blocks that grow in place a part of this size is room for more.
SPARE = 8

Indices = NDArray[np.intp]
Keys = NDArray[Any]


@dataclass(frozen=True)
class Joined:
    """Clusters of a fit and of new rows together.

    Attributes
    ----------
    clusters : Clusters
        All of them, those of the fit first; ``ptr`` only counts their rows.
    position : ndarray of int (k,)
        Where each cluster of the new rows stands among all.
    m_old : int
        Number of clusters of the fit.
    """

    clusters: Clusters
    position: Indices
    m_old: int


def join(old: Clusters, part: Clusters) -> Joined:
    """Find the clusters of new rows among those of a fit; number the others after them.

    Raises
    ------
    DataError
        If the keys of both have no common type.
    """
    old, part = (old, part) if (old.names is None) == (part.names is None) else _named(old, part)
    if old.names is None or part.names is None:
        old_keys, part_keys = _one_type(old.keys, part.keys)
        position = _find(old_keys, part_keys)
        new = np.flatnonzero(position < 0)
        keys, names = np.append(old_keys, part_keys[new]), None
    else:
        old_names, part_names = _one_type(np.asarray(old.names), np.asarray(part.names))
        code = _find(old_names, part_names)[part.keys]
        cluster = np.empty(old.m + 1, dtype=np.intp)
        cluster[old.keys], cluster[-1] = np.arange(old.m), -1
        position = cluster[code]
        new = np.flatnonzero(position < 0)
        keys, names = _merge_names(old.keys, old_names, part.keys[new], part_names)
    position[new] = old.m + np.arange(len(new))
    ptr = np.append(old.ptr, old.ptr[-1] + np.cumsum(part.sizes[new]))
    if len(new) < part.m:
        known = position < old.m
        more = np.zeros(len(ptr), dtype=np.int64)
        more[position[known] + 1] = part.sizes[known]
        ptr += np.cumsum(more)
    return Joined(Clusters(keys, names, ptr, None), position, old.m)


def _named(*some: Clusters) -> tuple[Clusters, ...]:
    """Keys as positions among names, whatever they were."""

    def named(clusters: Clusters) -> Clusters:
        if clusters.names is not None:
            return clusters
        names, codes = np.unique(clusters.keys, return_inverse=True)
        return replace(clusters, keys=codes, names=names)

    return tuple(named(clusters) for clusters in some)


def _ascending(values: Keys) -> bool:
    return bool(np.all(values[:-1] < values[1:]))


def _find(known: Keys, wanted: Keys) -> Indices:
    """Position of each wanted value among distinct known ones, -1 where it is not there."""
    if _ascending(known):
        at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return np.where(known[at] == wanted, at, -1).astype(np.intp)
    import pandas as pd

    return np.asarray(pd.Index(known).get_indexer(pd.Index(wanted)), dtype=np.intp)


def _one_type(old: Keys, new: Keys) -> tuple[Keys, Keys]:
    """Both as the type of the first, or as one that holds both without loss."""
    if old.dtype == new.dtype:
        return old, new
    for dtype in (old.dtype, np.result_type(old, new)):
        if _fits(old, dtype) and _fits(new, dtype):
            return old.astype(dtype), new.astype(dtype)
    raise DataError(
        f"the groups of the new rows are {new.dtype}, those of the fit {old.dtype}, and no type "
        "holds both: convert them"
    )


def _fits(values: Keys, dtype: np.dtype[Any]) -> bool:
    """Whether a type holds the values: without change of sign, and there and back again."""
    with np.errstate(invalid="ignore"):
        there = values.astype(dtype)
        return np.array_equal(there, values) and np.array_equal(there.astype(values.dtype), values)


def _merge_names(
    old_keys: Keys, old_names: Keys, new_keys: Keys, part_names: Keys
) -> tuple[Keys, Keys]:
    """Keys of old and new clusters, and the names of all: in order if both were, else as they come.

    Parameters
    ----------
    new_keys : ndarray of int
        Keys of the new clusters among ``part_names``.
    """
    used = np.sort(new_keys)
    new_names, rank = part_names[used], np.searchsorted(used, new_keys)
    if not (_ascending(old_names) and _ascending(new_names)):
        return np.append(old_keys, len(old_names) + rank), np.append(old_names, new_names)
    at = np.searchsorted(old_names, new_names)
    shift = np.cumsum(np.bincount(at, minlength=len(old_names) + 1))
    keys = np.append(old_keys + shift[old_keys], at[rank] + rank)
    return keys, np.insert(old_names, at, new_names)


class Touched:
    """Blocks that growing in place writes to, as they were before.

    Parameters
    ----------
    blocks : ndarray (n_blocks, n_fields, 8)
    joined : Joined
    """

    def __init__(self, blocks: Array, joined: Joined) -> None:
        last = joined.m_old // core.lanes
        self._which = np.unique(np.append(joined.position // core.lanes, last))
        self._which = self._which[self._which < len(blocks)]
        self._blocks, self._before = blocks, blocks[self._which].copy()

    def restore(self) -> None:
        """Write them back; what lies behind them becomes zero again."""
        self._blocks[self._which] = self._before
        behind = _with_room(self._blocks)
        behind[len(self._blocks) :] = 0.0


def grow(
    packed: CompressedClusters,
    design: Design,
    part: Clusters,
    joined: Joined,
    n_threads: int,
    touched: Touched | None = None,
) -> CompressedClusters:
    """Compressed clusters of a fit and of new rows together.

    Parameters
    ----------
    packed : CompressedClusters
        Of the fit; stays as it is, unless its blocks grow in place.
    design, part
        New rows and their clusters.
    touched : Touched, optional
        Grow in place: what is written to can be restored by it.

    Raises
    ------
    DataError
        If a number is not finite; names column and row.
    """
    for _ in range(3):
        total = _grow_once(packed, design, part, joined, n_threads, touched is not None)
        better = better_basis(total.gram, total.basis)
        if better is None:
            break
        if touched is not None:
            touched.restore()
            touched = None
        packed = move(packed, better)
    return total


def _with_room(blocks: Array) -> Array:
    """Blocks and the room behind them, which an earlier growth in place has left; it is zero."""
    base = blocks.base
    if not (isinstance(base, np.ndarray) and base.ndim == 1 and base.dtype == blocks.dtype):
        return blocks
    start = (blocks.ctypes.data - base.ctypes.data) // blocks.itemsize
    each = int(np.prod(blocks.shape[1:]))
    capacity = (base.size - start) // each
    return base[start : start + capacity * each].reshape(capacity, *blocks.shape[1:])


def _enlarged(blocks: Array, n_blocks: int, in_place: bool) -> Array:
    """Blocks followed by zeros, where they lie if they may be written to and there is room."""
    if in_place and blocks.flags.writeable:
        room = _with_room(blocks)
        if n_blocks <= len(room):
            return room[:n_blocks]
    spare = n_blocks // SPARE if in_place else 0
    larger = aligned_zeros((n_blocks + spare, *blocks.shape[1:]))[:n_blocks]
    larger[: len(blocks)] = blocks
    return larger


def move(packed: CompressedClusters, basis: Basis) -> CompressedClusters:
    """Take the working residual about other coefficients."""
    q, p1 = packed.q, packed.p1
    T = np.eye(p1)
    T[:-1, -1] = packed.basis.beta - basis.beta
    blocks = aligned_zeros(packed.blocks.shape)
    blocks[:] = packed.blocks
    QA = blocks[:, q * (q + 1) // 2 :].reshape(len(blocks), q, p1, core.lanes)
    QA[:, :, -1] += np.einsum("kajl,j->kal", QA[:, :, :-1], T[:-1, -1])
    return replace(
        packed, blocks=blocks, gram=T.T @ packed.gram @ T, perp=T.T @ packed.perp @ T, basis=basis
    )


def _grow_once(
    packed: CompressedClusters,
    design: Design,
    part: Clusters,
    joined: Joined,
    n_threads: int,
    in_place: bool,
) -> CompressedClusters:
    m_old, m = joined.m_old, joined.clusters.m
    n_blocks = -(-m // core.lanes)
    blocks = _enlarged(packed.blocks, n_blocks, in_place)
    total = replace(
        packed,
        blocks=blocks,
        m=m,
        n_obs=packed.n_obs + design.n_obs,
        gram=packed.gram.copy(),
        perp=packed.perp.copy(),
    )
    known = np.flatnonzero(joined.position < m_old)
    if m > m_old:
        # Empty clusters in front fill the lanes that the last block of the fit uses already.
        lead = m_old % core.lanes
        new = np.flatnonzero(joined.position >= m_old)
        ptr, order = (part.ptr, part.order) if len(known) == 0 else _rows_of(part, new, known)
        padded = Clusters(
            np.zeros(lead + len(new)), None, np.append(np.zeros(lead, dtype=np.int64), ptr), order
        )
        added = compress_once(design, padded, packed.basis, n_threads)
        blocks[m_old // core.lanes :] += added.blocks
        total = replace(
            total,
            gram=total.gram + added.gram,
            perp=total.perp + added.perp,
            log_weights=total.log_weights + added.log_weights,
            rank_Z=total.rank_Z + added.rank_Z,
            z_in_x=common(total.z_in_x, added.z_in_x),
        )
    if len(known):
        total = extend(total, design, *_rows_of(part, known), joined.position[known], n_threads)
    return total


def _rows_of(
    part: Clusters, first: Indices, rest: Indices | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Limits of some clusters, and their rows in this order; rows of the rest follow."""
    chosen = first if rest is None else np.concatenate([first, rest])
    sizes = part.sizes[chosen]
    ends = np.cumsum(sizes)
    at = np.arange(ends[-1]) + np.repeat(part.ptr[chosen] - (ends - sizes), sizes)
    order = at if part.order is None else part.order[at]
    return np.append(0, ends[: len(first)]).astype(np.int64), order.astype(np.int64)


def extend(
    total: CompressedClusters,
    design: Design,
    ptr: NDArray[np.int64],
    order: NDArray[np.int64],
    at: Indices,
    n_threads: int,
) -> CompressedClusters:
    """Stack new rows below what is kept of the clusters ``at``, and reduce them again, in place."""
    q, p1, k = total.q, total.p1, len(at)
    A, Z, weights = total.basis.working(design.batch(order).as_float())
    log_weights = 0.0
    if weights is not None:
        log_weights = float(np.log(weights).sum())
        root = np.sqrt(weights)[:, None]
        A, Z = A * root, Z * root
    gram = A.T @ A
    if not (np.isfinite(gram).all() and np.isfinite(Z).all()):
        check_finite(design)
        raise DataError("sums of squares overflow: a column is scaled extremely; rescale it")
    fields = total.blocks[at // core.lanes, :, at % core.lanes]
    R, QA = np.zeros((k, q, q)), fields[:, q * (q + 1) // 2 :].reshape(k, q, p1)
    R[:, *np.triu_indices(q)] = fields[:, : q * (q + 1) // 2]
    A, Z = np.vstack([QA.reshape(k * q, p1), A]), np.vstack([R.reshape(k * q, q), Z])
    cluster = np.concatenate([np.repeat(np.arange(k), q), np.repeat(np.arange(k), np.diff(ptr))])
    out = aligned_zeros((-(-k // core.lanes), *total.blocks.shape[1:]))
    _, perp, _, _, rank_Z, _, z_in_x = core.compress_rows(
        list(A[:, :-1].T),
        list(Z.T),
        A[:, -1],
        None,
        None,
        ptr + q * np.arange(k + 1),
        np.argsort(cluster, kind="stable"),
        np.zeros(p1 - 1),
        np.ones(p1 - 1),
        np.zeros(q),
        np.ones(q),
        None,
        None,
        0.0,
        1.0,
        np.zeros(p1 - 1),
        out,
        n_threads,
    )
    lanes = np.arange(k)
    total.blocks[at // core.lanes, :, at % core.lanes] = out[
        lanes // core.lanes, :, lanes % core.lanes
    ]
    rank_before = int(np.count_nonzero(np.diagonal(R, axis1=1, axis2=2) > 0))
    return replace(
        total,
        gram=total.gram + gram,
        perp=total.perp + perp,
        log_weights=total.log_weights + log_weights,
        rank_Z=total.rank_Z + rank_Z - rank_before,
        z_in_x=common(total.z_in_x, z_in_x),
    )
