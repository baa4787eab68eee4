"""The figures of a run as Markdown and pictures.

python benchmarks/report.py results.json docs/benchmarks.md
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from workloads import WORKLOADS

TEMPLATE = Path(__file__).with_name("template.md")
MARKS = "tables", "pictures", "structured", "levels"
PICTURES = {"intercept": "random intercept", "slope": "random intercept and slope"}
Figures = dict[str, Any]


def machine() -> dict[str, Any]:
    """Date, processor, cores open to this process, memory, system, Python."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": cores(),
        "memory_gib": memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def processor() -> str:
    """Model name and widest vector instructions from /proc/cpuinfo, else what platform says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags", "").split()
    vectors = next((name for name in ("avx512f", "avx2", "sse2") if name in flags), "")
    numbers = [f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields]
    name = fields.get("model name", platform.machine())
    return ", ".join(filter(None, [name, *numbers, vectors]))


def cores() -> int:
    """Cores this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def memory_gib() -> float:
    """Physical memory in GiB; NaN where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return math.nan


def write(results: Figures, path: Path) -> None:
    """Write the page and, in images/ beside it, the pictures; keep what was not measured."""
    import report_levels
    import report_structured

    parts = {"structured": report_structured.markdown(results)} if results["structured"] else {}
    if results.get("levels"):  # figures of earlier versions have none
        parts["levels"] = report_levels.markdown(results)
    if results["measurements"] or results["many"]:
        parts |= {"tables": markdown(results), "pictures": pictures(results, path)}
    old = path.read_text() if path.exists() else ""
    page = TEMPLATE.read_text()
    for mark in MARKS:
        begin, end = f"<!-- begin: {mark} -->", f"<!-- end: {mark} -->"
        part = parts.get(mark, old.partition(begin)[2].partition(end)[0].strip("\n"))
        page = page.replace(f"{begin}\n{end}", f"{begin}\n{part}\n{end}")
    path.write_text(page)


def pictures(results: Figures, path: Path) -> str:
    """Draw the pictures into images/ beside the page; the lines that show them."""
    import plots

    folder = path.parent / "images"
    lines = []
    for name, about in PICTURES.items():
        measured = [f for f in results["measurements"] if f["workload"] == name and "cold" in f]
        if len({f["clusters"] for f in measured}) > 1:
            folder.mkdir(parents=True, exist_ok=True)
            picture = folder / f"benchmarks-{name}.png"
            plots.figure(measured, about, picture)
            told = f"Time and peak memory against the number of clusters, {about}"
            lines += [f"![{told}](images/{picture.name})", ""]
    return "\n".join(lines).strip()


def markdown(results: Figures) -> str:
    """All tables, from the overview to what comes after a fit."""
    measured, stages = results["measurements"], results["stages"]
    method = "REML" if results["options"]["reml"] else "ML"
    sections: list[tuple[str, list[str]]] = [
        ("## The run", told(results)),
        ("## At a glance", glance_table(measured)),
        ("## Where a peer wins", wins(measured, results["many"])),
        ("## One pass and the speed of memory", pass_table(stages)),
        ("## Packing and the formula path", packing_table(stages)),
        ("## Threads", threads_table(stages)),
    ]
    for name, group in grouped(measured, "workload"):
        workload = WORKLOADS[name]
        heading = f"## {name}: {workload.about}"
        sections.append(
            (heading, [f"`{workload.short_formula}`, {method}", "", *fits_table(group)])
        )
    sections.append(("## What comes after the fit", after_table(measured)))
    for name, group in grouped(results["many"], "workload"):
        sections.append((f"## {name}: {group[0]['about']}", many_table(group)))
    return "\n\n".join("\n".join([head, "", *lines]) for head, lines in sections if lines)


def told(results: Figures) -> list[str]:
    """Machine, versions, settings."""
    at, versions, options = results["machine"], results["versions"], results["options"]
    quick = "A quick run, with small sizes and few repeats. " if options["quick"] else ""
    lines = [
        f"{quick}Measured {at['date']} on {at['processor']}; {at['cores']} cores, "
        f"{at['memory_gib']:.0f} GiB, {at['system']}, Python {at['python']}; "
        f"{results['minutes']:.0f} minutes in all. Fits expected to take more than "
        f"{options['budget']:.0f} s were skipped.",
        "",
        "Versions: " + ", ".join(f"{name} {v}" for name, v in versions.items() if v) + ".",
    ]
    missing = [name for name, version in versions.items() if not version]
    if missing:
        lines[-1] += f" Not installed: {', '.join(missing)}."
    if results["notes"]:
        called = (f"{key}: `{note}`" for key, note in results["notes"].items())
        lines += ["", "Not called with plain defaults: " + "; ".join(called) + "."]
    return lines


def glance_table(measurements: list[Figures]) -> list[str]:
    """Each workload at the largest size that a peer was measured at: the fastest peer."""
    rows = []
    for name, of_workload in grouped(measurements, "workload"):
        for _, group in reversed(grouped(of_workload, "clusters")):
            rated = [
                (best(f) / best(ours), f, ours)
                for f in group
                if f["name"] != "lmmfast" and "cold" in f and (ours := reference(f, group))
            ]
            if rated:
                r, f, ours = min(rated, key=lambda three: three[0])
                spent = [seconds(best(ours)), seconds(best(f)), times(r), memory_ratio(f, ours)]
                rows.append([name, count(f), f["peer"], *spent])
                break
    head = "workload", "clusters", "fastest peer", "lmmfast s", "peer s", "ratio", "memory ratio"
    return table(head, rows, "lrlrrrr")


def wins(measurements: list[Figures], many: list[Figures]) -> list[str]:
    """Say in words where a peer was faster, or took less memory, than lmmfast."""
    faster, first, leaner = [], [], []
    for name, of_workload in grouped(measurements, "workload"):
        for _, group in grouped(of_workload, "clusters"):
            for f in group:
                ours = reference(f, group)
                if f["name"] == "lmmfast" or "cold" not in f or ours is None:
                    continue
                where = f"{name}, {count(f)} clusters: {f['peer']}"
                if best(f) < best(ours):
                    pair = f"{seconds(best(f))} s against {seconds(best(ours))} s"
                    faster.append(f"- {where}, {pair} ({times(best(f) / best(ours))})")
                if f["cold"] < ours["cold"]:
                    pair = f"{seconds(f['cold'])} s against {seconds(ours['cold'])} s"
                    first.append(f"- {where}, {pair} ({times(f['cold'] / ours['cold'])})")
                if known(f["peak"]) and known(ours["peak"]) and f["peak"] < ours["peak"]:
                    pair = f"{megabytes(f['peak'])} MB against {megabytes(ours['peak'])} MB"
                    leaner.append(f"- {where}, {pair}")
    for name, group in grouped(many, "workload"):
        for f in group:
            ours = leader(group)
            if f["name"] != "lmmfast" and "cold" in f and ours and each(f) < each(ours):
                pair = f"{microseconds(f)} µs a fit against {microseconds(ours)} µs"
                told = f"{name}: {f['name']}, {f['route']}, {pair}"
                faster.append(f"- {told} ({times(each(f) / each(ours))})")
    lines: list[str] = []
    for what, found in (
        ("Faster than lmmfast, fastest fits", faster),
        ("Faster than lmmfast, first fits in a new process", first),
        ("Less peak memory than lmmfast", leaner),
    ):
        lines += [f"{what}:", "", *(found or ["- none in this run"]), ""]
    return lines[:-1] if any(f["name"] != "lmmfast" for f in measurements + many) else []


def pass_table(stages: list[Figures]) -> list[str]:
    """One row a size and number of threads: an evaluation against the bandwidth of memory."""
    rows = []
    for f in stages:
        if "failed" in f:
            rows.append([f["workload"], count(f), f["failed"], *[""] * 5])
            continue
        for k, took, add in zip(f["threads"], f["pass"], f["add"], strict=True):
            speed = f["packed_bytes"] / took
            rows.append(
                [
                    f["workload"],
                    count(f),
                    megabytes(f["packed_bytes"]),
                    str(k),
                    f"{1e3 * took:.3g}",
                    f"{speed / 1e9:.1f}",
                    f"{add / 1e9:.1f}",
                    f"{100 * speed / add:.0f} %",
                ]
            )
    head = "workload", "clusters", "packed MB", "threads", "pass ms", "GB/s", "add GB/s", "of add"
    return table(head, rows, "lrrrrrrr")


def packing_table(stages: list[Figures]) -> list[str]:
    """One row a size and number of threads: packing against NumPy's sums, formula against both."""
    rows = []
    for f in stages:
        for i, k in enumerate(f.get("threads", [])):
            packing, frame = f["arrays"][i], f["frame"][i]
            last = k == f["threads"][-1]
            rows.append(
                [
                    f["workload"],
                    count(f),
                    f"{f['rows']:,}",
                    str(k),
                    seconds(f["sum"]),
                    seconds(packing),
                    times(packing / f["sum"]),
                    seconds(f["rows_pass"][i]),
                    times(f["rows_pass"][i] / f["sum"]),
                    seconds(frame),
                    times(frame / packing - 1),
                    megabytes(f["arrays_peak"] - f["packed_bytes"]) if last else "",
                    megabytes(f["frame_peak"] - f["packed_bytes"]) if last else "",
                ]
            )
    head = (
        *("workload", "clusters", "rows", "threads", "NumPy sum s", "arrays s", "ratio"),
        *("rows s", "ratio", "frame s", "formula", "arrays extra MB", "frame extra MB"),
    )
    return table(head, rows, "lrrrrrrrrrrrr")


