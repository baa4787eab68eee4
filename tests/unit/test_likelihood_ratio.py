"""Likelihood-ratio tests of variances: mixtures, and the exact distribution beside RLRsim's."""

import numpy as np
import pytest
from scipy import stats

import lmmfast as lf
from lmmfast.inference import boundary
from lmmfast.inference.chibar import ConeTest
from lmmfast.inference.exact_rlrt import eigenvalues, null_draws

#: RLRsim 3.1, 200,000 draws: P(statistic = 0), quantiles.
DYESTUFF = (0.560145, (0.286392, 1.340410, 2.341061, 5.001515))
SLEEP = (0.539185, (0.336650, 1.420834, 2.418106, 5.021873))
PROBABILITIES = (0.75, 0.9, 0.95, 0.99)


def pair(formula, data, group, **options):
    small = lf.lmm(formula, data, groups=group, residual=lf.Independent(), **options)
    return small, lf.lmm(f"{formula} + (1 | {group})", data, **options)


@pytest.fixture(scope="module")
def dyestuff():
    return pair("Yield ~ 1", lf.datasets.dyestuff(), "Batch")


def test_exact_of_dyestuff(dyestuff):
    table = lf.compare(*dyestuff, test="exact", n_sim=100_000)
    assert table["chisq"].iloc[1] == pytest.approx(6.368955313621143, rel=1e-8)  # RLRsim
    # Balanced, the statistic is a function of F; RLRsim's p is 0.00466 with an error of 0.00015.
    yields = lf.datasets.dyestuff().groupby("Batch")["Yield"]
    F = 5 * yields.mean().var() / yields.var().mean()
    assert table["p"].iloc[1] == pytest.approx(stats.f.sf(F, 5, 24), abs=4 * 0.00021)
    assert "exact: 100,000 draws, standard error 0.0002" in table["note"].iloc[1]
    few = [lf.compare(*dyestuff, test="exact", n_sim=500)["p"].iloc[1] for _ in range(2)]
    assert few[0] == few[1]


@pytest.mark.parametrize(
    ("formula", "data", "group", "want"),
    [
        ("Yield ~ 1", lf.datasets.dyestuff, "Batch", DYESTUFF),
        ("Reaction ~ Days", lf.datasets.sleepstudy, "Subject", SLEEP),
    ],
)
def test_null_distribution(formula, data, group, want):
    _, big = pair(formula, data(), group)
    df = big.nobs - len(big.x_names)
    draws = null_draws(eigenvalues(big), df, 40_000, np.random.default_rng(4))
    at_zero, quantiles = want
    assert np.mean(draws < 1e-9) == pytest.approx(at_zero, abs=0.01)
    np.testing.assert_allclose(np.quantile(draws, PROBABILITIES), quantiles, rtol=0.06, atol=0.012)


def test_draws_are_statistics_of_data(dyestuff):
    """Of responses without the variance, the statistics themselves have the distribution."""
    small, big = dyestuff
    rng = np.random.default_rng(11)
    found = []
    for _ in range(200):
        y = rng.standard_normal(30)
        llf = [fit.refit(y).llf for fit in (small, big)]
        found.append(max(2 * (llf[1] - llf[0]), 0.0))
    draws = null_draws(eigenvalues(big), 29, 20_000, rng)
    positive = np.array(found)[np.array(found) > 1e-6]
    assert len(positive) / 200 == pytest.approx(np.mean(draws > 1e-6), abs=0.12)
    assert stats.ks_2samp(positive, draws[draws > 1e-6]).pvalue > 1e-3


def test_weights_and_eigenvalues():
    rng = np.random.default_rng(3)
    n, g = 40, np.repeat(np.arange(8), 5)
    d = {"y": rng.normal(size=n), "x": rng.normal(size=n), "w": rng.uniform(0.5, 2, n), "g": g}
    fit = lf.lmm("y ~ x + (1 | g)", d, weights="w")
    root = np.sqrt(d["w"])
    X, Z = np.column_stack([np.ones(n), d["x"]]) * root[:, None], np.eye(8)[g] * root[:, None]
    P = X @ np.linalg.pinv(X)
    want = np.linalg.eigvalsh(Z.T @ (np.eye(n) - P) @ Z)
    np.testing.assert_allclose(eigenvalues(fit), np.where(want > 1e-9, want, 0.0), atol=1e-9)


def test_mixture_of_one_variance(dyestuff):
    table = lf.compare(*dyestuff, test="mixture")
    assert table["p"].iloc[1] == pytest.approx(0.005806697217726976, rel=1e-6)
    assert table["note"].iloc[1] == "half chi-squared(0), half chi-squared(1)"


def test_mixture_of_a_slope():
    data = lf.datasets.sleepstudy()
    fits = [lf.lmm(f"Reaction ~ Days + ({z} | Subject)", data) for z in ("1", "Days")]
    plain, mixed = (lf.compare(fits, test=test).iloc[1] for test in ("chisq", "mixture"))
    chisq = plain["chisq"]
    want = 0.5 * (stats.chi2.sf(chisq, 1) + stats.chi2.sf(chisq, 2))
    assert mixed["p"] == pytest.approx(want, rel=1e-12)
    assert plain["p"] == pytest.approx(stats.chi2.sf(chisq, 2), rel=1e-12)
    assert "half chi-squared(1), half chi-squared(2)" in mixed["note"]
    diagonal = [fits[0], lf.lmm("Reaction ~ Days + (Days || Subject)", data)]
    assert "half chi-squared(0)" in lf.compare(diagonal, test="mixture")["note"].iloc[1]


