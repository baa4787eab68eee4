"""Pictures of the covariance that a fit implies, and of how it suits the residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.implied.implied import implied_covariance
from lmmfast.literals import CovarianceKind, LagKind, LagResiduals
from lmmfast.plots.axes import LINE, OBSERVED, SUBJECT, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from lmmfast.result import LMMResult

#: Matrices of up to this many rows have their values written in.
VALUES_UP_TO = 12
#: Of longer clusters this many rows are shown.
MOST_SHOWN = 200
#: Numbers of pairs stand upright below more lags.
UPRIGHT_FROM = 13


def plot_covariance(
    fit: LMMResult,
    group: Any = None,
    at: Any = None,
    *,
    kind: CovarianceKind = "correlation",
    values: bool | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the matrix V that a fit implies as a heatmap.

    Parameters
    ----------
    fit : LMMResult
    group, at
        Which cluster, or which rows: see `LMMResult.implied_covariance`. Of a cluster of more than
        200 rows 200 are shown, evenly chosen.
    kind : {"correlation", "covariance"}
    values : bool, optional
        Whether to write the values into the cells; default: up to 12 rows.
    ax : matplotlib Axes, optional
        By default a new figure's.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    PlotError
        matplotlib is not installed.
    DataError
        As `LMMResult.implied_covariance`.

    Examples
    --------
    >>> import lmmfast as lf
    >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    >>> ax = fit.plot_covariance()  # doctest: +SKIP
    """
    if kind not in ("correlation", "covariance"):
        raise ValueError(f"kind={kind!r}: choose 'correlation' or 'covariance'")
    ax = new_axes() if ax is None else ax
    matrix, shown = _matrix(fit, group, at)
    entries = matrix.to_numpy()
    if kind == "correlation":
        sd = np.sqrt(np.diag(entries))
        entries = entries / sd[:, None] / sd
    _draw_matrix(ax, entries, kind)
    if len(entries) <= VALUES_UP_TO if values is None else values:
        _write_values(ax, entries, kind)
    _label(ax, matrix.index)
    ax.set_title(f"Implied {kind}, {shown}\n{_model_text(fit)}", fontsize=10)
    return ax


def _matrix(fit: LMMResult, group: Any, at: Any) -> tuple[pd.DataFrame, str]:
    """V and what it is of."""
    import pandas as pd

    chosen = fit._find_group(group, at is not None)
    if at is not None:
        return implied_covariance(fit, group, at), "chosen rows" if group is None else str(chosen)
    n, part = len(chosen.places), chosen.part(MOST_SHOWN)
    labels = fit._row_labels(part.places)
    shown = f"{chosen}, {MOST_SHOWN} of {n} rows" if n > MOST_SHOWN else str(chosen)
    return pd.DataFrame(fit._implied(part), index=labels, columns=labels), shown


def _model_text(fit: LMMResult) -> str:
    random = ", ".join(f"({' + '.join(term.names)} | {term.group})" for term in fit.terms)
    parts = [random, "" if fit.residual.is_independent else str(fit.residual)]
    return " + ".join(part for part in parts if part) or str(fit.residual)


def _draw_matrix(ax: Axes, entries: Array, kind: str) -> None:
    largest = 1.0 if kind == "correlation" else float(np.abs(entries).max())
    image = ax.imshow(entries, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.85)
    bar.outline.set_visible(False)
    if (entries >= 0).all():
        bar.ax.set_ylim(0, largest)
    ax.spines[:].set_visible(False)


def _write_values(ax: Axes, entries: Array, kind: str) -> None:
    """Values in the cells, white on dark ones."""
    largest = np.abs(entries).max()
    size = float(np.clip(60 / len(entries), 6, 10))
    for (j, k), value in np.ndenumerate(entries):
        text = f"{value:.2f}" if kind == "correlation" else f"{value:.3g}"
        dark = abs(value) > 0.6 * largest
        ax.text(
            k, j, text, ha="center", va="center", fontsize=size, color="white" if dark else "0.15"
        )


def _label(ax: Axes, index: pd.Index[Any]) -> None:
    """Labels of about a dozen rows."""
    n = len(index)
    ticks = np.unique(np.linspace(0, n - 1, min(n, 12)).round().astype(int))
    texts = [_text(index[k]) for k in ticks]
    upright = max(map(len, texts)) * len(texts) > 40
    ax.set_xticks(ticks, texts, rotation=90 if upright else 0)
    ax.set_yticks(ticks, texts)
    name = ", ".join(str(part) for part in index.names)
    ax.set_xlabel(name)
    ax.set_ylabel(name)
    ax.tick_params(length=0)


def _text(label: Any) -> str:
    if isinstance(label, tuple):
        return ", ".join(_text(part) for part in label)
    return f"{label:.4g}" if isinstance(label, float) else str(label)


