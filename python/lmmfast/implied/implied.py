"""The covariance matrix V that a fit implies: of its clusters, and of rows that could have been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.columns import Column
from lmmfast.errors import DataError
from lmmfast.grouping.clusters import Clusters
from lmmfast.residual.dense import correlation_matrix
from lmmfast.residual.layout import Stratum

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.covariance.joint import JointCovariance
    from lmmfast.result import LMMResult

#: Clusters of more rows have matrices of more than 200 MB.
MOST_ROWS = 5000
Index = NDArray[np.intp]


def implied_covariance(fit: LMMResult, group: Any, at: Any) -> pd.DataFrame:
    """V of a cluster, or of rows at given times; see `LMMResult.implied_covariance`."""
    import pandas as pd

    chosen = fit._find_group(group, at is not None)
    if at is not None:
        from lmmfast.implied.at import NewRows

        rows, labels = NewRows(fit, chosen).at(at)
        return pd.DataFrame(V(fit, rows), index=labels, columns=labels)
    n = len(chosen.places)
    if n > MOST_ROWS:
        raise DataError(
            f"{chosen} has {n} rows, and its covariance matrix {n}^2 entries: give at=, the times "
            "or visits of the rows that you want, or a smaller group"
        )
    labels = fit._row_labels(chosen.places)
    return pd.DataFrame(fit._implied(chosen), index=labels, columns=labels)


@dataclass(frozen=True, eq=False)
class Group:
    """A level of a grouping factor.

    Attributes
    ----------
    name : str
        Of the factor.
    label : object
    places : ndarray of int (k,)
        Of its rows in `row_order`.
    cluster : int or None
        Cluster of the residual structure; None: rows of several, or there is no structure.
    """

    name: str
    label: Any
    places: Index
    cluster: int | None

    def __str__(self) -> str:
        """Return its name and label."""
        return f"{self.name} {self.label}"

    def part(self, most: int) -> Group:
        """Return the same with that many rows, evenly chosen."""
        if len(self.places) <= most:
            return self
        chosen = np.linspace(0, len(self.places) - 1, most).round().astype(int)
        return replace(self, places=self.places[chosen])


def clusters_of(fit: LMMResult) -> Clusters:
    """Clusters of a fit with one grouping factor that holds its data."""
    return fit._need(fit._clusters, "implied covariances")


def find_group(fit: LMMResult, group: Any) -> Group:
    """Find a cluster by its label; None: the first of the largest.

    Raises
    ------
    DataError
        No cluster has the label.
    """
    labels, clusters = fit.group_labels, clusters_of(fit)
    reported = np.arange(clusters.m) if clusters.by_label is None else clusters.by_label
    if group is None:
        cluster = int(reported[np.argmax(clusters.sizes[reported])])
    else:
        found = np.flatnonzero(labels == group)
        if not len(found):
            raise DataError(f"the fit has no group {group!r} of {fit.group_name!r}")
        cluster = int(reported[found[0]])
    places = np.arange(clusters.ptr[cluster], clusters.ptr[cluster + 1])
    return Group(fit.group_name, clusters.labels[cluster], places, cluster)


@dataclass(frozen=True, eq=False)
class GroupedRows:
    """Groups within which pairs of rows are looked at, of the rows in `row_order`.

    Attributes
    ----------
    unit : ndarray of int (n,)
        Group of each row.
    block : ndarray of int (n,)
        Set of groups that each row belongs to.
    independent : bool
        Whether the rows of two blocks are independent.
    """

    unit: Index
    block: Index
    independent: bool = True


def grouped_rows(fit: LMMResult) -> GroupedRows:
    """Clusters, each of which is independent of the others."""
    clusters = clusters_of(fit)
    unit: Index = np.repeat(np.arange(clusters.m), clusters.sizes)
    return GroupedRows(unit, unit)


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
    return rows.Z @ fit._estimates.D @ rows.Z.T + R(fit, rows)


def R(fit: LMMResult, rows: Rows) -> Array:
    """Covariance matrix of the residuals of some rows of one cluster, (n, n)."""
    s = residual_sd(fit, rows)
    if rows.stratum is None:
        return np.diag(s**2)
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
    return np.asarray(s[:, None] * P * s)


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


def rows_at(fit: LMMResult, places: Index, cluster: int | None = None) -> Rows:
    """What V depends on, for rows at some places of `row_order`."""
    design = fit._need(fit._design, "implied covariances")
    batch = design.batch(fit._row_order()[places]).as_float()
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

    rows = fit._row_order()[places]
    design = fit._need(fit._design, "implied covariances")
    names = main_columns(fit)
    if names:
        columns = [design.residual_columns[name] for name in names]
        return labelled([values_of(column)[rows] for column in columns], names)
    slopes = [name for name in dict.fromkeys(fit.z_names) if name != "Intercept"]
    if len(slopes) == 1:
        values = design.batch(rows).as_float().Z[fit.z_names.index(slopes[0])]
        return pd.Index(values, name=slopes[0])
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
