"""Simulated data for the benchmarks: written once by the parent, loaded by every child."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from levels import Levels
from structured import Structured
from workloads import AnyWorkload, Workload

BETA = 1.0, 0.5, -0.3, 0.2  # of 1, t, x1, t x1; further columns have FURTHER
FURTHER = 0.1
SIGMA = 1.0
# Times and covariates are multiples of this: t x1 is then exact in single precision too, so that
# all peers fit the same numbers whoever forms the product.
GRID = 2.0**-9


class Arrays(NamedTuple):
    """The model as arrays: X (n, p); Z (n, q), or None for ones."""

    y: np.ndarray
    X: np.ndarray
    groups: np.ndarray
    Z: np.ndarray | None


class LevelsArrays(NamedTuple):
    """As `Arrays`, with an array of labels for each grouping factor, all with intercepts."""

    y: np.ndarray
    X: np.ndarray
    groups: list[np.ndarray]
    Z: None = None


class StructuredArrays(NamedTuple):
    """As `Arrays`, with the columns that the residual structure depends on."""

    y: np.ndarray
    X: np.ndarray
    groups: np.ndarray
    Z: np.ndarray | None
    columns: dict[str, np.ndarray]


def covariance(q: int) -> np.ndarray:
    """Covariance matrix D of the random effects (intercept, t, x1, …)."""
    scale = np.sqrt([1.0, 0.5, *[0.25] * (q - 2)][:q])
    return np.outer(scale, scale) * (0.4 + 0.6 * np.eye(q))


def write(folder: Path, size: int, workload: AnyWorkload, seed: int) -> int:
    """Simulate into ``folder``, a file for each column; return the number of rows."""
    rng = np.random.default_rng([seed, size])
    if isinstance(workload, Workload):
        return write_clusters(folder, size, workload, rng)
    columns = workload.make(rng, size)
    for name, column in columns.items():
        if name not in workload.groups:
            column = column.astype(float, copy=False)
        np.save(folder / f"{name}.npy", column)
    return len(columns["y"])


def write_clusters(
    folder: Path, clusters: int, workload: Workload, rng: np.random.Generator
) -> int:
    """Clusters with random effects; no more than a few columns are in memory at a time."""
    counts = rng.integers(*workload.sizes, clusters, endpoint=True)
    id = np.repeat(np.arange(clusters), counts)
    n = id.size
    b = rng.standard_normal((clusters, workload.q)) @ np.linalg.cholesky(covariance(workload.q)).T
    y = SIGMA * rng.standard_normal(n) + BETA[0] + b[id, 0]
    order = rng.permutation(n) if workload.shuffled else None

    def save(name: str, column: np.ndarray) -> None:
        if column.dtype == np.float64:
            column = column.astype(workload.dtype, copy=False)
        np.save(folder / f"{name}.npy", column if order is None else column[order])

    for k, name in enumerate(workload.covariates):
        if workload.repeated and k < 2:
            column = (
                np.tile(np.arange(counts[0]), clusters) if k == 0 else rng.normal(size=clusters)
            )
            column = column.astype(float) if k == 0 else column[id]
        else:
            column = rng.uniform(0.0, 3.0, n) if k == 0 else rng.standard_normal(n)
        np.rint(column / GRID, out=column)
        column *= GRID
        if k == 0:
            t = column
        y += column * (BETA[k + 1] if k < 2 else FURTHER)
        if k == 1:
            y += BETA[3] * (t * column)
        if name in workload.z_names:
            y += b[id, k + 1] * column
        save(name, column)
    save("y", y)
    save("id", id)
    return n


def load(folder: Path, workload: AnyWorkload, kind: str) -> Any:
    """Load the data as ``kind``: arrays, columns (dict of arrays), pandas or polars."""
    if kind == "arrays" and isinstance(workload, Structured):
        return structured_arrays(load(folder, workload, "pandas"), workload)
    if kind == "arrays" and isinstance(workload, Levels):
        return levels_arrays(load(folder, workload, "pandas"), workload)
    if kind == "arrays":
        y, groups = read(folder, "y"), read(folder, "id")
        X = matrix(folder, workload, [*workload.x_names], y)
        Z = matrix(folder, workload, [*workload.z_names], y) if workload.q > 1 else None
        return Arrays(y, X, groups, Z)
    columns = {name: read(folder, name) for name in ("y", *workload.covariates, *workload.groups)}
    if kind == "pandas":
        import pandas as pd

        frame = pd.DataFrame(columns, copy=False)
        return frame.astype(dict.fromkeys(workload.factors, "category"))
    for name in workload.factors if isinstance(workload, Levels) else ():
        columns[name] = np.array([f"{value:02.0f}" for value in columns[name]])
    if kind == "polars":
        import polars as pl

        return pl.DataFrame(columns)
    return columns


def levels_arrays(frame: Any, workload: Levels) -> LevelsArrays:
    """Make X from the formula, and one label of the labels of a:b: that is not timed."""
    from formulaic import model_matrix

    y, X = model_matrix(workload.fixed, frame)
    groups = []
    for factor in workload.by:
        labels = np.zeros(len(frame), dtype=np.int64)
        for name in factor.split(":"):
            labels = labels * (int(frame[name].max()) + 1) + frame[name].to_numpy()
        groups.append(labels)
    values = np.ascontiguousarray(X, dtype=float)
    return LevelsArrays(np.asarray(y, dtype=float)[:, 0], values, groups)


def structured_arrays(frame: Any, workload: Structured) -> StructuredArrays:
    """Make X from the formula: that is not timed."""
    from formulaic import model_matrix

    columns = {name: frame[name].to_numpy(float) for name in workload.covariates}
    y, X = model_matrix(workload.fixed, frame)
    Z = np.ones((len(X), 1)) if workload.intercept else None
    values = np.ascontiguousarray(X, dtype=float)
    return StructuredArrays(np.asarray(y)[:, 0], values, frame["id"].to_numpy(), Z, columns)


def read(folder: Path, name: str, mode: Literal["r"] | None = None) -> np.ndarray:
    """One column, or the elementwise product of two (``t:x1``)."""
    first, _, second = name.partition(":")
    column: np.ndarray = np.load(folder / f"{first}.npy", mmap_mode=mode)
    return column * read(folder, second, mode) if second else column


def matrix(folder: Path, workload: Workload, names: list[str], like: np.ndarray) -> np.ndarray:
    """Ones and the columns named, (n, 1 + len(names)), row by row in memory."""
    out = np.empty((len(like), 1 + len(names)), dtype=like.dtype)
    out[:, 0] = 1.0
    for j, name in enumerate(names, 1):
        out[:, j] = read(folder, name, "r")
    return out
