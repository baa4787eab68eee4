"""The stages from a design to a result, in order."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from lmmfast._threads import n_threads
from lmmfast.covariance.terms import BlockCovariance, natural_names
from lmmfast.design.design import Design, design_levels
from lmmfast.engines.choose import check_engine_of_one_factor
from lmmfast.engines.engine import engine_at
from lmmfast.errors import (
    EmptyEffectsError,
    RankWarning,
)
from lmmfast.fitting.identify import (
    check_clusters,
    check_information,
    check_levels,
    check_response,
    check_within,
)
from lmmfast.fitting.judge import judged
from lmmfast.fitting.options import Options, evaluation_callback
from lmmfast.fitting.prepare import Prepared, choose_covariance, prepare, report_dropped
from lmmfast.fitting.redundancy import conclude_in_the_middle
from lmmfast.fitting.settle import check_more_rows
from lmmfast.fitting.small import fit_small
from lmmfast.fitting.start import given_start
from lmmfast.grouping.clusters import Clusters, gather
from lmmfast.grouping.implicit_nesting import warn_of_implicit_nesting
from lmmfast.limits import check_fixed_effects
from lmmfast.progress import Stage
from lmmfast.result import LMMResult
from lmmfast.search.at_the_ends import finished, second_look
from lmmfast.search.estimates import make_problem
from lmmfast.search.multistart import maximise
from lmmfast.search.objective import Problem
from lmmfast.search.optimum import Optimum, compiled_maximise
from lmmfast.search.scoring import Search, climb_from_known_starts, log_evaluation, root_steps


def fit_design(design: Design, options: Options) -> LMMResult:
    """All stages from a design to a result."""
    check_fixed_effects(design.n_obs, design.x_names, n_threads(options.n_jobs))
    try:
        if len(design.factor_names) > 1:
            return _fit_levels(design, options)
        clusters = gather(design.keys, options.n_jobs)
        if design.terms:
            check_clusters(design, clusters)
        covariance = choose_covariance(design)
        plain = design.residual is None or (design.residual.is_independent and design.terms)
        if not plain or (design.residual is not None and options.engine == "dense"):
            return _fit_residual(design, clusters, covariance, options)
        check_engine_of_one_factor(options.engine)
        small = fit_small(design, clusters, covariance, options)
        if small is not None:
            return small
        with options.reporter.stage("pack", "rows", design.n_obs) as stage:
            data = prepare(design, clusters, options)
            stage.advance(design.n_obs)
        report_dropped(design, data.keep, options)
        return fit_prepared(design, clusters, covariance, data, options)
    except EmptyEffectsError as empty:
        if options.rank_deficient == "raise":
            raise
        design = design.without_effects(empty.columns)
        warn_of_empty_effects(design, stacklevel=4)
    return fit_design(design, options)


def warn_of_empty_effects(design: Design, stacklevel: int) -> None:
    """Name the columns of Z that were left out because they are zero in all rows."""
    warnings.warn(
        f"left out columns of Z that are zero in all rows: {', '.join(design.dropped_effects)}",
        RankWarning,
        stacklevel=stacklevel,
    )


def fit_prepared(
    design: Design,
    clusters: Clusters,
    covariance: BlockCovariance,
    data: Prepared,
    options: Options,
) -> LMMResult:
    """Run the stages after packing."""
    problem = _problem(design, data, options)
    with options.reporter.stage("search", "evaluations") as stage:
        optimum = _maximise(design, clusters, data, problem, covariance, options, stage)
        stage.done = len(optimum.trace)
    return judged(
        design,
        clusters,
        data.engine,
        data.basis,
        covariance,
        problem,
        optimum,
        stacklevel=5,
        identifiable=options.identifiable,
    )


def _fit_residual(
    design: Design, clusters: Clusters, random: BlockCovariance, options: Options
) -> LMMResult:
    """Run the stages of a model whose residuals have a structure."""
    from lmmfast.fitting.residual import ResidualFit

    with options.reporter.stage("pack", "rows", design.n_obs) as packing:
        fit = ResidualFit(design, clusters, random, options)
        packing.advance(design.n_obs)
    report_dropped(design, fit.keep, options)
    _announce(fit.engine)
    with options.reporter.stage("search", "evaluations") as stage:
        callback = evaluation_callback(options, stage)
        optimum = fit.maximise(callback, natural_names(design.terms))
        stage.done = len(optimum.trace)
    engine = engine_at(fit.engine, fit.covariance, optimum.phi)
    result = judged(
        design,
        fit.clusters,
        engine,
        fit.basis,
        fit.covariance,
        fit.problem,
        optimum,
        stacklevel=5,
        identifiable=options.identifiable,
    )
    result._residual_model = fit.model
    return result


def _fit_levels(design: Design, options: Options) -> LMMResult:
    """Run the stages of a model with several grouping factors."""
    from lmmfast.fitting.levels import LevelsFit
    from lmmfast.fitting.nested_residual import NestedResidualFit
    from lmmfast.prediction.effects import LevelsResult

    levels, covariance = design_levels(design), choose_covariance(design)
    check_levels(design, levels)
    warn_of_implicit_nesting(levels, stacklevel=5)
    plain = design.residual is None or design.residual.is_independent
    with options.reporter.stage("pack", "rows", design.n_obs) as packing:
        fit: Any = (LevelsFit if plain else NestedResidualFit)(design, levels, covariance, options)
        packing.advance(design.n_obs)
    report_dropped(design, fit.keep, options)
    _announce(fit.engine)
    with options.reporter.stage("search", "evaluations") as stage:
        callback = evaluation_callback(options, stage)
        optimum = fit.maximise(callback, natural_names(design.terms))
        stage.done = len(optimum.trace)
    engine = engine_at(fit.engine, fit.covariance, optimum.phi)
    result = judged(
        design,
        levels,
        engine,
        fit.basis,
        fit.covariance,
        fit.problem,
        optimum,
        stacklevel=5,
        kind=LevelsResult,
        identifiable=options.identifiable,
    )
    result._residual_model = fit.model
    return result


def _announce(engine: Any) -> None:
    """Warn of minutes that a fit will take."""
    forecast = engine.traits.forecast
    if forecast is not None:
        forecast.warn(stacklevel=5)


def _problem(design: Design, data: Prepared, options: Options) -> Problem:
    """Choose the columns of X and check that there is something to fit."""
    keep = data.keep
    check_more_rows(design, keep)
    check_response(design, data.gram, keep, data.basis.y_size)
    check_within(design, data.gram, data.perp, keep, data.rank_Z, options.reml)
    return make_problem(keep, design.n_obs, options.reml, data.basis, data.log_weights)


def _maximise(
    design: Design,
    clusters: Clusters,
    data: Prepared,
    problem: Problem,
    covariance: BlockCovariance,
    options: Options,
    stage: Stage,
) -> Optimum:
    """Search by the compiled loop where nobody watches, else by the one in Python."""
    start = None if options.start is None else given_start(covariance, data.basis, options.start)
    callback = evaluation_callback(options, stage)
    if callback is None and options.n_starts is None:
        optimum = compiled_maximise(problem, covariance, data.engine, options.max_iter, start)
        if optimum is not None:
            for entry in optimum.trace:
                log_evaluation(entry)
            search = Search(problem, covariance, data.engine, options.max_iter)
            return second_look(search, optimum)
    search = Search(problem, covariance, data.engine, options.max_iter, callback)
    default = covariance.phi(np.eye(covariance.q))
    point = search.begin(default, "start" if start is None else "check")
    n_flat = check_information(point, covariance, design, clusters.m, options.identifiable)
    if start is not None:
        point = search.evaluate(start, "start")
    if n_flat:
        point, reason = maximise(search, point, options.n_starts, root_steps)
    elif options.n_starts is None:
        point, reason = finished(search, *climb_from_known_starts(search, point))
    else:
        point, reason = maximise(search, point, options.n_starts)
    return conclude_in_the_middle(search, point, reason, n_flat, data.basis)
