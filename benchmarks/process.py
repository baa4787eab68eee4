"""A process of its own for each measurement, and the clocks and gauges used inside it.

A child is a script that takes one argument, a JSON file with its job, and writes its figures as
JSON to the path that the job calls ``out``.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent


def script(name: str, path: Path) -> list[str]:
    """Command that runs one of the scripts beside this file on the job at ``path``."""
    return [sys.executable, str(BENCHMARKS / name), str(path)]


def start(
    command: Callable[[dict[str, Any], Path], list[str]], job: dict[str, Any], timeout: float
) -> dict[str, Any]:
    """Carry out ``job`` in the child that ``command`` (of the job and its file) names.

    Returns its figures, or ``{"failed": why}``; a child that outlives ``timeout`` is killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "job.json"), Path(folder, "out.json")
        job = job | {"out": str(out)}
        path.write_text(json.dumps(job))
        try:
            child = subprocess.run(
                command(job, path), capture_output=True, text=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"stopped after {timeout:.0f} s", "stopped": timeout}
        if child.returncode or not out.exists():
            return {"failed": why(child.returncode, child.stderr), "stderr": child.stderr}
        figures: dict[str, Any] = json.loads(out.read_text())
        return figures


def serve(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """The child's side: read the job, do the work, write the figures."""
    job = json.loads(Path(sys.argv[1]).read_text())
    Path(job["out"]).write_text(json.dumps(work(job)))


def why(status: int, stderr: str) -> str:
    """One line for the table: the last of a Python traceback, else the first (Rust, R)."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["no message"]
    traced = any(line.startswith("Traceback") for line in lines)
    told = lines[-1] if traced else lines[0]
    if len(told) > 160:
        told = told[:160] + " …"
    return f"failed (exit status {status}): {told}".replace("|", "\\|")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Result and wall-clock seconds; garbage of earlier work is not charged to this one."""
    gc.collect()
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def fastest(work: Callable[[], Any], repeats: int, seconds: float = math.inf) -> float:
    """Seconds of the fastest of several runs; no further run after ``seconds``."""
    times: list[float] = []
    while len(times) < repeats and sum(times) < seconds:
        times.append(timed(work)[1])
    return min(times)


def attempt(work: Callable[[], Any]) -> float | str:
    """Seconds, or what went wrong."""
    try:
        return timed(work)[1]
    except Exception as error:  # the table shows it; the other figures stand
        return f"{type(error).__name__}: {error}"


def give_back_memory() -> None:
    """Return freed heap to the system, so that work to come cannot reuse it unseen."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc
        return


def start_peak() -> float:
    """Reset the peak where the system allows it; return the bytes resident now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return field("/proc/self/status", "VmRSS")
    except OSError:
        return maximum()


def read_peak() -> float:
    """Peak of resident bytes since ``start_peak``."""
    try:
        return field("/proc/self/status", "VmHWM")
    except OSError:
        return maximum()


def available_memory() -> float:
    """Bytes that a new process can have; infinity where the system does not say."""
    try:
        return field("/proc/meminfo", "MemAvailable")
    except OSError:
        return math.inf


def field(path: str, name: str) -> float:
    """Read a field, in bytes, of a file that counts in KiB; NaN if it is not there."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024.0 * int(line.split()[1])
    return math.nan


def maximum() -> float:
    """Peak of resident bytes since the process began (macOS counts in bytes, others in KiB)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
