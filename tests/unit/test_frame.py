"""Model frames from every kind of data frame: columns, levels, missing rows, bad values."""

import datetime
import decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from lmmfast.data.columns import read_column
from lmmfast.data.frame import check_infinite, model_frame, with_used_levels
from lmmfast.data.tables import open_table, suggest
from lmmfast.errors import DataError


def table():
    return pd.DataFrame(
        {
            "y": [1.0, 2.0, np.nan, 4.0],
            "n": [3, 1, 2, 5],
            "s": ["b", "a", "c", "b"],
            "flag": [True, False, True, True],
        }
    )


LIBRARIES = {
    "pandas": lambda d: d,
    "pandas nullable": lambda d: d.convert_dtypes(),
    "pandas arrow": lambda d: d.convert_dtypes(dtype_backend="pyarrow"),
    "pandas object": lambda d: d.astype(object),
    "polars": pl.from_pandas,
    "polars categorical": lambda d: pl.from_pandas(d).with_columns(
        pl.col("s").cast(pl.Categorical)
    ),
    "arrow": pa.Table.from_pandas,
    "arrow dictionary": lambda d: pa.Table.from_pandas(d.astype({"s": "category"})),
    "arrow chunks": lambda d: pa.concat_tables(
        [pa.Table.from_pandas(d[:2]), pa.Table.from_pandas(d[2:])]
    ),
    "dict": lambda d: {name: d[name].to_numpy() for name in d},
    "dict of lists": lambda d: {name: d[name].tolist() for name in d},
    "records": lambda d: d.to_records(index=False),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_gives_the_same_frame(library):
    frame = model_frame(LIBRARIES[library](table()), ["y", "n", "s", "flag"], [])
    assert (frame.n_obs, frame.n_dropped, frame.missing_counts) == (3, 1, {"y": 1})
    np.testing.assert_array_equal(frame.kept, [0, 1, 3])
    seen = frame.view(slice(None))
    np.testing.assert_array_equal(seen.numbers("y"), [1.0, 2.0, 4.0])
    np.testing.assert_array_equal(seen.numbers("n"), [3.0, 1.0, 5.0])
    np.testing.assert_array_equal(seen.numbers("flag"), [1.0, 0.0, 1.0])
    made = seen.to_pandas(["n", "s"])
    assert made["s"].tolist() == ["b", "a", "b"]
    assert list(made["s"].cat.categories) == ["a", "b"]  # sorted, and "c" went with its row
    assert made["n"].dtype == np.int64


@pytest.mark.parametrize("library", ["pandas", "polars", "arrow", "dict"])
def test_numbers_are_not_copied(library):
    source = LIBRARIES[library](table()[["n"]].assign(z=[1.0, 2.0, 3.0, 4.0]))
    frame = model_frame(source, ["z", "n"], [])
    assert frame.kept is None
    again = read_column("z", open_table(source).fetch("z")).values
    assert np.shares_memory(again, frame.columns["z"].values)
    assert np.shares_memory(frame.view(slice(1, 3)).numbers("z"), frame.columns["z"].values)


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        (pd.Categorical(["b", "a", "b"], ["c", "b", "a"]), ["b", "a"]),  # the user's order stays
        (pd.Categorical(["b", "a", "b"], ["a", "b"], ordered=True), ["a", "b"]),
        (pd.Categorical([10, 2, 10]), [2, 10]),
        (pl.Series(["b", "a", "b"], dtype=pl.Enum(["c", "b", "a"])), ["b", "a"]),
        (pl.Series(["b", "a", "b"], dtype=pl.Categorical), ["a", "b"]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ["a", "b"]),
        (np.array(["b", "a", "b"]), ["a", "b"]),
        (np.array(["b", "a", "b"], dtype=object), ["a", "b"]),
    ],
)
def test_levels_are_sorted_unless_the_user_ordered_them(values, levels):
    column = model_frame({"g": values}, ["g"], []).columns["g"]
    assert list(column.levels) == levels
    assert [column.levels[k] for k in column.values] == [levels[k] for k in column.values]
    assert [str(column.levels[k]) for k in column.values] == [str(v) for v in list(values)]


def test_polars_levels_do_not_follow_the_order_of_appearance():
    pl.Series(["z", "d"], dtype=pl.Categorical)  # categories that polars has seen elsewhere
    data = pl.DataFrame({"g": pl.Series(["d", "b", "c", None, "a"], dtype=pl.Categorical)})
    frame = model_frame(data, ["g"], [])
    assert list(frame.columns["g"].levels) == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(frame.columns["g"].values, [3, 1, 2, -1, 0])


