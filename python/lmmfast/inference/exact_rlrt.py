"""The exact distribution of the restricted likelihood ratio of one variance.

Crainiceanu and Ruppert (2004), Journal of the Royal Statistical Society B 66, 165-185, theorem 1:
with mu_s the eigenvalues of Z'(I - P_X)Z, a_s = 1 + lambda mu_s, w_s standard normal for each and
u chi-squared with the other degrees of freedom, the statistic is the supremum over lambda >= 0 of
(n - p) log((sum w_s^2 + u) / (sum w_s^2 / a_s + u)) - sum log a_s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK
from lmmfast.errors import TooLargeError
from lmmfast.inference.fixed_rows import columns_of_X

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: Groups of which eigenvalues are found: for more, mixtures are right.
MOST_GROUPS = 3_000
#: Eigenvalues that differ by less than this part of the largest are the same.
SAME = 1e-9
#: Ratios of variances, times the mean eigenvalue, over which the supremum is taken.
RATIOS = np.geomspace(1e-4, 1e3, 160)
#: Numbers of an array of draws.
MOST_NUMBERS = 1 << 22


def why_not_exact(small: LMMResult, big: LMMResult) -> str:
    """Why the exact distribution is not known; empty: it is."""
    if big.method != "REML":
        return "the exact distribution is of REML"
    one = len(big.terms) == 1 and len(big.terms[0].names) == 1 and not small.terms
    if not (one and big.residual.is_independent and small.residual.is_independent):
        return "the exact distribution is of a single variance beside independent residuals"
    return ""


def exact_p(big: LMMResult, statistic: float, n_sim: int, seed: Any) -> tuple[float, float]:
    """Return the p-value of a statistic, and its Monte Carlo standard error.

    Parameters
    ----------
    big : LMMResult
        With the variance.
    """
    mu = eigenvalues(big)
    draws = null_draws(mu, big.nobs - len(big.x_names), n_sim, np.random.default_rng(seed))
    p = (1 + int((draws >= statistic).sum())) / (1 + n_sim)
    return p, float(np.sqrt(p * (1 - p) / n_sim))


def eigenvalues(fit: LMMResult) -> Array:
    """Eigenvalues (m,) of Z'W^1/2 (I - P) W^1/2 Z, P the projection on W^1/2 X.

    Raises
    ------
    TooLargeError
        More than `MOST_GROUPS` groups.
    DataError
        A fit that holds no rows.
    """
    clusters: Any = fit._need(fit._clusters, "the exact distribution")
    design: Any = fit._need(fit._design, "the exact distribution")
    fit._check_data(response=False)
    m, p = clusters.m, len(fit._keep)
    if m > MOST_GROUPS:
        raise TooLargeError(
            f"the exact distribution takes eigenvalues of {m:,} groups ({MOST_GROUPS:,} at most): "
            "test='mixture' is as good for so many"
        )
    ZZ, ZX, XX = np.zeros(m), np.zeros((m, p)), np.zeros((p, p))
    for start in range(0, design.n_obs, CHUNK):
        rows = slice(start, min(start + CHUNK, design.n_obs))
        batch = design.batch(rows).as_float()
        root = np.ones(rows.stop - start) if batch.weights is None else np.sqrt(batch.weights)
        codes = clusters.spread(np.arange(m), rows)
        X = columns_of_X(batch, fit._keep, len(root)) * root[:, None]
        z = batch.Z[0] * root
        ZZ += np.bincount(codes, z * z, m)
        XX += X.T @ X
        for j in range(p):
            ZX[:, j] += np.bincount(codes, z * X[:, j], m)
    scale = np.sqrt(np.diag(XX))
    half = np.linalg.solve(np.linalg.cholesky(XX / np.outer(scale, scale)), (ZX / scale).T)
    values = np.linalg.eigvalsh(np.diag(ZZ) - half.T @ half)
    return np.where(values > SAME * values.max(initial=0.0), values, 0.0)


def null_draws(mu: Array, df: int, n_sim: int, rng: np.random.Generator) -> Array:
    """Draw the statistic where the variance is zero, (n_sim,).

    Parameters
    ----------
    mu : ndarray (m,)
    df : int
        Rows less fixed effects.
    """
    mu = np.sort(mu[mu > 0])
    if not len(mu):
        return np.zeros(n_sim)
    first = np.flatnonzero(np.diff(mu, prepend=-np.inf) > SAME * mu[-1])
    counts = np.diff(np.append(first, len(mu)))
    distinct = np.add.reduceat(mu, first) / counts
    ratio = RATIOS / mu.mean()
    shrunk = 1.0 / (1.0 + np.outer(ratio, distinct))
    penalty = -np.log(shrunk) @ counts
    out, step = np.empty(n_sim), max(1, MOST_NUMBERS // max(len(ratio), len(distinct)))
    for start in range(0, n_sim, step):
        n = min(step, n_sim - start)
        w2 = rng.chisquare(counts, (n, len(counts)))
        rest = rng.chisquare(df - len(mu), n) if df > len(mu) else np.zeros(n)
        ratios = (w2.sum(axis=1) + rest)[:, None] / (w2 @ shrunk.T + rest[:, None])
        out[start : start + n] = np.maximum((df * np.log(ratios) - penalty).max(axis=1), 0.0)
    return out
