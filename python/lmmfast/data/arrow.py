"""Columns of polars and pyarrow, whose text is looked up without a Python string for each row."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.data.columns import Column, factor, factorize, numbers, unusable

_FEW = 1024  # rows that tell whether equal values stand together


def from_polars(name: str, data: Any, group: bool) -> Column:
    """Read a polars series; see `lmmfast.data.columns.read_column`."""
    import pandas as pd
    import polars as pl

    dtype = data.dtype
    if isinstance(dtype, pl.Enum):
        codes = _polars_values(data.to_physical()).astype(np.int64)
        codes[data.is_null().to_numpy()] = -1
        return factor(name, codes, pd.Index(dtype.categories.to_list()), keeps_order=True)
    if isinstance(dtype, pl.Categorical):
        return _polars_categorical(name, data)
    if dtype == pl.String:
        return _polars_text(name, data)
    if isinstance(dtype, pl.Decimal):
        data = data.cast(pl.Float64)
    if data.dtype.is_numeric() or data.dtype == pl.Boolean:
        missing = data.is_null().to_numpy() if data.null_count() else None
        return numbers(name, _polars_values(data), missing)
    if data.dtype == pl.Null:
        return Column(name, np.zeros(len(data)), missing=np.ones(len(data), dtype=bool))
    if data.dtype.is_temporal() and group:
        return factorize(name, data.to_numpy())
    raise unusable(name, str(data.dtype).lower())


def _polars_values(series: Any) -> NDArray[Any]:
    filled = series.fill_null(0 if series.dtype.is_numeric() else False)
    values: NDArray[Any] = (filled if series.null_count() else series).to_numpy()
    return values


def _polars_categorical(name: str, data: Any) -> Column:
    """Physical codes count all categories that polars has ever seen: renumber ours."""
    import pandas as pd
    import polars as pl

    present = data.unique().drop_nulls()
    physical = _polars_values(data.to_physical())
    mine = present.to_physical().to_numpy()
    lookup = np.full(int(physical.max(initial=0)) + 1, -1, dtype=np.int32)
    lookup[mine] = np.arange(len(mine), dtype=np.int32)
    codes = lookup[physical]
    if data.null_count():
        codes[data.is_null().to_numpy()] = -1
    return factor(name, codes, pd.Index(present.cast(pl.String).to_list(), dtype=object))


def _polars_text(name: str, data: Any) -> Column:
    """Through arrow, or else an Enum: no Python string is made per row."""
    import pandas as pd
    import polars as pl

    if _has_runs(_polars_changes(data[:_FEW])):
        changes = _polars_changes(data)
        values = data.filter(pl.Series(np.append(True, changes)))
        return _repeat(_polars_text(name, values), changes)
    if importlib.util.find_spec("pyarrow") is not None:
        return from_arrow(name, data.to_arrow(), group=False)
    levels = data.unique().drop_nulls().sort()
    codes = _polars_values(data.cast(pl.Enum(levels)).to_physical()).astype(np.int32)
    if data.null_count():
        codes[data.is_null().to_numpy()] = -1
    return factor(name, codes, pd.Index(levels.to_list(), dtype=object))


def _polars_changes(data: Any) -> NDArray[np.bool_]:
    """Whether each value but the first differs from the one before it, (n - 1,)."""
    changes: NDArray[np.bool_] = data[1:].ne_missing(data[:-1]).to_numpy()
    return changes


def from_arrow(name: str, data: Any, group: bool) -> Column:
    """Read a pyarrow array; see `lmmfast.data.columns.read_column`."""
    import pyarrow as pa

    kind = data.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if text or (hasattr(pa.types, "is_string_view") and pa.types.is_string_view(kind)):
        return _arrow_text(name, data)
    if pa.types.is_dictionary(kind):
        return _arrow_dictionary(name, data, ordered=kind.ordered)
    if pa.types.is_decimal(kind):
        data = data.cast(pa.float64())
    elif pa.types.is_null(kind):
        return Column(name, np.zeros(len(data)), missing=np.ones(len(data), dtype=bool))
    elif pa.types.is_temporal(kind):
        if group:
            return factorize(name, data.to_pandas())
        raise unusable(name, str(kind))
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise unusable(name, str(kind))
    missing = None
    if data.null_count:
        missing = _arrow_values(data.is_null())
        data = data.fill_null(pa.scalar(0).cast(data.type))
    return numbers(name, _arrow_values(data), missing)


def _arrow_values(data: Any) -> NDArray[Any]:
    """NumPy view of an arrow array without nulls (a copy for booleans and several chunks)."""
    import pyarrow as pa

    if isinstance(data, pa.ChunkedArray):
        data = data.chunk(0) if data.num_chunks == 1 else data
    if isinstance(data, pa.ChunkedArray):
        return np.asarray(data.to_numpy())
    return np.asarray(data.to_numpy(zero_copy_only=False))


def _arrow_codes(chunk: Any) -> NDArray[Any]:
    """Codes of a dictionary array, signed, -1 where missing."""
    if not chunk.null_count:
        codes = _arrow_values(chunk.indices)
        return codes.astype(np.int64) if codes.dtype.kind == "u" else codes
    codes = _arrow_values(chunk.indices.fill_null(0)).astype(np.int64)
    codes[_arrow_values(chunk.is_null())] = -1
    return codes


def _arrow_text(name: str, data: Any) -> Column:
    """Of a run of equal texts, which ids often have, only the first is looked up."""
    import pandas as pd
    import pyarrow as pa

    if data.null_count or not _is_plain_text(data.type):
        return _arrow_dictionary(name, data.dictionary_encode(), ordered=False)
    if _has_runs(_arrow_changes(data[:_FEW])):
        changes = _arrow_changes(data)
        starts = pa.array(np.append(True, changes))
        return _repeat(_arrow_text(name, data.filter(starts)), changes)
    if _arrow_ascending(data[:_FEW]) and _arrow_ascending(data):
        codes = np.arange(len(data), dtype=np.int32)
        return Column(name, codes, pd.Index(data.to_pandas()), keeps_order=True)
    return _arrow_dictionary(name, data.dictionary_encode(), ordered=False)


def _is_plain_text(kind: Any) -> bool:
    """Whether arrow can compare texts of this type, which it cannot for views."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _arrow_changes(data: Any) -> NDArray[np.bool_]:
    """Whether each value but the first differs from the one before it, (n - 1,)."""
    import pyarrow.compute as pc

    return _arrow_values(pc.not_equal(data[1:], data[:-1]))


