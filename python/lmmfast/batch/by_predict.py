"""Predictions of new rows by the fits of their segments."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arguments import check_choice
from lmmfast.arrays import Array
from lmmfast.batch.by_models import SegmentModels, SharedModel, without_effects
from lmmfast.data.columns import Column
from lmmfast.data.keys import group_keys
from lmmfast.data.tables import Table, open_table, row_index
from lmmfast.errors import DataError, NewDataWarning, NewGroupsWarning
from lmmfast.formula.spec import read_new
from lmmfast.grouping.segments import SortedTable
from lmmfast.prediction.lookup import GroupLookup
from lmmfast.prediction.new_rows import NEW_LEVELS, Predictor, with_index

if TYPE_CHECKING:
    import pandas as pd

LEVELS = ("population", "conditional")
UNKNOWN_SEGMENTS = ("error", "missing")


@dataclass(frozen=True)
class Fits:
    """What predictions need of the fits by segment.

    Attributes
    ----------
    segments : Index (S,)
    by : list of str
    models : SegmentModels
    failed : dict of int to str
    """

    segments: pd.Index[Any]
    by: list[str]
    models: SegmentModels
    failed: dict[int, str]

    def name(self, segment: int) -> str:
        """Label of a segment as messages have it."""
        return repr(self.segments[[segment]].tolist()[0])


class Predictions:
    """The rows of a table and what is predicted for them, piece by piece.

    Parameters
    ----------
    fits : Fits
    table : Table
    random : bool
        With the random effects.
    """

    def __init__(self, fits: Fits, table: Table, random: bool) -> None:
        self._fits, self._table, self._random = fits, table, random
        self.segment = segments_of(table, fits.by, fits.segments)
        self.values = np.full(table.n_rows, np.nan)
        self.new_groups = np.zeros(table.n_rows, dtype=bool)
        self.has_fit = np.zeros(table.n_rows, dtype=bool)
        number, place = fits.models.places(len(fits.segments))
        of_row = np.where(self.segment >= 0, number[self.segment], -1)
        for k, model in enumerate(fits.models.shared):
            rows = np.flatnonzero(of_row == k)
            if len(rows):
                self._fill(rows, model, place[self.segment[rows]])
        others = np.flatnonzero((self.segment >= 0) & (of_row < 0))
        others = others[np.argsort(self.segment[others], kind="stable")]
        for rows in np.split(others, np.flatnonzero(np.diff(self.segment[others])) + 1):
            alone = fits.models.alone.get(int(self.segment[rows[0]])) if len(rows) else None
            if alone is not None:
                self._fill(rows, alone if random else without_effects(alone))

    def _fill(
        self, rows: NDArray[np.intp], model: SharedModel | Predictor, own: Any = None
    ) -> None:
        """Predict rows by one model, shared or of one segment."""
        part = SortedTable(self._table.names, len(rows), self._table.fetch, None, self._table, rows)
        _warn_of_offset(model.spec.offset_array)
        try:
            if isinstance(model, SharedModel):
                values, new = model.predict(part, own, self._random)
            else:
                values, new = _alone(model, part)
        except DataError as error:
            if len(rows) == self._table.n_rows:
                raise
            first = self._fits.name(int(self.segment[rows[0]]))
            raise DataError(
                f"{error} (rows are counted among the {len(rows)} of segment {first} and those "
                "with the same columns)"
            ) from None
        self.values[rows], self.new_groups[rows], self.has_fit[rows] = values, new, True


def predict(
    fits: Fits, newdata: Any, level: str, new_levels: str, unknown_segments: str
) -> Array | pd.Series[float]:
    """Predict new rows; see `LMMByResult.predict`."""
    check_choice("level", level, LEVELS)
    check_choice("new_levels", new_levels, NEW_LEVELS)
    check_choice("unknown_segments", unknown_segments, UNKNOWN_SEGMENTS)
    made = Predictions(fits, open_table(newdata), level == "conditional")
    if unknown_segments == "error":
        _check_segments(fits, made)
    out = made.values
    if np.isinf(out).any():
        raise DataError(
            f"the prediction of row {int(np.argmax(np.isinf(out)))} (counting from 0) is not "
            "finite: the new data are infinite there, or beyond the range of double precision"
        )
    _conclude_new_groups(made, new_levels)
    if row_index(newdata) is None:
        return out
    return with_index(out, newdata)


def segments_of(table: Table, by: Sequence[str], segments: pd.Index[Any]) -> NDArray[np.intp]:
    """Position of each row's segment, (n,); -1: unknown, -2: a value of `by` is missing."""
    columns = [read_new(table, name, group=True) for name in by]
    if len(by) == 1:
        labels, codes = [np.asarray(segments)], [np.arange(len(segments))]
    else:
        index: Any = segments
        labels = [np.asarray(level) for level in index.levels]
        codes = [np.asarray(code) for code in index.codes]
    missing, absent = np.zeros((2, table.n_rows), dtype=bool)
    own, here = np.zeros(len(segments), dtype=np.int64), np.zeros(table.n_rows, dtype=np.int64)
    for column, values, code in zip(columns, labels, codes, strict=True):
        found = _positions(column, values, table.n_rows)
        if column.missing is not None:
            missing |= column.missing
        absent |= found < 0
        own, here = own * len(values) + code, here * len(values) + found
    order = np.argsort(own, kind="stable")
    at = np.minimum(np.searchsorted(own[order], here), len(own) - 1)
    position = np.where(absent | (own[order][at] != here), -1, order[at])
    return np.where(missing, -2, position)


