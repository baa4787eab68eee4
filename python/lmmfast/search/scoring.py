"""Maximise the profiled log-likelihood: Fisher scoring on D, then a trust region on its root.

Two kinds of steps (docs/algorithm.md, section 4):

1. *natural*: the Fisher scoring step on (vech D, sigma2), where V is linear. Converges in a few
   evaluations when there are many clusters and D is well inside its cone.
2. *root*: Newton's method in a trust region on the root parameters phi, D = Lambda Lambda', with
   the information in D pulled back. A zero variance is a stationary point inside; a saddle shows
   as a negative eigenvalue, which is followed.

Fits that nobody watches use the compiled search, the same in C++ (`lmmfast.search.optimum`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lmmfast.arrays import Array
from lmmfast.covariance.terms import BlockCovariance
from lmmfast.engines.engine import Engine, ResidualEngine, totals_at
from lmmfast.errors import ConvergenceError
from lmmfast.search.barrier import Barrier, metric
from lmmfast.search.objective import Evaluation, Problem
from lmmfast.search.optimum import STALLED, limit_reason, trace_entry
from lmmfast.tolerances import DECREMENT_TOLERANCE

logger = logging.getLogger("lmmfast")

# Where V is not linear in its parameters steps converge linearly; this is 3e-7 standard errors.
NONLINEAR_TOLERANCE = 1e-13
ROUGH_TOLERANCE = 0.1
# Where rounding stops the decrement from falling, it has to be below this.
DECREMENT_ROUNDING = 1e-8
# A scaled eigenvalue of the Hessian below this is a direction of ascent, not rounding.
SADDLE_TOLERANCE = 1e-7
# A natural step whose D leaves the cone is brought back to these eigenvalues, in the metric of the
# old D.
CONE_FLOOR = 0.02
# Up to this number of rows the likelihood is searched for other maxima.
FEW_ROWS = 500
MAX_KR_DOUBLES = 4_000_000
# Where V is not linear in its parameters: a step that leaves more than this part of the decrement
# is followed by steps with the Hessian from differences of the score, over this many standard
# errors.
SLOW = 0.03
HESSIAN_STEP = 1e-5
# Steps from a smaller decrement tell rounding, not curvature.
SECANT_END = 1e-12
# A step of which less than this part stays within the range of the parameters goes to its edge.
AT_EDGE = 0.1
EDGE = "the search came to the edge of the range of the residual covariance"
# Up to this many rows the information at the start is exact for REML: X may use up what little
# there is about a variance.
EXACT_START_ROWS = 10_000
# So many crossed effects at most.
EXACT_START_EFFECTS = 400


@dataclass(frozen=True)
class Point:
    """The model at one value of the root parameters.

    Attributes
    ----------
    g : ndarray (n_params,)
        Gradient of the log-likelihood by phi.
    values, vectors : ndarray
        Eigenvalues and -vectors of the negative Hessian in the metric of ``scale``.
    scale : ndarray (n_params,)
        Length of a unit of each parameter: about its standard error.
    decrement : float
        Newton decrement g'H^-1 g over the directions of negative curvature of the log-likelihood.
    flat : float
        Largest gradient, in standard errors, along directions in which the Hessian is not
        positive.
    H : ndarray (n_params, n_params)
        Negative Hessian of the log-likelihood.
    barrier : Barrier or None
        Included in the decrement, in ``values`` and ``vectors`` (not orthogonal then).
    raised : float
        What the barrier adds to the log-likelihood.
    W : ndarray (n_params, n_params) or None
        Metric of the barrier on top of ``scale``.
    is_exact : bool
        Whether H is from differences of the score.
    """

    phi: Array
    D: Array
    evaluation: Evaluation
    g: Array
    scale: Array
    values: Array
    vectors: Array
    decrement: float
    flat: float
    H: Array
    barrier: Barrier | None = None
    raised: float = 0.0
    W: Array | None = None
    is_exact: bool = False

    @property
    def loglik(self) -> float:
        """Profiled log-likelihood."""
        return self.evaluation.loglik

    @property
    def height(self) -> float:
        """What is maximised: the log-likelihood and, near an edge, the barrier."""
        return self.loglik + self.raised

    def length(self, step: Array) -> float:
        """Length of a step in standard errors."""
        scaled = step / self.scale
        return float(np.linalg.norm(scaled if self.W is None else np.linalg.solve(self.W, scaled)))

    @property
    def smallest_eigenvalue(self) -> float:
        """Smallest eigenvalue of the scaled negative Hessian."""
        return float(self.values[0]) if len(self.values) else np.inf


@dataclass
class Search:
    """The search so far: the function to maximise, the best point, the record of evaluations."""

    problem: Problem
    covariance: BlockCovariance
    engine: Engine | ResidualEngine
    max_evaluations: int = 200
    callback: Callable[[dict[str, Any]], None] | None = None
    with_kr: bool = False
    difference: bool = False
    barrier: Barrier | None = None
    stopped: bool = False
    secants: list[tuple[Array, Array]] = field(default_factory=list)
    trace: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.last = self.max_evaluations  # number of evaluations after which none may come

    @property
    def tolerance(self) -> float:
        """Newton decrement at which the search is over."""
        own = self.engine.traits.decrement_tolerance
        if own is not None:
            return own
        linear = self.covariance.longest_steps is None
        return DECREMENT_TOLERANCE if linear else NONLINEAR_TOLERANCE

    @property
    def learns(self) -> bool:
        """Whether steps correct the Hessian, because none that is exact is at hand."""
        return self.engine.traits.average_information or self.covariance.longest_steps is not None

    def evaluate(self, phi: Array, step: str, since: Point | None = None) -> Point:
        """Totals, likelihood and derivatives at phi; one entry of the trace.

        Parameters
        ----------
        since : Point, optional
            Where the step came from: the change of the gradient corrects the Hessian.

        Raises
        ------
        ConvergenceError
            There is no likelihood at phi, or no covariance matrix.
        """
        if not self.covariance.contains(phi):
            raise ConvergenceError("the residual covariance is not positive definite here")
        Lambda = self.covariance.Lambda(phi)
        totals = totals_at(self.engine, self.covariance, phi, self.with_kr)
        evaluation = Evaluation(self.problem, totals)
        H = self._differenced_hessian(phi, evaluation) if self.difference else None
        point = make_point(self.covariance, phi, Lambda, evaluation, H, self.barrier)
        if H is not None or self.barrier is not None:
            since = None
        if since is not None and SECANT_END < since.decrement < 1.0:
            self.secants.append((phi - since.phi, since.g - point.g))
            point = corrected(point, self.secants[-len(phi) :])
        entry = trace_entry(
            len(self.trace),
            step,
            point.loglik,
            point.decrement,
            point.smallest_eigenvalue,
            phi.copy(),
        )
        self.trace.append(entry)
        log_evaluation(entry)
        if self.callback is not None:
            try:
                self.callback(entry)
            except StopIteration:
                self.stopped = True
        return point

    def begin(self, phi: Array, step: str) -> Point:
        """Evaluate the first point; for REML of few clusters with its exact information.

        So too for few crossed effects: average information depends on the response, and could
        hide what the design tells apart.
        """
        n_effects = self.engine.traits.n_effects
        few = n_effects is not None and n_effects <= EXACT_START_EFFECTS
        self.with_kr = few or (self.kr_is_affordable and self.problem.n_obs <= EXACT_START_ROWS)
        point = self.evaluate(phi, step)
        self.with_kr = False
        return point

    def try_evaluate(self, phi: Array, step: str, since: Point | None = None) -> Point | None:
        """Evaluate where the likelihood may not exist."""
        try:
            return self.evaluate(phi, step, since)
        except ConvergenceError:
            return None

    def _differenced_hessian(self, phi: Array, evaluation: Evaluation) -> Array | None:
        """Negative Hessian by phi from differences of the exact score; None beside an edge.

        Where V is not linear in its parameters the observed information has second derivatives of
        V in it, which no engine sums. The passes it takes are not counted as evaluations.
        """
        J = self.covariance.jacobian(phi)
        g = J @ evaluation.score
        steps = HESSIAN_STEP * search_scale(self.covariance, phi, J, evaluation)
        columns = []
        for k, step in enumerate(steps):
            shifted = phi.copy()
            shifted[k] += step
            try:
                totals = totals_at(self.engine, self.covariance, shifted, False)
                there = Evaluation(self.problem, totals)
            except ConvergenceError:
                return None
            columns.append((g - self.covariance.jacobian(shifted) @ there.score) / step)
        H = np.array(columns)
        return (H + H.T) / 2

    @property
    def limit(self) -> str | None:
        """Why the search may not go on, if it may not."""
        if self.stopped:
            return "stopped by the callback"
        if len(self.trace) >= self.last:
            return limit_reason(self.max_evaluations)
        return None

    def begin_anew(self, most: int | None = None) -> None:
        """Forget what was learnt on the way so far; at most so many evaluations are to come."""
        most = self.max_evaluations if most is None else min(most, self.max_evaluations)
        self.difference, self.last = False, len(self.trace) + most

    @property
    def kr_is_affordable(self) -> bool:
        """Whether the block of second-order sums is of use and fits into memory with ease."""
        if self.engine.traits.average_information:
            return False
        if self.covariance.longest_steps is not None and not self.problem.reml:
            return False  # without it the information is exact too
        K, p1 = self.covariance.n_totals, len(self.problem.keep) + 1
        return K * K * p1 * p1 <= MAX_KR_DOUBLES


def log_evaluation(entry: dict[str, Any]) -> None:
    """Write an entry of the trace to the log."""
    logger.debug(
        "evaluation %d (%s): llf %.10g, decrement %.3g",
        entry["evaluation"],
        entry["step"],
        entry["llf"],
        entry["decrement"],
    )


def search_scale(
    covariance: BlockCovariance, phi: Array, J: Array, evaluation: Evaluation
) -> Array:
    """About the standard error of each search parameter, (n_params,).

    By the first derivatives where they are not zero, by the second ones where they are.
    """
    diag = np.sqrt(np.clip(np.diag(evaluation.totals.info), 0.0, None))
    metric = (J**2) @ diag**2 + np.einsum("ak,k->a", np.abs(covariance.own_bends(phi)), diag)
    scale = 1.0 / np.sqrt(np.where(metric > 0, metric, 1.0))
    return np.minimum(scale, covariance.longest_units)


def make_point(
    covariance: BlockCovariance,
    phi: Array,
    Lambda: Array,
    evaluation: Evaluation,
    H: Array | None = None,
    barrier: Barrier | None = None,
) -> Point:
    """Pull score and information back to the search parameters (eq. 4.4-4.6).

    Parameters
    ----------
    H : ndarray (n_params, n_params), optional
        Negative Hessian, where it is known otherwise.
    barrier : Barrier, optional
        What is maximised besides.
    """
    J = covariance.jacobian(phi)
    g = J @ evaluation.score
    is_exact = H is not None
    if H is None:
        exact = evaluation.totals.kr is not None and covariance.longest_steps is None
        info = evaluation.observed_info if exact else evaluation.profile_info
        H = J @ info @ J.T - covariance.bend(phi, evaluation.score)
    scale = search_scale(covariance, phi, J, evaluation)
    point = Point(
        phi=phi,
        D=Lambda @ Lambda.T,
        evaluation=evaluation,
        g=g,
        scale=scale,
        H=H,
        is_exact=is_exact,
        **_directions(H * np.outer(scale, scale), scale * g),
    )
    return point if barrier is None else raised(covariance, point, barrier)


def raised(covariance: BlockCovariance, point: Point, barrier: Barrier) -> Point:
    """Add a barrier to the height, the gradient and the Hessian of a point without one."""
    logdet, scale = covariance.log_determinant(point.phi), point.scale
    g = point.g + barrier.weight * logdet.g
    W, whitened = metric(logdet, barrier, scale)
    rest = (point.H + barrier.weight * np.diag(logdet.straight)) * np.outer(scale, scale)
    found = _directions(W @ rest @ W + whitened, W @ (scale * g))
    found["vectors"] = W @ found["vectors"]
    value = barrier.weight * logdet.value
    return replace(point, g=g, barrier=barrier, raised=value, W=W, **found)


def _directions(H: Array, g: Array) -> dict[str, Any]:
    """Eigenvalues and -vectors of a scaled negative Hessian, and the ascent that is left."""
    values, vectors = np.linalg.eigh(H)
    slopes = vectors.T @ g
    bent = values > SADDLE_TOLERANCE
    return {
        "values": values,
        "vectors": vectors,
        "decrement": float(np.sum(slopes[bent] ** 2 / values[bent])),
        "flat": float(np.max(np.abs(slopes[~bent]), initial=0.0)),
    }


def corrected(point: Point, secants: list[tuple[Array, Array]]) -> Point:
    """Correct the Hessian by the changes of the exact gradient over the last steps.

    Where V is not linear in its parameters, Fisher's information is not the Hessian, nor is average
    information, and steps with them converge linearly. Symmetric updates of rank one (Broyden 1967;
    Nocedal and Wright 2006, section 6.2) learn the difference along the steps. A matrix that comes
    out much less positive is not used: saddles are recognised by the information.

    Parameters
    ----------
    secants : list of (ndarray (n_params,), ndarray (n_params,))
        Steps and by how much the gradient fell over them, the last one ending at the point.
    """
    H = (point.vectors * point.values) @ point.vectors.T
    for step, fall in secants:
        s, y = step / point.scale, fall * point.scale
        missing = y - H @ s
        along = float(missing @ s)
        if abs(along) > 1e-8 * float(np.linalg.norm(missing) * np.linalg.norm(s)):
            H += np.outer(missing, missing) / along
    found = _directions(H, point.scale * point.g)
    least = 0.5 * point.smallest_eigenvalue
    return replace(point, **found) if found["values"][0] >= least > 0 else point


def climb(search: Search, point: Point, tolerance: float | None = None) -> tuple[Point, str]:
    """Find a maximum from one point.

    Parameters
    ----------
    tolerance : float, optional
        Newton decrement at which the search is over; default: that of the search.

    Returns
    -------
    point : Point
    reason : str
        "converged", or why the search stopped before.
    """
    if search.covariance.linear:
        point = _natural_steps(search, point, tolerance)
    return root_steps(search, point, tolerance)


def climb_from_known_starts(search: Search, point: Point) -> tuple[Point, str]:
    """Find a maximum from a point and, of few rows, from the other starts of the structures of D.

    The compiled search does the same, evaluation by evaluation, for models without a residual
    structure; `lmmfast.search.multistart` has the general one.

    Returns
    -------
    point : Point
    reason : str
        "converged", or why the search stopped before.
    """
    best, reason = climb(search, point)
    if search.problem.n_obs > FEW_ROWS or reason != "converged":
        return best, reason
    for phi in search.covariance.other_starts():
        other = search.try_evaluate(phi, "restart")
        if other is None:
            continue
        other, ending = climb(search, other)
        if ending == "converged" and other.loglik > best.loglik + 1e-9:
            best = other
        if search.limit is not None:
            break
    return best, reason


def is_optimal(point: Point, tolerance: float = DECREMENT_TOLERANCE) -> bool:
    """No ascent left: neither along the gradient nor, at a saddle, along a curve upwards."""
    return (
        point.decrement <= tolerance
        and point.flat <= np.sqrt(tolerance)
        and point.smallest_eigenvalue > -SADDLE_TOLERANCE
    )


def _natural_steps(search: Search, point: Point, tolerance: float | None) -> Point:
    """Fisher scoring on (vech D, sigma2) as long as it gains and stays within the cone."""
    floored = 0
    tolerance = search.tolerance if tolerance is None else tolerance
    while not is_optimal(point, tolerance) and search.limit is None and floored < 4:
        step = natural_step(search.covariance, point)
        if step is None:
            return point
        D, left_cone = step
        floored += left_cone
        new = search.try_evaluate(search.covariance.phi(D), "natural")
        if new is None or _is_worse(new, point, search.problem.n_obs):
            return point
        slow = new.decrement > 0.03 * point.decrement or search.learns
        point = new
        if slow and not left_cone and new.decrement < 1:
            return point
    return point


def _noise(point: Point, n_obs: int) -> float:
    """Rounding of a log-likelihood."""
    return 1e-12 * (abs(point.loglik) + n_obs)


def _is_worse(new: Point, old: Point, n_obs: int) -> bool:
    """Whether the log-likelihood fell, by more than rounding where the decrement fell too."""
    loss = old.loglik - new.loglik
    return loss > (_noise(old, n_obs) if new.decrement <= old.decrement else 0.0)


def natural_step(covariance: BlockCovariance, point: Point) -> tuple[Array, bool] | None:
    """D after one Fisher scoring step on its natural parameters and sigma2 (eq. 4.1-4.2).

    Returns
    -------
    D, left_cone
        The new D relative to the new sigma2, and whether its eigenvalues had to be floored in the
        metric of the old D; None where the information is singular.
    """
    D, evaluation = point.D, point.evaluation
    vech_D = D[covariance.pairs]
    C = covariance.natural_jacobian(D)
    J = np.zeros((len(C) + 1, C.shape[1] + 1))
    J[:-1, :-1], J[-1, -1] = C, 1.0
    info = J @ evaluation.joint_info(vech_D) @ J.T
    score = J @ evaluation.joint_score(vech_D)
    scale = np.sqrt(np.clip(np.diag(info), 0.0, None))
    if not (scale > 0).all():
        return None
    try:
        step = np.linalg.solve(info / np.outer(scale, scale), score / scale) / scale
    except np.linalg.LinAlgError:
        return None
    target = D + covariance.from_natural(step[:-1])
    target /= max(1.0 + step[-1], 0.1)
    return floor_eigenvalues(target, D)


def floor_eigenvalues(D: Array, old: Array, floor: float = CONE_FLOOR) -> tuple[Array, bool] | None:
    """D with its eigenvalues in the metric of ``old`` raised to a floor."""
    try:
        root = np.linalg.cholesky(old)
    except np.linalg.LinAlgError:
        return None
    whitened = np.linalg.solve(root, np.linalg.solve(root, D).T)
    values, vectors = np.linalg.eigh((whitened + whitened.T) / 2)
    if values[0] >= floor:
        return D, False
    root = root @ vectors
    return (root * np.maximum(values, floor)) @ root.T, True


def root_steps(search: Search, point: Point, tolerance: float | None = None) -> tuple[Point, str]:
    """Newton's method on phi in a trust region; follows negative curvature away from saddles."""
    radius = np.inf
    stalled = 0
    search.secants.clear()
    if tolerance is None:
        tolerance = search.tolerance
    while not is_optimal(point, tolerance):
        if search.limit is not None:
            return point, search.limit
        search.with_kr = search.kr_is_affordable and point.decrement < 1.0
        step, predicted = trust_step(point, radius)
        part = search.covariance.part_within(point.phi, step)
        if part < AT_EDGE and search.barrier is None:
            return point, EDGE
        step, predicted = shortened(search.covariance, point, step, predicted, part)
        new = search.try_evaluate(point.phi + step, "root", point if search.learns else None)
        length = point.length(step)
        noise = _noise(point, search.problem.n_obs)
        gain = -np.inf if new is None else new.height - point.height
        if new is not None and (gain > 1e-3 * predicted or abs(gain) <= noise):
            stalled = stalled + 1 if new.decrement > 0.5 * point.decrement else 0
            if gain > 0.7 * predicted:
                radius = max(radius, 3 * length)
            elif gain < 0.25 * predicted and predicted > noise:
                radius = 0.5 * length
            slow = new.decrement > SLOW * point.decrement
            if search.covariance.longest_steps is not None:
                search.difference |= slow and new.decrement < 1.0
            better = new.decrement <= point.decrement or gain > noise
            if better or abs(gain) <= noise:
                point = new if better else point
            if stalled >= 4 and predicted <= noise and point.decrement <= DECREMENT_ROUNDING:
                break
        else:
            radius = 0.25 * length
            stalled += 1
            if length < 1e-12:
                break
    if not is_optimal(point, tolerance) and not (
        point.decrement <= DECREMENT_ROUNDING and point.smallest_eigenvalue > -1e-4
    ):
        return point, STALLED
    return point, "converged"


