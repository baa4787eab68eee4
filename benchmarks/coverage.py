"""Coverage of 95 % intervals with few clusters: ``python benchmarks/coverage.py [data sets]``.

A random slope over unequally many times in each cluster, a covariate of clusters (half of them
treated) and its product with time. How often intervals hold the true coefficient, by method.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
from numpy.typing import NDArray

import lmmfast as lf
from lmmfast.errors import LmmWarning

CLUSTERS = (8, 12, 20)
BETA = np.array([1.0, 0.2, 0.3, 0.1])
METHODS = {
    "z": {"ddf": "normal"},
    "Satterthwaite": {},
    "Kenward and Roger": {"ddf": "kenward-roger"},
    "CR2": {"vcov": "CR2"},
}
#: Coefficients that are counted: between clusters, and within.
COUNTED = {"arm": 2, "arm:t": 3}


def simulate(m: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], ...]:
    """Draw responses, fixed effects and groups of m clusters of 3 to 8 rows."""
    groups = np.repeat(np.arange(m), rng.integers(3, 9, m))
    t = np.concatenate([np.arange(float(k)) for k in np.bincount(groups)])
    arm = (groups % 2).astype(float)
    X = np.column_stack([np.ones(len(t)), t, arm, arm * t])
    b = rng.normal(size=(m, 2)) * [1.0, 0.3]
    y = X @ BETA + b[groups, 0] + b[groups, 1] * t + rng.normal(size=len(t))
    return y, X, groups


def holds(m: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Whether the intervals of each method hold the coefficients, for one data set."""
    y, X, groups = simulate(m, rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        fit = lf.fit(y, X, groups, X[:, :2])
        places = list(COUNTED.values())
        found = []
        for method in METHODS.values():
            ends = fit.inference(**method).conf_int().to_numpy()[places]
            found.append((ends[:, 0] <= BETA[places]) & (BETA[places] <= ends[:, 1]))
    return np.array(found)


def main() -> None:
    """Print a table in Markdown: per cent, of a Monte Carlo error of 0.7 with 1,000 data sets."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    print(f"| clusters | coefficient | {' | '.join(METHODS)} |")
    print("|---" * (2 + len(METHODS)) + "|")
    for m in CLUSTERS:
        rng = np.random.default_rng(m)
        covered = np.mean([holds(m, rng) for _ in range(n)], axis=0)
        for k, name in enumerate(COUNTED):
            cells = " | ".join(f"{100 * share:.1f}" for share in covered[:, k])
            print(f"| {m} | {name} | {cells} |")


if __name__ == "__main__":
    main()
