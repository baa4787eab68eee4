"""CR2 with the root that clubSandwich takes, which needs the rows and V of each cluster.

With V_i = L L', H_i = X_i M X_i' and B_i = L'(V_i - H_i) L a cluster's residuals are adjusted by
L B_i^-1/2 L' (Pustejovsky and Tipton (2018), Journal of Business & Economic Statistics 36, 672-683,
eq. 9 with the root that is symmetric in these coordinates), where the principal root would be
L (I - L^-1 H_i L^-T)^-1/2 L^-1. The two agree in balanced designs with X in the span of Z.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.errors import TooLargeError
from lmmfast.implied.implied import Group, V, rows_at
from lmmfast.inference.adjusted_scores import AdjustedScores
from lmmfast.inference.cluster_sums import cluster_codes
from lmmfast.inference.whitened_rows import with_residual

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: Rows of a cluster whose V is decomposed.
MAX_CLUSTER = 5_000
#: Eigenvalues of B_i below this part of the largest are zero: the cluster carries them alone.
ALONE = 1e-12


def clubsandwich_scores(fit: LMMResult, cluster: Any = None) -> AdjustedScores:
    """Adjust the scores of clusters as clubSandwich's CR2 does.

    Parameters
    ----------
    cluster : array (n,), optional
        See `lmmfast.inference.cluster_sums.cluster_sums`.

    Raises
    ------
    TooLargeError
        A cluster of more than `MAX_CLUSTER` rows.
    """
    fit._check_data()
    codes = cluster_codes(fit, cluster)
    order = fit._row_order()
    places = np.argsort(codes[order], kind="stable")
    ends = np.flatnonzero(np.diff(codes[order][places])) + 1
    root = np.asarray(np.linalg.cholesky(fit._estimates.cov_beta), dtype=np.float64)
    scores, with_rows, squared, n_alone = [], [], [], 0
    for own in np.split(places, ends):
        if len(own) > MAX_CLUSTER:
            raise TooLargeError(
                f"vcov='CR2-clubsandwich' decomposes V of each cluster, and one has {len(own):,} "
                f"rows ({MAX_CLUSTER:,} at most): use vcov='CR2'"
            )
        X, r, L = _whitened(fit, order[own], own)
        X = X @ root
        F, alone = _adjusted_rows(X, L)
        scores.append(F.T @ r)
        with_rows.append(X.T @ F)
        squared.append(F.T @ F)
        n_alone += alone
    return AdjustedScores(
        root, np.array(scores), np.array(with_rows), np.array(squared), len(codes), n_alone
    )


def _adjusted_rows(X: Array, L: Array) -> tuple[Array, bool]:
    """F = L'L B^-1/2 X for whitened rows X, and whether B is singular."""
    S = L.T @ L
    values, vectors = np.linalg.eigh(S @ (np.eye(len(X)) - X @ X.T) @ S)
    known = values > ALONE * values[-1]
    inverse_root = (vectors[:, known] / np.sqrt(values[known])) @ vectors[:, known].T
    return S @ inverse_root @ X, not known.all()


def _whitened(
    fit: LMMResult, rows: NDArray[np.intp], places: NDArray[np.intp]
) -> tuple[Array, Array, Array]:
    """Rows of X and residuals of a cluster whitened by V = L L', and L."""
    A = with_residual(fit, rows)[1]
    L = np.asarray(np.linalg.cholesky(_covariance(fit, places)), dtype=np.float64)
    white = np.asarray(np.linalg.solve(L, A), dtype=np.float64)
    return white[:, :-1], white[:, -1], L


def _covariance(fit: LMMResult, places: NDArray[np.intp]) -> Array:
    """V of the rows at some places of the row order: whole groups."""
    if len(fit._grouping) > 1:
        return fit._implied(Group("cluster", None, places, None))
    clusters: Any = fit._need(fit._clusters, "robust variances")
    group = np.searchsorted(clusters.ptr, places, side="right") - 1
    out = np.zeros((len(places), len(places)))
    for one in np.unique(group):
        own = np.flatnonzero(group == one)
        out[np.ix_(own, own)] = V(fit, rows_at(fit, places[own], int(one)))
    return out
