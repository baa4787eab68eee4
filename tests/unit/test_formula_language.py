"""Formulas mean what a user of R reads, or say what to write instead."""

import pickle

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.errors import FormulaError, NewDataWarning

SLEEP = lf.datasets.sleepstudy()


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    n = 60
    data = pd.DataFrame({"g": np.repeat(np.arange(12), 5), "t": np.tile(np.arange(5), 12)})
    data["x"] = rng.standard_normal(n)
    data["arm"] = np.where(data["g"] % 2, "a", "b")
    data["base"] = 9.0 + rng.standard_normal(12)[data["g"]]
    data["y"] = data["base"] + data["t"] + rng.standard_normal(12)[data["g"]]
    data["y"] += 0.5 * rng.standard_normal(n)
    return data


def same(one, other) -> None:
    """Two fits with the same numbers, whatever the columns are called."""
    assert one.llf == pytest.approx(other.llf, rel=1e-12)
    np.testing.assert_allclose(one.params, other.params, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(one.bse, other.bse, rtol=1e-8)


RESPONSES = {
    "y - base": lambda d: d.y - d.base,
    "(y - t)": lambda d: d.y - d.t,
    "y ** 2": lambda d: d.y**2,
    "y^2": lambda d: d.y**2,
    "t^2 + y": lambda d: d.t**2 + d.y,
    "y - 1": lambda d: d.y - 1,
    "log(y + 9) - t": lambda d: np.log(d.y + 9) - d.t,
    "0 + y": lambda d: d.y,
    "t - y": lambda d: d.t - d.y,
    "y/10": lambda d: d.y / 10,
    "y + t": lambda d: d.y + d.t,
    "-y": lambda d: -d.y,
    "y * x": lambda d: d.y * d.x,
    "pmax(y, t, 10)": lambda d: np.maximum(np.maximum(d.y, d.t), 10),
    "y - `my x`": lambda d: d.y - d.x,
    "I(y - t)": lambda d: d.y - d.t,
    "{y - t}": lambda d: d.y - d.t,
}


@pytest.mark.parametrize("response", RESPONSES)
def test_the_left_side_is_arithmetic(response):
    data = frame()
    data["my x"] = data["x"]
    data["made"] = RESPONSES[response](data)
    made = lf.lmm("made ~ arm + (1 | g)", data)
    fit = lf.lmm(f"{response} ~ arm + (1 | g)", data)
    same(fit, made)
    assert response in str(fit.summary())
    np.testing.assert_allclose(fit.fittedvalues, made.fittedvalues, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "response, message",
    [
        ("y:x", "one column or arithmetic"),
        ("y x", "one column or arithmetic"),
        ("cbind(y, x)", "fit_many"),
        ("y, x", "one variable or expression"),
        ("(y, x)", "one variable or expression"),
        (".", "cannot be '.'"),
        ("y - .", "one column or arithmetic|cannot be '.'"),
        ("3", "no column"),
        ("arm + 1", "cannot evaluate"),
    ],
)
def test_left_sides_that_are_no_numbers(response, message):
    with pytest.raises(FormulaError, match=message):
        lf.lmm(f"{response} ~ t + (1 | g)", frame())


def test_powers_within_calls():
    data = SLEEP.assign(square=SLEEP["Days"] ** 2)
    fit = lf.lmm("Reaction ~ Days + I(Days^2) + (Days | Subject)", data)
    made = lf.lmm("Reaction ~ Days + square + (Days | Subject)", data)
    same(fit, made)
    # lmer(Reaction ~ Days + I(Days^2) + (1 | Subject)): REML criterion and slope of the square.
    simple = lf.lmm("Reaction ~ Days + I(Days^2) + (1 | Subject)", data)
    assert -2 * simple.llf == pytest.approx(1785.795, abs=1e-3)
    assert simple.params.iloc[2] == pytest.approx(0.3370, abs=1e-4)
    random = lf.lmm("Reaction ~ Days + (1 + I(Days^2) | Subject)", data)
    same(random, lf.lmm("Reaction ~ Days + (1 + square | Subject)", data))


FIXED = {
    "sqrt(t)": lambda d: np.sqrt(d.t),
    "log1p(t)": lambda d: np.log1p(d.t),
    "log10(t + 1)": lambda d: np.log10(d.t + 1),
    "expm1(t / 10)": lambda d: np.expm1(d.t / 10),
    "abs(x)": lambda d: d.x.abs(),
    "pmin(t, 3)": lambda d: np.minimum(d.t, 3),
    "pmax(t, x, 1)": lambda d: np.maximum(np.maximum(d.t, d.x), 1),
    "I(t %/% 2)": lambda d: d.t // 2,
    "I(t %% 2)": lambda d: d.t % 2,
    "ifelse(t > 2, x, 0)": lambda d: np.where(d.t > 2, d.x, 0),
    "dummy(arm, 'b')": lambda d: (d.arm == "b").astype(float),
    "scale(x, scale=FALSE)": lambda d: d.x - d.x.mean(),
}


@pytest.mark.parametrize("term", FIXED)
def test_functions_of_R(term):
    data = frame()
    data["made"] = FIXED[term](data)
    fit = lf.lmm(f"y ~ {term} + (1 | g)", data)
    made = lf.lmm("y ~ made + (1 | g)", data)
    same(fit, made)
    new = data.iloc[20:37]
    np.testing.assert_allclose(fit.predict(new), made.predict(new), rtol=1e-10)


def test_factor_is_C_and_groups_are_factors():
    data = frame()
    same(lf.lmm("y ~ factor(t) + (1 | g)", data), lf.lmm("y ~ C(t) + (1 | g)", data))
    same(lf.lmm("y ~ as.factor(t) + (1 | g)", data), lf.lmm("y ~ C(t) + (1 | g)", data))
    same(lf.lmm("y ~ t + (1 | factor(g))", data), lf.lmm("y ~ t + (1 | g)", data))
    by_levels = lf.lmm("y ~ factor(arm, levels=c('b', 'a')) + (1 | g)", data)
    assert by_levels.params.index[1].endswith("[T.a]")


def test_raw_polynomials():
    data = frame().assign(t2=lambda d: d.t**2)
    fit = lf.lmm("y ~ poly(t, 2, raw=TRUE) + (1 | g)", data)
    same(fit, lf.lmm("y ~ t + t2 + (1 | g)", data))


def test_natural_splines_as_the_message_says():
    with pytest.raises(FormulaError, match=r"cr\(x, df=3, constraints='center'\)"):
        lf.lmm("y ~ ns(t, 3) + (1 | g)", frame())
    fit = lf.lmm("y ~ cr(x, df=3, constraints='center') + (1 | g)", frame())
    assert len(fit.params) == 4


@pytest.mark.parametrize(
    "term, message",
    [
        ("foo(t)", r"context=\{'foo': foo\}"),
        ("arctan(t)", r"write np\.arctan"),
        ("offset(x)", "use offset="),
        ("arm %in% g", "write a:b or a/b"),
        ("as.numeric(t)", "as a column first"),
        ("{'^'}", "evaluate|numbers"),
        ("(]=.", "cannot read"),
        ("t * / x", "cannot read"),
        ("(t + x)**1000000000", "more than 10,000 terms"),
        ("(" + "+".join(f"x{k}" for k in range(40)) + ")**40", "more than 10,000 terms"),
        ("*".join(f"x{k}" for k in range(40)), "more than 10,000 terms"),
        ("+".join(f"x{k}" for k in range(100_000)), "characters"),
        ("x" * 1_000_000, "characters"),
        ("x" * 50_000, "a name of 50,000 characters"),
    ],
)
def test_what_is_refused_is_refused_by_name(term, message):
    with pytest.raises(FormulaError, match=message):
        lf.lmm(f"y ~ {term} + (1 | g)", frame())


def test_bars_without_parentheses():
    with pytest.raises(FormulaError, match=r"\(1 \+ t \| g\)"):
        lf.lmm("y ~ t | g", frame())


def test_powers_of_sums_are_interactions():
    data = frame()
    fit = lf.lmm("y ~ (t + x)^2 + (1 | g)", data)
    same(fit, lf.lmm("y ~ t + x + t:x + (1 | g)", data))


@pytest.mark.parametrize("name", ["1", "0", "~", ".", "+", "2.5"])
def test_quoted_columns_are_columns(name):
    data = frame().rename(columns={"x": name})
    fit = lf.lmm(f"y ~ t + `{name}` + (1 | g)", data)
    same(fit, lf.lmm("y ~ t + x + (1 | g)", frame()))
    assert fit.params.index[0] == "Intercept"


def double(values):
    return 2 * values


def test_functions_of_the_users_own():
    data = frame()
    fit = lf.lmm("y ~ double(x) + I(t / k) + (1 | g)", data, context={"double": double, "k": 4})
    made = data.assign(x2=2 * data["x"], t4=data["t"] / 4)
    same(fit, lf.lmm("y ~ x2 + t4 + (1 | g)", made))
    again = pickle.loads(pickle.dumps(fit))
    with pytest.warns(NewDataWarning, match="double"):  # nobody knows whether it goes row by row
        predicted = again.predict(data.iloc[:5])
    with pytest.warns(NewDataWarning, match="double"):
        np.testing.assert_array_equal(predicted, fit.predict(data.iloc[:5]))
    fits = lf.lmm_by("y ~ double(x) + (1 | g)", data, by="arm", context={"double": double})
    one = lf.lmm("y ~ double(x) + (1 | g)", data[data.arm == "a"], context={"double": double})
    np.testing.assert_allclose(fits.params.loc["a"], one.params, rtol=1e-8)
    with pytest.raises(FormulaError, match="context= maps names"):
        lf.lmm("y ~ t + (1 | g)", data, context=double)