def threads_table(stages: list[Figures]) -> list[str]:
    """One row a size: one thread against all, for packing, a pass and the whole fit."""
    rows = []
    for f in stages:
        if len(f.get("threads", [])) < 2:
            continue
        cells = [f["workload"], count(f), str(f["threads"][-1])]
        for stage in ("arrays", "pass", "fit"):
            one, *_, all_of_them = f[stage]
            cells += [seconds(one), seconds(all_of_them), times(one / all_of_them)]
        rows.append(cells)
    speedups = [
        heading for what in ("packing", "pass", "fit") for heading in (f"{what} s", "all", "gain")
    ]
    return table(("workload", "clusters", "threads", *speedups), rows, "lr" + 10 * "r")


def fits_table(group: list[Figures], counted: str = "clusters") -> list[str]:
    """One row a size and peer: times, ratio to lmmfast by the same route, memory, Δ log L."""
    head = counted, "rows", "library", "from", "first s", "best s", "ratio", "peak MB", "Δ log L"
    rows = [row for _, of_size in grouped(group, "rows") for row in fits_rows(of_size)]
    return table(head, rows, "rrllrrrrr")


def fits_rows(group: list[Figures]) -> list[list[str]]:
    """Rows of one size."""
    logliks = [f["loglik"] for f in group if "loglik" in f]
    ours = [f["loglik"] for f in group if f["name"] == "lmmfast" and "loglik" in f]
    zero = ours[0] if ours else max(logliks, default=math.nan)
    rows = []
    for f in group:
        start = [count(f), f"{f['rows']:,}", f["name"], f["route"]]
        if "cold" not in f:
            rows.append([*start, reason(f), "", "", "", ""])
            continue
        rows.append(
            [
                *start,
                seconds(f["cold"]),
                seconds(min(f["warm"])) if f["warm"] else "–",
                times(ratio(f, group)),
                megabytes(f["peak"]) if known(f["peak"]) else "–",
                f"{f['loglik'] - zero:+.1e}",
            ]
        )
    return rows


