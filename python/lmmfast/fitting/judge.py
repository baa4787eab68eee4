"""From the end of a search to a result: judged, warned of, and on the scale of the user."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from lmmfast.covariance.terms import BlockCovariance
from lmmfast.design.design import Design
from lmmfast.errors import (
    ConvergenceWarning,
    NotIdentifiableWarning,
)
from lmmfast.packing.basis import Basis, check_scales
from lmmfast.result import LMMResult
from lmmfast.search.certificate import certify
from lmmfast.search.estimates import estimates
from lmmfast.search.objective import Problem
from lmmfast.search.optimum import Optimum


def judged(
    design: Design,
    clusters: Any,
    engine: Any,
    basis: Basis,
    covariance: BlockCovariance,
    problem: Problem,
    optimum: Optimum,
    stacklevel: int,
    kind: type[LMMResult] = LMMResult,
    identifiable: str = "raise",
) -> LMMResult:
    """Judge the optimum, warn if it is none, and bring it to the user's scale."""
    certificate = certify(optimum, covariance, design.terms)
    if not certificate.converged:
        warnings.warn(
            f"{certificate}; see fit.trace. A simpler random-effects structure, or max_iter= and "
            "start=, may help",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )
    with np.errstate(all="ignore"):
        values = estimates(optimum, problem.keep, basis, covariance)
        results = np.concatenate(
            [values.theta, values.cov_beta.ravel(), 1.0 / np.atleast_1d(values.sigma2)]
        )
    check_scales(design, results, "the estimates")
    result = kind(
        design=design,
        clusters=clusters,
        engine=engine,
        basis=basis,
        covariance=covariance,
        problem=problem,
        optimum=optimum,
        estimates=values,
        certificate=certificate,
    )
    result._identifiable = identifiable
    if optimum.n_flat and certificate.converged:
        result._note_redundancy()
    if result._redundancy is not None:
        warnings.warn(result.certificate.status, NotIdentifiableWarning, stacklevel=stacklevel)
    return result
