"""What eliminating crossed levels will fill is not overstated; communities are left alone."""

from __future__ import annotations

import numpy as np
import pytest

from lmmfast.engines.crossed_fill import least_entries
from lmmfast.grouping.levels import Levels


def levels(a: np.ndarray, b: np.ndarray) -> Levels:
    codes = tuple(np.unique(x, return_inverse=True)[1].astype(np.int64) for x in (a, b))
    columns = (np.array([0]), np.array([1]))
    labels = tuple(np.arange(c.max() + 1) for c in codes)
    return Levels(names=("a", "b"), columns=columns, codes=codes, labels=labels)


def entries_by_minimum_degree(both: Levels) -> int:
    """Entries of the Cholesky factor where the level of fewest neighbours goes first."""
    m = both.counts[0]
    near: list[set[int]] = [set() for _ in range(sum(both.counts))]
    for i, j in zip(*both.codes, strict=True):
        near[int(i)].add(m + int(j))
        near[m + int(j)].add(int(i))
    left, total = set(range(len(near))), 0
    while left:
        node = min(left, key=lambda k: (len(near[k]), k))
        left.remove(node)
        total += len(near[node])
        for k in near[node]:
            near[k] |= near[node]
            near[k] -= {node, k}
    return total


@pytest.mark.parametrize(
    ("rows", "m", "n"), [(6000, 600, 400), (2400, 600, 400), (1800, 600, 400), (4000, 800, 200)]
)
def test_levels_that_meet_at_random(rows: int, m: int, n: int) -> None:
    rng = np.random.default_rng(rows)
    both = levels(rng.integers(0, m, rows), rng.integers(0, n, rows))
    said, true = least_entries(both, 1.0), entries_by_minimum_degree(both)
    assert 0.3 * true < said < true


def test_communities_and_neighbours() -> None:
    rng = np.random.default_rng(0)
    school = rng.integers(0, 40, 8000)
    pupil, teacher = (
        25 * school + rng.integers(0, 25, 8000),
        10 * school + rng.integers(0, 10, 8000),
    )
    assert least_entries(levels(pupil, teacher), 1.0) == 0.0
    here = rng.integers(0, 1000, 8000)
    near = (here + rng.integers(-4, 5, 8000)) // 2
    assert least_entries(levels(here, near), 1.0) == 0.0


def test_few_levels_are_not_looked_at() -> None:
    rng = np.random.default_rng(1)
    both = levels(rng.integers(0, 600, 3000), rng.integers(0, 400, 3000))
    assert least_entries(both, 0.5 * 400**2) == 0.0
    assert least_entries(both, 0.5 * 390**2) > 0.0
