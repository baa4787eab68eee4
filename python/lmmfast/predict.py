"""Fitted values, residuals and predictions: X beta + Z b, rows in bounded chunks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.covariance import Array
from lmmfast.design import CHUNK, Batch, Design, NewBatch
from lmmfast.errors import DataError, NewGroupsWarning
from lmmfast.keys import GroupKeys
from lmmfast.tables import row_index

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

LEVELS = ("population", "conditional")


def fitted(fit: LMMResult, level: str) -> Array | pd.Series[float]:
    """Fitted values of the rows used, offset included."""
    _check_choice("level", level, LEVELS)
    return _indexed(fit, _over_rows(fit, level, lambda batch, mean, rows: mean))


def residuals(fit: LMMResult, kind: str, level: str) -> Array | pd.Series[float]:
    """Residuals of the rows used; see `LMMResult.resid`."""
    _check_choice("kind", kind, ("response", "pearson", "normalized"))
    _check_choice("level", level, LEVELS)
    if kind == "normalized":
        if level != "population":
            raise ValueError("normalized residuals are marginal: pass level='population'")
        return _indexed(fit, _normalized(fit))

    def residual(batch: Batch, mean: Array, rows: slice) -> Array:
        assert batch.y is not None
        r = batch.y - mean
        if kind == "pearson":
            r = r / fit.sigma
            if batch.weights is not None:
                r = r * np.sqrt(batch.weights)
        return r

    return _indexed(fit, _over_rows(fit, level, residual))


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
    _check_choice("level", level, LEVELS)
    _check_choice("new_levels", new_levels, ("population", "error"))
    if newdata is None:
        return fitted(fit, level)
    batch, keys = _new_rows(fit, newdata, groups, Z, level == "conditional")
    group = None if keys is None else _known_groups(fit, keys, batch.n_rows, new_levels)
    out = np.empty(batch.n_rows)
    for start in range(0, batch.n_rows, CHUNK):
        rows = slice(start, min(start + CHUNK, batch.n_rows))
        out[rows] = _linear([x[rows] for x in batch.X], fit, rows.stop - start)
        if group is not None:
            known = group[rows] >= 0
            for k, z in enumerate(batch.Z):
                out[rows] += np.where(known, z[rows] * fit._effects[group[rows], k], 0.0)
    if batch.missing is not None:
        out[batch.missing] = np.nan
    if offset is not None:
        offset = np.asarray(offset, dtype=float)
        if offset.shape != (batch.n_rows,):
            raise DataError(f"offset has shape {offset.shape}, not ({batch.n_rows},)")
        out += offset
    elif batch.offset is not None:
        out += batch.offset
    return _with_index(out, newdata)


def _new_rows(
    fit: LMMResult, newdata: Any, groups: Any, Z: Any, conditional: bool
) -> tuple[NewBatch, GroupKeys | None]:
    """Columns and, if asked for, group keys of new rows."""
    from lmmfast.design_array import ArraySpec

    if isinstance(fit.spec, ArraySpec):
        batch = fit.spec.columns(newdata, Z, random=conditional)
        if not conditional:
            return batch, None
        if groups is None:
            raise DataError("conditional predictions need groups=, a group for each row")
        keys = fit.spec.group_keys(groups)
        if len(keys) != batch.n_rows:
            raise DataError(f"groups has {len(keys)} entries for {batch.n_rows} rows")
        return batch, keys
    batch = fit.spec.columns(newdata, random=conditional)
    return batch, fit.spec.group_keys(newdata) if conditional else None


def _known_groups(
    fit: LMMResult, keys: GroupKeys, n_rows: int, new_levels: str
) -> NDArray[np.intp]:
    """Position of each row's group among those of the fit; -1 for groups that it did not have."""
    import pandas as pd

    known = pd.Index(fit.group_labels)
    if keys.labels is not None:
        position = known.get_indexer(pd.Index(keys.labels))[keys.values]
    else:  # look up one key per run of equal ones
        values = keys.values
        starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))[:n_rows]
        lengths = np.diff(np.append(starts, n_rows))
        position = np.repeat(known.get_indexer(pd.Index(values[starts])), lengths)
    if keys.missing is not None:
        position = np.where(keys.missing, -1, position)
    unknown = position < 0
    if not unknown.any():
        return position
    count = f"{int(unknown.sum())} of {n_rows} rows belong to groups of {fit.group_name!r}"
    if new_levels == "error":
        raise DataError(
            f"{count} that the fit did not have, the first in row {int(np.argmax(unknown))}; pass "
            "new_levels='population' to predict them without random effects"
        )
    warnings.warn(
        f"{count} that the fit did not have: predicted without random effects",
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
    out = np.empty(design.n_obs)
    b = None
    if level == "conditional":
        assert fit._clusters is not None
        b = fit._clusters.stored(fit._effects)
        cluster = fit._clusters.row_cluster
    for start in range(0, design.n_obs, CHUNK):
        rows = slice(start, min(start + CHUNK, design.n_obs))
        batch = design.batch(rows)
        mean = _linear(batch.X, fit, rows.stop - rows.start)
        if batch.offset is not None:
            mean += batch.offset
        if b is not None:
            for k, z in enumerate(batch.Z):
                mean += z * b[cluster[rows], k]
        out[rows] = compute(batch, mean, rows)
    return out


def _normalized(fit: LMMResult) -> Array:
    """L_i^-1 (y_i - X_i beta) with V_i = L_i L_i', cluster by cluster."""
    design = _design(fit)
    clusters = fit._clusters
    assert clusters is not None
    D = fit._estimates.D
    out = np.empty(design.n_obs)
    for i in range(clusters.m):
        rows = np.arange(clusters.ptr[i], clusters.ptr[i + 1])
        if clusters.order is not None:
            rows = clusters.order[rows]
        batch = design.batch(rows)
        assert batch.y is not None
        mean = _linear(batch.X, fit, len(rows))
        if batch.offset is not None:
            mean += batch.offset
        Z = np.column_stack(batch.Z)
        R = np.full(len(rows), fit.scale)
        if batch.weights is not None:
            R = R / batch.weights
        root = np.linalg.cholesky(Z @ D @ Z.T + np.diag(R))
        out[rows] = np.linalg.solve(root, batch.y - mean)
    return out


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
    index = _design(fit).index
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


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, choices))}")
