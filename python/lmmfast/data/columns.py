"""One column of anybody's data frame as NumPy arrays: numbers as they lie, factors as codes.

pandas, polars, pyarrow and NumPy each have their own way to hold text, categories and missing
values. Behind `read_column` there is only one: a number column keeps its dtype (no copy where the
library allows it), everything else becomes integer codes into levels, and missing values are a
mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

_NUMERIC_OBJECTS = ("integer", "floating", "mixed-integer-float", "decimal")
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
    origin : str or None
        Of dates that are counted in days: the date that they are counted from, in ISO format.
    """

    name: str
    values: NDArray[Any]
    levels: pd.Index[Any] | None = None
    missing: NDArray[np.bool_] | None = None
    keeps_order: bool = False
    finite: bool = False
    occurring: bool = False
    origin: str | None = None

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
        from lmmfast.data.arrow import from_polars

        return from_polars(name, data, group)
    if library == "pyarrow":
        from lmmfast.data.arrow import from_arrow

        return from_arrow(name, data, group)
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
        return numbers(name, array, masked if masked is not None and masked.any() else None)
    if kind == "O":
        return _from_objects(name, array, group)
    if kind in "US":
        return factorize(name, array.astype(object))
    if kind in "mM" and group:
        return factorize(name, array)
    raise unusable(name, str(array.dtype))


def numbers(name: str, values: NDArray[Any], missing: NDArray[np.bool_] | None) -> Column:
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


def unusable(name: str, dtype: str) -> DataError:
    """Return the error for a type that cannot be used, with what to do about it."""
    advice = "convert it to numbers or text first"
    if any(word in dtype for word in ("date", "time", "duration", "period")):
        advice = "turn times into numbers first, such as days since the first visit"
    elif "complex" in dtype:
        advice = "complex numbers have no place in this model"
    return DataError(f"column {name!r} has type {dtype}: {advice}")


def factorize(name: str, values: Any) -> Column:
    """Codes and levels of text, times or other hashable values."""
    import pandas as pd

    try:
        codes, levels = pd.factorize(values)
    except TypeError:
        raise DataError(f"column {name!r} holds values that cannot be compared") from None
    # A few texts are sorted faster as Python's, many as arrow's, which pandas may choose.
    few_texts = isinstance(values, np.ndarray) and values.dtype == object and len(levels) < 10_000
    text = few_texts and all(type(level) is str for level in levels)
    try:
        index = pd.Index(levels, dtype=object if text else None)
        if text:
            "".join(levels).encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"column {name!r} holds text that is not Unicode (a lone surrogate, "
            f"{error.object[error.start]!r}): decode the bytes it came from with errors='replace'"
        ) from None
    return factor(name, codes, index)


def factor(
    name: str, codes: NDArray[Any], levels: pd.Index[Any], keeps_order: bool = False
) -> Column:
    """Make a factor column of codes (n,), -1 where missing."""
    missing = codes < 0
    return Column(name, codes, levels, missing if missing.any() else None, keeps_order)


def _from_objects(name: str, array: NDArray[Any], group: bool) -> Column:
    """Read an object array: text, or Python numbers, or nothing we can use."""
    import pandas as pd

    kind = pd.api.types.infer_dtype(array, skipna=True)
    if kind == "string":
        return factorize(name, array)
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
        return factorize(name, array)
    if kind in _TIME_OBJECTS:
        raise unusable(name, kind)
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
        return factor(name, array.codes, dtype.categories, keeps_order=True)
    if isinstance(dtype, np.dtype):
        return _from_numpy(name, series.to_numpy(), group)
    text = isinstance(dtype, pd.StringDtype)
    if isinstance(dtype, pd.ArrowDtype) or (text and dtype.storage == "pyarrow"):
        from lmmfast.data.arrow import from_arrow

        return from_arrow(name, array.__arrow_array__(), group)
    if text:
        return factorize(name, series)
    if isinstance(dtype, pd.SparseDtype):
        return _from_numpy(name, np.asarray(series), group)
    if dtype.kind in "biuf":  # Int64, Float64, boolean: a mask beside the values
        null = series.isna().to_numpy()
        values = series.to_numpy(dtype=dtype.numpy_dtype, na_value=0)
        return Column(name, values, missing=null if null.any() else None)
    if group:
        return factorize(name, series)
    raise unusable(name, str(dtype))
