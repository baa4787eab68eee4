"""Designs of more groups, or of fewer, made of a template's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.data.tables import open_table
from lmmfast.errors import DataError
from lmmfast.formula.parse import ParsedFormula

if TYPE_CHECKING:
    import pandas as pd


def template(
    data: Any, parsed: ParsedFormula, by: str | None
) -> tuple[pd.DataFrame, str, list[str]]:
    """Return the data, the column whose groups are copied, and those that are nested in it.

    Parameters
    ----------
    by : str or None
        None: the first column of the first grouping factor.

    Raises
    ------
    DataError
        ``by`` is no column, or no part of a grouping factor.
    """
    import pandas as pd

    table = open_table(data)
    frame = pd.DataFrame({name: np.asarray(table.fetch(name)) for name in table.names})
    columns = parsed.group_columns
    by = columns[0] if by is None else by
    if by not in columns:
        raise DataError(f"by={by!r}: choose a column of the grouping factors, {', '.join(columns)}")
    for name in columns:
        if name not in frame:
            raise DataError(f"{name!r} is not a column of the data")
    nested = [
        name
        for name in columns
        if name != by and int(frame.groupby(name, sort=False)[by].nunique().max()) == 1
    ]
    return frame, by, nested


def replicated(frame: pd.DataFrame, by: str, nested: list[str], n: int) -> pd.DataFrame:
    """Copy the groups of a template, one after the other, until there are n.

    Groups are called 0 … n - 1; levels of factors nested in them are new ones in each copy, those
    of crossed factors are the same.
    """
    codes, labels = frame[by].factorize()
    m = len(labels)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=m))
    starts = np.append(0, ends[:-1])
    picked = np.arange(n) % m
    rows = np.concatenate([order[starts[k] : ends[k]] for k in picked])
    group = np.repeat(np.arange(n), (ends - starts)[picked])
    out = frame.iloc[rows].reset_index(drop=True)
    out[by] = group
    for name in nested:
        own, levels = frame[name].factorize()
        out[name] = own[rows] + len(levels) * (group // m)
    return out
