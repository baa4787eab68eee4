"""Residuals against fitted values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.plots.axes import LINE, SUBJECT, axes_for, finish

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lmmfast.result import LMMResult

#: Of more rows this many are drawn, evenly chosen in the order of the fitted values.
MOST_POINTS = 5000
#: The line is of means of about this many rows, in up to so many intervals.
MEAN_OF, MOST_MEANS = 20, 25
KIND_NAMES = {
    "studentized": "studentized",
    "pearson": "Pearson",
    "normalized": "normalized",
    "response": "standardised",
}


def plot_residuals(
    fit: LMMResult,
    *,
    kind: str = "studentized",
    level: Any = "conditional",
    ax: Axes | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    color: str = SUBJECT,
) -> Axes:
    """Draw residuals over fitted values, with a line through their means.

    The line should run along zero, and the points should be as far from it on the left as on the
    right.

    Parameters
    ----------
    fit : LMMResult
    kind : {"studentized", "pearson", "response", "normalized"}
    level : str
        Of residuals and fitted values, as in `LMMResult.residuals`; normalized residuals are drawn
        over population values.
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
    >>> ax = fit.plot_residuals()  # doctest: +SKIP
    """
    values, level = residuals_of(fit, kind, "population" if kind == "normalized" else level)
    fitted = np.asarray(fit.fitted(level), dtype=float)
    known = np.isfinite(values) & np.isfinite(fitted)
    values, fitted = values[known], fitted[known]
    ax = axes_for(ax, figsize)
    ax.axhline(0.0, color="0.6", lw=0.8, zorder=1)
    order = np.argsort(fitted, kind="stable")
    drawn, n = order, len(values)
    if n > MOST_POINTS:
        drawn = order[np.linspace(0, n - 1, MOST_POINTS).round().astype(int)]
    size = 4.0 if n <= 500 else 2.5 if n <= 2000 else 1.5
    ax.plot(fitted[drawn], values[drawn], "o", ms=size, mew=0, color=color, alpha=0.7, zorder=2)
    _draw_means(ax, fitted[order], values[order])
    ax.set_xlabel(f"fitted value, {level}")
    name = "response" if kind == "response" else KIND_NAMES[kind]
    ax.set_ylabel(f"{name} residual")
    shown = f", {len(drawn):,} of {n:,} rows" if n > len(drawn) else ""
    finish(ax, title, f"Residuals and fitted values{shown}")
    return ax


def residuals_of(fit: LMMResult, kind: str, level: Any) -> tuple[Array, Any]:
    """Residuals of a kind, and their level."""
    if level is None:
        level = "population" if kind == "normalized" else "conditional"
    return np.asarray(fit.residuals(kind, level), dtype=float), level  # type: ignore[arg-type]


def _draw_means(ax: Axes, x: Array, y: Array) -> None:
    """Means of neighbours in the order of x."""
    parts = int(np.clip(len(x) // MEAN_OF, 1, MOST_MEANS))
    centres, means = ([part.mean() for part in np.array_split(v, parts)] for v in (x, y))
    ax.plot(centres, means, "-", color=LINE, lw=1.5, zorder=3)
