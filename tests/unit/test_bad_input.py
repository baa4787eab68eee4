"""Bad input: a specific error, or a documented treatment, that names what is at fault."""

import warnings

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.errors import (
    ConvergenceWarning,
    DataError,
    FormulaError,
    NewGroupsWarning,
    NotIdentifiableError,
    RankWarning,
    UnsupportedModelError,
)

N_GROUPS, N_I = 10, 4
N = N_GROUPS * N_I
RNG = np.random.default_rng(0)
GROUPS = np.repeat(np.arange(N_GROUPS), N_I)
X1 = RNG.standard_normal(N)
ONES = np.ones(N)
X = np.column_stack([ONES, X1])
Y = 1 + X1 + RNG.standard_normal(N_GROUPS)[GROUPS] + RNG.standard_normal(N)
FRAME = pd.DataFrame(
    {"y": Y, "x": X1, "z": X1, "w": ONES, "s": np.where(np.arange(N) % 2 == 0, "a", "b")}
).assign(g=GROUPS)
FORMULA = "y ~ x + (1 | g)"


def put(column, row, value):
    out = np.array(column, dtype=float)
    out[row] = value
    return out


# -- values that are no numbers --------------------------------------------------------------------

# (column named in the message, how it gets into each route)
HOLES = {
    "y": (lambda v: lf.fit(put(Y, 7, v), X, GROUPS), "'y'", FORMULA, "y"),
    "X": (
        lambda v: lf.fit(Y, np.column_stack([ONES, put(X1, 7, v)]), GROUPS),
        "'x1'",
        FORMULA,
        "x",
    ),
    "Z": (
        lambda v: lf.fit(Y, X, GROUPS, np.column_stack([ONES, put(X1, 7, v)])),
        "'z1'",
        "y ~ x + (z | g)",
        "z",
    ),
    "weights": (lambda v: lf.fit(Y, X, GROUPS, weights=put(ONES, 7, v)), "'weights'", FORMULA, "w"),
    "offset": (lambda v: lf.fit(Y, X, GROUPS, offset=put(ONES, 7, v)), "'offset'", FORMULA, "w"),
    "groups": (lambda v: lf.fit(Y, X, put(GROUPS, 7, v)), "'group'", FORMULA, "g"),
}


def fit_frame(what, formula, data, **settings):
    extra = {what: "w"} if what in ("weights", "offset") else {}
    return lf.lmm(formula, data, **extra, **settings)


