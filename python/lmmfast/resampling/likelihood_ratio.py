"""The parametric bootstrap of likelihood-ratio statistics.

Halekoh and Højsgaard (2014), Journal of Statistical Software 59(9), section 5 (pbkrtest's
PBmodcomp): responses are drawn from the smaller model and both models are fitted to each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast._threads import n_threads
from lmmfast.arrays import Array
from lmmfast.batch.many import SharedDesign, share
from lmmfast.data.batch import CHUNK
from lmmfast.errors import ConvergenceError, DataError
from lmmfast.fitting.options import Options
from lmmfast.fitting.prepare import prepared
from lmmfast.resampling.from_moments import has_moments
from lmmfast.resampling.from_rows import refit_or_reason, responses
from lmmfast.resampling.seeds import count, entropy_of

if TYPE_CHECKING:
    from lmmfast.result import LMMResult


def bootstrap_p(
    small: LMMResult, big: LMMResult, statistic: float, B: int, seed: Any
) -> tuple[float, float, int]:
    """Return the p-value of a statistic, its Monte Carlo standard error, and replicates left out.

    Parameters
    ----------
    small, big : LMMResult
        Fits of the same rows, which they hold.

    Raises
    ------
    ConvergenceError
        No replicate could be fitted by both.
    """
    drawn = null_statistics(small, big, count(B), entropy_of(seed))
    known = drawn[np.isfinite(drawn)]
    if not len(known):
        raise ConvergenceError("no replicate could be fitted by both models")
    # A statistic that is equal but for rounding, as two zeros are, is as large.
    least = statistic - 1e-6 * max(1.0, abs(big.llf) * 1e-3)
    p = (1 + int((known >= least).sum())) / (1 + len(known))
    return p, float(np.sqrt(p * (1 - p) / len(known))), len(drawn) - len(known)


def null_statistics(small: LMMResult, big: LMMResult, B: int, entropy: int) -> Array:
    """Draw B statistics under the smaller model; NaN where a model could not be fitted."""
    for fit in (small, big):
        fit._need(fit._design, "the parametric bootstrap")
        fit._check_data()
    _check_order(small, big)
    likelihoods = [_likelihoods(fit) for fit in (small, big)]
    out = []
    for Y in responses(small, entropy, [(k,) for k in range(B)]):
        low, high = (of(Y) for of in likelihoods)
        out.append(np.maximum(2 * (high - low), 0.0))
    return np.concatenate(out)


def _check_order(small: LMMResult, big: LMMResult) -> None:
    """Refuse rows in different orders: responses of one model are those of the other."""
    one: Any = small._design
    other: Any = big._design
    for start in range(0, one.n_obs, CHUNK):
        rows = slice(start, min(start + CHUNK, one.n_obs))
        if not np.array_equal(one.batch(rows).y, other.batch(rows).y):
            raise DataError(
                "the fits have their rows in different orders: fit both to the same table"
            )


def _likelihoods(fit: LMMResult) -> Callable[[Array], Array]:
    """Log-likelihoods (k,) of fits to responses (n_obs, k), side by side where that can be done."""
    if has_moments(fit):
        shared, offset = _shared(fit), _offset(fit)
        threads = n_threads(shared.options.n_jobs)

        def side_by_side(Y: Array) -> Array:
            found = shared.fit(Y, offset, threads)
            good = [text.startswith("converged") for text in found.status]
            return np.where(good, found.llf, np.nan)

        return side_by_side

    def one_by_one(Y: Array) -> Array:
        found = (refit_or_reason(fit, y)[0] for y in Y.T)
        return np.array([new.llf if new is not None and new.converged else np.nan for new in found])

    return one_by_one


def _shared(fit: LMMResult) -> SharedDesign:
    """What responses of the design of a fit share."""
    design: Any = fit._need(fit._design, "refits")
    clusters: Any = fit._need(fit._clusters, "refits")
    engine: Any = fit._engine
    options = Options(reml=fit._problem.reml, n_jobs=engine.n_threads, identifiable="raise")
    data = prepared(engine.clusters, engine.n_threads)
    return share(design, clusters, fit._covariance, data, options)


def _offset(fit: LMMResult) -> Array | None:
    design: Any = fit._design
    offset = design.batch(slice(None)).offset
    return None if offset is None else np.asarray(offset, dtype=np.float64)
