"""Several grouping factors: the level that each row belongs to, and which factors are nested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmmfast.data.keys import GroupKeys, Labels, renumber

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
    labels : tuple of ndarray (m_f,), or of Combination
        Label of each level, in the order in which they are reported.
    """

    names: tuple[str, ...]
    columns: tuple[NDArray[np.intp], ...]
    codes: tuple[Codes, ...]
    labels: tuple[Labels, ...]

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

    def outer(self, factor: int) -> list[int]:
        """Factors in which a factor is nested."""
        return [coarse for k, coarse in self.parents if k == factor]


def find_levels(
    factors: Sequence[str], keys: Sequence[GroupKeys], term_factors: Sequence[str]
) -> Levels:
    """Find the level of each row in each grouping factor.

    Parameters
    ----------
    factors : sequence of str (F,)
        Names of the grouping factors.
    keys : sequence of GroupKeys (F,)
        Their values in the rows.
    term_factors : sequence of str (q,)
        The grouping factor of each column of Z.
    """
    found = [_codes_and_labels(k) for k in keys]
    return Levels(
        names=tuple(factors),
        columns=tuple(
            np.flatnonzero([factor == name for factor in term_factors]) for name in factors
        ),
        codes=tuple(codes for codes, _ in found),
        labels=tuple(labels for _, labels in found),
    )


def _codes_and_labels(keys: GroupKeys) -> tuple[Codes, Labels]:
    if keys.labels is not None:
        return keys.values.astype(np.int64, copy=False), keys.labels
    return renumber(keys.values)
