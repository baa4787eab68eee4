"""Fits with several grouping factors: find their levels, choose an engine, search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lmmfast._threads import n_threads
from lmmfast.arrays import Array
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.design.design import Design, check_finite
from lmmfast.engines.choose import engine_of_factors
from lmmfast.engines.engine import LevelsEngine
from lmmfast.engines.totals import Totals
from lmmfast.errors import DataError
from lmmfast.fitting.identify import check_joint_information, check_response, refusal, residual_sums
from lmmfast.fitting.redundancy import conclude_in_the_middle
from lmmfast.fitting.settle import settle
from lmmfast.fitting.start import given_start
from lmmfast.grouping.levels import Levels
from lmmfast.packing.basis import Basis
from lmmfast.residual.model import ResidualModel
from lmmfast.search.estimates import make_problem
from lmmfast.search.multistart import maximise
from lmmfast.search.objective import Problem
from lmmfast.search.optimum import Optimum
from lmmfast.search.scoring import Point, Search, root_steps
from lmmfast.search.scoring import climb as climb_variances

if TYPE_CHECKING:
    from lmmfast.fitting.options import Options

# Variances this many times sigma2 suggest that the random effects can fit y exactly.
SUSPICIOUS = 1e8
# With variances this many times sigma2 what is left of y is what no effect can fit, and the second
# number is the part of its sum of squares that is nothing; for engines that go back to the rows.
FREE_EFFECTS, NOTHING_LEFT = 1e12, 1e-11
FREE_EFFECTS_FROM_ROWS, NOTHING_LEFT_FROM_ROWS = 1e20, 1e-19
# Relative rounding error of the log-likelihood from which a maximum counts as not found.
LOST_DIGITS = 1e-8


class LevelsFit:
    """The stages of a fit with several grouping factors.

    Attributes
    ----------
    levels : Levels
    basis : Basis
    engine : LevelsEngine
    keep : ndarray of int
        Columns of X that are linearly independent.
    problem : Problem
    covariance : BlockCovariance
    """

    model: ResidualModel | None = None
    engine: Any

    def __init__(
        self, design: Design, levels: Levels, random: BlockCovariance, options: Options
    ) -> None:
        self.design, self.levels, self.covariance, self.options = design, levels, random, options
        self.engine, self.basis, self.keep = settle(design, self._pack)
        check_response(design, self.engine.gram, self.keep, self.basis.y_size)
        self.problem: Problem = make_problem(
            self.keep, design.n_obs, options.reml, self.basis, self.engine.log_weights
        )
        self.engine = self.engine.for_problem(self.keep, design.n_obs, options.reml)

    def _pack(self, basis: Basis) -> tuple[LevelsEngine, Array, Basis]:
        """Take the rows in, in a basis."""

        def working(rows: Any) -> tuple[Array, Array, Array | None]:
            if self.design.random_access and not isinstance(rows, slice):
                return basis.working(self.design.batch(slice(None)), rows, self.options.n_jobs)
            return basis.working(self.design.batch(rows), n_jobs=self.options.n_jobs)

        threads = n_threads(self.options.n_jobs)
        try:
            engine = engine_of_factors(self.levels, working, self.options.engine, threads)
        except DataError:
            check_finite(self.design)
            raise
        return engine, engine.gram, basis

    def _check_something_left(self) -> None:
        """Refuse a response that fixed and random effects together fit exactly.

        Raises
        ------
        NotIdentifiableError
        """
        size, nothing = FREE_EFFECTS, NOTHING_LEFT
        if self.engine.traits.goes_back_to_rows:
            size, nothing = FREE_EFFECTS_FROM_ROWS, NOTHING_LEFT_FROM_ROWS
        total, free, freer = (self._totals(variance) for variance in (0.0, size, 10 * size))
        if not np.isfinite([free.logdet, freer.logdet]).all():
            return  # beyond double precision: the search says where it stopped
        rank_Z = round((freer.logdet - free.logdet) / np.log(10.0))
        rows = np.ix_([*self.keep, -1], [*self.keep, -1])
        p = len(self.keep)
        rest, rank_X = residual_sums(freer.gram[rows], total.gram[rows], p)
        whole, _ = residual_sums(total.gram[rows], total.gram[rows], p)
        rows_left = self.design.n_obs - rank_Z - rank_X
        exact = rows_left > 0 and rest[0] <= nothing * whole[0]
        if exact or (rows_left == 0 and rank_X > 0 and not self.problem.reml):
            raise refusal(
                self.design,
                f"fixed and random effects together can fit {self.design.y_name!r} exactly: the "
                "residual variance goes to zero and the likelihood has no maximum; leave out "
                f"random effects of {', '.join(map(repr, self.levels.names))}, or fixed effects",
            )

    def _totals(self, variance: float) -> Totals:
        totals: Totals = self.engine.totals(np.sqrt(variance) * np.eye(self.covariance.q))
        return totals

    def maximise(self, callback: Any, random_names: list[str]) -> Optimum:
        """Search for the maximum.

        Parameters
        ----------
        random_names : list of str
            Names of the natural parameters of D.

        Raises
        ------
        NotIdentifiableError
            Parameters that the data cannot tell apart.
        """
        engine: Any = self.engine
        search = Search(self.problem, self.covariance, engine, self.options.max_iter, callback)
        point, n_flat = self._first_point(search, random_names)
        climb = root_steps if n_flat else climb_variances
        point, reason = maximise(search, point, self.options.n_starts, climb)
        if reason != "converged" or point.D.max() > SUSPICIOUS:
            self._check_something_left()
        judge = self._limited_by_rounding
        return conclude_in_the_middle(search, point, reason, n_flat, self.basis, judge)

    def _limited_by_rounding(self, point: Point, reason: str) -> str:
        """Say so where the engine has lost too many digits for a maximum to be known.

        The sum of squares about fixed and random effects is what cross-products leave of the sum
        about fixed effects alone, unless the engine goes back to the rows.
        """
        engine = self.engine
        if reason != "converged" or not engine.traits.loses_digits:
            return reason
        evaluation, rows = point.evaluation, np.append(self.keep, -1)
        whole = evaluation.c @ engine.gram[np.ix_(rows, rows)] @ evaluation.c
        lost = float(np.finfo(float).eps * whole / (evaluation.sigma2 * self.problem.df))
        if lost < LOST_DIGITS:
            return reason
        digits, names = max(0, round(-np.log10(lost))), ", ".join(map(repr, self.levels.names))
        return (
            f"rounding leaves the log-likelihood no more than {digits} digits: the variance "
            f"of the residuals is too small beside those of {names}"
        )

    def _first_point(self, search: Search, random_names: list[str]) -> tuple[Point, int]:
        """Evaluate the first point, and count the directions in which the data tell nothing."""
        D = self.engine.start(self.keep) if self.options.start is None else None
        if D is None:
            D = np.eye(self.covariance.q)
        point = search.begin(self.covariance.phi(D), "start")
        names = [*random_names, "var(Residual)"]
        m, identifiable = max(self.levels.counts), self.options.identifiable
        n_flat = check_joint_information(
            point, self.covariance, self.design, m, names, identifiable
        )
        if self.options.start is not None:
            start = given_start(self.covariance, self.basis, self.options.start)
            point = search.evaluate(start, "start")
        return point, n_flat