def shortened(
    covariance: BlockCovariance, point: Point, step: Array, predicted: float, t: float = 1.0
) -> tuple[Array, float]:
    """Shorten a step to a part t, or to less if it goes too far in a logarithm or an angle."""
    if covariance.longest_steps is None:
        return step, predicted
    t = float(np.min(covariance.longest_steps / np.maximum(np.abs(step), 1e-300), initial=t))
    if t >= 1:
        return step, predicted
    slope = float(point.g @ step)
    bend = slope - predicted  # half of step' H step
    return t * step, t * slope - t * t * bend


def trust_step(point: Point, radius: float) -> tuple[Array, float]:
    """Step of at most ``radius`` standard errors, and the gain that the quadratic model predicts.

    Directions of the wrong curvature are turned round (the step goes up along them); on a saddle,
    where the gradient says nothing, the step goes as far as the curvature suggests.
    """
    slopes = point.vectors.T @ (point.scale * point.g)
    values = point.values
    size = np.maximum(np.abs(values), 1e-8)
    if np.isinf(radius) and values[0] < -SADDLE_TOLERANCE:
        radius = max(1.0, 3 * float(np.linalg.norm(point.phi / point.scale)))
    move = slopes / size
    if values[0] < -SADDLE_TOLERANCE:
        kick = np.sqrt(2 * -values[0])
        if abs(move[0]) < 0.1 * kick:
            move[0] = np.copysign(kick, move[0])
    norm = float(np.linalg.norm(move))
    if norm > radius:
        low, high = 0.0, float(np.linalg.norm(slopes)) / radius + 1e-8
        for _ in range(50):
            middle = 0.5 * (low + high)
            move = slopes / (size + middle)
            low, high = (middle, high) if np.linalg.norm(move) > radius else (low, middle)
        move = slopes / (size + high)
        if norm > 0 and float(np.linalg.norm(move)) < 0.1 * radius and values[0] < 0:
            move[0] = np.copysign(radius, slopes[0])
    predicted = float(slopes @ move - 0.5 * values @ move**2)
    return point.scale * (point.vectors @ move), predicted
