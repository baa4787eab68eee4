"""Data for the contract tests: rows of clusters of given sizes, compressed by a chosen build."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import numpy as np

import lmmfast
from lmmfast._dispatch import usable_levels
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.engines.reference import ReferenceEngine
from lmmfast.engines.totals import Totals, unflatten
from lmmfast.packing.compress import BatchSums, aligned_zeros

LEVELS = {level: importlib.import_module(f"lmmfast._core_{level}") for level in usable_levels()}

STRUCTURES = {
    "unstructured": lmmfast.D.unstructured(),
    "diag": lmmfast.D.diag(),
    "identity": lmmfast.D.identity(),
    "cs": lmmfast.D.cs(),
    "cs(hom)": lmmfast.D.cs(hom=True),
}


def blocks(*terms: tuple[str, int]) -> BlockCovariance:
    """Terms given as (structure, number of columns)."""
    names, sizes = zip(*terms, strict=True)
    return BlockCovariance(tuple(STRUCTURES[name] for name in names), sizes)


# Every structure, alone and in company.
COVARIANCES = {
    f"{name}-{q}": blocks((name, q))
    for name in STRUCTURES
    for q in (1, 2, 3, 4)
    if q > 1 or not name.startswith("cs")
} | {
    "diag-1+diag-1": blocks(("diag", 1), ("diag", 1)),
    "unstructured-2+diag-1": blocks(("unstructured", 2), ("diag", 1)),
    "cs-3+identity-2": blocks(("cs", 3), ("identity", 2)),
    "cs(hom)-2+unstructured-2": blocks(("cs(hom)", 2), ("unstructured", 2)),
}


def random_phi(covariance: BlockCovariance, rng: np.random.Generator) -> np.ndarray:
    """Root parameters of an ordinary point."""
    return rng.uniform(0.3, 1.2, covariance.n_params)


@dataclass(frozen=True)
class Sample:
    """Rows of clusters, in any order.

    ``order[ptr[i]:ptr[i + 1]]`` are the rows of cluster i; None: the rows as they stand.
    """

    X: np.ndarray  # (n, p)
    Z: np.ndarray  # (n, q)
    y: np.ndarray  # (n,)
    ptr: np.ndarray  # (m + 1,)
    order: np.ndarray | None = None
    weights: np.ndarray | None = None
    offset: np.ndarray | None = None

    @property
    def q(self) -> int:
        return self.Z.shape[1]

    @property
    def p1(self) -> int:
        return self.X.shape[1] + 1

    def reference(self) -> ReferenceEngine:
        rows = slice(None) if self.order is None else self.order
        y = self.y if self.offset is None else self.y - self.offset
        weights = None if self.weights is None else self.weights[rows]
        return ReferenceEngine(np.column_stack([self.X, y])[rows], self.Z[rows], weights, self.ptr)

    def compressed(
        self, core, n_threads: int = 1, x_mix=None, z_mix=None
    ) -> tuple[np.ndarray, BatchSums]:
        """Blocks and sums, without any shift or scale."""
        p, q, m = self.p1 - 1, self.q, len(self.ptr) - 1
        out = aligned_zeros((-(-m // core.lanes), q * (q + 1) // 2 + q * self.p1, core.lanes))
        sums = BatchSums(
            *core.compress_rows(
                [self.X[:, j] for j in range(p)],
                [self.Z[:, k] for k in range(q)],
                self.y,
                self.weights,
                self.offset,
                self.ptr,
                self.order,
                np.zeros(p),
                np.ones(p),
                np.zeros(q),
                np.ones(q),
                x_mix,
                z_mix,
                0.0,
                1.0,
                np.zeros(p),
                out,
                n_threads,
            )
        )
        return out, sums

    def totals(self, core, Lambda: np.ndarray, n_threads: int = 1, kr: bool = True) -> Totals:
        data, sums = self.compressed(core, n_threads)
        flat = core.evaluate(data, self.q, self.p1, Lambda, sums.perp, kr, n_threads)
        return unflatten(flat, self.q, self.p1, kr)


def sample(
    rng: np.random.Generator,
    sizes,
    q: int,
    p: int,
    *,
    weights: bool = False,
    offset: bool = False,
    shuffled: bool = False,
) -> Sample:
    """Draw a sample with clusters of these sizes; the first columns of X and Z are constant."""
    sizes = np.asarray(sizes)
    n = int(sizes.sum())
    X, Z = rng.standard_normal((n, p)), rng.standard_normal((n, q))
    X[:, 0] = Z[:, 0] = 1.0
    y = rng.standard_normal(n) + np.repeat(rng.standard_normal(len(sizes)), sizes)
    ptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Sample(
        X,
        Z,
        y,
        ptr,
        rng.permutation(n) if shuffled else None,
        rng.uniform(0.1, 4.0, n) if weights else None,
        rng.standard_normal(n) if offset else None,
    )


def assert_totals(got: Totals, want: Totals, tolerance: float) -> None:
    """Every total to a tolerance relative to its largest entry."""
    for name in ("logdet", "gram", "trace", "quad", "info", "kr"):
        a, b = getattr(got, name), getattr(want, name)
        if b is None:
            assert a is None
            continue
        error = np.max(np.abs(a - b)) / max(np.max(np.abs(b)), 1e-300)
        assert error <= tolerance, f"{name}: relative error {error:.2e}"