def test_mixture_of_two_effects():
    """Of responses without random effects, the probabilities are uniform."""
    data = lf.datasets.sleepstudy()
    small = lf.lmm("Reaction ~ Days", data, groups="Subject", residual=lf.Independent())
    big = lf.lmm("Reaction ~ Days + (Days | Subject)", data)
    cone = boundary.cone_test(small, big, boundary.tested_parameters(small, big))
    Y = np.random.default_rng(6).standard_normal((len(data), 200))
    X = np.column_stack([np.ones(len(data)), data["Days"]])
    llf = lf.fit_many(Y, X, data["Subject"], X).llf
    rss = ((Y - X @ np.linalg.lstsq(X, Y, rcond=None)[0]) ** 2).sum(axis=0)
    null = -0.5 * (178 * (np.log(2 * np.pi * rss / 178) + 1) + np.linalg.slogdet(X.T @ X)[1])
    y = data["Reaction"].to_numpy()
    own = ((y - X @ np.linalg.lstsq(X, y, rcond=None)[0]) ** 2).sum()
    constant = small.llf + 0.5 * 178 * (np.log(2 * np.pi * own / 178) + 1)
    null += constant + 0.5 * np.linalg.slogdet(X.T @ X)[1]
    statistics = np.maximum(2 * (llf - null), 0.0)
    shares = cone.shares(20_000, np.random.default_rng(9))
    draws = np.random.default_rng(7).chisquare(3, 20_000) * shares
    positive = statistics > 1e-6
    assert positive.mean() == pytest.approx(np.mean(draws > 1e-6), abs=0.12)
    assert stats.ks_2samp(statistics[positive], draws[draws > 1e-6]).pvalue > 1e-3


def test_cones_with_known_weights():
    """Uncorrelated variances: binomial; 2 x 2 matrices in Frobenius' norm: a circular cone."""
    tail, inside = stats.chi2.sf, (1 - np.cos(np.pi / 4)) / 2
    edge = 0.5 - inside
    for n_free, blocks, cov, want in [
        (1, [1], [3.0], 0.5 * (tail(3, 1) + tail(3, 2))),
        (0, [1, 1], [1.0, 9.0], 0.25 * tail(3, 2) + 0.5 * tail(3, 1)),
        (0, [2], [1.0, 0.5, 1.0], inside * tail(3, 3) + edge * (tail(3, 2) + tail(3, 1))),
    ]:
        cone = ConeTest(n_free, blocks, np.diag(cov))
        p, se = cone.p_value(3.0, 20_000, np.random.default_rng(2))
        assert abs(p - want) < 4 * se and se < 0.02 * p
    assert cone.p_value(0.0, 100, np.random.default_rng(2)) == (1.0, 0.0)


def test_nearest_points_of_a_cone():
    """Optimality: what is left is in the polar cone, and orthogonal in the metric."""
    rng = np.random.default_rng(8)
    A = rng.standard_normal((4, 4))
    W, z = A @ A.T + 0.2 * np.eye(4), rng.standard_normal((50, 4))
    x = ConeTest(0, [2, 1], np.linalg.inv(W))._cone.nearest(z, W)
    slope = (z - x) @ W
    np.testing.assert_allclose(np.einsum("ni,ni->n", slope, x), 0.0, atol=1e-6)
    for v in rng.standard_normal((200, 2)):
        inside = np.array([v[0] ** 2, v[0] * v[1], v[1] ** 2, rng.uniform()])
        assert (slope @ inside < 1e-6).all()


def test_what_has_no_mixture_says_so():
    data = lf.datasets.sleepstudy()
    small, big = pair("Reaction ~ Days", data, "Subject")
    slopes = lf.lmm("Reaction ~ Days + (Days | Subject)", data)
    equal = lf.lmm("Reaction ~ Days + cs(Days | Subject)", data)
    two = lf.compare(small, equal, test="mixture").iloc[1]
    assert two["p"] == pytest.approx(stats.chi2.sf(two["chisq"], two["df"]))
    assert "not known for" in two["note"]
    exact = lf.compare(big, slopes, test="exact").iloc[1]
    assert "a single variance" in exact["note"]
    ml = pair("Reaction ~ Days", data, "Subject", reml=False)
    assert "exact distribution is of REML" in lf.compare(*ml, test="exact")["note"].iloc[1]


def test_what_is_refused(dyestuff, monkeypatch):
    with pytest.raises(ValueError, match="'chisq', 'mixture', 'exact'"):
        lf.compare(*dyestuff, test="wald")
    with pytest.raises(lf.DataError, match="n_sim"):
        lf.compare(*dyestuff, test="exact", n_sim=10)
    monkeypatch.setattr("lmmfast.inference.exact_rlrt.MOST_GROUPS", 5)
    with pytest.raises(lf.TooLargeError, match="mixture"):
        lf.compare(*dyestuff, test="exact")
