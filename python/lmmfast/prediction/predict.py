"""Fitted values, residuals and predictions: X beta + Z b, rows in bounded chunks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK, Batch, NewBatch
from lmmfast.data.columns import read_column
from lmmfast.data.frame import as_float
from lmmfast.data.keys import GroupKeys
from lmmfast.data.tables import check_same_index, row_index, single_column
from lmmfast.design.design import Design
from lmmfast.errors import DataError, NewDataWarning, NewGroupsWarning

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.covariance.joint import JointCovariance
    from lmmfast.engines.engine import WhiteningEngine
    from lmmfast.residual.model import ResidualModel
    from lmmfast.result import LMMResult

LEVELS = ("population", "conditional")


class FactorEffects(NamedTuple):
    """Predicted effects of a grouping factor.

    Attributes
    ----------
    name : str
    columns : ndarray of int (q_f,)
        Their columns of Z.
    b : ndarray (m_f, q_f)
    labels : ndarray (m_f,)
    """

    name: str
    columns: NDArray[np.intp]
    b: Array
    labels: NDArray[Any]


def fitted(fit: LMMResult, level: str) -> Array | pd.Series[float]:
    """Fitted values of the rows used, offset included."""
    fit._factors_at(level)
    return _indexed(fit, _over_rows(fit, level, lambda batch, mean, rows: mean))


def residuals(fit: LMMResult, kind: str, level: str | None) -> Array | pd.Series[float]:
    """Residuals of the rows used; see `LMMResult.residuals`."""
    check_choice("kind", kind, ("response", "pearson", "normalized"))
    if level is None:
        level = "population" if kind == "normalized" else "conditional"
    return _indexed(fit, residual_values(fit, kind, level))


def residual_values(fit: LMMResult, kind: str, level: str) -> Array:
    """Residuals (n_obs,) of the rows used."""
    fit._factors_at(level)
    if kind == "normalized":
        if level != "population":
            raise ValueError("normalized residuals are marginal: level must be 'population'")
        return fit._whitened()

    scales = residual_sds(fit) if kind == "pearson" else None

    def residual(batch: Batch, mean: Array, rows: slice) -> Array:
        assert batch.y is not None
        r = batch.y - mean
        if kind == "pearson":
            if scales is not None:
                return r / scales[rows]
            r = r / fit.sigma
            if batch.weights is not None:
                r = r * np.sqrt(batch.weights)
        return r

    return _over_rows(fit, level, residual)


def predict(
    fit: LMMResult,
    newdata: Any,
    level: str,
    new_levels: str,
    groups: Any,
    Z: Any,
    offset: Any,
) -> Array | pd.Series[float]:
    """Predictions for new rows; see `LMMResult.predict`."""
    factors = fit._factors_at(level)
    check_choice("new_levels", new_levels, ("population", "missing", "error"))
    if newdata is None:
        return fitted(fit, level)
    given = {"newdata": newdata, "groups": groups, "Z": Z, "offset": offset}
    check_same_index({name: row_index(data) for name, data in given.items()})
    _warn_of_new_data(fit, offset)
    batch, keys = _new_rows(fit, newdata, groups, Z, factors, offset)
    effects = [fit._factor_effects[k] for k in factors]
    positions = [
        _known_groups(own, key, batch.n_rows, new_levels)
        for own, key in zip(effects, keys, strict=True)
    ]
    out = np.empty(batch.n_rows)
    for start in range(0, batch.n_rows, CHUNK):
        rows = slice(start, min(start + CHUNK, batch.n_rows))
        with np.errstate(over="ignore", invalid="ignore"):  # found by _check_range
            out[rows] = _predicted(fit, batch, effects, positions, rows)
    left_out = np.zeros(batch.n_rows, dtype=bool)
    for missing in (batch.missing, *(key.missing for key in keys)):
        if missing is not None:
            left_out |= missing
    if new_levels == "missing":
        for position in positions:
            left_out |= position < 0
    _check_range(~np.isfinite(out) & ~left_out)
    out[left_out] = np.nan
    if batch.offset is not None:
        out += batch.offset
    elif offset is not None:
        out += _read_offset(offset, batch.n_rows)
    _check_range(np.isinf(out))
    return _with_index(out, newdata)


def _predicted(
    fit: LMMResult,
    batch: NewBatch,
    effects: list[FactorEffects],
    positions: list[NDArray[np.intp]],
    rows: slice,
) -> Array:
    """X beta + Z b of some rows; no effects where the group is unknown (position -1)."""
    out = _linear([x[rows] for x in batch.X], fit, rows.stop - rows.start)
    for own, position in zip(effects, positions, strict=True):
        here = position[rows]
        known = here >= 0
        for k, column in enumerate(own.columns):
            effect = batch.Z[column][rows] * own.b[here, k]
            out += effect if known.all() else np.where(known, effect, 0.0)
    return out


def _check_range(beyond: NDArray[np.bool_]) -> None:
    """Refuse predictions that are not finite although nothing is missing."""
    if beyond.any():
        raise DataError(
            f"the prediction of row {int(np.argmax(beyond))} (counting from 0) is not finite: the "
            "new data are infinite there, or beyond the range of double precision"
        )


def _warn_of_new_data(fit: LMMResult, offset: Any) -> None:
    """Warn where the fit alone cannot tell what the predictions of new rows are."""
    if fit.dropped_columns:
        warnings.warn(
            f"columns of X were dropped from the fit ({', '.join(fit.dropped_columns)}): "
            "predictions hold for new rows only where the columns kept determine these as they "
            "did in the fit",
            NewDataWarning,
            stacklevel=4,
        )
    if fit.spec.offset_array and offset is None:
        warnings.warn(
            "the fit had an offset given as an array: predictions are without it unless new values "
            "are given as offset=",
            NewDataWarning,
            stacklevel=4,
        )


def _read_offset(given: Any, n_rows: int) -> Array:
    column = read_column("offset", single_column("offset", given))
    if column.is_factor:
        raise DataError("offset must be numbers")
    if len(column) != n_rows:
        raise DataError(f"offset has shape ({len(column)},), not ({n_rows},)")
    values = as_float(column.values)
    return values if column.missing is None else np.where(column.missing, np.nan, values)


def _new_rows(
    fit: LMMResult, newdata: Any, groups: Any, Z: Any, factors: list[int], offset: Any
) -> tuple[NewBatch, list[GroupKeys]]:
    """Columns of new rows and their keys of the grouping factors asked for."""
    from lmmfast.design.from_arrays import ArraySpec

    if isinstance(fit.spec, ArraySpec):
        if isinstance(offset, str):
            raise DataError(f"offset={offset!r}: models fitted to arrays need it as an array")
        batch = fit.spec.columns(newdata, Z, random=bool(factors))
        if not factors:
            return batch, []
        if groups is None:
            raise DataError("conditional predictions need groups=, a group for each row")
        found = fit.spec.group_keys(groups, factors)
        for keys in found:
            if len(keys) != batch.n_rows:
                raise DataError(f"groups has {len(keys)} entries for {batch.n_rows} rows")
        return batch, found
    batch = fit.spec.columns(newdata, random=bool(factors), offset=offset)
    return batch, fit.spec.group_keys(newdata, factors) if factors else []


def _known_groups(
    effects: FactorEffects, keys: GroupKeys, n_rows: int, new_levels: str
) -> NDArray[np.intp]:
    """Position of each row's group among those of the fit; -1 for unknown or missing groups."""
    import pandas as pd

    known = pd.Index(effects.labels)
    if keys.labels is not None and not len(keys.labels):
        position = np.full(n_rows, -1, dtype=np.intp)  # every key is missing
    elif keys.labels is not None:
        position = known.get_indexer(pd.Index(np.asarray(keys.labels)))[keys.values]
    else:  # look up one key per run of equal ones
        values = keys.values
        starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))[:n_rows]
        lengths = np.diff(np.append(starts, n_rows))
        position = np.repeat(known.get_indexer(pd.Index(values[starts])), lengths)
    unknown = position < 0
    if keys.missing is not None:
        position = np.where(keys.missing, -1, position)
        unknown &= ~keys.missing
    if not unknown.any() or new_levels == "missing":
        return position
    count = f"{int(unknown.sum())} of {n_rows} rows belong to groups of {effects.name!r}"
    if new_levels == "error":
        raise DataError(
            f"{count} that the fit did not have, the first in row {int(np.argmax(unknown))}; pass "
            "new_levels='population' to predict them without random effects"
        )
    warnings.warn(
        f"{count} that the fit did not have: predicted without their random effects",
        NewGroupsWarning,
        stacklevel=4,
    )
    return position


