"""The parametric bootstrap: from moments as row by row, continued as in one run."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import lmmfast as lf
from lmmfast.resampling.from_moments import moments_model
from lmmfast.resampling.law import MomentsLaw, moments_law

N = 1500


def frame(seed, sizes, times):
    """Subjects of these sizes at these times, with a slope, weights and two arms."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(len(sizes)), sizes)
    t = np.concatenate([times[:k] for k in sizes])
    arm = np.where(g % 2, "b", "a")
    b = rng.standard_normal((len(sizes), 2)) * [1.0, 0.4]
    y = 2.0 + t + (arm == "b") + b[g, 0] + b[g, 1] * t + rng.standard_normal(len(g))
    return pd.DataFrame({"y": y, "t": t, "g": g, "arm": arm, "w": rng.uniform(0.5, 2, len(g))})


TIMES = np.array([0.0, 0.7, 1.0, 2.0, 2.5])
CASES = {
    # Of rows that leave some clusters less rank than effects.
    "few": (frame(1, np.r_[[1, 1, 1, 2, 2], np.full(15, 4)], TIMES), "y ~ t + (t | g)", {}),
    # Two designs that many clusters share: their rows are put together.
    "shared": (frame(2, np.r_[np.full(300, 5), np.full(200, 3)], TIMES), "y ~ t*arm + (t | g)", {}),
    "weights": (frame(3, np.full(30, 4), TIMES), "y ~ t + arm + (1 | g)", {"weights": "w"}),
    "no intercept in Z": (frame(4, np.full(25, 4), TIMES), "y ~ t + (0 + t | g)", {"reml": False}),
    "diagonal": (frame(5, np.full(40, 5), TIMES), "y ~ t + (t || g)", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_moments_as_rows(name):
    """Estimates and likelihoods of replicates have the law of those of simulated rows."""
    data, formula, options = CASES[name]
    fit = lf.lmm(formula, data, **options)
    one = fit.bootstrap(N, lambda f: [*f.params, *f.theta, f.llf], seed=1)
    assert one.method == "moments" and not one.n_failed
    if name == "shared":
        model = moments_model(fit, 1)
        assert model.law.counts.sum() == 500 and model.law.m < 60
    X = fit.model_matrix().to_numpy()
    Z = {"(t | g)": [0, 1], "(1 | g)": [0], "(0 + t | g)": [1], "(t || g)": [0, 1]}
    columns = next(columns for term, columns in Z.items() if term in formula)
    many = lf.fit_many(
        fit.simulate(N, seed=2),
        X,
        data["g"],
        X[:, columns],
        weights=None if "weights" not in options else data["w"],
        reml=options.get("reml", True),
        D=lf.D.diag() if "||" in formula else None,
    )
    rows = np.column_stack([many.beta, many.theta, many.llf])
    for a, b in zip(one.replicates.T, rows.T, strict=True):
        assert stats.ks_2samp(a, b).pvalue > 1e-3


def test_the_law_is_that_of_the_design():
    """Covariance matrices of Q_i'y and sums beside Z, against those of the rows."""
    data, formula, _ = CASES["few"]
    fit = lf.lmm(formula, data)
    c = fit._engine.clusters
    law = moments_law(c, fit._problem.keep, fit._Lambda, 1)
    R = np.zeros((law.m, 2, 2))
    R[:, *np.triu_indices(2)] = law.design[:, :3]
    V = R @ fit._D @ R.transpose(0, 2, 1) + (R[:, [0, 1], [0, 1]] > 0)[:, None] * np.eye(2)
    roots = law.roots.transpose(2, 0, 1)
    np.testing.assert_allclose(roots @ roots.transpose(0, 2, 1), V, atol=1e-12)
    np.testing.assert_allclose(law.perp_root @ law.perp_root.T, law.perp, atol=1e-12)
    ranks = (R[:, [0, 1], [0, 1]] > 0).sum()
    assert law.df == fit.nobs - ranks - np.linalg.matrix_rank(law.perp, tol=1e-9)


@pytest.mark.parametrize("few", [1 << 13, 0])
@pytest.mark.parametrize("name", ["few", "weights", "no intercept in Z", "diagonal"])
def test_the_data_as_a_replicate(name, few, monkeypatch):
    """What is kept of the response itself, in place of what is drawn, gives the fit again."""
    monkeypatch.setattr("lmmfast.resampling.law.FEW_NUMBERS", few)
    data, formula, options = CASES[name]
    fit = lf.lmm(formula, data, **options)
    clusters, keep, c = fit._engine.clusters, fit._problem.keep, fit._c
    sigma = np.sqrt(fit._unit) / fit._basis.y_scale
    q, p1 = clusters.q, clusters.p1
    QA = clusters.blocks[:, q * (q + 1) // 2 :].transpose(0, 2, 1).reshape(-1, q, p1)
    perp = clusters.perp[np.ix_([*keep, -1], [*keep, -1])]
    perp[:, -1] = perp[-1] = clusters.perp[[*keep, -1]] @ c / sigma
    perp[-1, -1] = c @ clusters.perp @ c / sigma**2
    own = (np.ascontiguousarray((QA @ c / sigma).T), perp)
    monkeypatch.setattr(MomentsLaw, "draw", lambda law, rng: own)
    found = fit.bootstrap(2, lambda f: [*f.params, *f.theta, *f.bse, f.llf], seed=1)
    size = np.abs(found.estimate.to_numpy())
    for replicate in found.replicates:
        np.testing.assert_allclose(replicate / size, found.estimate / size, atol=1e-7)


def same(a, b):
    np.testing.assert_array_equal(a.replicates, b.replicates)
    assert list(a.status) == list(b.status)


@pytest.mark.parametrize("method", ["moments", "rows"])
def test_continued_is_the_longer_run(method):
    data, formula, _ = CASES["few"]
    fit = lf.lmm(formula, data)
    whole = fit.bootstrap(30, seed=5, method=method)
    same(fit.bootstrap(11, seed=5, method=method).more(4).more(15), whole)
    same(lf.lmm(formula, data, n_jobs=2).bootstrap(30, seed=5, method=method), whole)
    assert not np.array_equal(fit.bootstrap(30, seed=6, method=method).replicates, whole.replicates)


def test_blocks_of_replicates(monkeypatch):
    fit = lf.lmm("y ~ t + (t | g)", CASES["few"][0])
    whole = fit.bootstrap(50, seed=1)
    monkeypatch.setattr("lmmfast.resampling.from_moments.MOST_AT_ONCE", 8)
    same(fit.bootstrap(50, seed=1), whole)
    # One after the other, as where there are many clusters.
    monkeypatch.setattr("lmmfast.resampling.law.FEW_NUMBERS", 0)
    single = fit.bootstrap(50, seed=1)
    assert list(single.status) == list(whole.status)
    size = np.abs(whole.replicates).max(axis=0)
    np.testing.assert_allclose(single.replicates / size, whole.replicates / size, atol=1e-5)
    same(fit.bootstrap(20, seed=1).more(30), single)


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        ("Reaction ~ Days", {"groups": "Subject", "residual": lf.AR1("Days")}),
        ("Reaction ~ Days + (1 | Subject) + (1 | day)", {}),
    ],
)
def test_by_rows(formula, options):
    data = lf.datasets.sleepstudy()
    data["day"] = data["Days"].astype(int).astype(str)
    fit = lf.lmm(formula, data, **options)
    found = fit.bootstrap(40, seed=3)
    assert found.method == "rows" and found.n_failed == 0
    assert found.names[-len(fit.theta_names) :] == fit.theta_names
    wald = fit.bse["Days"]
    assert 0.6 * wald < found.se["Days"] < 1.6 * wald
    with pytest.raises(lf.UnsupportedModelError, match="method='rows'"):
        fit.bootstrap(3, method="moments")


def test_each_name_once():
    """Also where theta has correlations, of a structure that the core does not search."""
    structure = lf.D.cs(hom=False)
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy(), D=structure)
    found = fit.bootstrap(3, seed=1)
    assert found.method == "rows" and len(set(found.names)) == len(found.names)