@pytest.mark.parametrize("what", HOLES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("engine", ["moments", "reference"])
def test_not_finite_in_arrays(what, value, engine):
    fit, name, _, _ = HOLES[what]
    with pytest.raises(DataError, match=name) as error:
        fit(value)
    if not (what == "groups" and np.isnan(value)):
        assert "row 7" in str(error.value)


@pytest.mark.parametrize("what", HOLES)
def test_infinite_in_a_frame(what):
    _, _, formula, column = HOLES[what]
    for missing in ("drop", "raise"):
        with pytest.raises(DataError, match=rf"'{column}'.*row 7"):
            fit_frame(
                what,
                formula,
                FRAME.assign(**{column: put(FRAME[column], 7, np.inf)}),
                missing=missing,
            )


@pytest.mark.parametrize("what", HOLES)
def test_missing_in_a_frame(what):
    """Dropped with the count reported, or refused by name."""
    _, _, formula, column = HOLES[what]
    data = FRAME.assign(**{column: put(FRAME[column], 7, np.nan)})
    fit = fit_frame(what, formula, data)
    assert (fit.n_dropped, fit.nobs) == (1, N - 1)
    assert fit.llf == pytest.approx(fit_frame(what, formula, FRAME.drop(index=7)).llf, rel=1e-12)
    with pytest.raises(DataError, match=f"'{column}'"):
        fit_frame(what, formula, data, missing="raise")


def test_missing_in_arrays_can_be_dropped():
    fit = lf.fit(put(Y, 7, np.nan), X, GROUPS, missing="drop")
    rest = np.arange(N) != 7
    assert fit.n_dropped == 1
    assert fit.llf == pytest.approx(lf.fit(Y[rest], X[rest], GROUPS[rest]).llf, rel=1e-12)


def test_nan_made_by_the_formula():
    with pytest.raises(DataError, match=r"log\(x\)"), np.errstate(invalid="ignore"):
        lf.lmm("y ~ log(x) + (1 | g)", FRAME)


@pytest.mark.parametrize("weight", [0.0, -1.0, -0.0])
def test_weights_must_be_positive(weight):
    with pytest.raises(DataError, match=r"'weights'.*row 3"):
        lf.fit(Y, X, GROUPS, weights=put(ONES, 3, weight))
    with pytest.raises(DataError, match=r"'w'.*row 3"):
        lf.lmm(FORMULA, FRAME.assign(w=put(ONES, 3, weight)), weights="w")


# -- the shape of the data -------------------------------------------------------------------------


def test_empty_data():
    with pytest.raises(DataError, match="no rows"):
        lf.fit(Y[:0], X[:0], GROUPS[:0])
    with pytest.raises(DataError, match="no rows"):
        lf.lmm(FORMULA, FRAME.iloc[:0])


def test_all_rows_dropped():
    with pytest.raises(DataError, match=r"all 40 rows.*'y'"):
        lf.fit(np.full(N, np.nan), X, GROUPS, missing="drop")
    with pytest.raises(DataError, match=r"all 40 rows.*'x'"):
        lf.lmm(FORMULA, FRAME.assign(x=np.nan))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: lf.fit(Y, X[1:], GROUPS), "'x0'"),
        (lambda: lf.fit(Y, X, GROUPS[1:]), "'group'"),
        (lambda: lf.fit(Y, X, GROUPS, X[1:]), "'z0'"),
        (lambda: lf.fit(Y, X, GROUPS, weights=ONES[1:]), "'weights'"),
        (lambda: lf.fit(Y, X, GROUPS, offset=ONES[1:]), "'offset'"),
        (lambda: lf.lmm(FORMULA, {"y": Y, "x": X1[1:], "g": GROUPS}), "'x'"),
        (lambda: lf.lmm(FORMULA, FRAME, weights=ONES[1:]), "'weights'"),
        (lambda: lf.lmm(FORMULA, FRAME, offset=ONES[1:]), "'offset'"),
    ],
)
def test_lengths_that_differ(call, name):
    with pytest.raises(DataError, match=rf"{name}.*39"):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: lf.fit(Y, X[None], GROUPS), "X must have two dimensions"),
        (lambda: lf.fit(X, X, GROUPS), "'y' must have one dimension"),
        (lambda: lf.lmm(FORMULA, X), "not a table"),
        (lambda: lf.lmm(FORMULA, None), "not a table"),
    ],
)
def test_wrong_shapes(call, words):
    with pytest.raises(DataError, match=words):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda d, e: lf.fit(d["y"], e[["x"]], GROUPS),
        lambda d, e: lf.fit(d["y"], X, e["g"]),
        lambda d, e: lf.fit(Y, d[["x"]], GROUPS, e[["z"]]),
        lambda d, e: lf.fit(d["y"], X, GROUPS, weights=e["w"]),
        lambda d, e: lf.lmm(FORMULA, d, offset=e["w"]),
        lambda d, e: lf.lmm(FORMULA, {"y": d["y"], "x": d["x"], "g": e["g"]}),
        lambda d, e: lf.fit(Y, d[["x"]], GROUPS).predict(d[["x"]], "conditional", groups=e["g"]),
    ],
)
def test_indexes_that_differ(call):
    """Rows are paired by position: a shuffled series must not go unnoticed."""
    call(FRAME, FRAME)
    with pytest.raises(DataError, match=r"paired by position.*\.to_numpy\(\)"):
        call(FRAME, FRAME.sample(frac=1, random_state=0))


def test_one_column_frames():
    want = lf.fit(Y, X, GROUPS)
    got = lf.fit(FRAME[["y"]], X, FRAME[["g"]])
    assert got.llf == want.llf
    assert lf.fit(pd.DataFrame(Y), X, GROUPS[:, None]).llf == want.llf
    with pytest.raises(DataError, match="'y' is a table of 2 columns"):
        lf.fit(FRAME[["y", "x"]], X, GROUPS)
    assert lf.fit(pd.array(Y), X, GROUPS).llf == want.llf


