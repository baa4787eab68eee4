"""Measures of the influence of groups and rows, as a table."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.diagnostics.cluster_totals import group_totals, outermost
from lmmfast.diagnostics.deletion import (
    Measures,
    joined,
    measures,
    without_groups,
    without_levels,
    without_rows,
)
from lmmfast.diagnostics.inverse_rows import coefficient_root
from lmmfast.diagnostics.one_step import OneStep
from lmmfast.diagnostics.refits import refit_without
from lmmfast.errors import ConvergenceWarning, DataError, UnsupportedModelError
from lmmfast.search.objective import Evaluation

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

#: Steps of a variance parameter, in standard errors, from which the model is fitted anew.
LONG_STEP = 0.3
#: As many fits are made at most where the number is not given.
MOST_REFITS = 50


@dataclass(frozen=True, eq=False)
class Sets:
    """Sets of rows that are left out, each by itself.

    Attributes
    ----------
    name : str
        What they are called.
    measures : Measures
        Of m sets.
    theta : ndarray (m, n_theta) or None
        theta less theta without the set.
    factor : int or None
        Grouping factor whose levels they are; None: rows.
    """

    name: str
    measures: Measures
    theta: Array | None
    factor: int | None


def influence(fit: LMMResult, by: str | None, theta: bool, refit: int | str) -> pd.DataFrame:
    """Make the table; see `LMMResult.influence`."""
    fit._need(fit._design, "influence")
    if isinstance(refit, bool) or not (
        refit == "auto" or (isinstance(refit, int | np.integer) and refit >= 0)
    ):
        raise DataError(f"refit={refit!r}: give a number of refits, or 'auto'")
    found = _sets(fit, by, theta)
    values, refitted = _with_refits(fit, found, refit)
    return _frame(fit, values, refitted)


def _sets(fit: LMMResult, by: str | None, theta: bool) -> Sets:
    names = list(fit._grouping)
    if by == "row":
        return Sets("row", without_rows(fit, coefficient_root(fit)), None, None)
    if by is not None and by not in names:
        raise DataError(f"by={by!r}: choose one of {', '.join(map(repr, ['row', *names]))}")
    if by is not None and len(names) > 1:
        factor, codes = names.index(by), fit._need(fit._clusters, "influence").codes  # type: ignore[attr-defined]
        if not _is_outermost(fit, factor):
            found = without_levels(fit, coefficient_root(fit), codes[factor])
            return Sets(by, found, None, factor)
    factor = outermost(fit)
    found, steps = _of_groups(fit, theta)
    return Sets(names[factor], found, steps, factor)


def _is_outermost(fit: LMMResult, factor: int) -> bool:
    try:
        return outermost(fit) == factor
    except UnsupportedModelError:
        return False


def _of_groups(fit: LMMResult, theta: bool) -> tuple[Measures, Array | None]:
    """Leave out each independent group; measures in the order of the stored groups."""
    engine: Any = fit._need(fit._engine, "influence")
    evaluation = Evaluation(fit._problem, engine.totals(fit._Lambda, with_kr=theta))
    if theta and (evaluation.totals.kr is None or evaluation.totals.average):
        raise UnsupportedModelError(
            "there are no second-order sums of so many crossed effects: pass theta=False for the "
            "influence at fixed variance parameters"
        )
    root = np.sqrt(fit._unit) * fit._basis.x_map(fit._keep) @ evaluation.S_inv_root
    one_step = OneStep(fit, evaluation) if theta else None
    order, parts, steps = [], [], []
    for part in group_totals(fit, root, derivatives=theta):
        deletion = without_groups(part.gram, part.n)
        if one_step is not None:
            step = one_step.of(part, deletion)
            deletion = step.deletion
            steps.append(step.theta)
        order.append(part.group)
        parts.append(measures(deletion, root))
    places = np.argsort(np.concatenate(order), kind="stable")
    return joined(parts).at(places), np.concatenate(steps)[places] if steps else None


# -- fits without the few that matter --------------------------------------------------------------


def _with_refits(fit: LMMResult, found: Sets, refit: int | str) -> tuple[Sets, NDArray[np.bool_]]:
    """Replace measures of some sets by those of fits without them."""
    refitted = np.zeros(len(found.measures.n), dtype=bool)
    chosen = _chosen(fit, found, refit)
    if not len(chosen):
        return found, refitted
    own = found.measures
    cooks_d, covratio, dfbetas = own.cooks_d.copy(), own.covratio.copy(), own.dfbetas.copy()
    theta = np.full((len(refitted), len(fit.theta_names)), np.nan)
    if found.theta is not None:
        theta[:] = found.theta
    inverse = np.linalg.inv(fit._estimates.cov_beta)
    size = np.linalg.slogdet(inverse)[1]
    for k in chosen:
        new = refit_without(fit, _rows_of(fit, found, int(k)))
        if new is None:
            continue
        move = fit._estimates.beta - new.beta
        cooks_d[k] = move @ inverse @ move / len(move) if len(move) else np.nan
        with np.errstate(invalid="ignore"):
            covratio[k] = np.exp(np.linalg.slogdet(new.cov)[1] + size)
        dfbetas[k] = move / np.sqrt(np.diag(new.cov))
        theta[k] = fit._estimates.theta - new.theta
        refitted[k] = True
    failed = chosen[~refitted[chosen]]
    if len(failed):
        warnings.warn(
            f"{len(failed)} fits without rows of {found.name!r} failed or did not converge, the "
            f"first without {_labels(fit, found)[failed[0]]}: their measures are not of refits",
            ConvergenceWarning,
            stacklevel=4,
        )
    new_measures = Measures(own.n, own.leverage, cooks_d, covratio, dfbetas)
    return replace(found, measures=new_measures, theta=theta), refitted


def _chosen(fit: LMMResult, found: Sets, refit: int | str) -> NDArray[np.intp]:
    """Which sets are left out by fitting anew, the most influential first."""
    score = found.measures.cooks_d
    if found.theta is not None:
        steps = np.abs(found.theta) / fit.theta_se.to_numpy()
        score = np.where(np.isnan(steps), 0.0, steps).max(axis=1, initial=0.0)
    order = np.argsort(-np.where(np.isnan(score), np.inf, score), kind="stable")
    if refit != "auto":
        return order[: int(refit)]
    if found.theta is None:
        return order[:0]
    return order[: min(MOST_REFITS, int((score > LONG_STEP).sum()))]


def _rows_of(fit: LMMResult, found: Sets, k: int) -> NDArray[np.intp]:
    """Rows used of a set."""
    if found.factor is None:
        return np.array([k])
    clusters: Any = fit._need(fit._clusters, "refits")
    if len(fit._grouping) > 1:
        return np.flatnonzero(clusters.codes[found.factor] == k)
    places = np.arange(clusters.ptr[k], clusters.ptr[k + 1])
    return places if clusters.order is None else np.asarray(clusters.order[places], dtype=np.intp)


# -- the table -------------------------------------------------------------------------------------


def _labels(fit: LMMResult, found: Sets) -> Any:
    """What the sets are called, in their order."""
    if found.factor is None:
        index = fit._need(fit._design, "influence").index
        return np.arange(fit.nobs) if index is None else index
    clusters: Any = fit._need(fit._clusters, "influence")
    own = clusters.labels
    return np.asarray(own[found.factor] if len(fit._grouping) > 1 else own)


def _frame(fit: LMMResult, found: Sets, refitted: NDArray[np.bool_]) -> pd.DataFrame:
    import pandas as pd

    own = found.measures
    columns: dict[str, NDArray[Any]] = {
        "rows": own.n,
        "leverage": own.leverage,
        "cooks_d": own.cooks_d,
        "covratio": own.covratio,
        **{f"dfb_{name}": own.dfbetas[:, j] for j, name in enumerate(fit.x_names)},
    }
    if found.theta is not None:
        se = fit.theta_se.to_numpy()
        columns["theta_d"] = _theta_distance(fit, found.theta)
        for j, name in enumerate(fit.theta_names):
            columns[f"dft_{name}"] = found.theta[:, j] / se[j]
    if found.theta is not None or refitted.any():
        columns["refitted"] = refitted
    if found.factor is None:
        return _by_row(fit, columns)
    labels = _labels(fit, found)
    if len(fit._grouping) == 1:
        clusters = fit._need(fit._clusters, "influence")
        columns = {name: clusters.reported(values) for name, values in columns.items()}
        labels = clusters.reported(labels)
    return pd.DataFrame(columns, index=pd.Index(labels, name=found.name))


def _theta_distance(fit: LMMResult, theta: Array) -> Array:
    """Square of the change of theta in the metric of its covariance matrix, over its length."""
    cov = fit.theta_cov.to_numpy()
    free = np.isfinite(np.diag(cov))
    if not free.any():
        return np.full(len(theta), np.nan)
    inverse = np.linalg.pinv(cov[np.ix_(free, free)], hermitian=True)
    own = theta[:, free]
    return np.asarray(np.einsum("bi,ij,bj->b", own, inverse, own) / free.sum())


def _by_row(fit: LMMResult, columns: dict[str, NDArray[Any]]) -> pd.DataFrame:
    """Rows as other values by row are handed out: with NaN for those left out, if so asked for."""
    import pandas as pd

    design = fit._need(fit._design, "influence")
    reported, index = {}, None
    for name, values in columns.items():
        if name != "rows":
            reported[name], index = design.report(values.astype(np.float64))
    frame = pd.DataFrame(reported, index=index)
    if "refitted" in frame:
        frame["refitted"] = frame["refitted"] == 1
    return frame
