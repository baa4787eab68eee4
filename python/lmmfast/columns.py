"""One column of anybody's data frame as NumPy arrays: numbers as they lie, factors as codes.

pandas, polars, pyarrow and NumPy each have their own way to hold text, categories and missing
values. Behind `read_column` there is only one: a number column keeps its dtype (no copy where the
library allows it), everything else becomes integer codes into levels, and missing values are a
mask.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_NUMERIC_OBJECTS = ("integer", "floating", "mixed-integer-float", "decimal")
_TIME_OBJECTS = ("datetime", "datetime64", "date", "time", "timedelta", "timedelta64", "period")


@dataclass(frozen=True, eq=False)
class Column:
    """A column of n values.

    Attributes
    ----------
    name : str
    values : (n,) ndarray
        Numbers (bool, integer or floating); for a factor integer codes, -1 where missing.
    levels : pandas.Index or None
        Levels of a factor, distinct; None for numbers.
    missing : (n,) ndarray of bool or None
        None: nothing is missing.
    keeps_order : bool
        The user chose the order of the levels (pandas Categorical, polars Enum, ordered arrow
        dictionary); otherwise they are to be sorted.
    """

    name: str
    values: NDArray[Any]
    levels: pd.Index[Any] | None = None
    missing: NDArray[np.bool_] | None = None
    keeps_order: bool = False

    @property
    def is_factor(self) -> bool:
        """Whether it holds text, categories or times rather than numbers."""
        return self.levels is not None

    def __len__(self) -> int:
        return len(self.values)


def read_column(name: str, data: Any, *, group: bool = False) -> Column:
    """Read one column.

    Parameters
    ----------
    name : str
        For the messages.
    data : array, list, pandas/polars series or pyarrow array
    group : bool
        The column only tells groups apart: times and other hashable values are welcome.

    Raises
    ------
    DataError
        The values cannot be used: mixed types, complex numbers, times where a number is needed.
    """
    library = type(data).__module__.split(".")[0]
    if library == "pandas":
        return _from_pandas(name, data, group)
    if library == "polars":
        return _from_polars(name, data, group)
    if library == "pyarrow":
        return _from_arrow(name, data, group)
    return _from_numpy(name, data, group)


def _from_numpy(name: str, data: Any, group: bool) -> Column:
    masked = None
    if isinstance(data, np.ma.MaskedArray):
        masked, data = np.ma.getmaskarray(data), data.data
    array = np.asarray(data)
    if array.dtype.kind in "US" and not isinstance(data, np.ndarray):
        array = np.array(data, dtype=object)  # NumPy has made text of the numbers in a mixed list
    if array.ndim != 1:
        raise DataError(f"column {name!r} must have one dimension, not shape {array.shape}")
    kind = array.dtype.kind
    if kind in "biuf":
        missing = _nan_mask(array)
        if masked is not None and masked.any():
            missing = masked if missing is None else missing | masked
        return Column(name, array, missing=missing)
    if kind == "O":
        return _from_objects(name, array, group)
    if kind in "US":
        return _factorize(name, array.astype(object))
    if kind in "mM" and group:
        return _factorize(name, array)
    raise _unusable(name, str(array.dtype))


def _nan_mask(values: NDArray[Any]) -> NDArray[np.bool_] | None:
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return None
    mask: NDArray[np.bool_] = np.isnan(values)
    return mask if mask.any() else None


def _unusable(name: str, dtype: str) -> DataError:
    advice = "convert it to numbers or text first"
    if any(word in dtype for word in ("date", "time", "duration", "period")):
        advice = "turn times into numbers first, such as days since the first visit"
    elif "complex" in dtype:
        advice = "complex numbers have no place in this model"
    return DataError(f"column {name!r} has type {dtype}: {advice}")


def _factorize(name: str, values: Any) -> Column:
    """Codes and levels of text, times or other hashable values."""
    import pandas as pd

    try:
        codes, levels = pd.factorize(values)
    except TypeError:
        raise DataError(f"column {name!r} holds values that cannot be compared") from None
    return _factor(name, codes, pd.Index(levels))


def _factor(
    name: str, codes: NDArray[Any], levels: pd.Index[Any], keeps_order: bool = False
) -> Column:
    missing = codes < 0
    return Column(name, codes, levels, missing if missing.any() else None, keeps_order)


def _from_objects(name: str, array: NDArray[Any], group: bool) -> Column:
    """Read an object array: text, or Python numbers, or nothing we can use."""
    import pandas as pd

    kind = pd.api.types.infer_dtype(array, skipna=True)
    if kind == "string":
        return _factorize(name, array)
    null = np.asarray(pd.isna(array), dtype=bool)
    missing = null if null.any() else None
    if kind == "empty":
        return Column(name, np.full(len(array), np.nan), missing=missing)
    if kind in _NUMERIC_OBJECTS or kind == "boolean":
        dtype = {"integer": np.int64, "boolean": np.bool_}.get(kind, np.float64)
        values: NDArray[Any] = np.zeros(len(array), dtype=dtype)
        try:
            values[~null] = array[~null].astype(dtype)
        except OverflowError:
            raise DataError(f"column {name!r} holds integers beyond 64 bits") from None
        return Column(name, values, missing=missing)
    if group and kind in _TIME_OBJECTS:
        return _factorize(name, array)
    if kind in _TIME_OBJECTS:
        raise _unusable(name, kind)
    raise DataError(_describe_mixture(name, array, null))


def _describe_mixture(name: str, array: NDArray[Any], null: NDArray[np.bool_]) -> str:
    rows = np.flatnonzero(~null)
    types = [type(array[i]).__name__ for i in rows]
    other = next((k for k, kind in enumerate(types) if kind != types[0]), None)
    if other is None:
        return (
            f"column {name!r} holds Python objects of type {types[0]}: convert it to numbers or "
            "text first"
        )
    return (
        f"column {name!r} mixes types: {array[rows[0]]!r} ({types[0]}) in row {rows[0]}, "
        f"{array[rows[other]]!r} ({types[other]}) in row {rows[other]} (counting from 0): convert "
        "it to numbers or to text first"
    )


def _from_pandas(name: str, data: Any, group: bool) -> Column:
    import pandas as pd

    series = pd.Series(data, copy=False)
    dtype: Any = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        codes = series.cat.codes.to_numpy()
        return _factor(name, codes, series.cat.categories, keeps_order=True)
    if isinstance(dtype, np.dtype):
        return _from_numpy(name, series.to_numpy(), group)
    if isinstance(dtype, pd.ArrowDtype):
        array: Any = series.array
        return _from_arrow(name, array.__arrow_array__(), group)
    if isinstance(dtype, pd.StringDtype):
        return _factorize(name, series)
    if isinstance(dtype, pd.SparseDtype):
        return _from_numpy(name, np.asarray(series), group)
    if dtype.kind in "biuf":  # Int64, Float64, boolean: a mask beside the values
        null = series.isna().to_numpy()
        values = series.to_numpy(dtype=dtype.numpy_dtype, na_value=0)
        return Column(name, values, missing=null if null.any() else None)
    if group:
        return _factorize(name, series)
    raise _unusable(name, str(dtype))


def _from_polars(name: str, data: Any, group: bool) -> Column:
    import pandas as pd
    import polars as pl

    dtype = data.dtype
    if isinstance(dtype, pl.Enum):
        codes = _polars_values(data.to_physical()).astype(np.int64)
        codes[data.is_null().to_numpy()] = -1
        return _factor(name, codes, pd.Index(dtype.categories.to_list()), keeps_order=True)
    if isinstance(dtype, pl.Categorical):
        return _polars_categorical(name, data)
    if dtype == pl.String:
        return _polars_text(name, data)
    if isinstance(dtype, pl.Decimal):
        data = data.cast(pl.Float64)
    if data.dtype.is_numeric() or data.dtype == pl.Boolean:
        values = _polars_values(data)
        missing = data.is_null().to_numpy() if data.null_count() else None
        nan = _nan_mask(values)
        if nan is not None:
            missing = nan if missing is None else missing | nan
        return Column(name, values, missing=missing)
    if data.dtype == pl.Null:
        return Column(name, np.zeros(len(data)), missing=np.ones(len(data), dtype=bool))
    if data.dtype.is_temporal() and group:
        return _factorize(name, data.to_numpy())
    raise _unusable(name, str(data.dtype).lower())


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
    return _factor(name, codes, pd.Index(present.cast(pl.String).to_list(), dtype=object))


def _polars_text(name: str, data: Any) -> Column:
    """Through arrow, or else an Enum: no Python string is made per row."""
    import pandas as pd
    import polars as pl

    if importlib.util.find_spec("pyarrow") is not None:
        return _from_arrow(name, data.to_arrow(), group=False)
    levels = data.unique().drop_nulls().sort()
    codes = _polars_values(data.cast(pl.Enum(levels)).to_physical()).astype(np.int32)
    if data.null_count():
        codes[data.is_null().to_numpy()] = -1
    return _factor(name, codes, pd.Index(levels.to_list(), dtype=object))


def _from_arrow(name: str, data: Any, group: bool) -> Column:
    import pyarrow as pa

    kind = data.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if text or (hasattr(pa.types, "is_string_view") and pa.types.is_string_view(kind)):
        return _arrow_dictionary(name, data.dictionary_encode(), ordered=False)
    if pa.types.is_dictionary(kind):
        return _arrow_dictionary(name, data, ordered=kind.ordered)
    if pa.types.is_decimal(kind):
        data = data.cast(pa.float64())
    elif pa.types.is_null(kind):
        return Column(name, np.zeros(len(data)), missing=np.ones(len(data), dtype=bool))
    elif pa.types.is_temporal(kind):
        if group:
            return _factorize(name, data.to_pandas())
        raise _unusable(name, str(kind))
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise _unusable(name, str(kind))
    missing = None
    if data.null_count:
        missing = _arrow_values(data.is_null())
        data = data.fill_null(pa.scalar(0).cast(data.type))
    values = _arrow_values(data)
    nan = _nan_mask(values)
    if nan is not None:
        missing = nan if missing is None else missing | nan
    return Column(name, values, missing=missing)


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


def _arrow_dictionary(name: str, data: Any, *, ordered: bool) -> Column:
    import pandas as pd
    import pyarrow as pa

    if isinstance(data, pa.ChunkedArray):
        chunks = data.unify_dictionaries().chunks or [pa.array([], type=data.type)]
    else:
        chunks = [data]
    codes = np.concatenate([_arrow_codes(chunk) for chunk in chunks])
    levels = pd.Index(chunks[0].dictionary.to_pylist())
    return _factor(name, codes, levels, keeps_order=ordered)
