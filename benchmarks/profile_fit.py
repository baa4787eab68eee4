"""Where the time of a fit goes: a large one stage by stage, and what remains of a small one.

    python benchmarks/profile_fit.py
    python benchmarks/profile_fit.py --clusters 1e5 --repeats 20
    python benchmarks/profile_fit.py --page docs/performance.md   # the figures of the page, anew

Functions of lmmfast are replaced by ones that stop the time; each stage is charged with its own
time, less that of stages inside it, so that the lines of a table add up to the fit. Tables show the
fastest of several fits.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import simulate
from workloads import WORKLOADS

import lmmfast as lf
from lmmfast._dispatch import level
from lmmfast._threads import n_threads

Times = dict[str, float]
REST = "everything else"
FITTING, FORMULA, COMPAT = (
    "lmmfast.fitting.pipeline",
    "lmmfast.design.from_formula",
    "lmmfast.formula.materialise",
)
CORE = "lmmfast._dispatch:core"

# Label: where the functions are looked up when they are called.
STAGES = {
    "design": [
        "lmmfast.design.from_arrays:ArrayDesign.__init__",
        f"{FORMULA}:FormulaDesign.__init__",
    ],
    "clusters found": [f"{FITTING}:gather"],
    "working basis": ["lmmfast.fitting.settle:choose_basis"],
    "columns made from the frame": [f"{FORMULA}:FormulaDesign.batch"],
    "packing": ["lmmfast.packing.compress:compress_once"],
    "search: all passes": [f"{FITTING}:compiled_maximise"],
    "basis, packing and search in the core": [f"{CORE}.fit_rows"],
    "rows handed to the core": ["lmmfast.design.from_arrays:ArrayDesign.batch"],
    "checks": [f"{FITTING}:check_clusters", f"{FITTING}:choose_covariance", f"{FITTING}:_problem"],
    "certificate": ["lmmfast.fitting.judge:certify", "lmmfast.fitting.small:certify"],
    "result": ["lmmfast.fitting.small:read_optimum", "lmmfast.result:LMMResult.__init__"],
}
FORMULA_STAGES = {
    "formula cut into terms": [f"{FORMULA}:parse_formula", f"{FORMULA}:parse_terms"],
    "data frame opened": [f"{FORMULA}:open_table"],
    "columns read and checked": [f"{FORMULA}:model_frame"],
    "groups": [f"{FORMULA}:group_keys"],
    "sample of the rows for formulaic": ["lmmfast.data.frame:RowView.to_pandas"],
    "formulaic makes the columns of the sample": [f"{COMPAT}:_materialize_unchecked"],
    "formulaic's specification": [f"{FORMULA}:build_specs"],
    "columns split into simple and others": [f"{FORMULA}:_split_part"],
}


def profile(fit: Callable[[], Any], stages: dict[str, list[str]], repeats: int) -> Times:
    """Seconds of each stage in the fastest of several fits."""
    times: Times = {}
    runs = []
    gc.collect()
    with watched(stages, times):
        for _ in range(repeats + 1):  # the first fit warms up
            times.clear()
            begin = time.perf_counter()
            fit()
            whole = time.perf_counter() - begin
            runs.append(times | {REST: whole - sum(times.values())})
    return min(runs[1:], key=lambda run: sum(run.values()))


@contextmanager
def watched(stages: dict[str, list[str]], times: Times) -> Iterator[None]:
    """Stop the time of the functions of each stage, into ``times``."""
    inside = [0.0]  # time of the stages called by each running one
    replaced = []
    for label, places in stages.items():
        for place in places:
            module, path = place.split(":")
            *owners, name = path.split(".")
            owner: Any = importlib.import_module(module)
            for part in owners:
                owner = getattr(owner, part)
            function = getattr(owner, name)
            replaced.append((owner, name, function))
            setattr(owner, name, stopped(function, label, times, inside))
    try:
        yield
    finally:
        for owner, name, function in reversed(replaced):
            setattr(owner, name, function)


def stopped(function: Any, label: str, times: Times, inside: list[float]) -> Any:
    """Add its own time at each call."""

    @wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        inside.append(0.0)
        begin = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            whole = time.perf_counter() - begin
            times[label] = times.get(label, 0.0) + whole - inside.pop()
            inside[-1] += whole

    return timed


def table(title: str, times: Times, unit: str) -> list[str]:
    """Lines with the stages in the order in which they end."""
    factor = {"ms": 1e3, "µs": 1e6}[unit]
    whole = sum(times.values())
    lines = ["", f"{title}: {whole * factor:.1f} {unit}"]
    for label, seconds in times.items():
        lines.append(f"    {label:<44s}{seconds * factor:8.1f} {seconds / whole:6.0%}")
    return lines


def large(clusters: int, repeats: int) -> list[str]:
    """The workload `slope` from arrays and from a data frame with a formula."""
    workload = WORKLOADS["slope"]
    with tempfile.TemporaryDirectory() as folder:
        n = simulate.write(Path(folder), clusters, workload, seed=1)
        data = simulate.load(Path(folder), workload, "arrays")
        frame = simulate.load(Path(folder), workload, "pandas")
    about = f"{clusters:,} clusters, {n:,} rows, p = {workload.p}, q = {workload.q}"
    fit = lf.fit(*data)
    by_arrays = profile(lambda: lf.fit(*data), STAGES, repeats)
    by_formula = profile(lambda: lf.lmm(workload.formula, frame), STAGES, repeats)
    return [
        f"{about}: {len(fit.trace)} passes",
        *table("from arrays", by_arrays, "ms"),
        *table("from a data frame and a formula", by_formula, "ms"),
    ]


def small(repeats: int) -> list[str]:
    """Sleepstudy: 180 rows, 18 subjects."""
    data = lf.datasets.sleepstudy()
    y = data["Reaction"].to_numpy()
    subject = data["Subject"].cat.codes.to_numpy()
    X = np.column_stack([np.ones(len(y)), data["Days"]])
    formula = "Reaction ~ Days + (Days | Subject)"
    by_arrays = profile(lambda: lf.fit(y, X, subject, X), STAGES, repeats)
    by_formula = profile(lambda: lf.lmm(formula, data), STAGES | FORMULA_STAGES, repeats)
    return [
        "sleepstudy: 180 rows, 18 subjects",
        *table("from arrays", by_arrays, "µs"),
        *table("from a data frame and a formula", by_formula, "µs"),
    ]


def write(page: Path, part: str, lines: list[str]) -> None:
    """Put lines between the two marks of a part of the page."""
    begin, end = f"<!-- begin: {part} -->\n", f"\n<!-- end: {part} -->"
    shown = "\n".join(f"    {line}".rstrip() for line in lines)
    text = page.read_text(encoding="utf-8")
    marked = re.compile(f"({begin}).*?({end})", re.DOTALL)
    page.write_text(marked.sub(lambda m: f"{m[1]}\n{shown}\n{m[2]}", text), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clusters", type=lambda text: int(float(text)), default=10**6)
    parser.add_argument("--repeats", type=int, default=10, help="of large fits")
    parser.add_argument("--small-repeats", type=int, default=500)
    parser.add_argument("--page", type=Path, help="show the figures there, too")
    options = parser.parse_args()
    machine = f"instruction set {level}, {n_threads()} threads"
    parts = {
        "large": [machine, *large(options.clusters, options.repeats)],
        "small": [machine, *small(options.small_repeats)],
    }
    for part, lines in parts.items():
        print(*lines, "", sep="\n")
        if options.page:
            write(options.page, part, lines)


if __name__ == "__main__":
    main()
