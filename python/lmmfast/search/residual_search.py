"""Maximise the likelihood of a model with a residual structure, up to the edge of its range."""

from __future__ import annotations

from lmmfast.search.at_the_ends import settle
from lmmfast.search.barrier import Barrier
from lmmfast.search.scoring import ROUGH_TOLERANCE, Point, Search, make_point, root_steps

#: Weights of the barrier; the likelihood is short of its maximum at the edge by about the last.
WEIGHTS = (1e-1, 3e-3, 1e-4, 3e-6, 1e-7, 3e-9, 1e-10)
#: Smallest eigenvalue of the residual correlations where the way along the edge begins.
ROOM = 0.1


def climb(search: Search, point: Point, tolerance: float | None = None) -> tuple[Point, str]:
    """Find a maximum from one point.

    Parameters
    ----------
    tolerance : float, optional
        Newton decrement at which the search is over within the range; default: that of the search.

    Returns
    -------
    point : Point
    reason : str
        "converged", or why the search stopped before.
    """
    point, reason = root_steps(search, point, tolerance)
    if search.covariance.is_bounded:
        if reason == "converged" or search.limit is not None:
            return point, reason
        return _along_the_edge(search, point, reason)
    return (point, reason) if tolerance is not None else settle(search, point, reason)


def climb_roughly(search: Search, point: Point) -> Point:
    """Climb to a third of a standard error from a maximum, or to the edge of the range."""
    return root_steps(search, point, ROUGH_TOLERANCE)[0]


def _along_the_edge(search: Search, point: Point, reason: str) -> tuple[Point, str]:
    """Follow the maximum under a barrier of falling weight, to the edge or back from it."""
    search.difference = True
    search.barrier = Barrier(WEIGHTS[0], WEIGHTS[0])
    phi = search.covariance.well_inside(point.phi, ROOM)
    begun = search.try_evaluate(phi, "from the edge")
    if begun is None:
        search.barrier = None
        return point, reason
    point, last = begun, WEIGHTS[0]
    for weight in WEIGHTS:
        Lambda = search.covariance.Lambda(point.phi)
        falling = Barrier(weight, last)
        H = point.H if point.is_exact else None
        point = make_point(search.covariance, point.phi, Lambda, point.evaluation, H, falling)
        search.barrier = Barrier(weight, weight)
        tolerance = None if weight == WEIGHTS[-1] else ROUGH_TOLERANCE * weight
        point, reason = root_steps(search, point, tolerance)
        if reason != "converged":
            break
        last = weight
    search.barrier = None
    return point, reason
