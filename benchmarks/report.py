"""The figures of a run as Markdown."""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from simulate import FORMULA

TEMPLATE = Path(__file__).with_name("template.md")
BEGIN, END = "<!-- begin: tables -->", "<!-- end: tables -->"
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


def page(text: str) -> str:
    """The template with ``text`` between its markers."""
    before, rest = TEMPLATE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def markdown(results: dict[str, Any]) -> str:
    """Machine, versions, and for each model the table of fits and that of post-fit work."""
    at = results["machine"]
    versions = results["versions"]
    lines = [
        f"Measured {at['date']} on {at['processor']}; {at['cores']} cores, "
        f"{at['memory_gib']:.0f} GiB, {at['system']}, Python {at['python']}.",
        "",
        "Versions: " + ", ".join(f"{name} {v}" for name, v in versions.items() if v) + ".",
    ]
    missing = [name for name, version in versions.items() if not version]
    if missing:
        lines[-1] += f" Not installed: {', '.join(missing)}."
    if results["notes"]:
        called = (f"{key}: `{note}`" for key, note in results["notes"].items())
        lines += ["", "Not called with plain defaults: " + "; ".join(called) + "."]
    for model in dict.fromkeys(f["model"] for f in results["measurements"]):
        of_model = [f for f in results["measurements"] if f["model"] == model]
        method = "REML" if results["options"]["reml"] else "ML"
        lines += ["", f"## `{FORMULA[model]}`, {method}", "", *fits_table(of_model)]
        after = after_table(of_model)
        if after:
            lines += ["", "What comes after the fit, lmmfast, first call:", "", *after]
    return "\n".join(lines)


def fits_table(measurements: list[Figures]) -> list[str]:
    """One row a size and peer: times, ratio to lmmfast from arrays, memory, Δ log L."""
    head = "clusters", "rows", "library", "from", "first s", "best s", "ratio", "peak MB", "Δ log L"
    return table(head, (row for group in by_size(measurements) for row in fits_rows(group)), 4)


def fits_rows(group: list[Figures]) -> list[list[str]]:
    """Rows of one size."""
    ours = next((f for f in group if f["peer"] == "lmmfast (arrays)" and "cold" in f), None)
    logliks = [f["loglik"] for f in group if "loglik" in f]
    reference = ours["loglik"] if ours else max(logliks, default=math.nan)
    rows = []
    for f in group:
        start = [f"{f['clusters']:,}", f"{f['rows']:,}", f["name"], f["route"]]
        if "cold" not in f:
            rows.append([*start, reason(f), "", "", "", ""])
            continue
        warm = min(f["warm"]) if f["warm"] else None
        ratio = best(f) / best(ours) if ours else None
        rows.append(
            [
                *start,
                seconds(f["cold"]),
                seconds(warm) if warm is not None else "–",
                f"{ratio:.3g}×" if ratio is not None else "–",
                f"{f['peak'] / 1e6:,.1f}" if f["peak"] is not None else "–",
                f"{f['loglik'] - reference:+.1e}",
            ]
        )
    return rows


def after_table(measurements: list[Figures]) -> list[str]:
    """One row a size and thing asked of lmmfast's result: seconds, share of the first fit."""
    rows = []
    for f in measurements:
        if not f.get("after"):
            continue
        start = [f"{f['clusters']:,}", f["route"]]
        rows.append([*start, "(the fit itself, first)", seconds(f["cold"]), ""])
        for what, took in f["after"].items():
            if isinstance(took, str):
                rows.append([*start, what, took, ""])
            else:
                rows.append([*start, what, seconds(took), f"{took / f['cold']:.2f}"])
    head = "clusters", "from", "what", "s", "of the fit"
    return table(head, rows, 3) if rows else []


def by_size(measurements: list[Figures]) -> list[list[Figures]]:
    """Group by number of clusters, in order of appearance."""
    groups: dict[int, list[Figures]] = {}
    for f in measurements:
        groups.setdefault(f["clusters"], []).append(f)
    return list(groups.values())


def best(f: Figures) -> float:
    """Seconds of the fastest fit, the first included."""
    return float(min([f["cold"], *f["warm"]]))


def seconds(value: float) -> str:
    """Three digits, without an exponent for the times that occur."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 1e-4 else f"{value:.1e}"


def reason(f: Figures) -> str:
    """Why there are no figures."""
    if "skipped" in f:
        return f"skipped: about {f['skipped']:,.0f} s expected"
    return str(f["failed"])


def line(f: Figures) -> str:
    """One measurement for the terminal, as it comes."""
    told = f"{best(f):.4g} s, log L {f['loglik']:.6f}" if "cold" in f else reason(f)
    return f"{f['model']:>9} {f['clusters']:>9,}  {f['peer']:36} {told}"


def table(head: Iterable[str], rows: Iterable[list[str]], left: int) -> list[str]:
    """Markdown table; all but the first columns of text align right."""
    head = list(head)
    rule = ["---" if 2 <= j < left or (j == 1 and left == 3) else "---:" for j in range(len(head))]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