def _arrow_ascending(data: Any) -> bool:
    """Whether each value is larger than the one before it."""
    import pyarrow.compute as pc

    return pc.all(pc.less(data[:-1], data[1:])).as_py() is not False


def _has_runs(changes: NDArray[np.bool_]) -> bool:
    """Whether looking up one value a run saves more than finding the runs costs."""
    return 2 * int(np.count_nonzero(changes)) < len(changes)


def _repeat(runs: Column, changes: NDArray[np.bool_]) -> Column:
    """Rows of a factor whose runs are given, with where the next run begins, (n - 1,)."""
    starts = np.flatnonzero(changes) + 1
    lengths = np.diff(starts, prepend=0, append=len(changes) + 1)
    missing = None if runs.missing is None else np.repeat(runs.missing, lengths)
    return Column(
        runs.name, np.repeat(runs.values, lengths), runs.levels, missing, runs.keeps_order
    )


def _arrow_dictionary(name: str, data: Any, *, ordered: bool) -> Column:
    import pandas as pd
    import pyarrow as pa

    if isinstance(data, pa.ChunkedArray):
        chunks = data.unify_dictionaries().chunks or [pa.array([], type=data.type)]
    else:
        chunks = [data]
    codes = np.concatenate([_arrow_codes(chunk) for chunk in chunks])
    dictionary = chunks[0].dictionary
    direct = _is_plain_text(dictionary.type) and not dictionary.null_count
    levels = pd.Index(dictionary.to_pandas() if direct else dictionary.to_pylist())
    return factor(name, codes, levels, keeps_order=ordered)
