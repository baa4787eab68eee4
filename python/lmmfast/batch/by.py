"""One model for each of many segments of the data: `lmm_by`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lmmfast.design.design import warn_of_missing_rows
from lmmfast.errors import LmmWarning
from lmmfast.fitting.options import Options
from lmmfast.literals import Identifiable, Missing, RankDeficient
from lmmfast.progress import Reporter

if TYPE_CHECKING:
    from lmmfast.batch.by_result import LMMByResult


def lmm_by(
    formula: str,
    data: Any,
    by: Any,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    D: Any = None,
    context: Mapping[str, Any] | None = None,
    subset: Any = None,
    missing: Missing = "drop",
    rank_deficient: RankDeficient = "drop",
    identifiable: Identifiable = "raise",
    n_jobs: int | None = None,
    max_iter: int = 200,
    progress: Callable[[dict[str, Any]], None] | bool = False,
) -> LMMByResult:
    """Fit a model to each segment of the data by itself.

    The results are those of `lmmfast.lmm` on each segment's rows.

    Parameters
    ----------
    formula, data
        See `lmmfast.lmm`; ``.`` does not stand for the columns of `by`.
    by : str or sequence of str
        Columns whose values, or combinations of values, tell the segments apart. Rows may come in
        any order.
    reml, weights, offset, D, context, subset, missing, rank_deficient, identifiable, n_jobs,
    max_iter
        See `lmmfast.lmm`. Rows that miss a value of `by` belong to no segment and are left out, or
        refused.
    progress
        See `lmmfast.lmm`; the stages are "read" and "segments".

    Returns
    -------
    LMMByResult

    Raises
    ------
    FormulaError, DataError, UnsupportedModelError
        What is wrong with the data as a whole. What is wrong with a segment is in
        ``result.failed``.

    Warns
    -----
    LmmWarning
        Segments have no fit, did not converge, or lost columns that others determine.

    Notes
    -----
    Segments of at most 4,096 rows are fitted side by side in the core. One at a time, 3 to 20 ms
    each, go larger ones, those that lack a level of a factor or have dependent
    columns, and all of them where the formula learns other things of its rows than ``scale(x)`` and
    ``center(x)`` do (``bs(x)``, ``C(number)``, ``x - x.mean()``) or has several grouping factors.

    Examples
    --------
    >>> import lmmfast as lf
    >>> d = lf.datasets.sleepstudy().assign(half=lambda d: d["Subject"].cat.codes % 2)
    >>> fits = lf.lmm_by("Reaction ~ Days + (1 | Subject)", d, by="half")
    >>> fits.params["Days"].round(2).to_dict()
    {0: 8.87, 1: 12.06}
    """
    from lmmfast.batch.by_fit import SegmentFitter
    from lmmfast.batch.by_result import LMMByResult
    from lmmfast.data.subset import select_rows
    from lmmfast.data.tables import open_table
    from lmmfast.design.from_formula import write_out_dot
    from lmmfast.formula.parse import parse_formula
    from lmmfast.grouping.segments import segments

    options = Options(
        reml,
        rank_deficient,
        n_jobs=n_jobs,
        max_iter=max_iter,
        identifiable=identifiable,
        reporter=Reporter(progress),
    )
    parsed = parse_formula(formula, context=context)
    with options.reporter.stage("read", "rows") as reading:
        table = open_table(data)
        rows = select_rows(subset, table, context)
        parts = segments(table, by, weights=weights, offset=offset, missing=missing, selected=rows)
        reading.advance(parts.table.n_rows)
    parsed = write_out_dot(parsed, parts.table, weights, offset, parts.by)
    fitter = SegmentFitter(parsed, parts, options, missing, D)
    result = LMMByResult(fitter, fitter.fit_all())
    warn_of_missing_rows(result.n_dropped, parts.n_rows, result.missing_counts, stacklevel=3)
    _warn(result)
    return result


def _warn(result: LMMByResult) -> None:
    """Say in one warning what is out of the ordinary, and where to look."""
    failed, warned = result.failed, result.warnings
    unfinished = result.status[~result.converged.to_numpy()].drop(failed.index)
    dropped = warned.drop(unfinished.index.union(failed.index), errors="ignore")
    said = []
    for messages, what, where in (
        (failed, "have no fit", "failed"),
        (unfinished, "did not converge", "status"),
        (dropped, "have warnings", "warnings"),
    ):
        if len(messages):
            first = f"{messages.index.tolist()[0]!r}: {messages.iloc[0]}"
            said.append(f"{len(messages)} of {len(result)} segments {what} (.{where}; {first})")
    if said:
        warnings.warn("; ".join(said), LmmWarning, stacklevel=3)
