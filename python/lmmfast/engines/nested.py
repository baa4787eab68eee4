"""Nested engine: grouping factors that form a chain, eliminated from the innermost outwards.

See docs/nested.md for the algebra; the kernels are those of the C++ `engines/nested/nested.hpp`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.engines.engine import BaseEngine, Working
from lmmfast.engines.totals import Totals, unflatten
from lmmfast.errors import DataError
from lmmfast.grouping.levels import Codes, Levels
from lmmfast.grouping.unit_order import UnitOrder, order_units
from lmmfast.packing.compress import CHUNK_ROWS, aligned_zeros


@dataclass(frozen=True, eq=False)
class NestedUnits:
    """What the nested engine needs of the data, in the order of the tree of units.

    Attributes
    ----------
    columns : list of list of int
        Columns of Z of each factor, the outermost first.
    p1 : int
        Number of columns of A.
    order : UnitOrder
        The tree.
    first_block : ndarray (m + 1,)
        First block of each unit of the lowest outer level.
    blocks : ndarray (n_blocks, n_fields, 8)
        R and Q'A of eight innermost units side by side, as in `CompressedClusters`.
    centre : list of ndarray (m_l, q_l, P_l)
        By outer level, the coefficients by which columns are taken about Z inside each unit.
    perp : ndarray (m, P (P + 1) / 2)
        Products of what lies beyond the span of the innermost Z.
    log_weights : float
        Sum of log w.
    """

    columns: list[list[int]]
    p1: int
    order: UnitOrder
    first_block: Codes
    blocks: Array
    centre: list[Array]
    perp: Array
    log_weights: float

    @property
    def q(self) -> int:
        """Number of columns of Z."""
        return sum(map(len, self.columns))

    def tree(
        self, blocks: Array | None = None, counts: Array | None = None, first: Codes | None = None
    ) -> Any:
        """The units as the kernels take them, or others in their place with the same totals."""
        return core.NestedTree(
            self.columns,
            self.p1,
            self.order.first,
            self.first_block if first is None else first,
            self.centre,
            self.perp,
            self.blocks if blocks is None else blocks,
            counts,
        )


class NestedEngine(BaseEngine):
    """Factors in a chain, independent residuals: cost linear in the units of all levels.

    Parameters
    ----------
    units : NestedUnits
    levels : Levels
    n_threads : int
    share : bool
        Whether innermost units of one design may be put together within the unit around them.
    """

    name = "nested"
    n_designs = None

    def __init__(
        self, units: NestedUnits, levels: Levels, n_threads: int, share: bool = True
    ) -> None:
        self.units, self.levels, self.n_threads = units, levels, n_threads
        self._share = share

    @property
    def log_weights(self) -> float:
        """Sum of log w."""
        return self.units.log_weights

    @cached_property
    def gram(self) -> Array:
        """Sum of A'W A, (p + 1, p + 1)."""
        return self.totals(np.zeros((self.units.q, self.units.q))).gram

    @cached_property
    def _tree(self) -> Any:
        return self.units.tree()

    @cached_property
    def _evaluated(self) -> Any:
        """What sweeps go over: the units, or less with the same totals."""
        shared = self._tree.share(self.n_threads) if self._share else None
        return self._tree if shared is None else self.units.tree(*shared)

    def totals(self, Lambda: Array, with_kr: bool = False) -> Totals:
        """Totals at Ddot = Lambda Lambda', Lambda (q, q) block-diagonal by factor."""
        flat = self._evaluated.evaluate(np.ascontiguousarray(Lambda), with_kr, self.n_threads)
        return unflatten(flat, self.units.q, self.units.p1, with_kr)

    def random_effects(self, Lambda: Array, root: Array, c: Array) -> list[Array]:
        """Predictions root u of each factor, (m_f, q_f), for c = (-beta, 1)."""
        roots = np.ascontiguousarray(Lambda), np.ascontiguousarray(root)
        found = self._tree.effects(*roots, np.ascontiguousarray(c), self.n_threads)
        return self._by_factor(found)

    def random_effects_cov(self, Lambda: Array, root: Array) -> list[Array]:
        """Var(root u | y) / sigma2 of each level of each factor, (m_f, q_f, q_f)."""
        roots = np.ascontiguousarray(Lambda), np.ascontiguousarray(root)
        return self._by_factor(self._tree.effects_covariance(*roots, self.n_threads))

    def _by_factor(self, found: list[Array]) -> list[Array]:
        """From units in the order of the tree to levels in their own, factor by factor."""
        return self.units.order.by_factor(self.levels, found)


