"""Figures and axes that the pictures are drawn on; matplotlib is imported when one is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.errors import LmmError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE, SUBJECT, OBSERVED = "#b2182b", "#4575b4", "#9a9a9a"


class PlotError(LmmError, ImportError):
    """A picture was asked for and matplotlib is not installed."""


def figure(width: float = 6.4, height: float = 4.8) -> Figure:
    """Make a figure (inches) that belongs to no window.

    Raises
    ------
    PlotError
        matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_axes(width: float | None = None, height: float | None = None) -> Axes:
    """Make axes of a new figure of pyplot's.

    Parameters
    ----------
    width, height : float, optional
        Inches; default: pyplot's.

    Raises
    ------
    PlotError
        matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib import pyplot

    usual = pyplot.rcParams["figure.figsize"]
    size = (width or usual[0], height or usual[1])
    return pyplot.subplots(figsize=size, layout="constrained")[1]


def new_panels(n: int, width: float, height: float) -> NDArray[Any]:
    """Make n axes beside each other, of so many inches each, in a new figure of pyplot's."""
    require_matplotlib()
    from matplotlib import pyplot

    size = (max(n * width, 4.0), height)
    return np.atleast_1d(pyplot.subplots(1, n, figsize=size, layout="constrained")[1])


def new_grid(rows: int, columns: int, figsize: tuple[float, float]) -> NDArray[Any]:
    """Make axes in rows and columns, in a new figure of pyplot's of so many inches."""
    require_matplotlib()
    from matplotlib import pyplot

    axes = pyplot.subplots(rows, columns, figsize=figsize, layout="constrained", squeeze=False)[1]
    return np.asarray(axes)


def axes_for(ax: Axes | None, figsize: tuple[float, float] | None) -> Axes:
    """Return the axes given, or those of a new figure of so many inches."""
    if ax is not None:
        return ax
    return new_axes() if figsize is None else new_axes(*figsize)


def finish(ax: Axes, title: str | None, usual: str) -> None:
    """Set the title, the usual one if none is given, and take two sides of the frame away."""
    ax.set_title(usual if title is None else title, fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)


def require_matplotlib() -> None:
    """Raise PlotError where matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise PlotError(
            "pictures need matplotlib, which is not installed: pip install 'lmmfast[plots]'"
        ) from None
