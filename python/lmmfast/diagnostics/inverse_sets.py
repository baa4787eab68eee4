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
class InverseSets:
    """The rows of c levels, k each, in coordinates in which X'V^-1 X is the identity.

    Attributes
    ----------
    rows : ndarray of int (c, k)
        Which of the rows used.
    X, inverse_X : ndarray (c, k, p)
        X and V^-1 X.
    inverse_r : ndarray (c, k)
        V^-1 (y - X beta).
    inverse : ndarray (c, k, k)
        V^-1 between the rows of a level.
    """

    rows: NDArray[np.intp]
    X: Array
    inverse_X: Array
    inverse_r: Array
    inverse: Array


def inverse_sets(fit: LMMResult, codes: NDArray[np.int64]) -> Iterator[InverseSets]:
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


def _sets(codes: NDArray[np.int64]) -> Iterator[NDArray[np.intp]]:
    """Places (c, k) of the codes that occur k times, for each k."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(codes)))
    for size in np.unique(sizes):
        yield order[starts[sizes == size, None] + np.arange(size)]


def _of_all_effects(fit: LMMResult, codes: NDArray[np.int64]) -> Iterator[InverseSets]:
    own = AllEffects(fit)
    solved = own.solved()
    for rows in _sets(codes):
        inverse = np.stack([own.between(level) for level in rows])
        yield InverseSets(rows, own.X[rows], solved[rows, :-1], solved[rows, -1], inverse)


def _of_blocks(fit: LMMResult, codes: NDArray[np.int64]) -> Iterator[InverseSets]:
    root = coefficient_root(fit)
    for part in blocks(fit):
        inverse = V_inverse(part.V)
        X = part.X @ root
        solved, by_r = inverse @ X, (inverse @ part.r[:, :, None])[:, :, 0]
        for places in _sets(codes[part.rows].reshape(-1)):  # a level lies in one block
            block, own = np.divmod(places, part.rows.shape[1])
            here = inverse[block[:, :, None], own[:, :, None], own[:, None, :]]
            at = block, own
            yield InverseSets(part.rows[at], X[at], solved[at], by_r[at], here)