def _positions(column: Column, labels: NDArray[Any], n_rows: int) -> NDArray[np.intp]:
    return GroupLookup(labels).rows(group_keys([column]), n_rows)


def _alone(predictor: Predictor, rows: Table) -> tuple[Array, NDArray[np.bool_]]:
    read = predictor.read(rows, "population", None, None, None, warn=False)
    new = np.zeros(rows.n_rows, dtype=bool)
    for position, keys in zip(read.positions, read.keys, strict=True):
        new |= position < 0 if keys.missing is None else (position < 0) & ~keys.missing
    return predictor.mean(read, None), new


def _warn_of_offset(as_array: bool) -> None:
    if as_array:
        warnings.warn(
            "the fits had an offset given as an array: predictions are without it",
            NewDataWarning,
            stacklevel=6,
        )


def _check_segments(fits: Fits, made: Predictions) -> None:
    """Refuse rows whose segment has no fit."""
    lost = ~made.has_fit & (made.segment != -2)
    if not lost.any():
        return
    row = int(np.argmax(lost))
    segment = int(made.segment[row])
    names = ", ".join(map(repr, fits.by))
    if segment >= 0:
        why = fits.failed.get(segment, "it cannot be predicted")
        what = f"segment {fits.name(segment)}, which has no fit ({why})"
    else:
        what = f"a segment of {names} that is none of the {len(fits.segments)} fitted"
    raise DataError(
        f"{int(lost.sum())} of {len(lost)} rows have no fit to predict them, the first in row "
        f"{row} (counting from 0), of {what}; pass unknown_segments='missing' to get NaN there"
    )


def _conclude_new_groups(made: Predictions, new_levels: str) -> None:
    new = made.new_groups
    if not new.any():
        return
    count = f"{int(new.sum())} of {len(new)} rows belong to groups that the fit of their segment "
    if new_levels == "error":
        raise DataError(
            f"{count}did not have, the first in row {int(np.argmax(new))}; pass "
            "new_levels='population' to predict them without random effects"
        )
    if new_levels == "missing":
        made.values[new] = np.nan
        return
    warnings.warn(
        f"{count}did not have: predicted without their random effects",
        NewGroupsWarning,
        stacklevel=5,
    )
