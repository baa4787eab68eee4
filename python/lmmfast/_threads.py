"""How many threads to use: argument, then environment variable, then the limits of the process."""

from __future__ import annotations

import os
from numbers import Integral
from pathlib import Path

from lmmfast.errors import DataError

MAX_THREADS = 4096


def n_threads(requested: int | None = None) -> int:
    """Number of threads for one call.

    Parameters
    ----------
    requested : int, optional
        Taken as it is if positive; ``-1`` means all. By default ``LMMFAST_NUM_THREADS``, else the
        number of processors that affinity and the cgroup quota leave to this process.

    Raises
    ------
    DataError
        The number is none from 1 to `MAX_THREADS`.
    """
    source = "n_jobs"
    if requested is None:
        variable = os.environ.get("LMMFAST_NUM_THREADS")
        if variable:
            try:
                requested, source = int(variable), "LMMFAST_NUM_THREADS"
            except ValueError:
                raise DataError(f"LMMFAST_NUM_THREADS={variable!r} is not a whole number") from None
    if requested is None or requested == -1:
        return _available()
    if not isinstance(requested, Integral) or not 1 <= requested <= MAX_THREADS:
        raise DataError(
            f"{source} must be a whole number from 1 to {MAX_THREADS}, or -1 for all, "
            f"got {requested!r}"
        )
    return int(requested)


def one_thread(requested: int | None = None) -> int:
    """Return 1, for work too short to be shared out, once the request is found to be valid."""
    if requested is not None or os.environ.get("LMMFAST_NUM_THREADS"):
        n_threads(requested)
    return 1


def _available() -> int:
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, min(count, _cgroup_limit() or count))


def _cgroup_limit() -> int | None:
    """Whole processors of the cgroup v2 quota, rounded up; None without a quota."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else -(-int(quota) // int(period))
    except (OSError, ValueError):
        return None