def after_table(measurements: list[Figures]) -> list[str]:
    """One row a size and thing asked of lmmfast's result: seconds, share of the first fit."""
    rows = []
    for f in measurements:
        if not f.get("after"):
            continue
        start = [count(f), f["route"]]
        rows.append([*start, "(the fit itself, first)", seconds(f["cold"]), ""])
        for what, took in f["after"].items():
            shown = [took, ""] if isinstance(took, str) else [seconds(took), ""]
            if not isinstance(took, str):
                shown[1] = f"{took / f['cold']:.2f}"
            rows.append([*start, what, *shown])
    return table(("clusters", "from", "what", "s", "of the fit"), rows, "rllrr")


def many_table(group: list[Figures]) -> list[str]:
    """One row a library: time of all fits or, where only some were run, of one."""
    ours = leader(group)
    rows = []
    for f in group:
        if "cold" not in f:
            rows.append([f["name"], f["route"], "", reason(f), "", "", ""])
            continue
        rows.append(
            [
                f["name"],
                f["route"],
                f"{f['fits']:,}",
                seconds(f["cold"]),
                seconds(best(f)),
                microseconds(f),
                times(each(f) / each(ours)) if ours else "–",
            ]
        )
    head = "library", "how", "fits", "first s", "best s", "µs a fit", "ratio"
    return table(head, rows, "llrrrrr")


