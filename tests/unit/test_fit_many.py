"""Many responses on one design: the same numbers as one at a time, failures on their own."""

import warnings

import numpy as np
import pandas as pd
import pytest

import lmmfast as lf
from lmmfast.errors import ConvergenceWarning, DataError, RankWarning, UnsupportedModelError

M = 40


def problem(seed=0, r=13, m=M, unbalanced=True, q=2):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 7, m) if unbalanced else np.full(m, 5)
    groups = np.repeat(rng.permutation(m), sizes)
    n = groups.size
    t = rng.uniform(0, 3, n)
    X = np.column_stack([np.ones(n), t, rng.standard_normal(n)])
    Z = X[:, :q]
    size = np.exp(rng.normal(0, 1, (2, r)))
    b = rng.standard_normal((m, q, r)) * size[0]
    Y = X @ rng.normal(0, 3, (3, r)) + rng.standard_normal((n, r)) * size[1]
    for k in range(q):
        Y += Z[:, [k]] * b[groups, k]
    shuffle = rng.permutation(n)
    return Y[shuffle], X[shuffle], groups[shuffle], Z[shuffle]


def assert_same(fits, k, one):
    assert fits.llf[k] == pytest.approx(one.llf, rel=1e-10)
    se = one.bse.to_numpy()
    np.testing.assert_allclose(fits.beta[k], one.params, rtol=0, atol=1e-6 * se.min())
    np.testing.assert_allclose(fits.bse[k], one.bse, rtol=1e-6)
    np.testing.assert_allclose(fits.theta[k], one.theta, rtol=1e-5, atol=1e-6 * one.scale)
    assert fits.converged[k] == one.converged
    assert (fits.status[k] == "converged on the boundary") == one.certificate.on_boundary


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("q", [1, 2, 3])
def test_same_as_one_at_a_time(q, reml):
    Y, X, groups, Z = problem(q, q=q)
    fits = lf.fit_many(Y, X, groups, Z, reml=reml)
    assert fits.method == ("REML" if reml else "ML")
    for k in range(Y.shape[1]):
        assert_same(fits, k, lf.fit(Y[:, k], X, groups, Z, reml=reml))


@pytest.mark.parametrize("p", [2, 3])
@pytest.mark.parametrize("q", [1, 2])
def test_repeated_designs(q, p):
    """Subjects of one design are put together, those of rare ones stay: the same fits."""
    rng = np.random.default_rng(q)
    sizes = np.r_[np.full(60, 5), np.full(30, 3), [1, 2, 4, 4]]
    groups, t = (
        np.repeat(np.arange(len(sizes)), sizes),
        np.concatenate([np.arange(k) for k in sizes]),
    )
    X = np.column_stack([np.ones(len(t)), t, np.sin(t)])[:, :p]
    b = rng.standard_normal((len(sizes), 2, 11)) * [[[1.0], [0.3]]]
    Y = X @ rng.standard_normal((p, 11)) + rng.standard_normal((len(t), 11))
    Y += b[groups, 0] + b[groups, 1] * t[:, None]
    fits = lf.fit_many(Y, X, groups, X[:, :q])
    for k in range(Y.shape[1]):
        assert_same(fits, k, lf.fit(Y[:, k], X, groups, X[:, :q]))


@pytest.mark.parametrize("structure", [lf.D.diag(), lf.D.identity(), lf.D.cs(hom=True)])
def test_structures_weights_and_offset(structure):
    Y, X, groups, Z = problem(7, r=9)
    rng = np.random.default_rng(1)
    weights, offset = rng.uniform(0.2, 3, len(Y)), rng.normal(0, 5, len(Y))
    options = {"D": structure, "weights": weights, "offset": offset}
    fits = lf.fit_many(Y, X, groups, Z, **options)
    for k in range(Y.shape[1]):
        assert_same(fits, k, lf.fit(Y[:, k], X, groups, Z, **options))


def test_many_columns_of_X_and_large_clusters():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(12), [80, 33, 32, 31, 5, 5, 5, 5, 100, 2, 1, 40])
    n = groups.size
    X = np.column_stack([np.ones(n), rng.standard_normal((n, 14))])
    Y = rng.standard_normal((12, 11))[groups] + rng.standard_normal((n, 11))
    fits = lf.fit_many(Y, X, groups)
    for k in range(11):
        assert_same(fits, k, lf.fit(Y[:, k], X, groups))


def test_scales_and_shifts_of_the_responses():
    Y, X, groups, Z = problem(4, r=6)
    factors = np.array([1.0, 1e8, 1e-8, 1e120, 1e-120, 1.0])
    shifts = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1e9])
    fits = lf.fit_many(Y * factors + shifts, X, groups, Z)
    for k in range(6):
        one = lf.fit(Y[:, k] * factors[k] + shifts[k], X, groups, Z)
        assert fits.llf[k] == pytest.approx(one.llf, rel=1e-9)
        np.testing.assert_allclose(fits.beta[k], one.params, rtol=1e-6)


def test_same_bits_for_any_number_of_threads_and_any_neighbours():
    Y, X, groups, Z = problem(5, r=40)
    one = lf.fit_many(Y, X, groups, Z, n_jobs=1)
    for n_jobs in (2, 5):
        many = lf.fit_many(Y, X, groups, Z, n_jobs=n_jobs)
        assert np.array_equal(one.llf, many.llf)
        assert np.array_equal(one.theta, many.theta)
        assert np.array_equal(one.beta, many.beta)
    reverse = lf.fit_many(Y[:, ::-1], X, groups, Z)
    np.testing.assert_allclose(reverse.llf[::-1], one.llf, rtol=1e-13)


