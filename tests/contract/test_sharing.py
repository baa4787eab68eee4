"""Clusters of one design put together: the same totals, fits and random effects, only faster."""

import numpy as np
import pandas as pd
import pytest
from samples import LEVELS, Sample, assert_totals

import lmmfast
from lmmfast.engines.totals import unflatten

cores = pytest.mark.parametrize("core", list(LEVELS.values()), ids=list(LEVELS))


def repeated(rng, counts, q, p, weights=False, shuffled=False) -> Sample:
    """Clusters of some designs, each of them so many times; the columns of X are free."""
    designs = []
    for k in range(len(counts)):
        Z = rng.standard_normal((1 + k % 6, q))
        Z[:, 0] = 1.0
        designs.append((Z, rng.uniform(0.1, 4.0, len(Z))))
    of = np.repeat(np.arange(len(counts)), counts)
    if shuffled:
        of = rng.permutation(of)
    Z = np.concatenate([designs[k][0] for k in of])
    w = np.concatenate([designs[k][1] for k in of]) if weights else None
    n = len(Z)
    X = rng.standard_normal((n, p))
    X[:, 0] = 1.0
    ptr = np.concatenate([[0], np.cumsum([len(designs[k][0]) for k in of])]).astype(np.int64)
    return Sample(X, Z, rng.standard_normal(n), ptr, None, w)


# So many that putting clusters together pays.
MANY_PASSES = 1000
# One, few, many and very many clusters of a design, whole blocks and parts of them.
COUNTS = [1, 2, 7, 40, 300, 2000, 9000, 3]


@cores
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize(("q", "p"), [(1, 1), (1, 3), (2, 4), (2, 14), (3, 2), (3, 9), (3, 13)])
def test_same_totals(core, q, p, weights, shuffled):
    rng = np.random.default_rng([q, p])
    data = repeated(rng, COUNTS, q, p, weights, shuffled)
    blocks, sums = data.compressed(core)
    shared, counts, n_designs = core.share(blocks, q, p + 1, len(data.ptr) - 1, 1, MANY_PASSES)
    # with q = 1 clusters of one length are alike; bits may depend on the neighbours' lengths
    assert 6 <= n_designs <= 4 * len(COUNTS)
    assert counts.sum() == sum(COUNTS)
    assert np.count_nonzero(counts) == n_designs
    assert len(shared) < len(blocks) / 2
    for Lambda in (np.tril(rng.uniform(0.2, 1.0, (q, q))), np.zeros((q, q))):
        for kr in (False, True):
            arguments = (Lambda, sums.perp, kr)
            want = core.evaluate(blocks, q, p + 1, *arguments, 1)
            got = core.evaluate(shared, q, p + 1, *arguments, 1, counts)
            assert_totals(*(unflatten(x, q, p + 1, kr) for x in (got, want)), 1e-12)
            more_threads = core.evaluate(shared, q, p + 1, *arguments, 3, counts)
            np.testing.assert_array_equal(more_threads, got)
    for n_threads in (2, 5):
        again = core.share(blocks, q, p + 1, len(data.ptr) - 1, n_threads, MANY_PASSES)
        np.testing.assert_array_equal(again[0], shared)
        np.testing.assert_array_equal(again[1], counts)


@cores
def test_columns_that_repeat_within_a_design(core):
    """Columns of X that are columns of Z leave rows of low rank."""
    rng = np.random.default_rng(3)
    data = repeated(rng, [5000, 1000], 2, 4)
    data.X[:, :2] = data.Z
    m = len(data.ptr) - 1
    data.X[:, 2] = np.repeat(rng.standard_normal(m), np.diff(data.ptr))
    data.X[:, 3] = data.X[:, 2] * data.Z[:, 1]
    blocks, sums = data.compressed(core)
    shared, counts, _ = core.share(blocks, 2, 5, m, 2, MANY_PASSES)
    Lambda = np.array([[0.8, 0.0], [0.2, 0.5]])
    want = core.evaluate(blocks, 2, 5, Lambda, sums.perp, True, 1)
    got = core.evaluate(shared, 2, 5, Lambda, sums.perp, True, 1, counts)
    assert_totals(*(unflatten(x, 2, 5, True) for x in (got, want)), 1e-12)


