"""The covariance matrix V that a fit with several grouping factors implies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.errors import DataError, UnsupportedModelError
from lmmfast.grouping.levels import Levels
from lmmfast.implied.implied import Group, GroupedRows, Index, R, row_labels, rows_at

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.prediction.effects import LevelsResult


def levels_of(fit: LevelsResult) -> Levels:
    """Levels of a fit that holds its data."""
    levels: Any = fit._need(fit._clusters, "implied covariances")
    return levels


def row_order(fit: LevelsResult) -> Index:
    """Rows used (n,): by the levels of the factor with the fewest, then of the next, and so on."""
    if fit._residual_model is not None:
        return fit._residual_model.rows
    levels = levels_of(fit)
    finest_first = sorted(range(len(levels.names)), key=lambda k: -levels.counts[k])
    return np.lexsort([levels.codes[k] for k in finest_first])


def find_group(fit: LevelsResult, group: Any, at: bool) -> Group:
    """Find a level by its label, or by factor and label; see `LMMResult.implied_covariance`.

    Raises
    ------
    DataError
        No such factor or level.
    UnsupportedModelError
        New rows (``at``) of a level in which not all factors have one level.
    """
    levels = levels_of(fit)
    innermost = None if levels.chain is None else levels.chain[-1]
    if at and innermost is None:
        raise UnsupportedModelError(
            f"at= with crossed grouping factors {', '.join(map(repr, levels.names))}: rows that "
            "are not in the data belong to no levels; leave at= out"
        )
    factor, label = _factor_and_label(levels, group, at)
    if at and factor != innermost:
        assert innermost is not None
        name = levels.names[innermost]
        raise UnsupportedModelError(
            f"at= needs a level of the innermost grouping factor, group={{{name!r}: ...}}: those "
            f"of {levels.names[factor]!r} do not say which level of {name!r} a row belongs to"
        )
    level = _position(levels, factor, label)
    rows = row_order(fit)
    places = np.flatnonzero(levels.codes[factor][rows] == level)
    model = fit._residual_model
    cluster = None
    if model is not None and factor == innermost:
        cluster = int(np.searchsorted(model.ptr, places[0], side="right")) - 1
    return Group(levels.names[factor], levels.labels[factor][level], places, cluster)


def _factor_and_label(levels: Levels, group: Any, at: bool) -> tuple[int, Any]:
    if isinstance(group, Mapping):
        if len(group) != 1:
            raise DataError(f"group={group!r} must name one grouping factor and its level")
        ((name, label),) = group.items()
        if name not in levels.names:
            choices = ", ".join(map(repr, levels.names))
            raise DataError(f"the fit has no grouping factor {name!r}: choose one of {choices}")
        return levels.names.index(name), label
    order = sorted(range(len(levels.names)), key=lambda k: (levels.counts[k], k))
    return order[-1 if at and group is None else 0], group


def _position(levels: Levels, factor: int, label: Any) -> int:
    """Position of a level by its label; None: the first of the largest."""
    if label is None:
        return int(np.argmax(np.bincount(levels.codes[factor])))
    found = np.flatnonzero(np.asarray(levels.labels[factor]) == label)
    if not len(found):
        name, others = levels.names[factor], len(levels.names) > 1
        hint = "; levels of another factor are named by group={factor: level}" if others else ""
        raise DataError(f"the fit has no group {label!r} of {name!r}{hint}")
    return int(found[0])


def level_labels(fit: LevelsResult, places: Index) -> pd.Index[Any]:
    """Labels of rows: of factors that have several levels among them, then visits or times.

    A factor is left out if another shown is nested in it.
    """
    import pandas as pd

    levels, rows = levels_of(fit), row_order(fit)[places]
    several = [k for k, codes in enumerate(levels.codes) if (codes[rows] != codes[rows[0]]).any()]
    shown = [k for k in several if not any((other, k) in levels.parents for other in several)]
    own = row_labels(fit, places)
    if not shown:
        return own
    columns = [np.asarray(levels.labels[k])[levels.codes[k][rows]] for k in shown]
    names = [levels.names[k] for k in shown]
    if own.names != ["row"]:
        columns += [own.get_level_values(k).to_numpy() for k in range(own.nlevels)]
        names += [str(name) for name in own.names]
    if len(columns) == 1:
        return pd.Index(columns[0], name=names[0])
    return pd.MultiIndex.from_arrays(columns, names=names)


def implied(fit: LevelsResult, group: Group) -> Array:
    """V of the rows of a level, (k, k): the effects that each two rows share, and R."""
    rows = rows_at(fit, group.places, group.cluster)
    out = np.zeros((len(group.places),) * 2)
    for columns, codes in fit._factor_columns(row_order(fit)[group.places]):
        Z = rows.Z[:, columns]
        cov = Z @ fit._estimates.D[np.ix_(columns, columns)] @ Z.T
        out += np.where(codes[:, None] == codes, cov, 0.0)
    model = fit._residual_model
    if model is None:
        return out + R(fit, rows)
    cluster = np.searchsorted(model.ptr, group.places, side="right") - 1
    for i in np.unique(cluster):
        mine = np.flatnonzero(cluster == i)
        out[np.ix_(mine, mine)] += R(fit, rows_at(fit, group.places[mine], int(i)))
    return out


def grouped_rows(fit: LevelsResult, within: str | None) -> GroupedRows:
    """Levels of a factor; blocks are those of the outermost.

    Raises
    ------
    ValueError
        No such factor.
    UnsupportedModelError
        A residual structure, and not the factor within whose levels it holds.
    """
    levels = levels_of(fit)
    names, rows = levels.names, row_order(fit)
    order = sorted(range(len(names)), key=lambda k: (levels.counts[k], k))
    if within is not None:
        check_choice("within", within, names)
    factor = order[-1] if within is None else names.index(within)
    block = levels.codes[order[0]][rows]
    model = fit._residual_model
    if model is None:
        unit = levels.codes[factor][rows]
    elif factor == order[-1]:
        unit = np.repeat(np.arange(model.m), np.diff(model.ptr))
    else:
        raise UnsupportedModelError(
            f"within={within!r} with a residual structure: its correlations are those within "
            f"levels of {names[order[-1]]!r}; leave within= out"
        )
    if levels.chain is None:
        return GroupedRows(unit, unit, independent=False)
    return GroupedRows(unit, block)
