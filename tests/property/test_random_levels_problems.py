"""Random small problems with several factors: the engines against the reference and each other."""

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize

import lmmfast as lf


def problem(seed):
    """Draw a nested, crossed or mixed design, unbalanced, with variances that may be zero."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(40, 140))
    kind = ("nested", "crossed", "mixed", "three levels")[seed % 4]
    a = rng.integers(0, rng.integers(4, 10), n)
    b = a * 10 + rng.integers(0, 4, n)
    c = rng.integers(0, rng.integers(4, 9), n)
    groups = {
        "nested": [a, b],
        "crossed": [a, c],
        "mixed": [a, b, c],
        "three levels": [a // 2, a, b],
    }[kind]
    x = rng.normal(size=n)
    X = np.column_stack([np.ones(n), x])
    y = X @ [1.0, 0.5] + rng.normal(size=n)
    for codes in groups:
        y += rng.choice([0.0, 0.7, 3.0]) * rng.normal(size=codes.max() + 1)[codes]
    Z = [X if rng.random() < 0.3 else None for _ in groups]
    weights = rng.uniform(0.3, 3, n) if rng.random() < 0.3 else None
    return kind, y, X, groups, Z, weights, bool(rng.random() < 0.5)


@pytest.mark.filterwarnings("ignore::lmmfast.NestingWarning")
@pytest.mark.parametrize("seed", range(24))
def test_random_problems(seed):
    kind, y, X, groups, Z, weights, reml = problem(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error", lf.ConvergenceWarning)
        fit = lf.fit(y, X, groups, Z, weights=weights, reml=reml)
        want = lf.fit(y, X, groups, Z, weights=weights, reml=reml, engine="reference")
    assert fit.engine == ("nested" if kind in ("nested", "three levels") else "crossed")
    assert fit.llf == pytest.approx(want.llf, rel=1e-9, abs=1e-8)
    np.testing.assert_allclose(fit.params, want.params, rtol=1e-5, atol=1e-6)
    scale = np.abs(want.theta).max()
    np.testing.assert_allclose(fit.theta, want.theta, rtol=1e-4, atol=1e-6 * scale)
    if kind in ("nested", "three levels"):
        other = lf.fit(y, X, groups, Z, weights=weights, reml=reml, engine="crossed")
        assert other.llf == pytest.approx(fit.llf, rel=1e-9, abs=1e-8)


@pytest.mark.filterwarnings("ignore::lmmfast.NestingWarning")
@pytest.mark.parametrize("seed", range(24, 36))
def test_no_other_search_finds_more(seed):
    """L-BFGS-B on logarithms of variances, from several starts, dense NumPy."""
    _, y, X, groups, _, weights, reml = problem(seed)
    fit = lf.fit(y, X, groups, weights=weights, reml=reml)
    same = [(codes[:, None] == codes).astype(float) for codes in groups]
    R = np.diag(np.ones(len(y)) if weights is None else 1 / weights)

    def minus_loglik(log_theta):
        V = sum(np.exp(t) * S for t, S in zip(log_theta, [*same, R], strict=True))
        L = np.linalg.cholesky(V)
        A = np.linalg.solve(L, np.column_stack([X, y]))
        T = np.linalg.qr(A, mode="r")
        value = 2 * np.log(np.diag(L)).sum() + T[-1, -1] ** 2
        n = len(y)
        if reml:
            value += 2 * np.log(np.abs(np.diag(T)[:-1])).sum()
            n -= X.shape[1]
        return 0.5 * (value + n * np.log(2 * np.pi))

    bounds = [(-12.0, 6.0)] * (len(groups) + 1)
    starts = [np.zeros(len(bounds)), np.log(np.maximum(fit.theta.to_numpy(), 1e-5))]
    best = min(minimize(minus_loglik, s, bounds=bounds, method="L-BFGS-B").fun for s in starts)
    assert fit.converged
    assert fit.llf > -best - 1e-6
