"""Several grouping factors: the level that each row belongs to, and which factors are nested."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Levels:
    """The grouping factors of a model with several.

    Attributes
    ----------
    names : tuple of str (F,)
    columns : tuple of ndarray of int (F,)
        Columns of Z whose effects each factor's levels have; together 0 … q - 1.
    codes : tuple of ndarray (n,)
        Level 0 … m_f - 1 of each row in each factor.
    labels : tuple of ndarray (m_f,)
        Label of each level, in the order in which they are reported.
    """

    names: tuple[str, ...]
    columns: tuple[NDArray[np.intp], ...]
    codes: tuple[Codes, ...]
    labels: tuple[NDArray[Any], ...]

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.codes[0])

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Number of levels of each factor."""
        return tuple(len(labels) for labels in self.labels)

    @cached_property
    def parents(self) -> dict[tuple[int, int], Codes]:
        """For each pair (k, l) where k is nested in l: the level of l (m_k,) of each level of k."""
        found = {}
        for k in range(len(self.names)):
            for coarse in range(len(self.names)):
                if k != coarse and self.counts[k] >= self.counts[coarse]:
                    parent = np.empty(self.counts[k], dtype=np.int64)
                    parent[self.codes[k]] = self.codes[coarse]
                    if np.array_equal(parent[self.codes[k]], self.codes[coarse]):
                        found[k, coarse] = parent
        return found

    @cached_property
    def chain(self) -> tuple[int, ...] | None:
        """Factors from the outermost to the innermost, if each is nested in the one before."""
        order = sorted(range(len(self.names)), key=lambda k: (self.counts[k], k))
        pairs = zip(order[1:], order[:-1], strict=True)
        return tuple(order) if all(pair in self.parents for pair in pairs) else None
