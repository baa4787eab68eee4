"""Standard errors and intervals of predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmmfast.arrays import Array
from lmmfast.errors import ConvergenceError, DataError, UnsupportedModelError
from lmmfast.inference.methods import theta_covariance
from lmmfast.inference.totals import InferenceTotals, inference_totals
from lmmfast.inference.wald import t_quantile
from lmmfast.prediction.blocks_compressed import compressed_blocks
from lmmfast.prediction.blocks_levels import level_blocks
from lmmfast.prediction.blocks_structured import structured_blocks
from lmmfast.prediction.derivatives import ThetaParameters
from lmmfast.prediction.given import GivenRows
from lmmfast.prediction.mse import Blocks, Errors, Uncertainty, errors_of
from lmmfast.prediction.placed import cluster_of
from lmmfast.prediction.targets import Targets, target_variances

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult

Index = NDArray[np.intp]


class NoBlocks:
    """Targets of which no rows tell anything: new groups, the population."""

    within = True

    def __init__(self, p: int, n_targets: Index) -> None:
        self.V, self.Xg = np.empty((1, 0, 0)), np.empty((1, 0, p))
        self.targets, self.own = n_targets, np.zeros(len(n_targets), dtype=np.intp)

    def c(self, rows: Index) -> tuple[Array, None]:
        """No covariances."""
        return np.empty((len(rows), 0)), None

    def dc(self, k: int, rows: Index) -> tuple[Array, None]:
        """No derivatives of them."""
        return np.empty((len(rows), 0)), None

    def dV(self, k: int, rows: Index, u: Array) -> Array:
        """Return nothing."""
        return u


def standard_errors(
    fit: LMMResult,
    targets: Targets,
    uncertainty: str,
    given: GivenRows | None = None,
    told: Index | None = None,
) -> tuple[Array, Array]:
    """Standard errors (N,) of predictions, and the degrees of freedom of their t statistics.

    Parameters
    ----------
    targets : Targets
    uncertainty : {"beta", "theta"}
    given : GivenRows, optional
        Rows of groups that the fit does not have.
    told : ndarray of int (N,), optional
        Which of these groups each target belongs to; -1: to none.

    Raises
    ------
    UnsupportedModelError
        Robust variances of anything but X beta; theta's uncertainty where the engine lacks what it
        takes.
    DataError
        Known groups of a fit that holds no rows.
    """
    check_method(fit, targets, uncertainty)
    G, known = _uncertainty(fit, uncertainty)
    theta = ThetaParameters(fit)
    if uncertainty == "theta" and targets.has_more(theta):
        raise UnsupportedModelError(
            "uncertainty='theta' of a new observation whose error is correlated with those of its "
            "group: predict it with them, by residual='errors' (with a nugget 'process')"
        )
    variances = target_variances(fit, targets, theta)
    elsewhere = np.zeros(len(targets.x), dtype=bool) if told is None else told >= 0
    blocks = blocks_of(fit, theta, G, targets, elsewhere)
    if given is not None and told is not None:
        blocks += given.blocks(fit, theta, G, targets, told)
    errors = errors_of(targets.x @ G, variances, blocks, known)
    return finished(fit, targets, G, errors, uncertainty)


def check_method(fit: LMMResult, targets: Targets, uncertainty: str) -> None:
    """Refuse what a method of inference says nothing of."""
    vcov = fit._method.vcov
    if vcov == "model":
        return
    if targets.signal or targets.observation or uncertainty == "theta":
        raise UnsupportedModelError(
            f"vcov={vcov!r} is about beta alone, and says nothing of the errors of random effects "
            "or of a new observation: use fit.inference(vcov='model'), or level='population' with "
            "interval='confidence'"
        )


def _uncertainty(fit: LMMResult, uncertainty: str) -> tuple[Array, Uncertainty]:
    """G with G G' = C, and what is known of theta so far as it is wanted."""
    totals: InferenceTotals | None = None
    W: Array | None = None
    if fit._method.needs_totals or uncertainty == "theta":
        try:
            totals, W = theta_covariance(fit, fit._method)
        except ConvergenceError:
            if uncertainty == "theta":
                raise
    if totals is None or W is None:
        return root_of(fit._estimates.cov_beta), Uncertainty()
    if uncertainty != "theta":
        return totals.root, Uncertainty(totals.q, None, W)
    if totals.r is None:
        totals = inference_totals(fit)
    if totals.r is None:
        raise UnsupportedModelError(
            "uncertainty='theta' needs second-order sums, which models of crossed factors with so "
            "many effects do not have: use uncertainty='beta'"
        )
    return totals.root, Uncertainty(totals.q, totals.r, W, True)


def root_of(C: Array) -> Array:
    """G with G G' = C."""
    values, vectors = np.linalg.eigh(C)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def blocks_of(
    fit: LMMResult,
    theta: ThetaParameters,
    G: Array,
    targets: Targets,
    elsewhere: NDArray[np.bool_],
) -> list[Blocks]:
    """Blocks of V that targets are correlated with; those of no group have an empty one.

    Parameters
    ----------
    elsewhere : ndarray of bool (N,)
        Targets that are in other blocks.
    """
    told = np.zeros(len(targets.x), dtype=bool)
    for factor in targets.signal:
        told |= targets.levels[factor] >= 0
    out: list[Blocks] = [NoBlocks(len(G), np.flatnonzero(~told & ~elsewhere))]
    at = np.flatnonzero(told)
    if not len(at):
        return out
    if fit._design is None:
        raise DataError(
            "standard errors of conditional predictions take the rows of the groups, and a saved "
            "or stripped fit holds none: predict at level='population', or pass the rows of the "
            "groups as given="
        )
    fit._check_data()
    if len(fit._grouping) > 1:
        out += level_blocks(fit, theta, G, targets, at)
        return out
    level = targets.levels[0][at]
    if fit._residual_model is not None:
        out += structured_blocks(fit, theta, G, targets, at, cluster_of(fit, level))
    else:
        out += compressed_blocks(fit, theta, G, targets, at, cluster_of(fit, level))
    return out


def finished(
    fit: LMMResult, targets: Targets, G: Array, errors: Errors, uncertainty: str
) -> tuple[Array, Array]:
    """Standard errors and degrees of freedom by the method of inference of a view."""
    mse, method = errors.mse, fit._method
    if uncertainty == "theta":
        mse = mse + 2 * errors.g3
    elif method.adjusts_errors:
        inverse = np.linalg.inv(G)
        more = inverse @ fit._cov_beta @ inverse.T - np.eye(len(G))
        mse = mse + np.einsum("Np,pq,Nq->N", errors.a, more, errors.a)
    df = errors.df
    if not method.needs_totals or method.vcov != "model":
        rows, which = np.unique(targets.x, axis=0, return_inverse=True)
        df = np.array([fit._denominators.df(row) for row in rows])[which.ravel()]
    return np.sqrt(mse), df


def frame(
    estimate: Any, error: Array, df: Array, interval: str | None, alpha: float
) -> pd.DataFrame:
    """Return estimate, std_error, df and, if wanted, conf_low and conf_high."""
    import pandas as pd

    index = estimate.index if isinstance(estimate, pd.Series) else None
    value = np.asarray(estimate)
    columns = {"estimate": value, "std_error": error, "df": df}
    if interval is not None:
        half = t_quantile(alpha, df) * error
        columns |= {"conf_low": value - half, "conf_high": value + half}
    return pd.DataFrame(columns, index=index)
