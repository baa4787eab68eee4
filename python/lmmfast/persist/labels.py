"""Labels of groups and levels of factors: numbers and times as they are, text in UTF-8, dates."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.data.text_labels import TextLabels
from lmmfast.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def labels_to_plain(labels: Any, what: str) -> dict[str, Any]:
    """Return labels (m,) as a document has them.

    Raises
    ------
    DataError
        Labels that are neither numbers nor text nor times nor dates.
    """
    if not isinstance(labels, TextLabels):
        array = np.asarray(labels)
        if array.dtype.kind in "biufmM":
            return {"kind": "numbers", "values": array}
        texts = array.tolist()
        kinds = set(map(type, texts))
        if kinds == {datetime.date}:
            return {"kind": "dates", "values": [date.isoformat() for date in texts]}
        if not kinds <= {str}:
            names = ", ".join(sorted(kind.__name__ for kind in kinds - {str}))
            raise DataError(f"{what} are of type {names}: make text or numbers of them, and refit")
        labels = TextLabels.of(texts)
    return {
        "kind": "text",
        "utf8": labels.utf8,
        "ends": labels.ends,
        "ascends": labels.ascends,
    }


def labels_from_plain(plain: dict[str, Any]) -> NDArray[Any] | TextLabels:
    """Undo `labels_to_plain`; texts are read when they are asked for."""
    if plain["kind"] == "numbers":
        return np.asarray(plain["values"])
    if plain["kind"] == "text":
        utf8, ends = plain["utf8"], plain["ends"]
        if (ends.size and int(ends[-1]) != len(utf8)) or ends.dtype.kind not in "iu":
            raise ValueError("texts do not end where they should")
        return TextLabels(utf8, ends, bool(plain["ascends"]))
    if plain["kind"] == "dates":
        dates = [datetime.date.fromisoformat(text) for text in plain["values"]]
        return np.array(dates, dtype=object)
    raise ValueError(f"labels of kind {plain['kind']!r}")


def index_to_plain(index: pd.Index[Any], what: str) -> dict[str, Any]:
    """Return levels, or labels of several columns, as a document has them."""
    if getattr(index, "nlevels", 1) > 1:
        columns = [index.get_level_values(k) for k in range(index.nlevels)]
        parts = [index_to_plain(column, what) for column in columns]
        return {"kind": "several", "names": list(index.names), "columns": parts}
    plain = labels_to_plain(index.to_numpy(), what)
    return {**plain, "name": index.name, "object": index.dtype == object}


def index_from_plain(plain: dict[str, Any]) -> pd.Index[Any]:
    """Undo `index_to_plain`."""
    import pandas as pd

    if plain["kind"] == "several":
        columns = [index_from_plain(part) for part in plain["columns"]]
        return pd.MultiIndex.from_arrays(columns, names=plain["names"])
    values = np.asarray(labels_from_plain(plain))
    dtype = object if plain["object"] else None
    return pd.Index(values, dtype=dtype, name=plain["name"])
