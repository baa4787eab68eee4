"""What a type checker of a user sees: types are shipped, wrong calls found, the stub is true."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lmmfast
import lmmfast.errors
from lmmfast._dispatch import core

PACKAGE = Path(lmmfast.__file__).parent

SCRIPT = """
import numpy as np
import pandas as pd
import lmmfast as lf

d = lf.datasets.sleepstudy()
fit = lf.lmm("Reaction ~ Days + (Days | Subject)", d, engine="moments", missing="exclude")
lf.lmm("Reaction ~ Days + (Days | Subject)", d, engine="momemts")  # wrong
lf.lmm("Reaction ~ Days + (Days | Subject)", d, missing="omit")  # wrong
lf.lmm("Reaction ~ Days + (Days | Subject)", d, rank_deficient=True)  # wrong
lf.lmm("Reaction ~ Days + (Days | Subject)", d, identifiable="drop")  # wrong
lf.lmm("Reaction ~ Days + (Days | Subject)", d, remle=True)  # wrong
lf.lmm("Reaction ~ Days + (Days | Subject)", d, reml="no")  # wrong
lf.lmn("Reaction ~ Days + (Days | Subject)", d)  # wrong
table: pd.DataFrame = fit.tidy()
number: float = fit.llf
number = fit.params  # wrong
fit.residuals("pearson")
fit.residuals("studentized", "population")
fit.residuals("deviance")  # wrong
fit.influence("row", refit=3)["cooks_d"]
fit.influence(refit="all")  # wrong
fit.predict(d, level="conditional", new_levels="missing")
fit.predict(d, level="conditional", new_levels="zero")  # wrong
fit.acf(kind="semivariogram", residuals="normalized")
fit.acf(kind="variogram")  # wrong
fit.append(d, missing="raise")
fit.append(d, missing="keep")  # wrong
fit.nothing  # wrong
fit.resid()  # wrong
lf.AR1("visit", by="arm")
lf.OU("t", "Sex")  # wrong
lf.Toeplitz("visit", bands=2)
lf.Toeplitz("visit", 2)  # wrong
X = np.column_stack([np.ones(len(d)), d["Days"]])
arrays = lf.fit(d["Reaction"], X, d["Subject"], Z=X, engine="auto", missing="drop")
lf.fit(d["Reaction"], X)  # wrong
many = lf.fit_many(d[["Reaction"]], X, d["Subject"])
first: float = many[0].llf
by = lf.lmm_by("Reaction ~ Days + (1 | Subject)", d, by="Subject", missing="drop")
lf.lmm_by("Reaction ~ Days + (1 | Subject)", d)  # wrong
try:
    pass
except lf.DataError as error:
    print(error)
except lf.DataErorr:  # wrong
    pass
"""


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_core.pyi").exists()


def test_wrong_calls_of_a_user_are_found(tmp_path):
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=280,
    )
    found = {int(n) for n in re.findall(r"^script\.py:(\d+): error:", done.stdout, re.MULTILINE)}
    lines = SCRIPT.splitlines()
    wanted = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert found == wanted, done.stdout


def stub_functions():
    tree = ast.parse((PACKAGE / "_core.pyi").read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_stub_names_what_the_compiled_core_has():
    tree = ast.parse((PACKAGE / "_core.pyi").read_text())
    private = {"Array", "Ints", "Columns", "Terms", "Keys"}
    named = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    named |= {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    }
    assert named - private == {name for name in dir(core) if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(stub_functions()))
def test_stub_has_the_arguments_of_the_compiled_functions(name):
    """pybind11 writes the signature into the first line of a docstring."""
    node = stub_functions()[name]
    written = inspect.getdoc(getattr(core, name)).splitlines()
    signatures = [line for line in written if re.match(rf"(\d+\. )?{name}\(", line)]
    arguments = [re.findall(r"(\w+): ", line.split(" -> ")[0]) for line in signatures]
    assert [argument.arg for argument in node.args.args] in arguments, signatures


def test_every_public_name_is_known_to_a_type_checker():
    """Once in __all__, once where it is imported for type checkers, and found when it is used."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    imported = [alias.name for node in checked.body for alias in node.names]
    assert sorted(imported) == sorted(lmmfast.__all__)
    assert len(set(lmmfast.__all__)) == len(lmmfast.__all__)
    assert all(getattr(lmmfast, name) is not None for name in lmmfast.__all__)
    errors = {name for name in dir(lmmfast.errors) if name.endswith(("Error", "Warning"))}
    assert errors - {"EmptyEffectsError"} <= set(lmmfast.__all__)  # within: fits catch it
