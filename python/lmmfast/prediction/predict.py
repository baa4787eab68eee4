"""Fitted values, residuals and predictions: X beta + Z b, rows in bounded chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK, Batch
from lmmfast.errors import UnsupportedModelError
from lmmfast.inference.wald import normal_quantile
from lmmfast.prediction.given import read_given
from lmmfast.prediction.new_rows import (
    NEW_LEVELS,
    FactorEffects,
    Predictor,
    ReadRows,
    with_index,
)
from lmmfast.prediction.placed import Inputs, PlacedRows, cluster_of, place_rows, weights_of
from lmmfast.prediction.process import (
    RESIDUAL,
    check_rows_are_there,
    expected,
    known_rows,
    observed,
    takes_residuals,
)
from lmmfast.prediction.rows_used import (
    design_of,
    error_of,
    linear,
    over_rows,
    residual_sds,
    sds_of,
)
from lmmfast.prediction.targets import Targets, columns_at

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.engines.engine import WhiteningEngine
    from lmmfast.residual.model import ResidualModel
    from lmmfast.result import LMMResult

LEVELS = ("population", "conditional")
INTERVALS = ("confidence", "prediction")
UNCERTAINTIES = ("beta", "theta")


def fitted(fit: LMMResult, level: str, residual: str = "process") -> Array | pd.Series[float]:
    """Fitted values of the rows used, offset included."""
    process = _process(fit, level) if takes_residuals(fit, level, residual) else None
    return _indexed(fit, over_rows(fit, level, lambda batch, mean, rows: mean, process))


def _process(fit: LMMResult, level: str) -> Array:
    """Expected processes (n,) in the rows used."""
    return observed(fit, over_rows(fit, level, error_of))


def residuals(fit: LMMResult, kind: str, level: str | None) -> Array | pd.Series[float]:
    """Residuals of the rows used; see `LMMResult.residuals`."""
    check_choice("kind", kind, ("response", "pearson", "normalized"))
    if level is None:
        level = "population" if kind == "normalized" else "conditional"
    return _indexed(fit, residual_values(fit, kind, level))


def residual_values(fit: LMMResult, kind: str, level: str) -> Array:
    """Residuals (n_obs,) of the rows used."""
    with_process = takes_residuals(fit, level, "process")
    if kind == "normalized":
        if level != "population":
            raise ValueError("normalized residuals are marginal: level must be 'population'")
        return fit._whitened()

    scales = _pearson_scales(fit, with_process) if kind == "pearson" else None

    def residual(batch: Batch, mean: Array, rows: slice) -> Array:
        assert batch.y is not None
        r = batch.y - mean
        if kind == "pearson":
            if scales is not None:
                with np.errstate(divide="ignore", invalid="ignore"):  # no measurement error
                    return r / scales[rows]
            r = r / fit.sigma
            if batch.weights is not None:
                r = r * np.sqrt(batch.weights)
        return r

    return over_rows(fit, level, residual, _process(fit, level) if with_process else None)


def _pearson_scales(fit: LMMResult, with_process: bool) -> Array | None:
    """Standard deviations (n,) of what residuals estimate; None: all sigma / sqrt(w)."""
    sds = residual_sds(fit)
    if sds is not None and with_process:
        known, rows = known_rows(fit)
        sds[rows] *= np.sqrt(np.repeat(known.nu, np.diff(known.ptr)))
    return sds


@dataclass(frozen=True)
class Wanted:
    """What is wanted beside predictions; see `LMMResult.predict`."""

    interval: str | None = None
    se: bool = False
    alpha: float = 0.05
    uncertainty: str = "beta"

    def __post_init__(self) -> None:
        if self.interval is not None:
            check_choice("interval", self.interval, INTERVALS)
        check_choice("uncertainty", self.uncertainty, UNCERTAINTIES)
        normal_quantile(self.alpha)

    @property
    def errors(self) -> bool:
        """Whether standard errors are."""
        return self.se or self.interval is not None


def predict(
    fit: LMMResult,
    newdata: Any,
    level: str,
    new_levels: str,
    inputs: Inputs,
    residual: str,
    wanted: Wanted,
    given: Any,
) -> Array | pd.Series[float] | pd.DataFrame:
    """Predictions for new rows; see `LMMResult.predict`."""
    check_choice("residual", residual, RESIDUAL)
    if given is not None and level == "population":
        level = "conditional"
    with_residuals = takes_residuals(fit, level, residual)
    check_choice("new_levels", new_levels, NEW_LEVELS)
    kind = residual if with_residuals else "none"
    if newdata is None:
        return _of_the_rows(fit, level, residual, kind, wanted, given)
    own = predictor(fit, level, alone=given is not None)
    if inputs.warn:
        own.warn_of_new_data(inputs.offset is not None, stacklevel=4)
    known = None if given is None else read_given(fit, own, given, inputs.warn)
    rows = own.read(
        newdata,
        new_levels,
        inputs.groups,
        inputs.Z,
        inputs.offset,
        inputs.warn,
        random=True if wanted.interval == "prediction" or known is not None else None,
        given=None if known is None else known.groups,
    )
    out = own.mean(rows, inputs.offset)
    placed: PlacedRows | None = None
    wants_places = wanted.interval == "prediction" or known is not None
    if with_residuals or (wants_places and not fit.residual.is_independent):
        placed = place_rows(fit, newdata, inputs, ~rows.left_out)
    if with_residuals:
        assert placed is not None
        out[placed.missing] = np.nan
        _add_residuals(fit, out, rows, placed, own, residual)
    if known is None and not wanted.errors:
        return with_index(out, newdata)
    targets, some = new_targets(fit, newdata, inputs, rows, placed, own, kind, wanted)
    told = None
    if known is not None:
        assert rows.told is not None
        told = rows.told[some]
        out[some] += known.signals(fit, targets, told)
    if not wanted.errors:
        return with_index(out, newdata)
    from lmmfast.prediction.intervals import frame, standard_errors

    error, df = np.full((2, len(out)), np.nan)
    error[some], df[some] = standard_errors(fit, targets, wanted.uncertainty, known, told)
    return frame(with_index(out, newdata), error, df, wanted.interval, wanted.alpha)


def _of_the_rows(
    fit: LMMResult, level: str, residual: str, kind: str, wanted: Wanted, given: Any
) -> Array | pd.Series[float] | pd.DataFrame:
    """Predictions of the rows of the fit."""
    if residual == "errors" or given is not None:
        option = "given=" if given is not None else "residual='errors'"
        raise ValueError(f"{option} is for new rows: of those of the fit the response is known")
    estimate = fitted(fit, level, residual)
    if not wanted.errors:
        return estimate
    return errors_of_the_rows(fit, estimate, level, kind, wanted)


def new_targets(
    fit: LMMResult,
    newdata: Any,
    inputs: Inputs,
    rows: ReadRows,
    placed: PlacedRows | None,
    own: Predictor,
    residual: str,
    wanted: Wanted,
) -> tuple[Targets, NDArray[np.intp]]:
    """Collect what errors of new rows depend on, of those that have a prediction."""
    batch, n = rows.batch, rows.batch.n_rows
    if placed is not None:
        some = placed.rows
        places, sds = placed.places, placed.sds
    else:
        places, weights = None, np.ones(n)
        if wanted.interval == "prediction":
            weights = weights_of(fit, newdata, inputs, n)
        some = np.flatnonzero(~rows.left_out & ~np.isnan(weights))
        sds = np.broadcast_to(sds_of(fit, None, weights[some]), (len(some),))
    levels = [np.full(len(some), -1) for _ in fit._grouping]
    for factor, position in zip(own.factors, rows.positions, strict=True):
        levels[factor] = position[some]
    targets = Targets(
        x=columns_at([batch.X[j] for j in fit._keep], some),
        z=columns_at(batch.Z, some) if batch.Z else np.zeros((len(some), len(fit.z_names))),
        levels=levels,
        signal=list(own.factors),
        residual=residual,
        places=places,
        sds=sds,
        observation=wanted.interval == "prediction",
    )
    return targets, some


def errors_of_the_rows(
    fit: LMMResult, estimate: Any, level: str, residual: str, wanted: Wanted
) -> pd.DataFrame:
    """Return a frame of fitted values with errors."""
    design = design_of(fit)
    n = design.n_obs
    batch = design.batch(slice(0, n)).as_float()
    signal = fit._factors_at(level)
    levels = [
        codes if factor in signal else np.full(n, -1)
        for factor, codes in enumerate(fit._level_codes)
    ]
    places, sds = None, np.broadcast_to(sds_of(fit, None, batch.weights), (n,))
    if fit._residual_model is not None:
        known, used = known_rows(fit)
        back = np.empty(n, dtype=np.intp)
        back[used] = np.arange(n)
        places, sds = known.places.take(back), np.asarray(residual_sds(fit))
    every = np.arange(n)
    targets = Targets(
        x=columns_at([batch.X[j] for j in fit._keep], every),
        z=columns_at(batch.Z, every),
        levels=levels,
        signal=signal,
        residual=residual,
        places=places,
        sds=sds,
        observation=wanted.interval == "prediction",
    )
    from lmmfast.prediction.intervals import frame, standard_errors

    error, df = standard_errors(fit, targets, wanted.uncertainty)
    error, df = (np.asarray(design.report(one)[0]) for one in (error, df))
    return frame(estimate, error, df, wanted.interval, wanted.alpha)


def _add_residuals(
    fit: LMMResult,
    out: Array,
    rows: ReadRows,
    placed: PlacedRows,
    own: Predictor,
    residual: str,
) -> None:
    """Add what other rows of groups that the fit knows tell of the residuals of new rows."""
    names = [effects.name for effects in own.effects]
    position = rows.positions[names.index(fit._innermost)][placed.rows]
    known = np.flatnonzero(position >= 0)
    if len(known):
        check_rows_are_there(fit, residual)
        cluster, places = cluster_of(fit, position[known]), placed.places.take(known)
        out[placed.rows[known]] += expected(fit, cluster, places, placed.sds[known])


def rowless_predictor(fit: LMMResult, level: Any, residual: str, what: str) -> Predictor:
    """Collect what predictions at a level are made of where no rows of the fit are at hand.

    Parameters
    ----------
    residual : {"process", "none"}
    what : str
        Who asks, for the message.

    Raises
    ------
    UnsupportedModelError
        Predictions that take rows of the fit: with a process of the residuals.
    """
    check_choice("residual", residual, ("process", "none"))
    if takes_residuals(fit, level, residual):
        raise UnsupportedModelError(
            f"{what} holds no rows, and conditional predictions have the process of {fit.residual} "
            "in them, which takes those of the group: pass residual='none' for X beta + Z b, or "
            "use predict()"
        )
    return predictor(fit, level)


def predictor(fit: LMMResult, level: str, alone: bool = False) -> Predictor:
    """Collect what predictions of new rows at a level are made of.

    Parameters
    ----------
    alone : bool
        A fit that was saved without its effects will do: it knows no group.
    """
    factors = tuple(fit._factors_at(level))
    if alone and fit._engine is None and "_effects" not in fit.__dict__ and len(factors) == 1:
        nobody = np.empty((0, len(fit.z_names))), np.empty(0, dtype=object)
        known = [FactorEffects(fit.group_name, np.arange(len(fit.z_names)), *nobody)]
    else:
        known = [fit._factor_effects[k] for k in factors]
    beta, dropped = fit._estimates.beta, tuple(fit.dropped_columns)
    return Predictor(fit.spec, fit._keep, beta, factors, tuple(known), dropped)


def normalized(fit: LMMResult) -> Array:
    """L_i^-1 (y_i - X_i beta) with V_i = L_i L_i', for chunks of whole clusters.

    With a residual structure the rows of a cluster are taken in the order of their times.
    """
    design = design_of(fit)
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


def _whitened(fit: LMMResult, batch: Batch, ptr: NDArray[np.int64]) -> Array:
    """L_i^-1 r_i of the residuals r_i = y_i - X_i beta."""
    assert batch.y is not None
    r = batch.y - linear(batch.X, fit, len(batch.y))
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


def _indexed(fit: LMMResult, values: Array) -> Array | pd.Series[float]:
    """Values of the rows used, with the index of the user's pandas frame if there is one."""
    values, index = design_of(fit).report(values)
    if index is None:
        return values
    import pandas as pd

    return pd.Series(values, index=index)
