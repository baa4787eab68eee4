"""Rows of a fit in bounded chunks: means, errors, and standard deviations of residuals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK, Batch
from lmmfast.data.frame import Rows, as_float
from lmmfast.design.design import Design
from lmmfast.errors import DataError
from lmmfast.prediction.new_rows import linear_predictor

if TYPE_CHECKING:
    from lmmfast.covariance.joint import JointCovariance
    from lmmfast.result import LMMResult


def over_rows(
    fit: LMMResult,
    level: str,
    compute: Callable[[Batch, Array, slice], Array],
    added: Array | None = None,
) -> Array:
    """Apply ``compute(batch, mean, rows)`` to chunks of the rows used, in their order.

    Parameters
    ----------
    added : ndarray (n,), optional
        Is added to the means X beta + Z b.
    """
    design = design_of(fit)
    fit._check_data()
    out = np.empty(design.n_obs)
    effects = fit._row_effects(level) if fit._factors_at(level) else None
    for start in range(0, design.n_obs, CHUNK):
        rows = slice(start, min(start + CHUNK, design.n_obs))
        batch = design.batch(rows).as_float()
        mean = _mean(fit, batch, rows, effects)
        if added is not None:
            mean += added[rows]
        out[rows] = compute(batch, mean, rows)
    return out


def _mean(
    fit: LMMResult, batch: Batch, rows: Rows, effects: Callable[[list[Array], Rows], Array] | None
) -> Array:
    """X beta + Z b + offset of some rows used."""
    mean = linear(batch.X, fit, n_of(rows))
    if batch.offset is not None:
        mean += batch.offset
    if effects is not None:
        mean += effects(batch.Z, rows)
    return mean


def error_of(batch: Batch, mean: Array, rows: Rows) -> Array:
    """Return y less a mean."""
    assert batch.y is not None
    return batch.y - mean


def without_effects(fit: LMMResult, rows: NDArray[np.intp]) -> Array:
    """Y - X beta - Z b, all effects, of some of the rows used."""
    fit._check_data()
    batch = design_of(fit).batch(rows).as_float()
    return error_of(batch, _mean(fit, batch, rows, fit._row_effects("conditional")), rows)


def n_of(rows: Rows) -> int:
    """Count rows that a slice or their positions stand for."""
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)


def residual_sds(fit: LMMResult) -> Array | None:
    """Standard deviations (n,) of the residuals of the rows used; None: all sigma / sqrt(w)."""
    model = fit._residual_model
    if model is None:
        return None
    out = np.empty(len(model.rows))
    out[model.rows] = sds_of(fit, model.G, weights_used(fit, model.rows))
    return out


def weights_used(fit: LMMResult, rows: NDArray[np.intp]) -> NDArray[Any] | None:
    """Weights (k,) of some of the rows used; None: there are none."""
    return design_of(fit).batch(rows).weights


def sds_of(fit: LMMResult, G: Array | None, weights: NDArray[Any] | None) -> Array | float:
    """Standard deviations (n,) of residuals by columns of the variance model, and weights."""
    out: Array | float = 1.0
    if G is not None:
        kappa = cast("JointCovariance", fit._covariance).kappa(fit._phi)
        out = np.exp(G @ kappa[: G.shape[1]])
    if weights is not None:
        out = out * np.sqrt(fit._basis.weight_scale / as_float(weights))
    return np.sqrt(fit._unit) * out


def linear(X: list[Array], fit: LMMResult, n: int) -> Array:
    """X beta over the columns that the fit kept."""
    return linear_predictor(X, fit._keep, fit._estimates.beta, n)


def design_of(fit: LMMResult) -> Design:
    """Return the design of a fit that holds its rows; else a DataError."""
    design = fit._design
    if design is None:
        raise DataError(
            "fitted values and residuals need the data, which a saved or stripped fit does not "
            "hold: use predict(data)"
        )
    return design
