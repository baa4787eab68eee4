"""The four pictures that one looks at first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from lmmfast.errors import TooLargeError, UnsupportedModelError
from lmmfast.plots.axes import SUBJECT, new_grid
from lmmfast.plots.influence import plot_influence
from lmmfast.plots.quantiles import plot_qq, plot_qq_effects
from lmmfast.plots.residuals import plot_residuals

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

#: Up to so many rows fits without the groups that move variance parameters far are made.
FEW_ROWS = 100_000


def plot(
    fit: LMMResult,
    *,
    figsize: tuple[float, float] = (9.0, 7.2),
    title: str | None = None,
    color: str = SUBJECT,
) -> NDArray[Any]:
    """Draw residuals over fitted values, quantiles of residuals and random effects, influence.

    The random effects are the first ones of the first grouping factor; without random effects there
    are normalized residuals in their place, and with crossed factors the influence is that of rows.
    Where too many rows hang together for studentized residuals and influence, residuals are
    Pearson's. Of more than 100,000 rows no group is left out by a refit.

    Parameters
    ----------
    fit : LMMResult
    figsize : (float, float)
        Inches.
    title : str, optional
        Of the figure; default: the response and the model.
    color : str

    Returns
    -------
    ndarray of matplotlib Axes (2, 2)

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
    >>> axes = fit.plot()  # doctest: +SKIP
    """
    kind = _kind(fit)
    axes = new_grid(2, 2, figsize)
    plot_residuals(fit, kind=kind, ax=axes[0, 0], color=color)
    plot_qq(fit, kind=kind, ax=axes[0, 1], color=color)
    _draw_effects(fit, axes[1, 0], color)
    _draw_influence(fit, axes[1, 1], color)
    random = ", ".join(f"({' + '.join(term.names)} | {term.group})" for term in fit.terms)
    structure = "" if fit.residual.is_independent else str(fit.residual)
    model = " + ".join(part for part in (random, structure) if part)
    text = f"{fit.y_name}: {model}" if model else fit.y_name
    axes[0, 0].figure.suptitle(text if title is None else title, fontsize=11)
    return axes


def _kind(fit: LMMResult) -> str:
    """The kind of residuals that can be had."""
    try:
        fit.residuals("studentized")
    except TooLargeError:
        return "pearson"
    return "studentized"


def _draw_influence(fit: LMMResult, ax: Any, color: str) -> None:
    """Influence of groups, else of rows, else a word why there is none."""
    refit: int | Literal["auto"] = "auto" if fit.nobs <= FEW_ROWS else 0
    try:
        try:
            influence = fit.influence(refit=refit)
        except TooLargeError:
            raise
        except UnsupportedModelError:  # crossed factors
            influence = fit.influence("row")
    except TooLargeError:
        ax.text(0.5, 0.5, "too many rows hang together\nfor their influence", ha="center")
        ax.set_axis_off()
        return
    plot_influence(fit, influence=influence, ax=ax, color=color)


def _draw_effects(fit: LMMResult, ax: Any, color: str) -> None:
    """Quantiles of the first random effects, else of residuals without correlation."""
    try:
        if fit.terms:
            term = fit.terms[0]
            plot_qq_effects(fit, term.group, term.names[0], ax=ax, color=color)
            return
    except UnsupportedModelError:  # no variance
        pass
    try:
        plot_qq(fit, kind="normalized", ax=ax, color=color)
    except TooLargeError:
        plot_qq(fit, kind="pearson", level="population", ax=ax, color=color)
