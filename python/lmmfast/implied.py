"""The covariance matrix V that a fit implies: of its clusters, and of rows that could have been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lmmfast.clusters import Clusters
from lmmfast.columns import Column
from lmmfast.covariance import Array
from lmmfast.errors import DataError
from lmmfast.residual.dense import correlation_matrix
from lmmfast.residual.layout import Stratum

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.joint import JointCovariance
    from lmmfast.result import LMMResult

#: Clusters of more rows have matrices of more than 200 MB.
MOST_ROWS = 5000
Index = NDArray[np.intp]


def implied_covariance(fit: LMMResult, group: Any, at: Any) -> pd.DataFrame:
    """V of a cluster, or of rows at given times; see `LMMResult.implied_covariance`."""
    import pandas as pd

    cluster = find_cluster(fit, group)
    if at is None:
        n = int(clusters_of(fit).sizes[cluster])
        if n > MOST_ROWS:
            raise DataError(
                f"the cluster has {n} rows, and its covariance matrix {n}^2 entries: give at=, the "
                "times or visits of the rows that you want"
            )
        rows, labels = cluster_rows(fit, cluster)
    else:
        from lmmfast.implied_at import NewRows

        rows, labels = NewRows(fit, cluster).at(at)
    return pd.DataFrame(V(fit, rows), index=labels, columns=labels)


def clusters_of(fit: LMMResult) -> Clusters:
    """Clusters of a fit that holds its data."""
    return fit._need(fit._clusters, "implied covariances")


def find_cluster(fit: LMMResult, group: Any) -> int:
    """Position of a cluster by its label; None: the first of the largest.

    Raises
    ------
    DataError
        No cluster has the label.
    """
    labels, sizes = fit.group_labels, clusters_of(fit)
    reported = np.arange(sizes.m) if sizes.by_label is None else sizes.by_label
    if group is None:
        return int(reported[np.argmax(sizes.sizes[reported])])
    found = np.flatnonzero(labels == group)
    if not len(found):
        raise DataError(f"the fit has no group {group!r} of {fit.group_name!r}")
    return int(reported[found[0]])


@dataclass(frozen=True, eq=False)
class Rows:
    """What V depends on, for some rows.

    Attributes
    ----------
    Z : ndarray (n, q)
        On the user's scale.
    inverse_root_weights : ndarray (n,)
    G : ndarray (n, n_variance) or None
    positions : ndarray of int (n,) or None
    coords : ndarray (n, d) or None
    stratum : Stratum or None
        None without a residual structure.
    """

    Z: Array
    inverse_root_weights: Array
    G: Array | None = None
    positions: NDArray[Any] | None = None
    coords: Array | None = None
    stratum: Stratum | None = None


def V(fit: LMMResult, rows: Rows) -> Array:
    """Z D Z' + R of some rows of one cluster, (n, n)."""
    out = rows.Z @ fit._estimates.D @ rows.Z.T
    s = residual_sd(fit, rows)
    if rows.stratum is None:
        return out + np.diag(s**2)
    covariance = cast("JointCovariance", fit._covariance)
    kappa = covariance.kappa(fit._phi)
    C = correlation_matrix(
        covariance.residual,
        rows.stratum,
        kappa[rows.stratum.psi],
        rows.positions,
        rows.coords,
        len(s),
    )
    nu = 0.0 if rows.stratum.nu is None else kappa[rows.stratum.nu]
    P = (1 - nu) * C
    P[np.diag_indices(len(s))] += nu
    return out + s[:, None] * P * s


def residual_sd(fit: LMMResult, rows: Rows) -> Array:
    """Standard deviations of the residuals, (n,)."""
    s = np.sqrt(fit._unit) * rows.inverse_root_weights
    if rows.G is None:
        return s
    kappa = cast("JointCovariance", fit._covariance).kappa(fit._phi)
    return s * np.exp(rows.G @ kappa[: rows.G.shape[1]])


# -- rows of the fit -------------------------------------------------------------------------------


def row_order(fit: LMMResult) -> Index:
    """Rows used (n,), those of a cluster together and in the order of their times."""
    if fit._residual_model is not None:
        return fit._residual_model.rows
    order = clusters_of(fit).order
    return np.arange(fit.nobs) if order is None else order


def cluster_rows(fit: LMMResult, cluster: int, most: int | None = None) -> tuple[Rows, Any]:
    """Rows of a cluster and their labels.

    Parameters
    ----------
    most : int, optional
        Of a longer cluster this many rows, evenly chosen.
    """
    ptr = clusters_of(fit).ptr
    places = np.arange(ptr[cluster], ptr[cluster + 1])
    if most is not None and len(places) > most:
        places = places[np.linspace(0, len(places) - 1, most).round().astype(int)]
    return rows_at(fit, places, cluster), row_labels(fit, places)


def rows_at(fit: LMMResult, places: Index, cluster: int | None = None) -> Rows:
    """What V depends on, for rows at some places of `row_order`."""
    design = fit._need(fit._design, "implied covariances")
    batch = design.batch(row_order(fit)[places]).as_float()
    Z = np.column_stack(batch.Z) if batch.Z else np.empty((len(places), 0))
    weights = np.ones(len(places)) if batch.weights is None else batch.weights
    roots = np.sqrt(fit._basis.weight_scale / weights)
    model = fit._residual_model
    if model is None:
        return Rows(Z, roots)

    def take(values: NDArray[Any] | None) -> Any:
        return None if values is None else values[places]

    strata = model.parameters.strata
    stratum = None if cluster is None else strata[model.stratum[cluster]]
    return Rows(Z, roots, take(model.G), take(model.positions), take(model.coords), stratum)


def row_labels(fit: LMMResult, places: Index) -> pd.Index[Any]:
    """Visits or times of rows; where none are known their numbers within the cluster."""
    import pandas as pd

    rows = row_order(fit)[places]
    design = fit._need(fit._design, "implied covariances")
    names = main_columns(fit)
    if names:
        columns = [design.residual_columns[name] for name in names]
        return labelled([values_of(column)[rows] for column in columns], names)
    slopes = [k for k, name in enumerate(fit.z_names) if name != "Intercept"]
    if len(slopes) == 1:
        values = design.batch(rows).as_float().Z[slopes[0]]
        return pd.Index(values, name=fit.z_names[slopes[0]])
    return pd.RangeIndex(1, len(places) + 1, name="row")


def main_columns(fit: LMMResult) -> tuple[str, ...]:
    """Visit, time or coordinates of the residual correlation; none without one."""
    correlation = fit.residual.correlation
    return () if correlation is None else correlation.columns


def values_of(column: Column) -> NDArray[Any]:
    """Numbers, or levels, of a column (n,)."""
    return column.values if column.levels is None else np.asarray(column.levels)[column.values]


def labelled(values: Sequence[NDArray[Any]], names: Sequence[str]) -> pd.Index[Any]:
    """Index of rows: one level a column."""
    import pandas as pd

    if len(names) == 1:
        return pd.Index(values[0], name=names[0])
    return pd.MultiIndex.from_arrays(list(values), names=list(names))
