"""Responses drawn from a fitted model, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK
from lmmfast.errors import DataError, TooLargeError
from lmmfast.implied.implied import R, rows_at
from lmmfast.limits import memory_limit
from lmmfast.prediction.rows_used import residual_sds

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: Clusters of more rows have residuals whose covariance matrix is not factorised.
MOST_ROWS = 5_000


def simulate(fit: LMMResult, n: int, seed: Any, conditional: bool) -> Array:
    """Draw n responses, (n_obs, n); see `LMMResult.simulate`."""
    if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1:
        raise DataError(f"n={n!r}: give the number of responses, a positive whole number")
    fit._check_data(response=False)
    if 16 * n * fit.nobs > memory_limit():
        raise TooLargeError(
            f"{n:,} responses of {fit.nobs:,} rows take {8e-9 * n * fit.nobs:.3g} GB: draw fewer "
            "at a time"
        )
    rng = np.random.default_rng(seed)
    out = _errors(fit, n, rng)
    effects = None if conditional else [_effects(fit, k, n, rng) for k in range(_n_factors(fit))]
    design: Any = fit._need(fit._design, "simulations")
    for start in range(0, fit.nobs, CHUNK):
        rows = slice(start, min(start + CHUNK, fit.nobs))
        batch = design.batch(rows).as_float()
        out[rows] += _mean(fit, batch, rows)[:, None]
        if effects is None:
            out[rows] += fit._row_effects("conditional")(batch.Z, rows)[:, None]
            continue
        for k, b in enumerate(effects):
            columns, codes = _factor(fit, k, rows)
            for place, column in enumerate(columns):
                out[rows] += batch.Z[column][:, None] * b[codes, place]
    return out


def _n_factors(fit: LMMResult) -> int:
    return len(fit._factor_columns(np.arange(1))) if fit.terms else 0


def _mean(fit: LMMResult, batch: Any, rows: slice) -> Array:
    """X beta and the offset."""
    mean = np.zeros(rows.stop - rows.start)
    for j, b in zip(fit._keep, fit._estimates.beta, strict=True):
        mean += batch.X[j] * b
    return mean if batch.offset is None else mean + batch.offset


def _factor(fit: LMMResult, factor: int, rows: slice) -> tuple[NDArray[np.intp], Any]:
    """Columns of Z of a factor, and the level of each row."""
    columns, codes = fit._factor_columns(np.arange(rows.start, rows.stop))[factor]
    if codes is None:
        clusters: Any = fit._need(fit._clusters, "simulations")
        codes = clusters.spread(np.arange(clusters.m), rows)
    return columns, np.asarray(codes, dtype=np.intp)


def _effects(fit: LMMResult, factor: int, n: int, rng: np.random.Generator) -> Array:
    """Random effects of the levels of a factor, (m, q, n)."""
    columns, _ = _factor(fit, factor, slice(0, 1))
    m = list(fit._grouping.values())[factor][0]
    values, vectors = np.linalg.eigh(fit._estimates.D[np.ix_(columns, columns)])
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    return np.asarray(np.einsum("ab,mbn->man", root, rng.standard_normal((m, len(columns), n))))


def _errors(fit: LMMResult, n: int, rng: np.random.Generator) -> Array:
    """Residuals (n_obs, n)."""
    out = rng.standard_normal((fit.nobs, n))
    model = fit._residual_model
    if model is None:
        design: Any = fit._need(fit._design, "simulations")
        out *= fit.sigma
        for start in range(0, fit.nobs, CHUNK):
            rows = slice(start, min(start + CHUNK, fit.nobs))
            weights = design.batch(rows).as_float().weights
            if weights is not None:
                out[rows] /= np.sqrt(weights)[:, None]
        return out
    if model.parameters.correlation is None:
        sds = residual_sds(fit)
        assert sds is not None
        return out * sds[:, None]
    order = fit._row_order()
    for cluster, (first, last) in enumerate(zip(model.ptr[:-1], model.ptr[1:], strict=True)):
        if last - first > MOST_ROWS:
            raise TooLargeError(
                f"a cluster has {last - first:,} rows: residuals of {MOST_ROWS:,} at most are "
                "drawn together"
            )
        covariance = R(fit, rows_at(fit, np.arange(first, last), cluster))
        values, vectors = np.linalg.eigh(covariance)
        own = order[first:last]
        out[own] = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ out[own]
    return out
