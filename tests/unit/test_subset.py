"""Rows to be used, `subset=`, and the places of rows left out, ``missing="exclude"``."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import lmmfast as lf
from lmmfast.cli import main
from lmmfast.data.subset import select_rows
from lmmfast.data.tables import open_table
from lmmfast.errors import DataError, FormulaError, MissingRowsWarning

FORMULA = "distance ~ age + (1 | Subject)"

ODD = pd.DataFrame(
    {
        "age": [30, 50, 60, np.nan, 45],
        "arm": ["A", "B", "A", "A", None],
        "my col": [1, 2, 3, 4, 5],
        "kind": pd.Categorical(["x", "y", None, "x", "y"]),
        "dose": pd.Categorical(["lo", "hi", "lo", None, "hi"], ["lo", "hi"], ordered=True),
        "day": pd.to_datetime(["2020-01-01", "2021-01-01", None, "2022-01-01", "2023-01-01"]),
        "ok": [True, False, True, True, False],
    }
)


@pytest.fixture
def skulls():
    return lf.datasets.orthodont()


def same(a, b):
    # Sums over arrays that lie elsewhere in memory may differ in the last bit.
    assert a.llf == pytest.approx(b.llf, rel=1e-14)
    assert a.nobs == b.nobs and a.n_dropped == b.n_dropped
    pd.testing.assert_series_equal(a.params, b.params)
    pd.testing.assert_frame_equal(a.random_effects, b.random_effects)


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("age > 40 & arm == 'A'", [2]),
        ("arm != 'A'", [1]),  # a missing arm is no other arm
        ("age > 40 | arm == 'A'", [0, 1, 2, 3, 4]),  # R: NA | TRUE
        ("not (age > 40)", [0]),
        ("`my col` > 2", [2, 3, 4]),
        ("kind != 'x'", [1, 4]),
        ("dose < 'hi'", [0, 2]),
        ("day > '2020-06-01'", [1, 3, 4]),
        ("ok", [0, 2, 3]),
        ("arm in ['B', 'C']", [1]),
        ("age.isna()", [3]),
        ("@limit < age", [1, 2, 4]),
        ("limit < age", [1, 2, 4]),
        ("40 < age <= 50", [1, 4]),
        ("arm %in% c('A', 'C') && !is.na(age)", [0, 2]),
        ("!(arm %in% c('A'))", [1, 4]),  # as R: a missing value is not in any set
        ("arm not in ['A']", [1, 4]),
        ("arm == '&|!`'  |  ok == TRUE", [0, 2, 3]),
        ("above(age, 45)", [1, 2]),
    ],
)
def test_expressions(expression, rows):
    found = select_rows(expression, open_table(ODD), {"limit": 40, "above": lambda x, low: x > low})
    assert (list(range(5)) if found is None else found.tolist()) == rows


@pytest.mark.parametrize(
    "make", [pl.from_pandas, pa.Table.from_pandas, lambda d: {k: d[k].to_numpy() for k in d}]
)
def test_tables_of_any_kind(make):
    table = open_table(make(ODD[["age", "arm", "ok"]]))
    assert select_rows("age > 40 & arm == 'A'", table).tolist() == [2]
    assert select_rows("arm != 'A'", table).tolist() == [1]
    assert select_rows("ok", table).tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("agee > 3", r"'agee' is not a column of the data; did you mean 'age'\?"),
        ("age", r"subset='age' is not a condition: it must be true or false for each row"),
        ("age = 3", "cannot be evaluated"),
        ("1 > 2", "is not a condition"),
        ("age >", "cannot be evaluated"),
        ("age + arm", "cannot be evaluated"),
        ("f(age)", "'f' is not a column"),
        ("age.nothing", "cannot be evaluated"),
        ("ok and", "cannot be evaluated"),
        ("`my cul` > 2", "did you mean 'my col'"),
        ("(" * 3000, r"subset='\({77}\.\.\.' cannot be evaluated"),
    ],
)
def test_expressions_that_are_none(expression, message):
    with pytest.raises(FormulaError, match=message):
        select_rows(expression, open_table(ODD))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([True, False], "subset has 2 values, but the data have 5 rows"),
        ([0, 2], "positions or labels"),
        (["a"] * 5, "True and False, one for each row"),
        ([False] * 5, "the mask subset= selects none of the 5 rows"),
        (pd.Series([True] * 5, index=range(5, 0, -1)), "indexes differ"),
    ],
)
def test_masks_that_are_none(mask, message):
    with pytest.raises(DataError, match=message):
        select_rows(mask, open_table(ODD))


def test_no_row_is_left():
    with pytest.raises(DataError, match=r"subset='age > 100' selects none of the 5 rows"):
        select_rows("age > 100", open_table(ODD))


def test_fits_of_a_subset_are_fits_of_its_rows(skulls):
    girls = skulls[skulls["Sex"] == "Female"]
    expected = lf.lmm(FORMULA, girls)
    mask = skulls["Sex"] == "Female"
    for subset in ("Sex == 'Female'", mask, mask.to_list(), mask.astype("boolean")):
        fit = lf.lmm(FORMULA, skulls, subset=subset)
        same(fit, expected)
        pd.testing.assert_series_equal(fit.resid, expected.resid)
        pd.testing.assert_series_equal(
            fit.residuals("normalized"), expected.residuals("normalized")
        )
    assert fit.ngroups == 11


def test_weights_structures_and_levels_follow_the_subset(skulls):
    skulls = skulls.assign(visit=(skulls["age"] - 6) / 2, w=np.linspace(0.5, 2, len(skulls)))
    options = {"residual": lf.AR1("visit"), "groups": "Subject"}
    formula, part = "distance ~ C(age)", skulls[skulls["age"] < 13]
    expected = lf.lmm(formula, part, weights=part["w"].to_numpy(), **options)
    found = lf.lmm(formula, skulls, weights=skulls["w"].to_numpy(), subset="age < 13", **options)
    assert found.llf == expected.llf
    assert found.x_names == expected.x_names and len(found.x_names) == 3
    with pytest.raises(DataError, match="in row 7 "):
        lf.lmm(
            FORMULA,
            skulls.assign(w=np.where(skulls.index == 7, 0, 1)),
            weights="w",
            subset="age < 15",
        )


def test_missing_values_outside_the_subset_do_not_count(skulls):
    skulls = skulls.assign(distance=skulls["distance"].where(skulls["age"] != 14))
    fit = lf.lmm(FORMULA, skulls, subset="age < 13", missing="raise")
    assert (fit.nobs, fit.n_dropped, fit.missing_counts) == (81, 0, {})
    assert lf.lmm(FORMULA, skulls, subset="age < 13 | Subject == 'M01'").n_dropped == 1


def test_refit_takes_the_rows_used_or_all_rows(skulls):
    fit = lf.lmm(FORMULA, skulls, subset="age < 13")
    y = skulls["distance"] ** 2
    again = [fit.refit(y), fit.refit(y[skulls["age"] < 13])]
    expected = lf.lmm(FORMULA, skulls.assign(distance=y), subset="age < 13")
    for each in again:
        assert each.llf == pytest.approx(expected.llf, rel=1e-10)
    with pytest.raises(DataError, match=r"the fit used 81 rows \(108 with those left out\)"):
        fit.refit(y[:100])


def test_segments_of_a_subset(skulls):
    expected = lf.lmm_by(FORMULA, skulls[skulls["age"] < 13], by="Sex")
    found = lf.lmm_by(FORMULA, skulls, by="Sex", subset="age < 13")
    pd.testing.assert_frame_equal(found.params, expected.params)
    assert found.nobs.tolist() == [33, 48] and found.n_dropped == 0


def test_command_line(skulls, tmp_path, capsys):
    path = tmp_path / "skulls.csv"
    skulls.to_csv(path, index=False)
    assert main(["fit", FORMULA, str(path), "--json", "--subset", "Sex == 'Female'"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["nobs"] == 44
    assert main(["fit", FORMULA, str(path), "--subset", "Sx == 'Female'"]) == 1
    assert "did you mean 'Sex'?" in capsys.readouterr().err


@pytest.mark.parametrize("subset", [None, "age > 9"])
def test_exclude_keeps_the_places_of_rows_left_out(skulls, subset):
    gaps = skulls.copy()
    gaps.loc[[3, 50], "distance"] = np.nan
    gaps.loc[17, "age"] = np.nan
    gaps.index = gaps.index + 1000
    drop = lf.lmm(FORMULA, gaps, subset=subset)
    fit = lf.lmm(FORMULA, gaps, subset=subset, missing="exclude")
    assert fit.llf == drop.llf and fit.n_dropped == drop.n_dropped
    rows = gaps.index if subset is None else gaps.index[gaps["age"] > 9]
    left_out = gaps.loc[rows, ["distance", "age"]].isna().any(axis=1)
    for get in (
        lambda fit: fit.resid,
        lambda fit: fit.fittedvalues,
        lambda fit: fit.fitted("population"),
        lambda fit: fit.residuals("pearson"),
        lambda fit: fit.residuals("normalized"),
        lambda fit: fit.predict(),
    ):
        found, used = get(fit), get(drop)
        assert found.index.equals(rows)
        assert found.index[found.isna()].equals(rows[left_out])
        pd.testing.assert_series_equal(found.dropna(), used)
    pd.testing.assert_frame_equal(fit.acf(along="age"), drop.acf(along="age"))


def test_exclude_from_arrays():
    d = lf.datasets.sleepstudy()
    y = d["Reaction"].to_numpy().copy()
    y[[0, 9]] = np.nan
    X = np.column_stack([np.ones(len(d)), d["Days"]])
    fit = lf.fit(y, X, d["Subject"], missing="exclude")
    resid = fit.resid
    assert np.flatnonzero(np.isnan(resid)).tolist() == [0, 9]
    np.testing.assert_array_equal(
        resid[~np.isnan(resid)], lf.fit(y, X, d["Subject"], missing="drop").resid
    )


def test_exclude_warns_as_drop_does(skulls):
    gaps = skulls.assign(distance=skulls["distance"].where(skulls["age"] != 14))
    with pytest.warns(MissingRowsWarning, match="'distance'"):
        fit = lf.lmm(FORMULA, gaps, missing="exclude")
    assert len(fit.resid) == len(gaps) and fit.resid.isna().sum() == 27
