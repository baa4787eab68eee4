"""The figures of models with a residual structure as Markdown: a part of the page of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import report
from structured import STRUCTURED, Structured

Figures = dict[str, Any]


def markdown(results: Figures) -> str:
    """Overview, and a table for each model; nothing where none was measured."""
    measured = results["structured"]
    if not measured:
        return ""
    names = {f["name"] for f in measured}
    versions = {name: v for name, v in results["versions"].items() if name in names}
    method = "REML" if results["options"]["reml"] else "ML"
    lines = [*report.told(results | {"versions": versions, "notes": {}}), "", *overview(measured)]
    for name, group in report.grouped(measured, "workload"):
        workload = STRUCTURED[name]
        lines += ["", f"### {name}: {workload.about}", "", *calls(workload, method), ""]
        lines += report.fits_table(group)
        if workload.series:
            lines += ["", *growth(group)]
    return "\n".join(lines)


def overview(measured: list[Figures]) -> list[str]:
    """Each workload and library at the largest size that it was measured at."""
    rows = []
    for name, of_workload in report.grouped(measured, "workload"):
        sizes = [group for _, group in report.grouped(of_workload, "rows")]
        ours = [f["peer"] for f in of_workload if f["name"] == "lmmfast"]
        others = [f["peer"] for f in of_workload if f["name"] != "lmmfast"]
        for peer in dict.fromkeys(others or ours[-1:]):
            pairs = [(f, group) for group in sizes for f in group if f["peer"] == peer]
            done = [(f, group) for f, group in pairs if "cold" in f]
            if not done:
                continue
            f, group = done[-1]
            lmmfast = report.reference(f, group)
            compared = f is not lmmfast and lmmfast is not None
            rows.append(
                [
                    name,
                    report.count(f),
                    f"{f['rows']:,}",
                    report.seconds(report.best(lmmfast)) if lmmfast else "–",
                    peer if compared else "–",
                    report.seconds(report.best(f)) if compared else "–",
                    report.times(report.ratio(f, group)) if compared else "–",
                ]
            )
    head = "workload", "clusters", "rows", "lmmfast s", "peer", "peer s", "ratio"
    return report.table(head, rows, "lrrrlrr")


def calls(workload: Structured, method: str) -> list[str]:
    """What users write, in Python and in R."""
    written = (workload.call, *workload.calls.values())
    return [f"{method}, by", "", *(f"    {call}" for call in written)]


def growth(group: list[Figures]) -> list[str]:
    """Exponents of time and memory against the length of the series, and bytes a row."""
    lines = []
    for peer in dict.fromkeys(f["peer"] for f in group):
        done = [f for f in group if f["peer"] == peer and "cold" in f]
        if len(done) < 2:
            continue
        rows = [f["rows"] for f in done]
        took = [report.best(f) for f in done]
        last = done[-1]["rows"] / done[-1]["clusters"]
        told = f"{peer}: from {rows[0] / done[0]['clusters']:,.0f} to {last:,.0f} rows a series, "
        told += f"time grows as their number to the power {exponent(rows, took):.2f}"
        told += f" ({exponent(rows[-2:], took[-2:]):.2f} between the last two sizes)"
        peaks = [f["peak"] for f in done]
        if all(report.known(peak) and peak > 0 for peak in peaks):
            told += f", peak memory to the power {exponent(rows, peaks):.2f}"
            told += f" ({peaks[-1] / rows[-1]:.0f} bytes a row at the end)"
        lines.append(f"- {told}")
    return lines


def exponent(sizes: list[float], values: list[float]) -> float:
    """Slope of the logarithms, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
