"""While a fit runs another thread writes into its arrays: numbers may be anything, memory not."""

import subprocess
import sys

import pytest

SCRIPT = """
import threading, warnings
import numpy as np, lmmfast as lf
warnings.simplefilter("ignore")
r = np.random.default_rng(1)
n = {n}
m = n // 5
groups = {groups}
other = r.integers(0, m, n)
t = np.tile(np.arange(5), m).astype(np.int64)
x = r.standard_normal(n)
y = x + r.standard_normal(m)[np.arange(n) // 5] + r.standard_normal(n)
X = np.column_stack([np.ones(n), x])
kept = {{name: globals()[name].copy() for name in ("groups", "other", "t", "x", "y", "X")}}
running = True

def write():
    k = 0
    while running:
        k += 1
        for name in {written}:
            array = globals()[name]
            spoilt = kept[name].copy()
            rows = r.integers(0, n, n // 20)
            spoilt[rows] = r.permutation(spoilt[rows])
            array[...] = spoilt if k % 2 else kept[name]

writer = threading.Thread(target=write)
writer.start()
fitted = refused = 0
try:
    for k in range({times}):
        try:
            {fit}
            fitted += 1
        except (lf.LmmError, ValueError):
            refused += 1
finally:
    running = False
    writer.join()
print("survived", fitted, refused)
"""

SHUFFLED = "r.permutation(np.arange(n) // 5)"
SORTED = "np.arange(n) // 5"
CASES = {
    "shuffled groups": (300_000, SHUFFLED, ["groups"], 12, "lf.fit(y, X, groups)"),
    "sorted groups": (600_000, SORTED, ["groups"], 12, "lf.fit(y, X, groups)"),
    "sparse keys": (100_000, "7 * (" + SHUFFLED + ")", ["groups"], 12, "lf.fit(y, X, groups)"),
    "few rows": (2_000, SHUFFLED, ["groups"], 60, "lf.fit(y, X, groups)"),
    "X, y": (300_000, SORTED, ["X", "y"], 12, "lf.fit(y, X, groups, X)"),
    "nested": (60_000, SORTED, ["groups"], 8, "lf.fit(y, X, [groups // 20, groups])"),
    "crossed": (1_500, SORTED, ["groups", "other"], 8, "lf.fit(y, X, [groups, other])"),
    "dense": (
        20_000,
        SORTED,
        ["groups", "t"],
        10,
        "lf.fit(y, X, groups, residual=lf.Unstructured(t))",
    ),
    "markov": (20_000, SORTED, ["groups", "t"], 10, "lf.fit(y, X, groups, residual=lf.AR1(t))"),
    "many": (
        20_000,
        SHUFFLED,
        ["groups", "X"],
        10,
        "lf.fit_many(np.column_stack([y] * 8), X, groups)",
    ),
    "segments": (
        50_000,
        SHUFFLED,
        ["groups", "x"],
        6,
        "lf.lmm_by('y ~ x + (1 | g)', {'y': y, 'x': x, 'g': groups, 's': groups // 100}, by='s')",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_process_survives(case):
    n, groups, written, times, fit = CASES[case]
    script = SCRIPT.format(n=n, groups=groups, written=written, times=times, fit=fit)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("survived")
