"""Columns of new rows beyond X and Z: those of the residual structure, and weights."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.columns import Column, read_column
from lmmfast.data.frame import as_float
from lmmfast.data.tables import is_table, open_table, suggest
from lmmfast.errors import DataError, NewDataWarning
from lmmfast.prediction.process import placing
from lmmfast.prediction.rows_used import sds_of
from lmmfast.residual.place import Places, used_columns

if TYPE_CHECKING:
    from lmmfast.result import LMMResult

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Inputs:
    """What is given of new rows beside their table, or X; see `LMMResult.predict`."""

    groups: Any = None
    Z: Any = None
    offset: Any = None
    weights: Any = None
    at: Any = None
    #: Whether to warn of groups that the fit did not have, and of weights that are not there.
    warn: bool = True


@dataclass(frozen=True, eq=False)
class PlacedRows:
    """New rows in the residual structure.

    Attributes
    ----------
    missing : ndarray of bool (n,)
        Rows that miss a value of a column of the structure, or a weight.
    rows : ndarray of int (k,)
        Rows that have places.
    places : Places
        Of these.
    sds : ndarray (k,)
        Standard deviations of their residuals.
    """

    missing: NDArray[np.bool_]
    rows: Index
    places: Places
    sds: Array


def place_rows(
    fit: LMMResult, newdata: Any, inputs: Inputs, wanted: NDArray[np.bool_]
) -> PlacedRows:
    """Find the places of new rows in the residual structure of a fit.

    Parameters
    ----------
    wanted : ndarray of bool (n,)
        Rows that are to be predicted.

    Raises
    ------
    DataError
        A column that is not there, or of another kind than in the fit.
    """
    n = len(wanted)
    weights = weights_of(fit, newdata, inputs, n)
    columns = {name: _column(newdata, inputs.at, name) for name in used_columns(fit.residual)}
    missing = np.isnan(weights)
    for name, column in columns.items():
        if len(column) != n:
            raise DataError(f"{name!r} has {len(column)} values for {n} new rows")
        if column.missing is not None:
            missing |= column.missing
    rows = np.flatnonzero(wanted & ~missing)
    known = fit._known_columns
    values = {name: known[name].values(column)[rows] for name, column in columns.items()}
    places = placing(fit).places(values, len(rows), new=True)
    sds = np.broadcast_to(sds_of(fit, places.G, weights[rows]), (len(rows),))
    return PlacedRows(missing & wanted, rows, places, sds)


def _column(newdata: Any, at: Any, name: str) -> Column:
    """Read a column of the structure, out of ``at`` if that has it."""
    seen: list[str] = []
    for source in (at, newdata):
        if source is None or not is_table(source):
            continue
        table = open_table(source)
        if name in table.names:
            return read_column(name, table.fetch(name), group=True)
        seen += table.names
    raise DataError(
        f"the residual structure needs {name!r} of the new rows{suggest(name, tuple(seen))}: give "
        f"it in their table, or as at={{{name!r}: ...}}"
    )


def weights_of(fit: LMMResult, newdata: Any, inputs: Inputs, n: int) -> Array:
    """Weights (n,) of new rows: those given, the column of the fit if it is there, else one.

    Warns
    -----
    NewDataWarning
        The fit had weights, and there are none of the new rows.

    Raises
    ------
    DataError
        Weights that are not positive numbers, or of another length.
    """
    weights = inputs.weights
    name = getattr(fit.spec, "weights_name", None) if weights is None else weights
    table = open_table(newdata) if is_table(newdata) else None
    column: Column
    if name is None or (isinstance(name, str) and (table is None or name not in table.names)):
        if weights is not None:
            raise DataError(f"the new data have no column {name!r} of weights")
        if fit.weighted and n and inputs.warn:
            warnings.warn(
                "the fit had weights, and the new rows have none: they are taken as one; give "
                "weights=, or the column of the fit",
                NewDataWarning,
                stacklevel=5,  # whoever calls fit.predict
            )
        return np.ones(n)
    if isinstance(name, str):
        assert table is not None
        column = table.read(name)
    else:
        column = read_column("weights", name)
    if column.is_factor or len(column) != n:
        raise DataError(f"weights of new rows must be numbers, one for each of {n} rows")
    values = as_float(column.values)
    if column.missing is not None:
        values = np.where(column.missing, np.nan, values)
    bad = (values <= 0) | np.isinf(values)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"weights must be positive: row {row} (counting from 0) has {values[row]}")
    return values


def cluster_of(fit: LMMResult, position: Index) -> Index:
    """Return the stored cluster of each position among the effects; -1 stays.

    Of several grouping factors that of the residual structure, by the innermost of them.
    """
    clusters: Any = fit._need(fit._clusters, "the rows of groups")
    if len(fit._grouping) == 1:
        stored = np.arange(clusters.m) if clusters.by_label is None else clusters.by_label
    else:
        model = fit._need(fit._residual_model, "the rows of groups")
        codes = clusters.codes[clusters.names.index(fit._innermost)]
        stored = np.empty(model.m, dtype=np.intp)
        stored[codes[model.rows[model.ptr[:-1]]]] = np.arange(model.m)
    return np.where(position < 0, -1, np.asarray(stored)[position])
