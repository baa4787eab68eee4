"""Random small problems of every residual structure: no other search finds more likelihood."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

import lmmfast as lf
from lmmfast.engines.engine import totals_at
from lmmfast.errors import ConvergenceError, NotIdentifiableError
from lmmfast.search.objective import Evaluation

sys.path.append(str(Path(__file__).parents[1] / "contract"))
from residual_samples import STRUCTURES, longitudinal
from test_residual_engines import prepare

# With CustomCorrelation every evaluation calls Python for each pattern.
NAMES = [name for name in STRUCTURES if name not in ("Independent", "CustomCorrelation")]


def best_of_other_searches(name: str, q: int, data: Any, reml: bool) -> float:
    """Highest likelihood that L-BFGS-B finds from several starts, with the exact score."""
    fit = prepare(name, "auto", q, False, data, reml)
    rng = np.random.default_rng(0)

    def deviance(phi: Any) -> tuple[float, Any]:
        try:
            totals = totals_at(fit.engine, fit.covariance, phi, False)
            evaluation = Evaluation(fit.problem, totals)
        except ConvergenceError:
            return 1e10, np.zeros_like(phi)
        g = fit.covariance.jacobian(phi) @ evaluation.score
        return -2 * evaluation.loglik, -2 * g

    best = -np.inf
    for own in [*fit.covariance.starts[:2], fit.covariance.starts[0]]:
        random = rng.normal(0.7, 0.4, fit.covariance.n_random)
        start = np.append(random, own + rng.normal(0, 0.3, len(own)))
        bounds = [(None, None)] * fit.covariance.n_random + [(-9.0, 9.0)] * len(own)
        found = minimize(deviance, start, jac=True, method="L-BFGS-B", bounds=bounds)
        best = max(best, -found.fun / 2)
    return best


@pytest.mark.parametrize("name", NAMES)
def test_no_other_search_finds_more(name: str) -> None:
    k = NAMES.index(name)
    q, reml = k % 2, k % 4 < 2
    data = longitudinal(200 + k, m=40)
    formula = "y ~ t + arm" + (" + (1 | id)" if q else "")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no false alarm
            if name.startswith("SpatialLinear"):  # whose maxima may be at kinks
                warnings.simplefilter("ignore", lf.ConvergenceWarning)
            fit = lf.lmm(formula, data, groups="id", residual=STRUCTURES[name](), reml=reml)
    except NotIdentifiableError as error:
        assert "cannot tell" in str(error) and q == 1  # such as an intercept beside Unstructured
        return
    assert fit.converged or name.startswith("SpatialLinear")
    assert fit.llf > best_of_other_searches(name, q, data, reml) - 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lf.ConvergenceWarning)  # it is stopped
        slow = lf.lmm(
            formula,
            data,
            groups="id",
            residual=STRUCTURES[name](),
            reml=reml,
            engine="reference",
            start=fit,
            callback=_stop_after_the_first,
        )
    assert slow.llf == pytest.approx(fit.llf, abs=1e-8)


def _stop_after_the_first(entry: dict[str, Any]) -> None:
    """The reference engine at the optimum is enough."""
    raise StopIteration


def test_the_samples_have_every_structure() -> None:
    assert len(NAMES) > 25
