"""2,000 random small problems: never below the best that scipy finds, never a false alarm.

optima.csv holds scipy's numbers (compute_optima.py); a few are computed again here.
"""

import csv
import warnings
from functools import cache

import numpy as np
import pytest
from compute_optima import OPTIMA, best_loglik
from problems import (
    N_PROBLEMS,
    STRUCTURES,
    DenseLikelihood,
    random_problem,
    why_not_identifiable,
)

import lmmfast
from lmmfast.engines.reference import ReferenceEngine
from lmmfast.errors import ConvergenceWarning, NotIdentifiableError
from lmmfast.search.objective import Evaluation, Problem

SLICES = 20


@cache
def optima() -> list[dict[str, str]]:
    with OPTIMA.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["seed"]) for row in rows] == list(range(N_PROBLEMS))
    return rows


def fit(problem):
    return lmmfast.fit(
        problem.y,
        problem.X,
        problem.groups,
        problem.Z,
        reml=problem.reml,
        weights=problem.weights,
        D=problem.structure,
        n_jobs=1,
    )


def complaint(row: dict[str, str]) -> str | None:
    """Return what is wrong with the fit of one problem; None if nothing is."""
    problem = random_problem(int(row["seed"]))
    what = f"{row['seed']} {problem.name} {'REML' if problem.reml else 'ML'}"
    if row["not_identifiable"] == "saturated":
        # The likelihood may have no maximum: any answer but an exception of another kind will do.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            try:
                result = fit(problem)
            except NotIdentifiableError:
                return None
        return None if np.isfinite(result.llf) else f"{what}: log-likelihood {result.llf}"
    try:
        result = fit(problem)
    except (NotIdentifiableError, ConvergenceWarning) as refusal:
        return None if row["not_identifiable"] else f"{what}: {refusal!r}"
    if row["not_identifiable"]:
        return f"{what}: fitted in spite of {row['not_identifiable']}"
    short = float(row["loglik"]) - result.llf
    if short > 1e-6:
        return f"{what}: short by {short:.2g}; {result.certificate}"
    # The number reported is the likelihood at the D reported.
    dense = DenseLikelihood(problem)(result.cov_re.to_numpy() / result.scale)[0]
    if abs(dense - result.llf) > 1e-8 * (1 + abs(dense)):
        return f"{what}: llf {result.llf!r}, but dense algebra says {dense!r}"
    return None


@pytest.mark.parametrize("part", range(SLICES))
def test_never_short_and_never_a_false_alarm(part):
    complaints = [complaint(row) for row in optima()[part::SLICES]]
    assert [c for c in complaints if c] == []


def test_the_problems_are_worth_the_name():
    """Most can be fitted, and many have their optimum on the boundary."""
    refused = sum(bool(row["not_identifiable"]) for row in optima())
    assert refused < 0.2 * N_PROBLEMS
    assert {row["structure"] for row in optima()} == set(STRUCTURES)
    fits = [fit(random_problem(s)) for s in range(100) if not optima()[s]["not_identifiable"]]
    assert 0.3 < np.mean([one.certificate.on_boundary for one in fits]) < 0.7


@pytest.mark.parametrize("seed", range(17, N_PROBLEMS, 50))
def test_stored_numbers_are_what_scipy_finds(seed):
    row = optima()[seed]
    problem = random_problem(seed)
    assert problem.name == row["structure"]
    assert problem.reml == bool(int(row["reml"]))
    assert why_not_identifiable(problem) == row["not_identifiable"]
    if row["loglik"]:
        assert best_loglik(problem) == pytest.approx(float(row["loglik"]), rel=1e-8)


@pytest.mark.parametrize("seed", range(0, 200, 7))
def test_dense_likelihood_is_the_reference_engines(seed):
    """Value and gradient by D, at a D of no structure in particular."""
    problem = random_problem(seed)
    q = problem.Z.shape[1]
    G = np.random.default_rng(seed).standard_normal((q, q))
    Lambda = np.linalg.cholesky(G @ G.T + 0.1 * np.eye(q))
    ptr = np.concatenate([[0], np.cumsum(problem.sizes)])
    A = np.column_stack([problem.X, problem.y])
    engine = ReferenceEngine(A, problem.Z, problem.weights, ptr)
    settings = Problem(np.arange(problem.X.shape[1]), len(problem.y), problem.reml)
    evaluation = Evaluation(settings, engine.totals(Lambda))
    log_weights = 0.0 if problem.weights is None else np.log(problem.weights).sum()
    value, gradient = DenseLikelihood(problem)(Lambda @ Lambda.T)
    assert value == pytest.approx(evaluation.loglik + 0.5 * log_weights, rel=1e-11)
    twice = 2.0 - np.eye(q)
    column, row = np.triu_indices(q)
    np.testing.assert_allclose(
        evaluation.score, (twice * gradient)[row, column], rtol=0, atol=1e-9 * len(problem.y)
    )
