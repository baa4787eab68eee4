"""Another response for the same design: clusters, columns and working basis are used again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.covariance.joint import JointCovariance
from lmmfast.data.columns import read_column
from lmmfast.data.frame import as_float
from lmmfast.data.tables import row_index, single_column
from lmmfast.design.design import Design
from lmmfast.errors import DataError
from lmmfast.fitting.options import Options
from lmmfast.fitting.pipeline import fit_design, fit_prepared
from lmmfast.fitting.prepare import prepare_engine
from lmmfast.packing.basis import suit_response, take_sample
from lmmfast.search.scoring import floor_eigenvalues

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


def refit(fit: LMMResult, y_new: Any, options: Options) -> LMMResult:
    """Fit another response; see `LMMResult.refit`."""
    design = fit._need(fit._design, "refits")
    clusters = fit._need(fit._clusters, "refits")
    fit._check_data(response=False)
    design = design.with_response(_read_response(design, y_new))
    if isinstance(fit._covariance, JointCovariance) or len(design.factor_names) > 1:
        return fit_design(design, options)
    basis = suit_response(fit._basis, take_sample(design))
    data = prepare_engine(design, clusters, options, basis)
    return fit_prepared(design, clusters, fit._covariance, data, options)


def continued(
    fit: LMMResult,
    start: Any,
    n_jobs: int | None,
    max_iter: int,
    verbose: int,
    callback: Callable[[dict[str, Any]], None] | None,
) -> Options:
    """Options of a fit that continues another.

    Parameters
    ----------
    start : {"warm", "cold"}, LMMResult or array
        A warm start where the structures of D allow it, and the fit has converged.
    """
    if isinstance(start, str):
        if start not in ("warm", "cold"):
            raise ValueError(f"start={start!r}: choose 'warm', 'cold', a fit or its theta")
        warm = start == "warm" and fit.converged
        start = _warm_start(fit) if warm else None
    if n_jobs is None:
        n_jobs = getattr(fit._engine, "n_threads", None)
    return Options(
        reml=fit._problem.reml,
        engine=fit.engine,
        start=start,
        n_jobs=n_jobs,
        max_iter=max_iter,
        verbose=verbose,
        callback=callback,
        identifiable=fit._identifiable,
    )


def _warm_start(fit: LMMResult) -> Any:
    """Where a search may begin that continues a fit; None where it should not."""
    if isinstance(fit._covariance, JointCovariance):
        return None if fit.certificate.on_boundary else fit
    return _theta_inside(fit) if fit._covariance.linear else None


def _theta_inside(fit: LMMResult) -> Array:
    """Variance parameters of a fit; off the boundary, where all directions inside begin flat."""
    lifted = floor_eigenvalues(fit._D, np.eye(len(fit._D))) if fit.certificate.on_boundary else None
    if lifted is None:
        return fit._estimates.theta
    A = fit._basis.z_map()
    D = fit.scale / fit._basis.weight_scale * (A @ lifted[0] @ A.T)
    return np.append(fit._covariance.natural(D), fit.scale)


def _read_response(design: Design, y_new: Any) -> NDArray[np.float64]:
    """Values for the rows used, from those or from all rows of the data of the fit."""
    column = read_column("y_new", single_column("y_new", y_new))
    if column.is_factor:
        raise DataError("y_new is text or categorical: it must be numbers")
    n_rows = design.n_rows
    if len(column) not in (design.n_obs, n_rows):
        rows = f"{design.n_obs} rows" + (
            f" ({n_rows} with those left out)" if n_rows > design.n_obs else ""
        )
        raise DataError(f"y_new has {len(column)} values, but the fit used {rows}")
    kept = design.kept if len(column) == n_rows else None
    _check_index(design, y_new, kept)
    values = as_float(column.values if kept is None else column.values[kept])
    finite = np.isfinite(values)
    if column.missing is not None:
        finite &= ~(column.missing if kept is None else column.missing[kept])
    if not finite.all():
        row = int(np.argmin(finite))
        row = row if kept is None else int(kept[row])
        what = "infinite" if np.isinf(column.values[row]) else "missing"
        raise DataError(
            f"y_new is {what} in row {row} (counting from 0): a refit uses the rows of the fit, "
            "all of them; fit anew without this row"
        )
    return values


def _check_index(design: Design, y_new: Any, kept: NDArray[np.intp] | None) -> None:
    """Refuse a pandas series whose rows are labelled otherwise than those of the fit."""
    given, used = row_index(y_new), design.index
    if given is None or used is None:
        return
    if not (given if kept is None else given[kept]).equals(used):
        raise DataError(
            "y_new has another index than the data of the fit: reorder it, or pass y_new.to_numpy()"
        )
