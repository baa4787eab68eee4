"""Rows that go into packs straight from the user's arrays, against the same rows staged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from samples import LEVELS, Sample

cores = pytest.mark.parametrize("core", list(LEVELS.values()), ids=list(LEVELS))
SIZES = [[3, 2, 4, 1] * 50, [3, 8, 1, 5, 2, 2, 7, 4, 6, 5, 3] * 30, [9, 32, 1, 17, 40] * 20]


def strided(columns: np.ndarray) -> np.ndarray:
    """Every third column of a table."""
    table = np.full((len(columns), 3 * columns.shape[1]), np.nan)
    table[:, 1::3] = columns
    return table[:, 1::3]


LAYOUTS = {"C": np.ascontiguousarray, "F": np.asfortranarray, "strided": strided}


def sample(q: int, p: int, sizes: list[int]) -> Sample:
    """Z's columns are among X's, as far as there are so many."""
    rng = np.random.default_rng([q, p])
    ptr = np.append(0, np.cumsum(sizes)).astype(np.int64)
    X, Z = (rng.standard_normal((ptr[-1], k)) for k in (p, q))
    Z[:, 0] = 1.0
    shared = min(p, q)
    X[:, :shared] = Z[:, :shared]
    return Sample(X, Z, rng.standard_normal(ptr[-1]), ptr)


@cores
@pytest.mark.parametrize("sizes", SIZES, ids=["few", "eight", "long"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("q", "p"), [(1, 1), (1, 4), (2, 2), (2, 5), (3, 3), (3, 7), (2, 14)])
def test_as_staged(core, q, p, layout, sizes):
    given = sample(q, p, sizes)
    make = LAYOUTS[layout]
    data = replace(given, X=make(given.X), Z=make(given.Z))
    # An order, even this one, has the rows staged.
    staged = replace(data, order=np.arange(len(data.y)))
    blocks, sums = data.compressed(core)
    want_blocks, want = staged.compressed(core)
    np.testing.assert_allclose(blocks, want_blocks, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(sums.perp, want.perp, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(sums.gram, want.gram, rtol=1e-11, atol=1e-11)
    assert (sums.rank_Z, sums.z_in_x) == (want.rank_Z, want.z_in_x)
    for n_threads in (2, 5):
        again, sums_again = data.compressed(core, n_threads)
        np.testing.assert_array_equal(again, blocks)
        np.testing.assert_array_equal(sums_again.perp, sums.perp)
