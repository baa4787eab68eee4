"""A start of D for crossed factors from moments of residuals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array

# The working covariance: a variance of the effects of ten times sigma2 over what a level knows.
WORKING = 0.1
# The least relative variance of effects: that times what the data know of a level, on average.
LEAST = 0.1


def moment_start(
    system: Any,
    columns: tuple[NDArray[np.intp], ...],
    counts: tuple[int, ...],
    c: Array,
    rss: float,
    df: int,
) -> Array:
    """Ddot (q, q), positive definite.

    Parameters
    ----------
    system : CrossedSystem
    columns, counts : per factor
        Columns of Z, number of levels.
    c : ndarray (p + 1,)
        The OLS residuals are A c.
    rss : float
        Their weighted sum of squares.
    df : int
    """
    means = system.mean_G
    q = sum(len(own) for own in columns)
    kappa = np.zeros((q, q))
    for own, G in zip(columns, means, strict=True):
        kappa[np.ix_(own, own)] = WORKING * np.diag(np.diag(G)) + 1e-12 * np.eye(len(own))
    squares, noise, factors = system.moments(system.B @ c, kappa)
    pairs = [(a, b) for own in columns for a in own.tolist() for b in own.tolist() if a >= b]
    K = len(pairs)
    left, right = np.zeros((K + 1, K + 1)), np.zeros(K + 1)
    for k, (a, b) in enumerate(pairs):
        right[k], left[k, K] = squares[a, b], noise[a, b]
        for other, (i, j) in enumerate(pairs):
            row = factors[a * q + b]
            left[k, other] = row[i * q + j] + (row[j * q + i] if i != j else 0.0)
    right[K], left[K, K] = rss, df
    for own, G, m in zip(columns, means, counts, strict=True):
        for k, (a, b) in enumerate(pairs):
            if a in own:
                entry = G[own.tolist().index(a), own.tolist().index(b)]
                left[K, k] = m * entry * (1.0 if a == b else 2.0)
    size = np.abs(left).max(axis=1, keepdims=True)
    size[size == 0.0] = 1.0
    found = np.linalg.lstsq(left / size, right / size[:, 0])[0]
    sigma2 = max(float(found[K]), 1e-3 * rss / max(df, 1), np.finfo(float).tiny)
    D = np.zeros((q, q))
    for value, (a, b) in zip(found[:K], pairs, strict=True):
        D[a, b] = D[b, a] = value / sigma2
    for own, G in zip(columns, means, strict=True):
        D[np.ix_(own, own)] = _raised(D[np.ix_(own, own)], G)
    return D


def _raised(D: Array, G: Array) -> Array:
    """D with eigenvalues of at least LEAST in the metric of G^-1."""
    scale = np.linalg.cholesky(G + 1e-12 * (np.trace(G) or 1.0) * np.eye(len(G)))
    values, vectors = np.linalg.eigh(scale.T @ D @ scale)
    root = np.linalg.solve(scale.T, vectors)
    return np.asarray((root * np.maximum(values, LEAST)) @ root.T)
