"""Batches with one type for each column, and without the rows that miss a value."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lmmfast.data.columns import all_finite
from lmmfast.data.frame import check_missing
from lmmfast.errors import DataError
from lmmfast.streaming.files import Batches
from lmmfast.streaming.place import Place
from lmmfast.streaming.types import as_type


@dataclass
class Cleaner:
    """Makes batches fit for use, and counts what is missing.

    Attributes
    ----------
    types : dict of pyarrow.DataType
        Of the columns, in order.
    missing : {"drop", "exclude", "raise"}
    weights : str or None
        The column that must be positive.
    told : callable or None
        Called after each batch with the number of rows so far.
    n_rows, n_obs : int
        Rows seen so far, and rows used of them.
    missing_counts : dict
        Columns with missing values, and how many.
    """

    types: dict[str, Any]
    missing: str
    weights: str | None
    told: Callable[[int], None] | None = None
    n_rows: int = 0
    n_obs: int = 0
    missing_counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_missing(self.missing)

    def clean(self, batches: Batches) -> Batches:
        """Rows that can be used, batch by batch.

        Raises
        ------
        DataError
            Naming column, row, row group and file.
        """
        for batch, place in batches:
            self.n_rows += len(batch)
            used = self._complete(self._typed(batch, place), place)
            self.n_obs += len(used)
            if len(used):
                yield used, place
            if self.told is not None:
                self.told(self.n_rows)

    def _typed(self, batch: Any, place: Place) -> Any:
        arrays = []
        for name, kind in self.types.items():
            column = batch.column(name)
            try:
                arrays.append(as_type(column, kind))
            except pa.ArrowException as error:
                raise DataError(
                    f"column {name!r} is {column.type} in {place} and {kind} elsewhere, and not "
                    f"all of it can be converted: {error}"
                ) from None
        return pa.record_batch(arrays, names=list(self.types))

    def _complete(self, batch: Any, place: Place) -> Any:
        """Leave out rows that miss a value; look at the others."""
        absent = None
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            mask = _missing(column)
            if mask is None:
                continue
            count = int(np.count_nonzero(mask))
            if self.missing == "raise":
                raise DataError(
                    f"missing values in {name!r} ({count} in {place}): remove or impute them, or "
                    "leave the rows out with missing='drop'"
                )
            self.missing_counts[name] = self.missing_counts.get(name, 0) + count
            absent = mask if absent is None else absent | mask
        used = batch if absent is None else batch.filter(pa.array(~absent))
        kept = None if absent is None else np.flatnonzero(~absent)
        for name, column in zip(used.schema.names, used.columns, strict=True):
            self._check_values(name, column, kept, place)
        return used

    def _check_values(self, name: str, column: Any, kept: Any, place: Place) -> None:
        if pa.types.is_floating(column.type):
            values = column.to_numpy(zero_copy_only=False)
            if not all_finite(values):
                row = _original(int(np.argmin(np.isfinite(values))), kept)
                raise DataError(
                    f"column {name!r} is infinite in {place.row(row)}: remove the row or set it to "
                    "missing"
                )
        if name == self.weights:
            good = column.to_numpy(zero_copy_only=False) > 0
            if not good.all():
                row = _original(int(np.argmin(good)), kept)
                raise DataError(
                    f"weights must be positive: {name!r} is not in {place.row(row)}; remove rows "
                    "that are not to count"
                )


def _original(row: int, kept: Any) -> int:
    return row if kept is None else int(kept[row])


def _missing(column: Any) -> Any:
    """Mask of missing values (n,), or None."""
    floating = pa.types.is_floating(column.type)
    if not column.null_count and not (
        floating and np.isnan(column.to_numpy(zero_copy_only=False).sum())
    ):
        return None
    mask = pc.is_null(column, nan_is_null=floating).to_numpy(zero_copy_only=False)
    return mask if mask.any() else None


def gathered(batches: Batches, types: dict[str, Any], names: Collection[str] | None = None) -> Any:
    """Table of some columns of batches."""
    names = list(types) if names is None else [name for name in types if name in set(names)]
    schema = pa.schema([(name, types[name]) for name in names])
    found = [batch.select(names) for batch, _ in batches]
    return pa.Table.from_batches([pa.record_batch(b.columns, schema=schema) for b in found], schema)


def sized(types: dict[str, Any], names: Sequence[str], width: Any) -> int:
    """Bytes of a row of some columns."""
    return sum(width(types[name]) for name in names)
