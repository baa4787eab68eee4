"""``lmmfast fit --save``, ``lmmfast predict`` and ``lmmfast info`` of a model file."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.cli import main

SLEEP = "Reaction ~ Days + (Days | Subject)"
GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = lf.datasets.sleepstudy()
    data.to_csv("sleep.csv", index=False)
    data.drop(columns="Reaction").to_csv("new.csv", index=False)
    assert main(["fit", SLEEP, "sleep.csv", "--save", "m.lmm", "--json"]) == 0
    return tmp_path


def read(path):
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else open(path)
    with opened as file:
        return pd.read_csv(file, sep="\t" if ".tsv" in path.name else ",")


@pytest.mark.parametrize("out", ["o.csv", "o.tsv", "o.csv.gz", "o.parquet"])
def test_predict(folder, out, capsys):
    assert main(["predict", "m.lmm", "new.csv", "-o", out]) == 0
    data = lf.datasets.sleepstudy()
    expected = lf.lmm(SLEEP, data).predict(data, level="conditional")
    found = read(folder / out)
    assert list(found) == ["Days", "Subject", "prediction"]
    np.testing.assert_array_equal(found["prediction"], expected)
    assert sorted(os.listdir(folder)) == sorted(["m.lmm", "new.csv", "sleep.csv", out])


def test_given_rows_and_intervals(folder, capsys):
    data = lf.datasets.sleepstudy()
    before = data[data["Subject"] == "S308"].assign(Subject="new")
    before.to_csv("before.csv", index=False)
    after = pd.DataFrame({"Days": [10.0, 11.0], "Subject": ["new", "new"]})
    after.to_csv("after.csv", index=False)
    options = ["--given", "before.csv", "--interval", "prediction"]
    assert main(["predict", "m.lmm", "after.csv", "-o", "o.csv", *options]) == 0
    found = read(folder / "o.csv")
    assert list(found)[2:] == ["prediction", "prediction_se", "prediction_low", "prediction_high"]
    fit = lf.lmm(SLEEP, data)
    want = fit.predict(after, given=before, interval="prediction").drop(columns="df")
    np.testing.assert_allclose(found.iloc[:, 2:], want, rtol=1e-12)
    same = fit.predict(after.assign(Subject="S308"), "conditional")
    np.testing.assert_allclose(found["prediction"], same, rtol=1e-9)
    found[["Days", "Subject", "prediction_low"]].to_csv("taken.csv", index=False)
    assert main(["predict", "m.lmm", "taken.csv", *options]) == 1
    assert "has a column 'prediction_low' already" in capsys.readouterr().err


def test_predict_parquet_on_the_standard_output(folder, capsys):
    frame = pd.read_csv("new.csv").head(3)
    frame.to_parquet("new.parquet")
    capsys.readouterr()
    options = ["--level", "population", "--column", "mean"]
    assert main(["predict", "m.lmm", "new.parquet", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Days,Subject,mean"
    assert lines[1].startswith("0") and float(lines[1].split(",")[2]) == pytest.approx(251.405)


def test_new_groups_and_missing_values(folder, capsys):
    Path("new.csv").write_text("Days,Subject\n3,S308\n3,nobody\n,S308\n?,S309\n")
    capsys.readouterr()
    assert main(["predict", "m.lmm", "new.csv", "--na", "?", "-o", "o.csv"]) == 0
    assert "1 of 4 rows belong to groups of 'Subject'" in capsys.readouterr().err
    assert read(folder / "o.csv")["prediction"].isna().tolist() == [False, False, True, True]
    assert main(["predict", "m.lmm", "new.csv", "--na", "?", "--new-levels", "error"]) == 1
    assert "that the fit did not have" in capsys.readouterr().err


def test_labels_that_look_like_numbers(tmp_path, monkeypatch, capsys):
    """A CSV file's groups are text in the fit, and so they are when new rows are predicted."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    lines = [f"{k // 5:02d},{k % 5},{rng.normal():.3f}" for k in range(60)]
    Path("d.csv").write_text("\n".join(["g,t,y", *lines]))
    assert main(["fit", "y ~ t + (1 | g)", "d.csv", "--save", "m.lmm"]) == 0
    capsys.readouterr()
    assert main(["predict", "m.lmm", "d.csv", "-o", "o.csv", "--new-levels", "error"]) == 0
    lf.load("m.lmm").random_effects.loc["07"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["m.lmm", "nowhere.csv"], "nowhere.csv: no such file"),
        (["nowhere.lmm", "new.csv"], "No such file or directory: 'nowhere.lmm'"),
        (["new.csv", "new.csv"], "new.csv: damaged, or no model file of lmmfast"),
        (["m.lmm", "new.csv", "-o", "o.xlsx"], "o.xlsx: cannot tell its format"),
        (["m.lmm", "new.csv", "--column", "Days"], "has a column 'Days' already"),
        (["m.lmm", "new.csv", "--level", "site"], "level='site': choose one of"),
        (["m.lmm", "new.csv", "-o", "nowhere/o.csv"], "No such file or directory"),
        ([str(GOLDEN / "many.lmm"), "new.csv"], "holds many fits"),
        ([str(GOLDEN / "arrays.lmm"), "new.csv"], "was fitted to arrays"),
        ([str(GOLDEN / "nested.lmm"), "new.csv"], "the new data have no column 'arm'"),
    ],
)
def test_errors(folder, arguments, message, capsys):
    capsys.readouterr()
    assert main(["predict", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("lmmfast: error: ") and error.count("\n") == 1
    assert message in error


def test_formulas_that_could_run_any_code(folder, capsys):
    formula = "Reaction ~ I(Days - Days.mean()) + (1 | Subject)"
    assert main(["fit", formula, "sleep.csv", "--save", "m.lmm"]) == 0
    assert main(["predict", "m.lmm", "new.csv", "-o", "o.csv"]) == 1
    assert "trust=True" in capsys.readouterr().err
    assert main(["predict", "m.lmm", "new.csv", "-o", "o.csv", "--trust"]) == 0
    assert "is evaluated on the new rows alone" in capsys.readouterr().err


def test_a_fit_that_has_not_converged_is_saved(folder, capsys):
    code = main(["fit", SLEEP, "sleep.csv", "--max-iter", "1", "--save", "bad.lmm"])
    assert code == 3
    assert not lf.load("bad.lmm").converged


def test_info_of_files(folder, capsys):
    capsys.readouterr()
    assert main(["info", "m.lmm"]) == 0
    out = capsys.readouterr().out
    assert "formula: Reaction ~ Days + (Days | Subject)\n" in out
    assert "groups: Subject 18\n" in out
    assert "certificate: converged\n" in out
    assert main(["info", "m.lmm", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["params"]["Days"] == pytest.approx(10.467286, abs=1e-6)
    assert facts["bytes"] == os.path.getsize("m.lmm")
    for name, line in (("many", "responses: 2"), ("segments", "segments: 3"), ("ou", "rows: 192")):
        assert main(["info", str(GOLDEN / f"{name}.lmm")]) == 0
        assert f"{line}\n" in capsys.readouterr().out
    assert main(["info", "sleep.csv"]) == 1
    assert "no model file of lmmfast" in capsys.readouterr().err


def test_info_of_the_program_as_json(capsys):
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == lf.__version__
