"""The end of a search in the working basis, from the compiled search or from the loop in Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmmfast._dispatch import core
from lmmfast.arrays import Array
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.engines.engine import Engine
from lmmfast.engines.moments import MomentsEngine
from lmmfast.search.objective import Problem

# What a C++ int holds.
MOST_EVALUATIONS = 2**31 - 1

STALLED = "the search stopped before the gradient vanished"
SADDLE = "the search stopped at a saddle"


@dataclass(frozen=True)
class Optimum:
    """Where a search ended, and what is known about that point in numbers.

    Attributes
    ----------
    reason : str
        "converged", or why the search ended otherwise.
    phi : ndarray (n_params,)
        Root parameters.
    Lambda, D : ndarray (q, q)
        D relative to sigma2, and its root.
    sigma2 : float
    beta : ndarray (p,)
        Of the working residual, for the columns of X that are kept.
    S_inv_root : ndarray (p, p)
        C with (X'Vdot^-1 X)^-1 = C C'.
    loglik : float
        On the user's scale.
    decrement, smallest_eigenvalue, multiplier
        As in `lmmfast.search.certificate.Certificate`.
    ranks : sequence of int
        Rank of D of each term.
    trace : list of dict
        One entry for each evaluation.
    n_flat : int
        Number of directions in which the likelihood does not change (`lmmfast.fitting.redundancy`).
    """

    reason: str
    phi: Array
    Lambda: Array
    D: Array
    sigma2: float
    beta: Array
    S_inv_root: Array
    loglik: float
    decrement: float
    smallest_eigenvalue: float
    ranks: list[int]
    multiplier: float | None
    trace: list[dict[str, Any]]
    n_flat: int = 0


def limit_reason(max_evaluations: int) -> str:
    """Why a search ended that used up its evaluations."""
    return f"no convergence within max_iter={max_evaluations} evaluations"


def trace_entry(
    evaluation: int,
    step: str,
    loglik: float,
    decrement: float,
    smallest_eigenvalue: float,
    phi: Array,
) -> dict[str, Any]:
    """One entry of ``fit.trace``."""
    return {
        "evaluation": evaluation,
        "step": step,
        "llf": loglik,
        "decrement": decrement,
        "smallest_eigenvalue": smallest_eigenvalue,
        "phi": phi,
    }


def is_compiled(covariance: BlockCovariance) -> bool:
    """Whether the compiled search knows all structures."""
    return all(structure.compiled for structure in covariance.structures)


def compiled_terms(covariance: BlockCovariance) -> list[tuple[str, int]]:
    """Structure and number of columns of each term, as the core wants them."""
    return [(s.name, q) for s, q in zip(covariance.structures, covariance.sizes, strict=True)]


def compiled_maximise(
    problem: Problem,
    covariance: BlockCovariance,
    engine: Engine,
    max_evaluations: int,
    start: Array | None,
) -> Optimum | None:
    """Search in the core, as the loop of `lmmfast.search.scoring` would.

    The search itself is cpp/include/lmmfast/search/resumable_search.hpp.

    Parameters
    ----------
    start : ndarray (n_params,), optional
        Root parameters; by default D = I.

    Returns
    -------
    Optimum or None
        None for engines and structures that are not compiled, and where there is nothing to begin
        with: the loop in Python says why.
    """
    if not isinstance(engine, MomentsEngine) or not engine.compiled:
        return None
    if not is_compiled(covariance):
        return None
    data = engine.clusters
    found = core.maximise(
        engine.evaluated.blocks,
        data.q,
        data.p1,
        data.perp,
        compiled_terms(covariance),
        problem.keep.tolist(),
        problem.n_obs,
        bool(problem.reml),
        problem.constant,
        start,
        min(max_evaluations, MOST_EVALUATIONS),
        engine.n_threads,
        engine.evaluated.counts,
        engine.evaluated.z_in_x,
    )
    if found is None:
        return None
    return read_optimum(found, max_evaluations)


def read_optimum(found: dict[str, Any], max_evaluations: int) -> Optimum:
    """Read what the core says about the end of a search."""
    steps, numbers, phis = found.pop("trace")
    trace = [
        trace_entry(k, step, loglik, decrement, smallest_eigenvalue, phi)
        for k, (step, (loglik, decrement, smallest_eigenvalue), phi) in enumerate(
            zip(steps, numbers, phis, strict=True)
        )
    ]
    reasons = {
        "converged": "converged",
        "stalled": STALLED,
        "saddle": SADDLE,
        "iteration limit": limit_reason(max_evaluations),
    }
    return Optimum(reason=reasons[found.pop("status")], trace=trace, **found)
