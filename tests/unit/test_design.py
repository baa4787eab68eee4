"""Designs: columns equal formulaic's, chunk by chunk, from any library, and on new data."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from formulaic import Formula

import lmmfast as lf
from lmmfast.covariance.choices import D
from lmmfast.data.columns import read_column
from lmmfast.data.keys import group_keys
from lmmfast.design.design import check_finite
from lmmfast.design.from_arrays import ArrayDesign
from lmmfast.design.from_formula import FormulaDesign
from lmmfast.errors import DataError, FormulaError

N = 60


def table(n=N):
    rng = np.random.default_rng(3)
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "x": rng.normal(size=n),
            "t": rng.uniform(0, 9, n),
            "k": rng.integers(1, 4, n),
            "flag": rng.random(n) < 0.5,
            "sex": rng.choice(["M", "F"], n),
            "arm": pd.Categorical(rng.choice(["b", "a", "c"], n), ["c", "a", "b", "unused"]),
            "my x": rng.normal(size=n),
            "g": np.repeat(np.arange(n // 4), 4),
            "w": rng.uniform(1, 2, n),
        }
    )


def stack(columns):
    return np.column_stack(columns)


def by_formulaic(rhs, data):
    made = Formula(rhs).get_model_matrix(data, context={}, na_action="raise")
    return tuple(made.columns), made.to_numpy(dtype=float)


def whole(design):
    return design.batch(slice(None))


FIXED = [
    "1",
    "0 + x",
    "x + t + x:t",
    "k + k:x",
    "flag + flag:x",
    "sex*x",
    "arm + x",
    "0 + arm",
    "arm:sex",
    "log(t) + np.sqrt(t) + I(x > 0)",
    "{x**2 + t}",
    "x**2 + `my x`",
    "Q('my x')",
    "2:x",
    "scale(x) + center(t)",
    "bs(t, df=5)*sex",
    "bs(t, knots=[2, 5], lower_bound=0, upper_bound=9)",
    "cr(t, df=4)",
    "cc(t, df=4)",
    "poly(t, 2)",
    "C(k) + C(k):x",
    "C(arm, contr.sum)",
    "C(sex, contr.treatment(base='M'))",
    "C(arm, levels=['a', 'b', 'c'])",
    "sex*arm*x",
    "0 + x:arm:t + flag:sex",
    "k:sex + 2:arm",
    "I(x - x.mean())",
    "lag(x, 0)",
    "scale(x - np.mean(x))",
    "np.where(x > 0, x, t)",
]


@pytest.mark.parametrize("fixed", FIXED)
def test_columns_are_formulaics_whole_and_in_chunks(fixed):
    data = table()
    design = FormulaDesign(f"y ~ {fixed} + (t | g)", data)
    clean = data.assign(arm=data["arm"].cat.remove_unused_categories())
    names, X = by_formulaic(fixed, clean)
    assert design.x_names == names
    np.testing.assert_array_equal(stack(whole(design).X), X)
    chunks = [design.batch(slice(a, a + 7)) for a in range(0, N, 7)]
    np.testing.assert_allclose(np.vstack([stack(c.X) for c in chunks]), X, rtol=1e-14)
    np.testing.assert_array_equal(np.concatenate([c.y for c in chunks]), data["y"])
    rows = np.array([40, 3, 17])
    np.testing.assert_allclose(stack(design.batch(rows).X), X[rows], rtol=1e-14)


ROW_BY_ROW_ON_NEW_DATA = [f for f in FIXED if "mean" not in f and "lag" not in f]


@pytest.mark.parametrize("fixed", ROW_BY_ROW_ON_NEW_DATA)
def test_new_data_get_the_columns_of_the_fit(fixed):
    data = table()
    design = FormulaDesign(f"y ~ {fixed} + (t | g)", data)
    spec = pickle.loads(pickle.dumps(design.spec))
    rows = np.array([5, 50, 8])  # far too few to relearn means, knots or levels from
    new = spec.columns(data.drop(columns=["y", "g", "w"]).iloc[rows])
    expected = design.batch(rows)
    np.testing.assert_allclose(stack(new.X), stack(expected.X), rtol=1e-14)
    np.testing.assert_allclose(stack(new.Z), stack(expected.Z), rtol=1e-14)
    assert new.missing is None


@pytest.mark.parametrize(
    "convert",
    [
        pl.from_pandas,
        pa.Table.from_pandas,
        lambda d: {name: d[name].to_numpy() for name in d},
        lambda d: d.convert_dtypes(),
        lambda d: d.astype({"x": "float32"}).astype({"x": "float64", "k": "int8"}),
        lambda d: pl.from_pandas(d).with_columns(pl.col("sex", "arm").cast(pl.Categorical)),
    ],
)
def test_every_library_gives_the_same_columns(convert):
    data = table().astype({"arm": "str", "x": "float32"}).astype({"x": "float64"})
    formula = "y ~ x*sex + arm + C(k) + scale(t) + (t | g:sex)"
    expected = FormulaDesign(formula, data)
    design = FormulaDesign(formula, convert(data))
    assert design.x_names == expected.x_names
    np.testing.assert_array_equal(stack(whole(design).X), stack(whole(expected).X))
    np.testing.assert_array_equal(stack(whole(design).Z), stack(whole(expected).Z))
    np.testing.assert_array_equal(design.keys.values, expected.keys.values)
    np.testing.assert_array_equal(design.keys.labels, expected.keys.labels)
    # A spec of one library serves another (formulaic's own does not).
    new = expected.spec.columns(convert(data))
    np.testing.assert_array_equal(stack(new.X), stack(whole(expected).X))


def test_levels_all_known_although_the_sample_of_rows_misses_some():
    n = 4000
    sex = np.full(n, "M", dtype=object)
    sex[1] = "F"  # rows 0, 15, 30, ... make the sample
    k = np.zeros(n, dtype=int)
    k[1] = 7
    data = {"y": np.arange(n), "sex": sex, "k": k, "g": np.arange(n) // 4}
    design = FormulaDesign("y ~ sex + C(k) + (1 | g)", data)
    assert design.x_names == ("Intercept", "sex[T.M]", "C(k)[T.7]")
    assert stack(design.batch(slice(0, 3)).X).tolist() == [[1, 1, 0], [1, 0, 1], [1, 1, 0]]


def test_small_integers_do_not_overflow_and_float32_is_widened():
    data = {"y": np.arange(4.0), "a": np.int8([100, 100, 1, 1]), "b": np.int8([100, 1, 2, 3])}
    data |= {"f": np.float32([1e8, 1e8 + 8, 3, 4]), "g": [1, 1, 2, 2]}
    design = FormulaDesign("y ~ 0 + a:b + I(a*b) + center(f) + (1 | g)", data)
    X = dict(zip(design.x_names, whole(design).X, strict=True))
    assert X["a:b"][0] == X["I(a * b)"][0] == 10_000
    assert X["center(f)"].dtype == np.float64


def test_simple_columns_are_views_and_the_intercept_has_stride_zero():
    data = table()
    design = FormulaDesign("y ~ x + x:t + (t | g)", data)
    batch = design.batch(slice(8, 20))
    assert batch.X[0].strides == (0,)
    assert np.shares_memory(batch.X[1], data["x"].to_numpy())
    assert np.shares_memory(batch.Z[1], data["t"].to_numpy())
    assert (design.unit, design.random_access) == (0, False)
    assert FormulaDesign("y ~ x + (t | g)", data).random_access
    assert not FormulaDesign("y ~ np.abs(x) + (t | g)", data).random_access
    assert not FormulaDesign("y ~ sex + (t | g)", data).random_access
    assert FormulaDesign("y ~ 0 + x + (1 | g)", data).unit is None


@pytest.mark.parametrize("fixed", ["sex*arm*x", "arm:sex", "0 + x:arm:t + t:sex", "k:sex"])
def test_treatment_coding_of_plain_factors_needs_no_formulaic(fixed):
    data = table()
    data["arm"] = data["arm"].cat.rename_categories({"c": "c[T.b]:x"})
    data.loc[7, "sex"] = None
    design = FormulaDesign(f"y ~ {fixed} + (arm | g)", data)
    assert all(part.model is None for part in design.spec.parts.values())
    clean = data.drop(index=7).assign(arm=data["arm"].cat.remove_unused_categories())
    names, X = by_formulaic(fixed, clean)
    assert design.x_names == names
    np.testing.assert_array_equal(stack(whole(design).X), X)
    new = design.spec.columns(data.iloc[[9, 7, 30]])
    np.testing.assert_array_equal(stack(new.X)[[0, 2]], by_formulaic(fixed, clean)[1][[8, 29]])
    assert new.missing.tolist() == [False, True, False]
    assert np.isnan(new.X[-1][1])


def test_levels_of_the_same_name_are_left_to_formulaic():
    data = table().assign(arm=pd.Categorical(table()["k"].replace({3: "1"}), [1, "1", 2]))
    design = FormulaDesign("y ~ 0 + arm + (1 | g)", data)
    names, X = by_formulaic("0 + arm", data)
    assert design.x_names == names
    np.testing.assert_array_equal(stack(whole(design).X), X)


NUMBER_TYPES = [*(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f4", "f8", "?"]


@pytest.fixture
def all_types(monkeypatch):
    """Kernels that take every type."""
    types = frozenset(map(np.dtype, NUMBER_TYPES))
    monkeypatch.setattr("lmmfast.data.batch.KERNEL_DTYPES", types)


@pytest.mark.usefixtures("all_types")
class TestTypedColumns:
    @pytest.mark.parametrize("dtype", NUMBER_TYPES)
    def test_are_handed_through_as_they_lie(self, dtype):
        data = table()
        X = np.asarray(np.abs(data[["k", "flag"]])).astype(dtype, order="F")[::-1]
        y, w, g = X[:, 0], np.ones(2 * N, dtype)[::2], data["g"]
        frame = {"y": y, "k": X[:, 0], "f": X[:, 1], "g": g, "w": w}
        for design in (
            ArrayDesign(y, X, g, X, weights=w, offset=w),
            FormulaDesign("y ~ 0 + k + f + (0 + k + f | g)", frame, weights="w", offset="w"),
        ):
            assert design.random_access
            batch, some = whole(design), design.batch(np.array([5, 2]))
            assert np.shares_memory(batch.y, X) and np.shares_memory(batch.weights, w)
            assert all(np.shares_memory(c, X) for c in [*batch.X, *batch.Z])
            for column in (batch.y, *batch.X, *batch.Z, batch.weights, batch.offset, *some.X):
                assert column.dtype == np.dtype(dtype)
            for column in (batch.as_float().y, *batch.as_float().X, batch.as_float().weights):
                assert column.dtype == np.float64
            np.testing.assert_array_equal(stack(batch.as_float().Z), X)
            np.testing.assert_array_equal(stack(some.X), X[[5, 2]])

    def test_other_types_are_converted(self):
        data = table()
        for dtype in (">f8", ">i4", "f2", np.longdouble):
            design = ArrayDesign(data["y"], data[["x"]].to_numpy().astype(dtype), data["g"])
            assert not design.random_access
            assert whole(design).X[0].dtype == np.float64

    def test_indicators_are_a_byte_a_row(self):
        design = FormulaDesign("y ~ sex + sex:k + (1 | g)", table())
        assert not design.random_access
        assert [column.dtype.char for column in whole(design).X] == ["d", "?", "d", "d"]

    def test_results_are_those_of_float64(self):
        """Sums and differences of small integers do not wrap around."""
        rng = np.random.default_rng(5)
        y, t = rng.integers(0, 256, N).astype("u1"), rng.integers(-120, 120, N).astype("i1")
        offset, w = rng.integers(0, 200, N).astype("u1"), rng.integers(1, 9, N).astype("i1")
        g = np.repeat(np.arange(N // 4), 4)
        X = np.column_stack([np.ones(N, "i1"), t])
        options = {"engine": "reference"}
        typed = lf.fit(y, X, g, Z=X, offset=offset, weights=w, **options)
        y, X, offset, w = (a.astype(float) for a in (y, X, offset, w))
        plain = lf.fit(y, X, g, Z=X, offset=offset, weights=w, **options)
        np.testing.assert_array_equal(typed.theta, plain.theta)
        np.testing.assert_array_equal(typed.fittedvalues, plain.fittedvalues)
        for kind in ("response", "pearson", "normalized"):
            np.testing.assert_array_equal(typed.residuals(kind), plain.residuals(kind))


def test_only_types_of_the_kernels_are_handed_through(monkeypatch):
    monkeypatch.setattr("lmmfast.data.batch.KERNEL_DTYPES", frozenset({np.dtype(float)}))
    data = table()
    for design in (
        ArrayDesign(data["y"], data[["x", "k"]], data["g"]),
        FormulaDesign("y ~ 0 + x + k + (1 | g)", data),
    ):
        assert not design.random_access
        assert [column.dtype.char for column in whole(design).X] == ["d", "d"]


def test_one_missing_value_costs_one_row_even_under_scale():
    data = table()
    data.loc[7, "x"] = np.nan  # formulaic alone: the mean is NaN and all rows are dropped
    design = FormulaDesign("y ~ scale(x) + (1 | g)", data, weights="w", offset="t")
    assert (design.n_obs, design.n_dropped) == (N - 1, 1)
    clean = data.drop(index=7)
    np.testing.assert_array_equal(stack(whole(design).X), by_formulaic("scale(x)", clean)[1])
    np.testing.assert_array_equal(whole(design).y, clean["y"])
    np.testing.assert_array_equal(whole(design).weights, clean["w"])
    np.testing.assert_array_equal(whole(design).offset, clean["t"])
    np.testing.assert_array_equal(design.keys.values, clean["g"])
    assert design.original_row(7) == 8
    assert not design.random_access
    with pytest.raises(DataError, match=r"'x' \(1\)"):
        FormulaDesign("y ~ scale(x) + (1 | g)", data, missing="raise")


def test_variables_hidden_in_transforms_are_found():
    data = table()
    data.loc[3, "t"] = data.loc[5, "my x"] = np.nan
    design = FormulaDesign("y ~ bs(t, df=4) + poly(`my x`, 2) + (1 | g)", data)
    assert design.missing_counts == {"t": 1, "my x": 1}


def test_columns_named_like_functions():
    data = table().rename(columns={"x": "log", "t": "C", "w": "np"})
    design = FormulaDesign("y ~ log(C) + np.exp(C) + (C | g)", data)
    np.testing.assert_array_equal(whole(design).X[1], np.log(data["C"]))
    np.testing.assert_array_equal(
        FormulaDesign("y ~ log + (1|g)", data).batch([3]).X[1], data["log"][3]
    )


def test_exp10_is_a_power_of_ten():
    design = FormulaDesign("y ~ exp10(x) + (1 | g)", table())
    np.testing.assert_allclose(whole(design).X[1], 10 ** table()["x"].to_numpy())


def test_dot_is_all_other_columns():
    data = table()[["y", "x", "k", "my x", "g", "w"]]
    design = FormulaDesign("log(y**2) ~ . - k + (1 | g)", data, weights="w")
    assert design.x_names == ("Intercept", "x", "my x")
    assert design.y_name == "log(y**2)"
    np.testing.assert_array_equal(whole(design).y, np.log(data["y"] ** 2))


def test_several_terms_structures_and_interaction_of_groups():
    data = table()
    design = FormulaDesign("y ~ x + diag(1 + t | g:sex) + (0 + sex | g:sex)", data)
    assert [t.names for t in design.terms] == [("Intercept", "t"), ("sex[F]", "sex[M]")]
    assert [t.group for t in design.terms] == ["g:sex", "g:sex"]
    assert design.terms[0].structure == D.diag()
    assert len(whole(design).Z) == 4
    labels = design.keys.labels[design.keys.values]
    assert labels.tolist() == [f"{g}:{s}" for g, s in zip(data["g"], data["sex"], strict=True)]
    assert len(set(design.keys.labels)) == len(design.keys.labels) == len(set(labels))


def test_chosen_structures():
    assert FormulaDesign("y ~ (t|g)", table()).terms[0].structure == D.unstructured()
    assert FormulaDesign("y ~ (t|g)", table(), D=D.cs()).terms[0].structure == D.cs()
    with pytest.raises(FormulaError, match="1 covariance structures for 2"):
        FormulaDesign("y ~ (1|g) + (0 + t|g)", table(), D=D.cs())
    with pytest.raises(FormulaError, match="leave D= out"):
        FormulaDesign("y ~ diag(t|g)", table(), D=D.cs())


@pytest.mark.parametrize(
    ("formula", "error", "message"),
    [
        ("y ~ agee + (1|g)", FormulaError, "'agee' is not a column"),
        ("y ~ `my X` + (1|g)", FormulaError, "did you mean 'my x'"),
        ("y ~ log(tt) + (1|g)", FormulaError, "'tt' is not a column"),
        ("y ~ x + (1|gg)", FormulaError, "'gg' is not a column.*did you mean 'g'"),
        ("yy ~ x + (1|g)", FormulaError, "'yy' is not a column"),
        ("sex ~ x + (1|g)", DataError, "response 'sex' is text"),
        ("C(k) ~ x + (1|g)", DataError, "response 'C\\(k\\)'"),
        ("y ~ offset(x) + (1|g)", FormulaError, "use offset="),
        ("y ~ nope(x) + (1|g)", FormulaError, "nope"),
        ("y ~ log(sex) + (1|g)", FormulaError, "log\\(sex\\)"),
        ("y ~ log(x + ) + (1|g)", FormulaError, "log"),
        ("y ~ log(x) + (1|g)", DataError, r"'log\(x\)' is missing \(NaN\) in row"),
        ("y ~ C(arm, levels=['a', 'b']) + (1|g)", DataError, "levels outside"),
    ],
)
def test_mistakes_are_named(formula, error, message):
    with pytest.raises(error, match=message):
        FormulaDesign(formula, table())


def test_more_columns_than_rows():
    data = {"y": [1.0, 2.0], "x": [1.0, 3.0], "g": [1, 2]}
    with pytest.raises(DataError, match="2 columns but only 2 rows"):
        FormulaDesign("y ~ x + (1 | g)", data)
    with pytest.raises(DataError, match="2 columns but only 2 rows"):
        ArrayDesign([1.0, 2.0], np.eye(2), [1, 2])


def test_expressions_missing_late_name_the_row():
    n = 3000
    data = {"y": np.arange(n), "x": np.ones(n), "g": np.arange(n) // 3}
    data["x"][1234] = -1.0  # not in the sample from which the model is built
    design = FormulaDesign("y ~ log(x) + (1|g)", data)
    with pytest.raises(DataError, match=r"'log\(x\)' is missing \(NaN\) in row 1234"):
        check_finite(design)
    data["x"][1234] = 0.0
    design = FormulaDesign("y ~ log(x) + (1|g)", data)
    with pytest.raises(DataError, match=r"X column 'log\(x\)' is infinite in row 1234"):
        check_finite(design)


class TestNewData:
    def design(self, **arguments):
        return FormulaDesign("y ~ x + sex + C(k) + (t | g)", table(), **arguments)

    def test_population_level_needs_the_fixed_columns_only(self):
        new = self.design().spec.columns({"x": [1.0], "sex": "F", "k": 2}, random=False)
        assert new.Z == []
        assert stack(new.X).tolist() == [[1.0, 1.0, 0.0, 1.0, 0.0]]

    def test_missing_rows_become_nan(self):
        data = table()[:5].astype({"sex": object})
        data.loc[1, "x"] = np.nan
        data.loc[3, "sex"] = None
        new = self.design().spec.columns(data)
        assert new.missing.tolist() == [False, True, False, True, False]
        full = stack(self.design().spec.columns(table()[:5]).X)
        full[new.missing, 1:] = np.nan
        np.testing.assert_array_equal(stack(new.X), full)
        gone = self.design().spec.columns(data[1:2])
        assert np.isnan(gone.X[1]).all()

    def test_no_rows(self):
        new = self.design().spec.columns(table()[:0])
        assert [column.shape for column in new.X] == [(0,)] * 5

    def test_offset_column(self):
        spec = self.design(offset="w").spec
        np.testing.assert_array_equal(spec.columns(table()[:3]).offset, table()["w"][:3])
        with pytest.raises(DataError, match="no column 'w'"):
            spec.columns(table()[["x", "sex", "k", "t"]])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"sex": "X"}, "'sex' has levels that the fit has not seen: 'X'; it knows 'F', 'M'"),
            ({"k": 9}, "'k' has levels that the fit has not seen: 9; it knows 1, 2, 3"),
            ({"x": "high"}, "'x' was numbers in the fit"),
        ],
    )
    def test_unknown_levels_and_types(self, change, message):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DataError, match=message):
                self.design().spec.columns(table()[:4].assign(**change))

    def test_unknown_level_of_an_expression(self):
        design = FormulaDesign("y ~ C(k * 2) + (1 | g)", table())
        with pytest.raises(DataError, match=r"C\(k \* 2\).*levels outside"):
            design.spec.columns({"k": [1, 8]})

    def test_absent_column(self):
        with pytest.raises(DataError, match="no column 'sex'"):
            self.design().spec.columns(table().drop(columns="sex"))

    def test_categories_of_numbers_match_plain_numbers(self):
        design = FormulaDesign("y ~ k + (1 | g)", table().astype({"k": "category"}))
        assert design.x_names == ("Intercept", "k[T.2]", "k[T.3]")
        assert stack(design.spec.columns({"k": [3, 1]}).X).tolist() == [[1, 0, 1], [1, 0, 0]]

    def test_group_keys(self):
        spec = self.design().spec
        (keys,) = spec.group_keys({"g": pd.array([3, None, 99], dtype="Int64")})
        assert keys.missing.tolist() == [False, True, False]
        assert keys.values[[0, 2]].tolist() == [3, 99]
        with pytest.raises(DataError, match="'g' were numbers in the fit and are text"):
            spec.group_keys({"g": ["3"]})
        with pytest.raises(DataError, match="no column 'g'"):
            spec.group_keys({"x": [1]})

    def test_group_keys_of_combinations(self):
        spec = FormulaDesign("y ~ (1 | g:sex)", table()).spec
        (keys,) = spec.group_keys({"g": [7, 1, 7, 1], "sex": ["M", None, "F", "M"]})
        assert list(keys.labels) == ["1:M", "7:F", "7:M"]
        assert keys.values.tolist() == [2, -1, 1, 0]


class TestKeys:
    def keys(self, values, **more):
        data = {"y": np.arange(4.0), "g": values, **more}
        return FormulaDesign("y ~ 1 + (1 | g)", data).keys

    def test_numbers_stay_as_they_are(self):
        values = np.array([5, 3, 5, 9], dtype=np.int32)
        keys = self.keys(values)
        assert keys.labels is None
        assert np.shares_memory(keys.values, values)

    def test_text_and_categories(self):
        keys = self.keys(["b", "a", "b", "c"])
        assert keys.labels.tolist() == ["a", "b", "c"]
        assert keys.values.tolist() == [1, 0, 1, 2]
        keys = self.keys(pd.Categorical(["b", "a", "b", "a"], ["z", "b", "a"]))
        assert keys.labels.tolist() == ["b", "a"]  # the user's order, no empty categories

    def test_booleans_and_floats(self):
        assert self.keys([True, False, True, True]).labels.tolist() == [False, True]
        keys = FormulaDesign(
            "y ~ 1 + (1 | a:b)",
            {"y": np.arange(4.0), "a": [1.0, 2.5, 1.0, 1.0], "b": [10**9, 3, -2, 3]},
        ).keys
        assert list(keys.labels) == ["1:-2", "1:3", "1:1000000000", "2.5:3"]

    def test_missing_groups_are_dropped(self):
        keys = self.keys(["b", None, "b", "c"])
        assert (len(keys), keys.missing) == (3, None)

    def test_no_columns_mixed(self):
        with pytest.raises(DataError, match="'g' mixes types"):
            self.keys(np.array(["b", 1, "b", 2], dtype=object))


class TestArrays:
    def arrays(self):
        data = table()
        return (
            data["y"].to_numpy(copy=True),
            data[["x", "t"]].to_numpy(copy=True),
            data["g"].to_numpy(),
        )

    def test_float64_is_not_copied_in_any_order(self):
        y, X, g = self.arrays()
        for order in ("C", "F"):
            ordered = np.array(X, order=order)
            design = ArrayDesign(y, ordered, g, ordered)
            batch = whole(design)
            assert all(np.shares_memory(column, ordered) for column in [*batch.X, *batch.Z])
            assert design.random_access
            np.testing.assert_array_equal(stack(batch.X), X)
        assert (design.x_names, design.terms[0].names) == (("x0", "x1"), ("z0", "z1"))

    def test_default_is_a_random_intercept(self):
        design = ArrayDesign(*self.arrays(), group_name="clinic")
        assert design.batch(slice(0, 5)).Z[0].strides == (0,)
        assert design.terms[0].names == ("Intercept",)
        assert design.terms[0].group == design.group_name == "clinic"
        assert design.unit is None

    @pytest.mark.parametrize("dtype", [">f8", "f4", "i2", "u1", "?", object])
    def test_other_types_are_converted_when_asked_for(self, dtype):
        y, X, g = self.arrays()
        X = np.abs(np.round(X)).astype(dtype)
        design = ArrayDesign(y, X, g)
        columns = design.batch(np.array([3, 1])).as_float().X
        assert all(column.dtype == np.float64 for column in columns)
        np.testing.assert_array_equal(stack(columns), X[[3, 1]].astype(float))

    @pytest.mark.parametrize("convert", [lambda d: d, pl.from_pandas, pa.Table.from_pandas, dict])
    def test_tables_keep_their_names(self, convert):
        data = table()
        design = ArrayDesign(data["y"], convert(data[["x", "k"]]), data["sex"], data["t"])
        assert design.x_names == ("x", "k")
        assert design.keys.labels.tolist() == ["F", "M"]
        np.testing.assert_array_equal(whole(design).X[1], data["k"])
        new = design.spec.columns(convert(data[["k", "x"]]), data["t"])  # by name, not position
        np.testing.assert_array_equal(new.X[1], data["k"])

    def test_names(self):
        y, X, g = self.arrays()
        assert ArrayDesign(y, X, g, x_names=["a", "b"]).x_names == ("a", "b")
        with pytest.raises(DataError, match="2 columns, but 1 names"):
            ArrayDesign(y, X, g, x_names=["a"])
        with pytest.raises(DataError, match="two columns named 'a'"):
            ArrayDesign(y, X, g, x_names=["a", "a"])
        with pytest.raises(DataError, match="z_names without Z"):
            ArrayDesign(y, X, g, z_names=["a"])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"X": np.zeros((3, 2))}, "'x0' has 3 rows, but y has 60"),
            ({"groups": [1, 2]}, "'group' has 2 rows, but y has 60"),
            ({"weights": [1.0]}, "'weights' has 1 rows"),
            ({"Z": np.zeros((N, 2, 2))}, "Z must have two dimensions"),
            ({"Z": np.zeros((N, 0))}, "Z has no columns"),
            ({"y": np.zeros((N, 2))}, "'y' must have one dimension"),
            ({"X": np.full((N, 1), "a")}, "'x0' is text"),
            ({"X": np.array([["a"], [1.0]] * 30, dtype=object)}, "'x0' mixes types"),
            ({"X": np.zeros((N, 1), dtype=complex)}, "complex"),
            ({"weights": np.r_[1.0, 0.0, np.ones(N - 2)]}, "'weights' is 0.0 in row 1"),
            ({"weights": np.r_[1.0, np.nan, np.ones(N - 2)]}, "'weights' is nan in row 1"),
            ({"groups": np.r_[np.nan, np.ones(N - 1)]}, r"missing values in 'group' \(1\)"),
            ({"groups": np.r_[np.inf, np.ones(N - 1)]}, "'group' is infinite in row 0"),
            ({"X": pd.DataFrame({0: np.zeros(N)})}, "must be named by text"),
        ],
    )
    def test_bad_arrays(self, change, message):
        y, X, g = self.arrays()
        with pytest.raises(DataError, match=message):
            ArrayDesign(**{"y": y, "X": X, "groups": g, **change})

    def test_empty(self):
        with pytest.raises(DataError, match="no rows"):
            ArrayDesign([], np.zeros((0, 1)), [])

    def test_sparse(self):
        from scipy import sparse

        y, X, g = self.arrays()
        with pytest.raises(DataError, match=r"X is a sparse matrix.*toarray"):
            ArrayDesign(y, sparse.csc_matrix(X), g)

    def test_values_that_are_not_finite_are_found_on_request(self):
        y, X, g = self.arrays()
        check_finite(ArrayDesign(y, X, g))
        X[11, 1] = np.nan
        with pytest.raises(DataError, match=r"X column 'x1' is missing \(NaN\) in row 11"):
            check_finite(ArrayDesign(y, X, g))
        y[4] = -np.inf
        with pytest.raises(DataError, match="response 'y' is infinite in row 4"):
            check_finite(ArrayDesign(y, X, g, X))

    def test_missing_rows_dropped(self):
        y, X, g = self.arrays()
        X[11, 1] = y[2] = np.nan
        groups = g.astype(float)
        groups[5] = np.nan
        design = ArrayDesign(y, X, groups, X, missing="drop", weights=np.ones(N))
        assert (design.n_obs, design.n_dropped) == (N - 3, 3)
        assert design.missing_counts == {"group": 1, "y": 1, "x1": 1, "z1": 1}
        kept = np.delete(np.arange(N), [2, 5, 11])
        np.testing.assert_array_equal(stack(whole(design).X), X[kept])
        np.testing.assert_array_equal(design.keys.values, groups[kept])
        assert design.original_row(2) == 3
        X[20, 0] = np.inf
        with pytest.raises(DataError, match="'x0' is infinite in row 20"):
            ArrayDesign(y, X, g, missing="drop")

    def test_new_arrays(self):
        y, X, g = self.arrays()
        design = ArrayDesign(y, X, g, X[:, :1])
        spec = pickle.loads(pickle.dumps(design.spec))
        new = spec.columns([[1.0, 2.0], [np.nan, 3.0]], [[5.0], [6.0]])
        assert new.missing.tolist() == [False, True]
        np.testing.assert_array_equal(stack(new.X), [[1.0, 2.0], [np.nan, 3.0]])
        assert spec.columns(X, random=False).Z == []
        assert spec.group_keys([1, 2])[0].values.tolist() == [1, 2]
        with pytest.raises(DataError, match="3 columns, the fit had 2"):
            spec.columns(np.zeros((2, 3)), [[1.0], [1.0]])
        with pytest.raises(DataError, match="needs Z by 'group' with columns z0"):
            spec.columns(X)
        with pytest.raises(DataError, match="are text here"):
            spec.group_keys(["a", "b"])
        intercept = ArrayDesign(y, X, g).spec.columns(X[:2])
        assert intercept.Z[0].tolist() == [1.0, 1.0]


def test_combined_keys_are_distinct_and_stable():
    def labels(a, b):
        keys = group_keys([read_column("a", a), read_column("b", b)])
        return keys.labels[keys.values].tolist()

    a, b = ["x:y", "x", "x\\", "", "q"], ["z", "y:z", "y", "q", ""]
    together = labels(a, b)
    assert together == [r"x\:y:z", r"x:y\:z", r"x\\:y", ":q", "q:"]
    assert [labels([one], [other])[0] for one, other in zip(a, b, strict=True)] == together
    assert labels([0.1 + 0.2, 0.3, 2.0], [1, 1, 1]) == ["0.30000000000000004:1", "0.3:1", "2:1"]
    assert labels(pd.Categorical([2.0]), [1]) == labels([2], [1]) == ["2:1"]


def test_columns_of_packed_records():
    """Fields of 9 bytes: not aligned, and no stride that kernels could use."""
    d = table()
    packed = np.zeros(len(d), dtype=[("k", "i1"), ("y", "f8"), ("x", "f8")])
    packed["y"], packed["x"] = d["y"], d["x"]
    by_array = ArrayDesign(packed["y"], packed[["x"]], d["g"])
    by_formula = FormulaDesign("y ~ x + (1 | k)", packed)
    for design in (by_array, by_formula):
        assert not design.random_access
        batch = design.batch(slice(None))
        for values, name in ((batch.y, "y"), (batch.X[-1], "x")):
            assert values.flags.aligned and values.strides == (8,)
            np.testing.assert_array_equal(values, d[name])


def test_record_batches():
    pa = pytest.importorskip("pyarrow")
    batch = pa.RecordBatch.from_pydict({"y": [1.0, 2.0, 4.0], "g": [1, 1, 2]})
    design = FormulaDesign("y ~ 1 + (1 | g)", batch)
    assert design.batch(slice(None)).y.tolist() == [1.0, 2.0, 4.0]
    assert ArrayDesign([1.0, 2.0, 4.0], batch.select(["y"]), [1, 1, 2]).x_names == ("y",)


def test_combined_keys_agree_with_text():
    rng = np.random.default_rng(0)
    a, b = rng.integers(-5, 5, 200) * 10**12, rng.integers(0, 9, 200)
    keys = group_keys([read_column("a", a), read_column("b", b)])
    assert keys.labels[keys.values].tolist() == [f"{i}:{j}" for i, j in zip(a, b, strict=True)]
    order = [tuple(int(v) for v in label.split(":")) for label in keys.labels]
    assert order == sorted(order)
