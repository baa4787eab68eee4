"""One peer on one data set, in a process of its own: time of the first and of later fits, memory.

``run`` starts the child and waits for it; run as a script, this file is the child.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import simulate
from peers import PEERS, Peer
from process import attempt, give_back_memory, read_peak, serve, start, start_peak, timed
from workloads import ALL


def run(peer: Peer, job: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Carry out ``job``: folder, rows, workload, reml, repeats, seconds, patience, after."""
    return start(peer.command, job | {"peer": peer.key}, timeout)


def child(job: dict[str, Any]) -> dict[str, Any]:
    """Load the data, import the library, then fit and measure."""
    peer = PEERS[job["peer"]]
    workload = ALL[job["workload"]]
    data = simulate.load(Path(job["folder"]), workload, peer.data)
    peer.prepare()
    give_back_memory()
    resident = start_peak()
    fit, cold = timed(lambda: peer.fit(data, workload, job["reml"]))
    peak = read_peak() - resident
    warm: list[float] = []
    while another(job, cold, warm):
        del fit
        fit, seconds = timed(lambda: peer.fit(data, workload, job["reml"]))
        warm.append(seconds)
    after = peer.after(fit, data) if job["after"] else {}
    return {
        "cold": cold,
        "warm": warm,
        "peak": peak,
        "loglik": fit.loglik,
        "theta": fit.theta,
        "after": {what: attempt(work) for what, work in after.items()},
    }


def another(job: dict[str, Any], cold: float, warm: list[float]) -> bool:
    """Whether to fit again: all repeats within ``seconds``, one at least within ``patience``."""
    if len(warm) >= job["repeats"]:
        return False
    return cold + sum(warm) < job["seconds"] or (not warm and cold < job["patience"])


if __name__ == "__main__":
    serve(child)
