"""Very many small matrices at a time: one entry of all of them is one array."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array

#: Larger matrices are left to LAPACK, one at a time.
MAX_SIDE = 8


def inverse_and_determinant(matrices: Array) -> tuple[Array, Array]:
    """Inverses (b, k, k) and determinants (b,) of symmetric positive definite matrices.

    By Gauss and Jordan's sweeps, which need no pivots for such matrices.
    """
    b, k, _ = matrices.shape
    if k > MAX_SIDE:
        inverse = np.asarray(np.linalg.inv(matrices), dtype=np.float64)
        return inverse, np.asarray(np.linalg.det(matrices), dtype=np.float64)
    A = np.ascontiguousarray(matrices.transpose(1, 2, 0))
    determinant = np.ones(b)
    for j in range(k):
        pivot = A[j, j].copy()
        determinant *= pivot
        row = A[j] / pivot
        column = A[:, j].copy()
        A -= column[:, None] * row[None]
        A[j] = row
        A[:, j] = -column / pivot
        A[j, j] = 1.0 / pivot
    return np.ascontiguousarray(A.transpose(2, 0, 1)), determinant


def group_products(left: Array, right: Array, starts: NDArray[np.int64]) -> Array:
    """Sums over the rows of each group of left_a right_b, (m, k, l).

    Parameters
    ----------
    left : ndarray (k, n)
    right : ndarray (l, n)
        The same array for a symmetric result.
    starts : ndarray of int (m,)
        Where each group begins.
    """
    k, other = len(left), len(right)
    out = np.zeros((k, other, len(starts)))
    symmetric = left is right
    for a in range(k):
        for c in range(a if symmetric else 0, other):
            np.add.reduceat(left[a] * right[c], starts, out=out[a, c])
            if symmetric and a != c:
                out[c, a] = out[a, c]
    return np.ascontiguousarray(out.transpose(2, 0, 1))
