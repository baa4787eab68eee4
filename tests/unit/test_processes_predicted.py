"""Conditional values with a process in them, and errors of new rows: beside dense algebra."""

import functools
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))

from residual_samples import STRUCTURES, longitudinal

DATA = longitudinal(m=60)
VISITS = ("V0", "V1", "V2", "V3")
PROCESSES = [name for name, make in STRUCTURES.items() if "nugget" in repr(make())]
ERRORS = [
    name
    for name, make in STRUCTURES.items()
    if make().correlation is not None and name not in (*PROCESSES, "CompoundSymmetry")
]


@functools.cache
def fitted(name, random=""):
    groups = None if random else "id"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # boundaries: the algebra is the same there
        return lf.lmm(f"y ~ t{random}", DATA, groups=groups, residual=STRUCTURES[name]())


def new_rows(old, of_visits):
    """Rows of a subject that the data do not have."""
    if of_visits:
        visits = sorted(set(VISITS) - set(old["visit"]))
    else:
        visits = list(VISITS)
    new = old.iloc[[0] * len(visits)].reset_index(drop=True).assign(visit=visits)
    new["t"] = np.linspace(-0.3, 5.1, len(visits))
    return new.assign(x1=new["x1"] + 0.1 * new.index, x2=1.1 * new["x2"])


def dense(fit, old, new):
    """X beta + c'V^-1 (y - X beta) of new rows, with V of old and new rows together."""
    V = fit.implied_covariance(old["id"].iloc[0], at=pd.concat([old, new])).to_numpy()
    n, (b0, b1) = len(old), fit.params
    r = (old["y"] - b0 - b1 * old["t"]).to_numpy()
    return b0 + b1 * new["t"] + V[n:, :n] @ np.linalg.solve(V[:n, :n], r)


CASES = [(name, "") for name in (*PROCESSES, *ERRORS)]
CASES += [(name, " + (1 | id)") for name in ("OU nugget", "SpatialGaussian", "AR1")]


@pytest.mark.parametrize(("name", "random"), CASES)
def test_new_rows_of_known_groups(name, random):
    fit = fitted(name, random)
    mode = "process" if name in PROCESSES else "errors"
    of_visits = fit.residual.correlation.role in ("levels", "positions")
    parts = [DATA[DATA["id"] == label] for label in fit.group_labels]
    news = [new_rows(old, of_visits) for old in parts]
    want = pd.concat(
        [dense(fit, old, new) for old, new in zip(parts, news, strict=True) if len(new)]
    )
    got = fit.predict(pd.concat(news), "conditional", residual=mode)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", PROCESSES)
def test_fitted_values_are_predictions_of_the_rows(name):
    fit = fitted(name)
    np.testing.assert_allclose(fit.fitted(), fit.predict(DATA, "conditional"), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(fit.predict(level="conditional"), fit.fittedvalues)
    np.testing.assert_allclose(fit.resid, DATA["y"] - fit.fitted(), atol=1e-12)
    plain = fit.predict(DATA, "conditional", residual="none")
    np.testing.assert_array_equal(fit.predict(level="conditional", residual="none"), plain)
    np.testing.assert_allclose(plain, fit.fitted("population"), atol=1e-12)
    assert abs(fit.fitted() - plain).max() > 0.01


def test_conditional_parts_are_v_less_error_times_v_inverse_r():
    """(V - error variances) V^-1 r with weights; pearson residuals are over these variances."""
    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(0, 9, (80, 6)))
    walk = np.linalg.cholesky(0.7 ** abs(t[:, :, None] - t[:, None])) @ rng.normal(size=(80, 6, 1))
    y = rng.normal(size=(80, 1)) + 2 * walk[..., 0] + 0.8 * rng.normal(size=(80, 6))
    data = pd.DataFrame({"y": y.ravel(), "t": t.ravel(), "w": rng.uniform(0.5, 2, 480)})
    data = data.assign(id=np.repeat(np.arange(80), 6)).sample(frac=1, random_state=0)
    data = data.reset_index(drop=True)
    fit = lf.lmm(
        "y ~ t + (1 | id)", data, residual=lf.OU("t", nugget=True), weights="w", reml=False
    )
    assert not fit.certificate.on_boundary and fit.theta.min() > 0.1
    process, rho, error = (fit.theta[k] for k in ("var(OU|t)", "rho(t)", "var(Residual)"))
    got, pearson = pd.Series(fit.fitted()), pd.Series(fit.residuals("pearson"))
    for _, own in data.groupby("id"):
        t, root = own["t"].to_numpy(), 1 / np.sqrt(own["w"].to_numpy())
        K = process * rho ** abs(t[:, None] - t) * root[:, None] * root + fit.cov_re.iloc[0, 0]
        V = K + error * np.diag(root**2)
        mean = fit.params["Intercept"] + fit.params["t"] * t
        e = own["y"] - mean - K @ np.linalg.solve(V, own["y"] - mean)
        np.testing.assert_allclose(own["y"] - got[own.index], e, rtol=0, atol=1e-10)
        np.testing.assert_allclose(pearson[own.index], e / np.sqrt(error) / root, atol=1e-10)
    again = fit.predict(data, "conditional")
    np.testing.assert_allclose(again, fit.fitted(), atol=1e-12)
    one = fit.predict(data[:9].drop(columns="w"), "conditional", weights=data["w"][:9])
    np.testing.assert_array_equal(one, again[:9])
    unweighted = fit.predict(data[:9].drop(columns="w"), "conditional")
    assert abs(unweighted - again[:9]).max() > 1e-4
    with pytest.raises(lf.DataError, match="weights must be positive: row 2"):
        fit.predict(data[:3].assign(w=[1.0, 2.0, 0.0]), "conditional")


