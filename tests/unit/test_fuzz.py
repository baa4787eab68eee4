"""Tables, formulas and arguments as nobody would write them: a fit, or an error of the package."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lmmfast as lf

#: Errors that say what is wrong with the call: those of the package, and of wrong words and types.
TYPED = (lf.LmmError, TypeError, ValueError)
PLAIN = settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def data():
    rng = np.random.default_rng(0)
    g = np.repeat(np.arange(8), 4)
    d = pd.DataFrame({"g": g, "t": np.tile(np.arange(4.0), 8), "x": rng.normal(size=32)})
    d["f"] = pd.Categorical(rng.choice(["a", "b"], 32))
    d["y"] = d["x"] + rng.normal(size=8)[g] + rng.normal(size=32)
    return d


DATA = data()


def attempt(call, typed=lf.LmmError):
    """The fit, or None where there is an error of the package, which has a message."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lf.LmmWarning)
        try:
            return call()
        except typed as error:
            assert str(error)
            return None


def check(fit):
    if fit is None:
        return
    assert np.isfinite(fit.llf)
    assert np.isfinite(fit.params).all()
    assert (np.diag(fit.cov_params()) >= 0).all()


SIGNS = (
    "y x t f g ~ + - * : / ( ) | || 1 0 ^ 2 . , log I C poly exp scale cs diag %in% `x` ` = [ ] { }"
)
PIECES = [
    "'a'",
    " ",
    "(1 | g)",
    "(t | g)",
    "y ~ x",
    "offset(x)",
    "factor(f)",
    "nothing",
    "\\",
    "\n",
    "é",
]
tokens = st.sampled_from([*SIGNS.split(), *PIECES])


@PLAIN
@given(st.lists(tokens, max_size=12).map("".join))
def test_formulas(formula):
    check(attempt(lambda: lf.lmm(formula, DATA)))


@PLAIN
@given(st.lists(tokens, max_size=6).map("".join))
def test_formulas_that_begin_well(rest):
    check(attempt(lambda: lf.lmm(f"y ~ x {rest} + (1 | g)", DATA)))


@PLAIN
@given(st.text(max_size=30))
def test_text(formula):
    check(attempt(lambda: lf.lmm(formula, DATA)))
    check(attempt(lambda: lf.lmm("y ~ x + (1 | g)", DATA, subset=formula)))


numbers = st.one_of(
    st.floats(width=64),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0.0, 1.0, 2.0, np.nan, np.inf, -np.inf, 1e308, 5e-324, None, "a", "", True]),
)
columns = st.one_of(
    st.lists(numbers, min_size=0, max_size=12),
    st.lists(st.floats(-10, 10), min_size=0, max_size=12),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=0, max_size=12),
    st.lists(st.integers(0, 3), min_size=0, max_size=12),
)


@PLAIN
@given(st.fixed_dictionaries({"y": columns, "x": columns, "g": columns}))
def test_tables(table):
    check(attempt(lambda: lf.lmm("y ~ x + (1 | g)", table)))


@PLAIN
@given(columns, columns, columns, columns)
def test_arrays(y, x, g, w):
    check(
        attempt(lambda: lf.fit(y, [[value] for value in x], g, weights=w or None, missing="drop"))
    )


ARRAYS = [np.zeros(3), np.zeros((2, 2))]
THINGS = [object(), (), [], {}, *ARRAYS, lf.AR1("t"), lf.lmm, b"x"]
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2**65),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(THINGS),
)
OPTIONS = (
    "groups residual reml weights offset D context subset missing rank_deficient identifiable "
    "engine start n_starts n_jobs max_iter verbose"
).split()


@pytest.mark.parametrize("name", OPTIONS)
@settings(PLAIN, max_examples=12)
@given(value=odd)
def test_options(name, value):
    check(attempt(lambda: lf.lmm("y ~ x + (1 | g)", DATA, **{name: value}), TYPED))


FIT = lf.lmm("y ~ x + f + (1 | g)", DATA)
METHODS = {
    "conf_int": ["alpha"],
    "tidy": ["alpha"],
    "summary": ["alpha"],
    "variance_table": ["alpha"],
    "fitted": ["level"],
    "residuals": ["kind", "level"],
    "acf": ["along", "kind", "bins", "max_lag"],
    "predict": ["newdata", "level", "new_levels", "offset"],
    "refit": ["y_new", "start", "max_iter"],
    "implied_covariance": ["group", "at"],
    "append": ["data"],
    "inference": ["ddf", "vcov", "information", "cluster"],
    "test": ["hypothesis"],
    "anova": ["type"],
    "emmeans": ["specs", "by", "at", "weights", "alpha"],
    "emtrends": ["var", "by", "at"],
    "conf_int_theta": ["alpha", "method", "information"],
    "bootstrap": ["statistic", "seed", "method"],
    "influence": ["by", "theta", "refit"],
    "icc": ["alpha"],
    "model_matrix": ["newdata"],
}
GIVEN = {
    "bootstrap": {"B": 3},
    "refit": {"y_new": DATA["y"]},
    "emmeans": {"specs": "f"},
    "emtrends": {"specs": "f", "var": "x"},
}


@pytest.mark.parametrize(
    ("method", "name"), [(m, n) for m, names in METHODS.items() for n in names]
)
@settings(PLAIN, max_examples=10)
@given(value=odd)
def test_methods(method, name, value):
    attempt(lambda: getattr(FIT, method)(**{**GIVEN.get(method, {}), name: value}), TYPED)
