"""``lmmfast fit`` of several files and structures, ``append`` and ``compare``."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.cli import main

SLEEP = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = lf.datasets.sleepstudy().astype({"Subject": str})
    data.to_csv("all.csv", index=False)
    data.iloc[:70].to_csv("a.csv", index=False)
    data.iloc[70:].to_csv("b.csv", index=False)
    return data


def document(capsys) -> dict:
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def error(capsys) -> str:
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("lmmfast: error: ") and err.count("\n") == 1
    return err


def test_several_files_and_the_standard_input(folder, capsys, monkeypatch):
    assert main(["fit", SLEEP, "all.csv", "--json"]) == 0
    whole = document(capsys)
    assert main(["fit", SLEEP, "a.csv", "b.csv", "--json"]) == 0
    assert document(capsys) == whole
    text = folder.to_csv(index=False).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert main(["fit", SLEEP, "-", "--json"]) == 0
    assert document(capsys) == whole


def test_files_that_do_not_go_together(folder, capsys, monkeypatch):
    assert main(["fit", SLEEP, "a.csv", "./a.csv"]) == 1
    assert "listed twice" in error(capsys)
    folder.drop(columns="Days").to_csv("c.csv", index=False)
    assert main(["fit", SLEEP, "a.csv", "c.csv"]) == 1
    assert "c.csv: has no column 'Days', which a.csv has" in error(capsys)
    folder.assign(Days="x").to_csv("d.csv", index=False)
    assert main(["fit", SLEEP, "a.csv", "d.csv"]) == 1
    assert "d.csv: column 'Days' is" in error(capsys)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'a,b\n"1')))
    assert main(["fit", SLEEP, "-"]) == 1
    assert "standard input" in error(capsys)


def test_residual_structures(folder, capsys):
    options = ["--groups", "Subject", "--residual", "AR1('Days')", "--json"]
    assert main(["fit", "Reaction ~ Days", "all.csv", *options]) == 0
    fit = lf.lmm("Reaction ~ Days", folder, groups="Subject", residual=lf.AR1("Days"))
    assert document(capsys)["theta"] == fit.theta.to_dict()
    for text, said in (
        ("AR1(", "cannot be read"),
        ("open('x')", "no 'open'"),
        ("AR1(__import__('os'))", "no '__import__'"),
        ("3", "is no structure"),
        ("AR1(x.y)", "neither a structure nor a plain value"),
    ):
        assert main(["fit", "Reaction ~ Days", "all.csv", "--residual", text]) == 1
        assert said in error(capsys)


def test_effects(folder, capsys):
    assert main(["fit", SLEEP, "all.csv", "--effects", "e.csv", "--json"]) == 0
    found = pd.read_csv("e.csv").pivot(index="group", columns="effect", values="value")
    expected = lf.lmm(SLEEP, folder).random_effects
    np.testing.assert_allclose(found[expected.columns], expected, rtol=1e-12)
    assert main(["fit", SLEEP, "all.csv", "--effects", "e.xls"]) == 1


def test_append(folder, capsys):
    assert main(["fit", SLEEP, "a.csv", "--save", "m.lmm", "--clusters", "--json"]) == 0
    capsys.readouterr()
    expected = lf.lmm(SLEEP, folder.iloc[:70]).append(folder.iloc[70:])
    before = Path("m.lmm").read_bytes()
    assert main(["append", "m.lmm", "b.csv", "--save", "n.lmm", "--json"]) == 0
    assert document(capsys)["llf"] == expected.llf
    assert Path("m.lmm").read_bytes() == before and lf.load("n.lmm").llf == expected.llf
    assert main(["append", "m.lmm", "b.csv"]) == 0
    assert capsys.readouterr().out == f"{expected.summary()}\n"
    assert lf.load("m.lmm").nobs == 180
    assert main(["fit", SLEEP, "a.csv", "--save", "m.lmm", "--json"]) == 0
    capsys.readouterr()
    assert main(["append", "m.lmm", "b.csv"]) == 1
    assert "need the data" in error(capsys)
    assert main(["fit", SLEEP, "a.csv", "--clusters"]) == 1
    assert "--save" in error(capsys)


def test_compare(folder, capsys):
    for name, formula in (("s.lmm", "Reaction ~ Days + (1 | Subject)"), ("l.lmm", SLEEP)):
        assert main(["fit", formula, "all.csv", "--save", name, "--json"]) == 0
        capsys.readouterr()
    assert main(["compare", "s.lmm", "l.lmm", "--json"]) == 0
    found = document(capsys)
    fits = [lf.lmm("Reaction ~ Days + (1 | Subject)", folder), lf.lmm(SLEEP, folder)]
    expected = lf.compare(*fits)
    assert found["l.lmm"]["p"] == pytest.approx(expected["p"].iloc[1], rel=1e-12)
    assert main(["compare", "s.lmm", "l.lmm", "--test", "mixture"]) == 0
    assert "l.lmm" in capsys.readouterr().out
    assert main(["compare", "s.lmm", "s.lmm"]) == 1
    assert "twice" in error(capsys)


def test_help_has_examples_and_exit_codes(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "lmmfast append m.lmm" in out and "3    the fit did not converge" in out
