"""Values that the state of a formula is made of, as documents have them, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lmmfast.errors import DataError


def to_plain(value: Any, what: str) -> Any:
    """Return a value as a document has it: tuples, and dicts by other keys than text, are marked.

    Parameters
    ----------
    value : None, bool, number, str, list, tuple, dict or ndarray of these
    what : str
        What it is, for the message.

    Raises
    ------
    DataError
        A value of another type.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return value
    if isinstance(value, list):
        return [to_plain(part, what) for part in value]
    if isinstance(value, tuple):
        return {"$tuple": [to_plain(part, what) for part in value]}
    if isinstance(value, Mapping):
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: to_plain(part, what) for key, part in value.items()}
        items = [[to_plain(key, what), to_plain(part, what)] for key, part in value.items()]
        return {"$items": items}
    raise DataError(f"{what} holds a value of type {type(value).__name__}, which cannot be saved")


def from_plain(value: Any) -> Any:
    """Undo `to_plain`."""
    if isinstance(value, list):
        return [from_plain(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "$tuple" in value:
        return tuple(from_plain(part) for part in value["$tuple"])
    if "$items" in value:
        return {from_plain(key): from_plain(part) for key, part in value["$items"]}
    return {key: from_plain(part) for key, part in value.items()}
