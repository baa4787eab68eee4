"""Columns of X of the rows of a fit, in bounded chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK, Batch

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


def columns_of_X(batch: Batch, columns: Sequence[int] | NDArray[np.intp], n_rows: int) -> Array:
    """Return some columns of X of a batch (n_rows, n_columns), of which there may be none."""
    X = np.empty((n_rows, len(columns)))
    for place, j in enumerate(columns):
        X[:, place] = batch.X[j]
    return X


def chunks_of_X(
    fit: LMMResult, columns: Sequence[int] | NDArray[np.intp], what: str
) -> Iterator[tuple[slice, Array]]:
    """Rows used, chunk by chunk, and some columns of X there.

    Parameters
    ----------
    columns
        Numbers of columns of X, dropped ones counted.
    what : str
        What they are for, named where the fit holds no rows.

    Raises
    ------
    DataError
        A fit that holds no rows.
    """
    design: Any = fit._need(fit._design, what)
    for start in range(0, design.n_obs, CHUNK):
        rows = slice(start, min(start + CHUNK, design.n_obs))
        batch = design.batch(rows).as_float()
        yield rows, columns_of_X(batch, columns, rows.stop - rows.start)
