"""Quantiles of residuals and of random effects beside those of the normal distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.errors import UnsupportedModelError
from lmmfast.plots.axes import LINE, SUBJECT, axes_for, finish, new_panels
from lmmfast.plots.residuals import KIND_NAMES, residuals_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lmmfast.result import LMMResult

#: Of more points about this many are drawn: all of the ends, the others evenly chosen.
MOST_POINTS = 3000
ENDS = 200
BAND = "#e4e4e4"


def plot_qq(
    fit: LMMResult,
    *,
    kind: str = "studentized",
    level: Any = None,
    alpha: float = 0.05,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    color: str = SUBJECT,
) -> Axes:
    """Draw the quantiles of residuals over those of the normal distribution.

    Parameters
    ----------
    fit : LMMResult
    kind : {"studentized", "normalized", "pearson", "response"}
        Response residuals are divided by their root mean square.
    level : str, optional
        As in `LMMResult.residuals`.
    alpha : float
        One minus the level of the band, within which each order statistic by itself would be.
    ax : matplotlib Axes, optional
        By default a new figure's, of ``figsize`` inches.
    figsize : (float, float), optional
    title : str, optional
        An empty one: none.
    color : str
        Of the points.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    PlotError
        matplotlib is not installed.
    DataError
        A fit that holds no data.

    Examples
    --------
    >>> import lmmfast as lf
    >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    >>> ax = fit.plot_qq()  # doctest: +SKIP
    """
    values, level = residuals_of(fit, kind, level)
    values = values[np.isfinite(values)]
    if kind == "response":
        values = values / np.sqrt(np.mean(values**2))
    ax = axes_for(ax, figsize)
    draw_quantiles(ax, values, alpha, color)
    ax.set_ylabel(f"{KIND_NAMES[kind]} residuals, {level}")
    finish(ax, title, "Normal quantiles of residuals")
    return ax


def plot_qq_effects(
    fit: LMMResult,
    factor: str | None = None,
    effect: str | None = None,
    *,
    alpha: float = 0.05,
    ax: Any = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    color: str = SUBJECT,
) -> NDArray[Any]:
    """Draw the quantiles of the predicted random effects over those of the normal distribution.

    Predictions are divided by the standard deviations that they have if the model holds, the roots
    of D_kk - Var(b_k | y), which differ where groups differ in size.

    Parameters
    ----------
    fit : LMMResult
    factor, effect : str, optional
        One grouping factor, one effect; by default a panel for each effect of each factor.
    alpha
        See `plot_qq`.
    ax : matplotlib Axes, or a sequence of as many as there are panels; optional
        By default those of a new figure, of ``figsize`` inches in all.
    figsize, title, color
        See `plot_qq`.

    Returns
    -------
    ndarray of matplotlib Axes

    Raises
    ------
    PlotError
        matplotlib is not installed.
    ValueError
        No such grouping factor or effect, or another number of axes than panels.
    UnsupportedModelError
        The fit has no random effects with a variance.

    Notes
    -----
    Predictions are pulled towards the normal distribution by the model that they come from: with
    few rows a group the picture shows gross departures alone.

    Examples
    --------
    >>> import lmmfast as lf
    >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    >>> axes = fit.plot_qq_effects()  # doctest: +SKIP
    """
    panels = _standardised(fit, factor, effect)
    if ax is None:
        axes = new_panels(len(panels), 3.4, 3.6)
        if figsize is not None:
            axes[0].figure.set_size_inches(figsize)
    else:
        axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
        if len(axes) != len(panels):
            raise ValueError(f"there are {len(panels)} effects to draw, and {len(axes)} axes")
    for one, (name, values) in zip(axes, panels, strict=True):
        draw_quantiles(one, values, alpha, color)
        one.set_ylabel("standardised prediction")
        finish(one, title, name)
    return axes


def _standardised(
    fit: LMMResult, factor: str | None, effect: str | None
) -> list[tuple[str, Array]]:
    """Names and standardised predictions of the effects asked for that have a variance."""
    if not fit.terms:
        raise UnsupportedModelError("the fit has no random effects to draw")
    factors = list(dict.fromkeys(term.group for term in fit.terms))
    if factor is not None:
        check_choice("factor", factor, factors)
    chosen = factors if factor is None else [factor]
    names = list(dict.fromkeys(n for t in fit.terms if t.group in chosen for n in t.names))
    if effect is not None:
        check_choice("effect", effect, names)
    effects: Any = fit.random_effects
    covariances: Any = fit.random_effects_cov
    variances = np.diag(fit.cov_re.to_numpy())
    owners = [(term.group, name) for term in fit.terms for name in term.names]
    found = []
    for group in chosen:
        frame = effects[group] if isinstance(effects, dict) else effects
        cov = covariances[group] if isinstance(covariances, dict) else covariances
        own = [k for k, (name, _) in enumerate(owners) if name == group]
        for place, k in enumerate(own):
            if effect not in (None, owners[k][1]):
                continue
            spread = variances[k] - cov[:, place, place]
            known = spread > 1e-9 * variances[k]
            if known.any():
                values = frame.iloc[:, place].to_numpy()[known] / np.sqrt(spread[known])
                found.append((f"{owners[k][1]} by {group}", values))
    if not found:
        raise UnsupportedModelError("the random effects have no variance: there is nothing to draw")
    return found


def draw_quantiles(ax: Axes, values: Array, alpha: float, color: str) -> None:
    """Draw sorted values over normal quantiles, the line of equality and a pointwise band."""
    from scipy.stats import beta, norm

    n = len(values)
    values = np.sort(values)
    places = _drawn(n)
    x = norm.ppf((places + 0.5) / n)
    rank = places + 1.0
    low, high = (norm.ppf(beta.ppf(q, rank, n + 1 - rank)) for q in (alpha / 2, 1 - alpha / 2))
    label = f"{100 * (1 - alpha):.4g}% band"
    ax.fill_between(x, low, high, color=BAND, lw=0, zorder=1, label=label)
    ax.plot(x[[0, -1]], x[[0, -1]], color=LINE, lw=1, zorder=2)
    size = 4.0 if n <= 500 else 2.5
    ax.plot(x, values[places], "o", ms=size, mew=0, color=color, zorder=3)
    ax.set_xlabel("normal quantile")
    ax.legend(frameon=False, fontsize=8, loc="upper left", handlelength=1.2)


def _drawn(n: int) -> NDArray[np.intp]:
    """Which of n sorted values are drawn."""
    if n <= MOST_POINTS:
        return np.arange(n)
    inner = np.linspace(ENDS, n - ENDS - 1, MOST_POINTS - 2 * ENDS).round().astype(int)
    return np.concatenate([np.arange(ENDS), inner, np.arange(n - ENDS, n)])
