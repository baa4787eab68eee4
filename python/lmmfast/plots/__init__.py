"""Pictures of a fitted model."""

from lmmfast.plots.axes import PlotError, figure
from lmmfast.plots.curves import plot_curves

__all__ = ["PlotError", "figure", "plot_curves"]
