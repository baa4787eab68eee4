"""Run the campaign: ``python tests/campaign --problems 10000 --jobs 2``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LMMFAST_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from judge import FINDS, judge  # noqa: E402
from random_models import problem  # noqa: E402

CHUNK = 20


def look_at(seed: int) -> tuple[int, str, str, str]:
    one = problem(seed)
    outcome, detail = judge(one)
    return seed, outcome, str(one), detail


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=10_000, help="how many (default 10,000)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--minutes", type=float, default=None, help="stop after so long")
    arguments = parser.parse_args()
    started, counts = time.monotonic(), Counter[str]()
    seeds = range(arguments.first, arguments.first + arguments.problems)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for seed, outcome, model, detail in pool.map(look_at, seeds, chunksize=CHUNK):
            counts[outcome] += 1
            if outcome in FINDS:
                print(f"{outcome}: {model}\n    {detail}", flush=True)
            if arguments.minutes and time.monotonic() - started > 60 * arguments.minutes:
                print(f"stopped after problem {seed}")
                pool.shutdown(cancel_futures=True)
                break
    seconds = time.monotonic() - started
    print(f"{sum(counts.values())} problems from seed {arguments.first}, {seconds:.0f} s")
    for outcome, count in counts.most_common():
        print(f"    {outcome:20} {count}")
    return int(any(counts[find] for find in FINDS))


if __name__ == "__main__":
    sys.exit(main())
