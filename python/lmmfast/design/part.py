"""The design of some of the rows of another: as if the others had not been there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.data.batch import Batch
from lmmfast.data.columns import Column
from lmmfast.data.frame import Rows
from lmmfast.data.keys import GroupKeys
from lmmfast.design.design import Design, find_empty_effects
from lmmfast.design.view import DesignView


class DesignPart(DesignView):
    """Some of the rows used of a design, in their order; columns are those of the whole.

    Levels of factors, and what ``center(x)`` and the like have learnt, stay as they are; groups
    that have no rows are gone.

    Parameters
    ----------
    whole : Design
    rows : ndarray of int (k,)
        Of the rows used, ascending.
    """

    def __init__(self, whole: Design, rows: NDArray[np.intp]) -> None:
        super().__init__(whole)
        self._rows = rows
        self._factor_keys = [_keys(keys, rows) for keys in whole.factor_keys]

    @property
    def n_obs(self) -> int:
        """Rows used."""
        return len(self._rows)

    @property
    def factor_keys(self) -> list[GroupKeys]:
        """Group of each of these rows, for each grouping factor."""
        return self._factor_keys

    @property
    def random_access(self) -> bool:
        """Whether all columns lie in memory."""
        return False

    @property
    def residual_columns(self) -> dict[str, Column]:
        """Columns of the residual structure, for these rows."""
        return {name: self._column(own) for name, own in self._whole.residual_columns.items()}

    def _column(self, own: Column) -> Column:
        missing = None if own.missing is None else own.missing[self._rows]
        return replace(own, values=own.values[self._rows], missing=missing, occurring=False)

    @property
    def index(self) -> Any:
        """Index of these rows in the user's pandas data."""
        index = self._whole.index
        return None if index is None else index[self._rows]

    def report(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], Any]:
        """Values of these rows, and their index."""
        return values, self.index

    def batch(self, rows: Rows) -> Batch:
        """Columns for some of these rows."""
        return self._whole.batch(self._rows[rows])

    @property
    def kept(self) -> NDArray[np.intp]:
        """Positions of these rows in the user's data."""
        kept = self._whole.kept
        return self._rows if kept is None else kept[self._rows]

    def original_row(self, row: int) -> int:
        """Position in the user's data of a row."""
        return self._whole.original_row(int(self._rows[row]))

    def empty_effects(self) -> list[int]:
        """Columns of Z that are zero in all these rows."""
        return find_empty_effects(self)

    def without_effects(self, columns: Sequence[int]) -> DesignPart:
        """Return the same design without some columns of Z."""
        return DesignPart(self._whole.without_effects(columns), self._rows)

    def with_response(self, y: NDArray[np.float64]) -> DesignPart:
        """Return the same design with another response for these rows."""
        everywhere = np.zeros(self._whole.n_obs)
        everywhere[self._rows] = y
        return DesignPart(self._whole.with_response(everywhere), self._rows)


def _keys(keys: GroupKeys, rows: NDArray[np.intp]) -> GroupKeys:
    """Groups of some rows, without those that have none of them."""
    values = keys.values[rows]
    if keys.labels is None:
        return GroupKeys(values)
    occurring, codes = np.unique(values, return_inverse=True)
    return GroupKeys(codes.reshape(-1), np.asarray(keys.labels[occurring]))
