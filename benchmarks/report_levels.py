"""Figures of models with several grouping factors as Markdown: a part of the page of its own."""

from __future__ import annotations

from typing import Any

import report
from levels import LEVELS

Figures = dict[str, Any]


def markdown(results: Figures) -> str:
    """Overview, and a table for each model; nothing where none was measured."""
    measured = results["levels"]
    if not measured:
        return ""
    names = {f["name"] for f in measured}
    versions = {name: v for name, v in results["versions"].items() if name in names}
    notes = {f["peer"]: results["notes"].get(f["peer"]) for f in measured}
    notes = {peer: note for peer, note in notes.items() if note}
    method = "REML" if results["options"]["reml"] else "ML"
    lines = [*report.told(results | {"versions": versions, "notes": notes}), ""]
    lines += overview(measured)
    for name, group in report.grouped(measured, "workload"):
        workload = LEVELS[name]
        lines += ["", f"### {name}: {workload.about}", "", f"`{workload.formula}`, {method}", ""]
        lines += report.fits_table(group, f"levels of {workload.groups[0]}")
    return "\n".join(lines)


def overview(measured: list[Figures]) -> list[str]:
    """Each workload at its largest size: lmmfast and the fastest peer by the same kind of route."""
    rows = []
    for name, of_workload in report.grouped(measured, "workload"):
        _, group = report.grouped(of_workload, "rows")[-1]
        pairs = [(f, report.reference(f, group)) for f in group if f["name"] != "lmmfast"]
        rated = [(f, ours) for f, ours in pairs if "cold" in f and ours]
        start = [name, f"{group[0]['rows']:,}"]
        if rated:
            f, ours = min(rated, key=lambda pair: report.best(pair[0]))
            rows.append(
                [
                    *start,
                    report.seconds(report.best(ours)),
                    f["peer"],
                    report.seconds(report.best(f)),
                    report.times(report.best(f) / report.best(ours)),
                    report.memory_ratio(f, ours),
                ]
            )
            continue
        for ours in (f for f in group if f["name"] == "lmmfast" and "cold" in f):
            rows.append([*start, report.seconds(report.best(ours)), "–", "–", "–", "–"])
            break
    head = "workload", "rows", "lmmfast s", "fastest peer", "peer s", "ratio", "memory ratio"
    return report.table(head, rows, "lrrlrrr")
