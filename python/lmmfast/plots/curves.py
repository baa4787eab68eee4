"""Pictures of a fit; matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.data.frame import RowView
from lmmfast.data.tables import open_table, suggest
from lmmfast.errors import DataError, UnsupportedModelError
from lmmfast.formula.spec import FormulaSpec
from lmmfast.inference.wald import t_quantile
from lmmfast.plots.axes import LINE, OBSERVED, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from lmmfast.plots.levels import CurveLevel
    from lmmfast.result import LMMResult

_GRID = 101  # points of the population line
_SUBJECT_GRID = 21  # points of each subject's curve


def plot_curves(
    fit: LMMResult,
    data: Any,
    x: str,
    *,
    level: str | None = None,
    groups: Sequence[Any] | None = None,
    n_groups: int | None = 50,
    at: Mapping[str, Any] | None = None,
    alpha: float = 0.05,
    observed: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw subject-specific curves over the population line.

    The population line is X beta over a grid of ``x`` with a Wald band for it. A subject's curve is
    its conditional prediction over its own range of ``x``, the other columns at the subject's own
    medians (numbers) or most frequent levels (factors): X beta + Z b, without the process that a
    residual structure with a nugget has.

    Parameters
    ----------
    fit : LMMResult
        Of a formula.
    data : table
        With the columns of the model: that of the fit, or a part of it.
    x : str
        Column on the horizontal axis, a number.
    level : str, optional
        Of several grouping factors the one that has a curve for each of its levels, predicted with
        its effects and those of the factors that it is nested in. Default: the innermost; of
        crossed factors that with the most levels. ``"conditional"``: the same with the effects of
        all factors. Curves are coloured by the outermost factor around theirs.
    groups : sequence, optional
        Labels of the groups to draw.
    n_groups : int or None
        If ``groups`` is not given: draw this many, evenly spread over their sorted labels; None for
        all of them.
    at : mapping, optional
        Values of other columns for the population line; by default their medians or most frequent
        levels in ``data``. Curves of outer levels are at these values too, where the columns
        change within the level.
    alpha : float
        One minus the level of the band.
    observed : bool
        Draw the observations of the groups shown, too.
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
        A column or group is not in the data, or ``x`` is not a number.
    UnsupportedModelError
        The fit is one of arrays.

    Examples
    --------
    >>> import lmmfast as lf
    >>> from lmmfast.plots import plot_curves
    >>> data = lf.datasets.sleepstudy()
    >>> fit = lf.lmm("Reaction ~ Days + (Days | Subject)", data)
    >>> ax = plot_curves(fit, data, "Days")  # doctest: +SKIP
    """
    from lmmfast.plots.levels import curve_level, row_labels

    of = curve_level(fit, level)
    frame = _model_data(fit, data, x)
    labels = row_labels(fit, frame, of.factor)
    ax = new_axes() if ax is None else ax
    chosen = _choose_groups(labels, groups, n_groups, of.name)
    coded = fit.spec.number_levels
    curves = [
        _grid(part, x, _SUBJECT_GRID, coded, {} if of.innermost else _changing(part, at))
        for part in _parts(frame, labels, chosen)
    ]
    _draw_subjects(ax, fit, frame[np.isin(labels, chosen)], curves, x, observed, of)
    grid = _grid(frame, x, _GRID, coded, at)
    _draw_population(ax, fit, grid, x, alpha)
    ax.set_xlabel(x)
    ax.set_ylabel(fit.y_name)
    return ax


def population_line(
    fit: LMMResult, newdata: Any, alpha: float = 0.05
) -> tuple[Array, Array, Array]:
    """Return population values of new rows with pointwise limits: value, low, high (n,).

    From t distributions, as `LMMResult.conf_int`. Only the uncertainty of beta is in the limits:
    they are for the mean over groups, not for a new observation.
    """
    value = np.asarray(fit.predict(newdata), dtype=float)
    X = np.column_stack(fit.spec.columns(newdata, random=False).X)[:, fit._keep]
    error = np.sqrt(np.einsum("ij,jk,ik->i", X, fit.cov_params().to_numpy(), X))
    df = np.array([fit._denominators.df(row) for row in X])
    half = t_quantile(alpha, df) * error
    return value, value - half, value + half


def _draw_subjects(
    ax: Axes,
    fit: LMMResult,
    rows: pd.DataFrame,
    curves: list[pd.DataFrame],
    x: str,
    observed: bool,
    of: CurveLevel,
) -> None:
    """Observations in grey, fitted curves of the subjects thin over them."""
    import pandas as pd

    from lmmfast.plots.levels import colours

    if observed and len(rows):
        ax.plot(rows[x], _response(fit, rows), "o", ms=3, mew=0, color=OBSERVED, label="observed")
    if not curves:
        return
    rows_drawn = pd.concat(curves, ignore_index=True)
    y = np.asarray(fit.predict(rows_drawn, level=of.level, residual="none"))
    start, shades = 0, colours(fit, of.outermost, curves)
    for k, (curve, (colour, said)) in enumerate(zip(curves, shades, strict=True)):
        own = _curves_are(fit, of) if k == 0 and said is None else None
        ax.plot(
            curve[x],
            y[start : start + len(curve)],
            "-" if curve[x].iloc[0] < curve[x].iloc[-1] else "_-",
            lw=0.8,
            alpha=0.6 if of.outermost is None else 0.8,
            color=colour,
            label=own if said is None else said,
        )
        start += len(curve)


