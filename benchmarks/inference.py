"""Time of small-sample tables after a fit: ``python benchmarks/inference.py [groups ...]``."""

from __future__ import annotations

import sys
import time

import numpy as np

import lmmfast as lf


def simulate(m: int) -> lf.LMMResult:
    """Simulate and fit a random slope over five times in m groups, with four fixed effects."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(m), 5)
    t = np.tile(np.arange(5.0), m)
    arm = (groups % 2).astype(float)
    X = np.column_stack([np.ones(5 * m), t, arm, arm * t])
    b = rng.normal(size=(m, 2)) * [1.0, 0.5]
    y = X @ [1.0, 0.2, 0.1, 0.0] + b[groups, 0] + b[groups, 1] * t + rng.normal(size=5 * m)
    return lf.fit(y, X, groups, X[:, :2])


def main() -> None:
    """Print a table in Markdown: best of three."""
    print("| groups | simulation and fit | Satterthwaite | Kenward and Roger | CR2 |")
    print("|---|---|---|---|---|")
    for m in [int(argument) for argument in sys.argv[1:]] or [1_000, 100_000, 1_000_000]:
        times: dict[str, list[float]] = {
            "fit": [],
            "satterthwaite": [],
            "kenward-roger": [],
            "CR2": [],
        }
        for _ in range(3):
            start = time.perf_counter()
            fit = simulate(m)
            times["fit"].append(time.perf_counter() - start)
            for ddf in ("satterthwaite", "kenward-roger"):
                fit.__dict__.pop("_inference_totals", None)
                start = time.perf_counter()
                fit.inference(ddf).tidy()
                times[ddf].append(time.perf_counter() - start)
            start = time.perf_counter()
            fit.inference(vcov="CR2").tidy()
            times["CR2"].append(time.perf_counter() - start)
        cells = [f"{1e3 * min(seconds):.1f} ms" for seconds in times.values()]
        print(f"| {m:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
