"""Fits with a residual structure: bind it to the rows, choose an engine and a start, search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast._threads import n_threads
from lmmfast.arrays import Array
from lmmfast.covariance.joint import JointCovariance
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.design.design import Design, check_finite
from lmmfast.engines.choose import engine_of_structure
from lmmfast.engines.dense import DenseEngine
from lmmfast.engines.engine import ResidualEngine, totals_at
from lmmfast.errors import (
    ConvergenceError,
    NotIdentifiableError,
)
from lmmfast.fitting.identify import check_joint_information, check_response
from lmmfast.fitting.redundancy import conclude_in_the_middle
from lmmfast.fitting.settle import settle
from lmmfast.fitting.start import given_residual_starts
from lmmfast.fitting.start_residual import inside, start_params
from lmmfast.grouping.clusters import Clusters
from lmmfast.packing.basis import Basis
from lmmfast.residual import definitions
from lmmfast.residual.model import ResidualModel, bind
from lmmfast.search.estimates import make_problem
from lmmfast.search.multistart import maximise
from lmmfast.search.objective import Evaluation, Problem
from lmmfast.search.optimum import Optimum
from lmmfast.search.residual_search import climb, climb_roughly
from lmmfast.search.scoring import EXACT_START_ROWS, Point, Search

if TYPE_CHECKING:
    from lmmfast.fitting.options import Options


#: A (n, p + 1), Z (n, q) and weights (n,) or None, in a working basis.
WorkingRows = tuple[Array, Array, Array | None]


class ResidualFit:
    """The stages of a fit with a residual structure.

    Attributes
    ----------
    clusters : Clusters
        With rows in the order of positions or times within each cluster.
    model : ResidualModel
    basis : Basis
    engine : ResidualEngine
    problem : Problem
    covariance : JointCovariance
    """

    def __init__(
        self, design: Design, clusters: Clusters, random: BlockCovariance, options: Options
    ) -> None:
        assert design.residual is not None
        self.design, self.options = design, options
        self.model: ResidualModel = bind(design.residual, design.residual_columns, clusters)
        self.clusters = replace(clusters, order=_order(self.model, clusters))
        rows, self.basis, self.keep = settle(design, self._working)
        A, Z, weights = self._A, self._Z, self._weights = rows
        check_response(design, cross_products(A, weights), self.keep, self.basis.y_size)
        self.engine = self._choose_engine(A, Z, weights)
        log_weights = 0.0 if weights is None else float(np.log(weights).sum())
        self.problem: Problem = make_problem(
            self.keep, design.n_obs, options.reml, self.basis, log_weights
        )
        r = A[:, -1] if weights is None else A[:, -1] * np.sqrt(weights)
        starts = start_params(self.model, r, random.q > 0)
        self.covariance = JointCovariance(
            random.structures, random.sizes, self.model.parameters, tuple(starts)
        )

    def _choose_engine(self, A: Array, Z: Array, weights: Array | None) -> ResidualEngine:
        threads = n_threads(self.options.n_jobs)
        return engine_of_structure(A, Z, weights, self.model, self.options.engine, threads)

    def _working(self, basis: Basis) -> tuple[WorkingRows, Array, Basis]:
        """Rows in a working basis."""
        rows = self.model.rows if self.clusters.order is not None else slice(0, self.design.n_obs)
        A, Z, weights = basis.working(self.design.batch(rows), n_jobs=self.options.n_jobs)
        if not (np.isfinite(A).all() and np.isfinite(Z).all()):
            check_finite(self.design)
        return (A, Z, weights), cross_products(A, weights), basis

    def maximise(self, callback: Any, random_names: list[str]) -> Optimum:
        """Search for the maximum.

        Raises
        ------
        NotIdentifiableError
            Parameters that the data cannot tell apart.
        """
        search = Search(self.problem, self.covariance, self.engine, self.options.max_iter, callback)
        sample, n_flat = self._sample(), 0
        if not (sample and self._is_informative(sample, random_names)):
            inner = self._inside(self._search())
            if inner is not None:
                n_flat = self._check_information(inner, random_names, self.options.identifiable)
        given: list[Array] = []
        if self.options.start is not None:
            given = given_residual_starts(self.covariance, self.basis, self.options.start)
            point = _begin(search, given)
        else:
            point = self._first_point(search, sample)
        point, reason = maximise(search, point, self.options.n_starts, climb, given[1:])
        if reason == "converged" and not search.stopped:
            point = self._confirmed(search, point)
        return conclude_in_the_middle(search, point, reason, n_flat, self.basis)

    def _search(self) -> Search:
        """Return a search of its own, for evaluations that do not count."""
        return Search(self.problem, self.covariance, self.engine)

    def _sample(self) -> Search | None:
        """Return a search over some of many clusters: enough to choose a start."""
        model = self.model
        if model.m < _MANY_CLUSTERS:
            return None
        size = int(np.clip(model.m // 20, *_SAMPLE_CLUSTERS))
        engine: ResidualEngine
        if isinstance(self.engine, DenseEngine) and self.engine.n_designs is None:
            engine, n_rows = self.engine.thinned(model.m // size)
        else:
            some = np.linspace(0, model.m - 1, size).astype(np.intp)
            part, rows = model.part(some)
            weights = None if self._weights is None else self._weights[rows]
            engine = engine_of_structure(
                self._A[rows],
                self._Z[rows],
                weights,
                part,
                self.options.engine,
                n_threads(self.options.n_jobs),
            )
            n_rows = len(rows)
        problem = replace(self.problem, n_obs=n_rows)
        return Search(problem, self.covariance, engine)

    def _inside(self, search: Search) -> Point | None:
        """Evaluate where every parameter is well inside its range."""
        covariance = self.covariance
        phi = np.append(covariance.random.phi(0.5 * np.eye(covariance.q)), inside(self.model))
        return search.try_evaluate(phi, "check")

    def _check_information(
        self, point: Point, random_names: list[str], identifiable: str = "raise"
    ) -> int:
        names, m = self.covariance.working_names(random_names), self.clusters.m
        return check_joint_information(point, self.covariance, self.design, m, names, identifiable)

    def _is_informative(self, sample: Search, random_names: list[str]) -> bool:
        """Whether a sample can tell all parameters apart: then all the data can."""
        point = self._inside(sample)
        if point is None:
            return False
        try:
            self._check_information(point, random_names)
        except NotIdentifiableError:
            return False
        return True

    def _confirmed(self, search: Search, point: Point) -> Point:
        """Judge the end by the Hessian itself; of many rows Fisher's information is as good."""
        if self.design.n_obs > EXACT_START_ROWS or point.is_exact:
            return point
        search.difference, search.barrier = True, point.barrier
        again = search.try_evaluate(point.phi, "certificate")
        return point if again is None else again

    def _best_start(self, evaluate: Callable[[Array], Any]) -> tuple[Array, Any] | None:
        """Compare the starts: those of the residuals, then a smaller D at the best of them.

        Parameters
        ----------
        evaluate : callable
            Gives something with a ``loglik`` at search parameters, or None.
        """
        D, covariance = np.eye(self.covariance.q), self.covariance
        random = covariance.random.phi(0.5 * D)
        best = _highest(evaluate, [np.append(random, own) for own in covariance.starts])
        if best is not None and covariance.q:
            smaller = covariance.moved(best[0], 0.05 * D)
            other = _highest(evaluate, [smaller])
            best = best if other is None or other[1].loglik < best[1].loglik else other
        return best

    def _first_point(self, search: Search, sample: Search | None) -> Point:
        """Evaluate the best of the starts that the moments suggest."""
        best: Point | None = None
        if sample is not None:
            chosen = self._best_start(lambda phi: _glance(sample, phi))
            if chosen is not None:
                best = search.try_evaluate(self._near_maximum(sample, chosen[0]), "start")
        if best is None:
            found = self._best_start(lambda phi: search.try_evaluate(phi, "start"))
            best = None if found is None else found[1]
        if best is None:
            raise NotIdentifiableError(
                f"the residual covariance {self.model.structure} is not positive definite at any "
                "start: rows lie too close together for it; add nugget=True, or choose another "
                "structure"
            )
        return best

    def _near_maximum(self, sample: Search, phi: Array) -> Array:
        """Go from a rough start to about the maximum of a sample's likelihood.

        Where that is at an end of the range of a parameter, which need not be so for all the data,
        return the start: from such an end the search comes away slowly. The correlations of visits
        are known better from all the data.
        """
        correlation = self.model.parameters.correlation
        rough = correlation is not None and correlation.kind in definitions.DISTANCES
        rough = (rough or self.covariance.q > 0) and self.design.n_obs >= _WORTH_A_CLIMB
        point = sample.try_evaluate(phi, "start") if rough else None
        if point is None:
            return phi
        point = climb_roughly(sample, point)
        nu = self.covariance.residual.nuggets(self.covariance.kappa(point.phi))
        eigenvalues = np.linalg.eigvalsh(point.D)
        within = (eigenvalues > _AWAY).all() and ((nu > _AWAY) & (nu < 1 - _AWAY)).all()
        return point.phi if within else phi


