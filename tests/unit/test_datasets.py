"""The bundled data sets: shapes, types, nothing missing, nothing shared between calls."""

import csv
import subprocess
import sys
from importlib import resources

import numpy as np
import pandas as pd
import pytest

from lmmfast import datasets

# name -> (rows, {factor: number of levels}, numeric columns)
EXPECTED = {
    "bodyweight": (176, {"Rat": 16, "Diet": 3}, ["weight", "Time"]),
    "cake": (270, {"recipe": 3, "replicate": 15, "temperature": 6}, ["angle", "temp"]),
    "dyestuff": (30, {"Batch": 6}, ["Yield"]),
    "dyestuff2": (30, {"Batch": 6}, ["Yield"]),
    "exam": (4059, {"sex": 2, "school": 65}, ["normexam", "standLRT", "schavg"]),
    "hepatitis": (288, {}, ["infant", "log_days", "log_titer_baseline", "log_titer"]),
    "hepatitis_sim": (259, {"infant": 118}, ["logtiter", "logtime", "logtime_c", "logbase"]),
    "multicentre": (2100, {"center": 24, "arm": 2}, ["patient", "month", "sbp"]),
    "orthodont": (108, {"Subject": 27, "Sex": 2}, ["distance", "age"]),
    "ovary": (308, {"Mare": 11}, ["follicles", "Time", "Index", "sin1", "cos1"]),
    "oxide": (72, {"Source": 2, "Lot": 8, "Wafer": 3, "Site": 3}, ["Thickness"]),
    "pastes": (60, {"batch": 10, "cask": 3}, ["strength"]),
    "penicillin": (144, {"plate": 24, "sample": 6}, ["diameter"]),
    "sleepstudy": (180, {"Subject": 18}, ["Reaction", "Days"]),
}


def load(name):
    return getattr(datasets, name)()


def test_names_lists_every_data_set():
    assert datasets.names() == sorted(EXPECTED)
    files = {f.name for f in resources.files(datasets).iterdir() if f.name.endswith(".csv")}
    assert files == {f"{name}.csv" for name in EXPECTED}


@pytest.mark.parametrize("name", EXPECTED)
def test_shape_types_and_completeness(name):
    n, factors, numeric = EXPECTED[name]
    data = load(name)
    assert len(data) == n
    assert set(data.columns) == {*factors, *numeric}
    assert not data.isna().any(axis=None)
    for column in numeric:
        assert data[column].dtype.kind in "if"
        assert np.isfinite(data[column]).all()
    for column, n_levels in factors.items():
        levels = list(data[column].cat.categories)
        assert levels == sorted(levels)
        assert not data[column].cat.ordered
        assert len(levels) == n_levels == data[column].nunique()


@pytest.mark.parametrize("name", EXPECTED)
def test_values_are_those_of_the_file(name):
    data = load(name)
    text = resources.files(datasets).joinpath(f"{name}.csv").read_text(encoding="utf-8")
    header, *rows = csv.reader(text.splitlines())
    assert header == list(data.columns)
    for column, values in zip(header, zip(*rows, strict=True), strict=True):
        if isinstance(data[column].dtype, pd.CategoricalDtype):
            assert list(data[column]) == list(values)
        else:  # older pandas may read the last bit differently
            np.testing.assert_allclose(data[column], np.array(values, dtype=float), rtol=4e-16)


@pytest.mark.parametrize("name", EXPECTED)
def test_each_call_returns_a_fresh_frame(name):
    first = load(name)
    pristine = first.copy(deep=True)
    first.iloc[0, 0] = first.iloc[1, 0]
    first["new"] = 0.0
    pd.testing.assert_frame_equal(load(name), pristine)


def test_every_data_set_is_documented():
    for name in datasets.names():
        doc = getattr(datasets, name).__doc__
        for column in load(name).columns:
            assert f"``{column}``" in doc, (name, column)


def test_facts_of_the_studies():
    visits = datasets.hepatitis().groupby("infant").size()
    assert len(visits) == 106
    assert visits.value_counts().to_dict() == {3: 76, 2: 30}

    visits = datasets.hepatitis_sim().groupby("infant", observed=True).size()
    assert (visits == 1).sum() == 30

    ovary = datasets.ovary()
    np.testing.assert_allclose(ovary["sin1"], np.sin(2 * np.pi * ovary["Time"]), atol=1e-7)
    np.testing.assert_allclose(ovary["cos1"], np.cos(2 * np.pi * ovary["Time"]), atol=1e-7)

    cake = datasets.cake()
    assert (cake["temperature"].astype(str) == "T" + cake["temp"].astype(str)).all()


def test_pandas_is_imported_on_use_only():
    code = "import sys, lmmfast.datasets; assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
