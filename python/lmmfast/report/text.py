"""Tables of numbers as aligned text and as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

WIDTH = 88  # columns of a report

Row = Sequence[str]


def decimal_places(*columns: Iterable[float], digits: int = 4) -> int | None:
    """Find decimal places for numbers that stand in the same table.

    The smallest number that is not zero gets ``digits`` significant digits.

    Returns
    -------
    int or None
        None if common decimal places would make long numbers.
    """
    sizes = np.abs(np.concatenate([np.asarray(list(c), dtype=float) for c in columns]))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not sizes.size:
        return digits - 1
    places = max(0, digits - 1 - math.floor(math.log10(sizes.min())))
    return places if places <= 6 and sizes.max() < 10.0 ** (9 - places) else None


def write_number(value: float, places: int | None, digits: int = 4) -> str:
    """Write a number with fixed decimal places, or (None) with significant digits; NaN as ""."""
    if math.isnan(value):
        return ""
    return f"{value:#.{digits}g}" if places is None else f"{value:.{places}f}"


def write_p(value: float) -> str:
    """Write a p-value with four decimals, or as less than the smallest of these."""
    if math.isnan(value):
        return ""
    return "<0.0001" if value < 0.00005 else f"{value:.4f}"


def text_table(header: Row, rows: Sequence[Row], n_labels: int) -> list[str]:
    """Lay out a table in at most `WIDTH` columns.

    Parameters
    ----------
    header : sequence of str
    rows : sequence of sequences of str
        As many cells as the header.
    n_labels : int
        The first columns are labels, aligned to the left; the others numbers, to the right. A
        label too long for its column stands alone on a line above the rest of its row.
    """
    widths = [max(len(row[j]) for row in [header, *rows]) for j in range(len(header))]
    room = WIDTH - sum(widths[n_labels:]) - 2 * (len(header) - 1)
    widths[:n_labels] = _share(widths[:n_labels], room)
    out = []
    for row in [header, *rows]:
        cells = list(row)
        for j in range(n_labels):
            if len(cells[j]) > widths[j]:
                lead = "".join(f"{c:<{w}}  " for c, w in zip(cells[:j], widths[:j], strict=True))
                out.append(lead + shorten(cells[j], WIDTH - len(lead)))
                cells[: j + 1] = [""] * (j + 1)
        labels = [f"{c:<{w}}" for c, w in zip(cells[:n_labels], widths[:n_labels], strict=True)]
        numbers = [f"{c:>{w}}" for c, w in zip(cells[n_labels:], widths[n_labels:], strict=True)]
        line = "  ".join([*labels, *numbers]).rstrip()
        if line:
            out.append(line)
    return out


def _share(widths: list[int], room: int) -> list[int]:
    """Cut label widths down until they fit the room, the widest first."""
    widths = list(widths)
    while sum(widths) > room and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    return widths


def shorten(text: str, width: int) -> str:
    """Leave out the middle of a text that is too long."""
    if len(text) <= width:
        return text
    tail = (width - 3) // 2
    return f"{text[: width - 3 - tail]}...{text[len(text) - tail :]}"


def html_table(header: Row, rows: Sequence[Row], n_labels: int) -> str:
    """Lay out a table in HTML; all cells are escaped."""

    def line(row: Row, tag: str) -> str:
        cells = []
        for j, cell in enumerate(row):
            kind, side = ("th", "left") if j < n_labels else (tag, "right")
            cells.append(f'<{kind} style="text-align:{side}">{escape(cell)}</{kind}>')
        return f"<tr>{''.join(cells)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>"
