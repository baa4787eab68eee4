"""Responses of models that are written down, and the power of tests by simulation."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lmmfast as lf
from lmmfast.resampling.replicated import replicated

N = 2000


def check_law(y, mean, V):
    """Whitened responses are standard normal and uncorrelated."""
    white = np.linalg.solve(np.linalg.cholesky(V), y - np.reshape(mean, (-1, 1)))
    assert stats.kstest(white.ravel(), "norm").pvalue > 1e-3
    cov = white @ white.T / white.shape[1]
    off = cov[np.tril_indices(len(V), -1)] * np.sqrt(white.shape[1])
    assert stats.kstest(off, "norm").pvalue > 1e-3


T = np.array([0.0, 1.0, 2.0, 4.0])
DATA = {"t": np.tile(T, 3), "id": np.repeat(["a", "b", "c"], 4), "w": np.tile([1.0, 2.0], 6)}
Z = np.column_stack([np.ones(4), T])
LAG = np.abs(T[:, None] - T)
DRAWN = {
    "slopes": (
        "y ~ t + (t | id)",
        [2.0, -0.3, 0.5, 0.7],
        Z @ [[2.0, -0.3], [-0.3, 0.5]] @ Z.T + 0.7 * np.eye(4),
        {},
    ),
    "diagonal": (
        "y ~ t + (t | id)",
        {"var(Residual)": 1.5, "var(t|id)": 0.2, "var(Intercept|id)": 3.0},
        Z @ np.diag([3.0, 0.2]) @ Z.T + 1.5 * np.eye(4),
        {"D": lf.D.diag()},
    ),
    "weights": (
        "y ~ t + (1 | id)",
        [1.0, 2.0],
        np.ones((4, 4)) + np.diag([2.0, 1.0, 2.0, 1.0]),
        {"weights": "w"},
    ),
    "no variance": ("y ~ t + (1 | id)", [0.0, 2.0], 2 * np.eye(4), {}),
}


@pytest.mark.parametrize("name", DRAWN)
def test_law(name):
    formula, theta, V, options = DRAWN[name]
    y = lf.simulate(formula, DATA, beta=[3.0, -1.0], theta=theta, n=N, seed=1, **options)
    assert y.shape == (12, N)
    for first in (0, 4):
        check_law(y[first : first + 4], 3.0 - T, V)
    assert stats.pearsonr(y[0], y[4]).pvalue > 1e-3


def named(fit):
    return {"beta": fit.params, "theta": fit.theta}


def test_residual_structures():
    """By the names that a fit has; the covariance matrix is the one written down."""
    options = {"groups": "id", "residual": lf.OU("t", nugget=True)}
    rng = np.random.default_rng(1)
    big = {
        "t": np.tile(T, 200),
        "id": np.repeat(np.arange(200), 4),
        "y": (
            rng.multivariate_normal(np.zeros(4), np.exp(-LAG / 3) + 0.4 * np.eye(4), 200)
        ).ravel(),
    }
    fit = lf.lmm("y ~ t", big, **options)
    y = lf.simulate("y ~ t", DATA, **named(fit), n=N, seed=1, **options)
    V = fit.implied_covariance(0).to_numpy()
    check_law(y[:4], fit.params["Intercept"] + fit.params["t"] * T, V)


def test_several_factors():
    d = {"a": np.repeat([0, 1], 6), "b": np.tile([0, 1, 2], 4), "x": np.arange(12.0)}
    y = lf.simulate("y ~ 1 + (1|a) + (1|b)", d, beta=[0.0], theta=[1.0, 2.0, 0.5], n=N, seed=2)
    V = (
        1.0 * np.equal.outer(d["a"], d["a"])
        + 2.0 * np.equal.outer(d["b"], d["b"])
        + 0.5 * np.eye(12)
    )
    check_law(y, 0.0, V)
    nested = lf.simulate("y ~ 1 + (1|a/b)", d, beta=[0.0], theta=[1.0, 2.0, 0.5], n=N, seed=2)
    both = np.equal.outer(d["a"], d["a"]) & np.equal.outer(d["b"], d["b"])
    check_law(nested, 0.0, 1.0 * np.equal.outer(d["a"], d["a"]) + 2.0 * both + 0.5 * np.eye(12))


def test_as_the_fit_itself():
    """The same numbers as fit.simulate, whose parameters are these."""
    data = lf.datasets.sleepstudy()
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", data)
    without = data.drop(columns="Reaction")
    y = lf.simulate("Reaction ~ Days + (Days | Subject)", without, **named(fit), n=3, seed=4)
    np.testing.assert_allclose(y, fit.simulate(3, seed=4), rtol=1e-9)
    for frame in (data, without):  # the response is no part of what "." stands for
        logs = lf.simulate("log(Reaction) ~ . + (1|Subject)", frame, beta=[1, 2], theta=[1, 1])
        assert logs.shape == (180, 1)


def test_what_is_refused():
    model = ("y ~ t + (t | id)", DATA)
    with pytest.raises(lf.DataError, match=r"4 finite numbers, for var\(Intercept\|id\)"):
        lf.simulate(*model, beta=[0, 0], theta=[1, 1])
    with pytest.raises(lf.DataError, match="Intercept, t"):
        lf.simulate(*model, beta=[0], theta=[1, 0, 1, 1])
    with pytest.raises(lf.DataError, match="no covariance matrix"):
        lf.simulate(*model, beta=[0, 0], theta=[1, 2, 1, 1])
    with pytest.raises(lf.DataError, match="must be positive"):
        lf.simulate(*model, beta=[0, 0], theta=[1, 0, 1, -1])
    with pytest.raises(lf.DataError, match="determined by the others"):
        lf.simulate("y ~ t + I(2 * t) + (1 | id)", DATA, beta=[0, 0, 0], theta=[1, 1])


# -- power -----------------------------------------------------------------------------------------


def within(found, exact):
    """Whether a simulated power is that which is known."""
    rejected = round(found["power"] * found["n_sim"])
    return stats.binomtest(int(rejected), int(found["n_sim"]), exact).pvalue > 1e-3


def test_between_groups_against_noncentral_t():
    """Arms of groups of k: t of the group means, exact where the variance is not zero."""
    k, tau2, sigma2, delta = 4, 1.0, 1.0, 1.2
    pair = {"id": np.repeat([0, 1], k), "arm": np.repeat(["a", "b"], k)}
    truth = {"beta": [0.0, delta], "theta": [tau2, sigma2]}
    options = {"n_sim": 400, "seed": 1}
    found = lf.power("y ~ arm + (1 | id)", pair, "arm[T.b] = 0", **truth, sizes=[8, 20], **options)
    assert list(found["n_groups"]) == [8, 20] and list(found["n_obs"]) == [32, 80]
    for _, row in found.iterrows():
        m, df = row["n_groups"], row["n_groups"] - 2
        away = delta / np.sqrt((tau2 + sigma2 / k) * 4 / m)
        t = stats.t.isf(0.025, df)
        exact = stats.nct.sf(t, df, away) + stats.nct.cdf(-t, df, away)
        assert within(row, exact)
        assert row["conf_low"] < row["power"] < row["conf_high"]
    alone = lf.power("y ~ arm + (1 | id)", pair, "arm[T.b] = 0", **truth, sizes=[20], **options)
    pd.testing.assert_frame_equal(alone, found.iloc[[1]].reset_index(drop=True))


def test_split_plot_against_noncentral_F():
    """A factor of three levels within groups: F with 2 and 2 (m - 1) degrees of freedom."""
    block = pd.DataFrame({"id": "one", "dose": ["a", "b", "c"] * 2})
    effects, m, r = np.array([0.0, 0.5, 0.9]), 8, 2
    found = lf.power(
        "y ~ dose + (1 | id)",
        lambda size: replicated(block, "id", [], size),
        "dose[T.b] = 0, dose[T.c] = 0",
        beta=[1.0, *effects[1:]],
        theta=[2.0, 1.0],
        sizes=[m],
        n_sim=400,
        ddf="kenward-roger",
        seed=3,
    ).iloc[0]
    df = m * r * 3 - m - 2
    away = m * r * ((effects - effects.mean()) ** 2).sum()
    exact = stats.ncf.sf(stats.f.isf(0.05, 2, df), 2, df, away)
    assert within(found, exact)


def test_no_effect_has_the_level():
    pair = {"id": np.repeat([0, 1], 3), "arm": np.repeat(["a", "b"], 3)}
    truth = {"beta": [5.0, 0.0], "theta": [1.0, 1.0]}
    found = lf.power(
        "y ~ arm + (1 | id)",
        pair,
        {"arm[T.b]": 1},
        **truth,
        sizes=[12],
        n_sim=400,
        alpha=0.1,
        seed=2,
    )
    assert within(found.iloc[0], 0.1)


def test_copies_of_a_template():
    frame = pd.DataFrame({"a": ["u", "v", "u"], "b": [1, 2, 3], "item": [7, 7, 8]})
    out = replicated(frame, "a", ["b"], 3)
    assert out["a"].to_list() == [0, 0, 1, 2, 2]
    assert out["item"].to_list() == [7, 8, 7, 7, 8]
    assert out["b"].nunique() == 5
    assert len(replicated(frame, "a", ["b"], 1)) == 2


def test_crossed_power_and_refusals():
    d = {"s": np.repeat([0, 1, 2], 4), "item": np.tile([0, 1, 2, 3], 3), "x": np.tile([0, 1], 6)}
    found = lf.power(
        "y ~ x + (1 | s) + (1 | item)",
        d,
        "x = 0",
        beta=[0, 3.0],
        theta=[1, 0.1, 0.2],
        sizes=[6],
        n_sim=10,
        seed=1,
    ).iloc[0]
    assert found["n_obs"] == 24 and found["power"] > 0.5
    serial = lf.power(
        "y ~ x",
        d,
        "x = 0",
        beta=[0, 3.0],
        theta=[0.3, 0.5],
        sizes=[6],
        n_sim=5,
        seed=1,
        groups="s",
        residual=lf.AR1("item"),
    ).iloc[0]
    assert serial["power"] > 0.5 and serial["n_failed"] == 0
    model = {"beta": [0, 1.0], "theta": [1, 1]}
    with pytest.raises(lf.DataError, match="sizes=0"):
        lf.power("y ~ x + (1|s)", d, "x = 0", **model, sizes=[0])
    with pytest.raises(lf.DataError, match="list of numbers"):
        lf.power("y ~ x + (1|s)", d, "x = 0", **model, sizes=8)
    with pytest.raises(lf.DataError, match="by='item'"):
        lf.power("y ~ x + (1|s)", d, "x = 0", **model, sizes=[8], by="item")
    with pytest.raises(ValueError, match="alpha"):
        lf.power("y ~ x + (1|s)", d, "x = 0", **model, sizes=[8], alpha=5)
