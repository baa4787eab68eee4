"""What the numerical side sees of a model: columns of y, X and Z for some rows, and group keys."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmmfast.covariance.random import RandomStructure, Unstructured, structure
from lmmfast.data.columns import Column
from lmmfast.data.frame import Rows, as_float
from lmmfast.data.keys import GroupKeys as GroupKeys
from lmmfast.errors import DataError, FormulaError, MissingRowsWarning
from lmmfast.residual.structures import ResidualStructure

CHUNK = 1 << 17  # rows at a time where a chunk must fit the cache, not the memory

# Types of the columns that the compiled kernels read as they lie, at any stride.
KERNEL_DTYPES: frozenset[np.dtype[Any]] = frozenset(np.dtype(code) for code in "dfbhilqBHILQ?")


@dataclass(frozen=True)
class Term:
    """A random-effects term: the columns of Z that share one covariance matrix."""

    group: str  # "infant" or "a:b"
    names: tuple[str, ...]  # columns of Z: ("Intercept", "t")
    structure: RandomStructure


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows of a model, a column at a time.

    Every column is an array (n,) of one of the `KERNEL_DTYPES` and any stride, a view of the
    user's memory where that is possible; a constant has stride 0. Do not write to it. Arithmetic
    in NumPy needs `as_float` first: small integers overflow.
    """

    y: NDArray[Any] | None
    X: list[NDArray[Any]]
    Z: list[NDArray[Any]]  # the columns of all terms, in order
    weights: NDArray[Any] | None = None
    offset: NDArray[Any] | None = None

    def as_float(self) -> Batch:
        """Return the same columns as float64, those that are float64 without a copy."""
        return Batch(
            y=None if self.y is None else as_float(self.y),
            X=[as_float(column) for column in self.X],
            Z=[as_float(column) for column in self.Z],
            weights=None if self.weights is None else as_float(self.weights),
            offset=None if self.offset is None else as_float(self.offset),
        )


@dataclass(frozen=True, eq=False)
class NewBatch:
    """Columns for new data.

    Attributes
    ----------
    X, Z : list of (n,) ndarray
        NaN in the rows that miss a value (except in constant columns). Z is empty if the random
        effects were not asked for.
    offset : (n,) ndarray or None
    missing : (n,) ndarray of bool or None
        Rows that cannot be predicted because a value is missing; None if there are none.
    """

    n_rows: int
    X: list[NDArray[np.float64]]
    Z: list[NDArray[np.float64]]
    offset: NDArray[np.float64] | None = None
    missing: NDArray[np.bool_] | None = None


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


def terms_without(
    terms: Sequence[Term], columns: Sequence[int]
) -> tuple[tuple[Term, ...], tuple[str, ...]]:
    """Terms without some columns of Z, and these as ``name|group``; one column needs no CS."""
    left, dropped, first = [], [], 0
    for term in terms:
        names = [name for k, name in enumerate(term.names, first) if k not in columns]
        dropped += [f"{name}|{term.group}" for name in term.names if name not in names]
        first += len(term.names)
        alone = len(names) == 1 < len(term.names)
        shape: RandomStructure = Unstructured() if alone else term.structure
        left.append(Term(term.group, tuple(names), shape))
    return tuple(left), tuple(dropped)


def natural_names(terms: Sequence[Term]) -> list[str]:
    """Names of the natural parameters of D, those of one term after the other."""
    return [name for term in terms for name in term.structure.natural_names(term.names, term.group)]


def kernel_ready(values: NDArray[Any]) -> bool:
    """Whether the kernels can read values (n,) where they lie."""
    return (
        values.dtype in KERNEL_DTYPES
        and values.flags.aligned
        and values.strides[0] % values.itemsize == 0
    )


def kernel_column(values: NDArray[Any]) -> NDArray[Any]:
    """Values (n,) as they are if the kernels can read them, else as float64."""
    return values if kernel_ready(values) else as_float(values)


def ones(n: int) -> NDArray[np.float64]:
    """Return the constant 1 as a column (n,) of stride 0."""
    return np.broadcast_to(np.float64(1.0), (n,))


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


def choose_structures(
    written: Sequence[tuple[str, str, bool | None]], D: Any
) -> list[RandomStructure]:
    """Find the covariance structure of each term.

    Parameters
    ----------
    written : sequence of (text, structure, hom)
        As the formula says.
    D : RandomStructure, sequence of them, or None
        The user's choice; replaces plain ``( | )`` terms only.
    """
    if D is None:
        return [structure(name, hom) for _, name, hom in written]
    chosen = list(D) if isinstance(D, list | tuple) else [D]
    for choice in chosen:
        if not isinstance(choice, RandomStructure):
            raise FormulaError(
                f"D={choice!r} is no covariance structure: pass lmmfast.D.diag(), .cs(), "
                ".identity() or .unstructured()"
            )
    if len(chosen) != len(written):
        raise FormulaError(
            f"D gives {len(chosen)} covariance structures for {len(written)} random-effects terms"
        )
    for text, name, _ in written:
        if name != "us":
            raise FormulaError(f"{text!r} names its covariance structure already: leave D= out")
    return chosen


def scatter(
    columns: list[NDArray[np.float64]], rows: NDArray[np.intp], n_rows: int
) -> list[NDArray[np.float64]]:
    """Spread columns of some rows over n rows, NaN elsewhere; constants stay constant."""
    spread = []
    for column in columns:
        if column.strides == (0,) and len(column) and column[0] == 1.0:
            spread.append(ones(n_rows))
            continue
        full = np.full(n_rows, np.nan)
        full[rows] = column
        spread.append(full)
    return spread
