"""Residuals over their standard deviations, and residuals without correlation.

With r = y - X beta, a residual at a level is e = M V^-1 r, where M is what the random effects of
the level leave of V: V itself at level "population"; R at level "conditional", or of R the
measurement errors alone, where fitted values have the process in them. Its variance at known
variance parameters is M P M, P = V^-1 - V^-1 X (X'V^-1 X)^-1 X'V^-1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK
from lmmfast.diagnostics.blocks import V_inverse, blocks
from lmmfast.diagnostics.inverse_rows import coefficient_root, inverse_rows
from lmmfast.inference.fixed_rows import chunks_of_X
from lmmfast.prediction.predict import indexed, residual_values
from lmmfast.prediction.process import known_rows, takes_residuals
from lmmfast.prediction.rows_used import residual_sds

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

KINDS = ("response", "pearson", "studentized", "normalized")
#: A variance below this part of that of the errors is rounding: the row is fitted exactly.
EXACT = 1e-10


def residuals(fit: LMMResult, kind: str, level: Any) -> Array | pd.Series[float]:
    """Residuals of the rows used; see `LMMResult.residuals`."""
    check_choice("kind", kind, KINDS)
    if level is None:
        level = "population" if kind == "normalized" else "conditional"
    if kind in ("response", "normalized"):
        return indexed(fit, residual_values(fit, kind, level))
    values = residual_values(fit, "response", level)
    variances = level_variances(fit, level)
    if kind == "pearson":
        return indexed(fit, values / np.sqrt(variances))
    own = estimated_variances(fit, level, variances)
    known = own > EXACT * variances
    with np.errstate(invalid="ignore", divide="ignore"):
        return indexed(fit, np.where(known, values / np.sqrt(np.where(known, own, 1.0)), np.nan))


def level_variances(fit: LMMResult, level: Any) -> Array:
    """Variances (n,) of the rows used about their means at a level: the diagonal of M."""
    factors = fit._factors_at(level)
    design = fit._need(fit._design, "residuals")
    sds = _error_sds(fit, level)
    out = np.full(fit.nobs, fit.scale) if sds is None else sds**2
    root = np.sqrt(fit._unit) * fit._Lambda
    for start in range(0, design.n_obs, CHUNK):
        rows = slice(start, min(start + CHUNK, design.n_obs))
        batch = design.batch(rows).as_float()
        if sds is None and batch.weights is not None:
            out[rows] /= batch.weights
        if not batch.Z:
            continue
        Z = (np.column_stack(batch.Z) @ fit._basis.z_map()) @ root
        for k, (columns, _) in enumerate(fit._factor_columns(np.arange(rows.start, rows.stop))):
            if k not in factors:
                out[rows] += (Z[:, columns] ** 2).sum(axis=1)
    return out


def _error_sds(fit: LMMResult, level: Any) -> Array | None:
    """Standard deviations (n,) of the errors that fitted values leave; None: sigma / sqrt(w)."""
    sds = residual_sds(fit)
    if sds is not None and takes_residuals(fit, level, "process"):
        known, rows = known_rows(fit)
        sds[rows] *= np.sqrt(np.repeat(known.nu, np.diff(known.ptr)))
    return sds


def estimated_variances(fit: LMMResult, level: Any, variances: Array) -> Array:
    """Variances (n,) of residuals at a level, beta and the effects being estimates: diag(M P M).

    Parameters
    ----------
    variances : ndarray (n,)
        The diagonal of M.
    """
    factors = fit._factors_at(level)
    out = np.empty(fit.nobs)
    if not factors:
        return _marginal_variances(fit, variances)
    if fit._residual_model is None and len(factors) == len(fit._factor_columns(np.arange(1))):
        for part in inverse_rows(fit):
            inner = part.diagonal - (part.inverse_X**2).sum(axis=1)
            out[part.rows] = variances[part.rows] ** 2 * inner
        return out
    root, with_process = coefficient_root(fit), takes_residuals(fit, level, "process")
    for block in blocks(fit, factors):
        M = block.R
        if with_process:
            M = variances[block.rows][:, :, None] * np.eye(block.rows.shape[1])
        M_inverse = M @ V_inverse(block.V)
        X = M_inverse @ (block.X @ root)
        own = np.einsum("bij,bji->bi", M_inverse, M) - (X**2).sum(axis=2)
        out[block.rows] = own
    return out


def _marginal_variances(fit: LMMResult, variances: Array) -> Array:
    """V_ii - x'(X'V^-1 X)^-1 x of the rows used, (n,)."""
    root, out = coefficient_root(fit), variances.copy()
    for rows, X in chunks_of_X(fit, fit._keep, "residuals"):
        out[rows] -= ((X @ root) ** 2).sum(axis=1)
    return out


def whitened_blocks(fit: LMMResult) -> Array:
    """L^-1 (y - X beta) with V = L L' (n,), of any number of grouping factors.

    Rows of a block are taken in their order; with a residual structure by group and time.
    """
    out = np.empty(fit.nobs)
    for block in blocks(fit):
        rows, V, r = block.rows, block.V, block.r
        if fit._residual_model is None:
            order = np.argsort(rows, axis=1)
            rows, r = np.take_along_axis(rows, order, 1), np.take_along_axis(r, order, 1)
            V = np.take_along_axis(V, order[:, :, None], 1)
            V = np.take_along_axis(V, order[:, None, :], 2)
        out[rows] = np.linalg.solve(np.linalg.cholesky(V), r[:, :, None])[:, :, 0]
    return out