def test_polars_text_without_pyarrow(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    column = read_column("g", pl.Series(["b", None, "a", "b"]))
    assert list(column.levels) == ["a", "b"]
    np.testing.assert_array_equal(column.values, [1, -1, 0, 1])
    np.testing.assert_array_equal(column.missing, [False, True, False, False])


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1, None, 3], dtype="Int64"),
        pd.Series([1.0, None, 3.0], dtype="Float64"),
        pd.Series([1, None, 3], dtype="int32[pyarrow]"),
        pd.Series([1, None, 3], dtype=object),
        pl.Series([1, None, 3]),
        pl.Series([1.0, None, 3.0]),
        pa.chunked_array([[1, None], [3]]),
        pa.array([1.0, None, 3.0]),
        [1, None, 3],
        [decimal.Decimal(1), None, decimal.Decimal(3)],
        np.ma.masked_array([1, 2, 3], [False, True, False]),
        np.float32([1, np.nan, 3]),
    ],
)
def test_missing_numbers(values):
    frame = model_frame({"x": values}, ["x"], [])
    assert frame.missing_counts == {"x": 1}
    np.testing.assert_array_equal(frame.view(slice(None)).numbers("x"), [1.0, 3.0])
    assert frame.original_row(1) == 2


def test_missing_booleans_and_nulls():
    for values in (pl.Series([True, None]), pa.array([True, None]), pd.array([True, None])):
        column = read_column("x", values)
        np.testing.assert_array_equal(column.missing, [False, True])
    for values in (pl.Series([None, None]), pa.nulls(2), [None, None]):
        assert read_column("x", values).missing.all()


def test_large_integers_survive_missing_ones():
    column = read_column("id", pd.array([2**60 + 1, None], dtype="Int64"), group=True)
    assert column.values[0] == 2**60 + 1


def test_missing_raise_names_columns_and_counts():
    data = {"x": [1.0, np.nan, np.nan], "g": ["a", None, "b"]}
    with pytest.raises(DataError, match=r"'x' \(2\), 'g' \(1\)"):
        model_frame(data, ["x"], ["g"], missing="raise")


def test_nothing_left():
    with pytest.raises(DataError, match=r"all 2 rows have missing values: 'x' \(1\), 'z' \(1\)"):
        model_frame({"x": [np.nan, 1], "z": [1, np.nan]}, ["x", "z"], [])
    with pytest.raises(DataError, match="no rows"):
        model_frame(pd.DataFrame({"x": []}), ["x"], [])
    with pytest.raises(ValueError, match="'drop', 'exclude' or 'raise'"):
        model_frame({"x": [1.0]}, ["x"], [], missing="ignore")


def test_infinite_values():
    with pytest.raises(DataError, match="'x' is infinite in row 2"):
        model_frame({"x": [1.0, np.nan, -np.inf]}, ["x"], [])
    frame = model_frame({"x": [1.0, 2.0, np.inf], "z": [1, 2, None]}, ["x", "z"], [])
    assert frame.n_obs == 2  # the infinite row is not used


def test_weights_and_offset():
    data = {"x": [1.0, 2.0, 3.0], "w": [1, 2, 3]}
    frame = model_frame(data, ["x"], [], weights="w", offset=[0.5, None, 0.0])
    assert frame.missing_counts == {"offset": 1}
    np.testing.assert_array_equal(frame.weights.values, [1, 2, 3])
    both = model_frame({"weights": [9.0, np.nan]}, ["weights"], [], weights=np.array([1.0, 2.0]))
    assert both.n_obs == 1  # a column of that name hides nothing
    with pytest.raises(DataError, match=r"'w' is 0\.0 in row 1"):
        model_frame({"x": [1, 2], "w": [1.0, 0.0]}, ["x"], [], weights="w")
    with pytest.raises(DataError, match="'weights' has 2 values, but the data have 3 rows"):
        model_frame(data, ["x"], [], weights=[1.0, 2.0])
    with pytest.raises(DataError, match="did you mean 'w'"):
        model_frame(data, ["x"], [], weights="W")
    with pytest.raises(DataError, match="must be numbers"):
        model_frame(data, ["x"], [], offset=["a", "b", "c"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pd.to_datetime(["2020-01-01"]), "datetime.*days since"),
        (pl.Series([datetime.date(2020, 1, 1)]), "date.*days since"),
        (pa.array([datetime.datetime(2020, 1, 1)]), "timestamp.*days since"),
        ([datetime.date(2020, 1, 1)], "date.*days since"),
        (np.array(["2020-01-01"], "M8[D]"), "datetime64.*days since"),
        (pd.to_datetime(["2020-01-01"]).tz_localize("UTC"), "UTC.*days since"),
        (np.array([1j]), "complex"),
        ([1, "a"], r"mixes types: 1 \(int\) in row 0, 'a' \(str\) in row 1"),
        (np.array([(1, 2), None], dtype=object)[:1], "objects of type tuple"),
        (pl.Series([[1]]), "list"),
        (pa.array([{"a": 1}]), "struct"),
        (np.zeros((1, 1)), "one dimension"),
        ([10**30], "beyond 64 bits"),
    ],
)
def test_values_that_cannot_be_used(values, message):
    with pytest.raises(DataError, match="column 'x'.*" + message):
        read_column("x", values)


