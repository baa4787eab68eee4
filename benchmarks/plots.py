"""Pictures of the fits of one model: time and peak memory against the number of clusters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import report

# Colours of Okabe and Ito, told apart without red-green vision; each library has a marker too.
STYLE = {
    "lmmfast": ("#0072B2", "o"),
    "mixedlm-rs": ("#D55E00", "s"),
    "glmm": ("#009E73", "^"),
    "lme-python": ("#CC79A7", "D"),
    "lme4": ("#E69F00", "v"),
    "statsmodels": ("#000000", "X"),
}
SPACING = 0.058  # of the height of a panel, between labels
Series = tuple[dict[str, Any], list[float], list[float]]


def figure(measured: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draw both panels for one model and save them as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    both = len({f["kind"] for f in measured}) > 1
    fig, axes = plt.subplots(1, 2, figsize=(11.5, 5.0), layout="constrained")
    panel(axes[0], [(f, report.best(f)) for f in measured], "fastest fit, seconds")
    memory = [(f, f["peak"] / 1e6) for f in measured if report.known(f["peak"]) and f["peak"] > 0]
    panel(axes[1], memory, "peak memory of a fit, MB")
    how = "; solid: arrays, dashed: formula and data frame or columns" if both else ""
    fig.suptitle(f"{title[0].upper()}{title[1:]}, clusters of 2 to 8 rows{how}", fontsize=11)
    fig.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(fig)


def panel(ax: Any, points: list[tuple[dict[str, Any], float]], label: str) -> None:
    """One line for each peer, with its name at its end."""
    lines = [draw(ax, *one) for one in series(points)]
    from matplotlib.ticker import NullLocator

    ax.set(xscale="log", yscale="log", xlabel="clusters", ylabel=label)
    ax.grid(which="major", color="0.88", linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    sizes = sorted({f["clusters"] for f, _ in points})
    ax.set_xticks(sizes)
    low, high = sizes[0], sizes[-1]
    ax.set_xlim(low / 1.4, high * (high / low) ** 0.42)
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top * (top / bottom) ** SPACING)  # room for a label moved up
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_formatter("")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    label_ends(ax, lines)


def series(points: list[tuple[dict[str, Any], float]]) -> list[Series]:
    """Numbers of clusters and values of each peer."""
    found: dict[str, Series] = {}
    for f, value in points:
        _, x, y = found.setdefault(f["peer"], (f, [], []))
        x.append(f["clusters"])
        y.append(value)
    return list(found.values())


def draw(ax: Any, f: dict[str, Any], x: list[float], y: list[float]) -> Series:
    """Draw one peer's line; lmmfast's are thicker."""
    colour, marker = STYLE.get(f["name"], ("0.4", "P"))
    formula = f["kind"] == "formula"
    ax.plot(
        x,
        y,
        color=colour,
        marker=marker,
        markersize=6,
        linewidth=2.4 if f["name"] == "lmmfast" else 1.4,
        linestyle="--" if formula else "-",
        markerfacecolor="white" if formula else colour,
        zorder=5 if f["name"] == "lmmfast" else 2,
    )
    return f, x, y


def label_ends(ax: Any, lines: list[Series]) -> None:
    """Write each name beside the end of its line, moved up where it would cover another."""
    low, high = (math.log10(value) for value in ax.get_ylim())
    height = high - low
    for end in {x[-1] for _, x, _ in lines}:
        at_end = sorted((y[-1], f["name"], f["kind"]) for f, x, y in lines if x[-1] == end)
        last = -math.inf
        for value, name, kind in at_end:
            place = max((math.log10(value) - low) / height, last + SPACING)
            last = place
            ax.annotate(
                f"{name}, {kind}" if name in ("lmmfast", "mixedlm-rs") else name,
                (end, 10 ** (low + place * height)),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
                zorder=4,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
                color=STYLE.get(name, ("0.4", ""))[0],
                fontweight="bold" if name == "lmmfast" else "normal",
            )
