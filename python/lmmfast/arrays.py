"""The type of an array of numbers, and the order of the entries of a symmetric matrix."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@cache
def vech_pairs(q: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column of each entry of vech: lower triangle of a (q, q) matrix by columns."""
    column, row = np.triu_indices(q)
    return row, column