def test_times_may_be_groups():
    for values in (
        pd.to_datetime(["2020-01-02", "2020-01-01"]),
        pl.Series([datetime.date(2020, 1, 2), datetime.date(2020, 1, 1)]),
        pa.array([datetime.datetime(2020, 1, 2), datetime.datetime(2020, 1, 1)]),
        [datetime.date(2020, 1, 2), datetime.date(2020, 1, 1)],
    ):
        column = model_frame({"day": values}, [], ["day"]).columns["day"]
        np.testing.assert_array_equal(column.values, [1, 0])


def test_tables():
    with pytest.raises(DataError, match="several columns named 'a'"):
        open_table(pd.DataFrame([[1, 2]], columns=["a", "a"]))
    with pytest.raises(DataError, match=r"'b' has 2 values, others have 3"):
        open_table({"a": [1, 2, 3], "b": [1, 2], "c": [1, 2, 3]})
    with pytest.raises(DataError, match=r"lazy frame.*data\.collect\(\)"):
        open_table(pl.LazyFrame({"a": [1]}))
    with pytest.raises(DataError, match="not a table"):
        open_table([1, 2])
    constant = open_table({"a": [1, 2], "b": "x"})
    assert constant.n_rows == 2
    assert constant.fetch("b") == ["x", "x"]
    assert open_table({"a": 1.0}).n_rows == 1
    assert open_table(pd.DataFrame({"a": [1], 0: [2]})).names == ("a",)


def test_suggestions():
    assert suggest("agee", ["age", "sex"]) == "; did you mean 'age'?"
    assert suggest("SEX", ["age", "sex"]) == "; did you mean 'sex'?"
    assert suggest("q", [f"c{k}" for k in range(12)]).endswith("c9, ...")


TEXTS = {
    "sorted runs": np.repeat([f"s{k:04d}" for k in range(800)], 3),
    "unsorted runs": np.repeat([f"s{k}" for k in range(800)], 3),
    "runs that come back": np.tile(np.repeat(["b", "a", "ä", ""], 5), 100),
    "no runs": np.tile(["b", "a", "c"], 700),
    "sorted and distinct": np.array([f"s{k:04d}" for k in range(1500)]),
    "distinct, then not": np.array([f"s{k:04d}" for k in range(1500)] + ["s0001", "a"]),
    "runs, then none": np.array(["a"] * 2000 + [f"s{k}" for k in range(2000)]),
    "two": np.array(["b", "a"]),
    "constant": np.array(["a"] * 7),
}
TEXT_LIBRARIES = {
    "objects": lambda x: x,
    "pandas": lambda x: pd.Series(x).astype("str"),
    "pandas string": lambda x: pd.Series(x).astype("string[pyarrow]"),
    "pandas arrow": lambda x: pd.Series(x).astype(pd.ArrowDtype(pa.string())),
    "polars": lambda x: pl.Series(x.tolist(), dtype=pl.String),
    "arrow": lambda x: pa.array(x, pa.string()),
    "arrow large": lambda x: pa.array(x, pa.large_string()),
    "arrow view": lambda x: pa.array(x, pa.string_view()),
    "arrow chunks": lambda x: pa.chunked_array([x[:1001], x[1001:]], pa.string()),
    "arrow slice": lambda x: pa.array(np.append(["z", "y"], x).astype(object))[2:],
}


@pytest.mark.parametrize("library", TEXT_LIBRARIES)
@pytest.mark.parametrize("texts", TEXTS)
@pytest.mark.parametrize("missing", [False, True])
def test_text_in_every_order(texts, library, missing):
    values = TEXTS[texts].astype(object)
    if missing:
        values[::7] = None
    column = with_used_levels(
        read_column("g", TEXT_LIBRARIES[library](values)),
        np.flatnonzero(values != None) if missing else None,  # noqa: E711
    )
    present = sorted({value for value in values.tolist() if value is not None})
    assert column.levels.tolist() == present
    expected = [-1 if value is None else present.index(value) for value in values]
    assert column.values.tolist() == expected
    assert (column.missing is None) == (not missing)
    if missing:
        assert column.missing.tolist() == [value is None for value in values]


@pytest.mark.parametrize("dtype", [float, np.float32])
def test_sums_that_overflow_are_not_taken_for_missing_values(dtype):
    largest = np.finfo(dtype).max
    for values in ([largest] * 4, [largest, largest, -largest, -largest]):
        column = read_column("x", np.array(values, dtype))
        assert column.missing is None
        check_infinite(column, None)
    column = read_column("x", np.array([np.inf, -np.inf, np.nan, 1], dtype))
    assert column.missing.tolist() == [False, False, True, False]
    check_infinite(column, np.array([3]))
    with pytest.raises(DataError, match="infinite in row 1 "):
        check_infinite(column, np.array([1, 3]))
