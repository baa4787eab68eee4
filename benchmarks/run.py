"""Time lmmfast and every installed peer on the same simulated data, in one run and one page.

python benchmarks/run.py --markdown docs/benchmarks.md
python benchmarks/run.py --quick
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import many
import measure
import process
import report
import report_levels
import report_structured
import simulate
from levels import LEVELS
from peers import PEERS, Peer
from structured import STRUCTURED
from workloads import ALL, WORKLOADS, AnyWorkload, Workload

PATIENCE = 0.5  # of the budget: a first fit that took less is repeated at least once
ROOM = 0.9  # of the memory available: what a fit may be expected to take
BRIEF = 0.5  # seconds: shorter fits are mostly fixed costs and tell nothing of larger ones
STARTED, LOADED = 30, 10**6  # seconds to start a process, rows loaded a second: at worst
STAGE_ROWS = 200_000  # stages of smaller data would tell of caches, not of memory
QUICK = {"budget": 5.0, "seconds": 3.0, "repeats": 3}
FULL = {"budget": 40.0, "seconds": 8.0, "repeats": 5}
GROUPS: dict[str, Any] = {"residual": STRUCTURED, "levels": LEVELS}


def main() -> None:
    """Parse the command line, run all measurements, write the report."""
    options = parse()
    began = time.perf_counter()
    peers = [peer for peer in PEERS.values() if not options.peers or peer.name in options.peers]
    installed = [peer for peer in peers if peer.available()]
    results: dict[str, Any] = {
        "machine": report.machine(),
        "versions": {peer.name: peer.version() for peer in peers},
        "notes": {peer.key: peer.note for peer in installed if peer.note},
        "options": {key: getattr(options, key) for key in ("reml", "seed", "quick", *FULL)},
        "measurements": [],
        "structured": [],
        "levels": [],
        "stages": [],
        "many": [],
    }
    runs: dict[str, Run] = {}
    for name in (name for name in (*ALL, *many.WORKLOADS) if name in options.workload):
        if name in ALL:
            like = runs.get(ALL[name].like or "")
            slowness = dict(like.slowness) if like else {}
            runs[name] = Run(ALL[name], installed, options, slowness).all_sizes()
            results[part_of(name)] += runs[name].measured
            results["stages"] += runs[name].stages
        else:
            results["many"] += many.measurements(name, options)
        results["minutes"] = (time.perf_counter() - began) / 60
        if options.json:  # after each workload: nothing is lost with a run cut short
            options.json.write_text(json.dumps(results, indent=1) + "\n")
    if results["measurements"] or results["many"]:
        print(report.markdown(results))
    print(report_structured.markdown(results))
    print(report_levels.markdown(results))
    if options.markdown:
        report.write(results, options.markdown)


def part_of(name: str) -> str:
    """Which of the results the figures of a workload belong to."""
    if name in WORKLOADS:
        return "measurements"
    return "structured" if name in STRUCTURED else "levels"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    names = list(dict.fromkeys(peer.name for peer in PEERS.values()))
    parser.add_argument("--quick", action="store_true", help="small sizes, a few minutes")
    parser.add_argument(
        "--workload",
        nargs="+",
        choices=[*ALL, *many.WORKLOADS, *GROUPS],
        default=[*ALL, *many.DEFAULT],
        help="only these workloads; residual: those with a residual structure; levels: those "
        "with several grouping factors",
    )
    parser.add_argument(
        "--clusters",
        nargs="+",
        type=lambda text: int(float(text)),
        help="numbers of clusters (of long-series: rows in each), instead of each workload's own",
    )
    parser.add_argument("--peers", nargs="+", choices=names, help="only these libraries")
    parser.add_argument("--ml", dest="reml", action="store_false", help="ML rather than REML")
    parser.add_argument(
        "--budget", type=float, help="skip a fit that is expected to take more seconds than this"
    )
    parser.add_argument("--repeats", type=int, help="warm fits after the first")
    parser.add_argument("--seconds", type=float, help="no further warm fit after so many seconds")
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument(
        "--markdown", type=Path, help="write the page here, its pictures to images/ beside it"
    )
    options = parser.parse_args()
    for group in GROUPS:
        if group in options.workload:
            options.workload = [*options.workload, *GROUPS[group]]
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


@dataclass
class Run:
    """All measurements of one workload, smallest size first.

    Attributes
    ----------
    slowness, size : dict
        Seconds and peak bytes per row of each peer at the largest size measured so far.
    """

    workload: AnyWorkload
    peers: list[Peer]
    options: argparse.Namespace
    slowness: dict[str, float] = field(default_factory=dict)
    size: dict[str, float] = field(default_factory=dict)
    measured: list[dict[str, Any]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)

    def all_sizes(self) -> Run:
        """Measure every peer at every size."""
        own = self.workload.quick if self.options.quick else self.workload.clusters
        sizes = sorted(self.options.clusters or own)
        pilots = [size for size in self.workload.pilots if size < sizes[0]]
        for size in [*pilots, *sizes]:
            with tempfile.TemporaryDirectory() as folder:
                rows = simulate.write(Path(folder), size, self.workload, self.options.seed)
                clusters = self.workload.series or size
                place = {"workload": self.workload.name, "clusters": clusters, "rows": rows}
                last = size == max(size for size in sizes if size <= max(10**6, sizes[0]))
                self.at_size(folder, place, size not in sizes, last)
                if size in sizes and isinstance(self.workload, Workload):
                    self.in_stages(folder, place)
        return self

    def at_size(self, folder: str, place: dict[str, Any], pilot: bool, last: bool) -> None:
        """Measure every peer on one set of files; of pilots only the first fit, briefly."""
        budget = max(self.options.budget / 10, 3.0) if pilot else self.options.budget
        job = place | {
            "folder": folder,
            "reml": self.options.reml,
            "repeats": 0 if pilot else self.options.repeats,
            "seconds": self.options.seconds,
            "patience": PATIENCE * budget,
            "after": last and self.workload.name == "slope",
        }
        for peer in (peer for peer in self.peers if peer.knows(self.workload)):
            figures = self.too_much(peer, place["rows"], budget)
            if not figures:
                figures = measure.run(peer, job, 3 * budget + STARTED + place["rows"] / LOADED)
            if "stopped" in figures:
                self.slowness[peer.key] = figures["stopped"] / place["rows"]
            if "cold" in figures:
                took = report.best(figures)
                self.slowness[peer.key] = took / place["rows"] if took > BRIEF else 0.0
                if figures["peak"] is not None:
                    self.size[peer.key] = figures["peak"] / place["rows"]
            name = {"peer": peer.key, "name": peer.name, "route": peer.route, "kind": peer.kind}
            if not pilot:
                self.measured.append(place | name | figures)
            told = "pilot" if pilot else ""
            print(report.line(place | name | figures), told, file=sys.stderr, flush=True)

    def too_much(self, peer: Peer, rows: int, budget: float) -> dict[str, Any]:
        """Why a fit is left out, if it is, going by the smaller size before."""
        seconds = self.slowness.get(peer.key, 0.0) * rows
        if seconds > budget:
            return {"skipped": seconds}
        room = ROOM * process.available_memory()
        memory = self.size.get(peer.key, 0.0) * rows + self.workload.data_bytes(rows)
        return {"skipped_bytes": memory} if memory > room else {}

    def in_stages(self, folder: str, place: dict[str, Any]) -> None:
        """Measure the stages of lmmfast's fit where the data are large enough."""
        ours = any(peer.name == "lmmfast" for peer in self.peers)
        if not ours or place["rows"] < STAGE_ROWS:
            return
        job = place | {"folder": folder, "reml": self.options.reml, "repeats": self.options.repeats}
        limit = STARTED + 10 * self.options.budget + place["rows"] / 10**5
        figures = process.start(lambda _, path: process.script("stages.py", path), job, limit)
        self.stages.append(place | figures)
        print(report.stage_line(self.stages[-1]), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
