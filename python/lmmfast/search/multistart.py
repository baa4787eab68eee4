"""Search from several points: what is known of such models, then points drawn at random.

A likelihood of few rows may have several maxima. From each further point the search goes about a
third of a standard error from a maximum first, and on only where that maximum is another one than
the best so far and may be higher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lmmfast.arrays import Array
from lmmfast.engines.engine import totals_at
from lmmfast.errors import ConvergenceError
from lmmfast.search.at_the_ends import finished, is_unbounded
from lmmfast.search.objective import Evaluation
from lmmfast.search.scoring import FEW_ROWS, ROUGH_TOLERANCE, Point, Search
from lmmfast.search.scoring import climb as climb_variances

#: A search from one point: at most to the decrement given, else to the end.
Climb = Callable[[Search, Point, float | None], tuple[Point, str]]

#: Points drawn for each one that is searched from: those of the highest likelihood.
DRAWS = 8
#: Of so few rows twice as many, and from near the ends of ranges besides.
VERY_FEW_ROWS = 100
#: Nearer than this many standard errors is the same maximum.
SAME = 1.0
#: A maximum this much higher is another one.
HIGHER = 1e-9
#: A maximum this much lower than where a search ended without one is the one that it did not reach.
ROUNDING = 1e-6
#: Evaluations from a further point to the neighbourhood of a maximum.
ROUGH_EVALUATIONS = 80
#: Where neither the first search ends nor so many others do, the likelihood has no maximum.
LOST = 2
#: Where so many do not end, though one did, there are ridges, and more will end up on them.
MOST_LOST = 5


def maximise(
    search: Search,
    point: Point,
    n_starts: int | None = None,
    climb: Climb = climb_variances,
    beside: Sequence[Array] = (),
    n_drawn: int | None = None,
) -> tuple[Point, str]:
    """Find a maximum from a point and look for a higher one from others.

    Parameters
    ----------
    point : Point
        The first start.
    n_starts : int, optional
        From how many points in all; default: those that the model knows for few rows, else one.
    climb : callable
        A search from one point.
    beside : sequence of ndarray (n_params,)
        Points to search from next in any case.
    n_drawn : int, optional
        Of few rows, how many points drawn at random besides; default: as the model says.

    Returns
    -------
    point : Point
    reason : str
        "converged", or why the search stopped before.
    """
    best, reason = climb(search, point, None)
    lost = 0
    is_over = search.stopped or is_unbounded(reason)
    others = [] if is_over else [*beside, *further_starts(search, n_starts, n_drawn)]

    def points() -> Iterator[Array]:
        yield from others
        if others and n_starts is None and search.problem.n_obs <= VERY_FEW_ROWS:
            yield from search.covariance.near_ends(best.phi)

    for phi in points():
        search.begin_anew(ROUGH_EVALUATIONS)
        other = search.try_evaluate(phi, "restart")
        if other is None:
            continue
        other, ending = climb(search, other, ROUGH_TOLERANCE)
        is_higher = ending != "converged" and other.height > best.height + HIGHER
        if is_higher or (ending == "converged" and _is_worth_it(other, best, reason)):
            search.begin_anew()
            other, ending = climb(search, other, None)
            gain = other.loglik - best.loglik
            if ending == "converged" and gain > (HIGHER if reason == "converged" else -ROUNDING):
                best, reason = other, ending
            elif ending != "converged" and gain > ROUNDING:
                best, reason = other, ending  # what is below it is no maximum of the model
        if is_unbounded(ending) and other.loglik > best.loglik:
            return other, ending
        lost += ending != "converged"
        if search.stopped or lost >= (MOST_LOST if reason == "converged" else LOST):
            break
    return finished(search, best, reason)


def _is_worth_it(other: Point, best: Point, reason: str) -> bool:
    """Whether the maximum that a rough one leads to may be higher, and another one."""
    if other.height + other.decrement < best.height:
        return False
    return reason != "converged" or best.length(other.phi - best.phi) > SAME


def further_starts(search: Search, n_starts: int | None, n_drawn: int | None) -> list[Array]:
    """Search parameters to begin from besides the first.

    Parameters
    ----------
    n_starts, n_drawn : int or None
        As of `maximise`.
    """
    covariance = search.covariance
    known = covariance.other_starts()
    if n_starts is None:
        if search.problem.n_obs > FEW_ROWS:
            return []
        n_drawn = covariance.n_drawn if n_drawn is None else n_drawn
        n_starts = 1 + len(known) + n_drawn * (2 if search.problem.n_obs <= VERY_FEW_ROWS else 1)
    known = known[: n_starts - 1]
    return known + _drawn(search, n_starts - 1 - len(known))


def _drawn(search: Search, n: int) -> list[Array]:
    """The ``n`` points of highest likelihood among several times as many drawn at random."""
    rng = np.random.default_rng(1)  # the same fit whenever it is made
    points = []
    for _ in range(DRAWS * n):
        phi = search.covariance.drawn(rng)
        try:
            totals = totals_at(search.engine, search.covariance, phi, False)
            points.append((Evaluation(search.problem, totals).loglik, phi))
        except ConvergenceError:
            continue
    points.sort(key=lambda pair: -pair[0])
    return [phi for _, phi in points[:n]]
