"""The command line: what it prints, where, and with which exit code."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

import lmmfast as lf
from lmmfast.cli import as_json, main
from lmmfast.data.table_files import read_table

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "sleep.csv"
    lf.datasets.sleepstudy().to_csv(path, index=False)
    return str(path)


def error_of(capsys):
    """Return the single line on the standard error; nothing may be on the standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n") and err.count("\n") == 1
    assert err.startswith("lmmfast: error: ")
    return err


def test_fit_prints_the_summary(csv, capsys):
    assert main(["fit", SLEEP, csv]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out == f"{lf.lmm(SLEEP, lf.datasets.sleepstudy()).summary()}\n"


def test_json_equals_the_fit(csv, capsys):
    assert main(["fit", SLEEP, csv, "--ml", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    fit = lf.lmm(SLEEP, lf.datasets.sleepstudy(), reml=False)
    assert document["formula"] == SLEEP
    assert document["method"] == "ML"
    assert document["nobs"] == 180 and document["n_dropped"] == 0
    assert document["groups"] == {
        "name": "Subject",
        "count": 18,
        "smallest": 10,
        "mean": 10.0,
        "largest": 10,
    }
    assert document["params"] == fit.params.to_dict()
    assert document["bse"] == fit.bse.to_dict()
    assert document["pvalues"] == fit.pvalues.to_dict()
    assert document["theta"] == fit.theta.to_dict()
    assert document["theta_se"] == fit.theta_se.to_dict()
    numbers = (fit.llf, fit.deviance, fit.aic, fit.bic)
    assert tuple(document[k] for k in ("llf", "deviance", "aic", "bic")) == numbers
    assert document["certificate"]["converged"] is True
    assert document["certificate"]["status"] == "converged"
    assert document["certificate"]["rank"] == {"Subject": [2, 2]}
    assert document["certificate"]["multiplier"] is None


def test_json_writes_nan_as_null(tmp_path, capsys):
    """On the boundary the variances have no standard errors."""
    path = tmp_path / "hepatitis.csv"
    lf.datasets.hepatitis().to_csv(path, index=False)
    assert main(["fit", "log_titer ~ log_days + (log_days | infant)", str(path), "--json"]) == 0
    out = capsys.readouterr().out
    assert "NaN" not in out and "Infinity" not in out
    document = json.loads(out)
    assert document["certificate"]["status"].startswith("converged on the boundary")
    assert list(document["theta_se"].values())[:3] == [None] * 3
    assert document["theta_se"]["var(Residual)"] > 0


def test_json_of_infinite_numbers():
    fit = lf.lmm(SLEEP, lf.datasets.sleepstudy())
    fit.certificate = type(fit.certificate)(
        False, "not converged", math.inf, math.nan, {"Subject": (np.int64(1), 2)}, None, 3
    )
    text = json.dumps(as_json(fit, SLEEP), allow_nan=False)
    certificate = json.loads(text)["certificate"]
    assert certificate["decrement"] is None and certificate["smallest_eigenvalue"] is None
    assert certificate["rank"] == {"Subject": [1, 2]}


@pytest.mark.parametrize("name", ["d.parquet", "d.PARQUET", "d.csv.gz", "d.tsv", "d.v2.csv"])
def test_formats(name, tmp_path, capsys):
    data, path = lf.datasets.sleepstudy(), tmp_path / name
    if "parquet" in name.lower():
        data.to_parquet(path)
    else:
        data.to_csv(path, index=False, sep="\t" if "tsv" in name else ",")
    assert main(["fit", SLEEP, str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["llf"] == pytest.approx(-871.81413598)


def test_weights_offset_threads(tmp_path, capsys):
    data = lf.datasets.sleepstudy().assign(w=np.tile([1.0, 2.0], 90), o=np.arange(180) / 10)
    path = tmp_path / "d.csv"
    data.to_csv(path, index=False)
    options = ["--weights", "w", "--offset", "o", "--threads", "1", "--json"]
    assert main(["fit", SLEEP, str(path), *options]) == 0
    fit = lf.lmm(SLEEP, data, weights="w", offset="o")
    assert json.loads(capsys.readouterr().out)["llf"] == fit.llf


def test_missing_values(tmp_path, capsys):
    data = lf.datasets.sleepstudy()
    data.loc[4, "Days"] = np.nan
    path = tmp_path / "d.csv"
    data.to_csv(path, index=False)
    assert main(["fit", SLEEP, str(path)]) == 0
    assert "1 row dropped for missing values in Days (1)" in capsys.readouterr().out
    assert main(["fit", SLEEP, str(path), "--missing", "raise"]) == 1
    assert "missing values in 'Days' (1)" in error_of(capsys)


def test_verbose_leaves_the_standard_output_alone(csv, capsys):
    assert main(["fit", SLEEP, csv, "--json", "--verbose"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["nobs"] == 180
    assert "llf" in err and "decrement" in err


def test_not_converged(csv, capsys):
    assert main(["fit", SLEEP, csv, "--max-iter", "1", "--json"]) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["certificate"]["converged"] is False
    assert err.startswith("lmmfast: warning: not converged")
    assert err.count("\n") == 1


def test_warnings_are_one_line_each(csv, capsys):
    formula = "Reaction ~ Days + I(2 * Days) + (1 | Subject)"
    assert main(["fit", formula, csv]) == 0
    out, err = capsys.readouterr()
    assert "I(2 * Days)." in out
    assert err.startswith("lmmfast: warning: dropped columns of X") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("Reaction ~ Dayz + (1 | Subject)", "did you mean 'Days'?"),
        ("Reaction ~ Days", "no random-effects term"),
        ("Reaction ~ Days + ar1(1 | Subject)", "not supported yet"),
        ("Subject ~ Days + (1 | Subject)", "'Subject'"),
    ],
)
def test_errors_of_the_model(formula, message, csv, capsys):
    assert main(["fit", formula, csv]) == 1
    assert message in error_of(capsys)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "absent.csv: no such file"),
        ("data.xlsx", b"x", "cannot tell its format; give a .csv, .tsv or .parquet file"),
        ("data", b"x", "cannot tell its format"),
        ("data.parquet.gz", b"x", "cannot tell its format"),
        ("empty.csv", b"", "empty.csv: cannot be read"),
        ("latin.csv", b"a,b\n\xff\xfe,1\n", "latin.csv: cannot be read"),
        ("bad.parquet", b"not parquet", "bad.parquet: cannot be read"),
        ("bad.csv.gz", b"not gzip", "gzip"),
        ("de.csv", b"y;t;g\n1,5;2;a\n2,5;3;b\n", "the separator seems to be ';'"),
        ("tabs.csv", b"y\tt\n1\t2\n", r"the separator seems to be '\t'"),
        ("commas.tsv", b"y,t\n1,2\n", "the separator seems to be ','"),
        ("twice.csv", b"y,t,y\n1,2,3\n", "several columns are named 'y'"),
    ],
)
def test_errors_of_the_file(name, content, message, tmp_path, capsys):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert main(["fit", SLEEP, str(path)]) == 1
    assert message in error_of(capsys)


def test_ids_mostly_numbers(tmp_path):
    """pandas reads large files in chunks, and gives a column several types."""
    path = tmp_path / "ids.csv"
    path.write_text("g,y\n" + "".join(f"{k},{k}\n" for k in range(300_000)) + "x1,1\n")
    assert set(map(type, read_table(path)["g"])) == {str}


def test_parquet_without_pyarrow(tmp_path, capsys, monkeypatch):
    import pandas as pd

    def without(path):
        raise ImportError("Unable to find a usable engine")

    path = tmp_path / "d.parquet"
    path.touch()
    monkeypatch.setattr(pd, "read_parquet", without)
    assert main(["fit", SLEEP, str(path)]) == 1
    assert "pip install pyarrow" in error_of(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fit"],
        ["fit", SLEEP],
        ["nonsense"],
        ["fit", SLEEP, "d.csv", "--missing", "keep"],
        ["fit", SLEEP, "d.csv", "--threads", "0"],
        ["fit", SLEEP, "d.csv", "--max-iter", "many"],
    ],
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("usage: lmmfast")


def test_interruption(csv, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("lmmfast.api.lmm", interrupt)
    assert main(["fit", SLEEP, csv]) == 130
    assert "interrupted" in error_of(capsys)


def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert f"version: {lf.__version__}\n" in out
    assert f"cpu: {lf.build_info()['cpu']}\n" in out
    assert "threads: " in out


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"lmmfast {lf.__version__}\n"


def run(*arguments, **options):
    command = [sys.executable, "-m", "lmmfast", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_as_a_module(csv):
    done = run("fit", SLEEP, csv, "--json")
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["params"]["Days"] == pytest.approx(10.467286)
    failed = run("fit", SLEEP, "absent.csv")
    assert failed.returncode == 1
    assert failed.stderr == "lmmfast: error: absent.csv: no such file\n"


def test_unknown_instruction_set(csv):
    done = run("fit", SLEEP, csv, env={**os.environ, "LMMFAST_CPU": "zz"})
    assert done.returncode == 1
    assert done.stderr.startswith("lmmfast: error: LMMFAST_CPU='zz' is not usable here")
    assert done.stderr.count("\n") == 1


def test_closed_pipe(csv):
    """`lmmfast fit ... | head -1` must not end in a traceback."""
    command = [sys.executable, "-m", "lmmfast", "fit", SLEEP, csv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        err = process.stderr.read()
        assert process.wait() == 0
    assert err == b""