def plot_acf(
    fit: LMMResult,
    along: Any = None,
    *,
    kind: LagKind = "correlation",
    residuals: LagResiduals = "marginal",
    max_lag: float | None = None,
    bins: int | None = None,
    within: str | None = None,
    pairs: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the autocorrelation of the residuals by lag against that of the model.

    Points are empirical, with twice their standard error where there are ten clusters or more;
    the line is what the fit implies for the same pairs of rows, random effects included. Points
    that leave it over several lags say that something is missing.

    Parameters
    ----------
    fit : LMMResult
    along, kind, residuals, max_lag, bins, within
        See `LMMResult.acf`.
    pairs : bool
        Write the number of pairs of rows at each lag below the points.
    ax : matplotlib Axes, optional
        By default a new figure's.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    PlotError
        matplotlib is not installed.
    DataError
        No such column, or no cluster with two rows.

    References
    ----------
    Diggle, P. J., Heagerty, P., Liang, K.-Y. and Zeger, S. L. (2002). Analysis of Longitudinal
    Data, 2nd edition, sections 3.4 and 5.2.

    Examples
    --------
    >>> import lmmfast as lf
    >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    >>> ax = fit.plot_acf()  # doctest: +SKIP
    """
    from lmmfast.implied.autocorrelation import lag_axis

    ax = new_axes() if ax is None else ax
    table = fit.acf(
        along, kind=kind, residuals=residuals, max_lag=max_lag, bins=bins, within=within
    )
    if kind == "semivariogram":
        ax.axhline(1.0, color="0.6", lw=0.8, zorder=1)
    ax.axhline(0.0, color="0.6", lw=0.8, zorder=1)
    _draw_acf(ax, table, residuals)
    _make_room(ax, table, pairs)
    if pairs:
        _write_pairs(ax, table)
    ax.set_xlabel(f"lag ({lag_axis(fit, along, fit._grouped_rows(within)).name})")
    name = "semivariogram" if kind == "semivariogram" else "autocorrelation"
    ax.set_ylabel(name if residuals == "marginal" else f"{name} of whitened residuals")
    ax.set_title(_model_text(fit), fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=9, ncols=2, loc="upper right")
    return ax


def _draw_acf(ax: Axes, table: pd.DataFrame, residuals: str) -> None:
    lag, empirical = table["lag"].to_numpy(), table["empirical"].to_numpy()
    if residuals == "marginal":
        ax.plot(lag, table["fitted"], "-", lw=2, color=LINE, label="fitted", zorder=2)
    error = table["std_error"].to_numpy()
    label = "residuals"
    if np.isfinite(error).any():
        label += " ± 2 SE"
        ax.errorbar(
            lag, empirical, 2 * error, fmt="none", ecolor=OBSERVED, elinewidth=1, zorder=2.5
        )
    ax.plot(lag, empirical, "o", ms=5, color=SUBJECT, label=label, zorder=3)


def _make_room(ax: Axes, table: pd.DataFrame, pairs: bool) -> None:
    """Space for the legend above the points and for the numbers of pairs below them."""
    lags = table["lag"].to_numpy()
    ax.set_xlim(min(0.0, lags.min()), lags.max() + 0.04 * np.ptp(np.append(lags, 0.0)))
    if (lags == np.round(lags)).all() and len(lags) < UPRIGHT_FROM:
        ax.set_xticks(lags, [f"{lag:.0f}" for lag in lags])
    reach = 2 * table["std_error"].fillna(0.0)
    low = min(0.0, table["fitted"].min(), (table["empirical"] - reach).min())
    high = max(table["fitted"].max(), (table["empirical"] + reach).max())
    below = 0.05 if not pairs else 0.2 if len(table) >= UPRIGHT_FROM else 0.14
    low, high = low - below * (high - low), high + 0.17 * (high - low)
    others = [other for other in ax.get_shared_y_axes().get_siblings(ax) if other is not ax]
    if any(other.has_data() for other in others):
        low, high = min(low, ax.get_ylim()[0]), max(high, ax.get_ylim()[1])
    ax.set_ylim(low, high)


def _write_pairs(ax: Axes, table: pd.DataFrame) -> None:
    """Numbers of pairs of rows, along the lower edge, below all points."""
    upright = len(table) >= UPRIGHT_FROM
    for lag, count in zip(table["lag"], table["pairs"], strict=True):
        ax.text(
            lag,
            0.02,
            _short(int(count)),
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=7,
            color="0.4",
            rotation=90 if upright else 0,
        )
    ax.text(1.01, 0.02, "pairs", transform=ax.transAxes, va="bottom", fontsize=7, color="0.4")


def _short(count: int) -> str:
    """Three digits: ``"41k"``."""
    for size, unit in ((1_000_000, "M"), (10_000, "k")):
        if count >= size:
            scaled = count / (1_000_000 if unit == "M" else 1000)
            return f"{scaled:.3g}{unit}"
    return str(count)
