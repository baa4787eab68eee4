"""The tree of units of nested factors: which lies in which, and rows in its order."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.grouping.levels import Codes, Levels


@dataclass(frozen=True, eq=False)
class UnitOrder:
    """Units of all levels such that those inside a unit are neighbours.

    Attributes
    ----------
    chain : tuple of int (L,)
        Factors, the outermost first.
    units : list of ndarray (m_l,)
        Code of each unit in its factor, by level.
    first : list of ndarray (m_l + 1,)
        By level but the innermost, the first unit of the next level inside each unit.
    ptr : ndarray (m + 1,)
        First row of each innermost unit.
    order : ndarray (n,) or None
        Rows in this order; None: as they stand.
    """

    chain: tuple[int, ...]
    units: list[Codes]
    first: list[Codes]
    ptr: Codes
    order: Codes | None

    def rows(self, begin: int, end: int) -> slice | NDArray[np.int64]:
        """Rows of innermost units begin … end - 1."""
        rows = slice(int(self.ptr[begin]), int(self.ptr[end]))
        return rows if self.order is None else self.order[rows]

    def by_factor(self, levels: Levels, values: list[Array]) -> list[Array]:
        """Values of units by level -> values by code, in the order of the factors."""
        out: list[Any] = [None] * len(self.chain)
        for factor, units, of_level in zip(self.chain, self.units, values, strict=True):
            out[factor] = np.empty((levels.counts[factor], *of_level.shape[1:]))
            out[factor][units] = of_level
        return out


def order_units(levels: Levels, n_threads: int) -> UnitOrder:
    """Arrange units and rows; rows whose units already lie together stay as they are."""
    chain = levels.chain
    if chain is None or len(chain) < 2:
        raise ValueError("the factors do not form a chain")
    return _as_they_stand(levels, chain) or _sorted(levels, chain, n_threads)


def _runs(codes: Codes) -> Codes:
    """Where runs of one code begin, and the end."""
    changes = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    return np.concatenate([[0], changes, [len(codes)]]).astype(np.int64)


def _as_they_stand(levels: Levels, chain: tuple[int, ...]) -> UnitOrder | None:
    ptr = _runs(levels.codes[chain[-1]])
    if len(ptr) - 1 != levels.counts[chain[-1]]:
        return None
    first: list[Codes] = []
    units = [levels.codes[chain[-1]][ptr[:-1]]]
    starts = ptr[:-1]
    for factor in chain[-2::-1]:
        codes = levels.codes[factor][starts]
        runs = _runs(codes)
        if len(runs) - 1 != levels.counts[factor]:
            return None
        first.insert(0, runs)
        units.insert(0, codes[runs[:-1]])
        starts = starts[runs[:-1]]
    return UnitOrder(chain, units, first, ptr, None)


def _sorted(levels: Levels, chain: tuple[int, ...], n_threads: int) -> UnitOrder:
    units = [np.arange(levels.counts[chain[0]])]
    first: list[Codes] = []
    place = units[0]
    for outer, inner in pairwise(chain):
        around = place[levels.parents[inner, outer]]
        units.append(np.argsort(around, kind="stable"))
        counts = np.bincount(around, minlength=levels.counts[outer])
        first.append(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        place = np.empty(levels.counts[inner], dtype=np.int64)
        place[units[-1]] = np.arange(len(place))
    keys = place[levels.codes[chain[-1]]]
    ptr, order = core.group_rows(keys, 0, levels.counts[chain[-1]], n_threads)
    return UnitOrder(chain, units, first, ptr, order)
