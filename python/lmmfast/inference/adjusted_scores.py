"""Scores of clusters adjusted for the leverage of their own rows: a p x p block of each.

Bell and McCaffrey (2002), Survey Methodology 28, 169-181.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmmfast.arrays import Array
from lmmfast.inference.cluster_sums import ClusterSums

#: Leverages this near to one: the cluster alone carries a coefficient.
ALONE = 1e-8
#: Below this leverage powers are series, of terms down to rounding.
LOW_LEVERAGE = 0.05
ROUNDING = 1e-17


@dataclass(frozen=True)
class AdjustedScores:
    """What a robust covariance matrix needs of each of m clusters.

    In coordinates in which X'V^-1 X is the identity, with G G' = (X'V^-1 X)^-1. The score of a
    cluster is F_i'r_i for whitened residuals r_i and some F_i (n_i, p).

    Attributes
    ----------
    root : ndarray (p, p)
        G.
    score : ndarray (m, p)
        F_i'r_i.
    with_rows : ndarray (m, p, p)
        X_i'F_i of whitened rows X_i.
    squared : ndarray (m, p, p)
        F_i'F_i.
    n_obs : int
    n_alone : int
        Clusters that carry a coefficient alone, of which that direction is left out.
    """

    root: Array
    score: Array
    with_rows: Array
    squared: Array
    n_obs: int
    n_alone: int


def principal_scores(sums: ClusterSums, power: float) -> AdjustedScores:
    """Adjust by T_i = (I - G_i)^power with G_i = X_i'X_i: -1/2 for CR2, -1 for CR3, 0 for none."""
    if power == 0.0:
        G = sums.information
        return AdjustedScores(sums.root, sums.score, G, G, sums.n_obs, 0)
    T, n_alone = adjustments(sums.information, power)
    score = np.einsum("iab,ib->ia", T, sums.score)
    with_rows = T @ sums.information
    return AdjustedScores(sums.root, score, with_rows, T @ with_rows, sums.n_obs, n_alone)


def adjustments(information: Array, power: float) -> tuple[Array, int]:
    """(I - G_i)^power of each cluster (m, p, p), and how many clusters carry a coefficient alone.

    By the binomial series where the leverage, the trace of G_i, is low, else by eigenvalues. Along
    directions that a cluster carries alone the power is zero: a generalised inverse.
    """
    p = information.shape[1]
    out = np.broadcast_to(np.eye(p), information.shape).copy()
    if power == 0.0:
        return out, 0
    leverage = np.trace(information, axis1=1, axis2=2)
    low = leverage < LOW_LEVERAGE
    if low.any():
        out[low] = _series(
            information if low.all() else information[low], power, leverage[low].max()
        )
    if low.all():
        return out, 0
    values, vectors = np.linalg.eigh(information[~low])
    values = np.clip(values, 0.0, 1.0)
    alone = values > 1 - ALONE
    with np.errstate(divide="ignore"):
        factors = np.where(alone, 0.0, (1 - values) ** power)
    out[~low] = (vectors * factors[:, None, :]) @ vectors.swapaxes(1, 2)
    return out, int(alone.any(axis=1).sum())


def _series(information: Array, power: float, largest: float) -> Array:
    """(I - G)^power for traces of G up to ``largest``, to rounding, by Horner's scheme."""
    coefficients = [1.0]
    while largest ** len(coefficients) > ROUNDING:
        k = len(coefficients)
        coefficients.append(coefficients[-1] * (k - 1 - power) / k)
    one = np.eye(information.shape[1])
    out = np.broadcast_to(coefficients[-1] * one, information.shape)
    for coefficient in coefficients[-2::-1]:
        out = information @ out
        out += coefficient * one
    return out
