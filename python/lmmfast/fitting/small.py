"""Fits of small data sets from one call of the core, which does all that is numbers.

The core says nothing about data that are out of the ordinary, only that they are: then there is no
result here, and `lmmfast.fitting.pipeline` goes the general way, which has names and explains.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lmmfast._dispatch import core
from lmmfast._threads import one_thread
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.design.design import Design
from lmmfast.engines.moments import MomentsEngine
from lmmfast.grouping.clusters import Clusters
from lmmfast.packing.basis import SAMPLE_ROWS, Basis
from lmmfast.packing.compress import CompressedClusters
from lmmfast.result import LMMResult
from lmmfast.search.certificate import certify
from lmmfast.search.estimates import Estimates
from lmmfast.search.objective import Problem
from lmmfast.search.optimum import MOST_EVALUATIONS, compiled_terms, is_compiled, read_optimum
from lmmfast.search.scoring import log_evaluation, logger

if TYPE_CHECKING:
    from lmmfast.fitting.options import Options


def is_small(design: Design, covariance: BlockCovariance, options: Options) -> bool:
    """Whether one call of the core can fit a design."""
    return (
        design.n_obs <= SAMPLE_ROWS  # so that the general way would choose the same basis
        and design.random_access
        and len(design.x_names) > 0
        and options.engine != "reference"
        and options.start is None
        and options.n_starts is None
        and options.callback is None
        and not options.verbose
        and not options.reporter.listens
        and is_compiled(covariance)
    )


def fit_small(
    design: Design, clusters: Clusters, covariance: BlockCovariance, options: Options
) -> LMMResult | None:
    """Fit a small data set (cpp/include/lmmfast/fit/fit_rows.hpp).

    Returns
    -------
    LMMResult or None
        None for designs and options that the core does not know, and for everything that calls for
        a warning or an error.
    """
    if not is_small(design, covariance, options):
        return None
    threads = one_thread(options.n_jobs)
    rows = design.batch(slice(None))
    max_evaluations = min(int(options.max_iter), MOST_EVALUATIONS)
    assert rows.y is not None
    with options.reporter.stage("search", "evaluations") as stage:
        found = core.fit_rows(
            rows.X,
            rows.Z,
            rows.y,
            rows.weights,
            rows.offset,
            clusters.ptr,
            clusters.order,
            compiled_terms(covariance),
            design.unit,
            bool(options.reml),
            max_evaluations,
        )
        if found["status"] == "fitted":
            stage.done = len(found["optimum"]["trace"][0])
    if found["status"] != "fitted":
        return None
    basis = Basis(**found["basis"])
    packed = CompressedClusters(**found["clusters"], basis=basis)
    problem = Problem(found["keep"], design.n_obs, options.reml, found["constant"])
    optimum = read_optimum(found["optimum"], max_evaluations)
    if logger.isEnabledFor(logging.DEBUG):
        for entry in optimum.trace:
            log_evaluation(entry)
    return LMMResult(
        design=design,
        clusters=clusters,
        engine=MomentsEngine(packed, threads, share=False),
        basis=basis,
        covariance=covariance,
        problem=problem,
        optimum=optimum,
        estimates=Estimates(**found["estimates"]),
        certificate=certify(optimum, covariance, design.terms),
    )
