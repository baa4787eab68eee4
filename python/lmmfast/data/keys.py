"""Group keys: which group each row belongs to, as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.data.columns import Column
from lmmfast.data.frame import with_used_levels
from lmmfast.errors import DataError


@dataclass(frozen=True, eq=False)
class Combination:
    """Labels of combinations such as ``"A:a"``: an array of text, written when it is asked for.

    Attributes
    ----------
    names : tuple of list of str
        Text of the levels of each column.
    codes : tuple of ndarray of int (L,)
        Level of each column in each combination.
    """

    names: tuple[list[str], ...]
    codes: tuple[NDArray[np.int64], ...]
    dtype = np.dtype(object)

    @cached_property
    def text(self) -> NDArray[Any]:
        """The labels, (L,)."""
        parts = [
            map(names.__getitem__, codes.tolist())
            for names, codes in zip(self.names, self.codes, strict=True)
        ]
        return np.array([":".join(label) for label in zip(*parts, strict=True)], dtype=object)

    def __len__(self) -> int:
        return len(self.codes[0])

    def __getitem__(self, which: Any) -> Any:
        return self.text[which]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.text if dtype is None else self.text.astype(dtype)


Labels = NDArray[Any] | Combination


@dataclass(frozen=True, eq=False)
class GroupKeys:
    """The group of every row.

    Attributes
    ----------
    values : (n,) ndarray of numbers
        The keys themselves if `labels` is None (integers or floats as the user has them, not
        copied); else integer codes into `labels`.
    labels : (L,) ndarray, Combination or None
        Distinct; each occurs in some row, and they stand in the order in which groups are reported.
        Combinations ``a:b`` have text labels such as ``"A:a"``; a colon or backslash within a part
        has a backslash before it, so that different combinations have different labels.
    missing : (n,) ndarray of bool or None
        Rows without a group, which only new data can have; their `values` mean nothing.
    """

    values: NDArray[Any]
    labels: Labels | None = None
    missing: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def of_rows(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Labels (k,) of some rows, which have a group."""
        values = self.values[rows]
        return values if self.labels is None else np.asarray(self.labels)[values]

    @property
    def is_text(self) -> bool:
        """Whether the keys are text rather than numbers."""
        return self.labels is not None and self.labels.dtype.kind not in "biufmM"


def group_keys(columns: Sequence[Column], kept: NDArray[np.intp] | None = None) -> GroupKeys:
    """Make the keys of one grouping column, or of the combinations of several.

    Parameters
    ----------
    columns : sequence of Column
        One for ``(1 | a)``, two for ``(1 | a:b)``.
    kept : (n,) ndarray of int, optional
        Rows used; all by default.
    """
    masks = [column.missing for column in columns if column.missing is not None]
    missing = np.logical_or.reduce(masks) if masks else None
    present = kept if missing is None or kept is not None else np.flatnonzero(~missing)
    if kept is not None:
        missing = None  # rows kept are complete
    if len(columns) > 1:
        return _combine(columns, kept, present, missing)
    column = with_used_levels(columns[0], present)
    values = column.values if kept is None else column.values[kept]
    if column.levels is not None:
        return GroupKeys(values, _as_labels(column.levels), missing)
    if values.dtype.kind == "b":
        labels, codes = np.unique(values, return_inverse=True)
        return GroupKeys(codes, labels, missing)
    return GroupKeys(values, None, missing)


def check_key_kind(keys: GroupKeys, text_keys: bool, name: str) -> None:
    """Raise a DataError if keys were text in the fit and are numbers now, or the reverse."""
    if len(keys) and (keys.missing is None or not keys.missing.all()):
        if keys.is_text != text_keys:
            was, now = ("text", "numbers") if text_keys else ("numbers", "text")
            raise DataError(f"the groups {name!r} were {was} in the fit and are {now} here")


def _as_labels(levels: Any) -> NDArray[Any]:
    labels: NDArray[Any] = np.asarray(levels)
    return labels if labels.dtype.kind in "biufmM" else labels.astype(object, copy=False)


def _combine(
    columns: Sequence[Column],
    kept: NDArray[np.intp] | None,
    present: NDArray[np.intp] | None,
    missing: NDArray[np.bool_] | None,
) -> GroupKeys:
    """Labels are for the combinations that occur, not for each row.

    Rows that follow each other in one combination are looked at once.
    """
    columns = [with_used_levels(column, present) for column in columns]
    values = [c.values if present is None else c.values[present] for c in columns]
    heads, lengths = _runs(values)
    combined = np.zeros(1, dtype=np.int64)
    names: list[list[str]] = []
    parts: list[NDArray[np.int64]] = []
    for column, own_values in zip(columns, values, strict=True):
        codes, own = _codes_and_names(column, own_values[heads])
        combined, occurring = renumber(combined * len(own) + codes)
        before, here = np.divmod(occurring, max(len(own), 1))
        names, parts = [*names, own], [*(part[before] for part in parts), here]
    if lengths is not None:
        combined = np.repeat(combined, lengths)
    if kept is None and present is not None:  # new data with missing keys
        everywhere = np.full(len(columns[0]), -1, dtype=np.int64)
        everywhere[present] = combined
        combined = everywhere
    return GroupKeys(combined, Combination(tuple(names), tuple(parts)), missing)


def _runs(values: Sequence[NDArray[Any]]) -> tuple[Any, NDArray[np.intp] | None]:
    """First rows and lengths of runs of equal values, where most rows are within a run."""
    n = len(values[0])
    changes = np.logical_or.reduce([own[1:] != own[:-1] for own in values])
    if n < 2 or 2 * np.count_nonzero(changes) > n:
        return slice(None), None
    heads = np.append(0, np.flatnonzero(changes) + 1)
    return heads, np.diff(np.append(heads, n))


def renumber(values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Codes 0, 1, ... in the order of the values, and the distinct values."""
    import pandas as pd

    if values.dtype.kind in "iu" and len(values):
        low, high = int(values.min()), int(values.max())
        if high - low < 4 * len(values) and high < 1 << 62:  # a table is faster than hashing
            shifted = values.astype(np.int64) - low
            occurs = np.zeros(high - low + 1, dtype=bool)
            occurs[shifted] = True
            codes = np.cumsum(occurs, dtype=np.int64)[shifted] - 1
            return codes, np.flatnonzero(occurs) + low
    codes, uniques = pd.factorize(values, sort=True)
    return codes, np.asarray(uniques)


def _codes_and_names(column: Column, values: NDArray[Any]) -> tuple[NDArray[np.int64], list[str]]:
    if column.levels is not None:
        return values.astype(np.int64), [_part(level) for level in column.levels]
    codes, uniques = renumber(values)
    return codes, [_part(number) for number in uniques.tolist()]


def _part(value: Any) -> str:
    """One part of a label, the same for the same value in any data."""
    if isinstance(value, float):
        # Whole numbers as integers: a column that gains a missing value turns into floats.
        return str(int(value)) if value.is_integer() else repr(float(value))
    return str(value).replace("\\", "\\\\").replace(":", "\\:")
