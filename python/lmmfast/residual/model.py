"""A residual structure on the rows of given data: what the engines evaluate.

Rdot_i has entries s_j s_l P_jl with P = (1 - nu) C(psi) + nu I and
s_j = exp(sum_k G_jk kappa_k) / sqrt(w_j) (docs/residual.md, section 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.columns import Column
from lmmfast.data.frame import as_float, with_used_levels
from lmmfast.errors import DataError, NotIdentifiableError
from lmmfast.grouping.clusters import Clusters
from lmmfast.limits import check_levels_of_variances, check_span
from lmmfast.residual import registry
from lmmfast.residual.layout import ResidualParameters, Stratum, VariancePart
from lmmfast.residual.structure import Correlation, ResidualStructure, Variance

#: About so many distances of neighbours are enough for their median.
_STEPS = 100_000


@dataclass(frozen=True, eq=False)
class ResidualModel:
    """A residual structure with everything that it depends on.

    Rows are in the order of the clusters and, within them, of positions or times.

    Attributes
    ----------
    structure : ResidualStructure
        With names of columns.
    parameters : ResidualParameters
    rows : ndarray of int (n,)
        The order: positions among the rows used by the design.
    ptr : ndarray of int64 (m + 1,)
    G : ndarray (n, n_variance) or None
    positions : ndarray of int32 (n,) or None
        Of table structures.
    coords : ndarray (n, d) or None
        Of distance structures, in units of ``parameters.unit``.
    stratum : ndarray of int (m,)
        Of each cluster.
    """

    structure: ResidualStructure
    parameters: ResidualParameters
    rows: NDArray[np.intp]
    ptr: NDArray[np.int64]
    G: Array | None
    positions: NDArray[np.int32] | None
    coords: Array | None
    stratum: NDArray[np.intp]

    @property
    def m(self) -> int:
        """Number of clusters."""
        return len(self.ptr) - 1

    def part(self, clusters: NDArray[np.intp]) -> tuple[ResidualModel, NDArray[np.intp]]:
        """Return the model of some clusters alone, and their rows among the rows of this one."""
        sizes = np.diff(self.ptr)[clusters]
        ptr = np.append(0, np.cumsum(sizes)).astype(np.int64)
        rows = np.repeat(self.ptr[clusters] - ptr[:-1], sizes) + np.arange(ptr[-1])

        def take(values: Any) -> Any:
            return None if values is None else values[rows]

        part = replace(
            self,
            rows=self.rows[rows],
            ptr=ptr,
            G=take(self.G),
            positions=take(self.positions),
            coords=take(self.coords),
            stratum=self.stratum[clusters],
        )
        return part, rows

    def scales(self, kappa: Array, inverse_root_weights: Array | None) -> Array:
        """Standard deviations s (n,) relative to sigma."""
        n = len(self.rows)
        s = np.ones(n) if self.G is None else np.exp(self.G @ kappa[: self.parameters.n_variance])
        return s if inverse_root_weights is None else s * inverse_root_weights


def bind(
    structure: ResidualStructure, columns: dict[str, Column], clusters: Clusters
) -> ResidualModel:
    """Bind a structure to data.

    Parameters
    ----------
    structure : ResidualStructure
        With names of columns.
    columns : dict of Column
        For the rows used by the design.
    clusters : Clusters

    Raises
    ------
    DataError, NotIdentifiableError
        Duplicate visits or times in a cluster, positions that are not whole numbers, a ``by``
        column that changes within a cluster, covariates out of range, too few clusters.
    """
    n = int(clusters.ptr[-1])
    order = np.arange(n) if clusters.order is None else np.asarray(clusters.order, dtype=np.intp)
    return _Binder(structure, columns, clusters, order).bind()


class _Binder:
    def __init__(
        self,
        structure: ResidualStructure,
        columns: dict[str, Column],
        clusters: Clusters,
        order: NDArray[np.intp],
    ) -> None:
        self.structure, self.columns, self.clusters = structure, columns, clusters
        self.rows = order
        self.is_sorted = clusters.order is None  # rows are in the order of the data
        self.cluster = np.repeat(np.arange(clusters.m), clusters.sizes)  # of each row in order

    def bind(self) -> ResidualModel:
        correlation = self.structure.correlation
        positions = coords = None
        levels: tuple[str, ...] = ()
        unit, closest, T = 1.0, 1.0, int(self.clusters.sizes.max())
        if correlation is not None and correlation.kind in registry.TABLES:
            positions, levels, T = self._table_positions(correlation, T)
        elif correlation is not None:
            coords, unit, closest = self._coords(correlation)
        labels, stratum = self._strata(None if correlation is None else correlation.by)
        parts, G = self._variances()
        first = 0 if G is None else G.shape[1]
        strata = _place_strata(correlation, labels, T, first)
        parameters = ResidualParameters(correlation, tuple(parts), strata, levels, T, unit, closest)
        self._check_counts(correlation, parameters, positions)
        return ResidualModel(
            self.structure,
            parameters,
            self.rows,
            self.clusters.ptr,
            G,
            positions,
            coords,
            stratum,
        )

    # -- positions and coordinates ---------------------------------------------------------------

    def _numbers(self, name: str) -> Array:
        values = self.columns[name].values
        return as_float(values if self.is_sorted else values[self.rows])

    def _codes(self, name: str) -> tuple[NDArray[np.intp], list[str]]:
        """Level (n,) of each row in order, and what the levels are called."""
        column = with_used_levels(self.columns[name], None)
        if column.levels is not None:
            return column.values[self.rows].astype(np.intp), [str(x) for x in column.levels]
        values, codes = np.unique(column.values[self.rows], return_inverse=True)
        return codes, [f"{x:g}" if values.dtype.kind == "f" else str(x) for x in values]

    def _sort_within(self, keys: Sequence[NDArray[Any]]) -> None:
        """Sort the rows of each cluster by keys (n,), the first the most important."""
        ahead = np.zeros(len(self.rows) - 1, dtype=bool)
        same = self.cluster[1:] == self.cluster[:-1]
        for key in reversed(keys):
            ahead = (key[1:] < key[:-1]) | ((key[1:] == key[:-1]) & ahead)
        if (ahead & same).any():
            self.rows = self.rows[np.lexsort((*reversed(keys), self.cluster))]
            self.is_sorted = False

    def _table_positions(
        self, correlation: Correlation, longest: int
    ) -> tuple[NDArray[np.int32], tuple[str, ...], int]:
        if not correlation.columns:
            if longest < 2:
                raise NotIdentifiableError(
                    f"every cluster has one row: {self.structure} needs clusters of several"
                )
            starts = np.repeat(self.clusters.ptr[:-1], self.clusters.sizes)
            return (np.arange(len(self.rows)) - starts).astype(np.int32), (), longest
        (name,) = correlation.columns
        if correlation.role == "positions":
            places = self._whole_positions(name)[:, 0]
            span = int(places.max()) + 1
            check_span(str(self.structure), name, span)
            return places.astype(np.int32), (), span
        codes, labels = self._codes(name)
        if len(labels) < 2:
            raise NotIdentifiableError(
                f"{name!r} has a single level ({labels[0]}): {self.structure} needs several"
            )
        self._sort_within([codes])
        codes, _ = self._codes(name)
        self._check_distinct(codes, name, lambda row: labels[codes[row]])
        return codes.astype(np.int32), tuple(labels), len(labels)

    def _check_distinct(self, values: NDArray[Any], name: str, shown: Any) -> None:
        tied = (values[1:] == values[:-1]) & (self.cluster[1:] == self.cluster[:-1])
        if not tied.any():
            return
        row = int(np.argmax(tied))
        label = self.clusters.labels[self.cluster[row]]
        nugget = self.structure.correlation is not None and self._may_have_nugget()
        advice = "pass nugget=True for measurement error, or keep" if nugget else "keep"
        raise DataError(
            f"cluster {label} has two rows at {name} = {shown(row)}: {self.structure} gives them "
            f"correlation one; {advice} one row for each"
        )

    def _may_have_nugget(self) -> bool:
        correlation = self.structure.correlation
        return correlation is not None and correlation.role in ("time", "coordinates")

    def _coords(self, correlation: Correlation) -> tuple[Array, float, float]:
        """Coordinates (n, d), their unit, and the smallest distance of neighbours in that unit."""
        if correlation.role == "positions":
            return self._whole_positions(correlation.columns[0]), 1.0, 1.0
        names = correlation.columns
        self._sort_within([self._numbers(name) for name in names])
        coords = np.column_stack([self._numbers(name) for name in names])
        coords = coords - coords[0]  # a year, a date: differences are what counts
        if correlation.kind == "custom":
            return np.column_stack([self._numbers(name) for name in names]), 1.0, 1.0
        same = self.cluster[1:] == self.cluster[:-1]
        steps = distances(np.diff(coords, axis=0))[same]
        steps = steps[steps > 0]
        if not len(steps):
            raise NotIdentifiableError(
                f"no cluster has rows at two values of {', '.join(names)}: the data say nothing "
                f"about the correlation of {self.structure}"
            )
        if not correlation.nugget:
            self._check_apart(coords, names)
        unit = float(np.median(steps[:: max(1, len(steps) // _STEPS)]))
        return coords / unit, unit, float(steps.min()) / unit

    def _check_apart(self, coords: Array, names: tuple[str, ...]) -> None:
        tied = (np.diff(coords, axis=0) == 0).all(axis=1)
        tied &= self.cluster[1:] == self.cluster[:-1]
        if tied.any():
            values = [self._numbers(name) for name in names]
            code = np.append(np.cumsum(~np.append(False, tied)), [])
            self._check_distinct(
                code, ", ".join(names), lambda row: ", ".join(f"{v[row]:g}" for v in values)
            )

    def _whole_positions(self, name: str) -> Array:
        column = self.columns[name]
        if column.is_factor:
            values = self._codes(name)[0].astype(float)
        else:
            values = self._numbers(name)
        if (values != np.round(values)).any():
            bad = values[values != np.round(values)][0]
            raise DataError(
                f"{self.structure} needs whole numbers or levels as positions, but {name!r} has "
                f"{bad:g}: use OU({name!r}) for continuous time"
            )
        self._sort_within([values])
        values = self._codes(name)[0].astype(float) if column.is_factor else self._numbers(name)
        self._check_distinct(
            values,
            name,
            lambda row: (
                column.values[self.rows[row]]
                if column.levels is None
                else column.levels[column.values[self.rows[row]]]
            ),
        )
        same = self.cluster[1:] == self.cluster[:-1]
        if not same.any():
            raise NotIdentifiableError(
                f"every cluster has one row: the data say nothing about the correlation of "
                f"{self.structure}"
            )
        return (values - values.min())[:, None]

    # -- strata and variances --------------------------------------------------------------------

    def _strata(self, by: str | None) -> tuple[list[str | None], NDArray[np.intp]]:
        if by is None:
            return [None], np.zeros(self.clusters.m, dtype=np.intp)
        codes, labels = self._codes(by)
        changes = (codes[1:] != codes[:-1]) & (self.cluster[1:] == self.cluster[:-1])
        if changes.any():
            label = self.clusters.labels[self.cluster[int(np.argmax(changes))]]
            raise DataError(
                f"by={by!r} changes within cluster {label}: parameters of their own are for whole "
                "clusters"
            )
        return list(labels), codes[self.clusters.ptr[:-1]]

    def _variances(self) -> tuple[list[VariancePart], Array | None]:
        parts, columns = [], []
        first = 0
        for model in self.structure.variances:
            make = self._level_part if model.kind == "levels" else self._covariate_part
            part, G = make(model, first)
            if part is None:
                continue
            parts.append(part)
            columns.append(G)
            first = part.params.stop
        return parts, (np.column_stack(columns) if first else None)

    def _level_part(self, model: Variance, first: int) -> tuple[VariancePart | None, Array]:
        codes, labels = self._codes(model.columns[0])
        for name in model.columns[1:]:
            more, more_labels = self._codes(name)
            combined, codes = np.unique(codes * len(more_labels) + more, return_inverse=True)
            labels = [
                f"{labels[c // len(more_labels)]}:{more_labels[c % len(more_labels)]}"
                for c in combined
            ]
        L = len(labels)
        check_levels_of_variances(":".join(model.columns), L, len(self.rows))
        if L < 2:
            raise NotIdentifiableError(
                f"{':'.join(model.columns)} has a single level ({labels[0]}): leave it out of "
                f"{self.structure}"
            )
        G = (codes[:, None] == np.arange(1, L)).astype(float)
        params = slice(first, first + L - 1)
        return VariancePart("levels", model.columns, tuple(labels), 0.0, 1.0, params), G

    def _covariate_part(self, model: Variance, first: int) -> tuple[VariancePart, Array]:
        (name,) = model.columns
        v = self._numbers(name)
        scale = 1.0
        if model.kind == "power":
            if (v == 0).any():
                raise DataError(
                    f"VarPower({name!r}) needs a covariate without zeros: the standard deviation "
                    "would be zero or infinite there; shift it, or use VarExp"
                )
            v = np.log(np.abs(v))
        else:
            scale = float(np.std(v)) or 1.0
        if np.ptp(v) == 0:
            raise NotIdentifiableError(f"{name!r} is constant: it cannot explain variances")
        labels: tuple[str, ...] = ()
        center = float(np.mean(v)) if model.by is None else 0.0
        G = ((v - center) / scale)[:, None]
        if model.by is not None:
            codes, names = self._codes(model.by)
            labels = tuple(names)
            G = G * (codes[:, None] == np.arange(len(labels)))
        params = slice(first, first + G.shape[1])
        return VariancePart(model.kind, model.columns, labels, center, scale, params), G

    def _check_pairs(self, T: int, levels: tuple[str, ...], positions: NDArray[np.int32]) -> None:
        """Refuse an unstructured covariance of levels that never occur together."""
        seen = np.zeros((self.clusters.m, T), dtype=np.float32)
        seen[self.cluster, positions] = 1.0
        apart = np.argwhere(np.triu(seen.T @ seen == 0))
        if len(apart):
            j, k = apart[0]
            raise NotIdentifiableError(
                f"{levels[j]} and {levels[k]} never occur together in a cluster: "
                f"{self.structure} has a covariance for them that the data say nothing about; "
                "choose a structure with fewer parameters, or leave one of them out"
            )

    def _check_counts(
        self,
        correlation: Correlation | None,
        parameters: ResidualParameters,
        positions: NDArray[np.int32] | None,
    ) -> None:
        if correlation is None or correlation.kind != "unstructured":
            return
        assert positions is not None
        n_needed = parameters.T * len(parameters.strata)
        if self.clusters.m <= n_needed:
            raise NotIdentifiableError(
                f"{self.structure} over {parameters.T} levels needs more than {n_needed} clusters, "
                f"but there are {self.clusters.m}: choose a structure with fewer parameters, such "
                "as HeterogeneousAR1 or HeterogeneousToeplitz"
            )
        self._check_pairs(parameters.T, parameters.levels, positions)


def distances(steps: Array) -> Array:
    """Lengths (n,) of steps (n, d)."""
    if steps.shape[1] == 1:
        return np.asarray(np.abs(steps[:, 0]))
    return np.asarray(np.sqrt((steps**2).sum(axis=1)))


def _place_strata(
    correlation: Correlation | None, labels: list[str | None], T: int, first: int
) -> tuple[Stratum, ...]:
    """Give each stratum its places among the working parameters."""
    strata = []
    for label in labels:
        if correlation is None:
            strata.append(Stratum(label, slice(first, first), None))
            continue
        if correlation.kind == "custom":
            assert correlation.custom is not None
            n_psi = len(correlation.custom.start)
        else:
            n_psi = registry.KINDS[correlation.kind].n_psi(T, correlation.bands)
        if correlation.bands is not None and correlation.bands >= T:
            raise NotIdentifiableError(
                f"bands={correlation.bands} for {T} levels: there are {T - 1} lags; leave bands out"
            )
        psi = slice(first, first + n_psi)
        first = psi.stop
        nu = first if correlation.nugget else None
        first += correlation.nugget
        strata.append(Stratum(label, psi, nu))
    return tuple(strata)
