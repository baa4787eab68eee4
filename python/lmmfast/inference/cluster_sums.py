"""What robust variances need of each cluster: X'V^-1 X and X'V^-1 (y - X beta)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.errors import DataError, UnsupportedModelError
from lmmfast.inference.whitened_rows import whitened_rows

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


@dataclass(frozen=True)
class ClusterSums:
    """Sums over the rows of each of m clusters, in coordinates in which their total is I.

    With G G' = M = (X'V^-1 X)^-1, of a cluster i:

    Attributes
    ----------
    root : ndarray (p, p)
        G.
    information : ndarray (m, p, p)
        G'X_i'V_i^-1 X_i G: its trace is the leverage of the cluster.
    score : ndarray (m, p)
        G'X_i'V_i^-1 (y_i - X_i beta).
    n_obs : int
    """

    root: Array
    information: Array
    score: Array
    n_obs: int


def cluster_sums(fit: LMMResult, cluster: Any = None) -> ClusterSums:
    """Sum whitened rows by cluster.

    Parameters
    ----------
    cluster : array (n,), optional
        Labels of clusters that contain whole groups, for each row used or each row of the data.
        Default: the outermost grouping factor.

    Raises
    ------
    DataError
        A fit that holds no data, labels of another number, missing labels, groups that are in
        several clusters.
    UnsupportedModelError
        Crossed grouping factors and no ``cluster``.
    """
    saved: ClusterSums | None = fit.__dict__.get("_own_cluster_sums")
    if cluster is None and saved is not None:  # with packed clusters, without rows
        return saved
    codes = cluster_codes(fit, cluster)
    m, p = int(codes.max()) + 1, len(fit.x_names)
    root = np.asarray(np.linalg.cholesky(fit._estimates.cov_beta), dtype=np.float64)
    information, score = np.zeros((m, p, p)), np.zeros((m, p))
    for part in whitened_rows(fit):
        own = codes[part.rows]
        X = part.X @ root
        together = np.argsort(own, kind="stable")
        own, X, r = own[together], X[together], part.r[together]
        starts = np.flatnonzero(np.diff(own, prepend=-1))
        score[own[starts]] += np.add.reduceat(X * r[:, None], starts, axis=0)
        for j in range(p):
            sums = np.add.reduceat(X[:, j:] * X[:, j, None], starts, axis=0)
            information[own[starts], j, j:] += sums
    lower = np.tril_indices(p, -1)
    information[:, lower[0], lower[1]] = information[:, lower[1], lower[0]]
    return ClusterSums(root, information, score, len(codes))


def cluster_codes(fit: LMMResult, cluster: Any = None) -> NDArray[np.intp]:
    """The cluster of each row used, 0 … m - 1."""
    if cluster is not None:
        codes = _codes_of_labels(fit, cluster)
        _refuse_split_groups(fit, codes)
        return codes
    clusters: Any = fit._need(fit._clusters, "robust variances")
    if len(fit._grouping) == 1:
        codes = np.empty(fit.nobs, dtype=np.intp)
        rows = slice(None) if clusters.order is None else clusters.order
        codes[rows] = np.repeat(np.arange(clusters.m), clusters.sizes)
        return codes
    outermost = int(np.argmin(clusters.counts))
    others = [k for k in range(len(clusters.names)) if k != outermost]
    if not all((k, outermost) in clusters.parents for k in others):
        factors = ", ".join(map(repr, clusters.names))
        raise UnsupportedModelError(
            f"robust variances need clusters that are independent, and the grouping factors "
            f"{factors} are crossed: give cluster=, a column whose levels contain whole levels of "
            "all of them"
        )
    return np.asarray(clusters.codes[outermost], dtype=np.intp)


def _codes_of_labels(fit: LMMResult, cluster: Any) -> NDArray[np.intp]:
    """Numbers of a user's clusters, of the rows used."""
    import pandas as pd

    design = fit._need(fit._design, "robust variances")
    if isinstance(cluster, str):
        raise DataError(
            f"cluster={cluster!r}: give the column itself, as in cluster=data[{cluster!r}]; a fit "
            "holds the columns of its model alone"
        )
    codes = pd.factorize(np.asarray(cluster).reshape(-1))[0]
    kept = design.kept
    if kept is not None and len(codes) != fit.nobs:
        codes = codes[kept] if len(codes) > int(np.max(kept)) else codes[:0]
    if len(codes) != fit.nobs:
        raise DataError(
            f"cluster= has {np.size(cluster)} values: one for each of the {fit.nobs} rows used, or "
            "for each row of the data, is needed"
        )
    if (codes < 0).any():
        raise DataError(f"cluster= is missing in {int((codes < 0).sum())} of the rows used")
    return np.unique(codes, return_inverse=True)[1].reshape(-1).astype(np.intp)


def _refuse_split_groups(fit: LMMResult, codes: NDArray[np.intp]) -> None:
    """Raise a DataError where the rows of a group are in several clusters: V would cross them."""
    clusters: Any = fit._need(fit._clusters, "robust variances")
    if len(fit._grouping) == 1:
        factors = [(fit.group_name, cluster_codes(fit), clusters.labels)]
    else:
        factors = list(zip(clusters.names, clusters.codes, clusters.labels, strict=True))
    for name, levels, labels in factors:
        cluster_of = np.empty(int(levels.max()) + 1, dtype=np.intp)
        cluster_of[levels] = codes
        split = np.flatnonzero(cluster_of[levels] != codes)
        if len(split):
            raise DataError(
                f"group {labels[levels[split[0]]]} of {name!r} has rows in several clusters of "
                "cluster=, which must contain whole groups"
            )
