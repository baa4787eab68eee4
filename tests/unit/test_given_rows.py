"""`predict(new, given=rows)`: groups that a fit does not have, from rows of theirs."""

import functools
import pickle

import numpy as np
import pandas as pd
import pytest
from test_prediction_errors import DATA, MODELS, NEW, fitted

import lmmfast as lf
from lmmfast.inference.denominators import inverse_of_information

#: Rows of subjects that the fits do not have, and what is predicted of them.
HISTORY = DATA[DATA["id"].isin(["s03", "s17", "s44", "s71"])].assign(
    id=lambda d: d["id"].str.replace("s", "n"), y=lambda d: d["y"][::-1].to_numpy() + 1
)
WANTED = HISTORY[::3].assign(t=lambda d: d["t"] + 0.5, visit=lambda d: (d["visit"] + 3) % 8)
WANTED = WANTED.assign(v=WANTED["v"][::-1].to_numpy(), w=1.3 * WANTED["w"])
ONE_FACTOR = [name for name in MODELS if name != "crossed" and "nested" not in name]
CASES = [(name, "process") for name in ONE_FACTOR] + [("AR1", "errors"), ("OU * VarExp", "errors")]


def covariances(name, residual, observation, t):
    """V of the fit and of the given rows, c of signals and targets with these, and variances."""
    _, effects, correlated, errors = MODELS[name]
    V, Vh, c = effects(t, DATA, DATA), effects(t, HISTORY, HISTORY), effects(t, WANTED, HISTORY)
    v, more, own = np.diag(effects(t, WANTED, WANTED)), np.zeros_like(c), np.zeros(len(WANTED))
    if correlated is not None:
        V, Vh = V + correlated(t, DATA, DATA), Vh + correlated(t, HISTORY, HISTORY)
        more, own = correlated(t, WANTED, HISTORY), np.diag(correlated(t, WANTED, WANTED))
    if errors is not None:
        V, Vh = V + np.diag(errors(t, DATA)), Vh + np.diag(errors(t, HISTORY))
    inside = residual == "errors" or (residual == "process" and errors is not None)
    signal = (c + more, v + own) if inside else (c, v)
    new = own if errors is None else own + errors(t, WANTED)
    target = (c + more, v + new) if observation else signal
    return V, Vh, *signal, *target


def columns(d):
    return np.column_stack([np.ones(len(d)), d["t"]])


def weights(name, residual, observation, t):
    """Weights of the rows of the fit and of those given, mean squared errors."""
    V, Vh, c, _, target, v = covariances(name, residual, observation, t)
    X, inverse = columns(DATA), np.linalg.inv(V)
    w = np.linalg.solve(Vh, c.T).T
    a = columns(WANTED) - w @ columns(HISTORY)
    L = a @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
    mse = np.einsum("Ni,ij,Nj->N", L, V, L) + np.einsum("Ni,ij,Nj->N", w, Vh, w)
    return np.column_stack([L, w, mse - 2 * (w * target).sum(axis=1) + v])


@pytest.mark.parametrize("interval", ["confidence", "prediction"])
@pytest.mark.parametrize(("name", "residual"), CASES)
def test_new_groups(name, residual, interval, tmp_path):
    fit = fitted(name)
    observation = interval == "prediction"
    at = functools.partial(weights, name, residual, observation)
    theta = fit.theta.to_numpy()
    L, mse = at(theta)[:, :-1], at(theta)[:, -1]
    n = len(DATA)
    mean = columns(WANTED) @ fit.params
    mean += L[:, n:] @ (HISTORY["y"] - columns(HISTORY) @ fit.params.to_numpy())
    got = fit.predict(WANTED, given=HISTORY, residual=residual, interval=interval)
    np.testing.assert_allclose(got["estimate"], mean, rtol=1e-10)
    np.testing.assert_allclose(got["std_error"], np.sqrt(mse), rtol=1e-10)
    slopes = []
    for k, value in enumerate(theta):
        h = 1e-4 * max(abs(value), 0.05) * np.eye(len(theta))[k]
        one = 8 * (at(theta + h) - at(theta - h))
        slopes.append((one - at(theta + 2 * h) + at(theta - 2 * h)) / (12 * h[k]))
    gradient, dL = np.array(slopes)[..., -1], np.array(slopes)[..., :-1]
    J = fit._theta_jacobian
    W = J @ inverse_of_information(fit._inference_totals.observed) @ J.T
    spread = np.einsum("kN,kl,lN->N", gradient, W, gradient)
    np.testing.assert_allclose(got["df"], 2 * mse**2 / spread, rtol=2e-7)
    plain = fit.predict(WANTED, given=HISTORY, residual=residual)
    np.testing.assert_array_equal(plain, got["estimate"])
    fit.save(tmp_path / "m.lmm")
    again = lf.load(tmp_path / "m.lmm").predict(
        WANTED, given=HISTORY, residual=residual, interval=interval
    )
    pd.testing.assert_frame_equal(again, got)
    if observation and residual == "process" and MODELS[name][3] is None:
        return
    V, Vh = covariances(name, residual, observation, theta)[:2]
    g3 = np.einsum("kl,kNi,ij,lNj->N", W, dL[..., :n], V, dL[..., :n], optimize=True)
    g3 += np.einsum("kl,kNi,ij,lNj->N", W, dL[..., n:], Vh, dL[..., n:], optimize=True)
    more = fit.predict(
        WANTED, given=HISTORY, residual=residual, interval=interval, uncertainty="theta"
    )
    np.testing.assert_allclose(more["std_error"] ** 2, mse + 2 * g3, rtol=1e-8)


