"""Pictures of random effects and of how the variance divides among grouping factors."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.errors import UnsupportedModelError
from lmmfast.inference.wald import normal_quantile
from lmmfast.plots.axes import LINE, OBSERVED, SUBJECT, new_axes, new_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lmmfast.result import LMMResult

#: Up to this many levels are named.
NAMED_UP_TO = 60
#: More levels are drawn thin.
THIN_FROM = 500
#: Of more levels this many are drawn, evenly chosen from the sorted ones.
MOST_DRAWN = 5000
THIN = "#d4d4d4"


class Panel(NamedTuple):
    """An effect of a grouping factor.

    Attributes
    ----------
    factor, effect : str
    b, sd : ndarray (m,)
        Predictions and their conditional standard deviations.
    labels : ndarray (m,)
    """

    factor: str
    effect: str
    b: Array
    sd: Array
    labels: NDArray[Any]


def plot_random_effects(
    fit: LMMResult,
    factor: str | None = None,
    effect: str | None = None,
    *,
    alpha: float = 0.05,
    labels: bool | None = None,
    ax: Any = None,
) -> NDArray[Any]:
    """Draw the predicted random effects, sorted, with their intervals: a caterpillar plot.

    A panel for each effect of each grouping factor. An interval is the prediction plus and minus
    1.96 conditional standard deviations (``random_effects_cov``): the uncertainty of the fixed
    effects and of the variances is not in it, and it does not serve to compare two levels.

    Parameters
    ----------
    fit : LMMResult
    factor : str, optional
        One grouping factor.
    effect : str, optional
        One effect, such as ``"Intercept"``.
    alpha : float
        One minus the level of the intervals.
    labels : bool, optional
        Whether to name the levels; default: up to 60. Of more than 5000 levels 5000 are drawn,
        evenly chosen.
    ax : matplotlib Axes, or a sequence of as many as there are panels; optional
        By default those of a new figure.

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
        The fit has no random effects.

    Examples
    --------
    >>> import lmmfast as lf
    >>> fit = lf.lmm("strength ~ 1 + (1 | batch/cask)", lf.datasets.pastes())
    >>> axes = fit.plot_random_effects()  # doctest: +SKIP
    """
    panels = _panels(fit, factor, effect)
    named = [len(p.b) <= NAMED_UP_TO if labels is None else labels for p in panels]
    if ax is None:
        most = max((len(p.b) for p, names in zip(panels, named, strict=True) if names), default=0)
        axes = new_panels(len(panels), width=3.4, height=float(np.clip(0.17 * most + 1.1, 3.6, 40)))
    else:
        axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
        if len(axes) != len(panels):
            raise ValueError(f"there are {len(panels)} effects to draw, and {len(axes)} axes")
    for one, panel, names in zip(axes, panels, named, strict=True):
        _draw_effects(one, panel, alpha, names)
    return axes


def _panels(fit: LMMResult, factor: str | None, effect: str | None) -> list[Panel]:
    """Effects asked for, with their standard deviations."""
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
    found = []
    for name in chosen:
        frame = effects[name] if isinstance(effects, dict) else effects
        cov = covariances[name] if isinstance(covariances, dict) else covariances
        for k, column in enumerate(frame.columns):
            if effect in (None, column):
                sd = np.sqrt(np.maximum(cov[:, k, k], 0.0))
                b = frame.iloc[:, k].to_numpy()
                found.append(Panel(name, column, b, sd, frame.index.to_numpy()))
    return found


def _draw_effects(ax: Axes, panel: Panel, alpha: float, named: bool) -> None:
    m = len(panel.b)
    order = np.argsort(panel.b, kind="stable")
    if m > MOST_DRAWN:
        order = order[np.linspace(0, m - 1, MOST_DRAWN).round().astype(int)]
    b, y = panel.b[order], np.arange(len(order))
    half = normal_quantile(alpha) * panel.sd[order]
    thin = m > THIN_FROM
    ax.axvline(0.0, color=LINE, lw=1, zorder=1.5)
    shade, width = (THIN, 0.4) if thin else (OBSERVED, 1.2)
    ax.hlines(y, b - half, b + half, color=shade, lw=width, zorder=1 if thin else 2)
    size = 1.0 if thin else 4.0 if m <= NAMED_UP_TO else 2.0
    ax.plot(b, y, "o", ms=size, mew=0, color=SUBJECT, zorder=3)
    ax.set_ylim(-0.7 - 0.01 * len(y), len(y) - 0.3 + 0.01 * len(y))
    if named:
        ax.set_yticks(y, [str(label) for label in panel.labels[order]], fontsize=8)
        ax.set_ylabel(panel.factor)
    else:
        ax.set_yticks([])
        drawn = f"{len(order):,} of {m:,}" if m > len(order) else f"{m:,}"
        ax.set_ylabel(f"{drawn} levels of {panel.factor}")
    ax.set_xlabel(f"effect, {100 * (1 - alpha):.4g}% interval")
    title = textwrap.wrap(f"{panel.effect} by {panel.factor}", 44, break_on_hyphens=False)
    ax.set_title("\n".join(title), fontsize=10)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)


def plot_variance_partition(fit: LMMResult, *, ax: Axes | None = None) -> Axes:
    """Draw the shares of the variance as bars, one for each grouping factor and the residuals.

    Parameters
    ----------
    fit : LMMResult
        See `LMMResult.variance_partition` for what is drawn.
    ax : matplotlib Axes, optional
        By default a new figure's.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    PlotError
        matplotlib is not installed.

    Examples
    --------
    >>> import lmmfast as lf
    >>> fit = lf.lmm("strength ~ 1 + (1 | batch/cask)", lf.datasets.pastes())
    >>> ax = fit.plot_variance_partition()  # doctest: +SKIP
    """
    table = fit.variance_partition()
    if ax is None:
        ax = new_axes(height=1.3 + 0.45 * len(table))
    share, y = 100 * table["share"].to_numpy(), np.arange(len(table))
    colours = [SUBJECT] * (len(table) - 1) + [OBSERVED]
    ax.barh(y, share, height=0.7, color=colours)
    for k, (value, variance) in enumerate(zip(share, table["variance"], strict=True)):
        ax.annotate(
            f"{value:.1f}%  ({variance:.4g})",
            (value, k),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    ax.set_yticks(y, [str(name) for name in table.index])
    ax.invert_yaxis()
    ax.set_xlim(0, max(1.25 * share.max(), 1.0))
    ax.set_xticks([tick for tick in ax.get_xticks() if tick <= 100])
    ax.set_xlabel("share of the variance, % (variance)")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax
