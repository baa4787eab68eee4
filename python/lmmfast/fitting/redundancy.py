"""Directions of the variance parameters in which the likelihood does not change.

Where the expected information has no rank in some directions, all points along them are maxima
alike (docs/algorithm.md, section 6). With ``identifiable="warn"`` the fit is the one in the middle,
and what the data do tell are sums of variances.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lmmfast.arrays import Array
from lmmfast.covariance.joint import JointCovariance
from lmmfast.engines.engine import totals_at
from lmmfast.errors import DataError
from lmmfast.fitting.start import given_residual_starts, given_start
from lmmfast.packing.basis import Basis
from lmmfast.residual import definitions
from lmmfast.residual.inverse import working
from lmmfast.search.certificate import conclude, snap_to_boundary
from lmmfast.search.estimates import estimates, parameter_units, theta_information
from lmmfast.search.information import NO_WEIGHT, flat_directions, moved_by
from lmmfast.search.objective import Evaluation
from lmmfast.search.optimum import Optimum
from lmmfast.search.scoring import Point, Search, root_steps

#: Moves to the middle; where directions are straight, as those of variances are, one is enough.
MOVES = 30
#: A move that changes variances by less than this part is the last.
SETTLED = 1e-8
#: A variance of D counts as this part of the residual variance at least.
LEAST = 1e-9
#: Steps along the directions are about a tenth of variances, and of this part of the residual one.
SMALL = 1e-3


@dataclass(frozen=True)
class Redundancy:
    """What the data tell of parameters that they cannot tell apart.

    Attributes
    ----------
    names : list of str
        Sums of variances and covariances, such as ``"var(T|subject) + var(Residual|T)"``.
    weights : ndarray (n_sums, n_theta)
        Of theta in each sum.
    undetermined : list of str
        Parameters of which the data say nothing, in no sum either.
    """

    names: list[str]
    weights: Array
    undetermined: list[str]

    def values(self, theta: Array) -> Array:
        """Return the sums at a theta (n_theta,)."""
        return np.asarray(self.weights @ theta)

    def __str__(self) -> str:
        """Return the end of the certificate's status."""
        others = ", ".join(self.undetermined)
        if not self.names:
            return f"not separable: nothing of {others}"
        return f"not separable: only {', '.join(self.names)}" + (
            f", not {others}" if others else ""
        )


def conclude_in_the_middle(
    search: Search,
    point: Point,
    reason: str,
    n_flat: int,
    basis: Basis,
    judge: Callable[[Point, str], str] = lambda point, reason: reason,
) -> Optimum:
    """Judge the end of a search; of maxima along ``n_flat`` directions, take the middle one.

    Parameters
    ----------
    judge : callable
        What else there is to say about the reason for which the search ended, at the point.
    """
    if n_flat and reason == "converged":
        search.begin_anew()
        point = _to_the_middle(search, point, n_flat, basis)
    point = snap_to_boundary(search, point)
    return replace(conclude(search, point, judge(point, reason)), n_flat=n_flat)


def find_redundancy(names: Sequence[str], directions: Array, jacobian: Array) -> Redundancy:
    """Put into words what is known of parameters that cannot be told apart.

    Parameters
    ----------
    names : sequence of str (n_theta,)
    directions : ndarray (n_flat, k)
        By (natural parameters of D, kappa, sigma2).
    jacobian : ndarray (n_theta, k)
        Derivatives of theta by these.
    """
    moves, moved = moved_by(directions, jacobian)
    additive = np.array([name.startswith(("var(", "cov(")) for name in names])
    rows = np.flatnonzero(moved & additive)
    found = _sums(moves[:, rows])
    weights = np.zeros((len(found), len(names)))
    weights[:, rows] = found
    known = (weights != 0).any(axis=0)
    return Redundancy(
        [_written(row, names) for row in weights],
        weights,
        [name for k, name in enumerate(names) if moved[k] and not known[k]],
    )


def _sums(moves: Array) -> Array:
    """Weights (r, k) of sums of k parameters that no direction (n_flat, k) moves, few in each."""
    n = moves.shape[1]
    size = np.linalg.norm(moves, axis=1)
    moves = moves[size > 0] / size[size > 0, None]
    _, values, rows = np.linalg.svd(moves)
    rank = int(np.sum(values > NO_WEIGHT))
    rest = rows[rank:].copy()
    row = 0
    for column in range(n):  # reduced echelon form: each begins with a parameter of its own
        if row == len(rest):
            break
        best = row + int(np.argmax(np.abs(rest[row:, column])))
        if abs(rest[best, column]) <= NO_WEIGHT:
            continue
        rest[[row, best]] = rest[[best, row]]
        rest[row] /= rest[row, column]
        others = np.arange(len(rest)) != row
        rest[others] -= np.outer(rest[others, column], rest[row])
        row += 1
    near = np.round(rest)
    rest = np.where(np.abs(rest - near) < NO_WEIGHT, near, rest)
    return rest[(rest != 0).any(axis=1)]


def _written(weights: Array, names: Sequence[str]) -> str:
    text = ""
    for k in np.flatnonzero(weights):
        sign = "-" if weights[k] < 0 else "+"
        factor = "" if abs(weights[k]) == 1 else f"{abs(weights[k]):.6g} "
        text += f" {sign} {factor}{names[int(k)]}"
    return text.removeprefix(" + ").strip()


# -- the middle ------------------------------------------------------------------------------------


