"""Time of bootstraps and power studies: ``python benchmarks/bootstrap.py [groups ...]``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import lmmfast as lf

SLOPES = "Reaction ~ Days + (Days | Subject)"


def seconds(call: Callable[[], Any], repeats: int = 3) -> float:
    """Best time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def simulate(m: int, shared: bool) -> lf.LMMResult:
    """Fit a random slope and four fixed effects: times common to all groups, or all different."""
    rng = np.random.default_rng(1)
    sizes = np.full(m, 4) if shared else rng.integers(2, 7, m)
    groups = np.repeat(np.arange(m), sizes)
    n = len(groups)
    t = np.tile(np.arange(4.0), m) if shared else rng.uniform(0, 3, n)
    X = np.column_stack([np.ones(n), t, groups % 2, groups % 2 * t])
    b = rng.normal(size=(m, 2)) * [1.0, 0.5]
    y = 1 + t + b[groups, 0] + b[groups, 1] * t + rng.normal(size=n)
    return lf.fit(y, X, groups, X[:, :2])


def small() -> None:
    """Print what small data sets take."""
    data = lf.datasets.sleepstudy()
    fit = lf.lmm(SLOPES, data)
    simple = lf.lmm("Reaction ~ Days + (1 | Subject)", data)
    pair = {"id": [0, 0, 1, 1], "arm": ["a", "a", "b", "b"]}
    truth = {"beta": [0.0, 1.0], "theta": [1.0, 1.0]}
    rows = {
        "sleepstudy, 1,000 replicates from moments": lambda: fit.bootstrap(1000, seed=1),
        "sleepstudy, 100 replicates by rows": lambda: fit.bootstrap(100, seed=1, method="rows"),
        "sleepstudy, likelihood ratio, 1,000 replicates": lambda: lf.compare(
            simple, fit, test="bootstrap", B=1000
        ),
        "power, 40 groups, 100 data sets": lambda: lf.power(
            "y ~ arm + (1 | id)", pair, "arm[T.b] = 0", **truth, sizes=[40], n_sim=100, seed=1
        ),
    }
    print("| | seconds |\n|---|---|")
    for name, call in rows.items():
        print(f"| {name} | {seconds(call):.2f} |")


def large(sizes: list[int]) -> None:
    """Print what 100 replicates of many groups take, beside a pass over the groups and a fit."""
    print("\n| groups | designs | refit | a pass | 100 replicates | in passes |")
    print("|---|---|---|---|---|---|")
    for m in sizes:
        for shared in (True, False):
            fit = simulate(m, shared)
            fitted = seconds(lambda fit=fit: fit.refit(fit.fittedvalues + fit.resid), 1)
            engine: Any = fit._engine
            one = seconds(lambda engine=engine, fit=fit: engine.totals(fit._Lambda))
            many = seconds(lambda fit=fit: fit.bootstrap(100, seed=1), 1)
            what = "one" if shared else "all different"
            times = f"{fitted:.2f} s | {1000 * one:.1f} ms | {many:.2f} s"
            print(f"| {m:,} | {what} | {times} | {many / one:.0f} |")


if __name__ == "__main__":
    small()
    large([int(argument) for argument in sys.argv[1:]] or [10_000, 1_000_000])
