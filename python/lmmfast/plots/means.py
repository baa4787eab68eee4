"""Marginal means with their intervals, and contrasts of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmmfast.errors import DataError
from lmmfast.plots.axes import LINE, SUBJECT, axes_for, finish, new_axes
from lmmfast.plots.levels import FEW_COLOURS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from lmmfast.inference.marginal_means import MarginalMeans

#: Distance of intervals at one place, and the width over which they are spread at most.
APART, SPREAD = 0.06, 0.4


def plot_means(
    means: MarginalMeans,
    *,
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    color: str | None = None,
) -> Axes:
    """Draw marginal means or slopes with their intervals; contrasts as rows about zero.

    With ``by=`` its values are on the horizontal axis and each level has a line. Intervals are
    those of ``means.frame``.

    Parameters
    ----------
    means : MarginalMeans
    ax : matplotlib Axes, optional
        By default a new figure's, of ``figsize`` inches.
    figsize : (float, float), optional
    title : str, optional
    color : str, optional
        Of all points; default: a colour for each level with ``by=``.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    PlotError
        matplotlib is not installed.
    DataError
        None of them is estimable.

    Examples
    --------
    >>> import lmmfast as lf
    >>> fit = lf.lmm("distance ~ age * Sex + (age | Subject)", lf.datasets.orthodont())
    >>> ax = fit.emmeans("Sex", by="age", at={"age": [8, 11, 14]}).plot()  # doctest: +SKIP
    """
    frame = means.frame
    known = frame[np.isfinite(frame["estimate"])]
    if not len(known):
        raise DataError("none of the means is estimable: there is nothing to draw")
    if "contrast" in frame:
        if ax is None and figsize is None:
            ax = new_axes(height=1.3 + 0.32 * len(frame))
        ax = axes_for(ax, figsize)
        _draw_contrasts(ax, frame, means.by, color or SUBJECT)
    else:
        ax = axes_for(ax, figsize)
        _draw_means(ax, frame, means.by, color)
    level = f"{100 * (1 - means.alpha):.4g}% intervals"
    if means.adjust != "none":
        level += f", adjusted ({means.adjust})"
    finish(ax, title, level)
    return ax


def _texts(labels: pd.DataFrame) -> list[str]:
    """The labels of each row, put together."""
    rows = labels.itertuples(index=False, name=None)
    return [", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row) for row in rows]


def _draw_contrasts(ax: Axes, frame: pd.DataFrame, by: list[str], color: str) -> None:
    """A row for each contrast, the first at the top."""
    y = np.arange(len(frame))
    ax.axvline(0.0, color="0.6", lw=0.8, zorder=1)
    ax.hlines(y, frame["conf_low"], frame["conf_high"], color=color, lw=1.2, zorder=2)
    ax.plot(frame["estimate"], y, "o", ms=5, mew=0, color=color, zorder=3)
    ax.set_yticks(y, _texts(frame[["contrast", *by]]))
    ax.set_ylim(len(frame) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("estimate")


def _draw_means(ax: Axes, frame: pd.DataFrame, by: list[str], color: str | None) -> None:
    """Points with intervals over the levels; with ``by`` a line for each level over its values."""
    first = list(frame.columns).index("estimate")
    specs = [name for name in frame.columns[:first] if name not in by]
    axis = by if by else specs
    places, ticks, x = _places(frame[axis])
    lines = _texts(frame[specs]) if by else [""] * len(frame)
    levels = list(dict.fromkeys(lines))
    apart = min(APART, SPREAD / len(levels)) * (np.diff(x).min() if len(x) > 1 else 1.0)
    for k, level in enumerate(levels):
        own = np.array([line == level for line in lines])
        shift = apart * (k - (len(levels) - 1) / 2)
        shade = color or (_colour(k, len(levels)) if by else SUBJECT)
        at, rows = places[own] + shift, frame[own]
        if by:
            ax.plot(at, rows["estimate"], "-", lw=1.2, color=shade, zorder=2)
        ax.vlines(at, rows["conf_low"], rows["conf_high"], color=shade, lw=1.2, zorder=2)
        label = level if by else None
        ax.plot(at, rows["estimate"], "o", ms=5, mew=0, color=shade, label=label, zorder=3)
    if ticks is not None:
        upright = max(map(len, ticks)) * len(ticks) > 60
        ax.set_xticks(x, ticks, rotation=90 if upright else 0)
        ax.set_xlim(x[0] - 0.5, x[-1] + 0.5)
    ax.set_xlabel(", ".join(axis))
    ax.set_ylabel("estimate")
    if by:
        ax.legend(
            title=", ".join(specs),
            frameon=False,
            fontsize=9,
            title_fontsize=9,
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
        )


def _places(labels: pd.DataFrame) -> tuple[np.ndarray, list[str] | None, np.ndarray]:
    """Where rows stand on the axis; texts of the ticks (None: numbers), and where these stand."""
    if labels.shape[1] == 1 and labels.dtypes.iloc[0].kind in "if":
        values = labels.iloc[:, 0].to_numpy(dtype=float)
        return values, None, np.unique(values)
    texts = _texts(labels)
    ticks = list(dict.fromkeys(texts))
    return np.array([ticks.index(text) for text in texts], float), ticks, np.arange(len(ticks))


def _colour(k: int, n: int) -> object:
    from matplotlib import colormaps

    if n <= FEW_COLOURS:
        return [SUBJECT, LINE, *map(colormaps["Dark2"], range(FEW_COLOURS))][k]
    return colormaps["turbo"](0.04 + 0.92 * k / (n - 1))
