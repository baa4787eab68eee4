"""Rows that are lost in number are not lost without a word."""

import warnings

import numpy as np
import pytest

import lmmfast as lf

FORMULA = "Reaction ~ Days + (1 | Subject)"


def sleep(n_missing, also=0):
    data = lf.datasets.sleepstudy()
    data["age"] = np.arange(180) % 50.0
    data.loc[: n_missing - 1, "Days"] = np.nan
    data.loc[: also - 1, "Reaction"] = np.nan
    return data


def test_more_than_a_tenth():
    message = "19 of 180 rows are left out.*'Days' \\(19\\)"
    data = sleep(19, also=3)
    with pytest.warns(lf.MissingRowsWarning, match=message) as caught:
        fit = lf.lmm(FORMULA, data)
    assert caught[0].filename == __file__
    assert fit.n_dropped == 19
    X = np.column_stack([np.ones(180), data["Days"]])
    with pytest.warns(lf.MissingRowsWarning, match="19 of 180") as caught:
        lf.fit(data["Reaction"], X, data["Subject"], missing="drop")
    assert caught[0].filename == __file__
    halves = data.assign(half=data["Subject"].cat.codes % 2)
    with pytest.warns(lf.MissingRowsWarning, match=message) as caught:
        lf.lmm_by(FORMULA, halves, by="half")
    assert caught[0].filename == __file__


def test_a_tenth_is_no_news():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lf.lmm(FORMULA, sleep(18)).n_dropped == 18
