"""One type for each column, whatever the files have."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from lmmfast.errors import DataError


def common_type(name: str, found: list[tuple[Any, str]]) -> Any:
    """Find the type that holds a column of all files without loss.

    Parameters
    ----------
    name : str
    found : list of (pyarrow.DataType, str)
        Type and file, in order.

    Raises
    ------
    DataError
        Numbers in one file and text in another, and the like; names both files.
    """
    common, first = _plain(found[0][0]), found[0][1]
    for kind, file in found[1:]:
        wider = _wider(common, _plain(kind))
        if wider is None:
            raise DataError(
                f"column {name!r} is {common} in {first} and {kind} in {file}: write it with one "
                "type"
            )
        if wider != common:
            common, first = wider, file
    return common


def _plain(kind: Any) -> Any:
    """Types that compute functions know: no views, no decimals, dictionaries as they are."""
    if pa.types.is_dictionary(kind):
        value = _plain(kind.value_type)
        return pa.dictionary(pa.int32(), value, kind.ordered) if kind.ordered else value
    if pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_large_string(kind) or "string_view" in str(kind):
        return pa.large_string() if pa.types.is_large_string(kind) else pa.string()
    return kind


def _wider(a: Any, b: Any) -> Any:
    """Type that holds both, or None."""
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b
    if _is_text(a) and _is_text(b):
        return pa.large_string()
    if pa.types.is_floating(a) and pa.types.is_floating(b):
        return pa.float64()
    if pa.types.is_integer(a) and pa.types.is_integer(b):
        unsigned = pa.types.is_uint64(a), pa.types.is_uint64(b)
        return pa.int64() if not any(unsigned) else None
    numbers = [pa.types.is_integer(t) or pa.types.is_floating(t) for t in (a, b)]
    return pa.float64() if all(numbers) else None


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def as_type(column: Any, kind: Any) -> Any:
    """Column with another type that holds its values.

    Raises
    ------
    pyarrow.ArrowException
        Some value has no such number.
    """
    if column.type == kind:
        return column
    if pa.types.is_dictionary(kind) and pa.types.is_dictionary(column.type):
        codes, levels = column.indices.cast(pa.int32()), column.dictionary.cast(kind.value_type)
        return pa.DictionaryArray.from_arrays(codes, levels, ordered=kind.ordered)
    return column.cast(kind)


def is_factor(kind: Any) -> bool:
    """Whether a column of this type has levels."""
    return _is_text(kind) or bool(pa.types.is_dictionary(kind))


def width(kind: Any) -> int:
    """About how many bytes a value takes."""
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 24
