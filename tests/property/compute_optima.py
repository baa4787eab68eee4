"""Write optima.csv: the best log-likelihood that scipy finds for each random problem.

Run ``python tests/property/compute_optima.py [first last]``; it takes a few minutes. BFGS and
L-BFGS-B with the analytic gradient, several starts, on the dense likelihood of problems.py (which
the tests hold against the reference engine).
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from problems import N_PROBLEMS, DenseLikelihood, random_problem, why_not_identifiable
from scipy.optimize import minimize

OPTIMA = Path(__file__).with_name("optima.csv")
N_STARTS = 5
METHODS = [
    ("BFGS", {"gtol": 1e-7, "maxiter": 500}),
    ("L-BFGS-B", {"ftol": 1e-14, "gtol": 1e-7, "maxiter": 500}),
]


def best_loglik(problem) -> float:
    """Largest log-likelihood over starts and optimisers."""
    structure, q = problem.structure, problem.Z.shape[1]
    likelihood = DenseLikelihood(problem)

    def negative(phi):
        Lambda = structure.Lambda(phi, q)
        try:
            value, gradient = likelihood(Lambda @ Lambda.T)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(phi)
        if not np.isfinite(value):
            return 1e10, np.zeros_like(phi)
        return -value, -np.einsum("kab,ab->k", structure.d_D(phi, q), gradient)

    rng = np.random.default_rng([20241, problem.seed])
    best = -np.inf
    for k in range(N_STARTS * (2 if problem.name == "cs" else 1)):
        phi = structure.phi(np.eye(q))
        if k > 0:
            phi = rng.standard_normal(len(phi)) * [0.1, 0.5, 1.0, 5.0][(k - 1) % 4]
        for method, options in METHODS[: 2 if k < 2 else 1]:
            found = minimize(negative, phi, jac=True, method=method, options=options)
            best = max(best, -float(found.fun))
    return best


def main() -> None:
    first, last = (int(a) for a in sys.argv[1:3]) if len(sys.argv) > 2 else (0, N_PROBLEMS)
    path = OPTIMA if len(sys.argv) <= 2 else Path(f"optima_{first}_{last}.csv")
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["seed", "structure", "reml", "not_identifiable", "loglik"])
        for seed in range(first, last):
            problem = random_problem(seed)
            why = why_not_identifiable(problem)
            loglik = "" if why else repr(best_loglik(problem))
            out.writerow([seed, problem.name, int(problem.reml), why, loglik])


if __name__ == "__main__":
    main()
