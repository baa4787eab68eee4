"""A grid of values of the columns of the fixed effects, and the rows of X there."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.errors import DataError
from lmmfast.formula.spec import FormulaSpec
from lmmfast.inference.fixed_rows import chunks_of_X

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

#: Steps of the differences that slopes are, relative to the spread of the covariate.
SLOPE_STEP = 1e-3
#: A function that columns which were dropped have a part in beyond this is not estimable.
ESTIMABLE = 1e-8
WEIGHTS = ("equal", "proportional", "outer", "cells")


@dataclass(frozen=True, eq=False)
class ReferenceGrid:
    """All combinations of levels of factors and values of covariates.

    Attributes
    ----------
    values : dict of list
        Values of each column of the data that the fixed effects use.
    factors : list of str
        Which of them are factors.
    frame : DataFrame (n_grid, …)
    X : ndarray (n_grid, p)
        Rows of X; NaN where X beta is not estimable.
    """

    values: dict[str, list[Any]]
    factors: list[str]
    frame: pd.DataFrame
    X: Array


def reference_grid(
    fit: LMMResult, at: Mapping[str, Any] | None = None, slope: str | None = None
) -> ReferenceGrid:
    """Make the grid: all levels of factors, covariates at their means over the rows or at ``at``.

    Parameters
    ----------
    at : mapping, optional
        Values of some columns.
    slope : str, optional
        The rows of X are derivatives by this covariate.

    Raises
    ------
    DataError
        A model fitted to arrays, a fit that holds no rows, unknown columns.
    """
    spec = fit.spec
    if not isinstance(spec, FormulaSpec):
        raise DataError(
            "marginal means are for models with a formula, and this one was fitted to arrays: test "
            "functions of coefficients with fit.test(L)"
        )
    columns = sorted(spec.parts["X"].columns)
    if at is not None and not isinstance(at, Mapping):
        raise DataError(f"at={at!r} must map columns to values, as {{'age': [8, 14]}}")
    given = {name: _as_list(values) for name, values in (at or {}).items()}
    wanted = [] if slope is None else [slope]
    unknown = [name for name in [*given, *wanted] if name not in columns]
    if unknown:
        raise DataError(
            f"the fixed effects have no column {unknown[0]!r}: there are {', '.join(columns)}"
        )
    factors = [name for name in columns if name in spec.levels or name in spec.number_levels]
    if slope in factors:
        raise DataError(f"{slope!r} is a factor and has no slope: use emmeans")
    values = {name: given[name] if name in given else _values(fit, name) for name in columns}
    frame = _product(values)
    X = _rows(fit, frame)
    if slope is not None:
        step = SLOPE_STEP * _spread(fit, slope)
        low, high = (frame.assign(**{slope: frame[slope] + side * step}) for side in (-1, 1))
        X = (_rows(fit, high) - _rows(fit, low)) / (2 * step)
    return ReferenceGrid(values, factors, frame, X)


def _as_list(values: Any) -> list[Any]:
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        return [values]
    return list(values)


def _values(fit: LMMResult, name: str) -> list[Any]:
    """Levels of a factor; the mean over the rows of a covariate."""
    spec: FormulaSpec = fit.spec
    if name in spec.levels:
        return list(spec.levels[name])
    if name in spec.number_levels:
        return list(spec.number_levels[name])
    return [float(np.mean(_numbers(fit, name)))]


def _spread(fit: LMMResult, name: str) -> float:
    spread = float(np.std(_numbers(fit, name)))
    return spread if spread > 0 else 1.0


def _numbers(fit: LMMResult, name: str) -> Array:
    design: Any = fit._need(fit._design, "marginal means")
    return np.asarray(design.column(name).values, dtype=float)


def _product(values: dict[str, list[Any]]) -> pd.DataFrame:
    import pandas as pd

    rows = list(itertools.product(*values.values()))
    return pd.DataFrame({name: [row[k] for row in rows] for k, name in enumerate(values)})


def _rows(fit: LMMResult, frame: pd.DataFrame) -> Array:
    """Rows of X of the columns in use; NaN where columns that were dropped would be needed."""
    data = frame if len(frame.columns) else {"": np.zeros(1)}
    made = fit.spec.columns(data, random=False, offset=np.zeros(len(frame)))
    everything = np.column_stack(made.X)
    X = everything[:, fit._keep].copy()
    if fit.dropped_columns:
        dropped = np.setdiff1d(np.arange(everything.shape[1]), fit._keep)
        excess = everything[:, dropped] - X @ _dependence(fit, dropped)
        scale = 1 + np.abs(everything).max(axis=1)
        X[(np.abs(excess) > ESTIMABLE * scale[:, None]).any(axis=1)] = np.nan
    return X


def _dependence(fit: LMMResult, dropped: Any) -> Array:
    """Coefficients of the columns that were dropped by those in use, (p, n_dropped)."""
    p = len(fit._keep)
    XX, XD = np.zeros((p, p)), np.zeros((p, len(dropped)))
    for _, both in chunks_of_X(fit, [*fit._keep, *dropped], "marginal means"):
        X = both[:, :p]
        XX += X.T @ X
        XD += X.T @ both[:, p:]
    return np.asarray(np.linalg.solve(XX, XD), dtype=np.float64)


def grid_weights(fit: LMMResult, grid: ReferenceGrid, specs: list[str], weights: str) -> Array:
    """Weight of each row of the grid in the mean of its cell of ``specs``, (n_grid,).

    "equal"; "proportional" to the frequencies of the combinations of factors that are averaged
    over; "outer", to the products of their own frequencies; "cells", to the frequencies within the
    cell. Values of covariates have equal weights.

    Raises
    ------
    ValueError
        Another word.
    """
    check_choice("weights", weights, WEIGHTS)
    averaged = [name for name in grid.factors if name not in specs]
    raw = np.ones(len(grid.frame))
    if weights != "equal" and averaged:
        own = [name for name in specs if name in grid.factors]
        sets = {
            "proportional": [averaged],
            "outer": [[name] for name in averaged],
            "cells": [own + averaged],
        }[weights]
        for names in sets:
            raw *= _frequencies(fit, grid, names)
    cells = grid.frame.groupby(specs, sort=False, observed=True).ngroup().to_numpy()
    totals = np.bincount(cells, weights=raw)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(raw / totals[cells])


def _frequencies(fit: LMMResult, grid: ReferenceGrid, names: list[str]) -> Array:
    """Number of rows of the fit with the combination of factors in each row of the grid."""
    import pandas as pd

    design: Any = fit._need(fit._design, "weights other than equal")
    columns = {}
    for name in names:
        column = design.column(name)
        columns[name] = column.values if column.levels is None else column.levels[column.values]
    counts = pd.DataFrame(columns).astype(object).value_counts().to_dict()
    keys = grid.frame[names].astype(object).itertuples(index=False, name=None)
    return np.array([float(counts.get(key, 0)) for key in keys])
