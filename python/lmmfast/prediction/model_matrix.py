"""Columns of the fixed effects by name, of the rows of a fit and of new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.data.tables import row_index
from lmmfast.inference.fixed_rows import chunks_of_X

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult


def model_matrix(fit: LMMResult, newdata: Any) -> pd.DataFrame:
    """Make X; see `LMMResult.model_matrix`."""
    import pandas as pd

    if newdata is None:
        fit._check_data(response=False)
        parts = [X for _, X in chunks_of_X(fit, fit._keep, "the rows of X")]
        X = np.concatenate(parts)
        design = fit._need(fit._design, "the rows of X")
        columns, index = [], None
        for column in X.T:
            values, index = design.report(column)
            columns.append(values)
        if not columns:
            index = design.report(np.zeros(len(X)))[1]
        return pd.DataFrame(dict(zip(fit.x_names, columns, strict=True)), index=index)
    made = _new_columns(fit, newdata)
    columns = [np.where(made.missing, np.nan, x) if made.missing is not None else x for x in made.X]
    kept = {name: columns[j] for name, j in zip(fit.x_names, fit._keep, strict=True)}
    index = row_index(newdata)
    return pd.DataFrame(kept, index=pd.RangeIndex(made.n_rows) if index is None else index)


def _new_columns(fit: LMMResult, newdata: Any) -> Any:
    from lmmfast.design.from_arrays import ArraySpec

    if isinstance(fit.spec, ArraySpec):
        return fit.spec.columns(newdata, None, random=False)
    return fit.spec.columns(newdata, random=False, offset=np.empty(0))  # none is read