# From this many clusters on starts are compared on some of them, at least and at most so many.
_MANY_CLUSTERS = 4000
_SAMPLE_CLUSTERS = (500, 5000)
# From this many rows on a climb over the sample costs less than the passes that it saves.
_WORTH_A_CLIMB = 100_000
# Variances relative to the residual one, and fractions, this far from the ends of their ranges.
_AWAY = 0.01


def _begin(search: Search, given: list[Array]) -> Point:
    """Evaluate the user's start, or beside it where V is singular there."""
    try:
        return search.begin(given[0], "start")
    except ConvergenceError:
        return search.begin(given[-1], "start")


def _highest(evaluate: Callable[[Array], Any], candidates: list[Array]) -> tuple[Array, Any] | None:
    """Return the candidate of highest likelihood, and what was evaluated there."""
    found = [(phi, value) for phi in candidates if (value := evaluate(phi)) is not None]
    return max(found, key=lambda pair: pair[1].loglik, default=None)


def _glance(search: Search, phi: Array) -> Evaluation | None:
    """Evaluate the likelihood alone; None where there is none."""
    try:
        totals = totals_at(search.engine, search.covariance, phi, False)
        return Evaluation(search.problem, totals)
    except ConvergenceError:
        return None


def _order(model: ResidualModel, clusters: Clusters) -> Any:
    """The order of the rows; None where it is that of the data."""
    if clusters.order is None and np.array_equal(model.rows, np.arange(len(model.rows))):
        return None
    return model.rows.astype(np.int64)


def cross_products(A: Array, weights: Array | None) -> Array:
    """A'WA."""
    return np.asarray(A.T @ (A if weights is None else A * weights[:, None]))
