"""Least squares of tall matrices by the R factors of blocks that fit into the cache.

Blocks this small are below the size from which OpenBLAS wakes threads up, which on a busy machine
can take a hundred times longer than the arithmetic.
"""

from __future__ import annotations

import numpy as np

from lmmfast.arrays import Array

#: Doubles in a block.
BLOCK = 8192


def triangle(A: Array) -> Array:
    """R of A = Q R for a tall A (n, k)."""
    k = A.shape[1]
    if k == 0:
        return np.empty((0, 0))
    size = BLOCK // k
    while size >= 2 * k and len(A) > size:
        whole = len(A) // size * size
        R = np.asarray(np.linalg.qr(A[:whole].reshape(-1, size, k), mode="r")).reshape(-1, k)
        A = np.concatenate([R, A[whole:]])
    return np.asarray(np.linalg.qr(A, mode="r"))


def least_squares(X: Array, y: Array, rcond: float) -> Array:
    """Coefficients (k,), the shortest ones where columns of X (n, k) are dependent.

    Parameters
    ----------
    rcond : float
        Singular values of X below this part of the largest are zero.
    """
    R = triangle(np.column_stack([X, y]))
    return np.asarray(np.linalg.lstsq(R[:, :-1], R[:, -1], rcond=rcond)[0])
