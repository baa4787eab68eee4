"""Simulated data for the benchmarks: written once by the parent, loaded by every child."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FORMULA = {
    "intercept": "y ~ t + x1 + t:x1 + (1 | id)",
    "slope": "y ~ t + x1 + t:x1 + (t | id)",
}
BETA = np.array([1.0, 0.5, -0.3, 0.2])
D = np.array([[1.0, 0.3], [0.3, 0.5]])
SIGMA = 1.0


class Arrays(NamedTuple):
    """The model as arrays: X (n, 4) is [1, t, x1, t x1]; Z (n, 2) is [1, t], or None for ones."""

    y: np.ndarray
    X: np.ndarray
    groups: np.ndarray
    Z: np.ndarray | None


def write(folder: Path, clusters: int, model: str, seed: int) -> int:
    """Simulate ``clusters`` clusters of 2 to 8 rows into ``folder``; return the number of rows.

    Times are continuous, so that no two clusters share a design; ids are sorted.
    """
    rng = np.random.default_rng([seed, clusters])
    sizes = rng.integers(2, 8, clusters, endpoint=True)
    id = np.repeat(np.arange(clusters), sizes)
    n = id.size
    t = rng.uniform(0.0, 3.0, n)
    x1 = rng.standard_normal(n)
    X = np.column_stack([np.ones(n), t, x1, t * x1])
    b = rng.standard_normal((clusters, 2)) @ np.linalg.cholesky(D).T
    if model == "intercept":
        b[:, 1] = 0.0
    y = X @ BETA + b[id, 0] + b[id, 1] * t + SIGMA * rng.standard_normal(n)
    for name, column in {"y": y, "t": t, "x1": x1, "id": id, "X": X}.items():
        np.save(folder / f"{name}.npy", column)
    return n


def load(folder: Path, model: str, kind: str) -> Any:
    """Load the data as ``kind``: arrays, columns (dict of arrays), pandas or polars."""
    if kind == "arrays":
        y, X, groups = (np.load(folder / f"{name}.npy") for name in ("y", "X", "id"))
        Z = np.ascontiguousarray(X[:, :2]) if model == "slope" else None
        return Arrays(y, X, groups, Z)
    columns = {name: np.load(folder / f"{name}.npy") for name in ("y", "t", "x1", "id")}
    if kind == "pandas":
        import pandas as pd

        return pd.DataFrame(columns)
    if kind == "polars":
        import polars as pl

        return pl.DataFrame(columns)
    return columns
