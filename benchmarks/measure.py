"""One measurement in a process of its own: time of the first and of later fits, peak memory.

``run`` starts the child and waits for it; run as a script, this file is the child.
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

import simulate
from peers import PEERS, Peer


def run(peer: Peer, job: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Carry out ``job`` (folder, rows, model, reml, repeats, seconds) in a child process.

    Returns its figures, or ``{"failed": why}``; a child that outlives ``timeout`` is killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "job.json"), Path(folder, "out.json")
        job = job | {"peer": peer.key, "out": str(out)}
        path.write_text(json.dumps(job))
        try:
            child = subprocess.run(
                peer.command(job, path),
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"stopped after {timeout:.0f} s"}
        if child.returncode or not out.exists():
            return {"failed": why(child.returncode, child.stderr), "stderr": child.stderr}
        figures: dict[str, Any] = json.loads(out.read_text())
        return figures


def child(job: dict[str, Any]) -> dict[str, Any]:
    """Load the data, import the library, then fit and measure."""
    peer = PEERS[job["peer"]]
    data = simulate.load(Path(job["folder"]), job["model"], peer.data)
    peer.prepare()
    give_back_memory()
    baseline = start_peak()
    fit, cold = timed(lambda: peer.fit(data, job["model"], job["reml"]))
    peak = read_peak() - baseline
    warm: list[float] = []
    while len(warm) < job["repeats"] and cold + sum(warm) < job["seconds"]:
        del fit
        fit, seconds = timed(lambda: peer.fit(data, job["model"], job["reml"]))
        warm.append(seconds)
    return {
        "cold": cold,
        "warm": warm,
        "peak": peak,
        "loglik": fit.loglik,
        "theta": fit.theta,
        "after": {what: attempt(work) for what, work in peer.after(fit, data).items()},
    }


def why(status: int, stderr: str) -> str:
    """One line for the table: the last of a Python traceback, else the first (Rust, R)."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()] or ["no message"]
    told = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return f"failed (exit status {status}): {told}".replace("|", "\\|")


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Result and wall-clock seconds; garbage of earlier work is not charged to this one."""
    gc.collect()
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


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
        return status("VmRSS")
    except OSError:
        return maximum()


def read_peak() -> float:
    """Peak of resident bytes since ``start_peak``."""
    try:
        return status("VmHWM")
    except OSError:
        return maximum()


def status(field: str) -> float:
    """Read a field of /proc/self/status, in bytes; NaN if it is not there."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return 1024.0 * int(line.split()[1])
    return math.nan


def maximum() -> float:
    """Peak of resident bytes since the process began (macOS counts in bytes, others in KiB)."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


if __name__ == "__main__":
    order = json.loads(Path(sys.argv[1]).read_text())
    Path(order["out"]).write_text(json.dumps(child(order)))