@pytest.mark.parametrize("name", ONE_FACTOR)
def test_the_rows_of_a_group_tell_the_same_with_the_fit_and_after_it(name, tmp_path):
    """A saved fit predicts the groups it had with their rows, errors and all."""
    fit = fitted(name)
    fit.save(tmp_path / "m.lmm", effects=False)
    fit.save(tmp_path / "e.lmm")
    for interval in ("confidence", "prediction"):
        want = fit.predict(NEW, "conditional", interval=interval)
        got = lf.load(tmp_path / "e.lmm").predict(NEW, given=DATA, interval=interval)
        np.testing.assert_allclose(got, want, rtol=1e-9)
    # Without labels the rows count as those of others, which tell nothing of beta.
    got = lf.load(tmp_path / "m.lmm").predict(NEW, given=DATA, se=True)
    want = fit.predict(NEW, "conditional", se=True)
    for column in ("estimate", "std_error"):
        np.testing.assert_allclose(got[column], want[column], rtol=1e-9)


def test_other_groups_are_as_without():
    fit = fitted("OU")
    both = pd.concat([NEW[:4], WANTED[:4], NEW[:1].assign(id="nobody")])
    with pytest.warns(lf.NewGroupsWarning, match="1 of 9 rows"):
        got = fit.predict(both, "conditional", given=HISTORY, interval="prediction")
    want = fit.predict(NEW[:4], "conditional", interval="prediction")
    pd.testing.assert_frame_equal(got[:4], want)
    alone = fit.predict(WANTED[:4], given=HISTORY, interval="prediction")
    pd.testing.assert_frame_equal(got[4:8], alone)
    assert got["estimate"].iloc[-1] == fit.predict(NEW[:1]).iloc[0]
    missing = fit.predict(both, given=HISTORY, new_levels="missing")
    assert np.isnan(missing).sum() == 1
    with pytest.raises(lf.DataError, match="1 of 9 rows"):
        fit.predict(both, given=HISTORY, new_levels="error")


def test_no_rows_tell_nothing_and_many_tell_all():
    fit = fitted("ML")
    one = pd.DataFrame({"t": [2.0], "id": ["n"]})
    seen = pd.DataFrame({"t": np.zeros(10_000), "id": "n", "y": fit.params["Intercept"] + 3.0})
    got = fit.predict(one, given=seen, interval="confidence")
    assert got["estimate"].iloc[0] == pytest.approx(fit.predict(one)[0] + 3.0, abs=0.01)
    beta = fit.cov_params().to_numpy()
    want = 4 * beta[1, 1] + fit.scale / 10_000
    assert got["std_error"].iloc[0] ** 2 == pytest.approx(want, rel=0.001)


def test_offsets_transformed_responses_and_missing_values():
    d = DATA.assign(z=np.exp(DATA["y"] / 4), o=0.1 * DATA["v"])
    fit = lf.lmm("log(z) ~ t + (1 | id)", d, offset="o")
    history = d[d["id"] == "s05"].assign(id="n")
    new = history.assign(z=np.nan)
    got = fit.predict(new, given=history)
    np.testing.assert_allclose(got, fit.predict(new.assign(id="s05"), "conditional"), rtol=1e-9)
    holes = pd.concat([history, history.assign(t=np.nan), history.assign(z=np.nan)])
    np.testing.assert_array_equal(fit.predict(new, given=holes), got)
    with pytest.raises(lf.DataError, match="no row without a missing value"):
        fit.predict(new, given=history.assign(z=np.nan))
    with pytest.raises(lf.DataError, match=r"row 2 .* not finite"):
        fit.predict(new, given=history.assign(z=[1.0, 2.0, np.inf] + [1.0] * (len(history) - 3)))
    with pytest.raises(lf.DataError, match="no column 'z'"):
        fit.predict(new, given=history.drop(columns="z"))


def test_arrays():
    fit = lf.lmm("y ~ t + (t | id)", DATA, weights="w")
    X = columns(DATA)
    arrays = lf.fit(DATA["y"], X, DATA["id"], X, weights=DATA["w"].to_numpy())
    H = columns(HISTORY)
    given = {"y": HISTORY["y"], "X": H, "groups": HISTORY["id"], "Z": H, "weights": HISTORY["w"]}
    x = columns(WANTED)
    options = {"weights": WANTED["w"], "interval": "prediction"}
    got = arrays.predict(x, groups=WANTED["id"], Z=x, given=given, **options)
    want = fit.predict(WANTED, given=HISTORY, interval="prediction")
    np.testing.assert_allclose(got, want, rtol=1e-6)
    with pytest.raises(lf.DataError, match="must be a dict with y, X, groups"):
        arrays.predict(x, groups=WANTED["id"], Z=x, given=HISTORY)
    with pytest.raises(lf.DataError, match="given= has 'when'"):
        arrays.predict(x, groups=WANTED["id"], Z=x, given={**given, "when": 1})
    with pytest.raises(lf.DataError, match=r"given= has 3 responses"):
        arrays.predict(x, groups=WANTED["id"], Z=x, given={**given, "y": [1.0, 2.0, 3.0]})


