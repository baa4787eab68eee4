"""The responses of `fit_many`, a block of columns at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.data.columns import as_array
from lmmfast.errors import DataError


class Responses:
    """Columns (n, r) of which only some are in memory at a time.

    Parameters
    ----------
    first : ndarray (n, k)
        The first columns as the user holds them.
    more : iterator of arrays (n, k) or None
        None where the first columns are all there are.
    y_names : sequence of str or None
    """

    def __init__(
        self, first: Any, more: Iterator[Any] | None, y_names: Sequence[str] | None
    ) -> None:
        self._first, self._more, self._names = first, more, y_names
        self.n_rows = len(first)

    @property
    def n_in_memory(self) -> int:
        """Number of responses that lie in memory, 0 unless all do."""
        return 0 if self._more is not None else int(self._first.shape[1])

    def blocks(self, at_once: int) -> Iterator[Array]:
        """Blocks (n, at most ``at_once``) of float64.

        Raises
        ------
        DataError
            If a block is not a matrix of numbers with n rows.
        """
        for block in chain([self._first], self._more or ()):
            array = _matrix(block)
            if len(array) != self.n_rows:
                raise DataError(
                    f"a block of responses has {len(array)} rows, the first one {self.n_rows}"
                )
            for start in range(0, array.shape[1], at_once):
                yield np.asarray(array[:, start : start + at_once], dtype=np.float64)

    def names(self, count: int) -> list[str]:
        """Names of all responses, known when all have been read."""
        if self._names is None:
            return [f"y{k}" for k in range(count)]
        if len(self._names) != count:
            raise DataError(f"Y has {count} columns, but {len(self._names)} names are given")
        return [str(name) for name in self._names]


def open_responses(Y: Any, y_names: Sequence[str] | None) -> Responses:
    """Read Y of `lmmfast.fit_many`.

    Raises
    ------
    DataError
        If Y has no rows, no columns, or is not numbers.
    """
    from lmmfast.data.tables import is_table

    if is_table(Y):
        from lmmfast.design.from_arrays import read_matrix

        columns, names = read_matrix(Y, "Y", y_names, "y", None, scan=False)
        if not columns:
            raise DataError("Y has no columns: the keys of a mapping must be their names, as text")
        blocks = (
            np.column_stack([column.values for column in columns[k : k + 64]])
            for k in range(0, len(columns), 64)
        )
        return Responses(_matrix(next(blocks)), blocks, names)
    if isinstance(Y, np.ndarray) or not isinstance(Y, Iterable):
        return Responses(_matrix(Y), None, y_names)
    if isinstance(Y, Sequence):  # rows of a matrix
        return Responses(_matrix(Y), None, y_names)
    more = iter(Y)
    first = next(more, None)
    if first is None:
        raise DataError("Y has no columns")
    return Responses(_matrix(first), more, y_names)


def _matrix(block: Any) -> Any:
    array = block if isinstance(block, np.ndarray) else as_array("Y", block)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        raise DataError("Y must be numbers, a row for each row of X and a column for each response")
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise DataError(f"Y has shape {array.shape}: there is nothing to fit")
    return array
