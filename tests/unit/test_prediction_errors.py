"""Standard errors, degrees of freedom and intervals of predictions beside dense algebra.

The reference forms the weights of the predictions of all rows, and differences them by theta.
"""

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lmmfast as lf
from lmmfast.inference.denominators import inverse_of_information


def simulated():
    rng = np.random.default_rng(0)
    rows = []
    for i in range(90):
        t = np.sort(rng.choice(8, rng.integers(4, 8), replace=False)).astype(float)
        walk = np.linalg.cholesky(0.7 ** abs(t[:, None] - t)) @ rng.normal(size=len(t))
        for visit, w in zip(t, walk, strict=True):
            y = 1 + 0.4 * visit + 2 * w + 1.2 * rng.normal()
            more = rng.uniform(0.5, 2), rng.uniform(0, 1)
            rows.append((f"s{i:02d}", f"c{i // 13}", visit, int(visit), *more, y))
    d = pd.DataFrame(rows, columns=["id", "site", "t", "visit", "w", "v", "y"])
    d["rater"] = rng.integers(0, 6, len(d))
    d["y"] += rng.normal(size=90)[d["id"].str[1:].astype(int)]
    d["y"] += 1.5 * rng.normal(size=7)[d["site"].str[1:].astype(int)]
    d["y"] += rng.normal(size=6)[d["rater"]]
    return d.sample(frac=1, random_state=0, ignore_index=True)


DATA = simulated()
NEW = DATA[::11].assign(t=lambda d: d["t"] + 0.5, visit=lambda d: (d["visit"] + 3) % 8)
NEW = NEW.assign(v=NEW["v"][::-1].to_numpy(), w=1.2 * NEW["w"]).reset_index(drop=True)


def distance(one, other, column):
    return np.abs(one[column].to_numpy()[:, None] - other[column].to_numpy())


def decay(variance, rho, one, other, column="t"):
    return variance * rho ** distance(one, other, column)


def same(one, other, name="id"):
    return one[name].to_numpy()[:, None] == other[name].to_numpy()


def sds(delta, d):
    return np.exp(delta * d["v"].to_numpy())


#: Formula and options; by theta: covariances of the effects, those of residuals that are
#: correlated, and variances of measurement errors (None: there are none).
MODELS = {
    "slopes": (
        ("y ~ t + (t | id)", {"weights": "w"}),
        lambda t, a, b: (
            same(a, b)
            * (
                t[0]
                + t[1] * (a["t"].to_numpy()[:, None] + b["t"].to_numpy())
                + t[2] * np.outer(a["t"], b["t"])
            )
        ),
        None,
        lambda t, a: t[3] / a["w"].to_numpy(),
    ),
    "ML": (
        ("y ~ t + (1 | id)", {"reml": False}),
        lambda t, a, b: t[0] * same(a, b),
        None,
        lambda t, a: np.full(len(a), t[1]),
    ),
    "nested": (
        ("y ~ t + (1 | site) + (1 | id)", {}),
        lambda t, a, b: t[0] * same(a, b, "site") + t[1] * same(a, b),
        None,
        lambda t, a: np.full(len(a), t[2]),
    ),
    "crossed": (
        ("y ~ t + (1 | id) + (1 | rater)", {"weights": "w"}),
        lambda t, a, b: t[0] * same(a, b) + t[1] * same(a, b, "rater"),
        None,
        lambda t, a: t[2] / a["w"].to_numpy(),
    ),
    "OU": (
        ("y ~ t + (1 | id)", {"residual": lf.OU("t", nugget=True)}),
        lambda t, a, b: t[0] * same(a, b),
        lambda t, a, b: decay(t[1], t[2], a, b) * same(a, b),
        lambda t, a: np.full(len(a), t[3]),
    ),
    "OU weights": (
        ("y ~ t", {"groups": "id", "residual": lf.OU("t", nugget=True), "weights": "w"}),
        lambda t, a, b: np.zeros((len(a), len(b))),
        lambda t, a, b: decay(t[0], t[1], a, b) * same(a, b) / np.sqrt(np.outer(a["w"], b["w"])),
        lambda t, a: t[2] / a["w"].to_numpy(),
    ),
    "AR1": (
        ("y ~ t + (1 | id)", {"residual": lf.AR1("visit")}),
        lambda t, a, b: t[0] * same(a, b),
        lambda t, a, b: decay(t[2], t[1], a, b, "visit") * same(a, b),
        None,
    ),
    "OU * VarExp": (
        ("y ~ t", {"groups": "id", "residual": lf.OU("t") * lf.VarExp("v")}),
        lambda t, a, b: np.zeros((len(a), len(b))),
        lambda t, a, b: decay(t[2], t[0], a, b) * same(a, b) * np.outer(sds(t[1], a), sds(t[1], b)),
        None,
    ),
    "nested OU": (
        ("y ~ t + (1 | site) + (1 | id)", {"residual": lf.OU("t", nugget=True)}),
        lambda t, a, b: t[0] * same(a, b, "site") + t[1] * same(a, b),
        lambda t, a, b: decay(t[2], t[3], a, b) * same(a, b),
        lambda t, a: np.full(len(a), t[4]),
    ),
}
CASES = [
    *((name, "process") for name in MODELS),
    ("OU", "none"),
    ("AR1", "errors"),
    ("OU * VarExp", "errors"),
    ("nested OU", "none"),
]


