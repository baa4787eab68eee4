"""Time lmmfast and every installed peer on the same simulated data, in one run and one table.

python benchmarks/run.py --clusters 1e4 1e5 1e6 --markdown docs/benchmarks.md
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import measure
import report
import simulate
from peers import PEERS, Peer

PILOTS = 10**3, 10**4, 10**5  # smaller untabulated fits, which tell how slow a peer will be


def main() -> None:
    """Parse the command line, run all measurements, write the report."""
    options = parse()
    peers = [peer for peer in PEERS.values() if not options.peers or peer.name in options.peers]
    installed = [peer for peer in peers if peer.available()]
    results = {
        "machine": report.machine(),
        "versions": {peer.name: peer.version() for peer in peers},
        "notes": {peer.key: peer.note for peer in installed if peer.note},
        "options": {"reml": options.reml, "seed": options.seed, "budget": options.budget},
        "measurements": [
            figures
            for model in options.model
            for figures in measurements(model, sorted(options.clusters), installed, options)
        ],
    }
    text = report.markdown(results)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.markdown:
        options.markdown.write_text(report.page(text))
    print(text)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    names = list(dict.fromkeys(peer.name for peer in PEERS.values()))
    parser.add_argument(
        "--clusters",
        nargs="+",
        type=lambda text: int(float(text)),
        default=[10**4, 10**5, 10**6],
        help="numbers of clusters",
    )
    parser.add_argument("--peers", nargs="+", choices=names, help="only these libraries")
    parser.add_argument(
        "--model", nargs="+", choices=list(simulate.FORMULA), default=["slope"], help="models"
    )
    parser.add_argument("--ml", dest="reml", action="store_false", help="ML rather than REML")
    parser.add_argument(
        "--budget",
        type=float,
        default=120.0,
        help="skip a fit that is expected to take more seconds than this",
    )
    parser.add_argument("--repeats", type=int, default=5, help="warm fits after the first")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="no further warm fit after so many seconds"
    )
    parser.add_argument("--seed", type=int, default=2025)
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--markdown", type=Path, help="write the page here")
    return parser.parse_args()


def measurements(
    model: str, sizes: list[int], peers: list[Peer], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measure every peer at every size of one model, smallest first."""
    rate: dict[str, float] = {}  # seconds per cluster at the largest size measured so far
    pilot = argparse.Namespace(**vars(options) | {"repeats": 1, "budget": options.budget / 10})
    done = []
    for clusters in [*(size for size in PILOTS if size < sizes[0]), *sizes]:
        tabulated = clusters in sizes
        for figures in at_size(model, clusters, peers, rate, options if tabulated else pilot):
            if "cold" in figures:
                rate[figures["peer"]] = report.best(figures) / clusters
            if tabulated:
                done.append(figures)
    return done


def at_size(
    model: str,
    clusters: int,
    peers: list[Peer],
    rate: dict[str, float],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Measure every peer at one size, on one set of files."""
    done = []
    with tempfile.TemporaryDirectory() as folder:
        rows = simulate.write(Path(folder), clusters, model, options.seed)
        job = {
            "folder": folder,
            "rows": rows,
            "model": model,
            "reml": options.reml,
            "repeats": options.repeats,
            "seconds": options.seconds,
        }
        for peer in peers:
            expected = rate.get(peer.key, 0.0) * clusters
            if expected > options.budget:
                figures: dict[str, Any] = {"skipped": expected}
            else:
                figures = measure.run(peer, job, 3 * options.budget + options.seconds)
            place = {"model": model, "clusters": clusters, "rows": rows}
            done.append(
                place | {"peer": peer.key, "name": peer.name, "route": peer.route} | figures
            )
            print(report.line(done[-1]), file=sys.stderr, flush=True)
    return done


if __name__ == "__main__":
    main()
