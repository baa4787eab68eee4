"""What the numerical side sees of a model: columns of y, X and Z for some rows, and group keys."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmmfast.covariance.terms import Term
from lmmfast.data.batch import CHUNK, Batch
from lmmfast.data.columns import Column
from lmmfast.data.frame import Rows
from lmmfast.data.keys import GroupKeys as GroupKeys
from lmmfast.errors import DataError, MissingRowsWarning
from lmmfast.grouping.levels import Levels, find_levels
from lmmfast.residual.structure import ResidualStructure


class Design(Protocol):
    """A model's data: `ArrayDesign` of from_arrays.py, `FormulaDesign` of from_formula.py."""

    @property
    def n_obs(self) -> int:
        """Rows used."""

    @property
    def n_dropped(self) -> int:
        """Rows left out because a value is missing."""

    @property
    def y_name(self) -> str:
        """Name of the response."""

    @property
    def x_names(self) -> tuple[str, ...]:
        """Names of the columns of X."""

    @property
    def terms(self) -> tuple[Term, ...]:
        """Random-effects terms."""

    @property
    def group_name(self) -> str:
        """Name of the grouping factor, or names of several."""

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Names of the grouping factors."""

    @property
    def legend(self) -> dict[str, str]:
        """What names of columns of Z and of grouping factors stand for that the user did not give.

        For messages.
        """

    @property
    def factor_keys(self) -> list[GroupKeys]:
        """Group of each row used, for each grouping factor."""

    @property
    def residual(self) -> ResidualStructure | None:
        """Structure of the residuals, with names of columns; None: independent."""

    @property
    def residual_columns(self) -> dict[str, Column]:
        """Columns of the residual structure, for the rows used."""

    @property
    def unit(self) -> int | None:
        """Index in X of a column known to be the constant 1."""

    @property
    def keys(self) -> GroupKeys:
        """Group of each row used, in the first grouping factor."""

    @property
    def index(self) -> Any:
        """Index of the rows used in the user's pandas data; None for other kinds of data."""

    @property
    def random_access(self) -> bool:
        """Whether all columns lie in memory, so that ``batch(slice(None))`` costs nothing."""

    @property
    def missing_counts(self) -> dict[str, int]:
        """Columns with missing values, and how many."""

    @property
    def spec(self) -> Any:
        """What it takes to make columns for new data: no data in it, can be pickled."""

    def held_columns(self) -> tuple[list[Column], list[Column]]:
        """Columns that are kept: those that X, Z and groups depend on, and the response alone."""

    @property
    def n_rows(self) -> int:
        """Rows of the user's data, those left out among them."""

    def report(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], Any]:
        """Values (n_obs,) of the rows used as they are handed out, and their pandas index or None.

        With ``missing="exclude"`` they have NaN for rows left out because a value is missing.
        """

    def batch(self, rows: Rows) -> Batch:
        """Columns for some of the rows used (positions 0 ... n_obs - 1)."""

    @property
    def kept(self) -> NDArray[np.intp] | None:
        """Positions in the user's data of the rows used, ascending; None: all."""

    def original_row(self, row: int) -> int:
        """Position in the user's data of a row used."""

    @property
    def dropped_effects(self) -> tuple[str, ...]:
        """Columns of Z that were left out because they are zero in all rows, ``name|group``."""

    def empty_effects(self) -> list[int]:
        """Columns of Z that are zero in all rows used."""

    def without_effects(self, columns: Sequence[int]) -> Design:
        """Return the same design without some columns of Z, which are zero in all rows used."""

    def with_response(self, y: NDArray[np.float64]) -> Design:
        """Return the same design with another response (n_obs,) for the rows used."""


def design_levels(design: Design) -> Levels:
    """Find the level of each row in each grouping factor of a design."""
    term_factors = [term.group for term in design.terms for _ in term.names]
    return find_levels(design.factor_names, design.factor_keys, term_factors)


def find_empty_effects(design: Design) -> list[int]:
    """Columns of Z that are zero in all rows used, where every term has others too."""
    names = [name for term in design.terms for name in term.names]
    empty = set(range(len(names)))
    for start in range(0, design.n_obs, CHUNK):
        Z = design.batch(slice(start, min(start + CHUNK, design.n_obs))).Z
        empty = {k for k in empty if not Z[k].any()}
        if not empty:
            return []
    first = 0
    for term in design.terms:
        own = range(first, first + len(term.names))
        empty = empty if not empty.issuperset(own) else set()
        first = own.stop
    return sorted(empty)


def check_finite(design: Design) -> None:
    """Raise a DataError that names the first value that is not finite, by column and row.

    Meant for the moment when a sum over the rows came out as NaN or infinite: it reads all rows
    again. Returns if every value is finite (then the sum itself overflowed).
    """
    for start in range(0, design.n_obs, CHUNK):
        batch = design.batch(slice(start, min(start + CHUNK, design.n_obs)))
        z_names = [name for term in design.terms for name in term.names]
        for kind, name, values in [
            ("response", design.y_name, batch.y),
            *zip(["X column"] * len(batch.X), design.x_names, batch.X, strict=True),
            *zip(["Z column"] * len(batch.Z), z_names, batch.Z, strict=True),
            ("weights", "weights", batch.weights),
            ("offset", "offset", batch.offset),
        ]:
            if values is None or values.strides == (0,):
                continue
            finite = np.isfinite(values)
            if not finite.all():
                k = int(np.argmin(finite))
                what = "missing (NaN)" if np.isnan(values[k]) else "infinite"
                raise DataError(
                    f"{kind} {name!r} is {what} in row {design.original_row(start + k)} (counting "
                    "from 0): remove the row or correct the value"
                )


def check_size(n_obs: int, x_names: Sequence[str]) -> None:
    """Raise a DataError if there are not more rows than fixed effects."""
    if len(x_names) >= n_obs:
        raise DataError(
            f"X has {len(x_names)} columns but only {n_obs} rows are used: there must be more rows "
            "than fixed effects"
        )


def warn_of_missing_rows(
    n_dropped: int, n_rows: int, missing_counts: Mapping[str, int], stacklevel: int
) -> None:
    """Warn where more than a tenth of the rows is left out: a column may not be what it seems.

    Parameters
    ----------
    n_dropped, n_rows : int
        Rows left out, and all rows.
    missing_counts : mapping
        Columns with missing values, and how many.
    """
    if n_dropped * 10 <= n_rows:
        return
    name, count = max(missing_counts.items(), key=lambda item: item[1])
    warnings.warn(
        f"{n_dropped} of {n_rows} rows are left out because values are missing, most of them in "
        f"{name!r} ({count}): check that column, or pass missing='raise'",
        MissingRowsWarning,
        stacklevel=stacklevel,
    )


def check_names(names: Sequence[str], what: str) -> None:
    """Raise a DataError if two columns have the same name."""
    if len(set(names)) < len(names):
        twice = [name for k, name in enumerate(names) if name in names[:k]]
        raise DataError(f"{what} has two columns named {twice[0]!r}: give them distinct names")