def test_scorers_of_fits_without_rows():
    fit = fitted("slopes")
    bare = fit.remove_data()
    score = pickle.loads(pickle.dumps(bare.scorer()))
    options = {"given": HISTORY, "interval": "prediction"}
    got = score.frame(WANTED, **options)
    pd.testing.assert_frame_equal(got, fit.predict(WANTED, **options))
    strangers = WANTED.assign(id="nobody").drop(columns="w")
    got = score.frame(strangers, interval="prediction")  # and no warning
    with pytest.warns(lf.NewGroupsWarning), pytest.warns(lf.NewDataWarning):
        want = fit.predict(strangers, "conditional", interval="prediction")
    pd.testing.assert_frame_equal(got, want)
    assert list(score.frame(strangers)) == ["estimate", "std_error", "df"]
    with pytest.raises(lf.DataError, match="take the rows of the groups"):
        score.frame(NEW)
    with pytest.raises(lf.DataError, match="need a scorer of a fit without rows"):
        fit.scorer().frame(WANTED)
    population = bare.scorer("population").frame(NEW, interval="confidence")
    pd.testing.assert_frame_equal(population, fit.predict(NEW, interval="confidence"))


def visits(d, kind):
    """Visits as text, categories or dates, times as dates and durations."""
    names = "V" + d["visit"].astype(str)
    dates = pd.Timestamp("2020-01-01") + pd.to_timedelta(d["visit"], unit="D")
    categories = ["V9", *(f"V{k}" for k in range(8))]
    visit = {"text": names, "categories": pd.Categorical(names, categories), "dates": dates}[kind]
    date = pd.Timestamp("2021-03-01") + pd.to_timedelta(d["t"], unit="D")
    arm = np.where(d["site"].str[1:].astype(int) % 2, "A", "B")
    return d.assign(visit=visit, date=date, dur=pd.to_timedelta(d["t"], unit="h"), arm=arm)


@pytest.mark.parametrize("kind", ["text", "categories", "dates"])
@pytest.mark.parametrize(
    "residual",
    [
        lf.HeterogeneousAR1("visit"),
        lf.OU("date", nugget=True, by="arm"),
        lf.OU("dur", nugget=True) * lf.ByGroup("arm"),
    ],
    ids=str,
)
def test_visits_of_any_kind_are_found_after_loading(residual, kind, tmp_path):
    data, history, wanted = (visits(d, kind) for d in (DATA, HISTORY, WANTED))
    fit = lf.lmm("y ~ t", data, groups="id", residual=residual)
    mode = "process" if "nugget" in str(residual) else "errors"
    options = {"residual": mode, "interval": "prediction"}
    want = fit.predict(wanted, given=history, **options)
    fit.save(tmp_path / "m.lmm")
    loaded = lf.load(tmp_path / "m.lmm")
    pd.testing.assert_frame_equal(loaded.predict(wanted, given=history, **options), want)
    bare = pickle.loads(pickle.dumps(fit)).predict(wanted, given=history, **options)
    pd.testing.assert_frame_equal(bare, want)
    new = visits(NEW, kind)
    np.testing.assert_allclose(
        loaded.predict(new, given=data, **options),
        fit.predict(new, "conditional", **options),
        rtol=1e-9,
    )


def test_compound_symmetry_and_limits():
    fit = lf.lmm("y ~ t", DATA, groups="id", residual=lf.CompoundSymmetry())
    rho = fit.theta["cor(Residual)"]
    r = HISTORY["y"] - columns(HISTORY) @ fit.params.to_numpy()
    got = fit.predict(WANTED, given=HISTORY, residual="errors") - fit.predict(WANTED)
    for label, own in r.groupby(HISTORY["id"]):
        n = len(own)
        want = rho * own.sum() / (1 + (n - 1) * rho)
        np.testing.assert_allclose(got[WANTED["id"] == label], want, rtol=1e-9)
    many = pd.concat([HISTORY] * 3)
    with pytest.raises(lf.DataError, match="more than any group of the fit"):
        fit.predict(WANTED, given=many, residual="errors")
    tied = pd.concat([HISTORY] * 2)
    with pytest.raises(lf.DataError, match="two rows at one visit or time"):
        fitted("AR1").predict(WANTED, given=tied)
    with pytest.raises(lf.UnsupportedModelError, match="one grouping factor"):
        fitted("nested").predict(NEW, given=DATA)
    with pytest.raises(ValueError, match="given= is for new rows"):
        fitted("ML").predict(given=HISTORY)
