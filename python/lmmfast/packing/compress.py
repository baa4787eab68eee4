"""Rows -> compressed clusters, in the working basis (the C++ kernel's one pass over the data)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.data.batch import Batch
from lmmfast.design.design import Design, check_finite
from lmmfast.errors import DataError
from lmmfast.grouping.clusters import Clusters
from lmmfast.packing.basis import Basis

CHUNK_ROWS = 131_072


@dataclass(frozen=True)
class CompressedClusters:
    """What the moments engine needs of the data.

    Attributes
    ----------
    blocks : ndarray (n_blocks, n_fields, 8)
        R_i and Q_i'A_i of eight clusters side by side; see cpp/include/lmmfast/rows/clusters.hpp.
    gram : ndarray (p + 1, p + 1)
        Sum of A_i'A_i.
    perp : ndarray (p + 1, p + 1)
        Sum of A_i'(I - Q_i Q_i')A_i.
    log_weights : float
        Sum of the logarithms of the (scaled) weights.
    rank_Z : int
        Sum of the ranks of the Z_i.
    z_in_x : list of int
        The column of X that each column of Z is too, in every row; empty if not all are.
    """

    blocks: Array
    q: int
    p1: int
    m: int
    n_obs: int
    gram: Array
    perp: Array
    log_weights: float
    rank_Z: int
    basis: Basis
    z_in_x: list[int]


class BatchSums(NamedTuple):
    """What the kernel returns besides the blocks it fills."""

    gram: Array
    perp: Array
    log_weights: float
    min_weight: float
    rank_Z: int
    as_expected: bool
    z_in_x: list[int]


class SampleMisledError(Exception):
    """A column that is constant in the sample behind the basis is not so in all rows."""


def compress(
    design: Design, clusters: Clusters, basis: Basis, n_threads: int
) -> CompressedClusters:
    """Compress all rows of a design.

    A second pass is made only where the sample behind the working basis misled so far that the
    working residual is small against what was taken to be it.

    Raises
    ------
    DataError
        If a number is not finite or a weight is not positive; names column and row.
    SampleMisledError
        If the basis took a column for constant that is not.
    """
    for _ in range(3):
        packed = compress_once(design, clusters, basis, n_threads)
        better = better_basis(packed.gram, packed.basis)
        if better is None:
            break
        basis = better
    return packed


def better_basis(gram: Array, basis: Basis) -> Basis | None:
    """Move the working residual where X explains nearly all of its sum of squares.

    Parameters
    ----------
    gram : ndarray (p + 1, p + 1)
        Sum of A_i'A_i.
    """
    used = np.setdiff1d(np.arange(len(gram) - 1), basis.excluded)
    scale = np.sqrt(np.diag(gram))
    scale[scale == 0] = 1.0
    correlation = gram / np.outer(scale, scale)
    slope = np.linalg.lstsq(correlation[np.ix_(used, used)], correlation[used, -1], rcond=1e-13)[0]
    if not slope @ correlation[used, -1] > 1 - 1e-4:
        return None
    beta = basis.beta.copy()
    beta[used] += slope * scale[-1] / scale[used]
    return basis.moved(beta)


def compress_once(
    design: Design, clusters: Clusters, basis: Basis, n_threads: int
) -> CompressedClusters:
    """Compress rows in the basis given, whatever it is worth for them."""
    q, p = len(basis.z_scale), len(basis.x_scale)
    n_fields = q * (q + 1) // 2 + q * (p + 1)
    n_blocks = -(-clusters.m // core.lanes)
    blocks = aligned_zeros((n_blocks, n_fields, core.lanes))
    gram, perp = np.zeros((p + 1, p + 1)), np.zeros((p + 1, p + 1))
    log_weights, rank_Z = 0.0, 0
    z_in_x: list[int] = []
    for first, batch, ptr, order in _batches(design, clusters):
        count = len(ptr) - 1
        block = first // core.lanes
        out = blocks[block : block - (-count // core.lanes)]
        part = compress_batch(batch, ptr, order, basis, out, n_threads)
        if not np.isfinite(part.gram).all() or not part.min_weight > 0:
            check_finite(design)
            raise DataError("sums of squares overflow: a column is scaled extremely; rescale it")
        if not part.as_expected:
            raise SampleMisledError
        gram += part.gram
        perp += part.perp
        log_weights += part.log_weights
        rank_Z += part.rank_Z
        z_in_x = part.z_in_x if first == 0 else common(z_in_x, part.z_in_x)
    return CompressedClusters(
        blocks=blocks,
        q=q,
        p1=p + 1,
        m=clusters.m,
        n_obs=design.n_obs,
        gram=gram,
        perp=perp,
        log_weights=log_weights,
        rank_Z=rank_Z,
        basis=basis,
        z_in_x=z_in_x,
    )


def common(a: list[int], b: list[int]) -> list[int]:
    """`z_in_x` of two sets of rows together."""
    return a if a == b else []


def compress_batch(
    batch: Batch,
    ptr: NDArray[np.int64],
    order: NDArray[np.int64] | None,
    basis: Basis,
    out: Array,
    n_threads: int,
) -> BatchSums:
    """Compress the rows of a batch into the blocks ``out``, which are zero before."""
    weights = batch.weights
    if weights is not None and basis.weight_scale != 1.0:
        weights = weights / basis.weight_scale
    assert batch.y is not None
    sums = core.compress_rows(
        batch.X,
        batch.Z,
        batch.y,
        weights,
        batch.offset,
        ptr,
        order,
        basis.x_shift,
        1.0 / basis.x_scale,
        basis.z_shift,
        1.0 / basis.z_scale,
        basis.x_mix,
        basis.z_mix,
        basis.y_shift,
        1.0 / basis.y_scale,
        basis.beta,
        out,
        n_threads,
        X_expected=basis.x_expected,
        Z_expected=basis.z_expected,
    )
    return BatchSums(*sums)


def _batches(
    design: Design, clusters: Clusters
) -> Iterator[tuple[int, Batch, NDArray[np.int64], NDArray[np.int64] | None]]:
    """Batches of whole clusters: first cluster (a multiple of 8), rows, their ptr and order."""
    if design.random_access:
        yield 0, design.batch(slice(None)), clusters.ptr, clusters.order
        return
    first = 0
    while first < clusters.m:
        end = clusters.ptr[first] + CHUNK_ROWS
        last = int(np.searchsorted(clusters.ptr, end, side="right")) - 1
        last = max(first + core.lanes, last - last % core.lanes)
        last = clusters.m if last > clusters.m - core.lanes else last
        begin, end = int(clusters.ptr[first]), int(clusters.ptr[last])
        rows = slice(begin, end) if clusters.order is None else clusters.order[begin:end]
        yield first, design.batch(rows), clusters.ptr[first : last + 1] - begin, None
        first = last


def aligned_zeros(shape: tuple[int, ...]) -> Array:
    """Zeros that begin at a multiple of 64 bytes, as the kernels ask for."""
    size = int(np.prod(shape))
    buffer = np.zeros(size + 8)
    start = (-buffer.ctypes.data // 8) % 8
    return buffer[start : start + size].reshape(shape)
