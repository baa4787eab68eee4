"""Fitted values, residuals and predictions: X beta + Z b, rows in bounded chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK, Batch
from lmmfast.data.frame import as_float
from lmmfast.design.design import Design
from lmmfast.errors import DataError
from lmmfast.prediction.new_rows import NEW_LEVELS, Predictor, linear_predictor

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.covariance.joint import JointCovariance
    from lmmfast.engines.engine import WhiteningEngine
    from lmmfast.residual.model import ResidualModel
    from lmmfast.result import LMMResult

LEVELS = ("population", "conditional")


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
    fit._factors_at(level)
    check_choice("new_levels", new_levels, NEW_LEVELS)
    if newdata is None:
        return fitted(fit, level)
    own = predictor(fit, level)
    own.warn_of_new_data(offset is not None, stacklevel=4)
    return own.predict(newdata, new_levels, groups, Z, offset)


def predictor(fit: LMMResult, level: str) -> Predictor:
    """Collect what predictions of new rows at a level are made of."""
    factors = tuple(fit._factors_at(level))
    effects = tuple(fit._factor_effects[k] for k in factors)
    beta, dropped = fit._estimates.beta, tuple(fit.dropped_columns)
    return Predictor(fit.spec, fit._keep, beta, factors, effects, dropped)


def _linear(X: list[Array], fit: LMMResult, n: int) -> Array:
    """X beta over the columns that the fit kept."""
    return linear_predictor(X, fit._keep, fit._estimates.beta, n)


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
