"""Where a group stands among the groups of a fit, found without reading all of them."""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.data.keys import GroupKeys
from lmmfast.data.text_labels import TextLabels

if TYPE_CHECKING:
    import pandas as pd


#: Labels in a file are read one at a time for keys that are fewer than them by this factor.
FEW = 1000


class GroupLookup:
    """The positions of groups by their labels; what it takes is made once and kept.

    Parameters
    ----------
    labels : ndarray or TextLabels (m,)
        Distinct.
    """

    def __init__(self, labels: NDArray[Any] | TextLabels) -> None:
        self.labels = labels

    def __reduce__(self) -> tuple[Any, ...]:
        return GroupLookup, (self.labels,)

    @cached_property
    def _index(self) -> pd.Index[Any]:
        import pandas as pd

        labels = np.asarray(self.labels)
        return pd.Index(labels, dtype=object if labels.dtype.kind == "O" else None)

    @cached_property
    def _ascends(self) -> bool:
        """Whether labels stand in their order, so that one is found by halving."""
        if isinstance(self.labels, TextLabels):
            return self.labels.ascends
        try:
            return bool((self.labels[:-1] < self.labels[1:]).all())
        except TypeError:  # labels of several types
            return False

    def position(self, label: int | float | str) -> int:
        """Return the position of one label of the labels' own type; -1 where there is none."""
        labels = self.labels
        if not self._ascends:
            try:
                return int(self._index.get_loc(label))  # type: ignore[arg-type]
            except KeyError:
                return -1
        if isinstance(labels, np.ndarray) and labels.dtype.kind != "O":
            try:
                key = labels.dtype.type(label)
            except OverflowError:
                return -1
            at = int(labels.searchsorted(key))
        else:
            key, at = label, bisect_left(labels, label)
        return at if at < len(labels) and labels[at] == key else -1

    def positions(self, keys: NDArray[Any]) -> NDArray[np.intp]:
        """Return the position (n,) of each of n labels; -1 where there is none."""
        import pandas as pd

        own, kinds = self.labels.dtype, "iuf"
        if isinstance(self.labels, TextLabels) and FEW * len(keys) < len(self.labels):
            each = [self.position(key) if type(key) is str else -1 for key in keys.tolist()]
            return np.array(each, dtype=np.intp)
        if own.kind == "O":
            return self._index.get_indexer(pd.Index(np.asarray(keys), dtype=object))
        if own.kind not in kinds or keys.dtype.kind not in kinds:
            return self._index.get_indexer(pd.Index(np.asarray(keys)))
        converted, same = _converted(keys, own)
        found = self._index.get_indexer(pd.Index(converted))
        return found if same is None else np.where(same, found, -1)

    def rows(self, keys: GroupKeys, n_rows: int) -> NDArray[np.intp]:
        """Return the position (n,) of the group of each row; -1 for unknown and missing groups."""
        if keys.labels is not None and not len(keys.labels):
            return np.full(n_rows, -1, dtype=np.intp)  # every key is missing
        if keys.labels is not None:
            found = self.positions(np.asarray(keys.labels))[keys.values]
        else:  # look up one key per run of equal ones
            values = keys.values
            starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))[:n_rows]
            lengths = np.diff(np.append(starts, n_rows))
            found = np.repeat(self.positions(values[starts]), lengths)
        return found if keys.missing is None else np.where(keys.missing, -1, found)


def _converted(
    keys: NDArray[Any], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Keys (n,) in another type of numbers, and which of them are the same number there.

    pandas would convert the labels instead, all of them, and take neighbours beyond 2^53 for equal.
    """
    if keys.dtype == dtype:
        return keys, None
    with np.errstate(invalid="ignore", over="ignore"):
        converted = keys.astype(dtype)
        same = (converted.astype(keys.dtype) == keys) & ((converted < 0) == (keys < 0))
    if dtype.kind in "iu" and keys.dtype.kind == "f":
        same &= keys < 2.0 ** (8 * dtype.itemsize - (dtype.kind == "i"))
    return converted, same
