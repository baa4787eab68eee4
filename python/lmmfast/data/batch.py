"""The columns of a model as kernels read them, of the rows of a fit and of new ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.data.frame import as_float

CHUNK = 1 << 17  # rows at a time where a chunk must fit the cache, not the memory


# Types of the columns that the compiled kernels read as they lie, at any stride.
KERNEL_DTYPES: frozenset[np.dtype[Any]] = frozenset(np.dtype(code) for code in "dfbhilqBHILQ?")


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
