"""The part of residuals that other rows of their group tell: a process measured with error.

With a nugget R = S [(1 - nu) C + nu I] S is the sum of a process with covariance K = (1 - nu) S C S
and of measurement errors, and the expected process given the data is K R^-1 (y - X beta - Z b). In
rows beside those of the fit the covariances with them stand for K. Without a nugget the same with
nu = 0 is the expected value of the errors themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.errors import DataError, UnsupportedModelError
from lmmfast.implied.implied import values_of
from lmmfast.prediction.rows_used import residual_sds, sds_of, weights_used, without_effects
from lmmfast.residual.between import correlations
from lmmfast.residual.layout import ResidualParameters
from lmmfast.residual.model import ResidualModel
from lmmfast.residual.on_a_line import Decay, Smoothed, smooth
from lmmfast.residual.place import Places, Placing

if TYPE_CHECKING:
    from lmmfast.covariance.joint import JointCovariance
    from lmmfast.result import LMMResult

#: What predictions take of a residual structure.
RESIDUAL = ("process", "errors", "none")
#: Entries of the matrices of several clusters that are formed together.
MAX_ENTRIES = 1 << 22
Index = NDArray[np.intp]


def takes_residuals(fit: LMMResult, level: Any, residual: str) -> bool:
    """Whether predictions at a level have a part of the residual structure.

    Raises
    ------
    UnsupportedModelError
        Errors are asked for that no other row tells anything of.
    """
    correlation = fit.residual.correlation
    names = list(fit._grouping)
    inside = names.index(fit._innermost) in fit._factors_at(level)
    if residual == "errors":
        if correlation is None or correlation.nugget:
            why = "has no correlation" if correlation is None else "has a nugget"
            raise UnsupportedModelError(
                f"residual='errors': the residual structure of this fit, {fit.residual}, {why}, so "
                "that rows tell nothing of the errors of others: leave residual= out"
            )
        return inside
    return residual == "process" and inside and correlation is not None and correlation.nugget


def check_rows_are_there(fit: LMMResult, residual: str) -> None:
    """Refuse predictions that take rows which a fit no longer has.

    Raises
    ------
    DataError
    """
    if fit._residual_model is None or fit._design is None:
        what = "errors" if residual == "errors" else "process"
        raise DataError(
            f"conditional predictions have the {what} of {fit.residual} in them, which takes the "
            "rows of the fit, and a saved or stripped fit has none: pass residual='none' for the "
            "random effects alone, or the rows of the group as given="
        )


@dataclass(frozen=True, eq=False)
class KnownRows:
    """Rows of some clusters of a fit, those of a cluster together.

    Attributes
    ----------
    parameters : ResidualParameters
    kappa : ndarray
    ptr : ndarray (m + 1,)
    stratum : ndarray of int (m,)
    places : Places
        Of n rows.
    """

    parameters: ResidualParameters
    kappa: Array
    ptr: NDArray[np.int64]
    stratum: Index
    places: Places

    @property
    def nu(self) -> Array:
        """Part of the variance that is measurement error, (m,)."""
        strata = self.parameters.strata
        nu = [0.0 if one.nu is None else self.kappa[one.nu] for one in strata]
        return np.array(nu)[self.stratum]

    def psi(self, stratum: int) -> Array:
        """Parameters of the correlation."""
        return np.asarray(self.kappa[self.parameters.strata[stratum].psi])

    @property
    def on_a_line(self) -> Decay | None:
        """How correlations decay, where rows stand on a line and only the nearest matter."""
        return Decay.of(self.parameters, self.kappa, self.stratum)

    def batches(self) -> Iterator[tuple[int, Index, NDArray[np.int64]]]:
        """Stratum, clusters (k,) and rows (k, n) of clusters of one size."""
        sizes = np.diff(self.ptr)
        order = np.lexsort((sizes, self.stratum))
        changes = np.flatnonzero((np.diff(sizes[order]) != 0) | (np.diff(self.stratum[order]) != 0))
        for same in np.split(order, changes + 1):
            n = int(sizes[same[0]])
            step = max(1, MAX_ENTRIES // (n * n))
            for start in range(0, len(same), step):
                some = same[start : start + step]
                yield int(self.stratum[some[0]]), some, self.ptr[some][:, None] + np.arange(n)


def known_rows(fit: LMMResult, clusters: Index | None = None) -> tuple[KnownRows, Index]:
    """Rows of some clusters (default: of all), and where they are among the rows used."""
    model = fit._need(fit._residual_model, "what rows tell of the residuals of others")
    if clusters is not None:
        model, _ = model.part(clusters)
    covariance = cast("JointCovariance", fit._covariance)
    stratum = np.asarray(model.stratum, dtype=np.intp)
    places = Places(
        model.G,
        None if model.positions is None else model.positions.astype(np.intp),
        _coords(fit, model),
        np.repeat(stratum, np.diff(model.ptr)),
    )
    kappa = covariance.kappa(fit._phi)
    return KnownRows(model.parameters, kappa, model.ptr, stratum, places), model.rows


def placing(fit: LMMResult) -> Placing:
    """Return what finds the places of rows in the residual structure of a fit."""
    parameters = cast("JointCovariance", fit._covariance).residual
    return Placing(fit.residual, parameters, fit._known_columns)


def _coords(fit: LMMResult, model: ResidualModel) -> Array | None:
    """Coordinates (n, d) of the rows of the fit, about the origin that those of new rows have."""
    correlation = model.parameters.correlation
    if correlation is None or model.coords is None:
        return None
    columns = fit._need(fit._design, "the residual structure").residual_columns
    return placing(fit).coords(
        {name: values_of(columns[name])[model.rows] for name in correlation.columns}
    )


def with_positions(
    parameters: ResidualParameters, places: Places, ptr: NDArray[np.int64]
) -> Places:
    """Give rows a position of their own in each cluster where their order is their position.

    Raises
    ------
    DataError
        A cluster with more rows than any of the fit.
    """
    correlation = parameters.correlation
    if places.positions is None or correlation is None or correlation.columns:
        return places
    sizes = np.diff(ptr)
    if sizes.max() > parameters.T:
        raise DataError(
            f"given= has a group of {sizes.max()} rows, more than any group of the fit "
            f"({parameters.T}): the residual structure says nothing of so many"
        )
    own = np.arange(ptr[-1]) - np.repeat(ptr[:-1], sizes)
    return Places(places.G, own, places.coords, places.stratum)


def observed(fit: LMMResult, errors: Array) -> Array:
    """Expected processes (n,) in the rows used, of errors y - X beta - Z b (n,) in their order."""
    known, rows = known_rows(fit)
    sds = cast("Array", residual_sds(fit))[rows]
    e = errors[rows] / sds
    line = _smoothed(known, e)
    if line is not None:
        value = line.value
    else:
        nu = np.repeat(known.nu, np.diff(known.ptr))
        value = e - nu * _solved(known, e)
    out = np.empty_like(value)
    out[rows] = sds * value
    return out


def expected(fit: LMMResult, cluster: Index, places: Places, sds: Array) -> Array:
    """Expected processes, or errors, in rows (N,) beside those of the fit.

    Parameters
    ----------
    cluster : ndarray of int (N,)
        Of each row among the clusters of the residual structure.
    places : Places
    sds : ndarray (N,)
        Standard deviations of the residuals of these rows.
    """
    clusters, own = np.unique(cluster, return_inverse=True)
    known, rows = known_rows(fit, clusters)
    e = without_effects(fit, rows) / sds_of(fit, known.places.G, weights_used(fit, rows))
    line = _smoothed(known, e)
    if line is not None:
        assert places.coords is not None
        return np.asarray(sds * line.at(own, places.coords[:, 0]))
    u = _solved(known, e)
    out = np.empty(len(own))
    for stratum, some, inside in known.batches():
        of_batch = np.full(len(clusters), -1)
        of_batch[some] = np.arange(len(some))
        queries = np.flatnonzero(of_batch[own] >= 0)
        step = max(1, MAX_ENTRIES // inside.shape[1])
        for start in range(0, len(queries), step):
            q = queries[start : start + step]
            old = inside[of_batch[own[q]]]
            C = correlations(
                known.parameters,
                known.psi(stratum),
                places.take(q[:, None]),
                known.places.take(old),
            )
            out[q] = (1 - known.nu[own[q]]) * (C[:, 0] * u[old]).sum(axis=1)
    return sds * out


def _smoothed(known: KnownRows, e: Array) -> Smoothed | None:
    decay, coords = known.on_a_line, known.places.coords
    if decay is None or coords is None:
        return None
    return smooth(decay, known.nu, known.ptr, coords[:, 0], e)


def _solved(known: KnownRows, e: Array) -> Array:
    """((1 - nu) C + nu I)^-1 e, cluster by cluster."""
    out = np.empty_like(e)
    for stratum, some, rows in known.batches():
        P = relative_covariance(known, stratum, rows, float(known.nu[some[0]]))
        out[rows] = np.linalg.solve(P, e[rows][..., None])[..., 0]
    return out


def relative_covariance(known: KnownRows, stratum: int, rows: Any, nu: float) -> Array:
    """(1 - nu) C + nu I of clusters of one size, (k, n, n)."""
    places = known.places.take(rows)
    P = (1 - nu) * correlations(known.parameters, known.psi(stratum), places, places)
    diagonal = np.arange(P.shape[-1])
    P[:, diagonal, diagonal] += nu
    return P
