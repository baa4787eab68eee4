"""Responses drawn from a fitted model, row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK
from lmmfast.errors import DataError, TooLargeError
from lmmfast.implied.implied import R, rows_at
from lmmfast.limits import memory_limit
from lmmfast.prediction.rows_used import design_of, over_rows, residual_sds, sds_of

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: Standard normal numbers (*shape, n), for a shape.
Normals = Callable[[tuple[int, ...]], Array]
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
    return _drawn(fit, lambda shape: rng.standard_normal((*shape, n)), conditional)


def simulate_each(fit: LMMResult, generators: Sequence[np.random.Generator]) -> Array:
    """Draw a response from each generator, (n_obs, n): the same whatever others are drawn."""

    def normals(shape: tuple[int, ...]) -> Array:
        return np.stack([rng.standard_normal(shape) for rng in generators], axis=-1)

    return _drawn(fit, normals, conditional=False)


def _drawn(fit: LMMResult, normals: Normals, conditional: bool) -> Array:
    """Responses (n_obs, n)."""
    level = "conditional" if conditional else "population"
    out = _errors(fit, normals)
    out += over_rows(fit, level, lambda batch, mean, rows: mean)[:, None]
    if not conditional and fit.terms:
        _add_effects(fit, out, normals)
    return out


def _add_effects(fit: LMMResult, out: Array, normals: Normals) -> None:
    """Add Z b of new random effects b to each column of out (n_obs, n)."""
    n_factors = len(fit._factor_columns(np.arange(1)))
    effects = [_effects(fit, k, normals) for k in range(n_factors)]
    design = design_of(fit)
    for start in range(0, fit.nobs, CHUNK):
        rows = slice(start, min(start + CHUNK, fit.nobs))
        Z = design.batch(rows).as_float().Z
        for k, b in enumerate(effects):
            columns, codes = _factor(fit, k, rows)
            for place, column in enumerate(columns):
                out[rows] += Z[column][:, None] * b[codes, place]


def _factor(fit: LMMResult, factor: int, rows: slice) -> tuple[NDArray[np.intp], Any]:
    """Columns of Z of a factor, and the level of each row."""
    columns, codes = fit._factor_columns(np.arange(rows.start, rows.stop))[factor]
    if codes is None:
        clusters: Any = fit._need(fit._clusters, "simulations")
        codes = clusters.spread(np.arange(clusters.m), rows)
    return columns, np.asarray(codes, dtype=np.intp)


def _effects(fit: LMMResult, factor: int, normals: Normals) -> Array:
    """Random effects of the levels of a factor, (m, q, n)."""
    columns, _ = _factor(fit, factor, slice(0, 1))
    m = list(fit._grouping.values())[factor][0]
    values, vectors = np.linalg.eigh(fit._estimates.D[np.ix_(columns, columns)])
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    return np.asarray(np.einsum("ab,mbn->man", root, normals((m, len(columns)))))


def _errors(fit: LMMResult, normals: Normals) -> Array:
    """Residuals (n_obs, n)."""
    out = normals((fit.nobs,))
    model = fit._residual_model
    if model is None or model.parameters.correlation is None:
        sds: Any = residual_sds(fit)
        if sds is None:
            sds = sds_of(fit, None, design_of(fit).batch(slice(0, fit.nobs)).weights)
        return out * np.reshape(sds, (-1, 1))
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