def _to_the_middle(search: Search, point: Point, n_flat: int, basis: Basis) -> Point:
    """Go along the flat directions to where the determinants of D and R are largest.

    Where two variances have a known sum, both are half of it; no variance is zero and no
    correlation one unless the likelihood says so.
    """
    line = _Line(search, point, n_flat, basis)
    for _ in range(MOVES):
        phi, change = line.best()
        if phi is None or change < SETTLED:
            break
        new = search.try_evaluate(phi, "middle")
        if new is None:
            break
        new, reason = root_steps(search, new)
        if reason != "converged" or new.loglik < point.loglik - 1e-9 * (1 + abs(point.loglik)):
            break
        there = _Line(search, new, n_flat, basis)
        if not there.room > line.room:  # an end of the range is in the way
            break
        point, line = new, there
    return point


class _Line:
    """The flat directions at a point, on the user's scale, and how much room points on them have.

    Steps are coordinates (n_flat,) along them, of one for about a tenth of a variance.
    """

    def __init__(self, search: Search, point: Point, n_flat: int, basis: Basis) -> None:
        self.covariance, self.basis = search.covariance, basis
        self.values = _user_scale(search, point, basis)
        totals = totals_at(search.engine, search.covariance, point.phi, _wants_kr(search))
        evaluation = Evaluation(search.problem, totals)
        D = self.values[0]
        info = theta_information(evaluation, basis, self.covariance, point.D, D)
        units = parameter_units(basis, self.covariance, evaluation.sigma2, D)
        jacobian = self.covariance.theta_jacobian(self.values[2], point.phi)
        moves = flat_directions(info, n_flat, units, jacobian)[0] @ jacobian.T
        k = self.covariance.n_random
        C = self.covariance.natural_jacobian(D)
        pairs = self.covariance.pairs
        dD = np.zeros((len(moves), self.covariance.q, self.covariance.q))
        dD[:, *pairs] = dD[:, pairs[1], pairs[0]] = moves[:, :k] @ C
        d_tail = moves[:, k:]
        diagonal = np.concatenate([np.diag(D), self.values[1]])
        change = np.concatenate([np.diagonal(dD, axis1=1, axis2=2), d_tail], axis=1)
        relative = np.abs(change) / np.maximum(np.abs(diagonal), SMALL * self.values[2])
        unit = 0.1 / np.max(relative, axis=1, initial=1e-300)
        self.dD, self.d_tail = dD * unit[:, None, None], d_tail * unit[:, None]

    @property
    def room(self) -> float:
        """How much room there is at the point itself."""
        return self._room(np.zeros(len(self.dD)))

    def at(self, step: Array) -> tuple[Array, Array]:
        """D and the parameters of the residuals."""
        D, tail, _ = self.values
        return D + np.einsum("a,aij->ij", step, self.dD), tail + step @ self.d_tail

    def best(self) -> tuple[Array | None, float]:
        """Search parameters of the point with most room, and how far away it is."""
        from scipy.optimize import minimize

        n = len(self.dD)
        if n == 0:
            return None, 0.0
        corners = np.vstack([np.zeros(n), np.eye(n)])
        found = minimize(
            lambda step: -self._room(step),
            np.zeros(n),
            method="Nelder-Mead",
            options={
                "initial_simplex": corners,
                "xatol": 1e-9,
                "fatol": 1e-15,
                "maxiter": 400 * n,
            },
        )
        if not -found.fun > self.room:
            return None, 0.0
        D, tail = self.at(found.x)
        theta = np.append(self.covariance.natural(D), tail)
        try:
            if isinstance(self.covariance, JointCovariance):
                phi = given_residual_starts(self.covariance, self.basis, theta)[0]
            else:
                phi = given_start(self.covariance, self.basis, theta)
        except DataError:
            return None, 0.0
        return phi, 0.1 * float(np.abs(found.x).max())

    def _room(self, step: Array) -> float:
        """Log determinants of D and of the residuals, -inf out of the range."""
        D, tail = self.at(step)
        least = LEAST * self.values[2]
        total = 0.0
        for columns in self.covariance.columns:
            values = np.linalg.eigvalsh(D[columns, columns])
            if values[0] < -least:
                return -np.inf
            total += float(np.log(np.maximum(values, 0.0) + least).sum())
        if isinstance(self.covariance, JointCovariance):
            return total + _residual_room(self.covariance, tail)
        return total + float(np.log(tail[0])) if tail[0] > 0 else -np.inf


def _residual_room(covariance: JointCovariance, tail: Array) -> float:
    """Logarithms of the residual variances and of the determinants of their correlations."""
    parameters = covariance.residual
    try:
        kappa, _ = working(parameters, tail)
    except DataError:
        return -np.inf
    kind = None if parameters.correlation is None else parameters.correlation.kind
    total = 0.0
    for natural, value in zip(parameters.names(), tail, strict=True):
        if natural.scale in ("variance", "range"):
            total += np.log(value) if value > 0 else -np.inf
        elif natural.scale == "fraction":
            total += np.log(value * (1 - value)) if 0 < value < 1 else -np.inf
    if kind in definitions.TABLES:
        for stratum in parameters.strata:
            C = definitions.TABLES[kind](kappa[stratum.psi], parameters.T)
            sign, value = np.linalg.slogdet(C)
            total += value if sign > 0 else -np.inf
    return float(total)


def _wants_kr(search: Search) -> bool:
    return search.problem.reml or search.engine.traits.average_information


def _user_scale(search: Search, point: Point, basis: Basis) -> tuple[Array, Array, float]:
    """D, the parameters of the residuals and sigma2."""
    optimum = conclude(search, point, "converged")
    found = estimates(optimum, search.problem.keep, basis, search.covariance)
    return found.D, found.theta[search.covariance.n_random :], found.sigma2
