"""The stages of lmmfast's fit against the speed of memory, in a process of its own.

Packing (clusters found, working basis, one pass over the rows), from arrays and from a data frame
with a formula; one pass of the iteration over the packed clusters; the whole fit; each with one
thread and with all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bandwidth
import numpy as np
import simulate
from process import fastest, give_back_memory, read_peak, serve, start_peak
from workloads import WORKLOADS, Workload

SECONDS = 5.0  # no further repeat of a stage after so many seconds
Best = Callable[..., float]  # seconds of the fastest of several runs


def child(job: dict[str, Any]) -> dict[str, Any]:
    """Measure all stages of ``job``: folder, workload, reml, repeats."""
    from lmmfast._threads import n_threads

    threads = list(dict.fromkeys((1, n_threads())))
    best = partial(fastest, repeats=job["repeats"], seconds=SECONDS)
    return {"threads": threads} | from_arrays(job, threads, best) | from_frame(job, threads, best)


def from_arrays(job: dict[str, Any], threads: list[int], best: Best) -> dict[str, Any]:
    """NumPy's sums, a pass, packing and whole fits."""
    import lmmfast

    data = simulate.load(Path(job["folder"]), WORKLOADS[job["workload"]], "arrays")
    packed = pack_arrays(data, threads[-1])
    figures = {"packed_bytes": packed.blocks.nbytes} | one_pass(packed, threads, best)
    del packed
    whole = partial(lmmfast.fit, *data, reml=job["reml"])
    return figures | {
        "sum": best(lambda: (data.X.sum(), data.y.sum())),
        "arrays": [best(partial(pack_arrays, data, k)) for k in threads],
        "rows_pass": pass_over_rows(data, threads, best),
        "arrays_peak": peak(partial(pack_arrays, data, threads[-1])),
        "fit": [best(partial(whole, n_jobs=k)) for k in threads],
    }


def from_frame(job: dict[str, Any], threads: list[int], best: Best) -> dict[str, Any]:
    """Packing from a data frame by a formula."""
    workload = WORKLOADS[job["workload"]]
    work = partial(pack_frame, simulate.load(Path(job["folder"]), workload, "pandas"), workload)
    return {
        "frame": [best(partial(work, k)) for k in threads],
        "frame_peak": peak(partial(work, threads[-1])),
    }


def one_pass(packed: Any, threads: list[int], best: Best) -> dict[str, Any]:
    """Seconds of an evaluation and bandwidth of memory, right after each other."""
    from lmmfast.engines.moments import MomentsEngine

    Lambda = 0.7 * np.eye(packed.q)
    return {
        "add": [bandwidth.add(k) for k in threads],
        "pass": [
            best(partial(MomentsEngine(packed, k).totals, Lambda), repeats=20) for k in threads
        ],
    }


def pack_arrays(data: simulate.Arrays, threads: int) -> Any:
    """From arrays to packed clusters."""
    from lmmfast.design.from_arrays import ArrayDesign

    return pack(ArrayDesign(*data), threads)


def pass_over_rows(data: simulate.Arrays, threads: list[int], best: Best) -> list[float]:
    """Seconds of packing where clusters and working basis are known."""
    from lmmfast.design.from_arrays import ArrayDesign
    from lmmfast.grouping.clusters import gather
    from lmmfast.packing.compress import compress

    design = ArrayDesign(*data)
    known = design, gather(design.keys), basis_of(design)
    return [best(partial(compress, *known, k)) for k in threads]


def pack_frame(frame: Any, workload: Workload, threads: int) -> Any:
    """From a data frame and a formula to packed clusters."""
    from lmmfast.design.from_formula import FormulaDesign

    return pack(FormulaDesign(workload.formula, frame), threads)


def pack(design: Any, threads: int) -> Any:
    """The stages of a fit up to the iteration."""
    from lmmfast.grouping.clusters import gather
    from lmmfast.packing.compress import compress

    basis = basis_of(design)
    return compress(design, gather(design.keys), basis, threads)


def basis_of(design: Any) -> Any:
    """The working basis as a fit chooses it first."""
    from lmmfast.packing.basis import choose_basis

    return choose_basis(design, trust_sample=True)


def peak(work: Callable[[], Any]) -> float:
    """Largest memory while ``work`` runs, beyond what was resident before."""
    give_back_memory()
    resident = start_peak()
    work()
    return read_peak() - resident


if __name__ == "__main__":
    serve(child)
