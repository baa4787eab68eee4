"""V and R of blocks of rows that are independent of all others, blocks of one size together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array, vech_pairs
from lmmfast.diagnostics.residual_blocks import residual_covariances
from lmmfast.errors import TooLargeError
from lmmfast.inference.fixed_rows import columns_of_X
from lmmfast.inference.whitened_rows import connected_rows

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: Rows of a block whose V is formed.
MAX_BLOCK = 20_000
#: Entries of V that are formed at a time, of several blocks.
MAX_ENTRIES = 1 << 21


@dataclass(frozen=True, eq=False)
class Blocks:
    """b blocks of k rows each.

    Attributes
    ----------
    places : ndarray of int (b, k)
        Of the rows in `LMMResult._row_order`.
    rows : ndarray of int (b, k)
        Which of the rows used.
    X : ndarray (b, k, p)
        Columns that the fit kept.
    r : ndarray (b, k)
        y - X beta.
    Z : ndarray (b, k, q)
        In the working basis.
    V, R : ndarray (b, k, k)
        Covariance matrices of the response, and of what the effects of chosen factors leave of it.
    """

    places: NDArray[np.intp]
    rows: NDArray[np.intp]
    X: Array
    r: Array
    Z: Array
    V: Array
    R: Array


def blocks(fit: LMMResult, factors: Any = None) -> Iterator[Blocks]:
    """Go over the blocks of a fit.

    Parameters
    ----------
    factors : list of int, optional
        Grouping factors whose effects are no part of R; default: all.

    Raises
    ------
    DataError
        A fit that holds no data.
    TooLargeError
        A block of more than `MAX_BLOCK` rows.
    """
    fit._check_data()
    order = fit._row_order()
    places, ptr = block_places(fit, order)
    sizes = np.diff(ptr)
    largest = int(sizes.max())
    if largest > MAX_BLOCK:
        raise TooLargeError(
            f"this needs V of all rows that hang together by their groups, {largest:,} here and "
            f"{MAX_BLOCK:,} at most"
        )
    for size in np.unique(sizes):
        of_size = np.flatnonzero(sizes == size)
        most = max(1, MAX_ENTRIES // int(size) ** 2)
        for start in range(0, len(of_size), most):
            chosen = of_size[start : start + most]
            here = places[ptr[chosen, None] + np.arange(size)]
            yield _formed(fit, order, here, factors)


def block_places(
    fit: LMMResult, order: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Places in the order of the blocks, and where each block begins and the last ends."""
    if len(fit._grouping) > 1:
        places, block = connected_rows(fit, order)
        starts = np.flatnonzero(np.diff(block, prepend=-1))
        return places, np.append(starts, len(places)).astype(np.int64)
    model = fit._residual_model
    clusters: Any = fit._need(fit._clusters, "diagnostics")
    return np.arange(len(order)), clusters.ptr if model is None else model.ptr


def _formed(
    fit: LMMResult, order: NDArray[np.intp], here: NDArray[np.intp], factors: Any
) -> Blocks:
    """Make V and R of blocks of one size, of rows at places (b, k)."""
    rows = order[here]
    flat = here.reshape(-1)
    batch = fit._need(fit._design, "diagnostics").batch(rows.reshape(-1)).as_float()
    assert batch.y is not None
    X = columns_of_X(batch, fit._keep, len(flat))
    r = batch.y - X @ fit._estimates.beta
    if batch.offset is not None:
        r = r - batch.offset
    left = residual_covariances(fit, here)
    V = left.copy()
    Z = (np.column_stack(batch.Z) if batch.Z else np.empty((len(flat), 0))) @ fit._basis.z_map()
    Z = Z.reshape(*here.shape, -1)
    ZL = np.sqrt(fit._unit) * (Z @ fit._Lambda)
    for k, (columns, same) in enumerate(shared_levels(fit, rows)):
        part = ZL[:, :, columns] @ ZL[:, :, columns].swapaxes(1, 2) * same
        V += part
        if factors is not None and k not in factors:
            left += part
    return Blocks(here, rows, X.reshape(*here.shape, -1), r.reshape(here.shape), Z, V, left)


def shared_levels(
    fit: LMMResult, rows: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
    """Columns of Z of each factor, and which rows (b, k) share a level of it, (b, k, k)."""
    for columns, codes in fit._factor_columns(rows.reshape(-1)):
        own = np.zeros(rows.shape) if codes is None else codes.reshape(rows.shape)
        yield columns, own[:, :, None] == own[:, None, :]


def random_derivatives(fit: LMMResult, block: Blocks) -> Array:
    """Derivatives of V by vech(D) in the working basis and units of sigma2, (b, K, k, k).

    Zero for pairs of effects of different factors.
    """
    row, column = vech_pairs(block.Z.shape[2])
    b, k = block.rows.shape
    out = np.zeros((b, len(row), k, k))
    for columns, same in shared_levels(fit, block.rows):
        for pair in np.flatnonzero(np.isin(row, columns) & np.isin(column, columns)):
            one, other = block.Z[:, :, row[pair]], block.Z[:, :, column[pair]]
            product = fit._unit * one[:, :, None] * other[:, None, :] * same
            out[:, pair] = product
            if row[pair] != column[pair]:
                out[:, pair] += product.swapaxes(1, 2)
    return out


def V_inverse(V: Array) -> Array:
    """Inverses (b, k, k) of symmetric positive definite matrices, symmetric."""
    root = np.linalg.inv(np.linalg.cholesky(V))
    return np.asarray(root.swapaxes(1, 2) @ root)
