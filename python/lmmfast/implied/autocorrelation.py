"""Autocorrelation of residuals within clusters by lag, beside that of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.data.columns import read_column
from lmmfast.data.frame import as_float
from lmmfast.data.tables import suggest
from lmmfast.design.from_formula import FormulaDesign
from lmmfast.errors import DataError
from lmmfast.implied.implied import GroupedRows
from lmmfast.implied.pairs import Pairs, Sample
from lmmfast.residual import definitions

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.covariance.joint import JointCovariance
    from lmmfast.result import LMMResult

#: As many distinct lags have a bin each.
FEW_LAGS = 30
#: Bins of more.
BINS = 15
#: More bins than a figure shows.
MOST_BINS = 10_000
#: Fewer clusters say nothing about the variation between clusters.
FEWEST_CLUSTERS = 10


def acf(
    fit: LMMResult,
    along: Any,
    kind: str,
    residuals: str,
    max_lag: float | None,
    bins: int | None,
    within: str | None,
) -> pd.DataFrame:
    """Return lag, pairs, empirical, std_error, fitted; see `LMMResult.acf`."""
    import pandas as pd

    check_choice("kind", kind, ("correlation", "semivariogram"))
    check_choice("residuals", residuals, ("marginal", "normalized"))
    if max_lag is not None and not 0 < max_lag < np.inf:
        raise ValueError(f"max_lag={max_lag!r} must be positive and finite")
    if bins is not None and not (isinstance(bins, int | np.integer) and 1 <= bins <= MOST_BINS):
        raise ValueError(f"bins={bins!r} must be a whole number from 1 to {MOST_BINS:,}")
    grouped = fit._grouped_rows(within)
    axis = lag_axis(fit, along, grouped)
    sample = Sample(fit, axis.coords, residuals == "normalized", grouped)
    furthest = max_lag if max_lag is not None else _furthest(sample, axis)
    edges = _edges(sample, axis, furthest, bins)
    sums = _Sums(len(edges) - 1)
    for pairs in sample.pairs(furthest):
        sums.add(pairs, edges, kind)
    used = sums.n > 0
    if not used.any():
        raise DataError(f"no cluster has two rows within a lag of {furthest:g}: nothing to compare")
    return pd.DataFrame(
        {
            "lag": sums.lag[used] / sums.n[used],
            "pairs": sums.n[used].astype(np.int64),
            "empirical": sums.ratio[used],
            "std_error": sums.std_error()[used] if grouped.independent else np.nan,
            "fitted": sums.fitted[used] / sums.n[used],
        }
    )


# -- what lags are differences of ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LagAxis:
    """Coordinates whose distances are the lags.

    Attributes
    ----------
    coords : ndarray (n, d)
        In the order of `row_order`.
    name : str
    whole : bool
        Levels or rows: lags are whole numbers, all of which are shown.
    fitted_range : float
        Of the fitted correlation; 0 where it has none.
    """

    coords: Array
    name: str
    whole: bool
    fitted_range: float = 0.0


def lag_axis(fit: LMMResult, along: Any, grouped: GroupedRows) -> LagAxis:
    """Find what lags are differences of."""
    if along is not None:
        return _chosen_axis(fit, along)
    model, correlation = fit._residual_model, fit.residual.correlation
    if model is not None and correlation is not None and correlation.columns:
        name = ", ".join(correlation.columns)
        if model.positions is not None:
            return LagAxis(model.positions[:, None].astype(float), f"levels of {name}", True)
        assert model.coords is not None
        if correlation.kind == "ar1":
            return LagAxis(model.coords, name, True)
        parameters = model.parameters
        return LagAxis(model.coords * parameters.unit, name, False, _fitted_range(fit))
    slopes = [name for name in dict.fromkeys(fit.z_names) if name != "Intercept"]
    if len(slopes) == 1:
        return _chosen_axis(fit, slopes[0])
    order, number = np.argsort(grouped.unit, kind="stable"), np.empty(fit.nobs)
    sizes = np.bincount(grouped.unit)
    number[order] = np.arange(fit.nobs) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return LagAxis(number[:, None], "rows", True)


def _fitted_range(fit: LMMResult) -> float:
    """Distance at which the correlation has fallen to about a third."""
    covariance = cast("JointCovariance", fit._covariance)
    correlation = covariance.residual.correlation
    if correlation is None or correlation.kind not in definitions.DISTANCES:
        return 0.0
    kappa = covariance.kappa(fit._phi)
    psi = [kappa[stratum.psi][0] for stratum in covariance.residual.strata]
    return float(np.exp(max(psi)) * covariance.residual.unit)


def _chosen_axis(fit: LMMResult, along: Any) -> LagAxis:
    name = along if isinstance(along, str) else str(getattr(along, "name", None) or "time")
    values = _values(fit, along)
    if len(values) != fit.nobs:
        raise DataError(f"along has {len(values)} values, but the fit used {fit.nobs} rows")
    if not np.isfinite(values).all():
        raise DataError(f"along has values of {name!r} that are missing or infinite")
    return LagAxis(values[fit._row_order()][:, None], name, False)


def _values(fit: LMMResult, along: Any) -> Array:
    """Numbers (n,) in the order of the data; levels of factors by their place."""
    design = fit._need(fit._design, "autocorrelations")
    if not isinstance(along, str):
        column = read_column("along", along)
        if column.is_factor:
            raise DataError("along must be numbers, or the name of a column of the model")
        return as_float(column.values)
    columns = design.residual_columns
    if along in columns:
        return as_float(columns[along].values)
    batch = design.batch(slice(None)).as_float()
    z_names = [name for term in design.terms for name in term.names]
    named = dict(zip([*design.x_names, *z_names], [*batch.X, *batch.Z], strict=True))
    if along in named:
        return named[along]
    if isinstance(design, FormulaDesign) and along in design.column_names:
        return as_float(design.column(along).values)
    raise DataError(f"the model has no column {along!r}{suggest(along, [*named, *columns])}")


# -- bins ------------------------------------------------------------------------------------------


def _furthest(sample: Sample, axis: LagAxis) -> float:
    """Longest lag shown: what can be seen in a series, and of the fitted correlation."""
    span = sample.span()
    if axis.coords.shape[1] > 1:
        return span / 2
    if axis.whole and span <= FEW_LAGS:
        return span
    n_steps = max(10.0, 10.0 * np.log10(sample.longest))
    return float(min(span, max(n_steps * sample.step(), 3 * axis.fitted_range)))


def _edges(sample: Sample, axis: LagAxis, furthest: float, bins: int | None) -> Array:
    """Edges of the bins: each but the first belongs to the bin before it."""
    end = furthest * (1 + 1e-9)
    if bins is None:
        if axis.whole and furthest <= 2 * FEW_LAGS:
            return np.arange(np.floor(end) + 1) + 0.5
        lags = np.unique(np.concatenate([p.lag for p in sample.pairs(furthest, first=True)]))
        lags = lags[np.diff(lags, prepend=-np.inf) > 1e-6 * furthest]
        if 0 < len(lags) <= FEW_LAGS:
            middle = (lags[1:] + lags[:-1]) / 2
            return np.concatenate([[lags[0] * (1 - 1e-9)], middle, [end]])
    return np.linspace(0.0, end, (bins or BINS) + 1)


# -- sums over pairs, by lag -----------------------------------------------------------------------


class _Sums:
    """Sums over the pairs of each bin, and sums of squares over blocks for the standard error."""

    def __init__(self, n_bins: int) -> None:
        self.n, self.lag, self.fitted, self._S, self._W = np.zeros((5, n_bins))
        self._SS, self._SW, self._WW, self._clusters = np.zeros((4, n_bins))

    def add(self, pairs: Pairs, edges: Array, kind: str) -> None:
        """Add the pairs of some blocks; those of a block come all at once."""
        bins = np.searchsorted(edges, pairs.lag, side="left") - 1
        bins[pairs.lag == edges[0]] = 0
        inside = (bins >= 0) & (bins < len(self.n))
        bins, n_bins = bins[inside], len(self.n)
        e, f, fitted = pairs.e[inside], pairs.f[inside], pairs.fitted[inside]
        if kind == "semivariogram":
            value, weight, fitted = 0.5 * (e - f) ** 2, np.ones(len(e)), 1.0 - fitted
        else:
            value, weight = e * f, 0.5 * (e**2 + f**2)
        self.n += np.bincount(bins, minlength=n_bins)
        self.lag += np.bincount(bins, pairs.lag[inside], n_bins)
        self.fitted += np.bincount(bins, fitted, n_bins)
        _, cluster = np.unique(pairs.block[inside], return_inverse=True)
        m = int(cluster.max()) + 1 if len(cluster) else 0
        cell = cluster * n_bins + bins
        S, W = (np.bincount(cell, x, m * n_bins).reshape(m, n_bins) for x in (value, weight))
        for total, term in (
            (self._S, S),
            (self._W, W),
            (self._SS, S * S),
            (self._SW, S * W),
            (self._WW, W * W),
            (self._clusters, W > 0),
        ):
            total += term.sum(axis=0)

    @property
    def ratio(self) -> Array:
        """Autocorrelations or semivariances."""
        with np.errstate(all="ignore"):
            return np.asarray(self._S / self._W)

    def std_error(self) -> Array:
        """Standard errors of ratios of sums over independent clusters."""
        with np.errstate(all="ignore"):
            k, ratio = self._clusters, self.ratio
            squares = self._SS - 2 * ratio * self._SW + ratio**2 * self._WW
            out = np.sqrt(np.maximum(squares, 0.0) * k / (k - 1)) / self._W
        out[k < FEWEST_CLUSTERS] = np.nan
        return np.asarray(out)
