"""Arguments that make no sense get an error of the package that names them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import lmmfast as lf
from lmmfast.errors import DataError, FormulaError, LmmError

SLEEP = lf.datasets.sleepstudy()
FORMULA = "Reaction ~ Days + (1 | Subject)"
X = np.column_stack([np.ones(180), SLEEP["Days"]])


def arrays(**options):
    given = {"y": SLEEP["Reaction"], "X": X, "groups": SLEEP["Subject"]}
    return lf.fit(**{**given, **options})


CALLS = {
    "n_jobs": (lambda: lf.lmm(FORMULA, SLEEP, n_jobs=2**31), "n_jobs .* 1 to 4096"),
    "by": (lambda: lf.lmm_by(FORMULA, SLEEP, 5), "by=5 must be the name of a column"),
    "by None": (lambda: lf.lmm_by(FORMULA, SLEEP, None), "by=None"),
    "callback": (lambda: lf.lmm(FORMULA, SLEEP, callback=1), "callback=1 must be a function"),
    "verbose": (lambda: lf.lmm(FORMULA, SLEEP, verbose="x"), "verbose='x'"),
    "engine": (lambda: lf.lmm(FORMULA, SLEEP, engine="fast"), "engine='fast'"),
    "reml": (lambda: lf.lmm(FORMULA, SLEEP, reml="no"), "reml='no'"),
    "Y set": (lambda: lf.fit_many({1, 2}, X, SLEEP["Subject"]), "Y must be numbers"),
    "Y text": (lambda: lf.fit_many("abc", X, SLEEP["Subject"]), "Y must be numbers"),
    "formula": (lambda: lf.lmm(None, SLEEP), "a formula is a string"),
    "context": (lambda: lf.lmm(FORMULA, SLEEP, context=5), "context= maps names"),
    "groups": (lambda: lf.lmm(FORMULA, SLEEP, groups=5), "groups= names a column"),
    "weights": (lambda: lf.lmm(FORMULA, SLEEP, weights=5), "one dimension"),
    "x_names": (lambda: arrays(x_names=5), "columns of X must be a list"),
    "x_names text": (lambda: arrays(x_names="ab"), "columns of X must be a list"),
    "group_name": (lambda: arrays(group_name=5), "group_name=5"),
    "X": (lambda: arrays(X=None), "two dimensions"),
    "y": (lambda: arrays(y=None), "one dimension"),
    "complex": (lambda: arrays(X=X + 0j), "complex numbers"),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_argument_is_named(name):
    call, message = CALLS[name]
    with pytest.raises(LmmError, match=message) as caught:
        call()
    assert isinstance(caught.value, DataError | FormulaError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("sleep.csv", "data='sleep.csv' is a path: read the file first"),
        (Path("dir") / "sleep.parquet", "is a path: read the file first"),
        (pl.from_pandas(SLEEP).lazy(), r"are a lazy frame.*data\.collect\(\)"),
        (None, "NoneType are not a table"),
        (5, "int are not a table"),
    ],
    ids=["str", "Path", "LazyFrame", "None", "int"],
)
def test_data_that_are_no_table_are_told_what_they_are(data, message):
    if data is None or isinstance(data, int):  # the others are read in pieces
        with pytest.raises(DataError, match=message):
            lf.lmm(FORMULA, data)
    if data is not None:  # the rows of the fit
        with pytest.raises(DataError, match=message):
            lf.lmm(FORMULA, SLEEP).predict(data)


class Relation:
    """What a database's relation looks like."""

    columns = ("Reaction", "Days", "Subject")

    def to_arrow_table(self):
        raise AssertionError("not asked to be fetched")


def test_relations_of_a_database():
    with pytest.raises(DataError, match=r"are a database relation.*data\.to_arrow_table\(\)"):
        lf.lmm(FORMULA, Relation())


@pytest.mark.parametrize("value", ["2147483648", "99999999999999999999", "4097"])
def test_too_many_threads_by_the_environment(value):
    code = (
        "import lmmfast as lf\n"
        f"try: lf.lmm({FORMULA!r}, lf.datasets.sleepstudy())\n"
        "except lf.DataError as error: print(error)"
    )
    environment = {**os.environ, "LMMFAST_NUM_THREADS": value}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("LMMFAST_NUM_THREADS must be a whole number from 1 to 4096")


@pytest.mark.parametrize("kind", [object, str])
@pytest.mark.parametrize("many", [False, True])
def test_text_that_is_not_unicode(kind, many):
    names = [f"{name}\ud800" for name in SLEEP["Subject"]]
    if many:  # texts are read in another way from here on
        names += [f"k{k}" for k in range(20_000)]
    n = len(names)
    keys = np.array(names, dtype=kind)
    data = {"y": np.arange(n) % 7.0, "x": np.arange(n) % 5.0, "g": keys}
    with pytest.raises(DataError, match=r"column 'g' holds text that is not Unicode.*ud800"):
        lf.lmm("y ~ x + (1 | g)", data)
    with pytest.raises(DataError, match="column 'g' holds text"):
        lf.lmm("y ~ g + (1 | x)", data)
    with pytest.raises(DataError, match="column 'group' holds text"):
        lf.fit(data["y"], np.ones((n, 1)), keys)


def test_predictions_at_infinity():
    by_formula, by_arrays = lf.lmm(FORMULA, SLEEP), arrays()
    new = SLEEP.iloc[:4].assign(Days=[1.0, 2.0, np.inf, 3.0])
    with pytest.raises(DataError, match=r"prediction of row 2 .* is not finite"):
        by_formula.predict(new)
    for wrong in (np.full((3, 2), np.inf), np.full((3, 2), 1e307)):
        with pytest.raises(DataError, match="is not finite"):
            by_arrays.predict(wrong)
    with pytest.raises(DataError, match="is not finite"):
        by_formula.predict(SLEEP.iloc[:3], offset=np.array([0.0, np.inf, 0.0]))
    missing = by_formula.predict(new.assign(Days=[1.0, np.nan, 2.0, 3.0]))
    assert np.isnan(missing).tolist() == [False, True, False, False]


SUBINTERPRETER = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
one = interpreters.create()
interpreters.run_string(one, '''
import warnings
warnings.simplefilter("ignore")  # numpy's
try:
    import lmmfast
    lmmfast.fit
except ImportError as error:
    print(error, flush=True)
''')
"""


def test_subinterpreters_are_refused_at_once():
    done = subprocess.run(
        [sys.executable, "-c", SUBINTERPRETER], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("lmmfast cannot be used in a subinterpreter"), done.stderr
