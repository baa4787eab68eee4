"""Whether the data of a fit are still what they were: columns are views of the user's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast._dispatch import core
from lmmfast._threads import n_threads
from lmmfast.data.columns import Column
from lmmfast.errors import DataError

_SIZES = (1, 2, 4, 8)
#: Of a matrix by rows with more columns those that are used are looked at alone.
FEW_COLUMNS = 16


class Fingerprints:
    """Numbers that tell columns from what becomes of them when somebody writes into them.

    One pass over the columns, at the speed of memory.

    Parameters
    ----------
    columns : sequence of Column
        What the design depends on.
    response : sequence of Column
        What the response alone depends on.
    """

    def __init__(self, columns: Sequence[Column], response: Sequence[Column]) -> None:
        design = _arrays(columns)
        self._n_design = len(design)
        self._arrays = [*design, *_arrays(response)]
        self._taken = _fingerprints(self._arrays)

    def check(self, response: bool = True) -> None:
        """Raise a DataError that names the first column whose values are others by now.

        Parameters
        ----------
        response : bool
            Look at the response too.
        """
        arrays = self._arrays if response else self._arrays[: self._n_design]
        now = _fingerprints(arrays)
        for (name, _), before, after in zip(arrays, self._taken, now, strict=False):
            if before != after:
                raise DataError(
                    f"{name} has changed since the fit, which keeps no copy of its data: fit the "
                    "new values anew, or fit a copy of the data before you write into them"
                )


def _arrays(columns: Sequence[Column]) -> list[tuple[str, NDArray[Any]]]:
    """Arrays to look at, each once, with their names: columns of a matrix by rows are one."""
    found: dict[tuple[Any, ...], tuple[str, NDArray[Any]]] = {}
    for column in columns:
        values, name = column.values, repr(column.name)
        matrix = values.base
        if isinstance(matrix, np.ndarray) and _is_column(values, matrix):
            values, name = matrix.reshape(-1), f"the matrix of {name}"
        key = values.__array_interface__["data"][0], values.strides, values.shape, values.dtype
        found.setdefault(key, (name, values))
    return list(found.values())


def _is_column(values: NDArray[Any], matrix: NDArray[Any]) -> bool:
    """Whether values are a column of few of a matrix that lies in memory by rows."""
    return (
        matrix.ndim == 2
        and 1 < matrix.shape[1] <= FEW_COLUMNS
        and matrix.flags.c_contiguous
        and matrix.dtype == values.dtype
        and values.strides == matrix.strides[:1]
        and len(values) == len(matrix)
    )


def _fingerprints(arrays: Sequence[tuple[str, NDArray[Any]]]) -> list[int]:
    if not arrays:
        return []
    return core.fingerprint([_readable(values) for _, values in arrays], n_threads())


def _readable(values: NDArray[Any]) -> NDArray[Any]:
    if values.itemsize in _SIZES:
        return values
    return np.ascontiguousarray(values).view(np.uint8)