def test_columns_that_were_dropped():
    data = lf.datasets.sleepstudy()
    usual = lf.lmm("Reaction ~ Days + (Days | Subject)", data)
    data.insert(0, "twice", 2.0 * data["Days"])
    with pytest.warns(lf.RankWarning, match="Days"):
        fit = lf.lmm("Reaction ~ twice + Days + (Days | Subject)", data)
    found, expected = fit.bootstrap(20, seed=1), usual.bootstrap(20, seed=1)
    np.testing.assert_allclose(
        2 * found.replicates[:, 1], expected.replicates[:, 1], rtol=1e-5, atol=1e-5
    )


def test_rows_that_came_later():
    """A fit with appended rows holds none, and is not asked for any."""
    data = lf.datasets.sleepstudy()
    formula = "Reaction ~ Days + (Days | Subject)"
    both = lf.lmm(formula, data[:100]).append(data[100:])
    found = both.bootstrap(400, seed=1)
    whole = lf.lmm(formula, data).bootstrap(400, seed=2)
    assert stats.ks_2samp(found.replicates[:, 2], whole.replicates[:, 2]).pvalue > 1e-3


def test_what_it_says():
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    found = fit.bootstrap(2000, seed=1)
    x = found.replicates[:, 1]
    table = found.table()
    assert table.loc["Days", "std_error"] == pytest.approx(x.std(ddof=1))
    assert found.bias["Days"] == pytest.approx(x.mean() - fit.params["Days"])
    # The law of the slope is known: normal with Wald's error, as the design is balanced.
    assert stats.kstest((x - fit.params["Days"]) / fit.bse["Days"], "norm").pvalue > 1e-3
    assert table.loc["Days", "mc_error_std_error"] == pytest.approx(x.std() / 4000**0.5, rel=0.1)
    for kind in ("percentile", "basic", "normal"):
        row = found.conf_int(kind=kind).loc["Days"]
        wald = fit.params["Days"] + 1.96 * fit.bse["Days"]
        assert abs(row["conf_high"] - wald) < 5 * row["mc_error_high"]
    low, high = np.quantile(x, [0.025, 0.975])
    basic = found.conf_int(kind="basic").loc["Days"]
    assert basic["conf_low"] == pytest.approx(2 * fit.params["Days"] - high)
    assert found.conf_int().loc["Days", "conf_low"] == pytest.approx(low)
    frame = found.to_frame()
    assert frame.shape == (2000, 10) and frame["status"].str.startswith("converged").all()
    theta = fit.conf_int_theta(method="bootstrap", B=2000, seed=1)
    assert list(theta.index) == list(fit.conf_int_theta().index)
    expected = found.conf_int().loc[theta.index, ["conf_low", "conf_high"]]
    pd.testing.assert_frame_equal(theta[["conf_low", "conf_high"]], expected)


