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
_FEW = 1024  # rows that tell whether equal values stand together
_TIME_OBJECTS = ("datetime", "datetime64", "date", "time", "timedelta", "timedelta64", "period")


@dataclass(eq=False, slots=True)  # not frozen, which would make it three times as slow to make
class Column:
    """A column of n values, not to be changed.

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
        dictionary), or they are sorted; otherwise they are to be sorted.
    finite : bool
        Known to hold no NaN and no infinity; False: not known.
    occurring : bool
        Known to have no levels but those of the rows used, in their order.
    """

    name: str
    values: NDArray[Any]
    levels: pd.Index[Any] | None = None
    missing: NDArray[np.bool_] | None = None
    keeps_order: bool = False
    finite: bool = False
    occurring: bool = False

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
    if type(data) is np.ndarray:
        array: NDArray[Any] = data
    else:
        if isinstance(data, np.ma.MaskedArray):
            masked, data = np.ma.getmaskarray(data), data.data
        array = np.asarray(data)
        if array.dtype.kind in "US" and not isinstance(data, np.ndarray):
            array = np.array(data, dtype=object)  # NumPy made text of the numbers in a mixed list
    if array.ndim != 1:
        raise DataError(f"column {name!r} must have one dimension, not shape {array.shape}")
    kind = array.dtype.kind
    if kind in "biuf":
        return _numbers(name, array, masked if masked is not None and masked.any() else None)
    if kind == "O":
        return _from_objects(name, array, group)
    if kind in "US":
        return _factorize(name, array.astype(object))
    if kind in "mM" and group:
        return _factorize(name, array)
    raise _unusable(name, str(array.dtype))


def _numbers(name: str, values: NDArray[Any], missing: NDArray[np.bool_] | None) -> Column:
    """Make a number column; NaN is missing too."""
    if values.dtype.kind != "f" or all_finite(values):
        return Column(name, values, missing=missing, finite=True)
    nan = np.isnan(values)
    if nan.any():
        missing = nan if missing is None else missing | nan
    return Column(name, values, missing=missing)


def all_finite(values: NDArray[Any]) -> bool:
    """Whether no value is NaN or infinite; needs no memory where the sum tells that."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum()
    return bool(np.isfinite(total)) or bool(np.isfinite(values).all())


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
    # A few texts are sorted faster as Python's, many as arrow's, which pandas may choose.
    few_texts = isinstance(values, np.ndarray) and values.dtype == object and len(levels) < 10_000
    text = few_texts and all(type(level) is str for level in levels)
    return _factor(name, codes, pd.Index(levels, dtype=object if text else None))


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

    series = data if type(data) is pd.Series else pd.Series(data, copy=False)
    dtype: Any = series.dtype
    array: Any = series.array
    if isinstance(dtype, pd.CategoricalDtype):
        return _factor(name, array.codes, dtype.categories, keeps_order=True)
    if isinstance(dtype, np.dtype):
        return _from_numpy(name, series.to_numpy(), group)
    if isinstance(dtype, pd.ArrowDtype):
        return _from_arrow(name, array.__arrow_array__(), group)
    if isinstance(dtype, pd.StringDtype):
        if dtype.storage == "pyarrow":
            return _from_arrow(name, array.__arrow_array__(), group)
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
        missing = data.is_null().to_numpy() if data.null_count() else None
        return _numbers(name, _polars_values(data), missing)
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

    if _has_runs(_polars_changes(data[:_FEW])):
        changes = _polars_changes(data)
        values = data.filter(pl.Series(np.append(True, changes)))
        return _repeat(_polars_text(name, values), changes)
    if importlib.util.find_spec("pyarrow") is not None:
        return _from_arrow(name, data.to_arrow(), group=False)
    levels = data.unique().drop_nulls().sort()
    codes = _polars_values(data.cast(pl.Enum(levels)).to_physical()).astype(np.int32)
    if data.null_count():
        codes[data.is_null().to_numpy()] = -1
    return _factor(name, codes, pd.Index(levels.to_list(), dtype=object))


def _polars_changes(data: Any) -> NDArray[np.bool_]:
    """Whether each value but the first differs from the one before it, (n - 1,)."""
    changes: NDArray[np.bool_] = data[1:].ne_missing(data[:-1]).to_numpy()
    return changes


def _from_arrow(name: str, data: Any, group: bool) -> Column:
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
            return _factorize(name, data.to_pandas())
        raise _unusable(name, str(kind))
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise _unusable(name, str(kind))
    missing = None
    if data.null_count:
        missing = _arrow_values(data.is_null())
        data = data.fill_null(pa.scalar(0).cast(data.type))
    return _numbers(name, _arrow_values(data), missing)


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

    if not pa.types.is_string(data.type) and not pa.types.is_large_string(data.type):
        return _arrow_dictionary(name, data.dictionary_encode(), ordered=False)
    if data.null_count:
        return _arrow_dictionary(name, data.dictionary_encode(), ordered=False)
    if _has_runs(_arrow_changes(data[:_FEW])):
        changes = _arrow_changes(data)
        starts = pa.array(np.append(True, changes))
        return _repeat(_arrow_text(name, data.filter(starts)), changes)
    if _arrow_ascending(data[:_FEW]) and _arrow_ascending(data):
        codes = np.arange(len(data), dtype=np.int32)
        return Column(name, codes, pd.Index(data.to_pandas()), keeps_order=True)
    return _arrow_dictionary(name, data.dictionary_encode(), ordered=False)


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
    text = pa.types.is_string(dictionary.type) or pa.types.is_large_string(dictionary.type)
    levels = pd.Index(dictionary.to_pandas() if text else dictionary.to_pylist())
    return _factor(name, codes, levels, keeps_order=ordered)