def _curves_are(fit: LMMResult, of: CurveLevel) -> str:
    """Entry of the legend for all curves."""
    colour = "" if of.outermost is None else f", colours by {list(fit._grouping)[of.outermost]}"
    return f"fitted, one line per {of.name}{colour}"


def _draw_population(ax: Axes, fit: LMMResult, grid: pd.DataFrame, x: str, alpha: float) -> None:
    value, low, high = population_line(fit, grid, alpha)
    level = f"population, {100 * (1 - alpha):.4g}% band"
    ax.fill_between(grid[x], low, high, color=LINE, alpha=0.2, lw=0, zorder=3)
    ax.plot(grid[x], value, "-", lw=2.5, color=LINE, label=level, zorder=4)


def _model_data(fit: LMMResult, data: Any, x: str) -> pd.DataFrame:
    """Columns of the model and the groups, rows without missing values."""
    import pandas as pd

    if not isinstance(fit.spec, FormulaSpec):
        raise UnsupportedModelError(
            "pictures of curves need a fit of a formula (lmmfast.lmm), which knows how its columns "
            "depend on each other"
        )
    parts = fit.spec.parts.values()
    names = dict.fromkeys(sorted(frozenset().union(*(part.columns for part in parts))))
    predictors = [name for name, part in fit.spec.parts.items() if name != "y"]
    if not any(x in fit.spec.parts[name].columns for name in predictors):
        used = sorted(frozenset().union(*(fit.spec.parts[n].columns for n in predictors)))
        raise DataError(f"the model does not use a column {x!r}{suggest(x, used)}")
    names.update(dict.fromkeys(fit.spec.formula.group_columns))
    if fit.spec.offset_name is not None:
        names[fit.spec.offset_name] = None
    table = open_table(data)
    for name in names:
        if name not in table.names:
            raise DataError(f"the data have no column {name!r}{suggest(name, table.names)}")
    if x in fit.spec.levels:
        raise DataError(f"{x!r} is text or categorical: the horizontal axis must be numbers")
    frame = pd.DataFrame({name: _as_series(table.fetch(name)) for name in names})
    frame = frame.dropna(ignore_index=True)
    if frame.empty:
        raise DataError("the data have no complete rows to draw")
    return frame


def _as_series(values: Any) -> Any:
    """Any library's column as one that pandas takes, without an index."""
    if hasattr(values, "to_pandas"):
        return values.to_pandas()
    return values.reset_index(drop=True) if hasattr(values, "reset_index") else np.asarray(values)


def _choose_groups(
    labels: np.ndarray[Any, Any], groups: Sequence[Any] | None, n_groups: int | None, name: str
) -> list[Any]:
    present = np.unique(labels)
    if groups is not None:
        known = set(present.tolist())
        for group in groups:
            if group not in known:
                raise DataError(f"the data have no group {group!r} of {name!r}")
        return list(groups)
    if n_groups is None or n_groups >= len(present):
        return list(present)
    return list(present[np.linspace(0, len(present) - 1, n_groups).round().astype(int)])


def _parts(
    frame: pd.DataFrame, labels: np.ndarray[Any, Any], chosen: list[Any]
) -> list[pd.DataFrame]:
    """Rows of each chosen group."""
    order = np.argsort(labels, kind="stable")
    ends = labels[order]
    return [
        frame.iloc[order[np.searchsorted(ends, g, "left") : np.searchsorted(ends, g, "right")]]
        for g in chosen
    ]


def _grid(
    rows: pd.DataFrame,
    x: str,
    size: int,
    coded: Container[str],
    at: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Rows for a curve: x from its least to its largest value, the rest held at typical values.

    Columns in ``coded`` are numbers that the model takes for categories.
    """
    import pandas as pd

    values = rows[x].to_numpy(dtype=float)
    made: dict[str, Any] = {x: np.linspace(values.min(), values.max(), size)}
    for name in rows.columns:
        if name != x:
            made[name] = [_typical(rows[name], name in coded)] * size
    for name, value in (at or {}).items():
        if name not in rows.columns:
            raise DataError(f"at= names a column {name!r} that the model does not use")
        made[name] = [value] * size
    return pd.DataFrame(made)


def _changing(rows: pd.DataFrame, at: Mapping[str, Any] | None) -> dict[str, Any]:
    """Those values of columns that are not the same in all of the rows."""
    return {k: v for k, v in (at or {}).items() if k in rows.columns and rows[k].nunique() > 1}


def _typical(column: pd.Series[Any], coded: bool) -> Any:
    """Take the median of numbers, the most frequent value of anything else."""
    import pandas as pd

    constant = column.iloc[0]
    if (column == constant).all():
        return constant
    number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if number and not coded:
        return column.median()
    return column.mode().iloc[0]


def _response(fit: LMMResult, frame: pd.DataFrame) -> Array:
    """Evaluate the response as the formula has it, ``np.log(y)`` included."""
    from lmmfast.data.columns import read_column

    names = fit.spec.parts["y"].columns
    columns = {name: read_column(name, frame[name]) for name in names}
    return np.asarray(fit.spec.make(["y"], RowView(columns, slice(None), len(frame)))["y"][0])