def leader(group: list[Figures]) -> Figures | None:
    """Find lmmfast's first route of many fits."""
    return next((f for f in group if f["name"] == "lmmfast" and "cold" in f), None)


def each(f: Figures) -> float:
    """Seconds of one fit among many."""
    return best(f) / int(f["fits"])


def microseconds(f: Figures) -> str:
    """Time of one fit among many."""
    return f"{1e6 * each(f):,.0f}"


def grouped(measurements: list[Figures], key: str) -> list[tuple[Any, list[Figures]]]:
    """Runs of equal values."""
    return [(value, list(group)) for value, group in groupby(measurements, lambda f: f[key])]


def reference(f: Figures, group: list[Figures]) -> Figures | None:
    """Find lmmfast's figures by the same kind of route, at the same size."""
    alike = (o for o in group if o["name"] == "lmmfast" and o["kind"] == f["kind"] and "cold" in o)
    return next(alike, None)


def ratio(f: Figures, group: list[Figures]) -> float | None:
    """Time of the fastest fit, divided by that of lmmfast by the same kind of route."""
    ours = reference(f, group)
    return best(f) / best(ours) if ours else None


def memory_ratio(f: Figures, ours: Figures) -> str:
    """Peak memory divided by that of lmmfast."""
    there = known(f["peak"]) and known(ours["peak"]) and ours["peak"] > 0
    return times(f["peak"] / ours["peak"]) if there else "–"


def best(f: Figures) -> float:
    """Seconds of the fastest fit, the first included."""
    return float(min([f["cold"], *f["warm"]]))


def known(value: float | None) -> bool:
    """Whether there is a number."""
    return value is not None and not math.isnan(value)


def count(f: Figures) -> str:
    """Number of clusters."""
    return f"{f['clusters']:,}"


def times(value: float | None) -> str:
    """A ratio."""
    if value is None:
        return "–"
    return f"{value:,.0f}×" if value >= 100 else f"{value:.3g}×"


def seconds(value: float) -> str:
    """Three digits, without an exponent for the times that occur."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 1e-4 else f"{value:.1e}"


def megabytes(value: float) -> str:
    """Bytes in units of 10⁶."""
    return f"{value / 1e6:,.1f}"


def reason(f: Figures) -> str:
    """Why there are no figures."""
    if "skipped" in f:
        return f"skipped: about {f['skipped']:,.0f} s expected"
    if "skipped_bytes" in f:
        return f"skipped: about {f['skipped_bytes'] / 1e9:,.0f} GB expected"
    return str(f["failed"])


def line(f: Figures) -> str:
    """One measurement for the terminal, as it comes."""
    result = f"{best(f):.4g} s, log L {f['loglik']:.6f}" if "cold" in f else reason(f)
    return f"{f['workload']:>14} {f['clusters']:>10,}  {f['peer']:36} {result}"


def stage_line(f: Figures) -> str:
    """Stages of one size for the terminal."""
    start = f"{f['workload']:>14} {f['clusters']:>10,}  stages"
    if "failed" in f:
        return f"{start} {f['failed']}"
    shown: dict[str, Callable[[float], str]] = {"pass": seconds, "arrays": seconds, "fit": seconds}
    return f"{start} " + ", ".join(
        f"{what} {' / '.join(show(value) for value in f[what])} s" for what, show in shown.items()
    )


def table(head: Iterable[str], rows: list[list[str]], align: str) -> list[str]:
    """Markdown table, a letter l or r for each column; nothing without rows."""
    if not rows:
        return []
    rule = ["---" if letter == "l" else "---:" for letter in align]
    return [f"| {' | '.join(cells)} |" for cells in (list(head), rule, *rows)]


if __name__ == "__main__":
    write(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