def test_names_of_several_levels():
    with pytest.raises(DataError, match=r"\('a', 'y'\), \('a', 'x'\)"):
        lf.lmm(FORMULA, pd.concat({"a": FRAME}, axis=1))


def test_unknown_columns():
    for formula in ("y ~ nope + (1 | g)", "y ~ x + (nope | g)", "y ~ x + (1 | nope)"):
        with pytest.raises(FormulaError, match="'nope'"):
            lf.lmm(formula, FRAME)
    for role in ("weights", "offset"):
        with pytest.raises(DataError, match=f"{role}='nope'"):
            lf.lmm(FORMULA, FRAME, **{role: "nope"})


def test_duplicate_names():
    with pytest.raises(DataError, match="'a'"):
        lf.fit(Y, X, GROUPS, x_names=["a", "a"])
    with pytest.raises(DataError, match="'a'"):
        lf.fit(Y, X, GROUPS, X, z_names=["a", "a"])
    with pytest.raises(DataError, match="'a'"):
        lf.fit(Y, pd.DataFrame(X, columns=["a", "a"]), GROUPS)
    with pytest.raises(DataError, match="'x'"):
        lf.lmm(FORMULA, pd.concat([FRAME, FRAME[["x"]]], axis=1))
    with pytest.raises(DataError, match="2 columns, but 1 names"):
        lf.fit(Y, X, GROUPS, x_names=["a"])


