"""Likelihood and coefficients of a small problem in 50 digits, from the doubles as they are."""

from __future__ import annotations

import mpmath
import numpy as np

DIGITS = 50


def exact_matrix(a) -> mpmath.matrix:
    return mpmath.matrix(np.asarray(a, dtype=float).tolist())


def exact_fit(y, X, Z, groups, D, sigma2, reml):
    """Log-likelihood and beta (p,) at given D (q, q) and sigma2, as mpmath numbers.

    ``D`` may be an mpmath matrix; everything else is the user's doubles, taken to be exact.
    """
    with mpmath.workdps(DIGITS):
        D = D if isinstance(D, mpmath.matrix) else exact_matrix(D)
        sigma2 = mpmath.mpf(sigma2)
        A, Z = exact_matrix(np.column_stack([X, y])), exact_matrix(Z)
        p = A.cols - 1
        size = [max(abs(A[r, j]) for r in range(A.rows)) for j in range(p)]
        for j in range(p):
            for r in range(A.rows):
                A[r, j] /= size[j]
        gram, logdet = mpmath.zeros(p + 1), mpmath.mpf(0)
        for g in np.unique(groups):
            rows = [int(k) for k in np.flatnonzero(groups == g)]
            A_i = mpmath.matrix([[A[r, j] for j in range(p + 1)] for r in rows])
            Z_i = mpmath.matrix([[Z[r, j] for j in range(Z.cols)] for r in rows])
            V = Z_i * (D / sigma2) * Z_i.T + mpmath.eye(len(rows))
            gram += A_i.T * V**-1 * A_i
            logdet += mpmath.log(mpmath.det(V)) + len(rows) * mpmath.log(sigma2)
        S, Xy = gram[:p, :p], gram[:p, p]
        beta = S**-1 * Xy
        rest = (gram[p, p] - (Xy.T * beta)[0]) / sigma2
        n = A.rows - (p if reml else 0)
        value = n * mpmath.log(2 * mpmath.pi) + logdet + rest
        if reml:
            value += mpmath.log(mpmath.det(S)) - p * mpmath.log(sigma2)
            value += 2 * sum(mpmath.log(s) for s in size)
        return -value / 2, [b / s for b, s in zip(beta, size, strict=True)]
