"""A design that is another one but for what a subclass says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.covariance.terms import Term
from lmmfast.data.batch import Batch
from lmmfast.data.columns import Column
from lmmfast.data.frame import Rows
from lmmfast.data.keys import GroupKeys
from lmmfast.design.design import Design
from lmmfast.residual.structure import ResidualStructure


class DesignView:
    """The same rows, columns and groups as another design.

    Parameters
    ----------
    whole : Design
    """

    def __init__(self, whole: Design) -> None:
        self._whole = whole

    @property
    def n_obs(self) -> int:
        """Rows used."""
        return self._whole.n_obs

    @property
    def n_dropped(self) -> int:
        """Rows left out because a value is missing."""
        return self._whole.n_dropped

    @property
    def factor_keys(self) -> list[GroupKeys]:
        """Group of each row, for each grouping factor."""
        return self._whole.factor_keys

    @property
    def random_access(self) -> bool:
        """Whether all columns lie in memory."""
        return self._whole.random_access

    @property
    def y_name(self) -> str:
        """Name of the response."""
        return self._whole.y_name

    @property
    def x_names(self) -> tuple[str, ...]:
        """Names of the columns of X."""
        return self._whole.x_names

    @property
    def terms(self) -> tuple[Term, ...]:
        """Random-effects terms."""
        return self._whole.terms

    @property
    def group_name(self) -> str:
        """Name of the grouping factor, or names of several."""
        return self._whole.group_name

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Names of the grouping factors."""
        return self._whole.factor_names

    @property
    def legend(self) -> dict[str, str]:
        """What made-up names stand for."""
        return self._whole.legend

    @property
    def residual(self) -> ResidualStructure | None:
        """Structure of the residuals."""
        return self._whole.residual

    @property
    def residual_columns(self) -> dict[str, Column]:
        """Columns of the residual structure."""
        return self._whole.residual_columns

    @property
    def unit(self) -> int | None:
        """Index in X of a column known to be the constant 1."""
        return self._whole.unit

    @property
    def keys(self) -> GroupKeys:
        """Group of each row in the first grouping factor."""
        return self.factor_keys[0]

    @property
    def index(self) -> Any:
        """Index of the rows used in the user's pandas data."""
        return self._whole.index

    @property
    def missing_counts(self) -> dict[str, int]:
        """Columns with missing values, and how many."""
        return self._whole.missing_counts

    @property
    def spec(self) -> Any:
        """What it takes to make columns for new data."""
        return self._whole.spec

    def held_columns(self) -> tuple[list[Column], list[Column]]:
        """Columns of the whole."""
        return self._whole.held_columns()

    @property
    def n_rows(self) -> int:
        """Rows of the user's data."""
        return self._whole.n_rows

    def report(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], Any]:
        """Values of the rows used as they are handed out, and their index."""
        return self._whole.report(values)

    def batch(self, rows: Rows) -> Batch:
        """Columns for some of the rows used."""
        return self._whole.batch(rows)

    @property
    def kept(self) -> NDArray[np.intp] | None:
        """Positions in the user's data of the rows used; None: all."""
        return self._whole.kept

    def original_row(self, row: int) -> int:
        """Position in the user's data of a row used."""
        return self._whole.original_row(row)

    @property
    def dropped_effects(self) -> tuple[str, ...]:
        """Columns of Z that were left out because they are zero in all rows."""
        return self._whole.dropped_effects