def test_object_columns():
    """Numbers in an object column are numbers; text and mixtures are refused by name."""
    want = lf.fit(Y, X, GROUPS).llf
    assert lf.fit(Y.astype(object), X.astype(object), GROUPS).llf == want
    assert lf.lmm(FORMULA, FRAME.astype({"x": object})).llf == pytest.approx(want, rel=1e-12)
    with pytest.raises(DataError, match="'y' is text"):
        lf.lmm(FORMULA, FRAME.assign(y="a"))
    with pytest.raises(DataError, match=r"'x' mixes types.*row 1"):
        lf.lmm(FORMULA, FRAME.assign(x=[1, "a"] * (N // 2)))
    with pytest.raises(DataError, match="'x0' is text"):
        lf.fit(Y, np.array([["a", "b"]] * N), GROUPS)
    with pytest.raises(DataError, match=r"'x0'.*complex"):
        lf.fit(Y, X.astype(complex), GROUPS)


def test_categories_without_rows():
    """Of the grouping factor and of a fixed factor: as if they were not there."""
    groups = pd.Categorical(GROUPS, categories=range(100))
    fit = lf.fit(Y, X, groups)
    assert fit.ngroups == len(fit.random_effects) == N_GROUPS
    assert fit.llf == lf.fit(Y, X, GROUPS).llf
    s = pd.Categorical(FRAME["s"], categories=["never", "a", "b"])
    fit = lf.lmm("y ~ s + (1 | g)", FRAME.assign(g=groups, s=s))
    assert fit.ngroups == N_GROUPS
    assert list(fit.params.index) == ["Intercept", "s[T.b]"]


# -- models that the data cannot tell apart --------------------------------------------------------


def test_single_group():
    with pytest.raises(NotIdentifiableError, match=r"'group' has a single group \(5\)"):
        lf.fit(Y, X, np.full(N, 5))
    with pytest.raises(NotIdentifiableError, match=r"'g' has a single group \(A\)"):
        lf.lmm(FORMULA, FRAME.assign(g="A"))


@pytest.mark.parametrize("reml", [True, False])
def test_every_group_its_own_row(reml):
    """An intercept's variance is not identifiable, nor that of a slope, with iid residuals."""
    rows = np.arange(N)
    for Z in (None, X):
        with pytest.raises(NotIdentifiableError, match=r"'group' \(40 groups, 40 rows\)"):
            lf.fit(Y, X, rows, Z, reml=reml)
    for formula in (FORMULA, "y ~ x + (x | g)"):
        with pytest.raises(NotIdentifiableError, match="'g'"):
            lf.lmm(formula, FRAME.assign(g=rows), reml=reml)


@pytest.mark.parametrize("reml", [True, False])
def test_confounded_random_effects(reml):
    with pytest.raises(NotIdentifiableError, match=r"var\(z1\|group\).*var\(z2\|group\)"):
        lf.fit(Y, X, GROUPS, np.column_stack([ONES, X1, X1]), reml=reml)
    with pytest.raises(
        NotIdentifiableError, match=r"the effects z1\|group: their columns of Z are"
    ):
        lf.fit(Y, X, GROUPS, np.column_stack([ONES, 0 * X1]), reml=reml, rank_deficient="raise")
    with pytest.raises(FormulaError, match="the two intercept variances cannot be told apart"):
        lf.lmm("y ~ x + (1 | g) + (1 | g)", FRAME, reml=reml)
    with pytest.raises(NotIdentifiableError, match=r"var\(x\|g\), var\(z\|g\)"):
        lf.lmm("y ~ x + (0 + x | g) + (0 + z | g)", FRAME, reml=reml)
    # Two rows per group at the same two times: four moments of a pair, four parameters but three
    # functions of them.
    time = np.tile([0.0, 1.0], N // 2)
    with pytest.raises(NotIdentifiableError, match="apart"):
        lf.fit(Y, X, np.arange(N) // 2, np.column_stack([ONES, time]), reml=reml)


def test_constant_and_exact_responses():
    for y in (np.zeros(N), np.full(N, 3.0), np.full(N, 1e8), 1 + 2 * X1, 1e6 + 0.1 * X1):
        with pytest.raises(DataError, match="'y' is constant or fitted exactly"):
            lf.fit(y, X, GROUPS)
        with pytest.raises(DataError, match="'y' is constant or fitted exactly"):
            lf.lmm(FORMULA, FRAME.assign(y=y))
    exact = X1 + RNG.standard_normal(N_GROUPS)[GROUPS]
    with pytest.raises(NotIdentifiableError, match="fit 'y' exactly"):
        lf.fit(exact, X, GROUPS)


def test_more_columns_than_rows():
    for p in (N, N + 3):
        with pytest.raises(DataError, match=f"{p} columns but only 40 rows"):
            lf.fit(Y, RNG.standard_normal((N, p)), GROUPS)
    with pytest.raises(DataError, match="40 columns but only 40 rows"):
        lf.lmm("y ~ C(i) + (1 | g)", FRAME.assign(i=np.arange(N)))


def test_rank_deficient_X():
    """Columns that earlier ones determine are dropped and named, or refused.

    Y far from zero: the working residual is about all columns, those dropped later included.
    """
    y = 1e3 + 50 * Y
    want = lf.fit(y, X, GROUPS)
    twice = np.column_stack([X, 2 * X1 + 1, 0 * X1])
    with pytest.warns(RankWarning, match="x2, x3"):
        fit = lf.fit(y, twice, GROUPS)
    assert fit.dropped_columns == ["x2", "x3"]
    assert list(fit.params.index) == ["x0", "x1"]
    np.testing.assert_allclose(fit.params, want.params, rtol=1e-8)
    np.testing.assert_allclose(fit.fittedvalues, want.fittedvalues, rtol=1e-8)
    np.testing.assert_allclose(fit.random_effects, want.random_effects, rtol=1e-7, atol=1e-8)
    assert fit.llf == pytest.approx(want.llf, rel=1e-12)
    with pytest.raises(DataError, match="x2, x3"):
        lf.fit(Y, twice, GROUPS, rank_deficient="raise")
    with pytest.warns(RankWarning, match=r"I\(2 \* x\)"):
        lf.lmm("y ~ x + I(2 * x) + (1 | g)", FRAME)
    with pytest.raises(DataError, match=r"I\(2 \* x\)"):
        lf.lmm("y ~ x + I(2 * x) + (1 | g)", FRAME, rank_deficient="raise")


def test_models_that_are_not_there_yet():
    with pytest.raises(FormulaError, match="no random-effects term"):
        lf.lmm("y ~ x", FRAME)
    with pytest.raises(UnsupportedModelError, match="11 random effects"):
        lf.fit(Y, X, GROUPS, RNG.standard_normal((N, 11)))
    with pytest.raises(UnsupportedModelError, match="'Intercept'"):
        lf.fit(Y, X, GROUPS, D=lf.D.cs())


def test_extreme_scales_are_refused_not_garbled():
    """1e±150 is fitted (tests/property/test_invariance.py); beyond, squares leave the range."""
    for c in (1e-200, 1e200):
        with pytest.raises(DataError, match=r"'y'.*range of double precision"):
            lf.fit(c * Y, X, GROUPS)
        with pytest.raises(DataError, match=r"'y'.*range of double precision"):
            lf.lmm(FORMULA, FRAME.assign(y=c * Y))
        with pytest.raises(DataError, match="range of double precision"):
            lf.fit(Y, X, GROUPS, c * X)


# -- prediction ------------------------------------------------------------------------------------


def test_prediction_of_the_unseen():
    fit = lf.lmm("y ~ s + x + (1 | g)", FRAME)
    with pytest.raises(DataError, match=r"'s'.*'c'"):
        fit.predict(FRAME.assign(s="c"))
    with pytest.raises(DataError, match="'x'"):
        fit.predict(FRAME.drop(columns="x"))
    strangers = FRAME.assign(g=np.where(GROUPS < 2, 99 + GROUPS, GROUPS))
    with pytest.raises(DataError, match=r"8 of 40 rows.*'g'"):
        fit.predict(strangers, level="conditional", new_levels="error")
    with pytest.warns(NewGroupsWarning, match="8 of 40 rows"):
        got = fit.predict(strangers, level="conditional")
    population = fit.predict(FRAME, level="population")
    conditional = fit.predict(FRAME, level="conditional")
    np.testing.assert_array_equal(got[:8], population[:8])
    np.testing.assert_array_equal(got[8:], conditional[8:])


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_jobs", [0, -2, 1.5, "2"])
def test_n_jobs(n_jobs):
    with pytest.raises(DataError, match="n_jobs"):
        lf.fit(Y, X, GROUPS, n_jobs=n_jobs)


@pytest.mark.parametrize(
    "settings",
    [
        {"engine": "fast"},
        {"rank_deficient": "ignore"},
        {"missing": "ignore"},
        {"max_iter": 0},
    ],
)
def test_settings_outside_their_range(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=rf"{name}={value!r}"):
        lf.fit(Y, X, GROUPS, **settings)
    with pytest.raises(ValueError, match=rf"{name}={value!r}"):
        lf.lmm(FORMULA, FRAME, **settings)


def test_max_iter():
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        fit = lf.fit(Y, X, GROUPS, max_iter=1)
    assert not fit.converged
    assert len(fit.trace) == 1
    assert np.isfinite(fit.llf)


def test_callback():
    entries = []
    fit = lf.fit(Y, X, GROUPS, callback=entries.append)
    assert [e["evaluation"] for e in entries] == list(range(len(fit.trace)))

    def stop(entry):
        if entry["evaluation"] == 2:
            raise StopIteration

    with pytest.warns(ConvergenceWarning, match="stopped by the callback"):
        stopped = lf.fit(Y, X, GROUPS, callback=stop)
    assert not stopped.converged
    assert len(stopped.trace) == 3
    assert stopped.llf <= fit.llf

    def fail(entry):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        lf.fit(Y, X, GROUPS, callback=fail)


def test_start():
    fit = lf.fit(Y, X, GROUPS, X)
    for start in (fit, fit.theta, np.asarray(fit.theta)):
        again = lf.fit(Y, X, GROUPS, X, start=start)
        assert again.llf == pytest.approx(fit.llf, rel=1e-12)
        assert [entry["step"] for entry in again.trace[:2]] == ["check", "start"]
        assert again.trace[1]["llf"] == pytest.approx(fit.trace[-1]["llf"], abs=1e-6)
    for start in ([0.0, 1.0], [100.0, 1e-3], [1e-6, 1e3]):  # anywhere leads to the same maximum
        assert lf.fit(Y, X, GROUPS, start=start).llf == pytest.approx(
            lf.fit(Y, X, GROUPS).llf, rel=1e-12
        )
    for start in ([1.0], [np.nan, 1.0], fit):
        with pytest.raises(ValueError, match="2 finite numbers"):
            lf.fit(Y, X, GROUPS, start=start)
    with pytest.raises(ValueError, match="residual variance"):
        lf.fit(Y, X, GROUPS, start=[1.0, -1.0])


def test_no_warning_without_a_reason():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = lf.lmm("y ~ x + (x | g)", FRAME)
        fit.summary()
        _ = fit.theta_cov, fit.random_effects, fit.random_effects_cov, fit.fittedvalues
    assert caught == []