@pytest.mark.parametrize("unbalanced", [True, False])
def test_same_bits_for_any_number_of_threads_over_several_chunks(unbalanced):
    Y, X, groups, Z = problem(8, r=1100, unbalanced=unbalanced)
    one = lf.fit_many(Y, X, groups, Z, n_jobs=1)
    for n_jobs in (2, 3):
        many = lf.fit_many(Y, X, groups, Z, n_jobs=n_jobs)
        assert np.array_equal(one.llf, many.llf)
        assert np.array_equal(one.theta, many.theta)


def test_a_generator_may_use_its_array_again():
    Y, X, groups, Z = problem(9, r=40)

    def blocks():
        room = np.empty((len(Y), 10))
        for k in range(0, 40, 10):
            room[:] = Y[:, k : k + 10]
            yield room

    whole = lf.fit_many(Y, X, groups, Z, n_jobs=2)
    streamed = lf.fit_many(blocks(), X, groups, Z, n_jobs=2)
    np.testing.assert_allclose(streamed.llf, whole.llf, rtol=1e-13)


def test_chunks_iterables_and_tables_give_the_same():
    Y, X, groups, Z = problem(6, r=300)
    whole = lf.fit_many(Y, X, groups, Z)
    assert len(whole) == 300  # more than one chunk
    streamed = lf.fit_many((Y[:, k : k + 70] for k in range(0, 300, 70)), X, groups, Z)
    np.testing.assert_allclose(streamed.llf, whole.llf, rtol=1e-13)
    table = pd.DataFrame(Y[:, :5], columns=list("abcde"))
    named = lf.fit_many(table, X, groups, Z)
    assert named.y_names == list("abcde")
    np.testing.assert_allclose(named.llf, whole.llf[:5], rtol=1e-13)
    single = lf.fit_many(Y[:, 0].astype(np.float32), X, groups, Z)
    assert len(single) == 1


def test_failures_stay_with_their_response():
    Y, X, groups, Z = problem(8, r=6)
    bad = Y.copy()
    bad[3, 1] = np.nan
    bad[:, 2] = 7.0
    bad[5, 4] = np.inf
    with pytest.warns(ConvergenceWarning, match=r"3 of 6 responses .* 'y1'"):
        fits = lf.fit_many(bad, X, groups, Z)
    assert fits.status[1] == fits.status[4] == "a value is missing or infinite"
    assert fits.status[2].startswith("constant")
    assert fits.converged.tolist() == [True, False, False, True, False, True]
    assert np.isnan(fits.llf[[1, 2, 4]]).all()
    assert np.isnan(fits.beta[[1, 2, 4]]).all()
    good = lf.fit_many(Y[:, [0, 3, 5]], X, groups, Z)
    np.testing.assert_allclose(fits.llf[[0, 3, 5]], good.llf, rtol=1e-13)


def test_too_few_evaluations_are_reported():
    Y, X, groups, Z = problem(9, r=4)
    with pytest.warns(ConvergenceWarning, match="4 of 4"):
        fits = lf.fit_many(Y, X, groups, Z, max_iter=1)
    assert all("max_iter=1" in text for text in fits.status)


def test_dependent_columns_are_dropped_once():
    Y, X, groups, Z = problem(10, r=4)
    twice = np.column_stack([X, X[:, 1]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fits = lf.fit_many(Y, twice, groups, Z)
    assert [w.category for w in caught] == [RankWarning]
    assert fits.x_names == ["x0", "x1", "x2"]
    np.testing.assert_allclose(fits.llf, lf.fit_many(Y, X, groups, Z).llf, rtol=1e-12)


def test_frames():
    Y, X, groups, Z = problem(11, r=3)
    fits = lf.fit_many(Y, X, groups, Z, x_names=["one", "t", "x"], y_names=["a", "b", "c"])
    frame = fits.to_frame()
    assert list(frame.index) == ["a", "b", "c"]
    assert {"one", "t", "x", "var(Residual)", "llf", "status"} <= set(frame.columns)
    tidy = fits.tidy()
    one = lf.fit(Y[:, 1], X, groups, Z, x_names=["one", "t", "x"])
    one = one.inference("normal").tidy()
    mine = tidy[tidy["response"] == "b"].set_index("term").drop(columns="response")
    np.testing.assert_allclose(mine.to_numpy(), one.to_numpy(), rtol=1e-5)
    assert list(mine.columns) == list(one.columns)
    assert "3 responses, 3 converged" in repr(fits)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"Y": np.empty((0, 3))}, DataError, "nothing to fit"),
        ({"Y": np.array([["a", "b"]])}, DataError, "must be numbers"),
        ({"Y": iter(())}, DataError, "no columns"),
        ({"Y": {}}, DataError, "no columns: the keys of a mapping must be their names"),
        ({"Y": {1: 2}}, DataError, "no columns: the keys of a mapping must be their names"),
        ({"Y": [[1, 2], [3]]}, DataError, "'Y' has rows of different lengths"),
        ({"X": [[1, 2], [3]]}, DataError, "'X' has rows of different lengths"),
        ({"Z": [[1, 2], [3]]}, DataError, "'Z' has rows of different lengths"),
        ({"groups": {}}, DataError, "groups has no columns"),
        ({"offset": "none"}, DataError, "the offset must be numbers"),
        ({"y_names": ["a"]}, DataError, "names are given"),
        ({"offset": np.ones(2)}, DataError, "offset"),
        ({"D": lf.D.cs()}, UnsupportedModelError, "one by one"),
        ({"X": np.ones((5, 1))}, DataError, "rows"),
    ],
)
def test_bad_input(change, error, message):
    Y, X, groups, Z = problem(12, r=3)
    arguments = {"Y": Y, "X": X, "groups": groups, "Z": Z} | change
    with pytest.raises(error, match=message):
        lf.fit_many(**arguments)
