"""Searches that are on their way to an end of a range: put next to it, and judged there.

Where a correlation goes to 1 or a variance to zero, the likelihood may have its supremum there, and
a search creeps towards it until R has no digits left. Next to the end, with those parameters held
where they are, the others have a maximum. One unit further on the log-likelihood either is the
same, and the maximum is on the boundary; or it rises by 1/2 or more for each dimension that the
model fits exactly (docs/residual.md, section 2), and there is no maximum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmmfast.arrays import Array
from lmmfast.engines.engine import totals_at
from lmmfast.errors import ConvergenceError
from lmmfast.residual.ends import End
from lmmfast.search.certificate import conclude
from lmmfast.search.objective import Evaluation
from lmmfast.search.optimum import Optimum
from lmmfast.search.scoring import DECREMENT_ROUNDING, FEW_ROWS, Point, Search, root_steps

#: What the reason of a search without a maximum begins with.
UNBOUNDED = "the likelihood grows without bound as "
#: Units to a variance of zero from where on a search that converged is tried there too.
NEARLY_THERE = 11.5
#: A rise of the log-likelihood over one unit, next to the end, that rounding and curvature explain,
#: and one of a likelihood that is level only where there are no digits left.
LEVEL, NEARLY_LEVEL = 1e-6, 1e-3
#: One that only a dimension without residuals explains.
RISING = 0.25
#: Rises over two units that differ by less than this part are on a straight line: at a maximum, and
#: before it, they differ by a third and more.
STRAIGHT = 0.02
#: A log-likelihood this much lower, as a part of itself, is not lower but for rounding: where a
#: search did not end, and where it did.
ROUNDING, SAME = 1e-7, 1e-11
#: Parts of the way onward over which the log-likelihood changes by rounding alone, and how much of
#: it that may be.
WIGGLES, LOST_DIGITS = (1e-9, 3e-9, 1e-8, 3e-8, 1e-7), 1e-8
#: Variances of random effects this many times the residual one are on the way to all of it, and
#: this many times are all of it, and this many times leave the residual one no digits.
ON_THE_WAY, ALL_OF_IT, NO_DIGITS = 1e4, 1e10, 1e15
#: Variances of random effects this many times the residual one may show that it goes to zero.
LARGE = 1e6
#: A decrement that only rounding keeps from falling further.
BY_ROUNDING = 1e-12
#: Variances of random effects, relative to the residual one, where the log-likelihood may have its
#: digits, if it has none beyond.
HAS_DIGITS = (1e9, 1e8, 1e7)
#: Evaluations for each end that is tried.
EVALUATIONS = 60
#: A search with a smaller decrement may be on a ridge that leads to a variance of zero.
ON_A_RIDGE = 1e-6


def settle(search: Search, point: Point, reason: str) -> tuple[Point, str]:
    """Judge a search that was on its way to an end, or that went past one.

    One that converged where a variance is next to nothing is put where it is nothing.

    Returns
    -------
    point : Point
        Next to the end, or as given.
    reason : str
        "converged", why there is no maximum, or as given.
    """
    ends = [] if search.stopped else search.covariance.ends(point.phi)
    if reason == "converged":
        ends = [e for e in ends if e.past or (e.is_variance and e.units < NEARLY_THERE)]
    for some in _choices(ends):
        found = _next_to(search, point, some, SAME if reason == "converged" else ROUNDING)
        if search.stopped:
            return point, reason
        if found is not None:
            return found
    search.held = point.held
    return point, reason


def finished(search: Search, point: Point, reason: str) -> tuple[Point, str]:
    """Last look at the end of all searches: ridges, digits, and a likelihood that still rises."""
    point, reason = with_digits(search, *off_the_ridge(search, point, reason))
    if reason == "converged" and search.problem.n_obs <= FEW_ROWS:
        reason = _judged_by_rounding(search, point)
    return point, named(search, point, reason)


def _judged_by_rounding(search: Search, point: Point) -> str:
    """Say "converged", or that rounding, which alone kept a decrement up, leaves too few digits."""
    if point.decrement < BY_ROUNDING:
        return "converged"
    near = (point.phi + part * point.scale for part in WIGGLES)
    lost = max(abs(_loglik(search, phi) - point.loglik) for phi in near)
    size = max(1.0, abs(point.loglik))
    if not LOST_DIGITS * size < lost < np.inf:
        return "converged"
    digits = int(np.clip(-np.log10(lost / size), 0, 15))
    return f"rounding leaves the log-likelihood {digits} digits: V is ill-conditioned"


def off_the_ridge(search: Search, point: Point, reason: str) -> tuple[Point, str]:
    """Find the maximum that a search without an end was near to, where a variance is zero.

    Returns
    -------
    point : Point
    reason : str
        "converged", or as given.
    """
    if reason == "converged" or point.decrement > ON_A_RIDGE:
        return point, reason
    zeros = search.covariance.with_zeros(point.phi)
    if point.D.size and (largest := point.D.max()) > ON_THE_WAY:
        zeros.insert(0, search.covariance.moved(point.phi, ALL_OF_IT / largest * point.D))
    others = [point]
    for phi in zeros:
        if search.stopped:
            break
        other, is_maximum = _at_zero(search, point, phi)
        if is_maximum:
            return other, "converged"
        others.append(other)
    # On the way from elsewhere along the same ridge, which is level but for rounding.
    others = [p for p in others if _is_nearly_there(p)]
    best = max(others, key=lambda p: p.loglik, default=point)
    if _is_nearly_there(point) and best is not point and best.loglik - point.loglik < LEVEL:
        return best, "converged"
    search.held = point.held
    return point, reason


def _is_nearly_there(point: Point) -> bool:
    """Whether the decrement of a point that no search ended at tells rounding alone."""
    return point.decrement <= DECREMENT_ROUNDING and point.smallest_eigenvalue > -1e-4


def named(search: Search, point: Point, reason: str) -> str:
    """Say that the residual variance goes to zero where the log-likelihood still rises with D."""
    # Beside residual structures D is relative to one of several variances, which may vanish alone.
    is_structured = search.covariance.longest_steps is not None
    is_judged = is_unbounded(reason) or (is_structured and reason == "converged")
    if is_judged or not point.D.size or point.D.max() < LARGE:
        return reason
    D, top = point.D, point.loglik
    if (
        D.max() > NO_DIGITS and not is_structured
    ):  # what is left of the residual variance is rounding: look before that
        D = ALL_OF_IT / D.max() * D
        top = _loglik(search, search.covariance.moved(point.phi, D))
    scaled = (search.covariance.moved(point.phi, np.exp(2 * k) * D) for k in (-2, -1, 1))
    lowest, lower, higher = (_loglik(search, phi) for phi in scaled)
    before, since = lower - lowest, top - lower
    is_straight = since > RISING and abs(since - before) < STRAIGHT * since
    if is_straight or _is_steady(since, higher - top):
        return UNBOUNDED + "the residual variance goes to zero"
    return reason


def second_look(search: Search, optimum: Optimum) -> Optimum:
    """Judge a compiled search over few rows that did not end, as those in Python are judged.

    Parameters
    ----------
    search : Search
        Of the same problem, without evaluations so far.
    """
    few = search.problem.n_obs <= FEW_ROWS and search.max_evaluations >= EVALUATIONS
    if optimum.reason == "converged" or not few:
        return optimum
    search.trace.extend(optimum.trace)
    search.begin_anew(EVALUATIONS)
    point = search.try_evaluate(optimum.phi, "second look")
    if point is None:
        return optimum
    point, reason = finished(search, point, optimum.reason)
    return optimum if reason == optimum.reason else conclude(search, point, reason)


def with_digits(search: Search, point: Point, reason: str) -> tuple[Point, str]:
    """Go back from where next to nothing is left of the residual variance to where l has digits.

    X'V^-1 X is ill-conditioned where fixed effects take what random effects leave.

    Returns
    -------
    point : Point
    reason : str
        As given, or that rounding leaves too few digits.
    """
    is_small = search.problem.n_obs <= FEW_ROWS and point.D.size > 0
    is_small &= search.covariance.longest_steps is None
    if reason != "converged" or not is_small or point.D.max() < HAS_DIGITS[-1]:
        return point, reason
    lost, size = _noise(search, point), max(1.0, abs(point.loglik))
    if lost <= LOST_DIGITS * size:
        return point, reason
    for largest in HAS_DIGITS:
        D = largest / point.D.max() * point.D
        back = search.try_evaluate(search.covariance.moved(point.phi, D), "back to digits")
        if back is None or abs(back.loglik - point.loglik) > 3 * lost + LEVEL:
            continue
        if _noise(search, back) <= LOST_DIGITS * size:
            return back, reason
    digits = int(np.clip(-np.log10(lost / size), 0, 15))
    why = "the residual variance is too small beside those of random effects"
    return point, f"rounding leaves the log-likelihood {digits} digits: {why}"


def _noise(search: Search, point: Point) -> float:
    """By how much rounding changes the log-likelihood."""
    near = (search.covariance.moved(point.phi, (1 + part) * point.D) for part in WIGGLES)
    return float(max(abs(_loglik(search, phi) - point.loglik) for phi in near))


def _at_zero(search: Search, point: Point, phi: Array) -> tuple[Point, bool]:
    """The end of a search where a variance is zero, and whether it is a maximum, not lower."""
    search.begin_anew(EVALUATIONS)
    other = search.try_evaluate(phi, "without a variance")
    if other is None:
        return point, False
    other, ending = root_steps(search, other)
    is_maximum = ending == "converged" or _is_all_of_it(search, other)
    return other, is_maximum and point.loglik - other.loglik < LEVEL


def _is_all_of_it(search: Search, point: Point) -> bool:
    """Whether nothing is to be gained by an even smaller residual variance, nor otherwise."""
    if not point.D.size or point.D.max() < 0.1 * ALL_OF_IT or point.decrement > DECREMENT_ROUNDING:
        return False
    rise = _loglik(search, search.covariance.moved(point.phi, np.exp(4) * point.D)) - point.loglik
    return abs(rise) < LOST_DIGITS * max(1.0, abs(point.loglik))


def is_unbounded(reason: str) -> bool:
    """Whether a search ended because there is no maximum."""
    return reason.startswith(UNBOUNDED)


def _choices(ends: Sequence[End]) -> list[list[End]]:
    """All ends together, then each alone, but for those that the search is past."""
    past, others = [e for e in ends if e.past], [e for e in ends if not e.past]
    if len(ends) < 2:
        return [list(ends)] if ends else []
    return [list(ends), *([*past, end] for end in others)]


def _next_to(
    search: Search, point: Point, some: Sequence[End], tolerance: float
) -> tuple[Point, str] | None:
    """The end of a search next to some ends; None where it is lower, or no maximum."""
    phi, held = search.covariance.at_ends(point.phi, some)
    search.begin_anew(EVALUATIONS)
    search.held = held
    other = search.try_evaluate(phi, "next to the end")
    if other is None:
        return None
    other, ending = root_steps(search, other)
    rises = [_rises(search, other, end) for end in some]
    rising = [
        _is_steady(*rise) or _is_rising(search, point, other, end)
        for end, rise in zip(some, rises, strict=True)
    ]
    if any(rising):
        texts = dict.fromkeys(end.text for end, is_so in zip(some, rising, strict=True) if is_so)
        return other, UNBOUNDED + " and ".join(texts)
    is_past = any(end.past for end in some)
    lost = 0.0 if is_past else point.loglik - other.loglik
    if ending != "converged" or lost > tolerance * max(1.0, abs(point.loglik)):
        return None
    slope = max(abs(first) for first, _ in rises)
    if slope > NEARLY_LEVEL:
        return None
    return other, _digits(search, other, some, slope if slope > LEVEL else 0.0)


def _digits(search: Search, point: Point, some: Sequence[End], lost: float) -> str:
    """Say "converged", or that rounding leaves the log-likelihood too few digits at some ends.

    Parameters
    ----------
    lost : float
        What is missing of the log-likelihood anyway: nearer to the end there are fewer digits.
    """
    for end in some:
        way = search.covariance.onward(point.phi, end, 1.0) - point.phi
        values = [_loglik(search, point.phi + part * way) for part in WIGGLES]
        lost = max(lost, float(np.max(np.abs(np.array(values) - point.loglik))))
    size = max(1.0, abs(point.loglik))
    if lost <= LOST_DIGITS * size:
        return "converged"
    digits = int(np.clip(-np.log10(lost / size), 0, 15))
    texts = dict.fromkeys(end.text for end in some)
    return f"rounding leaves the log-likelihood {digits} digits where {' and '.join(texts)}"


def _rises(search: Search, point: Point, end: End) -> tuple[float, float]:
    """By how much the log-likelihood rises one unit nearer to an end, and over the next one."""
    onward = search.covariance.onward
    near, nearer = (_loglik(search, onward(point.phi, end, units)) for units in (1.0, 2.0))
    return near - point.loglik, nearer - near


def _is_steady(first: float, second: float) -> bool:
    """Whether the log-likelihood rises alike over two units."""
    return RISING < first and abs(second - first) < 0.6 * first


def _is_rising(search: Search, point: Point, other: Point, end: End) -> bool:
    """Whether it did so over both halves of the way from a point to the one next to the end."""
    half = 0.5 * end.units
    if half < 1.0:
        return False
    middle = _loglik(search, search.covariance.onward(other.phi, end, -half))
    return min(other.loglik - middle, middle - point.loglik) > RISING * half


def _loglik(search: Search, phi: Array) -> float:
    try:
        totals = totals_at(search.engine, search.covariance, phi, False)
        return Evaluation(search.problem, totals).loglik
    except ConvergenceError:
        return -np.inf