@cores
@pytest.mark.parametrize("m", [10, 63, 5000])
def test_nothing_to_share(core, m):
    """Few clusters; designs that do not repeat; designs that repeat too rarely."""
    rng = np.random.default_rng(m)
    for counts in ([1] * m, [max(m // 500, 1)] * min(m, 500)):
        data = repeated(rng, counts, 2, 4)
        assert core.share(data.compressed(core)[0], 2, 5, len(data.ptr) - 1, 1, MANY_PASSES) is None


@cores
def test_the_border_refuses_counts_of_other_blocks(core):
    data = repeated(np.random.default_rng(0), [100], 1, 2)
    blocks, sums = data.compressed(core)
    with pytest.raises(ValueError, match="counts must have the shape"):
        core.evaluate(blocks, 1, 3, np.eye(1), sums.perp, False, 1, np.ones((1, 8)))
    with pytest.raises(ValueError, match="n_clusters and blocks differ"):
        core.share(blocks, 1, 3, 1000, 1, MANY_PASSES)


def trial(m: int, seed: int = 0, first: int = 0) -> pd.DataFrame:
    """Patients at the same five visits, some of whom miss the last two."""
    rng = np.random.default_rng(seed)
    visits = np.where(np.arange(m) % 3, 5, 3)
    g = np.repeat(np.arange(first, first + m), visits)
    t = np.concatenate([np.arange(k, dtype=float) for k in visits])
    dose = np.repeat(rng.standard_normal(m), visits)
    b = rng.standard_normal((m, 2)) * [1.0, 0.4]
    b = np.repeat(b, visits, axis=0)
    y = 3 + 0.5 * t + 0.2 * dose + b[:, 0] + b[:, 1] * t + rng.standard_normal(len(g))
    return pd.DataFrame({"y": y, "t": t, "dose": dose, "g": g})


FORMULA = "y ~ t * dose + (t | g)"


@pytest.fixture
def unshared(monkeypatch):
    """Fit without sharing."""

    def fit(data, **options):
        with monkeypatch.context() as patch:
            patch.setattr("lmmfast.engines.moments.MomentsEngine.evaluated", Unshared())
            return lmmfast.lmm(FORMULA, data, **options)

    return fit


class Unshared:
    """In the place of the plan: the clusters themselves."""

    def __get__(self, engine, owner=None):
        from lmmfast.engines.moments import Evaluated

        return Evaluated(engine.clusters.blocks)


def assert_same_fit(a, b, tolerance=1e-10):
    assert a.llf == pytest.approx(b.llf, rel=1e-12)
    np.testing.assert_allclose(a.params, b.params, rtol=tolerance)
    np.testing.assert_allclose(a.cov_params(), b.cov_params(), rtol=10 * tolerance, atol=1e-14)
    np.testing.assert_allclose(a.theta, b.theta, rtol=10 * tolerance)
    np.testing.assert_allclose(a.random_effects, b.random_effects, rtol=0, atol=10 * tolerance)


@pytest.fixture
def shared(monkeypatch):
    """Put clusters together even where a few passes over all of them cost less."""
    monkeypatch.setattr("lmmfast.engines.moments.MomentsEngine.expected_passes", MANY_PASSES)


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("loop", [False, True])
def test_same_fit(unshared, reml, loop):
    data = trial(2000)
    callback = (lambda entry: None) if loop else None
    fit = lmmfast.lmm(FORMULA, data, reml=reml, callback=callback)
    other = unshared(data, reml=reml)
    assert fit.n_designs is not None
    assert fit.n_designs <= 4
    assert other.n_designs is None
    assert_same_fit(fit, other)


@pytest.mark.usefixtures("shared")
def test_refit_and_append_go_on_from_all_clusters(unshared):
    # The searches begin elsewhere, so they agree only as far as they converge.
    data, more = trial(2000), trial(500, 1, first=2000)
    fit = lmmfast.lmm(FORMULA, data)
    y = data.y + np.sin(np.arange(len(data)))
    assert_same_fit(fit.refit(y), unshared(data.assign(y=y)), 1e-6)
    appended = fit.append(more)
    assert appended.n_designs is not None
    assert_same_fit(appended, unshared(pd.concat([data, more])), 1e-6)


def test_cheap_passes_are_left_alone():
    assert lmmfast.lmm(FORMULA, trial(2000)).n_designs is None
    long = FORMULA + " + " + " + ".join(f"x{k}" for k in range(4))
    data = trial(2000).query("g % 3 > 0")  # neighbours are alike, and fetched together
    x = np.random.default_rng(1).standard_normal((len(data), 4))
    assert lmmfast.lmm(long, data.assign(**{f"x{k}": x[:, k] for k in range(4)})).n_designs == 1


@pytest.mark.usefixtures("shared")
def test_unbalanced_data_are_left_alone():
    data = trial(2000)
    data["t"] += np.random.default_rng(5).uniform(0, 0.1, len(data))
    assert lmmfast.lmm(FORMULA, data).n_designs is None
    assert lmmfast.lmm("y ~ t + (1 | g)", data).n_designs == 2
    assert lmmfast.lmm(FORMULA, data[:1000], engine="reference").n_designs is None
