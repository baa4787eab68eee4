"""Processor time of residuals and influence: ``python benchmarks/diagnostics.py [groups]``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np

import lmmfast as lf


def simulate(m: int) -> lf.LMMResult:
    """Simulate and fit a random slope over five times in m groups, with four fixed effects."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(m), 5)
    t = np.tile(np.arange(5.0), m) + 0.1 * rng.normal(size=5 * m)
    arm = (groups % 2).astype(float)
    X = np.column_stack([np.ones(5 * m), t, arm, arm * t])
    b = rng.normal(size=(m, 2)) * [1.0, 0.5]
    y = X @ [1.0, 0.2, 0.1, 0.0] + b[groups, 0] + b[groups, 1] * t + rng.normal(size=5 * m)
    return lf.fit(y, X, groups, X[:, :2])


MEASURED: dict[str, Callable[[lf.LMMResult], object]] = {
    "studentized, marginal": lambda fit: fit.residuals("studentized", "population"),
    "studentized, conditional": lambda fit: fit.residuals("studentized"),
    "groups, fixed variances": lambda fit: fit.influence(theta=False),
    "groups": lambda fit: fit.influence(),
    "rows": lambda fit: fit.influence("row"),
}


def main() -> None:
    """Print a table in Markdown: best of three."""
    print(f"| groups | fit | {' | '.join(MEASURED)} |")
    print(f"|---|---|{'---|' * len(MEASURED)}")
    simulate(100).influence()
    for m in [int(argument) for argument in sys.argv[1:]] or [1_000, 100_000, 1_000_000]:
        start = time.process_time()
        fit = simulate(m)
        seconds = [time.process_time() - start]
        for measured in MEASURED.values():
            best = np.inf
            for _ in range(3):
                start = time.process_time()
                measured(fit)
                best = min(best, time.process_time() - start)
            seconds.append(best)
        print(f"| {m:,} | {' | '.join(f'{value:.3g} s' for value in seconds)} |")


if __name__ == "__main__":
    main()
