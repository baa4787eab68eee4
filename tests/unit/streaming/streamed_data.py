"""One data set for the tests of streams, and files of it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

FORMULA = "y ~ t * arm + scale(x) + (t | id)"


def rows(m: int = 2000, seed: int = 1) -> pd.DataFrame:
    """Clusters of 1 to 8 rows, ascending, a factor, and some missing values."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, m)
    cluster = np.repeat(np.arange(m), sizes)
    n = len(cluster)
    d = pd.DataFrame(
        {
            "id": cluster * 3,
            "t": rng.normal(size=n) + 5,
            "arm": rng.choice(["b", "a", "c"], n),
            "x": rng.normal(size=n) * 2,
            "w": rng.uniform(0.5, 2, n),
            "o": rng.normal(size=n),
        }
    )
    b = rng.normal(size=(m, 2)) @ np.array([[1, 0.3], [0, 0.5]])
    d["y"] = 1 + 0.5 * d.t + 0.3 * (d.arm == "b") + b[cluster, 0] + b[cluster, 1] * d.t
    d["y"] += rng.normal(size=n)
    d.loc[rng.integers(0, n, 40), "x"] = np.nan
    return d


def write(d: pd.DataFrame, folder, n_files: int = 3, group_rows: int = 900) -> str:
    """Write Parquet files of equal parts; return a pattern."""
    ends = np.linspace(0, len(d), n_files + 1).astype(int)
    for k, (first, end) in enumerate(pairwise(ends)):
        part = d.iloc[first:end]
        path = folder / f"part{k}.parquet"
        part.to_parquet(path, row_group_size=group_rows, index=False, write_page_checksum=True)
    return str(folder / "*.parquet")


def scattered(d: pd.DataFrame) -> pd.DataFrame:
    """The same rows in random order."""
    return d.sample(frac=1, random_state=3).reset_index(drop=True)