def test_on_the_boundary():
    fit = lf.lmm("Yield ~ 1 + (1 | Batch)", lf.datasets.dyestuff2())
    assert fit.certificate.on_boundary
    found = fit.bootstrap(500, seed=1)
    zero = found.replicates[:, found.names.index("var(Intercept|Batch)")] == 0
    assert 0.4 < zero.mean() < 0.75  # the chance that the mean square between is the smaller one
    F = stats.f(5, 24).cdf(1.0)
    assert stats.binomtest(int(zero.sum()), 500, F).pvalue > 1e-3
    assert found.conf_int().loc["sd(Intercept|Batch)", "conf_low"] == 0


def test_statistics():
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    ratio = fit.bootstrap(20, lambda f: f.params["Days"] / f.sigma, seed=1)
    assert ratio.names == ["statistic"]
    assert ratio.estimate.iloc[0] == fit.params["Days"] / fit.sigma
    several = fit.bootstrap(5, lambda f: {"a": f.llf, "b": f.scale}, seed=1)
    assert several.names == ["a", "b"]
    with pytest.raises(lf.DataError, match="method='rows'"):
        fit.bootstrap(5, lambda f: f.r2().iloc[0])
    assert fit.bootstrap(3, lambda f: f.r2(), seed=1, method="rows").names == list(fit.r2().index)
    with pytest.raises(lf.DataError, match="must give numbers"):
        fit.bootstrap(5, lambda f: "much")


def test_what_is_refused():
    fit = lf.lmm("Reaction ~ Days + (Days | Subject)", lf.datasets.sleepstudy())
    for B in (0, 1.5, True, "many"):
        with pytest.raises(lf.DataError, match="positive whole number"):
            fit.bootstrap(B)
    with pytest.raises(lf.DataError, match="seed='one'"):
        fit.bootstrap(3, seed="one")
    with pytest.raises(ValueError, match="'moments'"):
        fit.bootstrap(3, method="columns")
    with pytest.raises(ValueError, match="'basic'"):
        fit.bootstrap(3).conf_int(kind="BCa")
    with pytest.raises(lf.DataError, match="function of a fit"):
        fit.bootstrap(3, "mean")
    kept = fit.bootstrap(4, seed=1)
    assert kept.more(2).B == 6
    with pytest.raises(lf.DataError, match="need the data"):
        pickle.loads(pickle.dumps(kept)).more(2)
    with pytest.raises(lf.DataError, match="need the data"):
        fit.remove_data().bootstrap(3)