@functools.cache
def fitted(name):
    formula, options = MODELS[name][0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = lf.lmm(formula, DATA, **options)
    assert not fit.certificate.on_boundary
    return fit


def parts(name, residual, observation, t):
    """V, covariances of signals and of targets with y, and their variances, at theta."""
    _, effects, correlated, errors = MODELS[name]
    V, c = effects(t, DATA, DATA), effects(t, NEW, DATA)
    v, more, own = np.diag(effects(t, NEW, NEW)), np.zeros_like(c), np.zeros(len(NEW))
    if correlated is not None:
        V, more = V + correlated(t, DATA, DATA), correlated(t, NEW, DATA)
        own = np.diag(correlated(t, NEW, NEW))
    if errors is not None:
        V = V + np.diag(errors(t, DATA))
    inside = residual == "errors" or (residual == "process" and errors is not None)
    signal = (c + more, v + own) if inside else (c, v)
    if not observation:
        return V, *signal, *signal
    new = own if errors is None else own + errors(t, NEW)
    return V, *signal, c + more, v + new


def reference(fit, at):
    """Mean squared errors, Satterthwaite's degrees of freedom, and g3."""
    X = np.column_stack([np.ones(len(DATA)), DATA["t"]])
    x = np.column_stack([np.ones(len(NEW)), NEW["t"]])

    def weights(t):
        V, c, _, target, v = at(t)
        inverse = np.linalg.inv(V)
        w = c @ inverse
        L = w + (x - w @ X) @ np.linalg.inv(X.T @ inverse @ X) @ X.T @ inverse
        mse = np.einsum("Ni,ij,Nj->N", L, V, L) - 2 * (L * target).sum(axis=1) + v
        return np.column_stack([L, mse])

    theta = fit.theta.to_numpy()
    slopes = []
    for k, value in enumerate(theta):
        h = 1e-4 * max(abs(value), 0.05) * np.eye(len(theta))[k]
        one = 8 * (weights(theta + h) - weights(theta - h))
        slopes.append((one - weights(theta + 2 * h) + weights(theta - 2 * h)) / (12 * h[k]))
    slopes = np.array(slopes)
    J = fit._theta_jacobian
    W = J @ inverse_of_information(fit._inference_totals.observed) @ J.T
    mse, gradient, dL = weights(theta)[:, -1], slopes[..., -1], slopes[..., :-1]
    df = 2 * mse**2 / np.einsum("kN,kl,lN->N", gradient, W, gradient)
    return mse, df, np.einsum("kl,kNi,ij,lNj->N", W, dL, at(theta)[0], dL, optimize=True)


@pytest.mark.parametrize("interval", ["confidence", "prediction"])
@pytest.mark.parametrize(("name", "residual"), CASES)
def test_conditional_predictions(name, residual, interval):
    fit = fitted(name)
    at = functools.partial(parts, name, residual, interval == "prediction")
    mse, df, g3 = reference(fit, at)
    predict = functools.partial(
        fit.predict, NEW, "conditional", residual=residual, interval=interval
    )
    got = predict(alpha=0.1)
    np.testing.assert_allclose(got["std_error"], np.sqrt(mse), rtol=1e-10)
    np.testing.assert_allclose(got["df"], df, rtol=2e-7)
    half = stats.t.ppf(0.95, df) * np.sqrt(mse)
    np.testing.assert_allclose(got["conf_high"] - got["estimate"], half, rtol=1e-7)
    np.testing.assert_allclose(got["estimate"] - got["conf_low"], half, rtol=1e-7)
    np.testing.assert_array_equal(
        got["estimate"], fit.predict(NEW, "conditional", residual=residual)
    )
    more = MODELS[name][2] is not None and interval == "prediction"
    more &= residual == "none" or (residual == "process" and MODELS[name][3] is None)
    if more:
        with pytest.raises(lf.UnsupportedModelError, match="residual='errors'"):
            predict(uncertainty="theta")
        return
    theta = predict(uncertainty="theta")
    np.testing.assert_allclose(theta["std_error"] ** 2, mse + 2 * g3, rtol=1e-8)
    np.testing.assert_array_equal(theta["df"], got["df"])


@pytest.mark.parametrize("name", MODELS)
def test_rows_of_the_fit_are_new_rows_that_are_the_same(name):
    fit = fitted(name)
    for level, interval in (("conditional", "prediction"), ("population", "confidence")):
        got = fit.predict(level=level, interval=interval)
        want = fit.predict(DATA, level, interval=interval)
        np.testing.assert_allclose(got, want, rtol=1e-9)
        assert got.index.equals(DATA.index)


@pytest.mark.parametrize("name", MODELS)
def test_population(name):
    """X beta as `test` has it; a new observation has all variances of a row on top."""
    fit = fitted(name)
    got = fit.predict(NEW[:5], interval="confidence")
    assert list(got) == ["estimate", "std_error", "df", "conf_low", "conf_high"]
    assert list(fit.predict(NEW[:5], se=True)) == ["estimate", "std_error", "df"]
    x = np.column_stack([np.ones(5), NEW["t"][:5]])
    want = pd.concat([fit.test(row).frame for row in x])
    for column in ("estimate", "std_error", "df", "conf_low", "conf_high"):
        np.testing.assert_allclose(got[column], want[column], rtol=1e-9)
    new = fit.predict(NEW[:5], interval="prediction")
    at = parts(name, "process", True, fit.theta.to_numpy())
    np.testing.assert_allclose(new["std_error"] ** 2, got["std_error"] ** 2 + at[-1][:5], rtol=1e-9)
    if fit.method == "REML":
        linear = fit.inference("kenward-roger-linear", information="observed")
        theta = fit.predict(NEW[:5], se=True, uncertainty="theta")
        adjusted = linear.predict(NEW[:5], se=True)["std_error"]
        np.testing.assert_allclose(theta["std_error"], adjusted, rtol=1e-9)


def test_levels_between():
    """The effects of units in a site are not part of the signal; they are of an observation."""
    fit = fitted("nested")
    site = fit.predict(NEW, "site", interval="confidence")
    strangers = NEW.assign(id="nobody")
    with pytest.warns(lf.NewGroupsWarning):
        new = fit.predict(strangers, "conditional", interval="confidence")
    unit, error = fit.theta[["var(Intercept|id)", "var(Residual)"]]
    np.testing.assert_allclose(new["std_error"] ** 2, site["std_error"] ** 2 + unit, rtol=1e-10)
    observed = fit.predict(NEW, "site", interval="prediction")
    np.testing.assert_allclose(
        observed["std_error"] ** 2, site["std_error"] ** 2 + unit + error, rtol=1e-10
    )


def test_methods_of_inference():
    fit = fitted("slopes")
    rows = NEW[:6]
    base = fit.predict(rows, "conditional", interval="confidence")
    normal = fit.inference("normal").predict(rows, "conditional", interval="confidence")
    np.testing.assert_array_equal(normal["std_error"], base["std_error"])
    assert np.isinf(normal["df"]).all()
    np.testing.assert_allclose(
        normal["conf_high"] - normal["estimate"], 1.959963984540054 * base["std_error"]
    )
    counted = fit.inference("between-within").predict(rows, se=True)
    assert counted["df"].nunique() == 1
    adjusted = fit.inference("kenward-roger")
    x = np.column_stack([np.ones(6), rows["t"]])
    want = np.sqrt(np.einsum("Na,ab,Nb->N", x, adjusted.cov_params().to_numpy(), x))
    np.testing.assert_allclose(adjusted.predict(rows, se=True)["std_error"], want, rtol=1e-9)
    conditional = adjusted.predict(rows, "conditional", se=True)["std_error"]
    assert (conditional > base["std_error"]).all()
    robust = fit.inference(vcov="CR2")
    assert len(robust.predict(rows, interval="confidence")) == 6
    with pytest.raises(lf.UnsupportedModelError, match="vcov='CR2' is about beta alone"):
        robust.predict(rows, "conditional", se=True)


def test_on_the_boundary():
    d = lf.datasets.dyestuff2()
    fit = lf.lmm("Yield ~ 1 + (1 | Batch)", d)
    got = fit.predict(d[::5], "conditional", interval="prediction", uncertainty="theta")
    assert np.isfinite(got.to_numpy()).all()
    plain = fit.predict(d[:1], "conditional", interval="prediction")
    assert plain["std_error"].iloc[0] ** 2 == pytest.approx(fit.scale * (1 + 1 / 30))


def test_no_fixed_effects_and_dropped_columns():
    none = lf.lmm("y ~ 0 + (1 | id)", DATA)
    got = none.predict(NEW[:4], "conditional", se=True)
    sd2, s2 = none.theta
    n = DATA["id"].value_counts()[NEW["id"][:4]].to_numpy()
    np.testing.assert_allclose(got["std_error"] ** 2, sd2 * s2 / (n * sd2 + s2), rtol=1e-10)
    with pytest.warns(lf.RankWarning):
        dropped = lf.lmm("y ~ t + I(2 * t) + (1 | id)", DATA)
    whole = lf.lmm("y ~ t + (1 | id)", DATA)
    with pytest.warns(lf.NewDataWarning):
        got = dropped.predict(NEW[:4], "conditional", interval="prediction")
    want = whole.predict(NEW[:4], "conditional", interval="prediction")
    np.testing.assert_allclose(got, want, rtol=1e-7)


def test_arrays_give_the_same():
    fit = lf.lmm("y ~ t + (t | id)", DATA, weights="w")
    X = np.column_stack([np.ones(len(DATA)), DATA["t"]])
    arrays = lf.fit(DATA["y"], X, DATA["id"], X, weights=DATA["w"].to_numpy())
    x, groups = X[:5], DATA["id"][:5]
    options = {"weights": DATA["w"][:5].to_numpy(), "interval": "prediction"}
    got = arrays.predict(x, "conditional", groups=groups, Z=x, **options)
    want = fit.predict(DATA[:5], "conditional", interval="prediction")
    np.testing.assert_allclose(got, want, rtol=1e-7)
    population = arrays.predict(x, Z=x, **options)
    np.testing.assert_allclose(population, fit.predict(DATA[:5], interval="prediction"), rtol=1e-7)
    with pytest.raises(lf.DataError, match="needs Z"):
        arrays.predict(x, interval="prediction")


def test_missing_values_and_words():
    fit = fitted("slopes")
    holes = NEW[:3].assign(t=[1.0, None, 2.0], w=[1.0, 1.0, None])
    got = fit.predict(holes, "conditional", interval="prediction")
    assert np.isnan(got["std_error"]).tolist() == [False, True, True]
    assert np.isnan(got["estimate"]).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="interval='both': choose one of 'confidence'"):
        fit.predict(NEW, interval="both")
    with pytest.raises(ValueError, match="uncertainty='all'"):
        fit.predict(NEW, se=True, uncertainty="all")
    with pytest.raises(ValueError, match=r"write alpha=0\.05"):
        fit.predict(NEW, interval="confidence", alpha=0.95)
    excluded = lf.lmm(
        "y ~ t + (1 | id)", DATA.assign(t=DATA["t"].where(DATA.index > 0)), missing="exclude"
    )
    rows = excluded.predict(se=True, level="conditional")
    assert len(rows) == len(DATA) and np.isnan(rows.to_numpy()[0]).all()