def test_compound_symmetry_expects_the_same_error_of_every_new_row():
    fit = lf.lmm("y ~ t", DATA, groups="id", residual=lf.CompoundSymmetry())
    rho = fit.theta["cor(Residual)"]
    for label in fit.group_labels[:5]:
        own = DATA[DATA["id"] == label]
        r = (own["y"] - fit.params["Intercept"] - fit.params["t"] * own["t"]).to_numpy()
        C = np.full((len(r),) * 2, rho) + (1 - rho) * np.eye(len(r))
        new = own.assign(t=9.0)
        got = fit.predict(new, "conditional", residual="errors") - fit.predict(new)
        np.testing.assert_allclose(got, rho * np.linalg.solve(C, r).sum(), atol=1e-10)


def test_errors_of_observed_visits_are_what_was_observed():
    fit = fitted("HeterogeneousAR1")
    got = fit.predict(DATA, "conditional", residual="errors")
    np.testing.assert_allclose(got, DATA["y"], atol=1e-10)
    with pytest.raises(ValueError, match="for new rows"):
        fit.predict(level="conditional", residual="errors")


def test_long_groups_and_tied_times_take_time_in_proportion_to_the_rows():
    rng = np.random.default_rng(0)
    t = np.round(np.sort(rng.uniform(0, 30, (3, 400))), 2)  # some of them twice
    y = np.sin(t) + 0.3 * rng.normal(size=t.shape)
    d = pd.DataFrame({"y": y.ravel(), "t": t.ravel(), "id": np.repeat(["a", "b", "c"], 400)})
    d = d.sample(frac=1, random_state=0)
    fit = lf.lmm("y ~ 1", d, groups="id", residual=lf.OU("t", nugget=True))
    assert fit.engine == "markov"
    process, rho, error = fit.theta
    new = pd.DataFrame({"t": np.linspace(-1, 31, 50), "id": "b"})
    own = d[d["id"] == "b"]
    times = own["t"].to_numpy()
    V = process * rho ** abs(times[:, None] - times) + error * np.eye(400)
    w = np.linalg.solve(V, own["y"] - fit.params["Intercept"])
    c = process * rho ** abs(new["t"].to_numpy()[:, None] - times)
    want = fit.params["Intercept"] + c @ w
    np.testing.assert_allclose(fit.predict(new, "conditional"), want, atol=1e-9)


def test_nested_factors():
    """The process is that of the innermost units; an outer level is without it."""
    rng = np.random.default_rng(1)
    d = pd.DataFrame(
        [
            (s, f"{s}{k}", t + rng.uniform(0, 0.4))
            for s in "pqrs"
            for k in range(6)
            for t in range(5)
        ],
        columns=["site", "unit", "t"],
    )
    d["y"] = rng.normal(size=4)[d["site"].factorize()[0]] + rng.normal(size=len(d))
    d["y"] += rng.normal(size=24)[d["unit"].factorize()[0]]
    d = d.sample(frac=1, random_state=3, ignore_index=True)
    model = "y ~ t + (1 | site) + (1 | unit)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = lf.lmm(model, d, residual=lf.OU("t", nugget=True))
    assert fit.engine == "nested"
    process, rho, error = fit.theta[["var(OU|t)", "rho(t)", "var(Residual)"]]
    V, t = np.zeros((len(d),) * 2), d["t"].to_numpy()
    for name in ("site", "unit"):
        V += np.where(d[name].to_numpy()[:, None] == d[name].to_numpy(), fit.varcorr[name].cov, 0.0)
    unit = d["unit"].to_numpy()
    V += np.where(unit[:, None] == unit, process * rho ** abs(t[:, None] - t), 0.0)
    r = (d["y"] - fit.fitted("population")).to_numpy()
    want = fit.fitted("population") + V @ np.linalg.solve(V + error * np.eye(len(d)), r)
    np.testing.assert_allclose(fit.fitted(), want, atol=1e-9)
    np.testing.assert_allclose(fit.predict(d, "conditional"), want, atol=1e-9)
    np.testing.assert_array_equal(fit.predict(d, "unit"), fit.predict(d, "conditional"))
    site = fit.params["Intercept"] + fit.params["t"] * d["t"]
    site += fit.random_effects["site"].loc[d["site"], "Intercept"].to_numpy()
    np.testing.assert_allclose(fit.fitted("site"), site, atol=1e-12)
    strangers = d[:2].assign(unit="new")
    with pytest.warns(lf.NewGroupsWarning):
        np.testing.assert_allclose(fit.predict(strangers, "conditional"), site[:2], atol=1e-12)


