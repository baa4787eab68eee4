"""Columns of Z that are columns of X: found in all rows; passes without them give the same."""

from __future__ import annotations

import numpy as np
import pytest
from samples import LEVELS, Sample, assert_totals

from lmmfast.engines.totals import unflatten

cores = pytest.mark.parametrize("core", list(LEVELS.values()), ids=list(LEVELS))
SIZES = [3, 8, 1, 5, 2, 2, 7, 4, 6, 31, 5, 3]


def sample(
    q: int, n_own: int, sizes=SIZES, weights=False, shuffled=False
) -> tuple[Sample, list[int]]:
    """Rows in which the columns of Z stand among those of X, in reverse."""
    rng = np.random.default_rng([q, n_own])
    ptr = np.append(0, np.cumsum(sizes)).astype(np.int64)
    n, p = int(ptr[-1]), q + n_own - 1
    X, Z = rng.standard_normal((n, p)), rng.standard_normal((n, q))
    Z[:, 0] = 1.0
    places = [p - 1 - k for k in range(q)]
    X[:, places] = Z
    order = rng.permutation(n) if shuffled else None
    w = rng.uniform(0.5, 2.0, n) if weights else None
    return Sample(X, Z, rng.standard_normal(n), ptr, order, w), places


@cores
@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize(("q", "n_own"), [(1, 1), (1, 4), (1, 7), (2, 1), (2, 3), (3, 2), (4, 3)])
def test_same_totals(core, q, n_own, weights, shuffled):
    data, places = sample(q, n_own, SIZES * 30, weights, shuffled)
    blocks, sums = data.compressed(core)
    assert sums.z_in_x == places
    Lambda = np.tril(np.random.default_rng(1).uniform(0.2, 1.0, (q, q)))
    for kr in (False, True):
        want = core.evaluate(blocks, q, data.p1, Lambda, sums.perp, kr, 1)
        got = core.evaluate(blocks, q, data.p1, Lambda, sums.perp, kr, 1, None, places)
        assert_totals(*(unflatten(x, q, data.p1, kr) for x in (got, want)), 1e-12)
        for n_threads in (2, 5):
            again = core.evaluate(
                blocks, q, data.p1, Lambda, sums.perp, kr, n_threads, None, places
            )
            np.testing.assert_array_equal(again, got)


@cores
@pytest.mark.parametrize("sizes", [[40, 3, 100, 33], [500], [2, 3, 4] * 400])
def test_found_only_if_the_same_in_every_row(core, sizes):
    data, places = sample(2, 3, sizes)
    assert data.compressed(core)[1].z_in_x == places
    for row in (0, len(data.y) // 2, len(data.y) - 1):
        X = data.X.copy()
        X[row, places[1]] = np.nextafter(X[row, places[1]], 9.0)
        other = Sample(X, data.Z, data.y, data.ptr)
        assert other.compressed(core)[1].z_in_x == []


@cores
def test_a_response_that_is_a_column_of_Z_is_none_of_X(core):
    data, _ = sample(2, 2)
    data = Sample(data.X[:, :1], data.Z, data.Z[:, 1].copy(), data.ptr)
    assert data.compressed(core)[1].z_in_x == []


@cores
def test_the_border_refuses_what_are_no_columns(core):
    data, _ = sample(2, 2)
    blocks, sums = data.compressed(core)
    for wrong in ([0], [0, 0], [0, 3], [-1, 0]):
        with pytest.raises(ValueError, match="z_in_x must"):
            core.evaluate(blocks, 2, data.p1, np.eye(2), sums.perp, False, 1, None, wrong)
