"""Rows of X and of the residual, whitened by V: L^-1 X and L^-1 (y - X beta) with V = L L'."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK
from lmmfast.engines.engine import WhiteningEngine
from lmmfast.errors import TooLargeError
from lmmfast.implied.implied import Group
from lmmfast.inference.fixed_rows import columns_of_X
from lmmfast.prediction.predict import whitened_columns

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: Rows of V that are factorised at a time, where V is formed.
MAX_BLOCK = 20_000


@dataclass(frozen=True)
class WhitenedRows:
    """Some rows, of whole blocks of V.

    Attributes
    ----------
    rows : ndarray of int (k,)
        Which of the rows used.
    X : ndarray (k, p)
        L^-1 X on the user's scale.
    r : ndarray (k,)
        L^-1 (y - X beta).
    """

    rows: NDArray[np.intp]
    X: Array
    r: Array


def whitened_rows(fit: LMMResult) -> Iterator[WhitenedRows]:
    """Whiten the rows used, those of a block of V together.

    Raises
    ------
    DataError
        A fit that holds no data.
    TooLargeError
        Several grouping factors whose largest block has more than `MAX_BLOCK` rows.
    """
    fit._check_data()
    if len(fit._grouping) > 1:
        return _of_blocks(fit)
    if fit._residual_model is not None:
        return _of_structure(fit)
    return _of_clusters(fit)


def with_residual(fit: LMMResult, rows: Any) -> tuple[Any, Array]:
    """Return a batch of rows, and its columns X and y - X beta (k, p + 1)."""
    batch = fit._need(fit._design, "robust variances").batch(rows).as_float()
    assert batch.y is not None
    X = columns_of_X(batch, fit._keep, len(batch.y))
    r = batch.y - X @ fit._estimates.beta
    if batch.offset is not None:
        r = r - batch.offset
    return batch, np.column_stack([X, r])


def _of_clusters(fit: LMMResult) -> Iterator[WhitenedRows]:
    """Of one grouping factor: a recursion over the rows of a group, all groups side by side."""
    clusters = fit._need(fit._clusters, "robust variances")
    ptr, first = clusters.ptr, 0
    while first < clusters.m:
        last = int(np.searchsorted(ptr, ptr[first] + CHUNK, side="right")) - 1
        last = max(last, first + 1)
        places = np.arange(ptr[first], ptr[last])
        rows = places if clusters.order is None else clusters.order[places]
        batch, A = with_residual(fit, rows)
        A = whitened_columns(fit, batch, ptr[first : last + 1] - ptr[first], A)
        yield WhitenedRows(rows, A[:, :-1], A[:, -1])
        first = last


def _of_structure(fit: LMMResult) -> Iterator[WhitenedRows]:
    """With a residual structure: the engine whitens one column of the working basis at a time."""
    engine, model = cast("WhiteningEngine", fit._engine), fit._residual_model
    assert model is not None
    basis, keep = fit._basis, fit._keep
    sigma = np.sqrt(fit._unit)
    one = np.eye(len(fit._c))
    working = np.empty((len(model.rows), len(keep)))
    for place, j in enumerate(keep):
        working[:, place] = engine.whitened(fit._Lambda, one[j])
    X = working @ np.linalg.inv(basis.x_map(keep)) / sigma  # working columns are X times the map
    r = basis.y_scale * engine.whitened(fit._Lambda, fit._c) / sigma
    yield WhitenedRows(model.rows, X, r)


def _of_blocks(fit: LMMResult) -> Iterator[WhitenedRows]:
    """Of several grouping factors: V of each set of rows that share no level with others."""
    order = fit._row_order()
    together, block = connected_rows(fit, order)
    ends = np.flatnonzero(np.diff(block)) + 1
    for places in np.split(together, ends):
        if len(places) > MAX_BLOCK:
            raise TooLargeError(
                f"robust variances with several grouping factors factorise V of all rows that hang "
                f"together, {len(places):,} here and {MAX_BLOCK:,} at most"
            )
        rows = order[places]
        A = with_residual(fit, rows)[1]
        L = np.linalg.cholesky(fit._implied(Group("block", None, places, None)))
        A = np.linalg.solve(L, A)
        yield WhitenedRows(rows, A[:, :-1], A[:, -1])


def connected_rows(
    fit: LMMResult, rows: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of rows in the order of blocks of V, and the block of each (n,).

    Rows that share a level of a factor are of one block, directly or by way of others.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    levels: Any = fit._need(fit._clusters, "robust variances")
    first = np.cumsum([0, *levels.counts])
    nodes = [codes[rows] + start for codes, start in zip(levels.codes, first[:-1], strict=True)]
    ends = np.tile(nodes[0], len(nodes) - 1), np.concatenate(nodes[1:])
    shape = (int(first[-1]), int(first[-1]))
    graph = coo_array((np.ones(len(ends[0])), ends), shape=shape)
    block = connected_components(graph, directed=False)[1][nodes[0]]
    together = np.argsort(block, kind="stable")
    return together, block[together]