def test_dates_arrays_and_missing_values():
    days = pd.to_timedelta(DATA["t"], unit="D")
    fit, frame = fitted("OU nugget"), DATA.assign(t0=DATA["t"])
    for times in (pd.Timestamp("2020-02-01") + days, days):
        dated = frame.assign(t=times)
        other = lf.lmm("y ~ t0", dated, groups="id", residual=lf.OU("t", nugget=True))
        want = fit.predict(DATA, "conditional")
        np.testing.assert_allclose(other.predict(dated[5:9], "conditional"), want[5:9], atol=1e-5)
        with pytest.raises(lf.DataError, match=r"'t' has (dates|numbers) in the fit"):
            other.predict(dated.assign(t="soon"), "conditional")
    X = np.column_stack([np.ones(len(DATA)), DATA["t"]])
    arrays = lf.fit(DATA["y"], X, DATA["id"], residual=lf.OU(DATA["t"].to_numpy(), nugget=True))
    groups = DATA["id"]
    got = arrays.predict(X, "conditional", groups=groups, at={"time": DATA["t"]})
    np.testing.assert_allclose(got, want, atol=1e-5)
    with pytest.raises(lf.DataError, match=r"needs 'time' of the new rows.*at=\{'time'"):
        arrays.predict(X, "conditional", groups=groups)
    holes = DATA[:4].assign(t=[1.0, None, 2.0, 3.0])
    assert np.isnan(fit.predict(holes, "conditional")).tolist() == [False, True, False, False]
    level = fitted("HeterogeneousAR1")
    with pytest.raises(lf.DataError, match="'visit' has no level 'V9' in the fit"):
        level.predict(DATA[:2].assign(visit="V9"), "conditional", residual="errors")


def test_new_groups_have_the_population_value():
    fit = fitted("OU nugget")
    strangers = DATA[:3].assign(id=["new", DATA["id"][1], None])
    with pytest.warns(lf.NewGroupsWarning, match="1 of 3 rows"):
        got = fit.predict(strangers, "conditional")
    assert got[0] == fit.predict(strangers)[0]
    assert got[1] == pytest.approx(fit.fitted()[1], abs=1e-12)
    assert np.isnan(got[2])


@pytest.mark.parametrize("strip", ["remove_data", "save"])
def test_what_takes_rows_is_refused_without_them(strip, tmp_path):
    fit = fitted("OU nugget", " + (1 | id)")
    if strip == "save":
        fit.save(tmp_path / "m.lmm")
        bare = lf.load(tmp_path / "m.lmm")
    else:
        bare = fit.remove_data()
    with pytest.raises(lf.DataError, match=r"process of OU\('t', nugget=True\).*residual='none'"):
        bare.predict(DATA, "conditional")
    np.testing.assert_array_equal(
        bare.predict(DATA, "conditional", residual="none"),
        fit.predict(DATA, "conditional", residual="none"),
    )
    np.testing.assert_array_equal(bare.predict(DATA), fit.predict(DATA))


def test_scorers_and_graphs_refuse_a_process(tmp_path):
    fit = fitted("OU nugget", " + (1 | id)")
    with pytest.raises(lf.UnsupportedModelError, match=r"a scorer holds no rows.*residual='none'"):
        fit.scorer()
    with pytest.raises(lf.UnsupportedModelError, match="an ONNX graph holds no rows"):
        fit.to_onnx(tmp_path / "m.onnx")
    plain = fit.scorer(residual="none")(DATA)
    np.testing.assert_array_equal(plain, fit.predict(DATA, "conditional", residual="none"))
    assert fit.scorer("population")(DATA)[0] == fit.predict(DATA)[0]
    with pytest.raises(ValueError, match="residual='errors': choose one of 'process', 'none'"):
        fit.scorer(residual="errors")


@pytest.mark.parametrize(
    ("name", "why"), [("OU nugget", "has a nugget"), ("ByGroup", "has no corr")]
)
def test_errors_that_nothing_is_known_of_are_refused(name, why):
    with pytest.raises(lf.UnsupportedModelError, match=why):
        fitted(name).predict(DATA, "conditional", residual="errors")
    with pytest.raises(ValueError, match="choose one of 'process', 'errors', 'none'"):
        fitted(name).predict(DATA, residual="some")
