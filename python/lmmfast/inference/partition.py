"""Where the variance of the response lies: by grouping factor, and in the residuals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmmfast.arrays import Array
from lmmfast.data.batch import CHUNK
from lmmfast.prediction.rows_used import residual_sds

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

RESIDUAL = "Residual"


def variance_partition(fit: LMMResult) -> pd.DataFrame:
    """Variance, share and intraclass correlation by factor; see `LMMResult.variance_partition`."""
    import pandas as pd

    variance = pd.Series(fit._mean_variances)
    share = variance / variance.sum()
    inside = {
        name: [name, *(outer for outer in fit.nested_in[name] if outer in share)]
        for name in share.index
        if name != RESIDUAL
    }
    icc = [share[inside[name]].sum() if name in inside else np.nan for name in share.index]
    return pd.DataFrame({"variance": variance, "share": share, "icc": icc})


def mean_variances(fit: LMMResult) -> dict[str, float]:
    """Means over the rows used of z' D_f z for each grouping factor, then of the residuals.

    Raises
    ------
    DataError
        The fit holds no rows.
    """
    design = fit._need(fit._design, "variance partitions")
    fit._check_data(response=False)
    factors = dict.fromkeys(term.group for term in fit.terms)
    owner = np.array([term.group for term in fit.terms for _ in term.names], dtype=object)
    columns = {name: np.flatnonzero(owner == name) for name in factors}
    root = np.sqrt(fit._unit) * fit._basis.z_map() @ fit._Lambda
    sds = residual_sds(fit)
    sums, residual = dict.fromkeys(factors, 0.0), 0.0 if sds is None else float(sds @ sds)
    for start in range(0, design.n_obs, CHUNK):
        rows = slice(start, min(start + CHUNK, design.n_obs))
        batch = design.batch(rows).as_float()
        for name, own in columns.items():
            sums[name] += _sum_of_squares([batch.Z[k] for k in own], root[np.ix_(own, own)])
        if sds is None:
            relative = rows.stop - start if batch.weights is None else np.sum(1.0 / batch.weights)
            residual += fit.scale * float(relative)
    return {name: total / design.n_obs for name, total in {**sums, RESIDUAL: residual}.items()}


def _sum_of_squares(Z: list[Array], root: Array) -> float:
    """Sum over rows of z' D z, D = root root': squares, of which none cancels another."""
    return float(
        sum(np.sum(sum(z * r for z, r in zip(Z, column, strict=True)) ** 2) for column in root.T)
    )
