"""Memory bandwidth by the addition of STREAM: c = a + b on arrays much larger than the caches.

python benchmarks/bandwidth.py

NumPy's ufuncs release the GIL, so threads add segments of the arrays side by side. As in STREAM, an
element counts 24 bytes (two read, one written); that most processors also read the line that is
about to be written is not counted.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

ELEMENTS = 2**24  # 128 MiB an array
BYTES_EACH = 24


def add(threads: int, repeats: int = 10) -> float:
    """Bytes a second of the fastest of several additions by so many threads."""
    rng = np.random.default_rng(0)
    a, b, c = rng.random(ELEMENTS), rng.random(ELEMENTS), np.zeros(ELEMENTS)
    ends = np.linspace(0, ELEMENTS, threads + 1).astype(int)
    segments = [slice(*pair) for pair in pairwise(ends)]

    def one(rows: slice) -> None:
        np.add(a[rows], b[rows], out=c[rows])

    best = np.inf
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats):
            start = time.perf_counter()
            if threads == 1:
                one(segments[0])
            else:
                list(pool.map(one, segments))
            best = min(best, time.perf_counter() - start)
    return BYTES_EACH * ELEMENTS / best


if __name__ == "__main__":
    import report

    for threads in dict.fromkeys((1, report.cores())):
        print(f"{threads} thread(s): {add(threads) / 1e9:.1f} GB/s")