def _linear(X: list[Array], fit: LMMResult, n: int) -> Array:
    """X beta over the columns that the fit kept."""
    out = np.zeros(n)
    for j, beta in zip(fit._keep, fit._estimates.beta, strict=True):
        out += beta * X[j]
    return out


def _over_rows(
    fit: LMMResult, level: str, compute: Callable[[Batch, Array, slice], Array]
) -> Array:
    """Apply ``compute(batch, mean, rows)`` to chunks of the rows used, in their order."""
    design = _design(fit)
    fit._check_data()
    out = np.empty(design.n_obs)
    effects = fit._row_effects(level) if fit._factors_at(level) else None
    for start in range(0, design.n_obs, CHUNK):
        rows = slice(start, min(start + CHUNK, design.n_obs))
        batch = design.batch(rows).as_float()
        mean = _linear(batch.X, fit, rows.stop - rows.start)
        if batch.offset is not None:
            mean += batch.offset
        if effects is not None:
            mean += effects(batch.Z, rows)
        out[rows] = compute(batch, mean, rows)
    return out


def normalized(fit: LMMResult) -> Array:
    """L_i^-1 (y_i - X_i beta) with V_i = L_i L_i', for chunks of whole clusters.

    With a residual structure the rows of a cluster are taken in the order of their times.
    """
    design = _design(fit)
    fit._check_data()
    if fit._residual_model is not None:
        return _normalized_by_structure(fit, fit._residual_model)
    clusters = fit._clusters
    assert clusters is not None
    out = np.empty(design.n_obs)
    ptr, first = clusters.ptr, 0
    while first < clusters.m:
        last = int(np.searchsorted(ptr, ptr[first] + CHUNK, side="right")) - 1
        last = max(last, first + 1)  # a cluster larger than a chunk comes alone
        rows: slice | NDArray[Any] = slice(int(ptr[first]), int(ptr[last]))
        if clusters.order is not None:
            rows = clusters.order[rows]
        out[rows] = _whitened(
            fit, design.batch(rows).as_float(), ptr[first : last + 1] - ptr[first]
        )
        first = last
    return out


