"""Columns of the fixed effects, of the rows of a fit and of new ones."""

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf

ORTHODONT = lf.datasets.orthodont()


@pytest.fixture(scope="module")
def fit():
    data = ORTHODONT.assign(twice=2 * ORTHODONT["age"]).set_index(ORTHODONT.index + 100)
    with pytest.warns(lf.RankWarning):
        return lf.lmm("distance ~ age * Sex + twice + (age | Subject)", data)


def test_rows_of_the_fit(fit):
    X = fit.model_matrix()
    assert list(X.columns) == list(fit.params.index) == fit.x_names
    assert "twice" not in X
    male = (ORTHODONT["Sex"] == "Male").to_numpy(float)
    np.testing.assert_array_equal(X["Sex[T.Male]"], male)
    np.testing.assert_array_equal(X["age:Sex[T.Male]"], male * ORTHODONT["age"])
    assert X.index.equals(ORTHODONT.index + 100)
    np.testing.assert_allclose(X @ fit.params, fit.fitted("population"))


@pytest.mark.filterwarnings("ignore::lmmfast.errors.NewDataWarning")
def test_new_rows(fit):
    new = pd.DataFrame(
        {"age": [9.0, np.nan, 11.0], "Sex": ["Male", "Female", "Female"], "twice": 18.0},
        index=[*"abc"],
    )
    X = fit.model_matrix(new)
    assert list(X.index) == [*"abc"]
    assert X.loc["b"].isna().all()
    assert X.loc["a"].to_list() == [1, 9, 1, 9]
    known = X.dropna()
    np.testing.assert_allclose(known @ fit.params, fit.predict(new.loc[["a", "c"]]))
    with pytest.raises(lf.DataError, match="no column 'Sex'"):
        fit.model_matrix(new[["age", "twice"]])
    with pytest.raises(lf.DataError, match="'Sex' has levels that the fit has not seen: 'other'"):
        fit.model_matrix(new.assign(Sex="other"))


def test_a_fit_without_rows_makes_new_ones(fit):
    bare = fit.remove_data()
    row = {"age": [9.0], "Sex": ["Male"], "twice": [18.0]}
    assert bare.model_matrix(row).to_numpy().tolist() == [[1, 9, 1, 9]]
    with pytest.raises(lf.DataError, match="the rows of X need the data"):
        bare.model_matrix()


def test_left_out_rows_offsets_and_arrays():
    data = ORTHODONT.assign(o=1.0)
    data.loc[4, "distance"] = np.nan
    fit = lf.lmm("distance ~ age + (1 | Subject)", data, offset="o", missing="exclude")
    X = fit.model_matrix()
    assert list(X.index[X.isna().all(axis=1)]) == [4]
    assert fit.model_matrix({"age": [8]}).to_numpy().tolist() == [[1, 8]]
    X = np.column_stack([np.ones(len(ORTHODONT)), ORTHODONT["age"]])
    arrays = lf.fit(ORTHODONT["distance"].to_numpy(), X, ORTHODONT["Subject"].to_numpy())
    np.testing.assert_array_equal(arrays.model_matrix(), X)
    assert list(arrays.model_matrix(X[:2]).columns) == ["x0", "x1"]


def test_without_fixed_effects():
    fit = lf.lmm("distance ~ 0 + (1 | Subject)", ORTHODONT)
    assert fit.model_matrix().shape == (len(ORTHODONT), 0)
    assert fit.model_matrix({"age": [8, 9]}).shape == (2, 0)
