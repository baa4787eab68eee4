"""Streamed fits against reading everything into pandas: peak memory and processor time.

    python benchmarks/streaming.py [rows] [folder]

Writes ``y ~ t + x + arm + (t | id)`` with ten rows a group, sorted and scattered, eight Parquet
files each, and runs each way in a process of its own. Processor seconds are user + system of the
whole process, its imports included; peaks are the largest resident sizes.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

FORMULA = "y ~ t + x + arm + (t | id)"
FILES = 8
CODE = {
    "pandas": "lf.lmm(F, pd.read_parquet(p))",
    "stream": "lf.lmm(F, p)",
    "stream, memory 512MB": "lf.lmm(F, lf.scan(p, memory='512MB'))",
    "stream, memory 128MB": "lf.lmm(F, lf.scan(p, memory='128MB'))",
}


def write(folder: Path, n: int, scattered: bool) -> Path:
    """Eight files; scattered: every group has rows in all of them."""
    path = folder / ("scattered" if scattered else "sorted")
    path.mkdir(exist_ok=True)
    rng = np.random.default_rng(7)
    m = n // 10
    b = rng.normal(size=(m, 2)) @ np.array([[1.0, 0.3], [0.0, 0.4]])
    for k in range(FILES):
        if scattered:
            ids = rng.integers(0, m, n // FILES)
        else:
            ids = np.repeat(np.arange(k * m // FILES, (k + 1) * m // FILES), 10)
        t, x = rng.uniform(0, 3, len(ids)), rng.normal(size=len(ids))
        arm = ids % 3 == 0
        y = 1 + 0.5 * t - 0.2 * x + 0.4 * arm + b[ids, 0] + b[ids, 1] * t
        columns = {"id": ids, "t": t, "x": x, "arm": arm.astype(np.int8)}
        table = pd.DataFrame({**columns, "y": y + rng.normal(size=len(ids))})
        table.to_parquet(path / f"{k}.parquet", index=False)
    return path


def child(way: str, path: str) -> None:
    """Fit once and say what it took."""
    import lmmfast as lf

    start = time.perf_counter()
    fit = eval(CODE[way], {"lf": lf, "pd": pd, "F": FORMULA, "p": path})
    wall = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "wall": wall,
                "cpu": used.ru_utime + used.ru_stime,
                "peak": used.ru_maxrss / 1024,
                "llf": fit.llf,
                "t": float(fit.params["t"]),
            }
        )
    )


def main(n: int, folder: str) -> None:
    """Run every way, and print a table."""
    print(f"| {n:,} rows | way | wall s | CPU s | peak MB | llf |\n|---|---|---|---|---|---|")
    for scattered in (False, True):
        path = write(Path(folder), n, scattered)
        for way in CODE:
            done = subprocess.run(
                [sys.executable, __file__, "--child", way, str(path)],
                capture_output=True,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout)
            print(
                f"| {path.name} | {way} | {found['wall']:.1f} | {found['cpu']:.1f} "
                f"| {found['peak']:.0f} | {found['llf']:.6f} |",
                flush=True,
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
    else:
        size = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
        with tempfile.TemporaryDirectory() as scratch:
            main(size, sys.argv[2] if len(sys.argv) > 2 else scratch)
