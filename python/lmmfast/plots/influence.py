"""Influence of groups and rows as stems, the largest of them named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.errors import DataError
from lmmfast.plots.axes import LINE, OBSERVED, SUBJECT, axes_for, finish

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from lmmfast.result import LMMResult

#: Of more groups the most influential ones are drawn.
MOST_DRAWN = 5000
NAMES = {
    "cooks_d": "Cook's distance",
    "covratio": "COVRATIO",
    "leverage": "leverage",
    "theta_d": "distance of the variance parameters",
}


def plot_influence(
    fit: LMMResult,
    measure: str = "cooks_d",
    *,
    by: str | None = None,
    influence: pd.DataFrame | None = None,
    n_labels: int = 5,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    color: str = SUBJECT,
) -> Axes:
    """Draw a measure of influence for each group, or each row, as stems.

    Parameters
    ----------
    fit : LMMResult
    measure : str
        A column of `LMMResult.influence`, such as "cooks_d", "covratio", "dfb_age".
    by : str, optional
        See `LMMResult.influence`.
    influence : DataFrame, optional
        What `LMMResult.influence` returned, not to compute it again.
    n_labels : int
        How many of the most influential ones are named.
    ax : matplotlib Axes, optional
        By default a new figure's, of ``figsize`` inches.
    figsize : (float, float), optional
    title : str, optional
        An empty one: none.
    color : str
        Of the stems.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    PlotError
        matplotlib is not installed.
    DataError
        No such measure, or as `LMMResult.influence`.

    Examples
    --------
    >>> import lmmfast as lf
    >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    >>> ax = fit.plot_influence()  # doctest: +SKIP
    """
    if influence is None:
        influence = fit.influence(by)
    if measure not in influence.columns:
        names = ", ".join(map(repr, influence.columns))
        raise DataError(f"measure={measure!r}: choose one of {names}")
    values = influence[measure].to_numpy(dtype=float)
    zero = 1.0 if measure == "covratio" else 0.0
    known = np.flatnonzero(np.isfinite(values))
    largest = known[np.argsort(-np.abs(values[known] - zero), kind="stable")]
    drawn = np.sort(largest[:MOST_DRAWN])
    ax = axes_for(ax, figsize)
    many = len(drawn) > 200
    ax.axhline(zero, color="0.6", lw=0.8, zorder=1)
    ax.vlines(drawn, zero, values[drawn], color=OBSERVED if many else color, lw=0.8, zorder=2)
    ax.plot(drawn, values[drawn], "o", ms=2 if many else 4, mew=0, color=color, zorder=3)
    _name_largest(ax, influence.index, values, zero, largest[:n_labels])
    low, high = min(values[known].min(initial=zero), zero), values[known].max(initial=zero)
    room = 0.18 * (high - low or 1.0)  # for the names
    ax.set_ylim(low - room if low < zero else low - 0.1 * room, high + room)
    ax.set_xticks([])
    name = influence.index.name or ("row" if by in (None, "row") else by)
    part = f"the {len(drawn):,} most influential of {len(values):,}"
    ax.set_xlabel(f"{name}, {part}" if len(known) > len(drawn) else str(name))
    ax.set_ylabel(NAMES.get(measure, measure))
    finish(ax, title, f"Influence of each {name}")
    return ax


def _name_largest(ax: Axes, index: pd.Index[Any], values: Any, zero: float, chosen: Any) -> None:
    """Write labels beside the ends of some stems."""
    for k in chosen:
        ax.annotate(
            str(index[k]),
            (k, values[k]),
            xytext=(0, 4 if values[k] >= zero else -4),
            textcoords="offset points",
            ha="center",
            va="bottom" if values[k] >= zero else "top",
            rotation=90,
            fontsize=8,
            color=LINE,
        )
