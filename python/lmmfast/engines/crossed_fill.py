"""What eliminating the levels of two crossed factors will fill, said before it is tried.

To order many levels takes the longer the more hopeless it is. Two factors whose levels meet at
random, as users and items do, leave a dense block of nearly all levels of the smaller one; where
levels come in communities, such as schools or places, little is filled. The second singular value
of the normalised table of levels that meet tells these apart (Chung 1997, chapter 6), and how many
levels a level reaches in two steps tells how much is filled.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.grouping.levels import Levels

#: Bytes of an entry of the Cholesky factor.
ENTRY = 24
#: Below this second eigenvalue of a walk of two steps there are no communities to speak of.
WITHOUT_COMMUNITIES = 0.85
#: Of the levels that are thought to be filled, so many are counted on.
SURE = 0.8
#: Levels whose neighbours are counted; levels with fewer others are left out, so many times.
SAMPLE, FEWEST, ROUNDS = 64, 2, 30


def least_entries(levels: Levels, most: float) -> float:
    """About how many entries the Cholesky factor will have at least; 0: nothing can be said.

    Parameters
    ----------
    most : float
        What there may be: factors of too few levels to have more are not looked at.
    """
    enough = np.sqrt(2 * most)
    large = [f for f, m in enumerate(levels.counts) if m > enough]
    pairs = combinations(sorted(large, key=lambda f: -levels.counts[f]), 2)
    return max((0.5 * _filled(levels, a, b) ** 2 for a, b in pairs), default=0.0)


def _filled(levels: Levels, a: int, b: int) -> float:
    """Levels of factor b, of two, that the levels of both leave as a dense block; 0: unknown."""
    N = _core(_table(levels, a, b))
    if min(N.shape) <= SAMPLE or _second_eigenvalue(N) > WITHOUT_COMMUNITIES:
        return 0.0
    reached = _reached(N)
    independent = 2 * np.log(reached) / reached  # what can go before the rest is one block
    return SURE * N.shape[1] * max(0.0, 1.0 - float(independent))


def _table(levels: Levels, a: int, b: int) -> Any:
    """Which levels of two factors meet, a sparse table of ones."""
    from scipy.sparse import csr_matrix

    shape = levels.counts[a], levels.counts[b]
    N = csr_matrix((np.ones(levels.n), (levels.codes[a], levels.codes[b])), shape=shape)
    N.data[:] = 1.0
    return N


def _core(N: Any) -> Any:
    """The table without levels that meet one other only: they are eliminated without a trace."""
    for _ in range(ROUNDS):
        rows, columns = (counts >= FEWEST for counts in _degrees(N))
        if rows.all() and columns.all():
            break
        N = N[rows][:, columns]
    return N


def _degrees(N: Any) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.diff(N.indptr), np.bincount(N.indices, minlength=N.shape[1])


def _second_eigenvalue(N: Any) -> float:
    """The second eigenvalue of a random walk of two steps, roughly; 1 where it is not found."""
    from scipy.sparse import diags
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    rows, columns = (np.maximum(counts, 1).astype(float) for counts in _degrees(N))
    M = diags(rows**-0.5) @ N @ diags(columns**-0.5)
    transposed, first = M.T.tocsr(), np.sqrt(columns / columns.sum())

    def step(x: Array) -> Array:
        return np.asarray(transposed @ (M @ x) - first * (first @ x))

    walk = LinearOperator((len(columns),) * 2, matvec=step, dtype=np.float64)
    begin = np.random.default_rng(0).normal(size=len(columns))
    try:
        found = eigsh(walk, k=1, which="LA", tol=1e-2, ncv=8, maxiter=20, v0=begin)
    except ArpackError:
        return 1.0
    return float(found[0][0])


def _reached(N: Any) -> float:
    """Other columns that a column of the table reaches in two steps, the mean of some."""
    transposed = N.T.tocsr()
    some = np.linspace(0, N.shape[1] - 1, SAMPLE).astype(np.intp)
    return max(2.0, float(np.mean(np.diff((transposed[some] @ N).indptr))) - 1.0)