def _normalized_by_structure(fit: LMMResult, model: ResidualModel) -> Array:
    engine = cast("WhiteningEngine", fit._engine)
    out = np.empty(len(model.rows))
    sigma = np.sqrt(fit._unit) / fit._basis.y_scale
    out[model.rows] = engine.whitened(fit._Lambda, fit._c) / sigma
    return out


def residual_sds(fit: LMMResult) -> Array | None:
    """Standard deviations (n,) of the residuals of the rows used; None: all sigma / sqrt(w)."""
    model = fit._residual_model
    if model is None:
        return None
    covariance = cast("JointCovariance", fit._covariance)
    weights = _design(fit).batch(model.rows).weights
    roots = None if weights is None else np.sqrt(fit._basis.weight_scale / as_float(weights))
    out = np.empty(len(model.rows))
    out[model.rows] = np.sqrt(fit._unit) * model.scales(covariance.kappa(fit._phi), roots)
    return out


def _whitened(fit: LMMResult, batch: Batch, ptr: NDArray[np.int64]) -> Array:
    """L_i^-1 r_i of the residuals r_i = y_i - X_i beta."""
    assert batch.y is not None
    r = batch.y - _linear(batch.X, fit, len(batch.y))
    if batch.offset is not None:
        r -= batch.offset
    return whitened_columns(fit, batch, ptr, r[:, None])[:, 0]


def whitened_columns(fit: LMMResult, batch: Batch, ptr: NDArray[np.int64], A: Array) -> Array:
    """L_i^-1 A_i without V_i: each row less its prediction from the rows before it.

    The rows of a cluster update the mean a and the covariance P of its random effects one by one,
    and (A_j - z'a) / sqrt(z'P z + sigma2 / w) is the row of L^-1 A; the j-th rows of all clusters
    go together. Durbin and Koopman, Time Series Analysis by State Space Methods (2012), 4.3.

    Parameters
    ----------
    batch : Batch
        Rows of whole clusters.
    ptr : ndarray (m + 1,)
        Where each cluster begins.
    A : ndarray (n, k)
        Written into.
    """
    Z = np.column_stack(batch.Z)
    R = np.full(len(A), fit.scale) if batch.weights is None else fit.scale / batch.weights
    sizes = np.diff(ptr)
    largest_first = np.argsort(-sizes, kind="stable")
    starts, sizes = ptr[:-1][largest_first], sizes[largest_first]
    D = fit._estimates.D
    a = np.zeros((len(starts), len(D), A.shape[1]))
    P = np.repeat(D[None], len(starts), axis=0)
    for j in range(int(sizes[0])):
        active = int(np.searchsorted(-sizes, -j, side="left"))  # clusters of more than j rows
        a, P, at = a[:active], P[:active], starts[:active] + j
        z = Z[at]
        Pz = np.einsum("ijk,ik->ij", P, z)
        variance = np.einsum("ij,ij->i", z, Pz) + R[at]
        error = A[at] - np.einsum("ij,ijk->ik", z, a)
        A[at] = error / np.sqrt(variance)[:, None]
        gain = Pz / variance[:, None]
        a += gain[:, :, None] * error[:, None, :]
        P -= gain[:, :, None] * Pz[:, None, :]
    return A


def _design(fit: LMMResult) -> Design:
    design = fit._design
    if design is None:
        raise DataError(
            "fitted values and residuals need the data, which a saved or stripped fit does not "
            "hold: use predict(data)"
        )
    return design


def _indexed(fit: LMMResult, values: Array) -> Array | pd.Series[float]:
    """Values of the rows used, with the index of the user's pandas frame if there is one."""
    values, index = _design(fit).report(values)
    if index is None:
        return values
    import pandas as pd

    return pd.Series(values, index=index)


def _with_index(values: Array, newdata: Any) -> Array | pd.Series[float]:
    index = row_index(newdata)
    if index is None:
        return values
    import pandas as pd

    return pd.Series(values, index=index)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise a ValueError for a value that is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, choices))}")
