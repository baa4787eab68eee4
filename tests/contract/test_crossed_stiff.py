"""Crossed factors whose variances are up to 1e11 times that of the residuals, to all digits."""

import mpmath as mp
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from test_crossed_engine import DESIGNS, Problem

import lmmfast as lf
from lmmfast.engines import crossed
from lmmfast.engines.crossed_roots import root_rows
from lmmfast.search.objective import Evaluation
from lmmfast.search.objective import Problem as FitProblem


def data(seed, ratio):
    """Some 60 rows of y ~ x + (1 | a) + (1 + t | b), sigma2 being ratio times the variances."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(30, 80))
    d = pd.DataFrame({"a": rng.integers(0, 5, n), "b": rng.integers(0, 7, n)})
    d["x"], d["t"] = rng.normal(size=n), rng.integers(0, 4, n)
    effects = rng.normal(size=5)[d["a"]] + rng.normal(size=7)[d["b"]]
    effects += d["t"] * rng.normal(size=7)[d["b"]]
    return d.assign(y=d["x"] + effects + np.sqrt(ratio) * rng.normal(size=n))


def exact_loglik(fit, d, slope):
    """Log-likelihood at the reported theta in 40 digits."""
    with mp.workdps(40):
        n, theta = len(d), [mp.mpf(value) for value in fit.theta]
        V = mp.matrix(n, n)
        for i in range(n):
            for j in range(n):
                if d["a"][i] == d["a"][j]:
                    V[i, j] += theta[0]
                if d["b"][i] == d["b"][j]:
                    V[i, j] += theta[1]
                    if slope:
                        s, t = int(d["t"][i]), int(d["t"][j])
                        V[i, j] += theta[2] * (s + t) + theta[3] * s * t
            V[i, i] += theta[-1]
        L = mp.cholesky(V)
        A = mp.matrix(np.column_stack([np.ones(n), d["x"], d["y"]]).tolist())
        for i in range(n):
            for c in range(3):
                A[i, c] = (A[i, c] - sum(L[i, k] * A[k, c] for k in range(i))) / L[i, i]
        R = mp.cholesky(A.T * A)
        reml = fit.method == "REML"
        log_det = sum(mp.log(L[i, i]) for i in range(n))
        log_det += sum(mp.log(R[i, i]) for i in range(2)) if reml else 0
        df = n - 2 if reml else n
        return float(-log_det - R[2, 2] ** 2 / 2 - df * mp.log(2 * mp.pi) / 2)


@pytest.mark.parametrize("slope", [False, True])
@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("ratio", [1e-6, 1e-8, 1e-10, 1e-11])
def test_loglik_of_the_reported_parameters(ratio, reml, slope):
    d = data(int(-np.log10(ratio)), ratio)
    fit = lf.lmm(f"y ~ x + (1 | a) + ({'t' if slope else '1'} | b)", d, reml=reml)
    if slope:  # else what is left over is that of t
        assert fit.converged
        assert fit.scale == pytest.approx(ratio, rel=0.6)
    assert fit.llf == pytest.approx(exact_loglik(fit, d, slope), rel=1e-9)
    for cov in fit.random_effects_cov.values():
        assert (np.linalg.eigvalsh(cov) >= 0).all()


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("weighted", [False, True])
def test_both_ways_agree_where_both_are_exact(name, weighted, monkeypatch):
    problem = Problem(name, weighted)
    engine, Lambda, n = problem.engine(), problem.Lambda, len(problem.A)
    results = []
    for stiff in (np.inf, 0.0):
        monkeypatch.setattr(crossed, "STIFF", stiff)
        totals = [engine.totals(Lambda, with_kr=kr) for kr in (False, True)]
        p = len(engine.gram) - 1
        keep = np.arange(p)
        evaluations = [Evaluation(FitProblem(keep, n, True), one) for one in totals]
        assert (totals[0].shift is None) == (stiff == np.inf)
        effects = engine.random_effects(Lambda, Lambda, np.append(np.full(p, 0.3), 1.0))
        effects += engine.random_effects_cov(Lambda, Lambda)
        found = [
            [e.loglik, e.beta, e.score, e.info, e.profile_info, one.trace]
            for e, one in zip(evaluations, totals, strict=True)
        ]
        found[1].append(evaluations[1].observed_info)
        results.append([*found[0], *found[1], *effects])
    for one, other in zip(*results, strict=True):
        assert_allclose(other, one, rtol=1e-7, atol=1e-8 * np.abs(one).max())


def test_rows_in_chunks(monkeypatch):
    problem = Problem("three slopes", True)
    whole = root_rows(problem.levels, problem.working)
    monkeypatch.setattr("lmmfast.engines.crossed_roots.CHUNK_ENTRIES", 2000)
    pieces = root_rows(problem.levels, problem.working)
    one, other = (np.hstack([rows.Z, rows.A]) for rows in (whole, pieces))
    assert_allclose(other.T @ other, one.T @ one, atol=1e-9)


def test_many_levels_say_that_rounding_stops_the_search(monkeypatch):
    d = data(3, 1e-9)
    monkeypatch.setattr(crossed, "MOST_EFFECTS", 5)
    with pytest.warns(lf.ConvergenceWarning, match="digits|gradient"):
        fit = lf.lmm("y ~ x + (1 | a) + (t | b)", d)
    assert not fit.converged


def test_effects_that_leave_nothing_are_no_crash():
    rng = np.random.default_rng(4)
    d = pd.DataFrame({"a": np.repeat(range(4), 3), "b": np.tile(range(3), 4), "x": np.arange(12.0)})
    d["y"] = 1e6 * (rng.normal(size=4)[d["a"]] + rng.normal(size=3)[d["b"]])
    with pytest.raises(lf.NotIdentifiableError, match="exactly"):
        lf.lmm("y ~ 1 + (1 | a) + (1 | b)", d)
