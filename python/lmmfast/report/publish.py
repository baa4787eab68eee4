"""Fixed effects and variance parameters of a fit as a table for a text."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from lmmfast.arguments import check_choice
from lmmfast.report.text import decimal_places, write_number, write_p

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

FORMATS = ("markdown", "latex", "html", "great_tables")
Blocks = dict[str, list[list[str]]]

_HEADS = ("", "Estimate", "SE", "95 % interval", "p")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def publish(fit: LMMResult, kind: str = "markdown", alpha: float = 0.05) -> Any:
    """Write a table; see `LMMResult.table`."""
    check_choice("format", kind, FORMATS)
    heads = [head.replace("95", f"{100 * (1 - alpha):g}") for head in _HEADS]
    blocks = _blocks(fit, alpha)
    return _WRITERS[kind](heads, blocks, _notes(fit))


def _blocks(fit: LMMResult, alpha: float) -> Blocks:
    """Rows of text under their heading."""
    fixed = _rows(fit.tidy(alpha))
    table = fit.variance_table(alpha)
    return {"Fixed effects": fixed, "Variance parameters": _rows(table)}


def _rows(table: pd.DataFrame) -> list[list[str]]:
    places = decimal_places(table["std_error"].to_numpy(), digits=3)
    found = []
    for name, row in table.iterrows():
        digits = [row[c] for c in ("estimate", "std_error", "conf_low", "conf_high")]
        b, se, low, high = (write_number(float(x), places) for x in digits)
        interval = f"[{low}, {high}]" if low and high else ""
        p = write_p(float(row["p_value"])) if "p_value" in table else ""
        found.append([str(name), b, se, interval, p])
    return found


def _notes(fit: LMMResult) -> str:
    groups = ", ".join(f"{m:,} groups of {name}" for name, (m, _) in fit._grouping.items())
    return (
        f"{fit.y_name}: {fit.method}, {fit.nobs:,} rows, {groups}; log-likelihood {fit.llf:.3f}, "
        f"AIC {fit.aic:.1f}, BIC {fit.bic:.1f}."
    )


def _markdown(heads: list[str], blocks: Blocks, notes: str) -> str:
    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    lines = [line(heads), "|:---|" + "---:|" * (len(heads) - 1)]
    for title, rows in blocks.items():
        lines += [line([f"**{title}**", *[""] * (len(heads) - 1)]), *map(line, rows)]
    return "\n".join([*lines, "", notes.replace("|", chr(92) + "|"), ""])


def _latex(heads: list[str], blocks: Blocks, notes: str) -> str:
    def line(cells: list[str]) -> str:
        return " & ".join(map(_latex_text, cells)) + r" \\"

    width = len(heads)
    lines = [rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}", r"\toprule", line(heads)]
    for title, rows in blocks.items():
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\textit{{{title}}}}} \\"]
        lines += map(line, rows)
    notes = (
        rf"\multicolumn{{{width}}}{{p{{0.9\linewidth}}}}{{\footnotesize {_latex_text(notes)}}} \\"
    )
    return "\n".join([*lines, r"\bottomrule", notes, r"\end{tabular}", ""])


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _html(heads: list[str], blocks: Blocks, notes: str) -> str:
    def line(cells: list[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    lines = ["<table>", f"<thead>{line(heads, 'th')}</thead>"]
    for title, rows in blocks.items():
        head = f'<tr><th colspan="{len(heads)}">{escape(title)}</th></tr>'
        lines += ["<tbody>", head, *(line(row, "td") for row in rows), "</tbody>"]
    foot = f'<tfoot><tr><td colspan="{len(heads)}">{escape(notes)}</td></tr></tfoot>'
    return "\n".join([*lines, foot, "</table>", ""])


def _great_table(heads: list[str], blocks: Blocks, notes: str) -> Any:
    import pandas as pd

    try:
        from great_tables import GT
    except ImportError as error:
        raise ImportError(
            "format='great_tables' needs great_tables: pip install 'lmmfast[tables]'"
        ) from error
    columns = ["block", "term", "estimate", "std_error", "interval", "p"]
    rows = [[title, *row] for title, own in blocks.items() for row in own]
    table = GT(pd.DataFrame(rows, columns=columns), rowname_col="term", groupname_col="block")
    labels = dict(zip(columns[2:], heads[1:], strict=True))
    return table.cols_label(labels).cols_align("right", columns[2:]).tab_source_note(notes)


_WRITERS: dict[str, Callable[[list[str], Blocks, str], Any]] = {
    "markdown": _markdown,
    "latex": _latex,
    "html": _html,
    "great_tables": _great_table,
}
