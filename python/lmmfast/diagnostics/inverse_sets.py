"""V^-1 between the rows of each level of a grouping factor, of models with several factors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.diagnostics.blocks import V_inverse, blocks
from lmmfast.diagnostics.inverse_rows import MAX_EFFECTS, AllEffects, coefficient_root, n_effects

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


@dataclass(frozen=True, eq=False)
class InverseSet:
    """The k rows of a level, in coordinates in which X'V^-1 X is the identity.

    Attributes
    ----------
    rows : ndarray of int (k,)
        Which of the rows used.
    X, inverse_X : ndarray (k, p)
        X and V^-1 X.
    inverse_r : ndarray (k,)
        V^-1 (y - X beta).
    inverse : ndarray (k, k)
        V^-1 between these rows.
    """

    rows: NDArray[np.intp]
    X: Array
    inverse_X: Array
    inverse_r: Array
    inverse: Array


def inverse_sets(fit: LMMResult, codes: NDArray[np.int64]) -> Iterator[InverseSet]:
    """Go over the levels of a factor whose rows lie in one block each.

    Parameters
    ----------
    codes : ndarray (n,)
        Level of each row used.

    Raises
    ------
    DataError, TooLargeError
        As `lmmfast.diagnostics.inverse_rows.inverse_rows`.
    """
    fit._check_data()
    if fit._residual_model is None and n_effects(fit) <= MAX_EFFECTS:
        return _of_all_effects(fit, codes)
    return _of_blocks(fit, codes)


def _sets(codes: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Places of each code that occurs."""
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _of_all_effects(fit: LMMResult, codes: NDArray[np.int64]) -> Iterator[InverseSet]:
    all_effects = AllEffects(fit)
    solved = all_effects.solved()
    for rows in _sets(codes):
        yield InverseSet(
            rows,
            all_effects.X[rows],
            solved[rows, :-1],
            solved[rows, -1],
            all_effects.between(rows),
        )


def _of_blocks(fit: LMMResult, codes: NDArray[np.int64]) -> Iterator[InverseSet]:
    root = coefficient_root(fit)
    for block in blocks(fit):
        inverses = V_inverse(block.V)
        for rows, X, r, inverse in zip(block.rows, block.X @ root, block.r, inverses, strict=True):
            solved, by_r = inverse @ X, inverse @ r
            for own in _sets(codes[rows]):
                here = inverse[np.ix_(own, own)]
                yield InverseSet(rows[own], X[own], solved[own], by_r[own], here)