@pytest.mark.parametrize("name", ["slopes", "nested", "OU"])
def test_fits_without_rows(name, tmp_path):
    fit = fitted(name)
    fit.save(tmp_path / "m.lmm")
    for bare in (lf.load(tmp_path / "m.lmm"), fit.remove_data()):
        for options in ({"interval": "confidence"}, {"se": True, "uncertainty": "theta"}):
            pd.testing.assert_frame_equal(bare.predict(NEW, **options), fit.predict(NEW, **options))
        with pytest.raises(lf.DataError, match=r"take the rows of the groups.*given="):
            bare.predict(NEW, "conditional", se=True, residual="none")
        strangers = NEW.assign(id="nobody", site="nowhere")
        with pytest.warns(lf.NewGroupsWarning):
            got = bare.predict(strangers, "conditional", se=True, residual="none")
            want = fit.predict(strangers, "conditional", se=True, residual="none")
        pd.testing.assert_frame_equal(got, want)
    got = bare.predict(NEW, interval="prediction")
    pd.testing.assert_frame_equal(got, fit.predict(NEW, interval="prediction"))


def test_many_groups_of_one_row_each():
    """No loop over groups: as many rows as a table has."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20_000), 3)
    t = rng.normal(size=60_000)
    y = t + rng.normal(size=20_000)[groups] + rng.normal(size=60_000)
    X = np.column_stack([np.ones(60_000), t])
    fit = lf.fit(y, X, groups, X)
    got = fit.predict(X, "conditional", groups=groups, Z=X, interval="prediction")
    inside = (got["conf_low"] < y) & (y < got["conf_high"])
    assert inside.mean() > 0.95
