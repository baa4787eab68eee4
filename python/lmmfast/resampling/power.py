"""The power of tests of fixed effects, by simulation: data are drawn, fitted and tested.

Green and MacLeod (2016), Methods in Ecology and Evolution 7, 493-498 (simr).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast.errors import DataError, LmmError, LmmWarning
from lmmfast.formula.parse import parse_formula
from lmmfast.inference.hypotheses import read_hypothesis
from lmmfast.inference.methods import Method
from lmmfast.resampling.from_rows import refits
from lmmfast.resampling.replicated import replicated, template
from lmmfast.resampling.seeds import count, entropy_of
from lmmfast.resampling.simulate import given_model
from lmmfast.residual.structure import ResidualStructure

if TYPE_CHECKING:
    import pandas as pd

    from lmmfast.result import LMMResult


def power(
    formula: str,
    data: Any,
    hypothesis: Any,
    *,
    beta: Any,
    theta: Any,
    sizes: Iterable[int],
    n_sim: int = 1000,
    alpha: float = 0.05,
    ddf: str = "satterthwaite",
    vcov: str = "model",
    seed: Any = None,
    by: str | None = None,
    reml: bool = True,
    groups: Any = None,
    residual: ResidualStructure | None = None,
    weights: str | None = None,
    offset: str | None = None,
    D: Any = None,
    context: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Estimate the power of a test of fixed effects over a grid of sample sizes.

    Parameters
    ----------
    formula : str
        As of `lmm`; the response need not be a column.
    data : table, or callable
        A template: its groups are copied one after the other, with new labels, until there are as
        many as a size says (those of two arms in turn, for arms of equal size). Or a function of
        the size that gives the data.
    hypothesis : str, mapping or array
        As of `LMMResult.test`: ``"arm[T.B] = 0"``.
    beta, theta
        Parameters of the model, as of `simulate`.
    sizes : iterable of int
        Numbers of groups.
    n_sim : int
        Simulated data sets for each size.
    alpha : float
        Level of the test.
    ddf, vcov : str
        As of `LMMResult.inference`.
    seed : int, Generator or None
        The same seed gives the same data, whatever the other sizes are.
    by : str, optional
        Column whose groups are copied. Default: the first grouping factor's. Factors nested in it
        get new levels too; those of crossed ones stay.
    reml, groups, residual, weights, offset, D, context
        As of `lmm`; weights and offset are names of columns.

    Returns
    -------
    DataFrame
        A row for each size: ``n_groups``, ``n_obs``, ``power``, ``std_error`` (Monte Carlo),
        ``conf_low`` and ``conf_high`` (Clopper and Pearson's of 95 %), ``n_sim``, ``n_failed``:
        data sets that could not be fitted or tested, which count as not rejected.

    Raises
    ------
    DataError
        Sizes that are no positive whole numbers, unknown names, parameters as of `simulate`.
    ValueError
        Unknown words, an alpha that is not between 0 and 1.

    Examples
    --------
    >>> import lmmfast as lf
    >>> pair = {"id": [0, 0, 1, 1], "arm": ["a", "a", "b", "b"]}
    >>> truth = {"beta": [0.0, 1.0], "theta": [1.0, 1.0]}
    >>> found = lf.power("y ~ arm + (1 | id)", pair, "arm[T.b] = 0", **truth, sizes=[20], n_sim=50)
    >>> found["n_obs"].to_list()
    [40]
    """
    import pandas as pd

    Method(ddf, vcov=vcov)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha={alpha!r} must lie between 0 and 1")
    wanted = [count(size, "sizes") for size in _listed(sizes)]
    entropy, n_sim = entropy_of(seed), count(n_sim, "n_sim")
    options = {
        "groups": groups,
        "residual": residual,
        "weights": weights,
        "offset": offset,
        "D": D,
        "context": context,
    }
    parsed = parse_formula(formula, groups, residual is not None, context)
    make = data if callable(data) else _copies(data, parsed, by)
    rows = []
    for size in wanted:
        model = given_model(formula, make(size), beta, theta, reml, options)
        L, values = read_hypothesis(hypothesis, model.x_names)
        places = [(size, k) for k in range(n_sim)]
        p = [_p_value(fit, L, values, ddf, vcov) for fit, _ in refits(model, entropy, places)]
        rows.append((size, model.nobs, *_proportion(np.array(p), alpha)))
    columns = "n_groups n_obs power std_error conf_low conf_high n_sim n_failed".split()
    return pd.DataFrame(rows, columns=columns)


def _listed(sizes: Any) -> list[Any]:
    try:
        return list(sizes)
    except TypeError:
        raise DataError(f"sizes={sizes!r}: give a list of numbers of groups") from None


def _copies(data: Any, parsed: Any, by: str | None) -> Callable[[int], pd.DataFrame]:
    frame, column, nested = template(data, parsed, by)
    return lambda size: replicated(frame, column, nested, size)


def _p_value(fit: LMMResult | None, L: Any, values: Any, ddf: str, vcov: str) -> float:
    """Of the test of L beta = values; NaN where there is none."""
    if fit is None or not fit.converged:
        return np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LmmWarning)
        try:
            view = fit.inference(ddf, vcov=vcov)
            return view._denominators.test(L, L @ view._estimates.beta - values).p_value
        except LmmError:
            return np.nan


def _proportion(p: Any, alpha: float) -> tuple[float, float, float, float, int, int]:
    """Part of p-values below alpha, its error and its interval, how many there are, and fail."""
    from scipy.special import betaincinv

    n, k = len(p), int((p < alpha).sum())
    share = k / n
    low = float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0
    high = float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0
    return share, float(np.sqrt(share * (1 - share) / n)), low, high, n, int(np.isnan(p).sum())
