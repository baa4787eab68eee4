"""The crossed engine against the reference engine of levels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lmmfast.arrays import vech_pairs
from lmmfast.engines.crossed import build_crossed
from lmmfast.engines.reference_levels import LevelsReferenceEngine
from lmmfast.errors import UnsupportedModelError
from lmmfast.grouping.levels import Levels

DESIGNS: dict[str, tuple[int, ...]] = {
    # Columns of Z that each factor has.
    "crossed": (1, 1),
    "slopes": (2, 1),
    "both slopes": (1, 2),
    "three": (1, 1, 1),
    "three slopes": (2, 1, 2),
    "partial": (1, 2),
    "in crossed": (1, 1, 1),
    "in crossed slopes": (2, 2, 1),
    "two parents": (1, 1, 2),
    "nested": (2, 1, 1),
    "disconnected": (1, 2),
    "single": (2,),
}


def codes_of(name: str, n: int, rng: Any) -> list[Any]:
    """Levels of each row, before empty ones are taken out."""
    if name in ("crossed", "slopes", "both slopes"):
        return [rng.integers(0, 23, n), rng.integers(0, 9, n)]
    if name in ("three", "three slopes"):
        return [rng.integers(0, k, n) for k in (7, 19, 5)]
    if name == "partial":
        pupil = rng.integers(0, 30, n)
        return [pupil, (pupil // 4 + (rng.random(n) < 0.15)) % 8]
    if name in ("in crossed", "in crossed slopes"):
        inner = rng.integers(0, 24, n)
        return [inner // 4, inner, rng.integers(0, 8, n)]
    if name == "two parents":
        inner = rng.integers(0, 24, n)
        return [inner, inner // 5, inner % 5]
    if name == "nested":
        inner = rng.integers(0, 30, n)
        return [inner // 10, inner // 3, inner]
    if name == "disconnected":
        part = rng.integers(0, 3, n)
        return [part * 8 + rng.integers(0, 8, n), part * 3 + rng.integers(0, 3, n)]
    return [rng.integers(0, 20, n)]


class Problem:
    """Random rows of a design."""

    def __init__(self, name: str, weights: bool, n: int = 130, p: int = 2, seed: int = 5) -> None:
        rng = np.random.default_rng(seed)
        codes = [np.unique(c, return_inverse=True)[1] for c in codes_of(name, n, rng)]
        sizes = DESIGNS[name]
        self.q = sum(sizes)
        columns = np.split(rng.permutation(self.q), np.cumsum(sizes)[:-1])
        self.levels = Levels(
            tuple("abc"[: len(codes)]),
            tuple(np.sort(c) for c in columns),
            tuple(c.astype(np.int64) for c in codes),
            tuple(np.unique(c) for c in codes),
        )
        self.A = rng.normal(size=(n, p + 1))
        self.A[:, 0] = 1.0
        self.Z = rng.normal(size=(n, self.q))
        for own in self.levels.columns:
            self.Z[:, own[0]] = 1.0
        self.weights = rng.uniform(0.3, 2.0, n) if weights else None
        self.Lambda = np.zeros((self.q, self.q))
        for own in self.levels.columns:
            block = np.tril(rng.normal(0, 0.4, (len(own), len(own)))) + 0.7 * np.eye(len(own))
            self.Lambda[np.ix_(own, own)] = block
        self.reference = LevelsReferenceEngine(self.A, self.Z, self.weights, self.levels)

    def working(self, rows: Any) -> tuple[Any, Any, Any]:
        weights = None if self.weights is None else self.weights[rows]
        return self.A[rows], self.Z[rows], weights

    def engine(self, n_threads: int = 2, **options: Any) -> Any:
        return build_crossed(self.levels, self.working, n_threads, **options)

    def without(self, *factors: int) -> Any:
        """Lambda with the variances of some factors at zero."""
        Lambda = self.Lambda.copy()
        for f in factors:
            Lambda[self.levels.columns[f]] = 0.0
        return Lambda


#: The dense block as it is chosen, and as little of it as the factor leaves.
BLOCKS = {"dense": {}, "sparse": {"dense_any": 0, "dense_most": 3}}


def assert_totals(found: Any, wanted: Any, loose: float = 1e-9) -> None:
    def close(a: Any, b: Any, rtol: float) -> None:
        assert_allclose(a, b, rtol=rtol, atol=rtol * (np.abs(b).max() + 1e-3))

    if found.shift is not None:  # they are of y - X shift
        T = np.eye(len(found.gram))
        T[:-1, -1] = -found.shift
        kr = None if wanted.kr is None else T.T @ wanted.kr @ T
        wanted = replace(wanted, gram=T.T @ wanted.gram @ T, quad=T.T @ wanted.quad @ T, kr=kr)
    close(found.logdet, wanted.logdet, 1e-9)
    close(found.gram, wanted.gram, 1e-9)
    close(found.trace, wanted.trace, loose)
    close(found.quad, wanted.quad, loose)
    if found.kr is not None:
        close(found.info, wanted.info, loose)
        close(found.kr, wanted.kr, loose)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("name", DESIGNS)
def test_totals(name: str, weights: bool, block: str) -> None:
    problem = Problem(name, weights)
    engine = problem.engine(**BLOCKS[block])
    assert_allclose(engine.gram, problem.reference.gram, rtol=1e-12)
    found = engine.totals(problem.Lambda, with_kr=True)
    assert found.kr is not None
    assert_totals(found, problem.reference.totals(problem.Lambda, with_kr=True))
    engine.exact_limit = 0
    assert engine.totals(problem.Lambda, with_kr=True).kr is None
    by_solves = engine.second_order(problem.Lambda)
    assert_allclose(by_solves, found.kr, rtol=1e-9, atol=1e-9 * np.abs(found.kr).max())


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", DESIGNS)
def test_zero_variances(name: str, block: str) -> None:
    problem = Problem(name, True)
    engine = problem.engine(**BLOCKS[block])
    every = range(len(problem.levels.names))
    for zeros in [*((f,) for f in every), tuple(every)]:
        Lambda = problem.without(*zeros)
        assert_totals(
            engine.totals(Lambda, with_kr=True),
            problem.reference.totals(Lambda, with_kr=True),
            1e-7,
        )


@pytest.mark.parametrize("size", [1e-6, 1e-4, 1e-2, 1e3])
@pytest.mark.parametrize("name", ["three slopes", "in crossed slopes", "partial"])
def test_small_and_large_variances(name: str, size: float) -> None:
    problem = Problem(name, False)
    for f in range(len(problem.levels.names)):
        Lambda = problem.Lambda.copy()
        Lambda[problem.levels.columns[f]] *= size
        found, wanted = problem.engine().totals(Lambda), problem.reference.totals(Lambda)
        assert_totals(found, wanted, 1e-7)


@pytest.mark.parametrize("name", ["slopes", "three slopes", "in crossed slopes"])
def test_singular_covariances(name: str) -> None:
    problem = Problem(name, False)
    Lambda = problem.Lambda.copy()
    for own in problem.levels.columns:
        Lambda[own[-1], own] = 0.5 * Lambda[own[0], own] if len(own) > 1 else Lambda[own, own]
    assert_totals(problem.engine().totals(Lambda), problem.reference.totals(Lambda), 1e-7)


def average_information(problem: Problem, Lambda: Any, keep: Any, reml: bool) -> Any:
    """By its definition, from V (n, n)."""
    V, dV = problem.reference._V(Lambda), problem.reference._dV()
    V_inv = np.linalg.inv(V)
    X, y = problem.A[:, keep], problem.A[:, -1]
    S_inv = np.linalg.inv(X.T @ V_inv @ X)
    r = y - X @ (S_inv @ (X.T @ (V_inv @ y)))
    w = V_inv @ r
    P = V_inv - V_inv @ X @ S_inv @ X.T @ V_inv if reml else V_inv
    s2 = r @ w / (len(y) - reml * len(keep))
    return 0.5 * np.einsum("i,kij,jh,lhm,m->kl", w, dV, P, dV, w, optimize=True) / s2


@pytest.mark.parametrize("reml", [False, True])
@pytest.mark.parametrize("name", DESIGNS)
def test_average_information(name: str, reml: bool) -> None:
    problem = Problem(name, True, p=3)
    for keep in (np.arange(3), np.array([0, 2])):
        for f in (None, 0, len(problem.levels.names) - 1):
            Lambda = problem.Lambda if f is None else problem.without(f)
            engine = problem.engine().for_problem(keep, len(problem.A), reml)
            found = engine.totals(Lambda).info
            wanted = average_information(problem, Lambda, keep, reml)
            tolerance = 1e-9 if f is None else 1e-6
            assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max())


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("name", DESIGNS)
def test_random_effects(name: str, block: str) -> None:
    problem = Problem(name, True)
    engine = problem.engine(**BLOCKS[block])
    c = np.array([-0.4, 0.3, 1.0])
    root = problem.Lambda * 1.3
    for Lambda in (problem.Lambda, problem.without(0), problem.without(len(DESIGNS[name]) - 1)):
        for ours, wanted in zip(
            engine.random_effects(Lambda, root, c),
            problem.reference.random_effects(Lambda, root, c),
            strict=True,
        ):
            assert_allclose(ours, wanted, rtol=1e-7, atol=1e-8)
        for ours, wanted in zip(
            engine.random_effects_cov(Lambda, root),
            problem.reference.random_effects_cov(Lambda, root),
            strict=True,
        ):
            assert_allclose(ours, wanted, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("block", BLOCKS)
def test_threads(block: str) -> None:
    """The same to the last bit, with several tasks a stage and several tiles."""
    rng = np.random.default_rng(1)
    n, q = 30_000, 3
    codes = (rng.integers(0, 3000, n), rng.integers(0, 700, n))
    labels = (np.arange(3000), np.arange(700))
    levels = Levels(("a", "b"), (np.array([0, 2]), np.array([1])), codes, labels)
    A, Z = rng.normal(size=(n, 3)), rng.normal(size=(n, q))
    options = {} if block == "dense" else {"dense_any": 0, "dense_share": 2.0, "dense_most": 300}
    Lambda = np.diag([0.5, 0.4, 0.3])
    first = None
    for n_threads in (1, 2, 5):
        engine = build_crossed(levels, lambda r: (A[r], Z[r], None), n_threads, **options)
        totals = engine.totals(Lambda)
        parts = [totals.logdet, totals.gram, totals.trace, totals.quad, totals.info]
        parts += engine.random_effects_cov(Lambda, Lambda)
        first = first or parts
        for ours, wanted in zip(parts, first, strict=True):
            assert np.array_equal(ours, wanted)


def test_factors_too_large_for_memory_are_refused() -> None:
    rng = np.random.default_rng(4)
    codes = (rng.integers(0, 300, 2000), rng.integers(0, 200, 2000))
    levels = Levels(
        ("a", "b"), (np.array([0]), np.array([1])), codes, (np.arange(300), np.arange(200))
    )
    A, Z = rng.normal(size=(2000, 2)), np.ones((2000, 2))
    with pytest.raises(UnsupportedModelError, match="'a', 'b' cross so irregularly"):
        build_crossed(levels, lambda r: (A[r], Z[r], None), 1, dense_any=0, most_entries=1000)


@pytest.mark.parametrize("slopes", [False, True])
def test_start(slopes: bool) -> None:
    """Moments come near the variances of large data."""
    rng = np.random.default_rng(2)
    n, counts = 40_000, (1500, 400)
    codes = tuple(rng.integers(0, m, n) for m in counts)
    labels = tuple(np.arange(m) for m in counts)
    columns = (np.array([0, 2]) if slopes else np.array([0]), np.array([1]))
    Z = np.ones((n, 2 + slopes))
    if slopes:
        Z[:, 2] = rng.normal(size=n)
    D = np.diag([0.5, 0.2, 0.3][: 2 + slopes])
    if slopes:
        D[0, 2] = D[2, 0] = 0.2
    X = np.column_stack([np.ones(n), rng.normal(size=n)])
    y = 3.0 * rng.normal(size=n)
    for own, m, code in zip(columns, counts, codes, strict=True):
        b = 3.0 * rng.multivariate_normal(np.zeros(len(own)), D[np.ix_(own, own)], m)
        y += (Z[:, own] * b[code]).sum(axis=1)
    A = np.column_stack([X, y])
    levels = Levels(("a", "b"), columns, codes, labels)
    engine = build_crossed(levels, lambda rows: (A[rows], Z[rows], None), 2)
    assert_allclose(engine.start(np.arange(2)), D, atol=0.05)


@pytest.mark.parametrize("name", DESIGNS)
def test_start_is_positive_definite(name: str) -> None:
    problem = Problem(name, True)
    start = problem.engine().start(np.arange(2))
    np.linalg.cholesky(start)
    owned = np.zeros_like(start, dtype=bool)
    for own in problem.levels.columns:
        owned[np.ix_(own, own)] = True
    assert not start[~owned].any()


def test_not_finite() -> None:
    """Totals that a search rejects, no exception."""
    problem = Problem("crossed", False)
    assert not problem.engine().totals(problem.Lambda * np.nan).logdet < np.inf


def test_vech_of_two_factors_is_zero() -> None:
    problem = Problem("three", False)
    totals = problem.engine().totals(problem.Lambda)
    row, column = vech_pairs(problem.q)
    assert not totals.trace[row != column].any()
    assert not totals.quad[row != column].any()
    assert not totals.info[row != column].any()