def build_nested(levels: Levels, working: Working, n_threads: int) -> NestedEngine:
    """Pack the rows of nested factors.

    Parameters
    ----------
    levels : Levels
        Two factors or more that form a chain.
    working : callable
        Rows -> A (k, p + 1), Z (k, q) and weights (k,) or None, in the working basis.
    n_threads : int

    Returns
    -------
    NestedEngine

    Raises
    ------
    DataError
        If sums of squares are not finite or a weight is not positive.
    """
    order = order_units(levels, n_threads)
    units = _pack(levels, order, working, n_threads)
    engine = NestedEngine(units, levels, n_threads)
    if not np.isfinite(engine.gram).all():
        raise DataError("sums of squares overflow: a column is scaled extremely; rescale it")
    return engine


def _pack(levels: Levels, order: UnitOrder, working: Working, n_threads: int) -> NestedUnits:
    units: NestedUnits | None = None
    log_weights = 0.0
    for begin, end in _lots(order):
        A, Z, weights = working(order.rows(begin, end))
        if weights is not None:
            if not weights.min() > 0:
                raise DataError("weights must be positive")
            log_weights += float(np.log(weights).sum())
        if units is None:
            units = _room(levels, order, A.shape[1])
            tree = units.tree()
        tree.pack(A, Z, weights, order.ptr, begin, end - begin, n_threads)
    assert units is not None
    return NestedUnits(
        units.columns,
        units.p1,
        order,
        units.first_block,
        units.blocks,
        units.centre,
        units.perp,
        log_weights,
    )


def _room(levels: Levels, order: UnitOrder, p1: int) -> NestedUnits:
    """Arrays for the packed units, zero."""
    columns = [[int(c) for c in levels.columns[f]] for f in order.chain]
    sizes = [len(own) for own in columns]
    lanes, inside = core.lanes, np.diff(order.first[-1])
    first_block = np.concatenate([[0], np.cumsum(-(-inside // lanes))]).astype(np.int64)
    q, P = sizes[-1], sum(sizes[:-1]) + p1
    blocks = aligned_zeros((int(first_block[-1]), q * (q + 1) // 2 + q * P, lanes))
    centre = [
        np.zeros((len(order.first[k]) - 1, sizes[k], sum(sizes[:k]) + p1))
        for k in range(len(sizes) - 1)
    ]
    perp = np.zeros((len(inside), P * (P + 1) // 2))
    return NestedUnits(columns, p1, order, first_block, blocks, centre, perp, 0.0)


def _lots(order: UnitOrder) -> Iterator[tuple[int, int]]:
    """Innermost units begin … end - 1 of some rows each.

    A lot ends with a unit of the lowest outer level or, where one is too long, with a block in it.
    """
    first, ptr, lanes = order.first[-1], order.ptr, core.lanes
    begin, m = 0, len(ptr) - 1
    while begin < m:
        last = int(np.searchsorted(ptr, ptr[begin] + CHUNK_ROWS, side="right")) - 1
        around = int(np.searchsorted(first, last, side="right")) - 1
        end = int(first[around])
        if end <= begin:
            blocks = max(1, (last - begin) // lanes)
            end = min(begin + blocks * lanes, int(first[around + 1]))
        yield begin, end
        begin = end
